"""Whole series in one block, of bounded size; a median that passes over gaps."""

import warnings

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xcloudmask.masks.series import BLOCK, dated, nan_median, whole_series

FLAGS = {"flag_values": [0, 255], "flag_meanings": "clear no_data"}


@given(arrays("f4", st.tuples(st.integers(1, 7), st.integers(1, 4)), elements=st.sampled_from(
    [0.0, 0.25, 0.5, 2.0, np.nan])))  # fmt: skip
def test_the_median_is_numpys(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        np.testing.assert_array_equal(nan_median(values), np.nanmedian(values, axis=0))


@pytest.mark.parametrize("dates", [1, 12, 400])
def test_blocks_hold_whole_series_and_no_more_than_they_may(dates):
    stack = xr.DataArray(
        da.zeros((dates, 2, 3000, 2500), chunks=(1, 1, 1024, 1024), dtype="f4"),
        dims=("time", "band", "y", "x"),
    )
    whole = whole_series(stack, "time", "band")
    assert whole.chunks[:2] == ((dates,), (2,))
    assert np.prod(whole.data.chunksize) * 4 <= max(BLOCK, dates * 2 * 1024 * 4)
    ends, cut = (set(np.cumsum(sizes).tolist()) for sizes in (stack.chunksizes["y"], whole.chunksizes["y"]))
    assert ends <= cut, "a block that reaches over chunks waits for the next"
    assert (dates > 1) == (ends < cut)
    small = xr.DataArray(np.zeros(3), dims="time").chunk(time=1)
    assert whole_series(small, "time", "band").chunks == ((3,),)


def test_dates_are_brought_into_order_with_their_scene():
    time = {"time": np.array(["2026-05-09", "2026-05-01"], "M8[ns]")}
    mask = xr.DataArray([[[0]], [[255]]], dims=("time", "y", "x"), coords=time, attrs=FLAGS)
    scene = mask.drop_attrs() + 1
    by_row, sorted_scene, dim, order = dated(mask.transpose("y", "x", "time"), scene)
    assert (dim, order.tolist(), by_row.dims) == ("time", [1, 0], ("time", "y", "x"))
    assert by_row.values.ravel().tolist() == [255, 0]
    assert sorted_scene.values.ravel().tolist() == [256, 1]
