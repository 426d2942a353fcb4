"""A scene as reflectance, lazily."""

import numpy as np
import pytest
import xarray as xr

from xcloudmask.errors import UnitError
from xcloudmask.scene.reflectance import reflectance_of
from xcloudmask.scene.scene import read_scene


def test_stored_numbers_become_reflectance_band_by_band_and_gaps_nan():
    stored = np.array([[[1000, 65535, 0]], [[2000, 3000, 0]]], "u2")
    da = xr.DataArray(stored, dims=("band", "y", "x")).cloudmask.describe(
        bands=["red", "nir"], level="L2A", scale=[1e-4, 2e-4], offset=[0, -0.1], nodata=65535
    )
    for given in (da, da.chunk(band=1, x=2), da.transpose("y", "band", "x").chunk()):
        made = reflectance_of(read_scene(given))
        assert (made.chunks is None) == (given.chunks is None)
        assert made.dims == ("band", "y", "x")
        np.testing.assert_allclose(made.values[:, 0, 0], [0.1, 0.3], rtol=1e-6)
        assert np.isnan(made.values[:, 0, 1]).all()


@pytest.mark.parametrize("lazy", [False, True])
def test_numbers_that_cannot_be_reflectance_are_refused_as_predict_refuses_them(lazy: bool) -> None:
    da = xr.DataArray(np.full((2, 1, 40, 40), 2500.0, "f4"), dims=("time", "band", "y", "x"))
    da = da.cloudmask.describe(bands=["red"], level="L2A")
    with pytest.raises(UnitError, match="reflectance is 0 to 1, so say how they are scaled"):
        reflectance_of(read_scene(da.chunk(time=1) if lazy else da)).compute()
