"""What other dates correct in a mask: planted cases, any chunks, and nothing else."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.masks import series

FLAGS = {"flag_values": [0, 1, 2, 3, 255], "flag_meanings": "clear cloud thin_cloud cloud_shadow no_data"}
BANDS = ["blue", "red", "nir"]
FIELD, SAND, SNOW = (0.05, 0.06, 0.3), (0.3, 0.4, 0.45), (0.7, 0.7, 0.6)
DATES = 9


def planted():
    """A row of pixels over nine dates; each tells of one case, by its place."""
    cases = {}

    def case(name, ground, codes, changes=()):
        values = np.array([ground] * DATES, "f4") + 0.004 * np.sin(7 * np.arange(DATES))[:, None]
        for date, value in changes:
            values[date] = value
        cases[name] = values, np.array(codes, "u1")

    clear = [0] * DATES
    case("sand always called cloud", SAND, [1] * DATES)
    case("sand called thin cloud but once", SAND, [2, 2, 2, 0, 2, 2, 2, 2, 2])
    case(
        "sand called cloud, and real cloud", SAND, [1] * DATES, [(4, (0.6, 0.6, 0.65)), (6, (0.7, 0.7, 0.7))]
    )
    case("sand called cloud twice of nine", SAND, [1, 0, 0, 1, 0, 0, 0, 0, 0])
    case("cloud on most dates", FIELD, [1, 1, 0, 1, 1, 0, 1, 0, 1],
         [(t, (0.3 + 0.05 * t, 0.3 + 0.05 * t, 0.4 + 0.03 * t)) for t in (0, 1, 3, 4, 6, 8)])  # fmt: skip
    case("cloud missed once", FIELD, clear, [(5, (0.25, 0.26, 0.45))])
    case("ploughed and it stays", FIELD, clear, [(t, (0.16, 0.16, 0.2)) for t in (6, 7, 8)])
    case("soil that dries once", (0.1, 0.12, 0.2), clear, [(3, (0.17, 0.25, 0.35))])
    case("snow for two dates", FIELD, clear, [(4, SNOW), (5, SNOW)])
    case("missed, but no data that day", FIELD, [0, 0, 0, 0, 0, 255, 0, 0, 0], [(5, (0.25, 0.26, 0.45))])
    case("too few dates", SAND, [1, 1, 1, 1, 255, 255, 255, 255, 255])
    case("shadow is let alone", (0.02, 0.02, 0.03), [3] * DATES)
    case("nothing is wrong", FIELD, [0, 0, 1, 0, 0, 0, 0, 0, 0], [(2, (0.5, 0.5, 0.6))])
    values = np.stack([v for v, _ in cases.values()], axis=-1)[:, :, None]
    codes = np.stack([c for _, c in cases.values()], axis=-1)[:, None]
    coords = {"time": np.datetime64("2026-05-01", "ns") + np.arange(DATES) * np.timedelta64(5, "D")}
    scene = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)
    mask = xr.DataArray(codes, dims=("time", "y", "x"), coords=coords, attrs=FLAGS)
    return scene.cloudmask.describe(bands=BANDS, level="L2A"), mask, list(cases)


#: What each case becomes where it does not stay as it is.
BECOMES = {
    "sand always called cloud": [0] * DATES,
    "sand called thin cloud but once": [0] * DATES,
    "sand called cloud, and real cloud": [0, 0, 0, 0, 1, 0, 1, 0, 0],
    "cloud missed once": [0, 0, 0, 0, 0, 1, 0, 0, 0],
}


def test_what_was_planted_is_corrected_and_nothing_else():
    scene, mask, names = planted()
    revised = scene.cloudmask.time_rules(mask)
    for place, name in enumerate(names):
        want = BECOMES.get(name, mask.values[:, 0, place].tolist())
        assert revised.cloud_mask.values[:, 0, place].tolist() == want, name
    bright = [names[place] for place in np.flatnonzero(revised.persistent_bright.values[0])]
    assert bright == [name for name in BECOMES if name.startswith("sand")]
    for rule, was, is_now in (("persistent", (1, 2), 0), ("missed", (0,), 1)):
        here = mask.isin(was) & (revised.cloud_mask == is_now)
        np.testing.assert_array_equal(revised.changed.sel(rule=rule).values, here.sum(("y", "x")).values)
    assert revised.cloud_mask.attrs == {**FLAGS, "time_rules": "persistent, missed"}
    assert revised.cloud_mask.dtype == np.uint8


def test_each_rule_can_be_had_alone():
    scene, mask, names = planted()
    one = scene.cloudmask.time_rules(mask, rules="missed")
    assert int(one.changed.sel(rule="persistent").sum()) == 0
    assert int(one.changed.sel(rule="missed").sum()) == 1
    other = scene.cloudmask.time_rules(mask, rules=["persistent"])
    assert int(other.changed.sel(rule="missed").sum()) == 0
    assert int(other.persistent_bright.sum()) == 3
    assert names.index("cloud missed once") not in np.flatnonzero(
        (other.cloud_mask != mask).any("time").values[0]
    )


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 999),
    st.tuples(*[st.integers(1, n) for n in (8, 3, 4, 5)]),
    st.integers(1, 8),
    st.booleans(),
)
def test_any_chunks_and_any_order_of_dates_give_the_same(seed, cuts, mask_cut, shuffled):
    rng = np.random.default_rng(seed)
    usual = rng.choice([0.05, 0.3], (1, 1, 4, 5))
    pixels = usual + rng.choice([0, 0.01, 0.3], (8, 1, 4, 5), p=[0.6, 0.2, 0.2]) + np.zeros((1, 3, 1, 1))
    pixels[rng.random(pixels.shape) < 0.02] = np.nan
    coords = {"time": np.datetime64("2026-05-01", "ns") + np.arange(8) * np.timedelta64(5, "D")}
    codes = rng.choice([0, 1, 3, 255], (8, 4, 5), p=[0.55, 0.3, 0.1, 0.05]).astype("u1")
    mask = xr.DataArray(codes, dims=("time", "y", "x"), coords=coords, attrs=FLAGS)
    scene = xr.DataArray(pixels.astype("f4"), dims=("time", "band", "y", "x"), coords=coords)
    scene = scene.cloudmask.describe(bands=BANDS, level="L2A")
    whole = scene.cloudmask.time_rules(mask)
    assert ((whole.cloud_mask == 255) == (mask == 255)).all()
    order = rng.permutation(8) if shuffled else np.arange(8)
    lazy = scene.isel(time=order).chunk(dict(zip(scene.dims, cuts, strict=True)))
    found = lazy.cloudmask.time_rules(mask.isel(time=order).chunk(time=mask_cut))
    assert all(variable.chunks is not None for variable in found.data_vars.values())
    xr.testing.assert_identical(found.compute(scheduler="sync").isel(time=np.argsort(order)), whole)


def test_stored_numbers_and_datasets_are_taken_and_rows_cut(monkeypatch):
    scene, mask, _ = planted()
    want = scene.cloudmask.time_rules(mask).cloud_mask
    stored = (scene * 1e4).round().astype("u2").drop_attrs()
    stored = stored.cloudmask.describe(bands=BANDS, level="L2A", scale=1e-4)
    monkeypatch.setattr(series, "BLOCK", 1)
    np.testing.assert_array_equal(stored.chunk().cloudmask.time_rules(mask).cloud_mask.values, want.values)
    ds = scene.assign_coords(band=BANDS).to_dataset("band")
    np.testing.assert_array_equal(ds.cloudmask.time_rules(mask).cloud_mask.values, want.values)


def test_what_cannot_be_judged_is_refused():
    scene, mask, _ = planted()
    with pytest.raises(OptionError, match="unknown rule 'persistence'"):
        scene.cloudmask.time_rules(mask, rules=["persistence"])
    with pytest.raises(CloudMaskError, match="least=1 must be"):
        scene.cloudmask.time_rules(mask, least=1)
    with pytest.raises(BandError, match="the scene has red, nir; leave it out"):
        scene.isel(band=[1, 2]).cloudmask.time_rules(mask)
    scene.isel(band=[1, 2]).cloudmask.time_rules(mask, rules="persistent")
    with pytest.raises(CloudMaskError, match="needs a cloud and a clear class"):
        scene.cloudmask.time_rules(mask.assign_attrs(flag_meanings="a b c d no_data"))
