"""Widening and narrowing of boolean maps (..., rows, columns) by a distance. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.tidy.lengths import SLACK, Floats

Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Disc:
    """All pixels within a distance: an ellipse in rows and columns.

    On latitude and longitude it is wider in columns towards the poles. Two pixels are as far from each other
    as the pixels are wide half-way between them, so that each is in the other's disc, or neither is: opening
    and closing rest on this.
    """

    rows: float  # the distance in rows
    columns: float  # and in columns, of the middle row
    scaled: bool = False  # pixels of other rows are as wide as `scale` of `dilate` says

    def depth(self, scale: Floats | None) -> tuple[int, int]:
        """Return the pixels that it reaches along rows and columns, at most."""
        narrowest = float(scale.min()) if self.scaled and scale is not None else 1.0
        return math.floor(self.rows + SLACK), math.floor(self.columns / narrowest + SLACK)


def dilate(taken: Bool, disc: Disc, scale: Floats | None = None) -> Bool:
    """Return which pixels lie within a disc of one that is taken.

    Each row knows how far the next taken pixel along it is; a pixel looks into the rows within reach. The
    `scale` is how wide each row's pixels are, by those of the middle row.

    Examples
    --------
    >>> dilate(np.eye(1, 5, 2, dtype=bool), Disc(1, 1))[0]
    array([False,  True,  True,  True, False])
    """
    rows, columns = disc.depth(scale)
    if (rows < 1 and columns < 1) or not taken.any():
        return taken
    height, width = taken.shape[-2:]
    scale = scale if disc.scaled else None
    near = _columns_to_nearest(taken, min(columns, width))
    out = np.zeros_like(taken)
    for dy in range(-min(rows, height - 1), min(rows, height - 1) + 1):
        target = slice(max(dy, 0), height + min(dy, 0))
        origin = slice(max(-dy, 0), height + min(-dy, 0))
        share = math.sqrt(max(1 - (dy / max(disc.rows, abs(dy))) ** 2, 0.0)) if dy else 1.0
        reach: Any = disc.columns * share
        if scale is not None:
            reach = (reach / ((scale[target] + scale[origin]) / 2))[:, None]
        limit = np.minimum(np.floor(reach + SLACK), min(columns, width)).astype(near.dtype)
        out[..., target, :] |= near[..., origin, :] <= limit
    return out


def erode(taken: Bool, disc: Disc, scale: Floats | None = None) -> Bool:
    """Return which pixels have only taken ones within a disc; beyond the array all are."""
    return ~dilate(~taken, disc, scale)


def _columns_to_nearest(taken: Bool, most: int) -> npt.NDArray[Any]:
    """Return how many columns away the nearest taken pixel of the row is; ``most + 1`` if farther."""
    dtype = next(kind for kind in (np.uint8, np.uint16, np.int32) if most + 2 <= np.iinfo(kind).max)
    turned = np.ascontiguousarray(np.moveaxis(taken, -1, 0))  # whole columns at a time are quick
    steps = np.where(turned, dtype(0), dtype(most + 1))
    for here, before in zip(steps[1:], steps[:-1], strict=True):
        np.minimum(here, before + dtype(1), out=here)
    for here, after in zip(steps[-2::-1], steps[:0:-1], strict=True):
        np.minimum(here, after + dtype(1), out=here)
    return np.ascontiguousarray(np.moveaxis(steps, 0, -1))
