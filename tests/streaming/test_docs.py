"""The guide's code runs as it is printed, on a small scene and a few items."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from tests.streaming.helpers import described
from tests.streaming.items import make_item

GUIDE = Path(__file__).parents[2] / "docs" / "stream.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.network
@pytest.mark.slow
def test_the_code_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("icechunk")
    monkeypatch.chdir(tmp_path)
    values = np.random.default_rng(2).random((1, 4, 300, 280), dtype=np.float32)
    scene = described(values, ["blue", "green", "red", "nir"]).cloudmask.describe(level="L2A")
    keys = ("blue", "green", "red", "nir")
    items = [make_item(tmp_path, f"S2A_{day}", f"2026-05-0{day}", keys=keys) for day in (1, 3, 5)]
    names: dict[str, Any] = {"xcloudmask": xcloudmask, "xr": xr, "scene": scene, "search": items}
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        exec(compile(block, str(GUIDE), "exec"), names)
    mask = scene.cloudmask.predict().values
    for store in ("masks.zarr", "cluster.zarr"):
        np.testing.assert_array_equal(xr.open_zarr(store).cloud_mask.values, mask)
    np.testing.assert_array_equal(names["mask"].values, mask)
    assert names["series"].sizes["time"] == 3
