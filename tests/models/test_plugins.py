"""Models of other packages, found by entry points."""

from importlib.metadata import EntryPoint

import pytest

from xcloudmask import models
from xcloudmask.errors import CloudMaskError
from xcloudmask.models import plugins
from xcloudmask.testing import TOY


def other():
    return TOY


@pytest.fixture
def installed(monkeypatch):
    def entries(group):
        assert group == "xcloudmask.models"
        found = {
            "toy": "xcloudmask.testing:TOY",
            "called": "tests.models.test_plugins:other",
            "broken": "no_such_package:SPEC",
            "nothing": "xcloudmask.testing:loads",
        }
        return [EntryPoint(name, value, group) for name, value in found.items()]

    monkeypatch.setattr(plugins, "entry_points", entries)
    monkeypatch.setattr(models, "_registry", {})
    for cached in (plugins._found, plugins.read):
        cached.cache_clear()
    yield
    for cached in (plugins._found, plugins.read):
        cached.cache_clear()


def test_entry_points_are_models(installed):
    assert {"toy", "called", "broken", "nothing"} <= set(models.list())
    assert models.get("toy") is TOY
    with pytest.raises(CloudMaskError, match="cannot be imported: No module named 'no_such_package'"):
        models.get("broken")
    for name in ("called", "nothing"):
        with pytest.raises(CloudMaskError, match="must be a ModelSpec of that name"):
            models.get(name)
    with pytest.raises(CloudMaskError, match="did you mean 'called'"):
        models.get("caled")
