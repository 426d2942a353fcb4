"""Cleaning a mask step by step: each step is what a slow reference says, whatever the chunks."""

import math

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from tests.tidy import naive
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import DEGREE

HIDING = (1, 2, 3)
ATTRS = {"flag_values": list(naive.CODES.values()), "flag_meanings": " ".join(naive.CODES)}


def a_mask(values, size=(10.0, 10.0), dims=("y", "x")):
    values = np.asarray(values, np.uint8)
    coords = {"y": -size[0] * np.arange(values.shape[-2]), "x": size[1] * np.arange(values.shape[-1])}
    return xr.DataArray(values, dims=("time", *dims)[-values.ndim :], coords=coords, attrs=ATTRS)


def blobs(shape, seed=0, share=0.3, wide=6):
    """Clouds of many sizes, shadows beside them, gaps."""
    from scipy.ndimage import gaussian_filter, shift

    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.standard_normal(shape), wide) * wide + 0.1 * rng.standard_normal(shape)
    cloud = field > np.quantile(field, 1 - share)
    codes = np.where(shift(cloud, (5, 9), order=0), 3, 0)
    codes[cloud] = 1
    codes[cloud & (field < np.quantile(field, 1 - share / 3))] = 2
    codes[rng.random(shape) < 0.003] = 255
    codes[: shape[0] // 3, : shape[1] // 9] = 255
    return codes.astype(np.uint8)


@st.composite
def chunks(draw, length):
    sizes = []
    while sum(sizes) < length:
        sizes.append(draw(st.integers(1, length - sum(sizes))))
    return tuple(sizes)


@st.composite
def planes(draw, most=12):
    shape = draw(st.integers(2, most)), draw(st.integers(2, most))  # one pixel tells no spacing
    odds = draw(
        st.sampled_from([(8, 4, 1, 1, 1, 1), (4, 8, 2, 1, 0, 0), (1, 1, 1, 1, 1, 1), (20, 2, 0, 0, 0, 1)])
    )
    seed = draw(st.integers(0, 2**32 - 1))
    values = np.random.default_rng(seed).choice(
        list(naive.CODES.values()), shape, p=np.array(odds) / sum(odds)
    )
    return values.astype(np.uint8)


ROWS, COLUMNS = 10.0, 14.0


def expected(plane, name, codes, size):
    if name in ("sieve", "fill"):
        return getattr(naive, name)(plane, codes, size)
    metres = size * 10
    distance, margin = naive.disc(metres / ROWS, metres / COLUMNS), math.ceil(2 * size) + 1
    if name == "buffer":
        return naive.spread(plane, codes, distance)
    return (naive.close if name == "close" else naive.thin)(plane, codes, distance, margin)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["close", "open", "buffer"]), st.sampled_from([1, 1.5, 2, 3.1])),
        st.tuples(st.sampled_from(["sieve", "fill"]), st.sampled_from([1, 2, 4, 9, 200])),
    ),
    min_size=1, max_size=3, unique_by=lambda step: step[0],
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(data=st.data(), plane=planes(), steps=STEPS)
def test_steps_are_what_the_reference_says_for_any_chunks(data, plane, steps):
    named = data.draw(st.sampled_from([None, "cloud", "cloud_shadow"]))
    codes = HIDING if named is None else (naive.CODES[named],)
    options = {name: size if name in ("sieve", "fill") else f"{size * 10:g} m" for name, size in steps}
    options = {name: size if named is None else {named: size} for name, size in options.items()}
    mask = a_mask(plane, (ROWS, COLUMNS))
    want = plane
    for name, size in steps:
        want = expected(want, name, codes, size)
    whole = mask.cloudmask.clean(**options)
    np.testing.assert_array_equal(whole.values, want)
    cut = {dim: data.draw(chunks(length)) for dim, length in mask.sizes.items()}
    lazy = mask.chunk(cut).cloudmask.clean(**options)
    assert lazy.chunks == mask.chunk(cut).chunks
    np.testing.assert_array_equal(lazy.values, want)
    np.testing.assert_array_equal(want == 255, plane == 255)


@pytest.mark.parametrize("name", ["close", "open", "buffer"])
def test_steps_in_pixels_of_a_larger_mask_follow_a_distance_transform(name):
    from scipy.ndimage import distance_transform_edt as distance

    plane, reach = blobs((300, 260)), 7
    mask = a_mask(plane)
    out = mask.chunk(y=64, x=50).cloudmask.clean(**{name: reach})
    wide = np.pad(plane, 2 * reach + 1, constant_values=255)
    hidden, known = np.isin(wide, HIDING), wide != 255
    if name == "open":
        core = distance(hidden | ~known | ~np.pad(np.ones(plane.shape, bool), 2 * reach + 1)) > reach
        want = hidden & (distance(~core) <= reach)
    else:
        grown = distance(~hidden) <= reach
        want = grown if name == "buffer" else distance(grown) > reach
        want = hidden | (want & known)
    inside = (slice(2 * reach + 1, -2 * reach - 1),) * 2
    np.testing.assert_array_equal(np.isin(out.values, HIDING), want[inside])
    assert not np.array_equal(out.values, plane)


