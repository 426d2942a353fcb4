"""Areas across chunks: what winds through many of them is one."""

import numpy as np
import pytest
import xarray as xr

import xcloudmask  # noqa: F401

ATTRS = {"flag_values": [0, 1, 2, 255], "flag_meanings": "clear cloud thin_cloud no_data"}


def a_mask(values, chunks):
    return xr.DataArray(np.asarray(values, np.uint8), dims=("y", "x"), attrs=ATTRS).chunk(y=chunks, x=chunks)


def snake(side):
    """One line that winds over the whole plane, every second row, joined at alternate ends."""
    plane = np.zeros((side, side), np.uint8)
    plane[::2] = 1
    plane[1::4, -1] = plane[3::4, 0] = 1
    return plane


@pytest.mark.parametrize("chunks", [3, 7, 61])
def test_a_snake_through_many_chunks_counts_once(chunks):
    plane = np.pad(snake(61), 1)
    size = int(plane.sum())
    kept = a_mask(plane, chunks).cloudmask.clean(sieve=size)
    np.testing.assert_array_equal(kept.values, plane)
    assert not a_mask(plane, chunks).cloudmask.clean(sieve=size + 1).values.any()


@pytest.mark.parametrize("chunks", [3, 7, 61])
def test_a_hole_that_winds_through_many_chunks_counts_once(chunks):
    plane = np.pad(1 - snake(57), 2, constant_values=1)
    size = int((plane == 0).sum())
    assert (a_mask(plane, chunks).cloudmask.clean(fill=size + 1).values == 1).all()
    np.testing.assert_array_equal(a_mask(plane, chunks).cloudmask.clean(fill=size).values, plane)


def test_specks_hang_together_at_a_corner_where_four_chunks_meet_and_holes_do_not():
    for plane in (np.pad(np.eye(4), 2), np.pad(np.eye(4)[::-1], 2)):
        assert a_mask(plane, 2).cloudmask.clean(sieve=4).values.sum() == 4
        assert a_mask(plane, 2).cloudmask.clean(sieve=5).values.sum() == 0
    holes = np.pad(1 - np.eye(4), 2, constant_values=1)
    assert (a_mask(holes, 4).cloudmask.clean(fill=2).values == 1).all()


@pytest.mark.parametrize("unknown", [255, 7])
def test_a_hole_that_touches_no_data_or_a_code_of_no_class_across_a_seam_stays(unknown):
    plane = np.ones((6, 6), np.uint8)
    plane[2, 2], plane[2, 3] = 0, unknown
    np.testing.assert_array_equal(a_mask(plane, 3).cloudmask.clean(fill=9).values, plane)
    plane[2, 3] = 2
    assert a_mask(plane, 3).cloudmask.clean(fill=9).values[2, 2] == 1  # of the first class that it touches
    plane[1, 2] = plane[3, 2] = plane[2, 1] = 2
    assert a_mask(plane, 3).cloudmask.clean(fill=9).values[2, 2] == 2


@pytest.mark.parametrize("chunks", [3, 4, 9])
@pytest.mark.parametrize("unknown", [255, 7])
def test_a_cloud_that_touches_what_is_not_known_is_no_speck(chunks, unknown):
    """Its rest may lie there; at a corner, too, where clouds hang together, and across a seam."""
    for beside in ((2, 3), (3, 3), (1, 2)):
        plane = np.zeros((9, 9), np.uint8)
        plane[2, 2], plane[beside], plane[6, 6] = 1, unknown, 1
        out = a_mask(plane, chunks).cloudmask.clean(sieve=9).values
        assert (out[2, 2], out[6, 6]) == (1, 0)
    plane = np.zeros((9, 9), np.uint8)
    plane[0, 4] = plane[5, 8] = plane[3, 3] = 1
    plane[3, 4] = 2
    out = a_mask(plane, chunks).cloudmask.clean(sieve={"cloud": 9}).values
    assert (out[0, 4], out[5, 8]) == (1, 1)  # the scene's edge
    assert (out[3, 3], out[3, 4]) == (0, 2)  # another class is known


def test_one_hole_at_the_scenes_edge_stays_and_so_does_one_of_its_size():
    plane = np.ones((7, 7), np.uint8)
    plane[0, 3] = plane[3, 3] = plane[3, 4] = 0
    out = a_mask(plane, 4).cloudmask.clean(fill=2).values
    np.testing.assert_array_equal(out, plane)
    out = a_mask(plane, 4).cloudmask.clean(fill=3).values
    assert out[0, 3] == 0
    assert (out[3] == 1).all()


def test_a_slice_of_a_lazy_result_is_that_of_the_whole():
    plane = snake(40)
    lazy = a_mask(plane, 9).cloudmask.clean(sieve=int(plane.sum()))
    np.testing.assert_array_equal(lazy[10:12, 30:40].values, plane[10:12, 30:40])
