"""Adding windows up: exact sums, so that order never matters.

Each contribution ``weight * probability`` is rounded to a multiple of 2**-23 before it is added. Sums of
such multiples below 2 are exact in fp32, hence associative: the blended value is bit for bit the same
whatever order chunks, threads or workers deliver the windows in.

The rounding costs at most 2**-24 = 6e-8 a window: a pixel that 16 windows share is within 1e-6, one of 49
(overlap 27 of 32) within 3e-6. Up to an overlap of two thirds of the patch, at most 16 share one. A finer
grid is not to be had: weights add up to 1 give or take a rounding, and above 1 fp32 holds multiples of 2**-23
only, so a sum of finer ones would depend on their order again.
"""

from __future__ import annotations

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.tiling import TilePlan

GRID = np.float32(2.0**23)


def window_weights(plan: TilePlan, row: int, col: int) -> Float:
    """2-D weights of one window."""
    return plan.y.weights(row)[:, None] * plan.x.weights(col)[None, :]


def quantise(values: Float) -> Float:
    """Round to multiples of 2**-23, in place."""
    values *= GRID
    np.rint(values, out=values)
    values /= GRID
    return values
