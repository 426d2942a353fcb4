"""Shadows by geometry: what a slow reference says for any chunks, and how much is found where it is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from tests.tidy import naive
from tests.tidy.simulated import rates, simulated
from tests.tidy.test_clean import ATTRS, chunks, planes
from xcloudmask.errors import BandError, CloudMaskError, OptionError

ALBERTA = Path(__file__).parents[2] / "../shared/data/train/s2_shadow_alberta"


def pair(plane, light, size, names=("nir",), lead=()):
    """A mask, and the scene of one band that it was made from."""
    coords = {"y": -size[0] * np.arange(plane.shape[-2]), "x": size[1] * np.arange(plane.shape[-1])}
    mask = xr.DataArray(np.asarray(plane, "u1"), dims=(*lead, "y", "x"), coords=coords, attrs=ATTRS)
    scene = xr.DataArray(np.asarray(light, "f4"), dims=(*lead, "y", "x"), coords=coords).expand_dims("band")
    return mask, scene.cloudmask.describe(bands=list(names), level="L2A")


@settings(max_examples=40, deadline=None)
@given(data=st.data(), plane=planes(14), own=st.sampled_from(["replace", "match", "keep"]))
def test_shadows_are_what_the_reference_says_for_any_chunks(data, plane, own):
    size = data.draw(st.sampled_from([(30.0, 30.0), (300.0, 300.0), (20.0, 70.0)]))
    elevation, azimuth = data.draw(st.sampled_from([(45.0, 180.0), (30.0, 158.0), (60.0, 290.0)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    steps = rng.choice([30, 60, 75, 90, 255], plane.shape, p=[0.45, 0.1, 0.2, 0.2, 0.05])
    mask, scene = pair(plane, np.where(steps == 255, np.nan, steps / 250), size)
    high = 12.0 * min(size)
    cells = tuple(max(1, round(60 / each)) for each in size)
    away = 1 / math.tan(math.radians(elevation))
    per_metre = (
        away * math.cos(math.radians(azimuth)) / (size[0] * cells[0]),
        -away * math.sin(math.radians(azimuth)) / (size[1] * cells[1]),
    )
    around = tuple(max(12, round(1500 / (each * cell))) for each, cell in zip(size, cells, strict=True))
    want = naive.shadows(plane, steps, cells, per_metre, (0, high), around, own)
    how = {"sun": (elevation, azimuth), "heights": (0, high), "own": own}
    whole = mask.cloudmask.cast_shadow(scene, **how)
    np.testing.assert_array_equal(whole.values, want)
    cut, other = ({dim: data.draw(chunks(length)) for dim, length in mask.sizes.items()} for _ in range(2))
    lazy = mask.chunk(cut).cloudmask.cast_shadow(scene.chunk(other), **how)
    assert lazy.chunks == mask.chunk(cut).chunks
    xr.testing.assert_identical(lazy.compute(), whole)
    np.testing.assert_array_equal(want == 255, plane == 255)


@pytest.mark.parametrize(("seed", "azimuth"), [(0, 150.0), (1, 40.0), (2, 290.0)])
def test_simulated_shadows_are_found_and_not_by_chance(seed, azimuth):
    plane, light, true = simulated(seed, azimuth=azimuth)
    mask, scene = pair(plane, light, (30.0, 30.0))
    found = mask.cloudmask.cast_shadow(scene, sun=(35, azimuth)).values == 3
    precision, recall = rates(found, true)
    assert precision > 0.9
    assert recall > 0.8
    chance = mask.cloudmask.cast_shadow(scene, sun=(35, (azimuth + 120) % 360)).values == 3
    assert rates(chance, true)[1] < 0.35
    assert true.mean() > 0.03


@pytest.mark.parametrize(("lit", "low"), [(0, True), (3, True), (12, False)])
def test_of_two_places_that_are_dark_the_lower_needs_less(lit, low):
    """One kilometre up and four: the price of the three between is six of a hundred cells."""
    plane, light = np.zeros((120, 40)), np.full((120, 40), 0.3)
    plane[100:110, 10:20] = 1
    places = slice(100 - 17, 110 - 17), slice(100 - 67, 110 - 67)
    for place in places:
        light[place, 10:20] = 0.1
    light[places[0], 10:20][0, : min(lit, 10)] = 0.3
    light[places[0], 10:20][1, : max(lit - 10, 0)] = 0.3
    mask, scene = pair(plane, light, (60.0, 60.0))
    found = mask.cloudmask.cast_shadow(scene, sun=(45, 180), heights=(900, 6000)).values == 3
    assert found[places[0], 10:20].any() == low
    assert found[places[1], 10:20].any() != low


def test_dates_have_each_their_sun_and_dimensions_any_order():
    made = [simulated(seed, azimuth=azimuth, size=240) for seed, azimuth in ((3, 150.0), (4, 220.0))]
    mask, scene = pair(
        np.stack([each[0] for each in made]),
        np.stack([each[1] for each in made]),
        (30.0, 30.0),
        lead=("time",),
    )
    sun = {"sun_elevation": ("time", [35.0, 35.0]), "sun_azimuth": ("time", [150.0, 220.0])}
    both = (
        mask.chunk(time=2, y=50, x=70)
        .transpose("x", "time", "y")
        .cloudmask.cast_shadow(scene.assign_coords(sun))
    )
    assert both.dims == ("x", "time", "y")
    for date, azimuth in enumerate((150.0, 220.0)):
        one = mask[date].cloudmask.cast_shadow(scene[:, date], sun=(35, azimuth))
        np.testing.assert_array_equal(both.isel(time=date).transpose("y", "x").values, one.values)
        assert (one == 3).any()


def test_the_view_moves_clouds_and_rows_narrow_towards_a_pole():
    """A cloud over 60 degrees north, 3 km high, seen from 10 degrees in the east: it appears in the west."""
    lat, lon = 60.5 - np.arange(120) / 1000, 10 + np.arange(160) / 500
    light = np.full((1, 120, 160), 0.3)
    east, north = 111_320 * math.cos(math.radians(60.44)) / 500, 111.32
    cloud, high = (slice(50, 60), slice(60, 66)), 3000
    seen = high * math.tan(math.radians(10)) / east
    away = high / math.tan(math.radians(40))  # the sun is in the south-east
    down = round(-away * math.cos(math.radians(45)) / north)
    left = round((-away * math.sin(math.radians(45)) / east) + seen)
    true = np.zeros((120, 160), bool)
    true[cloud[0].start + down : cloud[0].stop + down, cloud[1].start + left : cloud[1].stop + left] = True
    light[0, true] = 0.1
    mask = xr.DataArray(
        np.zeros((120, 160), "u1"), dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs=ATTRS
    )
    mask[cloud] = 1
    scene = xr.DataArray(light, dims=("band", "lat", "lon"), coords={"lat": lat, "lon": lon})
    scene = scene.cloudmask.describe(bands=["nir"], level="L2A")
    found = mask.chunk(lat=33, lon=47).cloudmask.cast_shadow(scene, sun=(40, 135), view=(10, 90)).values == 3
    assert rates(found, true) == (1.0, 1.0)
    assert rates(mask.cloudmask.cast_shadow(scene, sun=(40, 200)).values == 3, true)[1] < 0.5


def test_shadows_in_the_north_lie_more_columns_away():
    """1/112 degree, from 70 to 60 degrees north: pixels are from 340 to 500 m wide."""
    lat, lon = 70 - np.arange(1120) / 112, np.arange(160) / 112
    true, light = np.zeros((1120, 160), bool), np.full((1, 1120, 160), 0.3)
    mask = xr.DataArray(
        np.zeros(true.shape, "u1"), dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs=ATTRS
    )
    for row in (40, 1060):
        mask[row : row + 10, 120:130] = 1
        width = 111_320 / 112 * math.cos(math.radians(lat[row + 5]))
        left = 120 - round(4000 / math.tan(math.radians(8)) / width)
        true[row : row + 10, left : left + 10] = True
    light[0, true] = 0.1
    scene = xr.DataArray(light, dims=("band", "lat", "lon"), coords={"lat": lat, "lon": lon})
    scene = scene.cloudmask.describe(bands=["nir"], level="L2A")
    found = mask.chunk(lat=300).cloudmask.cast_shadow(scene, sun=(8, 90), heights=(3990, 4010)).values == 3
    assert min(rates(found, true)) > 0.95


def test_a_mask_gets_the_class_that_it_lacks_and_water_stays():
    plane, light, true = simulated(5, size=120)
    mask, scene = pair(plane, light, (30.0, 30.0))
    plain = mask.assign_attrs(flag_values=[0, 1, 255], flag_meanings="not_cloud cloud no_data")
    out = plain.cloudmask.cast_shadow(scene, sun=(35, 150))
    assert out.attrs["flag_meanings"] == "not_cloud cloud cloud_shadow no_data"
    assert out.attrs["flag_values"] == [0, 1, 3, 255]
    assert out.attrs["cleaned"] == "cast_shadow=200 to 6000 m"
    assert rates(out.values == 3, true)[0] > 0.8
    bands = scene[0].reset_coords(drop=True).to_dataset(name="nir").assign_attrs(level="L2A")
    as_dataset = plain.to_dataset(name="cloud_mask").cloudmask.cast_shadow(bands, sun=(35, 150))
    np.testing.assert_array_equal(as_dataset.values, out.values)
    wet = plain.assign_attrs(flag_values=[0, 1, 3, 255], flag_meanings="clear cloud water no_data")
    wet = wet.where(~true, 3).astype("u1").assign_attrs(wet.attrs)
    out = wet.cloudmask.cast_shadow(scene, sun=(35, 150))
    assert out.attrs["flag_meanings"] == "clear cloud water cloud_shadow no_data"
    assert out.attrs["flag_values"] == [0, 1, 3, 2, 255]
    np.testing.assert_array_equal(out.values[true], wet.values[true])


def test_a_mask_that_where_made_floats_of_keeps_its_gaps():
    plane, light, _ = simulated(5, size=120)
    mask, scene = pair(plane, light, (30.0, 30.0))
    kept = mask.where(mask.x < 2000)
    out = kept.cloudmask.cast_shadow(scene, sun=(35, 150))
    want = kept.fillna(255).astype("u1").assign_attrs(mask.attrs).cloudmask.cast_shadow(scene, sun=(35, 150))
    assert out.dtype == np.uint8
    np.testing.assert_array_equal(out.values, want.values)
    assert (out.values == 3).any()


def test_building_reads_nothing_and_each_source_is_read_once():
    import dask.array as da

    plane, light, _ = simulated(6, size=120)
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return block

    mask, scene = pair(plane, light, (30.0, 30.0))
    lazy = [
        each.copy(
            data=da.from_array(each.values, chunks=60).map_blocks(
                read, dtype=each.dtype, meta=each.values[:0]
            )
        )
        for each in (mask, scene)
    ]
    out = lazy[0].cloudmask.cast_shadow(lazy[1], sun=(35, 150))
    assert reads == []
    out.compute(scheduler="threads")
    assert len(reads) == 8


@pytest.mark.parametrize(
    ("how", "error", "says"),
    [
        ({}, CloudMaskError, r"nothing tells where the sun stood.*sun=\(45.0, 150.0\)"),
        ({"sun": 45}, OptionError, "Give elevation and azimuth in degrees"),
        ({"sun": (-3, 10)}, OptionError, "above 0 and up to 90"),
        ({"sun": (45, 10), "heights": (6000, 200)}, OptionError, "the lower first"),
        ({"sun": (45, 10), "own": "drop"}, OptionError, "own"),
    ],
)
def test_what_cannot_be_meant_is_refused(how, error, says):
    mask, scene = pair(np.zeros((9, 9)), np.ones((9, 9)), (30.0, 30.0))
    with pytest.raises(error, match=says):
        mask.cloudmask.cast_shadow(scene, **how)


def test_a_scene_without_infrared_and_a_mask_without_size_are_refused():
    mask, scene = pair(np.zeros((9, 9)), np.ones((9, 9)), (30.0, 30.0), names=["red"])
    with pytest.raises(BandError, match="dark in nir, nir08, swir16"):
        mask.cloudmask.cast_shadow(scene, sun=(45, 10))
    with pytest.raises(CloudMaskError, match="need the pixel size"):
        mask.drop_vars(["y", "x"]).cloudmask.cast_shadow(scene.drop_vars(["y", "x"]), sun=(45, 10))


@pytest.mark.skipif(not ALBERTA.exists(), reason="no ../shared/data: shadows drawn by hand over Alberta")
def test_drawn_shadows_are_found_from_clouds_alone():
    """A small part of benchmarks/shadow.py: clouds by a ceiling of brightness, shadows by geometry."""
    with np.load(ALBERTA / "2020-07-05.npz") as file:
        stored, true = file["image"], file["possible"] == 8
        sun = 90 - float(file["sunZenithAngles"]), float(file["sunAzimuthAngles"])
        view = float(file["viewZenithMean"]), float(file["viewAzimuthMean"])
    mask, scene = pair(np.where(stored[0] > 1500, 1, 0), stored[3] / 1e4, (30.0, 30.0))
    precision, recall = rates(mask.cloudmask.cast_shadow(scene, sun=sun, view=view).values == 3, true)
    assert precision > 0.7
    assert recall > 0.5
    elsewhere = sun[0], (sun[1] + 90) % 360
    chance = rates(mask.cloudmask.cast_shadow(scene, sun=elsewhere, view=view).values == 3, true)
    assert chance[1] < 0.5 * recall


@pytest.mark.parametrize("own", ["replace", "match", "keep"])
def test_shadows_stay_where_the_scene_holds_no_data(own):
    plane, light = np.zeros((30, 30), "u1"), np.full((30, 30), 0.3)
    plane[2:5, 2:5], plane[20:25, 20:25], plane[20:25, 5:10] = 1, 3, 3
    light[20:25, 20:25] = np.nan
    mask, scene = pair(plane, light, (60.0, 60.0))
    found = mask.cloudmask.cast_shadow(scene, sun=(45, 180), heights=(0, 200), own=own).values
    assert (found[20:25, 20:25] == 3).all()
    assert (found[20:25, 5:10] == (3 if own == "keep" else 0)).all()


def test_north_is_that_of_the_scene_where_the_mask_has_no_crs():
    plane, light, _ = simulated(0, azimuth=150.0)
    mask, scene = pair(plane, light, (30.0, 30.0))
    shift = {"y": mask.y + 8e6, "x": mask.x + 8e5}  # 3 degrees and more to the east of the meridian
    mask, scene = mask.assign_coords(shift), scene.assign_coords(shift)
    placed = scene.rio.write_crs(32632)
    north, none = (mask.cloudmask.cast_shadow(each, sun=(20, 150)) for each in (placed, scene))
    both = mask.rio.write_crs(32632).cloudmask.cast_shadow(placed, sun=(20, 150))
    np.testing.assert_array_equal(north, both)
    np.testing.assert_array_equal(
        mask.cloudmask.cast_shadow(placed.drop_vars(["y", "x"]), sun=(20, 150)), both
    )
    assert (north != none).any(), "else the case shows nothing"
