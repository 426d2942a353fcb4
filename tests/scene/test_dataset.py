"""A Dataset whose variables are bands gives the same mask as the array."""

import numpy as np
import pytest
import xarray as xr

from xcloudmask import testing
from xcloudmask.errors import BandError, UnitError

RNG = np.random.default_rng(8)
NAMES = ["blue", "green", "red", "nir"]
STORED = RNG.integers(1, 10_000, (4, 60, 70)).astype("u2")


def an_array():
    coords = {"y": -30.0 * np.arange(60), "x": 30.0 * np.arange(70)}
    da = xr.DataArray(STORED, dims=("band", "y", "x"), coords=coords)
    return da.cloudmask.describe(bands=NAMES, level="L1C", scale=1e-4, offset=-0.1)


def a_dataset(**attrs):
    base = an_array()
    variables = {
        name: (("y", "x"), STORED[i], {"scale_factor": 1e-4, "add_offset": -0.1, **attrs})
        for i, name in enumerate(NAMES)
    }
    return xr.Dataset(variables, {"y": base.y, "x": base.x}, {"level": "toa"})


@pytest.mark.parametrize("chunks", [None, {"y": 25, "x": 31}])
def test_a_dataset_gives_the_mask_of_the_array(chunks):
    ds = a_dataset()
    ds["scl"] = (("y", "x"), np.ones((60, 70), "u1"))
    ds["spatial_ref"] = 0
    ds = ds[["scl", "nir", "red", "spatial_ref", "blue", "green"]]
    mask = (ds if chunks is None else ds.chunk(chunks)).cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(mask.values, an_array().cloudmask.predict(testing.TOY).values)
    assert [band.common_name for band in ds.cloudmask.bands] == ["nir", "red", "blue", "green"]


def test_names_of_a_sensor_and_time_first():
    base = a_dataset().rename(blue="B02", green="B03", red="B04", nir="B08").expand_dims(time=2)
    ds = base.assign_attrs(sensor="sentinel-2")
    mask = ds.cloudmask.predict(testing.TOY)
    assert mask.dims == ("time", "y", "x")
    np.testing.assert_array_equal(mask.values[1], an_array().cloudmask.predict(testing.TOY).values)
    assert ds.cloudmask.sensor.name == "sentinel-2"


def test_gaps_of_each_variable_are_gaps():
    ds = a_dataset(nodata=7)
    ds["red"].attrs["nodata"] = 9
    ds["red"].values[3, 4] = 9
    ds["nir"].values[5, 6] = 7
    ds["nir"].values[8, 8] = 9
    mask = ds.cloudmask.predict(testing.TOY).values
    assert mask[3, 4] == mask[5, 6] == 255
    assert mask[8, 8] != 255
    expected = (ds["red"].values == 9) | (ds["nir"].values == 7)
    np.testing.assert_array_equal(mask == 255, expected)


def test_a_store_that_holds_one_array_with_bands():
    base = an_array()
    ds = base.to_dataset(name="reflectance")
    mask = ds.cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(mask.values, base.cloudmask.predict(testing.TOY).values)
    with pytest.raises(BandError, match="several variables have a band dimension"):
        ds.assign(other=base).cloudmask.predict()


def test_what_does_not_fit_is_told():
    ds = a_dataset()
    del ds["red"].attrs["scale_factor"]
    with pytest.raises(UnitError, match="variables red do not tell their scale"):
        ds.cloudmask.predict(testing.TOY)
    with pytest.raises(BandError, match="no variable of the dataset"):
        xr.Dataset({"a": ("t", [1.0])}, {"y": [1.0], "x": [1.0]}).cloudmask.predict()
