"""Indexes of rasterix and xproj, geoboxes of odc, arrays of cupy: the mask is that of plain coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine

from xcloudmask.errors import CloudMaskError
from xcloudmask.testing import TOY

PLACE = Affine(10, 0, 600000, 0, -10, 4900020)


@pytest.fixture(scope="module")
def plain() -> xr.DataArray:
    values = np.random.default_rng(0).uniform(0, 1, (4, 64, 60)).astype("f4")
    coords = {"x": 600005 + 10.0 * np.arange(60), "y": 4900015 - 10.0 * np.arange(64)}
    da = xr.DataArray(values, coords, dims=("band", "y", "x")).rio.write_crs(32632)
    return da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")


def with_raster_index(da: xr.DataArray) -> xr.DataArray:
    rasterix = pytest.importorskip("rasterix")
    da = da.drop_vars(["x", "y"])
    da.spatial_ref.attrs["GeoTransform"] = " ".join(map(str, PLACE.to_gdal()))
    return rasterix.assign_index(da)


def with_crs_index(da: xr.DataArray) -> xr.DataArray:
    pytest.importorskip("xproj")
    return da.proj.assign_crs(spatial_ref=32632)


def with_another_crs_coordinate(da: xr.DataArray) -> xr.DataArray:
    pytest.importorskip("xproj")
    return da.drop_vars("spatial_ref").proj.assign_crs(grid="EPSG:32632")


def with_geobox(da: xr.DataArray) -> xr.DataArray:
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    return da.drop_vars(["x", "y", "spatial_ref"]).assign_coords(
        xr_coords(GeoBox((64, 60), PLACE, "EPSG:32632"))
    )


FORMS = [with_raster_index, with_crs_index, with_another_crs_coordinate, with_geobox]


@pytest.mark.parametrize("form", FORMS)
def test_predict_apply_and_writing_do_as_with_plain_coordinates(plain, form, tmp_path):
    da = form(plain.copy())
    expected = plain.cloudmask.predict(TOY)
    mask = da.cloudmask.predict(TOY)
    assert mask.attrs == expected.attrs  # the working resolution, too
    np.testing.assert_array_equal(mask, expected)
    assert mask.rio.crs.to_epsg() == 32632
    assert type(mask.xindexes["x"]) is type(da.xindexes["x"])
    lazy = da.chunk(y=32, x=32).cloudmask.predict(TOY)
    np.testing.assert_array_equal(lazy, expected)
    np.testing.assert_array_equal(da.cloudmask.apply(mask), plain.cloudmask.apply(expected))
    with pytest.raises(CloudMaskError, match="other coordinates along 'y'"):
        da.cloudmask.apply(expected.assign_coords(y=expected.y + 10))
    lazy.cloudmask.to_zarr(tmp_path / "mask.zarr")
    mask.cloudmask.to_geotiff(tmp_path / "mask.tif")
    for back in (
        xr.open_zarr(tmp_path / "mask.zarr").cloud_mask,
        rioxarray.open_rasterio(tmp_path / "mask.tif"),
    ):
        assert (back.rio.crs.to_epsg(), back.rio.transform()) == (32632, PLACE)
        np.testing.assert_array_equal(back.squeeze(), expected)
    back.close()
    assert "10 m" in repr(da.cloudmask)


class OnDevice:
    """As much of cupy.ndarray as xarray looks at: it may not be turned into a NumPy array unasked."""

    __module__ = "cupy"
    dtype, shape, ndim, size = np.dtype("f4"), (4, 8, 8), 3, 256

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, *_):
        return NotImplemented

    def __array_ufunc__(self, *_, **__):
        return NotImplemented

    def __getitem__(self, key):
        return self


def test_arrays_of_cupy_are_told_how_to_come_over():
    da = xr.DataArray(OnDevice(), dims=("band", "y", "x"))
    with pytest.raises(
        CloudMaskError, match=r"cupy.*as_numpy\(\).*map_blocks\(cupy\.asnumpy\).*device='cuda'"
    ):
        da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C").cloudmask.predict(TOY)
