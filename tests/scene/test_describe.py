"""The one form in which loaders describe bands, times and pixels."""

import numpy as np
import pytest
import xarray as xr

from xcloudmask.scene.describe import BAND_COORDS, band_labels, describe_bands, describe_scene, describe_times
from xcloudmask.types import Band

RED = Band("B04", "red", 650.0, 665.0, 680.0, gsd=10)
DEM = Band("DEM", kind="elevation")


def array(bands=1, times=1):
    data = np.zeros((times, bands, 2, 2), "float32")
    return xr.DataArray(data, dims=("time", "band", "y", "x"), coords={"y": [15.0, 5.0], "x": [5.0, 15.0]})


def test_figures_and_gaps():
    da = describe_bands(array(2), [RED, DEM])
    assert da.band.values.tolist() == ["red", "DEM"]
    assert da.common_name.values.tolist() == ["red", ""]
    assert da.kind.values.tolist() == ["reflectance", "elevation"]
    np.testing.assert_allclose(da.center_wavelength, [0.665, np.nan])
    np.testing.assert_allclose(da.full_width_half_max, [0.03, np.nan])
    np.testing.assert_allclose(da.gsd, [10, np.nan])
    assert [name for name in da.coords if da[name].dims == ("band",) and name != "band"] == list(BAND_COORDS)


def test_labels_stay_unique():
    edges = [Band(f"B0{i}", "rededge") for i in (5, 6)]
    assert band_labels([RED, *edges]) == ["red", "B05", "B06"]


def test_number_of_bands_must_agree():
    with pytest.raises(ValueError, match="1 bands were given"):
        describe_bands(array(2), [RED])


def test_levels_and_sensors_that_differ_are_not_claimed():
    one = describe_scene(array(), levels=["toa", "toa"], sensors=["a", "a"], crs=32632)
    assert one.attrs == {"level": "toa", "sensor": "a"}
    two = describe_scene(array(), levels=["toa", "boa"], sensors=["a", "b"], crs=32632)
    assert two.attrs == {}
    assert describe_scene(array(), levels=[None], sensors=["a"], crs=32632).attrs == {"sensor": "a"}
    assert two.rio.crs.to_epsg() == 32632


def test_times_that_are_not_known():
    da = describe_times(array(times=2), ["2020-01-02T03:04:05.678", "NaT"], ["i", "j"], ["s", "t"])
    assert da.time.dtype == "datetime64[ns]"
    assert str(da.time.values[0]) == "2020-01-02T03:04:05.678000000"
    assert np.isnat(da.time.values[1])
    assert da.item_id.values.tolist() == ["i", "j"]
