"""Two thresholds on probability: what a flood from the sure pixels reaches, whatever the chunks."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import chunks
from xcloudmask.classes import scheme
from xcloudmask.engine.classify import decide_classes
from xcloudmask.errors import CloudMaskError, OptionError

CLASSES = ("clear", "cloud", "thin_cloud", "cloud_shadow", "snow")
CODES = {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "snow": 4}


def odds(values, scheme_name="default"):
    """Probabilities (class, y, x) that sum to one."""
    values = np.asarray(values, np.float32)
    return xr.DataArray(
        values, dims=("class", *("time", "y", "x")[4 - values.ndim :]),
        coords={"class": list(CLASSES)}, attrs={"scheme": scheme_name}, name="cloud_probability",
    )  # fmt: skip


def flood(p, low, high):
    """The definition, by walking from pixel to pixel."""
    cloud = p[1] + p[2]
    reached = cloud >= high
    todo = [tuple(at) for at in np.argwhere(reached)]
    while todo:
        y, x = todo.pop()
        for v in range(max(y - 1, 0), y + 2):
            for u in range(max(x - 1, 0), x + 2):
                if v < p.shape[1] and u < p.shape[2] and cloud[v, u] >= low and not reached[v, u]:
                    reached[v, u] = True
                    todo.append((v, u))
    out = np.full(reached.shape, 255, np.uint8)
    for y, x in np.ndindex(reached.shape):
        if not np.isnan(p[0, y, x]):
            among = ("cloud", "thin_cloud") if reached[y, x] else ("clear", "cloud_shadow", "snow")
            out[y, x] = CODES[max(among, key=lambda name: p[CLASSES.index(name), y, x])]
    return out


@st.composite
def fields(draw):
    shape = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    p = rng.random((5, *shape), np.float32) ** draw(st.sampled_from([0.5, 1, 3]))
    p /= p.sum(axis=0)
    p[:, rng.random(shape) < 0.05] = np.nan
    return p


@settings(max_examples=40, deadline=None)
@given(
    data=st.data(), p=fields(), low=st.sampled_from([0.3, 0.4, 0.5]), high=st.sampled_from([0.5, 0.6, 0.8])
)
def test_it_is_the_flood_from_sure_pixels_for_any_chunks(data, p, low, high):
    want = flood(p, low, high)
    whole = odds(p).cloudmask.clean(hysteresis=(low, high))
    np.testing.assert_array_equal(whole.values, want)
    cut = {
        "class": data.draw(st.sampled_from([-1, 2])),
        "y": data.draw(chunks(p.shape[1])),
        "x": data.draw(chunks(p.shape[2])),
    }
    lazy = odds(p).chunk(cut).cloudmask.clean(hysteresis=(low, high))
    assert isinstance(lazy.data, da.Array)
    xr.testing.assert_identical(lazy.compute(), whole)


def test_a_cloud_that_snakes_through_many_chunks_hangs_together():
    p = np.zeros((5, 64, 64), np.float32)
    p[0] = 1
    for row in range(0, 64, 4):  # one line, to and fro, a pixel wide
        p[:2, row] = np.array([[0.6], [0.4]])
        if row + 4 < 64:
            p[:2, row : row + 5, -1 if row % 8 == 0 else 0] = np.array([[0.6], [0.4]])
    p[:2, 62:, 30] = np.array([[0.6], [0.4]])  # apart, and never sure
    p[:2, 0, 0] = 0.1, 0.9
    mask = odds(p).chunk(y=5, x=7).cloudmask.clean(hysteresis=(0.3, 0.8)).values
    snake = p[1] > 0.3
    snake[62:, 30] = False
    np.testing.assert_array_equal(mask == 1, snake)
    assert mask[62, 30] == 0


def test_two_equal_thresholds_are_one():
    p = np.random.default_rng(1).random((5, 40, 50), np.float32)
    p /= p.sum(axis=0)
    index = decide_classes(p, scheme("default", CLASSES), 0.45, 0.3)
    mask = odds(p).assign_attrs(shadow_threshold=0.3).cloudmask.clean(hysteresis=(0.45, 0.45))
    np.testing.assert_array_equal(mask.values, np.array(list(CODES.values()), "u1")[index])
    assert len(np.unique(mask)) == 5
    assert mask.attrs["flag_meanings"].split() == [*CLASSES, "no_data"]
    assert mask.attrs["cleaned"] == "hysteresis=0.45 0.45"


def test_dates_are_apart_and_other_steps_follow():
    rng = np.random.default_rng(5)
    p = rng.random((5, 3, 20, 20), np.float32) ** 2
    p /= p.sum(axis=0)
    out = odds(p).chunk(time=2, y=6, x=20).cloudmask.clean(hysteresis=(0.4, 0.7), sieve=3)
    for date in range(3):
        mask = odds(p[:, date]).cloudmask.clean(hysteresis=(0.4, 0.7)).cloudmask.clean(sieve=3)
        np.testing.assert_array_equal(out.values[date], mask.values)


def test_native_codes_are_places_and_a_weak_shadow_is_none():
    p = np.zeros((5, 1, 2), np.float32)
    p[:, 0, 0], p[:, 0, 1] = [0.3, 0.1, 0.1, 0.4, 0.1], [0, 0.1, 0.9, 0, 0]
    proba = odds(p, "native")
    assert proba.cloudmask.clean(hysteresis=(0.5, 0.6)).values.tolist() == [[3, 2]]
    proba.attrs["shadow_threshold"] = 0.5
    assert proba.cloudmask.clean(hysteresis=(0.5, 0.6)).values.tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("steps", "error", "says"),
    [
        ({"hysteresis": (0.7, 0.3)}, OptionError, "the lower first"),
        ({"hysteresis": 0.7}, OptionError, "two probabilities"),
        ({"hysteresis": (0, 0.7)}, OptionError, "two probabilities"),
        ({"sieve": 3, "hysteresis": (0.3, 0.7)}, CloudMaskError, "Write it first"),
    ],
)
def test_wrong_thresholds_are_refused(steps, error, says):
    with pytest.raises(error, match=says):
        odds(np.ones((5, 2, 2)) / 5).cloudmask.clean(**steps)


def test_a_mask_has_no_probabilities():
    mask = odds(np.ones((5, 2, 2)) / 5).cloudmask.clean(hysteresis=(0.3, 0.7))
    with pytest.raises(CloudMaskError, match=r"predict_proba.*post="):
        mask.cloudmask.clean(hysteresis=(0.3, 0.7))
    flat = odds(np.ones((5, 2, 2)) / 5).isel({"class": [0, 3]})
    with pytest.raises(CloudMaskError, match="between cloud and the rest"):
        flat.cloudmask.clean(hysteresis=(0.3, 0.7))
