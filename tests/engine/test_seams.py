"""Where windows meet, nothing shows."""

import numpy as np
import pytest

from tests.scenes import noise, same_odds, scene
from xcloudmask.testing import LOCAL, TOY


def blended_constant(overlap: int, chunk: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a constant image, and what one window says of it."""
    pixels = np.full((2, 90, 71), 0.3, np.float32)
    alone = scene(pixels[:, :32, :32], ["red", "nir"]).cloudmask.predict_proba(TOY).values
    assert np.ptp(alone, axis=(1, 2)).max() < 1e-6
    da = scene(pixels, ["red", "nir"])
    da = da if chunk is None else da.chunk(y=chunk, x=chunk)
    found = da.cloudmask.predict_proba(TOY, overlap=overlap).values
    return found, np.broadcast_to(alone[:, :1, :1], found.shape)


@pytest.mark.parametrize("overlap", [0, 5, 8, 16, 21])  # 21 of 32: the most that 1e-6 is promised for
@pytest.mark.parametrize("chunk", [None, 37])
def test_a_constant_field_blends_to_the_constant(overlap: int, chunk: int | None) -> None:
    """Every window sees the same, so the blend must say what one window says."""
    found, constant = blended_constant(overlap, chunk)
    np.testing.assert_allclose(found, constant, atol=1e-6, rtol=0)


def test_an_extreme_overlap_costs_half_a_rounding_step_a_window() -> None:
    """At 27 of 32, up to 49 windows share a pixel; each contribution is rounded to 2**-23: see `blend`."""
    found, constant = blended_constant(27, None)
    np.testing.assert_allclose(found, constant, atol=49 * 2.0**-24 + 2e-7, rtol=0)


def test_a_coarse_constant_field_comes_back_constant() -> None:
    pixels = np.full((2, 200, 170), 0.3, np.float32)
    found = scene(pixels, ["red", "nir"], step=10.0).cloudmask.predict_proba(TOY).values
    assert np.ptp(found, axis=(1, 2)).max() < 1e-6


PATCH, OVERLAP, STEP = 32, 8, 24
WIDE = noise(1, 200, 200)


def local(pixels: np.ndarray) -> np.ndarray:
    return scene(pixels, ["red"]).cloudmask.predict_proba(LOCAL, working_resolution="native").values


def test_one_pixel_of_shift_changes_only_pixels_near_a_window_edge() -> None:
    """What the plan explains, for a network that looks `reach` pixels around.

    A window's answer differs from that for an endless image only within `reach` of the window's edge. Such a
    pixel lies in a seam. Where neither plan, before and after the shift, has a window edge within reach, both
    must say what the endless image says: the same.
    """
    reach = 2
    before, after = local(WIDE)[:, 1:, 1:], local(WIDE[:, 1:, 1:])
    near = []
    for size, first in ((200, 0), (199, 1)):
        starts = np.minimum(np.arange(0, size - PATCH + STEP, STEP), size - PATCH) + first
        edges = np.concatenate([starts, starts + PATCH])
        # pixels p with a window edge between p - reach and p + reach
        line = np.array([((edges > p - reach) & (edges <= p + reach)).any() for p in range(1, 200)])
        near.append(line[:, None] | line[None, :])
    far = ~(near[0] | near[1])
    assert 0.3 < far.mean() < 0.7
    np.testing.assert_allclose(before[:, far], after[:, far], atol=1e-6, rtol=0)
    assert abs(before - after)[:, ~far].max() > 1e-4, "the network shows edges, else this test shows nothing"


def test_a_whole_step_of_shift_changes_nothing_but_the_borders() -> None:
    """Windows then fall on the same pixels again, for a network of any reach."""
    pixels = noise(2, PATCH + 6 * STEP, PATCH + 6 * STEP)
    whole = scene(pixels, ["red", "nir"]).cloudmask.predict_proba(TOY).values
    moved = scene(pixels[:, STEP:, STEP:], ["red", "nir"]).cloudmask.predict_proba(TOY).values
    inner = np.s_[:, STEP + OVERLAP :, STEP + OVERLAP :]  # not where the windows left behind reached
    same_odds(whole[inner], moved[:, OVERLAP:, OVERLAP:])
