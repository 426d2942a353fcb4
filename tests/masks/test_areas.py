"""The clear share of areas: against the geometry of each pixel, for any chunks."""

import sys

import geopandas
import numpy as np
import pytest
import rioxarray  # noqa: F401
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from xcloudmask.errors import CloudMaskError, OptionError

FLAGS = {"flag_values": [0, 1, 4, 255], "flag_meanings": "clear cloud snow no_data"}


def a_mask(seed=0, dates=3, rows=9, columns=11, flip=False):
    codes = np.random.default_rng(seed).choice([0, 1, 4, 255], (dates, rows, columns)).astype("u1")
    y, x = 5_000_000 - 10.0 * np.arange(rows), 600_000 + 10.0 * np.arange(columns)
    mask = xr.DataArray(codes, dims=("time", "y", "x"), attrs=FLAGS, coords={
        "time": np.datetime64("2026-05-01", "ns") + np.arange(dates), "y": y, "x": x})  # fmt: skip
    return mask.isel(y=slice(None, None, -1)).rio.write_crs(32632) if flip else mask.rio.write_crs(32632)


#: A parcel smaller than a pixel, one of a few, one that overlaps it, one that reaches out, and one far away.
FIELDS = geopandas.GeoDataFrame(
    geometry=[
        shapely.box(600_002, 4_999_971, 600_006, 4_999_973),
        shapely.Point(600_041, 4_999_957).buffer(17),
        shapely.Polygon([(600_030, 4_999_990), (600_077, 4_999_931), (600_022, 4_999_940)]),
        shapely.box(600_080, 4_999_900, 601_000, 4_999_950),
        shapely.box(0, 0, 9, 9),
    ],
    index=["tiny", "round", "corner", "beyond", "far"], crs=32632,
)  # fmt: skip


def by_geometry(mask):
    """The overlap of each parcel with each pixel, by shapely."""
    out = np.full((mask.sizes["time"], len(FIELDS)), np.nan)
    boxes = [[shapely.box(x - 5, y - 5, x + 5, y + 5) for x in mask.x.values] for y in mask.y.values]
    for place, shape in enumerate(FIELDS.geometry):
        covered = np.array([[shape.intersection(cell).area for cell in row] for row in boxes])
        for date, codes in enumerate(mask.values):
            whole = covered[codes != 255].sum()
            if whole > 0:
                out[date, place] = covered[np.isin(codes, (0, 4))].sum() / whole
    return out


@settings(max_examples=7, deadline=None)
@given(st.integers(0, 999), st.tuples(*[st.integers(1, n) for n in (3, 9, 11)]), st.booleans())
def test_shares_are_those_of_the_geometry_for_any_chunks(seed, cuts, flip):
    mask = a_mask(seed, flip=flip)
    whole = mask.cloudmask.clear_fraction(areas=FIELDS)
    assert whole.area.values.tolist() == FIELDS.index.tolist()
    np.testing.assert_allclose(whole.values, by_geometry(mask), atol=2e-4)
    lazy = mask.chunk(dict(zip(mask.dims, cuts, strict=True))).cloudmask.clear_fraction(areas=FIELDS)
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), whole)


def test_the_crs_of_the_parcels_may_be_another_and_other_classes_count():
    mask = a_mask()
    moved = mask.cloudmask.clear_fraction(areas=FIELDS.to_crs(4326))
    np.testing.assert_allclose(moved.values, by_geometry(mask), atol=1e-3)
    snow = mask.cloudmask.clear_fraction(["snow"], areas=FIELDS)
    assert (snow.fillna(0) <= moved.fillna(0) + 1e-3).all()
    one = mask.isel(time=1).cloudmask.clear_fraction(areas=FIELDS.geometry)
    np.testing.assert_array_equal(one.values, mask.cloudmask.clear_fraction(areas=FIELDS).values[1])


def test_what_has_no_place_is_refused(monkeypatch):
    mask = a_mask()
    with pytest.raises(CloudMaskError, match="areas= has no CRS"):
        mask.cloudmask.clear_fraction(areas=geopandas.GeoSeries([shapely.box(0, 0, 1, 1)]))
    with pytest.raises(CloudMaskError, match="the mask has no CRS"):
        mask.drop_vars("spatial_ref").cloudmask.clear_fraction(areas=FIELDS)
    with pytest.raises(CloudMaskError, match="must be a GeoDataFrame"):
        mask.cloudmask.clear_fraction(areas=mask)
    with pytest.raises(CloudMaskError, match="not both"):
        mask.cloudmask.clear_fraction(dim="time", areas=FIELDS)
    with pytest.raises(OptionError, match="unknown class 'claer'"):
        mask.cloudmask.clear_fraction(["claer"], areas=FIELDS)
    monkeypatch.setitem(sys.modules, "exactextract", None)
    with pytest.raises(ImportError, match=r"pip install 'xcloudmask\[areas\]'"):
        mask.cloudmask.clear_fraction(areas=FIELDS)


@pytest.mark.parametrize("part", [slice(None, None, 2), slice(None, None, -1)])
def test_a_part_of_a_scene_lies_where_its_coordinates_say(part):
    whole = a_mask()
    kept = whole.rio.write_transform(whole.rio.transform())  # as every scene of open_rasterio has it
    want = whole[:, part, part].cloudmask.clear_fraction(areas=FIELDS)
    np.testing.assert_array_equal(kept[:, part, part].cloudmask.clear_fraction(areas=FIELDS), want)