@pytest.mark.parametrize("size", [10.0, 30.0])
def test_a_buffer_in_metres_is_within_a_pixel_of_the_distance_in_the_projection(size):
    from scipy.ndimage import distance_transform_edt

    plane = blobs((200, 220), share=0.1, wide=12)
    out = a_mask(plane, (size, size)).chunk(y=60, x=70).cloudmask.clean(buffer="150 m")
    away = distance_transform_edt(~np.isin(plane, HIDING), sampling=size)
    check_reach(out.values, plane, away, 150, size)


def check_reach(out, plane, away, metres, pixel):
    hidden, free = np.isin(out, HIDING), np.isin(plane, naive.GROUND)
    assert hidden[free & (away <= metres - pixel)].all()
    assert not hidden[free & (away > metres + pixel)].any()
    assert 0.02 < hidden[free].mean() < 0.98


@pytest.mark.parametrize("rows", [1, 25])
def test_a_buffer_on_latitude_and_longitude_is_within_a_pixel_of_the_distance_in_the_projection(rows):
    """1/112 degree at 60 degrees north, and from 45 to 70, where pixels are from 703 to 340 m wide."""
    from rasterio.warp import transform
    from scipy.spatial import cKDTree

    top, step = (60.5, 1 / 112) if rows == 1 else (70.0, 1 / 112)
    lat = top - step * np.arange(112 * rows)
    lon = 26 + step * np.arange(224)
    plane = np.zeros((len(lat), len(lon)), np.uint8)
    spots = np.random.default_rng(1).random(plane.shape) < 0.0004
    plane[spots] = 1
    plane[[0, -1], 100] = 1
    mask = xr.DataArray(
        plane, dims=("latitude", "longitude"), coords={"latitude": lat, "longitude": lon}, attrs=ATTRS
    )
    out = mask.chunk(latitude=70, longitude=90).cloudmask.clean(buffer="12 km").values
    east, north = (np.array(v).reshape(plane.shape) for v in transform(
        "EPSG:4326", "EPSG:32635", np.tile(lon, len(lat)), np.repeat(lat, len(lon))))  # fmt: skip
    clouds = cKDTree(np.stack([east[plane == 1], north[plane == 1]], axis=-1))
    away = clouds.query(np.stack([east, north], axis=-1))[0]
    narrow = step * DEGREE * math.cos(math.radians(top))
    check_reach(out, plane, away, 12_000, narrow)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), plane=planes(10), name=st.sampled_from(["close", "open", "buffer", "sieve", "fill"]))
def test_rows_of_unequal_width_are_the_same_for_any_chunks(data, plane, name):
    """By the definition: pixels are as far from each other as they are wide half-way between them."""
    lat = 75.0 - 3.0 * np.arange(plane.shape[0])
    lon = 5.0 + 3.0 * np.arange(plane.shape[1])
    mask = xr.DataArray(plane, dims=("lat", "lon"), coords={"lat": lat, "lon": lon}, attrs=ATTRS)
    margin, metres, least = 14, 500e3, 200_001.0
    wide = np.cos(np.radians(np.pad(lat, margin, mode="edge")))

    def distance(y, x, v, u):
        across = (x - u) * 3 * DEGREE * (wide[y + here] + wide[v + here]) / 2
        return (((y - v) * 3 * DEGREE) ** 2 + across**2) / metres**2

    here = 0 if name in ("close", "open") else margin
    if name in ("sieve", "fill"):
        area = lambda y: (3 * DEGREE) ** 2 * math.cos(math.radians(lat[y])) / 1e6  # noqa: E731
        options, want = {name: f"{least:.0f} km2"}, getattr(naive, name)(plane, HIDING, least, area)
    else:
        options = {name: f"{metres:.0f} m"}
        want = {
            "close": lambda: naive.close(plane, HIDING, distance, margin),
            "open": lambda: naive.thin(plane, HIDING, distance, margin),
            "buffer": lambda: naive.spread(plane, HIDING, distance),
        }[name]()
    np.testing.assert_array_equal(mask.cloudmask.clean(**options).values, want)
    cut = {dim: data.draw(chunks(length)) for dim, length in mask.sizes.items()}
    np.testing.assert_array_equal(mask.chunk(cut).cloudmask.clean(**options).values, want)


def test_steps_are_done_in_the_order_written_and_recorded():
    plane = np.zeros((9, 9), np.uint8)
    plane[4, 4] = 1
    mask = a_mask(plane)
    first = mask.cloudmask.clean(sieve=2, buffer={"cloud": "20 m", "cloud_shadow": 3})
    assert not first.values.any()
    assert first.attrs == {**ATTRS, "cleaned": "sieve=2 px; buffer(cloud)=20 m; buffer(cloud_shadow)=3 px"}
    after = mask.cloudmask.clean(buffer={"cloud": "20 m"}, sieve=2)
    assert int(after.sum()) == 13  # a disc of radius 2
    assert after.cloudmask.clean(open=1).attrs["cleaned"] == "buffer(cloud)=20 m; sieve=2 px; open=1 px"
    assert mask.attrs == ATTRS


