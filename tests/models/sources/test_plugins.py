"""Models of other packages, found by entry points."""

from importlib.metadata import EntryPoint

import pytest

from tests.scenes import noise, scene
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError
from xcloudmask.models import registry
from xcloudmask.models.lookup import readable as readable_cards
from xcloudmask.models.sources import plugins
from xcloudmask.testing import TOY


def other():
    return TOY


@pytest.fixture
def installed(monkeypatch):
    def entries(group):
        assert group == "xcloudmask.models"
        found = {
            "toy": "xcloudmask.testing:TOY",
            "called": "tests.models.sources.test_plugins:other",
            "broken": "no_such_package:SPEC",
            "nothing": "xcloudmask.testing:loads",
            "absent": "xcloudmask.testing:NO_SUCH_CARD",
        }
        return [EntryPoint(name, value, group) for name, value in found.items()]

    monkeypatch.setattr(plugins, "entry_points", entries)
    monkeypatch.setattr(registry, "registered", {})
    for cached in (plugins._found, plugins.read):
        cached.cache_clear()
    yield
    for cached in (plugins._found, plugins.read):
        cached.cache_clear()


def test_entry_points_are_models(installed):
    assert {"toy", "called", "broken", "nothing"} <= set(models.names())
    assert models.get("toy") is TOY
    with pytest.raises(CloudMaskError, match="cannot be imported: No module named 'no_such_package'"):
        models.get("broken")
    for name in ("called", "nothing"):
        with pytest.raises(CloudMaskError, match="must be a ModelSpec of that name"):
            models.get(name)
    with pytest.raises(CloudMaskError, match="did you mean 'called'"):
        models.get("caled")


def test_a_broken_package_breaks_no_other_model(installed, capsys):
    with pytest.raises(CloudMaskError, match="cannot be imported: AttributeError"):
        models.get("absent")
    readable = [spec.name for spec in readable_cards()]
    assert readable == [
        name for name in models.names() if name not in ("absent", "broken", "called", "nothing")
    ]
    assert "toy" in readable
    da = scene(noise(2, 40, 40), ["red", "nir"])
    with pytest.raises(CloudMaskError, match="has one member"):
        da.cloudmask.predict_proba(TOY, uncertainty=True)
    with pytest.raises(CloudMaskError, match="has no use for the aux input elevation"):
        da.cloudmask.predict(TOY, aux={"dem": da[0]})
    assert main(["models"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "cannot be read: model 'broken' comes from no_such_package:SPEC" in out
    assert "toy " in out
