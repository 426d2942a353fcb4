"""The window plan of one axis, checked against what it promises."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xcloudmask.engine.tiling import AxisPlan, TilePlan, fitting_patch, reflect_indices
from xcloudmask.errors import CloudMaskError

plans = st.builds(
    lambda size, patch, share: AxisPlan(size, patch, int(patch * share)),
    st.integers(1, 400), st.integers(1, 64), st.floats(0, 0.99),
)  # fmt: skip


@settings(deadline=None)
@given(plan=plans)
def test_weights_sum_to_one_in_every_cell(plan: AxisPlan) -> None:
    total = np.zeros(plan.size)
    for index, start in enumerate(plan.starts):
        weights = plan.weights(index)
        assert (weights > 0).all()
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(deadline=None)
@given(plan=plans)
def test_windows_start_every_step_and_the_last_ends_with_the_axis(plan: AxisPlan) -> None:
    step = plan.patch - plan.overlap
    starts = plan.starts.tolist()
    assert len(starts) == plan.count
    assert starts[:-1] == [index * step for index in range(len(starts) - 1)]
    assert starts[-1] == max(plan.size - plan.patch, 0)
    assert all(0 < b - a <= step for a, b in itertools.pairwise(starts))
    assert plan.span(0, plan.count) == (0, plan.size)


@settings(deadline=None)
@given(plan=plans, first=st.integers(0, 400), length=st.integers(0, 400))
def test_a_range_of_cells_owns_the_windows_that_start_in_it(plan: AxisPlan, first: int, length: int) -> None:
    lo, hi = plan.owned(first, first + length)
    inside = [k for k, start in enumerate(plan.starts) if first <= start < first + length]
    assert list(range(lo, hi)) == inside


def test_half_overlap_is_the_full_hann_window() -> None:
    plan = AxisPlan(size=320, patch=64, overlap=32)
    hann = np.sin(np.pi * (np.arange(64) + 0.5) / 64) ** 2
    np.testing.assert_allclose(plan.weights(3), hann, atol=1e-7)


def test_ramps_are_as_long_as_the_overlap_and_one_between() -> None:
    weights = AxisPlan(size=100, patch=40, overlap=10).weights(1)
    np.testing.assert_array_equal(weights[10:30], 1)
    np.testing.assert_allclose(weights[:10], np.sin(np.pi * (np.arange(10) + 0.5) / 20) ** 2, atol=1e-7)
    np.testing.assert_allclose(weights[30:], weights[:10][::-1], atol=1e-7)


def test_the_last_ramp_is_as_long_as_the_actual_overlap() -> None:
    plan = AxisPlan(size=95, patch=40, overlap=10)  # starts 0, 30, 55: the last two share 15 cells
    np.testing.assert_array_equal(plan.weights(2)[15:], 1)
    assert (plan.weights(2)[:15] < 1).all()


def test_only_an_axis_shorter_than_a_patch_has_cut_weights() -> None:
    assert AxisPlan(20, 32, 8).weights(0).tolist() == [1] * 20
    assert len(AxisPlan(33, 32, 8).weights(1)) == 32


@pytest.mark.parametrize(("size", "patch", "overlap"), [(0, 32, 0), (10, 0, 0), (10, 32, 32), (10, 32, -1)])
def test_impossible_plans_are_refused(size: int, patch: int, overlap: int) -> None:
    with pytest.raises(CloudMaskError):
        AxisPlan(size, patch, overlap)


def test_a_tile_plan_counts_rows_times_columns() -> None:
    assert TilePlan.make((100, 70), patch=40, overlap=10).count == 3 * 2


@given(
    height=st.integers(1, 700), width=st.integers(1, 700), smallest=st.sampled_from([32, 48, 64, 100]),
    more=st.sampled_from([0, 28, 32, 64, 92, 128]), overlap=st.integers(0, 31),
)  # fmt: skip
def test_the_side_chosen_for_a_scene_computes_fewest_cells(
    height: int, width: int, smallest: int, more: int, overlap: int
) -> None:
    def cells(side: int) -> int:
        along = [
            1 + sum(first + side < size for first in range(0, size, side - overlap))
            for size in (height, width)
        ]
        return along[0] * along[1] * side**2

    sides = [side for side in range(smallest, smallest + more + 1) if side == smallest or side % 32 == 0]
    best = min(cells(side) for side in sides)
    expected = next(side for side in sides if cells(side) == best)  # of equals, the smaller
    assert fitting_patch((height, width), smallest, smallest + more, overlap) == expected


@given(size=st.integers(1, 20), length=st.integers(1, 60))
def test_reflection_is_numpys(size: int, length: int) -> None:
    padded = np.pad(np.arange(size), (0, max(length - size, 0)), mode="reflect")[:length]
    np.testing.assert_array_equal(reflect_indices(size, length), padded)
