"""What conda is told is what pip is told, by conda-forge's names."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from xcloudmask import models
from xcloudmask._version import __version__
from xcloudmask.errors import WeightsError
from xcloudmask.models.network import load_network

ROOT = Path(__file__).parents[1]
NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "dask": "dask-core"}
#: On PyPI only.
LACKING = {"ukis-csmask"}
EXTRAS = ("odc", "s3", "local", "plot", "icechunk", "gateway")


def named(requirements: list[Any]) -> dict[str, str]:
    """Packages and versions, by conda-forge's names."""
    out: dict[str, str] = {}
    for text in (each for each in requirements if isinstance(each, str)):
        name, extras, version = re.fullmatch(r"([\w.-]+)(\[.*\])?\s*(.*)", text).groups()  # type: ignore[union-attr]
        out[NAMES.get(name, name).replace("pytorch-cpu", "pytorch")] = version
        if extras and "distributed" in extras:
            out["distributed"] = version
    return out


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def test_the_environment_has_what_pyproject_asks_for() -> None:
    given = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    extras = [each for name in EXTRAS for each in project()["optional-dependencies"][name]]
    wanted = {name: v for name, v in named(project()["dependencies"] + extras).items() if name not in LACKING}
    found = named(given)
    assert found.pop("python") == project()["requires-python"]
    found.pop("pip")
    assert found == wanted
    assert named(next(each["pip"] for each in given if isinstance(each, dict))).keys() == LACKING


def test_the_recipe_has_what_pyproject_asks_for() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())
    assert recipe["context"]["version"] == __version__
    assert f">={recipe['context']['python_min']}" == project()["requires-python"]
    run = named([each for each in recipe["requirements"]["run"] if not each.startswith("python ")])
    assert run == {k: v for k, v in named(project()["dependencies"]).items() if k not in LACKING}
    every = [each for extra in project()["optional-dependencies"].values() for each in extra]
    constraints = named(recipe["requirements"]["run_constraints"])
    assert constraints.items() <= named(every).items()
    (script,) = recipe["build"]["python"]["entry_points"]
    assert script == f"xcloudmask = {project()['scripts']['xcloudmask']}"


def test_weights_that_a_channel_lacks_are_named_with_the_line_that_installs_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("xcloudmask.models.network.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install 'ukis-csmask>=1\.0,<2'.*--no-deps"):
        load_network(models.get("ukis-4band-l2a"))
