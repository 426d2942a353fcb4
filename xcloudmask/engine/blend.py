"""Adding windows up: exact sums, so that order never matters.

A window is added up in three steps, of which this module holds the first and the last:

1. its weights (`window_weights`), and the rounding of ``weight * probability`` (`quantise`);
2. on the device, into the sums of one chunk: `Predictor._settle` calls `Backend.weigh`, which rounds as
   `quantise` does, in the device's own arrays, and `Backend.add`;
3. into the cells of an output, from the sums of all chunks that cover them (`add_sums`).

Each contribution ``weight * probability`` is rounded to a multiple of 2**-23 before it is added. Sums of
such multiples below 2 are exact in fp32, hence associative: the blended value is bit for bit the same
whatever order chunks, threads or workers deliver the windows in.

The rounding costs at most 2**-24 = 6e-8 a window: a pixel that 16 windows share is within 1e-6, one of 49
(overlap 27 of 32) within 3e-6. Up to an overlap of two thirds of the patch, at most 16 share one. A finer
grid is not to be had: weights add up to 1 give or take a rounding, and above 1 fp32 holds multiples of 2**-23
only, so a sum of finer ones would depend on their order again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.tiling import TilePlan

GRID = np.float32(2.0**23)


class PlacedSum(NamedTuple):
    """Sums of windows (..., class, y, x), and where they begin among the cells of an output."""

    sums: Float
    row: int
    col: int


def window_weights(plan: TilePlan, row: int, col: int) -> Float:
    """2-D weights of one window."""
    return plan.y.weights(row)[:, None] * plan.x.weights(col)[None, :]


def quantise(values: Float) -> Float:
    """Round to multiples of 2**-23, in place."""
    values *= GRID
    np.rint(values, out=values)
    values *= 1 / GRID  # exact, as it is a power of two, and faster than to divide
    return values


def add_sums(total: Float, placed: Iterable[PlacedSum], row: int) -> None:
    """Add sums to `total`, which holds an output's cells from `row` on and may lie anywhere within them."""
    for sums, first, col in placed:
        top = first - row  # may lie above `total`, whose rows end before those of `sums` do
        rows = slice(max(top, 0), max(top + sums.shape[-2], 0))
        part = total[..., rows, col : col + sums.shape[-1]]
        part += sums[..., max(-top, 0) : max(-top, 0) + part.shape[-2], :]
