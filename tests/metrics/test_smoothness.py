"""Smoothness under masks: against the plain way, for any chunks; its order is that of the true errors."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics import smoothness

FLAGS = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}


def a_site(seed=0, dates=7, masks=3, side=(2, 3)):
    rng = np.random.default_rng(seed)
    days = np.sort(rng.choice(90, dates, replace=False))
    coords = {"time": np.datetime64("2026-03-01", "ns") + days * np.timedelta64(1, "D")}
    pixels = rng.random((dates, 2, *side)).astype("f4") * 0.3
    pixels[rng.random(pixels.shape) < 0.03] = np.nan
    scene = xr.DataArray(pixels, dims=("time", "band", "y", "x"), coords=coords)
    made = {
        f"m{k}": xr.DataArray(rng.choice([0, 1, 255], (dates, *side), p=[0.7, 0.25, 0.05]).astype("u1"),
                              dims=("time", "y", "x"), coords=coords, attrs=FLAGS)
        for k in range(masks)
    }  # fmt: skip
    return scene.cloudmask.describe(bands=["red", "nir"], level="L2A"), made


def residual(scene, seen, at, y, x, days):
    """Of one view, between the views seen before and after it, in days and reflectance; None for none."""
    time = (scene.time.values - scene.time.values[0]) / np.timedelta64(1, "D")
    before = [t for t in range(at) if seen[t, y, x]]
    after = [t for t in range(at + 1, len(time)) if seen[t, y, x]]
    if not before or not after or time[after[0]] - time[before[-1]] > days:
        return None
    a, b = before[-1], after[0]
    share = (time[at] - time[a]) / (time[b] - time[a])
    line = scene.values[a, :, y, x] + share * (scene.values[b, :, y, x] - scene.values[a, :, y, x])
    return float(np.sqrt(np.mean((scene.values[at, :, y, x] - line) ** 2)))


def by_hand(scene, masks, days):
    known = np.isfinite(scene.values).all(axis=1)
    for mask in masks.values():
        known = known & (mask.values != 255)
    seen = {name: (mask.values == 0) & known for name, mask in masks.items()}
    agreed = 2 * sum(s.astype(int) for s in seen.values()) > len(seen)
    fits = {at: r for at in np.ndindex(agreed.shape) if known[at]
            and (r := residual(scene, agreed, *at, days)) is not None}  # fmt: skip
    limit = max(3 * np.median([r for at, r in fits.items() if agreed[at]]), 0.01)
    out = {}
    for name, s in seen.items():
        own = [r for at in np.ndindex(s.shape) if s[at] and (r := residual(scene, s, *at, days)) is not None]
        clear = [r for at, r in fits.items() if s[at]]
        masked = [r for at, r in fits.items() if not s[at]]
        missed, lost = np.sum(np.array(clear) > limit), np.sum(np.array(masked) <= limit)
        out[name] = (
            np.sqrt(np.mean(np.square(own))),
            (missed + lost) / len(fits),
            len(clear) / len(fits),
            limit,
        )
    return out


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_plain_way_gives(seed):
    scene, masks = a_site(seed)
    found = smoothness(scene, masks, days=50)
    for name, (noise, error, clear, limit) in by_hand(scene, masks, 50).items():
        one = found.sel(mask=name)
        np.testing.assert_allclose(one.noise, noise, atol=1e-3)
        np.testing.assert_allclose(one.error, error, atol=0.05)  # residuals are counted in steps
        np.testing.assert_allclose(one.clear_fraction, clear)
        np.testing.assert_allclose(one.fits, limit, atol=0.01)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 999), st.tuples(*[st.integers(1, n) for n in (7, 2, 2, 3)]), st.integers(1, 7),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_chunks_and_any_order_of_dates_give_the_same(seed, cuts, mask_cut, lazy_scene, shuffled):
    scene, masks = a_site(seed)
    whole = smoothness(scene, masks)
    order = np.random.default_rng(seed).permutation(7) if shuffled else np.arange(7)
    lazy = scene.isel(time=order)
    lazy = lazy.chunk(dict(zip(scene.dims, cuts, strict=True))) if lazy_scene else lazy
    cut = {name: mask.isel(time=order).chunk(time=mask_cut, x=1) for name, mask in masks.items()}
    found = smoothness(lazy, cut)
    assert all(variable.chunks is not None for variable in found.data_vars.values())
    xr.testing.assert_identical(found.compute(scheduler="sync"), whole)


def test_its_order_is_that_of_the_true_errors(dates):
    """Of the benchmark's simulated site, small; the figures that docs state are in its results."""
    found = dates.ranks(seeds=2, many=16, side=48, dates=16)
    assert found["mean"]["error"] > 0.85
    assert found["mean"]["noise_with_missed"] > 0.7
    assert found["mean"]["noise"] < 0.6, "noise alone would do: say so in the docs"
    assert found["pairs_right"] >= 0.7 * found["pairs"] > 0
    assert found["chosen"]["by_error"] < 0.02 < found["chosen"]["median"]


def test_what_cannot_be_compared_is_refused():
    scene, masks = a_site()
    with pytest.raises(CloudMaskError, match="by name"):
        smoothness(scene, masks["m0"])
    with pytest.raises(CloudMaskError, match="by name"):
        smoothness(scene, {})
    two = {name: mask[:2] for name, mask in masks.items()}
    with pytest.raises(CloudMaskError, match="has 2 dates"):
        smoothness(scene[:2], two)
    with pytest.raises(CloudMaskError, match="which do not fit"):
        smoothness(scene[:4], masks)
