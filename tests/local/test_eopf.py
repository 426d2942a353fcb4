"""`open` on EOPF stores: everything is the store's own, unless the caller says otherwise."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import xarray as xr
import zarr

import xcloudmask
from tests.eopf_stores import GEOZARR, L1C, L2A, Counting, needs_eopf, pixels, reflectance, write
from xcloudmask.errors import AssetError, CloudMaskError, UnitError
from xcloudmask.stac import zarr_store
from xcloudmask.stac.eopf import product_item
from xcloudmask.stac.transport import Transport
from xcloudmask.testing import TOY


@needs_eopf
@pytest.mark.parametrize(("product", "level"), [(L1C, "L1C"), (L2A, "L2A"), (GEOZARR, "L2A")])
def test_a_store_is_opened_by_its_path_alone(eopf_store, product, level):
    da = xcloudmask.open(eopf_store(product))
    assert da.sizes == {"time": 1, "band": 6, "y": 180, "x": 180}
    assert da.attrs["level"] == {"L1C": "toa", "L2A": "boa"}[level]
    assert da.item_id.item() == (L1C if level == "L1C" else L2A)
    elevation = {"L1C": 22.4813, "L2A": 40.6951}[level]  # of the root's attributes, or of mean_sun_angles
    assert da.sun_elevation.item() == pytest.approx(elevation, abs=1e-3)
    assert da.sun_azimuth.item() == pytest.approx({"L1C": 164.5012, "L2A": 163.5959}[level], abs=1e-3)
    for band, name in (("blue", "b02"), ("nir", "b08")):
        raw = pixels(level, name, 180)
        expected = np.where(raw == 0, np.nan, raw * 1e-4 - 0.1)
        np.testing.assert_allclose(da.sel(band=band)[0], expected, atol=1e-6)


@needs_eopf
def test_open_gives_the_mask_that_the_tree_gives(eopf_store):
    opened = xcloudmask.open(eopf_store(L1C), chunks=50).cloudmask.predict(TOY)
    tree = xr.open_datatree(eopf_store(L1C), engine="zarr").cloudmask.predict(TOY)
    assert opened[0].values.tobytes() == tree.values.tobytes()


@needs_eopf
def test_cirrus_of_level_1c_is_there_though_catalogues_list_none(eopf_store):
    da = xcloudmask.open(eopf_store(L1C), bands=["B10", "b8A", "rededge075"])
    assert da.band.values.tolist() == ["cirrus", "nir08", "rededge075"]
    assert da.sizes["x"] == 90
    assert len(np.unique(da.sel(band="cirrus")[0, :6, :6])) <= 4  # 60 m, repeated


@needs_eopf
def test_the_caller_wins(eopf_store):
    plain = xcloudmask.open(eopf_store(L2A), bands=["red"])
    given = xcloudmask.open(
        eopf_store(L2A), bands=["red"], scale=2e-4, offset=0.1, sun_elevation=12, sensor="sentinel-2c",
        date="2020-01-02",
    )  # fmt: skip
    np.testing.assert_allclose(given, (plain + 0.1) * 2 + 0.1, atol=1e-5)
    assert (given.sun_elevation.item(), given.sensor.item(), str(given.time.values[0])[:10]) == (
        12.0, "sentinel-2c", "2020-01-02",
    )  # fmt: skip
    with pytest.raises(UnitError, match="says it is BOA"):
        xcloudmask.open(eopf_store(L2A), level="L1C")


@needs_eopf
def test_a_store_without_the_name_of_its_product_has_no_date(eopf_store, tmp_path):
    shutil.copytree(eopf_store(GEOZARR) / "measurements", tmp_path / "renamed.zarr" / "measurements")
    zarr.create_group(tmp_path / "renamed.zarr", overwrite=False)
    da = xcloudmask.open(tmp_path / "renamed.zarr")  # its metadata are not consolidated, either
    assert np.isnat(da.time.values).all()
    assert (da.attrs["level"], da.attrs["sensor"]) == ("boa", "sentinel-2a")


@needs_eopf
def test_a_store_that_is_written_again_is_read_again(eopf_store, tmp_path):
    path = tmp_path / f"{L2A}.zarr"
    shutil.copytree(eopf_store(L2A), path)
    before = xcloudmask.open(path, bands=["red"]).compute()
    array = zarr.open_array(path / "measurements/reflectance/r10m/b04", mode="r+")
    array[:] = np.where(array[:] == 0, 0, array[:] + 10)
    np.testing.assert_allclose(xcloudmask.open(path, bands=["red"]), before + 0.001, atol=1e-6)


@pytest.mark.services
def test_an_address_without_a_store_is_named(web_server):
    with pytest.raises(AssetError, match=r"/no\.zarr: cannot be opened as Zarr.*Check the address"):
        xcloudmask.open(f"{web_server.url}/no.zarr")


@needs_eopf
def test_a_level_that_nothing_tells_is_the_callers(tmp_path):
    """Without a name, long_name and the root's attributes there is the caller alone."""
    path = write(tmp_path / "a.zarr", GEOZARR, only="measurements/reflectance/r20m")
    root = zarr.open_group(path, mode="r+")
    root.attrs["stac_discovery"] = {"properties": {"product:type": "S02MSIL2A"}}
    for _, array in root["measurements/reflectance/r20m"].arrays():
        array.attrs["long_name"] = ""
    stored = json.loads((path / "zarr.json").read_text())
    del stored["consolidated_metadata"]
    (path / "zarr.json").write_text(json.dumps(stored))
    assert xcloudmask.open(path, level="L1C", bands=["red"]).attrs == {"level": "toa", "sensor": "sentinel-2"}


