"""An offset of Sentinel-2 that nobody declared is never taken as 0 without a word."""

import numpy as np
import pytest
import xarray as xr

from xcloudmask.errors import UnitWarning


def scene(times: list[str] | None = None) -> xr.DataArray:
    coords = {"band": ["B04", "B08"]}
    da = xr.DataArray(np.full((2, 8, 8), 2000, "u2"), dims=("band", "y", "x"), coords=coords)
    if times is None:
        return da
    return da.expand_dims(time=np.array(times, "datetime64[ns]"))


@pytest.mark.parametrize(
    ("times", "words"),
    [
        (None, "which the array does not say"),
        (["2023-06-01"], "dates from 2022-01-25 on, as here, have it unless"),
        (["2021-06-01", "2022-01-25"], "dates from 2022-01-25 on"),
        (["2021-06-01"], "dates before 2022-01-25, as here, have it only if reprocessed"),
        (["NaT"], "which the array does not say"),
    ],
)
def test_a_scale_without_an_offset_says_what_the_dates_imply(times: list[str] | None, words: str) -> None:
    with pytest.warns(UnitWarning, match=words):
        scene(times).cloudmask.describe("sentinel-2", level="L2A", scale=1e-4)


def test_who_says_the_offset_hears_nothing() -> None:
    """Warnings are errors."""
    da = scene(["2023-06-01"])
    for offset in (0, -0.1):
        described = da.cloudmask.describe("sentinel-2", scale=1e-4, offset=offset)
        described.cloudmask.describe(scale=2e-4)  # the offset stays
    da.cloudmask.describe("landsat-8", bands=["B4", "B5"], scale=2.75e-5)
    da.cloudmask.describe("sentinel-2")
    da.assign_attrs(add_offset=-0.1).cloudmask.describe("sentinel-2a", scale=1e-4)


def test_with_a_baseline_planning_tells() -> None:
    da = scene(["2023-06-01"]).assign_coords({"s2:processing_baseline": "05.09"})
    described = da.cloudmask.describe("sentinel-2", level="L2A", scale=1e-4)  # not twice
    assert described.offset.values.tolist() == [0.0, 0.0]
