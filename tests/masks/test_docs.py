"""The page's code runs as it is printed."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from xcloudmask.testing import TOY

PAGE = Path(__file__).parents[2] / "docs" / "after.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


def test_the_code_of_the_page_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    codes = np.zeros((120, 120), "u1")
    codes[30:60, 40:80], codes[100, 100], codes[45, 50] = 1, 1, 0
    axis = 5.0 + 10 * np.arange(120)
    mask = xr.DataArray(codes, dims=("y", "x"), coords={"y": -axis, "x": axis}, attrs={
        "flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"})  # fmt: skip
    scene = xr.ones_like(mask, dtype="f4").drop_attrs()
    layer = xr.DataArray(np.where(codes[::2, ::2] == 1, 9, 4).astype("u1"), dims=("y", "x"), coords={
        "y": -axis[::2] - 5, "x": axis[::2] + 5})  # fmt: skip
    asset = {"classification:classes": [{"value": 4, "name": "vegetation"}, {"value": 9, "name": "cloud"}]}
    names = {"xcloudmask": xcloudmask, "mask": mask, "scene": scene, "layer": layer, "asset": asset}
    names |= {"masks": mask.expand_dims("time").chunk(y=60), "scenes": scene.expand_dims("time").chunk(y=60)}
    pixels = np.broadcast_to(np.where(codes == 1, 0.6, 0.2).astype("f4"), (2, 120, 120))
    reflectance = xr.DataArray(pixels, dims=("band", "y", "x"), coords=mask.coords)
    names["reflectance"] = reflectance.cloudmask.describe(bands=["red", "nir"], level="L2A")
    names["model"] = TOY
    assert len(BLOCKS) == 10
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert re.search(r"kappa 0\.\d\d|kappa 1\.00", capsys.readouterr().out)
    assert names["clean"].values[45, 50] == 1
    assert names["clean"].values[100, 100] == 0
    assert (tmp_path / "clean.zarr").is_dir()
    assert np.isnan(names["same"].values[100, 100])
    np.testing.assert_array_equal(names["theirs_too"].values, xcloudmask.masks.decode(layer, "scl").values)
    mpl.pyplot.close("all")


def test_the_table_of_the_page_names_every_product() -> None:
    from xcloudmask.masks.products import NAMES

    rows = re.findall(r"^\| `(\w+)`(?:, `(\w+)`)? \|", TEXT, re.M)
    named = {name for row in rows for name in row if name}
    steps = {"hysteresis", "close", "open", "buffer", "sieve", "fill"}
    assert named - steps - set(xcloudmask.models.names()) == set(NAMES) - {"cld", "msk_cldprb"}


def test_the_picture_is_small() -> None:
    assert PAGE.with_name("after.png").stat().st_size < 250_000
