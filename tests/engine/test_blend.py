"""Sums whose order does not matter, and the way back from cells to pixels."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import noise
from xcloudmask.engine.blend import PlacedSum, add_sums, quantise, window_weights
from xcloudmask.engine.tiling import TilePlan
from xcloudmask.engine.upsample import upsample


@settings(deadline=None)
@given(seed=st.integers(0, 2**31), count=st.integers(2, 30))
def test_quantised_contributions_add_up_alike_in_any_order(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.ones(count), size=50).T.astype(np.float32)  # sums to about 1 in every cell
    parts = quantise(shares * rng.random((count, 50), dtype=np.float32))
    forward, backward = np.zeros(50, np.float32), np.zeros(50, np.float32)
    for part in parts:
        forward += part
    for part in parts[rng.permutation(count)]:
        backward += part
    np.testing.assert_array_equal(forward, backward)
    np.testing.assert_array_equal(forward, parts.sum(axis=0, dtype=np.float64).astype(np.float32))


def test_quantising_costs_at_most_half_a_step() -> None:
    values = noise(1000)
    assert abs(quantise(values.copy()) - values.astype(np.float64)).max() <= 2.0**-24


def test_weights_of_a_window_are_rows_times_columns() -> None:
    plan = TilePlan.make((100, 60), patch=40, overlap=10)
    expected = np.outer(plan.y.weights(1), plan.x.weights(0))
    np.testing.assert_array_equal(window_weights(plan, 1, 0), expected)


def restored(cells: np.ndarray, factor: int, height: int, width: int) -> np.ndarray:
    whole = ((0, cells.shape[-2]), (0, cells.shape[-1]))
    return put_together(cells, ((0, height), (0, width)), (factor, factor), whole, cells.shape[-2:])


def put_together(cells: np.ndarray, pixels: Any, *place: Any) -> np.ndarray:
    (top, bottom), (left, right) = pixels
    out = np.full((*cells.shape[:-2], bottom - top, right - left), np.nan, np.float32)
    for columns, values in upsample(cells, pixels, *place):
        out[..., columns] = values
    return out


def test_the_way_back_is_bilinear_about_cell_centres() -> None:
    cells = noise(3, 5, 7)
    cells /= cells.sum(axis=0)
    found = restored(cells, 3, 14, 20)
    rows, cols = (np.arange(14) + 0.5) / 3 - 0.5, (np.arange(20) + 0.5) / 3 - 0.5
    for k in range(3):
        lines = np.array([np.interp(cols, np.arange(7), line) for line in cells[k]])
        expected = np.array([np.interp(rows, np.arange(5), line) for line in lines.T]).T
        np.testing.assert_allclose(found[k], expected, atol=1e-6)


def test_the_way_back_leaves_cells_without_data_out() -> None:
    cells = np.zeros((2, 4, 4), np.float32)
    cells[0], cells[1] = 0.25, 0.75
    cells[:, 1:3, 1:3] = 0
    found = restored(cells, 2, 8, 8)
    there = found.sum(axis=0) > 0
    assert there.mean() > 0.7
    np.testing.assert_allclose(found[1][there], 0.75, atol=1e-6)
    assert (found[:, 3:5, 3:5] == 0).all()


def test_a_part_of_the_way_back_is_that_part_of_the_whole() -> None:
    cells = noise(2, 6, 6)
    whole = restored(cells, 3, 18, 18)
    part = put_together(cells[:, 1:4, 2:6], ((5, 10), (9, 18)), (3, 3), ((1, 4), (2, 6)), (6, 6))
    np.testing.assert_array_equal(part, whole[:, 5:10, 9:18])


@given(
    start=st.integers(-3, 12), length=st.integers(1, 12), first=st.integers(0, 12), stop=st.integers(1, 13)
)
def test_sums_are_added_where_they_lie_whichever_rows_are_made(
    start: int, length: int, first: int, stop: int
) -> None:
    """Of a sum whose rows are start to start + length, rows first to stop are added, at columns 2 and 3."""
    sums = np.arange(1, 2 * length + 1, dtype=np.float32).reshape(1, length, 2)
    total = np.ones((1, max(stop - first, 0), 5), np.float32)
    add_sums(total, [PlacedSum(sums, start, 2), PlacedSum(sums, start, 2)], first)
    expected = np.ones_like(total)
    for row in range(length):
        if first <= start + row < stop:
            expected[0, start + row - first, 2:4] += 2 * sums[0, row]
    np.testing.assert_array_equal(total, expected)
