"""`xcloudmask clean`: the steps of Python, in the order written."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.cli.test_cli import main, problem, raster, read
from xcloudmask.masks.write import write
from xcloudmask.tidy.clean import clean


def specks() -> xr.DataArray:
    """A mask with clouds of one pixel and of several, and a gap."""
    values = (np.random.default_rng(0).random((60, 70)) < 0.04).astype("u1")
    values[20:30, 20:26], values[40:44, :30], values[:, 66:] = 1, 3, 255
    coords = {"y": 4.9e6 - 30.0 * np.arange(60), "x": 6e5 + 30.0 * np.arange(70)}
    flags = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data", "model": "a"}
    return xr.DataArray(values, dims=("y", "x"), coords=coords, attrs=flags).rio.write_crs("EPSG:32632")


@pytest.mark.parametrize("ending", ["tif", "zarr"])
def test_steps_are_those_of_python_in_their_order(
    tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask, made = specks(), tmp_path / f"m.{ending}"
    write(mask.rename("cloud_mask"), made)
    found = []
    for number, (words, steps) in enumerate([
        (["--sieve", "5", "--buffer", "60 m"], {"sieve": 5, "buffer": "60 m"}),
        (["--buffer", "60 m", "--sieve", "5"], {"buffer": "60 m", "sieve": 5}),
        (["--buffer", "cloud=60 m,cloud_shadow=3"], {"buffer": {"cloud": "60 m", "cloud_shadow": 3}}),
        (["--buffer", "2", "--sieve", "9", "--buffer", "1"], [("buffer", 2), ("sieve", 9), ("buffer", 1)]),
    ]):  # fmt: skip
        out = tmp_path / f"c{number}.tif"
        assert main(["clean", str(made), str(out), *words]) == 0
        expected = clean(mask, steps)
        found.append(read(out)[0])
        np.testing.assert_array_equal(found[-1], expected.values)
        assert (found[-1][:, 66:] == 255).all()
        assert re.search(r"clear \d", " ".join(capsys.readouterr().out.split()))
        assert main(["info", str(out)]) == 0
        assert f"cleaned: {expected.attrs['cleaned'][:12]}" in " ".join(capsys.readouterr().out.split())
    for one, other in itertools.combinations([*found, mask.values], 2):
        assert not np.array_equal(one, other), "else the case shows nothing"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 1, "no step is given"),
        (["--buffer", "cloud="], 2, "CLASS=SIZE"),
        (["--buffer", "clowd=2"], 2, "did you mean 'cloud'"),
        (["--sieve", "1 furlong"], 2, "'1 furlong'"),
        (["--bufer", "1"], 2, "Did you mean '--buffer'"),
    ],
)
def test_problems_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    specks().cloudmask.to_geotiff(tmp_path / "m.tif")
    found, line = problem(capsys, "clean", str(tmp_path / "m.tif"), str(tmp_path / "c.tif"), *words)
    assert says in line
    assert found == code
    assert not (tmp_path / "c.tif").exists()


def test_what_is_no_mask_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = raster(tmp_path / "s.tif")
    for path in (scene, tmp_path / "none.tif"):
        code, line = problem(capsys, "clean", str(path), str(tmp_path / "c.tif"), "--buffer", "1")
        assert code == 1
        assert "holds no mask, or is not there. Name what predict or stream wrote" in line
