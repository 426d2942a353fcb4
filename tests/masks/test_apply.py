"""Taking clouds out of a scene, widening them, counting what is clear."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.masks import apply

ATTRS = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}


def a_mask(values, step=30.0):
    values = np.asarray(values, np.uint8)
    coords = {"y": -step * np.arange(values.shape[-2]), "x": step * np.arange(values.shape[-1])}
    return xr.DataArray(values, dims=("time", "y", "x")[-values.ndim :], coords=coords, attrs=ATTRS)


def test_apply_takes_out_clouds_shadows_and_gaps():
    mask = a_mask([[0, 1], [3, 255]])
    scene = xr.DataArray(
        np.ones((2, 2, 2), "u2"), dims=("band", "y", "x"), coords=mask.coords, attrs={"nodata": 0}
    )
    out = scene.cloudmask.apply(mask)
    assert np.isfinite(out.values).tolist() == [[[True, False], [False, False]]] * 2
    assert "nodata" not in out.attrs
    assert set(out.coords) == set(scene.coords)
    kept = scene.cloudmask.apply(mask, drop=("cloud",))
    assert np.isfinite(kept.values)[0].tolist() == [[True, False], [True, False]]
    xr.testing.assert_equal(
        scene.to_dataset("band").cloudmask.apply(mask).to_dataarray("band").drop_vars("band"), out
    )


def test_apply_leaves_the_quality_layers_of_a_dataset_alone():
    mask = a_mask([[0, 1], [3, 255]])
    ds = xr.Dataset(
        {"red": mask.astype("f4"), "nir": mask.astype("f4"), "scl": mask.astype("u1")}
    ).drop_attrs()
    out = ds.cloudmask.apply(mask)
    assert out["scl"].dtype == np.uint8
    assert int(np.isnan(out["red"]).sum()) == 3


def test_apply_refuses_what_does_not_fit():
    mask = a_mask([[0, 1], [3, 255]])
    with pytest.raises(CloudMaskError, match="do not fit"):
        xr.DataArray(np.ones((2, 3)), dims=("y", "x")).cloudmask.apply(mask)
    with pytest.raises(CloudMaskError, match="other coordinates along 'y'"):
        xr.ones_like(mask, dtype="f4").cloudmask.apply(mask.assign_coords(y=mask.y + 1e-6))
    with pytest.raises(OptionError, match="150 m"):
        mask.cloudmask.apply(mask, buffer=[1])
    with pytest.raises(CloudMaskError, match="keep_attrs"):
        mask.cloudmask.apply(mask.drop_attrs())
    with pytest.raises(OptionError, match="did you mean 'cloud'"):
        mask.cloudmask.apply(mask, drop=("clouds",))
    with pytest.raises(OptionError, match="150 m"):
        mask.cloudmask.apply(mask, buffer="150 metres")
    with pytest.raises(CloudMaskError, match="number of pixels"):
        apply.grow(xr.DataArray(np.ones((2, 2), bool), dims=("y", "x")), "150 m")


def test_what_where_left_empty_counts_for_nothing():
    mask = a_mask([[0, 1], [3, 0]])
    kept = mask.where(mask != 1)
    assert float(kept.cloudmask.clear_fraction()) == pytest.approx(2 / 3)
    scene = xr.ones_like(mask, dtype="f4")
    assert np.isnan(scene.cloudmask.apply(kept).values).tolist() == [[False, True], [True, False]]


def test_a_dataset_read_from_a_store_of_a_mask_is_one():
    mask = a_mask([[0, 1], [3, 0]])
    ds = mask.to_dataset(name="cloud_mask").assign(spatial_ref=0)
    assert float(ds.cloudmask.clear_fraction()) == 0.5
    assert "mask" in repr(mask.to_dataset(name="cloud_mask").cloudmask).splitlines()[0]
    with pytest.raises(CloudMaskError, match=r"ds\['cloud_mask'\]"):
        ds.drop_vars("cloud_mask").cloudmask.clear_fraction()


def test_clear_fraction_counts_only_pixels_that_hold_data():
    mask = a_mask([[[0, 1], [3, 255]], [[255, 255], [255, 255]]])
    found = mask.cloudmask.clear_fraction()
    np.testing.assert_allclose(found.values, [1 / 3, np.nan])
    assert not [name for name in found.attrs if name.startswith("flag_")], "a share is no class"
    assert mask.cloudmask.clear_fraction(dim="time").values[0].tolist() == [1.0, 0.0]
    assert mask.cloudmask.clear_fraction(("clear", "cloud")).values[0] == pytest.approx(2 / 3)
    lazy = mask.chunk(y=1).cloudmask.clear_fraction()
    assert lazy.chunks is not None
    xr.testing.assert_equal(lazy.compute(), found)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_growing_marks_exactly_what_is_near_enough(data):
    height, width = data.draw(st.integers(1, 25)), data.draw(st.integers(1, 25))
    spots = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), max_size=4))
    reach = data.draw(st.sampled_from([1, 1.5, 2, 3.2, 7]))
    taken = np.zeros((height, width), bool)
    for spot in spots:
        taken[spot] = True
    rows, cols = np.indices(taken.shape)
    expected = np.zeros_like(taken)
    for y, x in spots:
        expected |= (rows - y) ** 2 + (cols - x) ** 2 <= reach**2 + 1e-9
    da = xr.DataArray(taken, dims=("y", "x"))
    np.testing.assert_array_equal(apply.grow(da, reach).values, expected)
    cut = da.chunk(y=data.draw(st.integers(1, 25)), x=data.draw(st.integers(1, 25)))
    np.testing.assert_array_equal(apply.grow(cut, reach).values, expected)


def test_a_buffer_in_metres_follows_the_pixel_size_in_either_order_of_dimensions():
    mask = a_mask(np.eye(1, 9, 4, dtype=np.uint8).repeat(9, 0) * np.eye(9, 1, -4, dtype=np.uint8), step=50.0)
    assert mask.values.sum() == 1
    scene = xr.ones_like(mask, dtype="f4")
    out = scene.cloudmask.apply(mask, buffer="100 m")
    assert int(np.isnan(out).sum()) == 13  # a disc of radius 2
    turned = scene.T.cloudmask.apply(mask.T.chunk(x=4), buffer="0.1 km")
    np.testing.assert_array_equal(turned.transpose("y", "x").values, out.values)


def test_a_large_buffer_needs_its_unit() -> None:
    mask = xr.DataArray(
        np.zeros((4, 4), "u1"), dims=("y", "x"), attrs={"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    )
    da = xr.DataArray(np.ones((4, 4)), dims=("y", "x"))
    with pytest.raises(CloudMaskError, match=r"buffer=150 would be pixels.*'150 m' or '150 px'"):
        da.cloudmask.apply(mask, buffer=150)
    assert da.cloudmask.apply(mask, buffer=20).notnull().all()