def test_a_class_named_first_goes_first_where_two_reach():
    mask = a_mask([[1, 0, 0, 3]])
    assert mask.cloudmask.clean(buffer=2).values.tolist() == [[1, 1, 1, 3]]
    reached = mask.cloudmask.clean(buffer={"cloud_shadow": 2, "cloud": 2})
    assert reached.values.tolist() == [[1, 3, 3, 3]]


def test_all_planes_and_orders_of_dimensions_are_alike():
    planes_ = np.stack([blobs((50, 60), seed) for seed in range(4)])
    mask = a_mask(planes_)
    steps = {"close": "20 m", "sieve": "0.3 ha", "buffer": 2, "fill": "1 ha"}
    want = np.stack([a_mask(plane).cloudmask.clean(**steps).values for plane in planes_])
    for cut in ({"time": 1, "y": 13, "x": 60}, {"time": 3, "y": 50, "x": 7}):
        lazy = mask.chunk(cut).transpose("x", "time", "y").cloudmask.clean(**steps)
        assert lazy.dims == ("x", "time", "y")
        np.testing.assert_array_equal(lazy.transpose("time", "y", "x").values, want)
    ds = mask.to_dataset(name="cloud_mask").cloudmask.clean(**steps)
    np.testing.assert_array_equal(ds.values, want)


def test_a_mask_that_where_made_floats_of_keeps_its_gaps():
    mask = a_mask(blobs((40, 40)))
    kept = mask.where(mask.x < 200)
    out = kept.cloudmask.clean(buffer=2, sieve=5)
    assert out.dtype == np.uint8
    want = mask.where(mask.x < 200, 255).astype("u1").cloudmask.clean(buffer=2, sieve=5)
    np.testing.assert_array_equal(out.values, want.values)
    assert (out.values[:, 20:] == 255).all()


def test_building_reads_nothing_and_the_source_is_read_once():
    """Also of steps that take two passes over the chunks."""
    reads = []

    def read(block, block_info=None):
        reads.append(block_info[None]["chunk-location"])
        return block

    plane = blobs((90, 120))
    source = da.from_array(plane, chunks=(30, 40)).map_blocks(read, dtype="u1", meta=np.empty((0, 0), "u1"))
    lazy = a_mask(plane).copy(data=source).cloudmask.clean(close=2, sieve=9, buffer=3, fill=20)
    assert reads == []
    with dask.config.set(scheduler="threads"):
        lazy.compute()
    assert sorted(reads) == [(i, j) for i in range(3) for j in range(3)]


@pytest.mark.parametrize(
    "steps", [{"close": 2, "buffer": 3}, {"close": 2, "sieve": 9, "buffer": 3, "fill": 9}]
)
def test_chunks_wait_packed_for_their_neighbours_and_for_the_whole_scene(steps):
    """What the scheduler holds at a time is a fraction of the scene: an empty chunk packs to nothing."""
    import pickle

    from dask.callbacks import Callback

    made = da.zeros((3072, 3072), dtype="u1", chunks=512).map_blocks(np.copy, dtype="u1")
    mask = xr.DataArray(made, dims=("y", "x"), attrs=ATTRS)
    lazy = mask.cloudmask.clean(**steps).astype(bool).sum()
    held = []

    class Watch(Callback):
        def _posttask(self, key, result, dsk, state, worker_id):
            held.append(sum(len(pickle.dumps(value)) for value in state["cache"].values()))

    with Watch(), dask.config.set(scheduler="synchronous"):
        lazy.compute()
    assert 0 < max(held) < 0.2 * made.nbytes


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        ({}, CloudMaskError, "no step"),
        ({"sieves": 3}, OptionError, "did you mean 'sieve'"),
        ({"buffer": "1 ha"}, OptionError, "150 m"),
        ({"sieve": "150 m"}, OptionError, "1 ha"),
        ({"sieve": -1}, OptionError, "1 ha"),
        ({"buffer": True}, OptionError, "150 m"),
        ({"buffer": 150}, CloudMaskError, "'150 m' or '150 px'"),
        ({"buffer": {"clouds": 3}}, OptionError, "did you mean 'cloud'"),
        ({"buffer": {"snow": 3}}, OptionError, "clouds and their shadows"),
    ],
)
def test_wrong_steps_are_refused_with_the_remedy(steps, error, message):
    with pytest.raises(error, match=message):
        a_mask(np.zeros((4, 4))).cloudmask.clean(**steps)


def test_metres_need_coordinates():
    bare = a_mask(np.zeros((4, 4))).drop_vars(["y", "x"])
    with pytest.raises(CloudMaskError, match="sieve='1 ha': the pixel size is not known"):
        bare.cloudmask.clean(sieve="1 ha")
    with pytest.raises(CloudMaskError, match="this is no mask"):
        bare.drop_attrs().cloudmask.clean(sieve=3)
