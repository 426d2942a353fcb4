"""The page's code runs as it is printed, on a scene with its classification."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from tests.stac.scenes import Site
from tests.stac.test_product_masks import ours, with_scl

PAGE = Path(__file__).parents[2] / "docs" / "geozarr.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    site = Site(tmp_path, str(tmp_path))
    item, codes = with_scl(site)
    item["links"] = [{"rel": "self", "href": str(tmp_path / "item.json")}]
    times = ["2024-05-12T10:10:31", "2024-05-17T10:10:31"]
    mask = ours(site, times).assign_coords(item_id=("time", ["other", item["id"]]))
    mask.cloudmask.to_zarr("bare.zarr", progress=False)
    names: dict[str, Any] = {"xcloudmask": xcloudmask, "xr": xr, "mask": mask, "items": [item]}
    assert len(BLOCKS) == 6
    for number, block in enumerate(BLOCKS):
        code = block.replace("overviews=True", "overviews=(2, 4)")  # 288 pixels ask for one
        exec(compile(code, f"{PAGE} {number}", "exec"), names)
    assert names["far"].shape == (2, 72, 72)
    assert {"/", "/overviews/2", "/overviews/4"} <= set(names["levels"])
    assert set(names["pyramid"].groups) == {"/", "/2", "/4"}
    with pytest.raises(ValueError, match=r"/overviews/2' is not aligned with its parents"):
        xr.open_datatree("masks.zarr", engine="zarr")
    out = capsys.readouterr().out
    assert "EPSG:32632 [10.0, 0.0, 600000.0, 0.0, -10.0, 4900020.0] [288, 288]" in out
    assert "overviews/4/cloud_mask [72, 72]" in out
    derived = [link.href for link in names["collection"].links if link.rel == "derived_from"]
    assert derived == [str(tmp_path / "item.json")]
    assert (tmp_path / "catalogue/masks/collection.json").exists()
    np.testing.assert_array_equal(names["again"].cloud_mask, mask)
    assert set(np.unique(names["theirs"])) <= {0, 1, 2, 3, 4, 5, 255}
    assert codes.any()


def test_the_picture_is_small() -> None:
    assert PAGE.with_name("pyramid.png").stat().st_size < 250_000