def test_other_stores_are_refused_with_what_reads_them(tmp_path):
    with pytest.raises(AssetError, match=r"no\.zarr: cannot be opened as Zarr.*Check the address"):
        xcloudmask.open(tmp_path / "no.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(
        CloudMaskError, match=r"other\.zarr: this Zarr store is no Sentinel-2 product.*xr\.open_zarr"
    ):
        xcloudmask.open(tmp_path / "other.zarr")
    with pytest.raises(CloudMaskError, match=r"open\(\) reads files of this machine"):
        xcloudmask.open("https://example.com/a.tif")


@needs_eopf
def test_nothing_is_read_while_opening_and_each_chunk_once_for_30_m(eopf_store, monkeypatch):
    """In chunks of the result that are not the store's, through threads; metadata and coordinates apart."""
    stores = []

    def counted(url, transport):
        stores.append(Counting(url, read_only=True))
        return stores[-1]

    monkeypatch.setattr(zarr_store, "read_only_store", counted)
    path = str(eopf_store(L2A))
    for opened in (lambda: xcloudmask.open(path, resolution=30, chunks=17), lambda: load_at(path, 30, 17)):
        zarr_store._group.cache_clear(), zarr_store._raster.cache_clear()
        monkeypatch.setattr(zarr_store, "_KEPT", zarr_store._Kept(2**20))
        stores.clear()
        da = opened()
        mask = da.cloudmask.predict(TOY)
        assert sum(store.pixels().total() for store in stores) == 0
        da.compute(), mask.compute()
        read = sum((store.pixels() for store in stores), start=Counter())
        assert set(read) == {"r20m/b02", "r20m/b03", "r20m/b04", "r10m/b08", "r20m/b11", "r20m/b12"}
        assert read.total() <= 0.35 * reflectance(eopf_store(L2A))


def load_at(path, resolution, chunks):
    item = product_item(path, Transport())
    return xcloudmask.load_stac(item, resolution=resolution, chunks=chunks)


def test_decoded_blocks_are_made_once_and_few_are_kept():
    kept = zarr_store._Kept(3 * 80)
    made = Counter()

    def make(name):
        made[name] += 1
        return np.zeros(10)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: kept.get(name, partial(make, name)), "ab" * 20))
    assert made == {"a": 1, "b": 1}
    for name in "cdef":
        kept.get(name, partial(make, name))
    assert len(kept._blocks) == 3
    assert kept._making == {}
    kept.get("a", partial(make, "a"))
    assert made["a"] == 2


@needs_eopf
def test_a_path_from_home_is_opened(eopf_store, monkeypatch):
    store = eopf_store(L2A)
    monkeypatch.setenv("HOME", str(store.parent))
    assert xcloudmask.open(f"~/{store.name}", bands=["red"]).sizes["x"] == 180
