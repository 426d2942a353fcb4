"""Dates and chunks that are not clear enough are not read."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import xcloudmask  # noqa: F401
from xcloudmask.errors import CloudMaskError

ATTRS = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
SIDE, CHUNK = 40, 20


def a_stack(shares):
    """A mask whose chunks have these clear shares: (date, row, column of chunks); NaN is all no data."""
    mask = np.ones((len(shares), SIDE, SIDE), "u1")
    for date, row, column in np.ndindex(np.shape(shares)):
        part = mask[date, row * CHUNK : (row + 1) * CHUNK, column * CHUNK : (column + 1) * CHUNK]
        share = shares[date][row][column]
        part[:] = 255 if np.isnan(share) else 1
        if not np.isnan(share):
            part[: round(CHUNK * share)] = 0
    return xr.DataArray(mask, dims=("time", "y", "x"), coords={"time": np.arange(len(shares))}, attrs=ATTRS)


SHARES = [
    [[1.0, 0.0], [0.5, 0.5]],  # clear enough, but for one chunk
    [[0.2, 0.2], [0.2, 0.5]],  # 0.275: not clear enough, though a chunk is
    [[np.nan, np.nan], [np.nan, np.nan]],
    [[np.nan, 0.3], [0.2, 0.4]],  # exactly 0.3 of the pixels that hold data
]


@pytest.fixture
def counted():
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return block

    values = np.random.default_rng(0).random((4, 2, SIDE, SIDE), dtype="f4")
    source = da.from_array(values, chunks=(1, 2, CHUNK, CHUNK)).map_blocks(
        read, dtype="f4", meta=np.empty((0,) * 4, "f4")
    )
    return xr.DataArray(source, dims=("time", "band", "y", "x"), coords={"time": np.arange(4)}), values, reads


def test_nothing_is_read_of_dates_and_chunks_that_are_not_clear_enough(counted):
    scene, values, reads = counted
    mask = a_stack(SHARES).chunk(time=2, y=13, x=40)
    lazy = scene.cloudmask.select_clear(mask, min_clear=0.3)
    assert reads == []
    assert lazy.time.values.tolist() == [0, 3]
    out = lazy.values
    assert sorted(reads) == [(0, 0, 0, 0), (0, 0, 1, 0), (0, 0, 1, 1), (3, 0, 0, 1), (3, 0, 1, 1)]
    for place, date in enumerate((0, 3)):
        for row, column in np.ndindex(2, 2):
            part = (
                slice(None),
                slice(row * CHUNK, (row + 1) * CHUNK),
                slice(column * CHUNK, (column + 1) * CHUNK),
            )
            enough = SHARES[date][row][column] >= 0.3
            want = values[date][part] if enough else np.full((2, CHUNK, CHUNK), np.nan, "f4")
            np.testing.assert_array_equal(out[place][part], want)


def test_a_chunk_of_several_dates_is_read_for_one_of_them(counted):
    scene, values, _ = counted
    whole = scene.chunk(time=4).cloudmask.select_clear(a_stack(SHARES))
    np.testing.assert_array_equal(
        np.isnan(whole.values[1, 0, :CHUNK, :CHUNK]), False
    )  # date 0 is clear there
    in_memory = scene.compute().cloudmask.select_clear(a_stack(SHARES))
    np.testing.assert_array_equal(in_memory.values, values[[0, 3]])


def test_integers_become_floats_and_one_scene_is_taken_or_refused():
    mask = a_stack(SHARES).isel(time=0, drop=True)
    scene = xr.ones_like(mask, dtype="u2").drop_attrs().chunk(y=CHUNK, x=CHUNK)
    out = scene.cloudmask.select_clear(mask)
    assert out.dtype == np.float32
    assert int(out.isnull().sum()) == CHUNK**2
    with pytest.raises(CloudMaskError, match=r"not clear enough for min_clear=0\.9"):
        scene.cloudmask.select_clear(mask, min_clear=0.9)
    with pytest.raises(CloudMaskError, match="min_clear=30 must be a share"):
        scene.cloudmask.select_clear(mask, min_clear=30)
