"""A patch written from xarray is what training reads: pixels, labels, bands and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.train.conftest import BANDS, patch
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.train import train, write_patch
from xcloudmask.train.files import find, read_patch
from xcloudmask.train.plan import Plan

SMALL = {"width": 8, "hidden": 8}
FLAGS = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}


def scene_of(seed: int = 1, **how: Any) -> xr.DataArray:
    """The scene that a patch of the tests holds, as reflectance with gaps."""
    stored, _ = patch(seed)
    values = np.where(stored == 65535, np.nan, stored / 1e4)
    place = {"band": BANDS, "y": 15.0 - 30 * np.arange(48), "x": 30.0 * np.arange(48)}
    da = xr.DataArray(values, dims=("band", "y", "x"), coords=place)
    return da.cloudmask.describe("landsat-8", **{"level": "L1TP", **how})


def mask_of(seed: int = 1) -> xr.DataArray:
    codes = np.where(patch(seed)[1] == 6, 1, 0).astype("u1")
    da = xr.DataArray(codes, dims=("y", "x"), attrs=FLAGS)
    return da.assign_coords(y=15.0 - 30 * np.arange(48), x=30.0 * np.arange(48))


def test_a_patch_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_patch(tmp_path / "mine" / "a.npz", scene_of(0), mask_of())
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CloudMaskError, match="No space left"):
        write_patch(path, scene_of(1), mask_of())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_scene_and_its_mask_come_back(tmp_path: Path) -> None:
    scene = scene_of()
    path = write_patch(tmp_path / "train" / "mine" / "a.npz", scene, mask_of())
    (entry,) = find(tmp_path / "train")
    assert (entry.path, entry.source, entry.scene) == (path, "mine", "mine/a")
    sample = entry.read()
    np.testing.assert_allclose(sample.image, scene.values, atol=5.1e-5)
    assert np.isnan(sample.image[:, :, -1]).all()
    assert [band.common_name for band in sample.bands] == BANDS
    assert (sample.gsd, sample.level) == (30.0, "toa")
    clear, cloud = 1 | 16 | 32 | 64 | 8, 6  # a mask of clear and cloud has no word for shadow
    np.testing.assert_array_equal(sample.possible[:, :-1], np.where(mask_of() == 1, cloud, clear)[:, :-1])
    assert not sample.possible[:, -1].any()


def test_labels_may_be_codes_bit_masks_or_none(tmp_path: Path) -> None:
    scene, codes = scene_of(), mask_of().values
    bits = patch(1)[1]
    marked = xr.DataArray(bits.T, dims=("x", "y"), attrs={"flag_masks": [1, 2, 4, 8, 16, 32, 64]})
    for name, labels, classes, expected in (
        ("codes", codes + 7, {7: "clear", 8: "cloud"}, np.where(codes == 1, 6, 121)),
        ("some", codes, {1: "cloud"}, np.where(codes == 1, 6, 0)),
        ("bits", bits, None, bits),
        ("turned", marked, None, bits),
        ("none", None, None, np.zeros_like(bits)),
    ):
        path = write_patch(tmp_path / f"{name}.npz", scene, labels, classes=classes, name="one")
        np.testing.assert_array_equal(read_patch(path).possible[:, :-1], expected[:, :-1])
        assert read_patch(path).scene == "one"
        with np.load(path) as file:
            assert ("possible" in file.files) == (labels is not None)


def test_stored_numbers_are_scaled_as_predict_scales_them(tmp_path: Path) -> None:
    stored, bits = patch(1)
    counts = xr.DataArray(stored, dims=("band", "y", "x"), coords={"band": BANDS})
    counts = counts.cloudmask.describe("landsat-8", level="L2SP", scale=2e-4, offset=-0.1, nodata=65535)
    sample = read_patch(write_patch(tmp_path / "a.npz", counts, bits, pixel_size=30))
    expected = np.where(stored == 65535, np.nan, np.clip(stored * 2e-4 - 0.1, 0, None))
    np.testing.assert_allclose(sample.image, expected, atol=5.1e-5)
    assert sample.level == "boa"
    plain = xr.DataArray(stored, dims=("band", "y", "x"), coords={"band": BANDS})
    with pytest.raises(CloudMaskError, match="scale"):
        write_patch(tmp_path / "b.npz", plain, bits, sensor="landsat-8", level="L1C", pixel_size=30)


def test_what_was_written_trains(tmp_path: Path) -> None:
    for seed in range(3):
        write_patch(tmp_path / "train" / "mine" / f"{seed}.npz", scene_of(seed), mask_of(seed))
    plan = Plan.of({
        "name": "a", "data": {"batch": 2, "length": 30, "dev": 0.3}, "recipe": {"size": 16, "pixels": 32},
        "network": {"architecture": "spectral", "classes": ["clear", "cloud"], "settings": SMALL},
        "loop": {"epochs": 2, "rate": 1e-2, "device": "cpu"},
    })  # fmt: skip
    record = train(plan, data=tmp_path, out=tmp_path / "out")
    assert (record["files"], record["steps"]) == (2, 60)
    assert record["chosen_on"]["all"]["score"] > 0.95


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    scene, mask = scene_of(), mask_of()
    bare = xr.DataArray(scene.values, dims=("band", "y", "x"), coords={"band": BANDS})
    thermal = scene_of().assign_coords(kind=("band", ["reflectance"] * 5 + ["sar"]))
    for scene_, labels, how, match in (
        (bare, mask, {"pixel_size": 30}, "pass sensor="),
        (bare, mask, {"pixel_size": 30, "sensor": "landsat-8"}, "pass level="),
        (bare, mask.values, {"sensor": "landsat-8", "level": "L1C"}, "pixel size"),
        (scene, mask.values[1:], {}, r"shape \(47, 48\), the scene's pixels \(48, 48\)"),
        (scene, mask.assign_coords(x=mask.x + 30), {}, "reproject_match"),
        (scene, mask.drop_attrs(), {}, "flag_values"),
        (scene, mask.values.astype(float), {}, "uint8 bit masks"),
        (scene, mask.values, {"classes": {0: "cleer"}}, "did you mean 'clear'"),
        (scene, mask, {"sensor": "landsat-88"}, "did you mean 'landsat-8'"),
        (scene, mask, {"level": "L9"}, "unknown level"),
        (thermal, mask, {}, r"\(sar\) has no place in a patch"),
    ):
        with pytest.raises((CloudMaskError, OptionError, BandError), match=match):
            write_patch(tmp_path / "a.npz", scene_, labels, **how)
    with pytest.raises(CloudMaskError, match=r"ends in \.npz"):
        write_patch(tmp_path / "a.tif", scene, mask)
    assert not list(tmp_path.iterdir())
