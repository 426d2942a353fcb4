"""From cells back to pixels: bilinear, among the cells that hold data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xcloudmask.engine.arrays import Float


def upsample_axis(
    length: tuple[int, int], factor: int, cells: tuple[int, int], size: int
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Float]:
    """Left cell, right cell and the right one's share, for each pixel of the range `length`.

    Positions follow from the pixel's number in the whole array, so every chunk computes the same ones.
    """
    pixels = np.arange(*length)
    twice = 2 * pixels + 1 - factor  # 2 * factor * (position in cells), an exact integer
    left = twice // (2 * factor)
    share = ((twice - left * 2 * factor) / np.float64(2 * factor)).astype(np.float32)
    right = np.clip(left + 1, 0, size - 1) - cells[0]
    return np.clip(left, 0, size - 1) - cells[0], right, share


def upsample(
    sums: Float,
    pixels: tuple[tuple[int, int], tuple[int, int]],
    factors: tuple[int, int],
    cells: tuple[tuple[int, int], tuple[int, int]],
    sizes: tuple[int, int],
    classes: int | None = None,
) -> Float:
    """Bilinear return from cells to pixels among the cells that hold data.

    `sums` is (..., class, cells y, cells x), where the first `classes` are probabilities (all of them by
    default), and is zero in every class where a cell holds no data, so
    interpolating and dividing by the interpolated total leaves those cells out. A cell for which the network
    answered NaN is left out, too, and its own pixels stay zero: they hold data, and nothing is known of them.
    """
    if factors == (1, 1):
        return sums
    silent = np.isnan(sums[..., :classes, :, :].sum(axis=-3, keepdims=True))
    some_silent = bool(silent.any())
    if some_silent:
        sums = np.where(silent, np.float32(0), sums)
    for axis in (0, 1):
        if factors[axis] == 1:  # cells are pixels along this axis
            continue
        left, right, share = upsample_axis(pixels[axis], factors[axis], cells[axis], sizes[axis])
        if axis == 0:
            share = share[:, None]
            sums = sums[..., left, :] * (1 - share) + sums[..., right, :] * share
        else:
            sums = sums[..., left] * (1 - share) + sums[..., right] * share
    total = sums[..., :classes, :, :].sum(axis=-3, keepdims=True)
    out: Float = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    if some_silent:
        rows, cols = (np.arange(*pixels[axis]) // factors[axis] - cells[axis][0] for axis in (0, 1))
        out = np.where(silent[..., rows[:, None], cols], np.float32(0), out)
    return out
