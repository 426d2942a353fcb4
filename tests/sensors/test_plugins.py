"""Sensors and profiles of catalogues that other packages bring by entry points."""

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from xcloudmask import sensors
from xcloudmask.errors import OptionError
from xcloudmask.sensors import _plugins
from xcloudmask.stac import profiles
from xcloudmask.stac.view import view_item
from xcloudmask.types import Band, Sensor

CAMERA = Sensor("toy-camera", "A toy", (Band("1", "red"), Band("2", "nir")), aliases=("toycam",))
#: An alias that belongs to a sensor of ours.
THIEF = Sensor("thief", "A toy", (Band("1", "red"),), aliases=("landsat-8",))
NONSENSE = 3
FILES: dict[str, str] = {}

TOML = """
name = "toy-file"
title = "A toy in a file"
source = "none"
platforms = ["toysat-1"]
[[bands]]
name = "B1"
common_name = "red"
"""

PROFILE = """
[products.toy]
calibration = "stated"
sensor = "toy-camera"
reflectance = { scale = 0.5, nodata = 7 }

[products.sentinel-2]
reflectance = { scale = 99 }

[[profiles]]
catalogue = "toy-catalogue"
collections = ["toy-*"]
product = "toy"
level = "toa"
"""


def sensor_file() -> str:
    return FILES["sensor"]


def profile_file() -> Path:
    return Path(FILES["profile"])


def broken_file() -> Path:
    return Path(FILES["broken"])


CACHED = (sensors._installed, profiles._data, profiles._profiles)


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """Install entry points in the place of those that are there."""
    for name, text in (("sensor", TOML), ("profile", PROFILE), ("broken", PROFILE.replace("level", "lvl"))):
        FILES[name] = str(tmp_path / f"{name}.toml")
        Path(FILES[name]).write_text(text)

    def install(**groups):
        def entries(group):
            found = groups.get(group.rpartition(".")[2], {})
            return [EntryPoint(name, f"{__name__}:{value}", group) for name, value in found.items()]

        monkeypatch.setattr(_plugins, "entry_points", entries)
        for cached in CACHED:
            cached.cache_clear()

    yield install
    for cached in CACHED:
        cached.cache_clear()


def test_entry_points_are_sensors(installed):
    installed(sensors={"one": "CAMERA", "two": "sensor_file"})
    assert {"toy-camera", "toy-file", "sentinel-2a"} <= set(sensors.names())
    assert sensors.get("Toycam") is CAMERA
    assert sensors.get("toy-file").title == "A toy in a file"
    assert sensors.identify("toysat-1").name == "toy-file"
    assert sensors.identify("TOY_CAMERA") is CAMERA


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("THIEF", "'landsat-8' already belongs to sensor 'landsat-8'"),
        ("NONSENSE", "(AttributeError|TypeError)"),
        ("absent", "AttributeError"),
        ("profile_file", "unknown field"),
    ],
)
def test_a_broken_package_breaks_no_other_sensor(installed, value, words):
    installed(sensors={"one": value, "two": "CAMERA"})
    with pytest.warns(UserWarning, match=rf"entry point .*:{value} of group xcloudmask\.sensors .*{words}"):
        assert sensors.get("landsat-8").name == "landsat-8"
    assert sensors.get("toycam") is CAMERA
    with pytest.raises(OptionError, match="unknown sensor 'thief'"):
        sensors.get("thief")


def test_entry_points_are_profiles(installed):
    installed(sensors={"one": "CAMERA"}, profiles={"toy": "profile_file"})
    item = {"id": "x", "collection": "toy-l1", "properties": {}, "assets": {}}
    profile = profiles.find_profile(view_item(item))
    assert (profile.catalogue, profile.level) == ("toy-catalogue", "toa")
    assert profile.numbers["reflectance"].scale == 0.5
    assert profiles.sensor_of(view_item(item), profile) is CAMERA
    ours = view_item({**item, "collection": "sentinel-2-c1-l2a"})
    assert profiles.find_profile(ours).numbers["reflectance"].scale == 1e-4  # products of ours stay ours


def test_a_broken_profile_breaks_no_other(installed):
    installed(profiles={"bad": "broken_file", "worse": "NONSENSE", "toy": "profile_file"})
    item = {"id": "x", "collection": "toy-l1", "properties": {}, "assets": {}}
    with pytest.warns(UserWarning, match="cannot be used") as caught:
        assert profiles.find_profile(view_item(item)).catalogue == "toy-catalogue"
    messages = [str(warning.message) for warning in caught]
    assert [":broken_file " in messages[0], ":NONSENSE " in messages[1], len(messages)] == [True, True, 2]
    assert "of group xcloudmask.profiles cannot be used: KeyError: 'level'" in messages[0]
