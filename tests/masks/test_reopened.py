"""A mask that was written comes back as a mask, from GeoTIFF, netCDF and Zarr."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray
import xarray as xr

import xcloudmask
from tests.scenes import noise, scene
from xcloudmask.errors import BandError
from xcloudmask.testing import TOY

SCENE = scene(noise(2, 64, 64), ["red", "nir"]).rio.write_crs(32632)
OPENERS = {
    "GeoTIFF": ("mask.tif", lambda path: rioxarray.open_rasterio(path)),
    "GeoTIFF, NaN": ("mask.tif", lambda path: rioxarray.open_rasterio(path, masked=True)),
    "GeoTIFF, squeezed": ("mask.tif", lambda path: rioxarray.open_rasterio(path).squeeze()),
    "GeoTIFF, variables": ("mask.tif", lambda path: rioxarray.open_rasterio(path, band_as_variable=True)),
    "netCDF": ("mask.nc", xr.open_dataset),
    "netCDF, array": ("mask.nc", xr.open_dataarray),
    "Zarr": ("mask.zarr", xr.open_zarr),
    "store": ("store.zarr", xr.open_zarr),
}


@pytest.fixture(scope="module")
def mask() -> xr.DataArray:
    return SCENE.cloudmask.predict(TOY, threshold=0.4)


@pytest.fixture(scope="module")
def folder(mask: xr.DataArray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("masks")
    mask.cloudmask.to_geotiff(path / "mask.tif")
    mask.cloudmask.to_zarr(path / "mask.zarr", progress=False)
    mask.to_netcdf(path / "mask.nc")
    mask.chunk().cloudmask.to_zarr(path / "store.zarr", progress=False)
    return path


@pytest.mark.parametrize("form", OPENERS)
def test_it_is_a_mask_with_classes_and_provenance(form: str, folder: Path, mask: xr.DataArray) -> None:
    name, opener = OPENERS[form]
    back: Any = opener(folder / name)  # type: ignore[no-untyped-call]
    shown = " ".join(repr(back.cloudmask).split())
    assert shown.startswith("<cloudmask> mask ")
    assert " ! " not in shown
    assert "0 clear" in shown
    assert "3 cloud_shadow" in shown
    assert "scheme default" in shown
    assert "toy 1" in shown
    assert "windows of 32, overlap 8; inferred at 30 m; cloud from 0.4" in shown
    assert float(back.cloudmask.clear_fraction()) == pytest.approx(float(mask.cloudmask.clear_fraction()))
    layer = back if isinstance(back, xr.DataArray) else back[next(iter(back.data_vars))]
    layer = layer.assign_attrs({**back.attrs, **layer.attrs})
    np.testing.assert_array_equal(SCENE.cloudmask.apply(layer), SCENE.cloudmask.apply(mask))


def test_a_mask_with_a_band_dimension_is_drawn_and_is_no_scene(folder: Path) -> None:
    import matplotlib.pyplot as plt

    back = rioxarray.open_rasterio(folder / "mask.tif")
    assert isinstance(back, xr.DataArray)
    ax = SCENE.cloudmask.plot(back)
    assert "cloud mask" in ax.get_title(loc="left")
    ax = back.cloudmask.plot()
    assert "cloud mask" in ax.get_title(loc="left")
    plt.close("all")
    with pytest.raises(BandError, match="looks like a mask"):
        back.cloudmask.predict(TOY)


@pytest.mark.parametrize("form", OPENERS)
def test_it_can_be_stored_again(form: str, folder: Path, mask: xr.DataArray, tmp_path: Path) -> None:
    name, opener = OPENERS[form]
    back: Any = opener(folder / name)  # type: ignore[no-untyped-call]
    back.cloudmask.to_zarr(tmp_path, progress=False)
    stored = next(iter(xr.open_zarr(tmp_path).data_vars.values()))
    np.testing.assert_array_equal(stored.squeeze(), mask)


@pytest.mark.parametrize("engine", ["h5netcdf", "netCDF4"])
@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("output", ["classes", "probabilities"])
def test_a_store_of_dates_goes_to_netcdf_and_back(
    engine: str, eager: bool, output: str, tmp_path: Path
) -> None:
    """With every GeoZarr attribute that there is: netCDF holds none of the group's, and needs none."""
    pytest.importorskip(engine)
    times = np.array(["2026-05-11", "2026-05-01"], "M8[ns]")
    dates = xr.concat([SCENE, SCENE + 0.1], "time").assign_coords(time=times, item_id=("time", ["b", "aa"]))
    xcloudmask.stream(
        dates.chunk(time=1, y=32), tmp_path / "a.zarr", predict={"model": TOY}, output=output,
        overviews=[2], progress=False,
    )  # fmt: skip
    mask = xcloudmask.open_masks(tmp_path / "a.zarr")
    mask = mask.compute() if eager else mask
    mask.to_netcdf(tmp_path / "a.nc", engine=engine.lower())  # type: ignore[call-overload]
    xr.open_zarr(tmp_path / "a.zarr").drop_attrs(deep=False).to_netcdf(
        tmp_path / "plain.nc", engine=engine.lower()
    )
    with pytest.raises(TypeError):  # no netCDF holds them: the day it does, docs/geozarr.md says too much
        xr.open_zarr(tmp_path / "a.zarr").to_netcdf(tmp_path / "no.nc", engine=engine.lower())
    for name in ("a.nc", "plain.nc"):
        back = xr.open_dataset(tmp_path / name, decode_coords="all")[mask.name].sortby("time").compute()
        assert back.dtype == mask.dtype
        assert back.rio.crs.to_epsg() == 32632
        assert back.item_id.values.tolist() == ["aa", "b"]
        xr.testing.assert_equal(back.drop_vars("spatial_ref"), mask.drop_vars("spatial_ref"))
        back.cloudmask.to_zarr(tmp_path / f"{name}.zarr", progress=False)
        again = xcloudmask.open_masks(tmp_path / f"{name}.zarr")
        assert again.rio.crs.to_epsg() == 32632
        np.testing.assert_array_equal(again, mask)
    if output == "classes":
        mask.isel(time=0).cloudmask.to_geotiff(tmp_path / "a.tif")
        with rioxarray.open_rasterio(tmp_path / "a.tif") as tif:
            assert tif.rio.crs.to_epsg() == 32632
            np.testing.assert_array_equal(tif.squeeze(), mask.isel(time=0))


def test_the_clear_share_is_no_mask(mask: xr.DataArray) -> None:
    share = mask.cloudmask.clear_fraction()
    assert share.attrs == {"long_name": "clear share of the pixels that hold data", "units": "1"}


def test_the_repr_of_a_mask_in_memory_has_the_share_of_each_class(mask: xr.DataArray) -> None:
    gaps = mask.where(mask.y < -960, 255).astype("u1").assign_attrs(mask.attrs)
    clear = 100 * float((gaps == 0).mean())
    shown = " ".join(repr(gaps.cloudmask).split())
    assert f"0 clear {clear:.3g} %, 1 cloud " in shown
    assert "255 no_data 51.6 %" in shown
    assert "%" not in repr(mask.chunk().cloudmask)  # a repr computes nothing
