"""Two masks beside each other: table, kappa, map of differences."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask  # noqa: F401
from xcloudmask.errors import CloudMaskError, OptionError

DEFAULT = {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "snow": 4, "water": 5, "no_data": 255}
BINARY = {"not_cloud": 0, "cloud": 1, "no_data": 255}
CLOUDSEN = {"clear": 0, "thick_cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "no_data": 255}


def a_mask(values, classes=DEFAULT):
    flags = {"flag_values": list(classes.values()), "flag_meanings": " ".join(classes)}
    values = np.asarray(values, "u1")
    coords = {"y": np.arange(values.shape[0]), "x": np.arange(values.shape[1])}
    return xr.DataArray(values, dims=("y", "x"), coords=coords, attrs=flags)


def kappa(pairs):
    """Cohen 1960, from the pairs themselves."""
    n = len(pairs)
    observed = sum(a == b for a, b in pairs) / n
    words = {word for pair in pairs for word in pair}
    chance = sum(sum(a == w for a, _ in pairs) * sum(b == w for _, b in pairs) for w in words) / n**2
    return (observed - chance) / (1 - chance) if chance < 1 else np.nan


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_the_table_and_kappa_are_counts_of_pairs(data, seed):
    rng = np.random.default_rng(seed)
    classes = data.draw(st.sampled_from([DEFAULT, BINARY, CLOUDSEN]))
    shape = data.draw(st.tuples(st.integers(2, 9), st.integers(1, 9)))
    here = rng.choice(list(DEFAULT.values()), shape)
    there = rng.choice(list(classes.values()), shape)
    here[0, 0] = there[0, 0] = 1  # both hold data somewhere
    mask, other = a_mask(here), a_mask(there, classes)
    if data.draw(st.booleans()):
        mask, other = mask.chunk(y=data.draw(st.integers(1, 4))), other.chunk(x=2)
    both = mask.cloudmask.compare(other.transpose("x", "y")).compute()
    names, others = {v: k for k, v in DEFAULT.items()}, {v: k for k, v in classes.items()}
    pairs = [
        (names[a], others[b]) for a, b in zip(here.ravel(), there.ravel(), strict=True) if 255 not in (a, b)
    ]
    for a in both.here.values:
        for b in both.there.values:
            assert int(both.table.sel(here=a, there=b)) == pairs.count((a, b))

    def plain(word):
        word = {"not_cloud": "clear", "thick_cloud": "cloud"}.get(word, word)
        if classes is DEFAULT:
            return word
        lost = {"snow": "clear", "water": "clear"}
        if classes is BINARY:
            lost |= {"thin_cloud": "cloud", "cloud_shadow": "clear"}
        return lost.get(word, word)

    pairs = [(plain(a), plain(b)) for a, b in pairs]
    np.testing.assert_allclose(float(both.kappa), kappa(pairs))
    np.testing.assert_allclose(float(both.agreement), sum(a == b for a, b in pairs) / len(pairs))


def test_the_map_tells_what_differs():
    mask = a_mask([[0, 1, 2, 3, 4, 5, 255, 0, 1, 1]])
    other = a_mask([[0, 2, 2, 0, 0, 5, 0, 255, 0, 3]])
    both = mask.chunk(x=3).cloudmask.compare(other)
    assert both.difference.chunks is not None
    assert both.table.chunks is not None
    assert both.difference.values.tolist() == [[0, 3, 0, 1, 3, 0, 255, 255, 1, 3]]
    assert mask.cloudmask.compare(a_mask([[1] * 10])).difference.values.tolist() == [
        [2, 0, 3, 3, 2, 2, 255, 2, 0, 0]
    ]
    to_binary = mask.cloudmask.compare(a_mask([[0, 1, 1, 0, 0, 0, 0, 0, 1, 1]], BINARY))
    assert to_binary.difference.values.tolist() == [[0, 0, 0, 0, 0, 0, 255, 0, 0, 0]]
    assert float(to_binary.kappa) == 1
    assert both.difference.attrs["flag_meanings"].split()[1] == "masked_only_here"
    xr.testing.assert_equal(both.difference.x, mask.x)


def test_other_grids_and_classes_are_refused():
    mask = a_mask([[0, 1]])
    with pytest.raises(CloudMaskError, match="reindex_like"):
        mask.cloudmask.compare(a_mask([[0, 1, 1]]))
    with pytest.raises(CloudMaskError, match="other coordinates along 'x'"):
        mask.cloudmask.compare(mask.assign_coords(x=[5, 6]))
    with pytest.raises(OptionError, match="haze"):
        mask.cloudmask.compare(a_mask([[0, 1]], {"clear": 0, "haze": 1}))
    with pytest.raises(CloudMaskError, match="Give DataArray"):
        mask.cloudmask.compare(mask.values)
