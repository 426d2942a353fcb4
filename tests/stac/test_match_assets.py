"""Which of several copies of a band is read: by the pixel size that is asked for, or by its key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from affine import Affine

from tests.stac.helpers import equal
from tests.stac.scenes import sentinel2
from xcloudmask.stac import load_stac
from xcloudmask.stac.match_assets import match_item


def cdse() -> dict[str, Any]:
    """Keys, sizes and roles as the Copernicus Data Space gives them."""
    copies = [("B01", 20, "upsampled"), ("B01", 60, "original"), ("B02", 10, "original"),
              ("B02", 20, "downsampled"), ("B02", 60, "downsampled"), ("B11", 20, "original"),
              ("B11", 60, "downsampled")]  # fmt: skip
    assets = {
        f"{band}_{size}m": {
            "href": f"s3://eodata/{band}_{size}m.jp2",
            "gsd": size,
            "roles": ["data", "reflectance", f"sampling:{sampling}", f"gsd:{size}m"],
            "bands": [{"name": band}],
        }
        for band, size, sampling in copies
    }
    return {"id": "x", "properties": {"platform": "sentinel-2a"}, "assets": assets}


@pytest.mark.parametrize(
    ("pixel", "read"),
    [
        (None, ["B01_60m", "B02_10m", "B11_20m"]),
        (10, ["B01_60m", "B02_10m", "B11_20m"]),
        (20, ["B01_60m", "B02_20m", "B11_20m"]),
        (50, ["B01_60m", "B02_20m", "B11_20m"]),  # those of 60 m are coarser than what is asked for
        (60, ["B01_60m", "B02_60m", "B11_60m"]),
        (300, ["B01_60m", "B02_60m", "B11_60m"]),
    ],
)
def test_the_copy_nearest_in_size_is_read_that_is_no_coarser(pixel: float | None, read: list[str]) -> None:
    assert [choice.asset.key for choice in match_item(cdse(), pixel).choose()] == read


def test_a_copy_that_is_named_is_read() -> None:
    item = cdse()
    item["assets"] |= {key: {"href": f"{key}.tif"} for key in ("blue", "blue-jp2")}
    keys = [choice.asset.key for choice in match_item(item, keys=["B02_20m"]).choose(["B02"])]
    assert keys == ["B02_20m"]
    assert match_item(item, keys=["blue-jp2"]).choose(["blue"])[0].asset.key == "blue-jp2"


@pytest.mark.parametrize("kind", ["resolution", "like", "degrees", "key"])
def test_load_stac_reads_it(site: Any, kind: str) -> None:
    scene = sentinel2(site, "cdse")
    fine = load_stac([scene.item], bands=["blue"])
    pixels = scene.expected["blue"][::2, ::2]
    stored = np.where(np.isnan(pixels), 0, (pixels + 0.1) * 1e4).round().astype("u2") + 7
    place = Affine(20, 0, fine.rio.bounds()[0], 0, -20, fine.rio.bounds()[3])
    href, _ = site.write("coarse.tif", stored, place, "EPSG:32632", nodata=7)
    coarse = scene.item["assets"]["B02_20m"]
    coarse |= {"href": href, "nodata": 7, "proj:shape": list(pixels.shape), "proj:transform": list(place)[:6]}
    grid: dict[str, dict[str, Any]] = {
        "resolution": {"resolution": 20}, "degrees": {"resolution": 20 / 111_320, "crs": 4326},
        "like": {"like": load_stac([scene.item], bands=["swir16"])}, "key": {},
    }  # fmt: skip
    da = load_stac([scene.item], bands=["B02_20m" if kind == "key" else "blue"], **grid[kind])
    assert da.band.values.tolist() == ["blue"]
    assert da.band_name.values.tolist() == ["B02"]
    if kind != "degrees":
        equal(da[0, 0], pixels + 7e-4)
    else:  # the last digit tells which file it is
        found = np.round(da.values[np.isfinite(da.values)] * 1e4).astype(int)
        assert np.isin(found, np.round((pixels[np.isfinite(pixels)] + 7e-4) * 1e4).astype(int)).all()
