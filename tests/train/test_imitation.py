"""Fine samples as a coarse instrument records them: bands, point spread, grid, noise, cover."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import noise
from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import imitate
from xcloudmask.train.imitation import area_weights, shared
from xcloudmask.train.samples import Sample

LANDSAT = sensors.get("landsat-8")
BANDS = tuple(LANDSAT.band(name) for name in ("blue", "green", "red", "nir08", "swir16", "swir22"))


def sample(size: int = 120, value: float | None = None, labels: int = 1) -> Sample:
    image = noise(6, size, size).astype("f4") if value is None else np.full((6, size, size), value, "f4")
    return Sample(image, BANDS, np.full((size, size), labels, "u1"), 30.0, "a", "here", "toa")


def test_bands_are_mixed_by_the_nanometres_that_both_share() -> None:
    sentinel = sensors.get("sentinel-2a")
    nir = sensors.get("proba-v").band("nir")  # 771.3 to 904.7 nm
    sources = tuple(sentinel.band(name) for name in ("B04", "B07", "B08", "B8A"))
    widths = [max(0.0, min(904.7, b.max_nm) - max(771.3, b.min_nm)) for b in sources]
    assert widths[0] == 0
    assert shared(nir, sources) == pytest.approx([width / sum(widths) for width in widths])
    one = sample()
    one.image[:] = np.arange(1, 7, dtype="f4")[:, None, None]
    made = imitate("proba-v")(one)
    assert made is not None
    assert [band.common_name for band in made.bands] == ["blue", "red", "nir", "swir16"]
    np.testing.assert_allclose(made.image[:, 3, 3], [1, 3, 4, 5], rtol=1e-6)


def test_a_band_that_no_source_is_like_is_not_made() -> None:
    assert shared(sensors.get("proba-v").band("swir16"), BANDS[:4]) is None
    assert imitate("proba-v")(sample().select([0, 1, 2, 3])) is None  # 38-Cloud has no 1.6 um
    assert shared(sensors.get("proba-v").band("nir"), (LANDSAT.band("pan"), LANDSAT.band("B10"))) is None


@pytest.mark.parametrize(
    ("name", "pixel"), [("proba-v", 331.3), ("spot-vgt1", 993.9), ("proba-v-1km", 993.9)]
)
def test_the_grid_is_the_products(name: str, pixel: float) -> None:
    made = imitate(name)(sample(140))
    assert made is not None
    assert made.gsd == pytest.approx(pixel, abs=0.1)
    assert made.possible.shape == (int(140 * 30 / pixel),) * 2
    assert (made.scene, made.source, made.level) == ("a", "here", "toa")


@pytest.mark.parametrize("modulation", [0.2, 0.5])
def test_a_wave_at_the_nyquist_frequency_keeps_the_modulation(modulation: float) -> None:
    """Of two native pixels a period, the amplitude falls to what was asked for."""
    made = imitate("spot-vgt2", modulation=modulation)
    size, native = 600, made.instrument.native / 30
    wave = np.cos(math.pi * (np.arange(size) - size / 2) / native)
    plane = np.broadcast_to((0.5 + 0.4 * wave).astype("f4"), (size, size)).copy()
    # read at every fine pixel: the grid of the product is too coarse to see that wave
    out = made._sampled(plane[None], np.ones_like(plane, bool), native, (size, size), 1.0)[0, 300, 200:400]
    assert (out.max() - out.min()) / 0.8 == pytest.approx(modulation, abs=0.01)


def test_a_pixel_is_centred_on_the_ground_that_its_labels_come_from() -> None:
    one = sample(300)
    one.image[:] = np.arange(300, dtype="f4") / 300
    one.possible[:, :150] = 2
    made = imitate("proba-v", noise=0.0)(one)
    assert made is not None
    size = made.gsd / 30
    inside = np.arange(9, 18)
    np.testing.assert_allclose(made.image[0, 9, inside], ((inside + 0.5) * size - 0.5) / 300, atol=2e-5)
    assert made.possible[9, int(150 / size) - 1] == 2
    assert made.possible[9, int(150 / size) + 1] == 1


def test_sixteen_hundred_nanometres_of_proba_v_are_blurred_more() -> None:
    one = sample(300, 0.1)
    one.image[:, :, 150:] = 0.5
    made = imitate("proba-v")(one)
    assert made is not None
    steepest = np.abs(np.diff(made.image[:, 13], axis=-1)).max(axis=-1)
    assert steepest[3] < 0.7 * steepest[0]
    np.testing.assert_allclose(steepest[:3], steepest[0], rtol=1e-5)


def test_noise_is_as_large_as_said_and_comes_from_the_generator() -> None:
    clean, one, again = (
        imitate("proba-v", noise=0.01)(sample(900, 0.3), rng)
        for rng in (None, np.random.default_rng(3), np.random.default_rng(3))
    )
    assert clean is not None
    assert one is not None
    assert again is not None
    np.testing.assert_array_equal(one.image, again.image)
    assert np.std(one.image - clean.image) == pytest.approx(0.01, rel=0.05)
    np.testing.assert_allclose(clean.image, 0.3, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 60), pixel=st.floats(1.0, 20.0))
def test_areas_add_up(size: int, pixel: float) -> None:
    count = int(size / pixel)
    weights = area_weights(size, count, pixel)
    assert weights.shape == (count, size)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-4)
    assert (weights.sum(axis=0) <= 1 / pixel + 1e-5).all()  # no fine pixel is used twice


def test_the_share_of_cloud_is_kept() -> None:
    one = sample(112)  # ten pixels of 331 m, and a little
    size = 331.31 / 30
    one.possible[:, :28] = 6  # two and a half coarse pixels wide
    one.possible[60:, 80:] = 9
    one.possible[:, 100:] = 0
    made = imitate("proba-v")(one)
    assert made is not None
    clear, cloud, shadow = made.soft_labels[:, 0]
    expected = np.clip((28 - np.arange(10) * size) / size, 0, 1)
    np.testing.assert_allclose(cloud[:9], expected[:9], atol=1e-3)
    assert np.isnan(cloud[9])  # hardly labelled
    np.testing.assert_allclose((clear + cloud + shadow)[:9], 1, atol=1e-6)
    # a pixel is cloud for sure where a third is open to nothing else
    assert made.possible[0, :5].tolist() == [6, 6, 7, 1, 1]
    assert made.possible[0, 9] == 0
    assert np.isnan(made.soft_labels[2][8, 8])  # clear or shadow decides nothing
    assert made.soft_labels[2][0, 5] == 0


def test_gaps_stay_gaps() -> None:
    one = sample(220, 0.2)
    one.image[:, :, :110] = np.nan
    made = imitate("proba-v")(one)
    assert made is not None
    gone = np.isnan(made.image[0, 8])
    assert gone[:9].all()
    assert not gone[10:].any()
    np.testing.assert_allclose(made.image[0, 8, 10:], 0.2, rtol=1e-5)


def test_what_cannot_be_imitated_is_told() -> None:
    with pytest.raises(OptionError, match="did you mean 'proba-v'"):
        imitate("probav")
    with pytest.raises(OptionError, match="between 0 and 1"):
        imitate("proba-v", modulation=1.2)
    from dataclasses import replace

    with pytest.raises(CloudMaskError, match="too coarse to imitate 331 m"):
        imitate("proba-v")(replace(sample(), gsd=300.0))
    assert imitate("spot-vgt1")(sample(20)) is None  # smaller than one pixel
