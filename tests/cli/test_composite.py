"""`xcloudmask composite`: what Python gives for the same dates, as a picture or a store of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from tests.cli.test_cli import NAMES, PLACE, UNITS, main, problem, raster, read, reference, toy
from xcloudmask.accessor import CloudMask

__all__ = ["toy"]
pytestmark = pytest.mark.skipif(not hasattr(CloudMask, "composite"), reason="this library has no composites")
DAYS = ("2026-05-01", "2026-05-11", "2026-06-01")
WORDS = [*UNITS, "--model", "toy", "--quiet"]


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    """Three dates, each with other numbers."""
    paths = [raster(tmp_path / f"{day}.tif", (60, 70)) for day in DAYS]
    for number, path in enumerate(paths):
        with rasterio.open(path, "r+") as file:
            pixels = file.read()
            file.write(np.where(pixels == 0, 0, np.roll(pixels, 7 * number, axis=2)).astype("u2"))
    return paths


def expected(scenes: list[Path], **how: object) -> xr.DataArray:
    each = [reference(path) for path in scenes]
    scene = xr.concat(
        each, xr.Variable("time", np.array(DAYS, "M8[ns]")), coords="minimal", compat="override"
    )
    mask = scene.cloudmask.predict("toy")
    numbers = scene.astype("f4") * np.float32(1e-4)
    return numbers.cloudmask.composite(mask, **how)


def test_a_picture_of_all_dates_is_that_of_python(scenes: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    assert main(["composite", *map(str, scenes), str(out), *WORDS]) == 0
    found = read(out)
    np.testing.assert_allclose(found, expected(scenes).squeeze("time").values, rtol=1e-5)
    assert np.isnan(found[:, 20:60, 30:70]).all(), "where no date holds data"
    assert np.isfinite(found).any()
    with rasterio.open(out) as file:
        assert (file.transform, file.crs.to_epsg(), file.descriptions) == (PLACE, 32632, NAMES)
        assert np.isnan(file.nodata)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_periods_go_into_a_store_and_masks_may_be_given(
    scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, out, again = (str(tmp_path / name) for name in ("masks.zarr", "out.zarr", "again.zarr"))
    words = ["composite", *map(str, scenes), out, "--by", "month", "--method", "latest", *WORDS]
    assert main(words) == 0
    want = expected(scenes, method="latest", by="month")
    found = xr.open_zarr(out, consolidated=False, decode_coords="all").reflectance
    np.testing.assert_allclose(found.values, want.values, rtol=1e-5)
    np.testing.assert_array_equal(found.time.values, np.array(["2026-05-01", "2026-06-01"], "M8[ns]"))
    assert found.rio.crs.to_epsg() == 32632
    assert main(["stream", *map(str, scenes), masks, *WORDS]) == 0
    words[words.index(out)] = again
    assert main([*words, "--mask", masks]) == 0
    np.testing.assert_allclose(
        xr.open_zarr(again, consolidated=False).reflectance.values, want.values, rtol=1e-5
    )
    late = raster(tmp_path / "2026-07-01.tif", (60, 70))
    words[words.index(again)] = str(tmp_path / "more.zarr")
    code, line = problem(capsys, *words[:1], late, *words[1:], "--mask", masks)
    assert code == 1
    assert "masks.zarr holds no mask of 2026-07-01T00:00:00. Mask these scenes, too" in line


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--by", "month"], 2, "2 periods go into a .zarr"),
        (["--method", "mean"], 2, "unknown"),
        (["--mask", "none.zarr"], 1, "none.zarr holds no mask"),
    ],
)
def test_problems_are_one_line(
    scenes: list[Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    found, line = problem(capsys, "composite", *scenes, tmp_path / "o.tif", *WORDS, *words)
    assert says in line
    assert found == code
    assert not (tmp_path / "o.tif").exists()


def test_other_grids_are_refused(
    scenes: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = raster(tmp_path / "2026-07-01.tif", (60, 71))
    code, line = problem(capsys, "composite", *scenes, other, tmp_path / "o.tif", *WORDS)
    assert (code, "different grids" in line) == (1, True)
