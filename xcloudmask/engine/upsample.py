"""From cells back to pixels: bilinear, among the cells that hold data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from xcloudmask.engine.arrays import Float


def upsample(
    sums: Float,
    pixels: tuple[tuple[int, int], tuple[int, int]],
    factors: tuple[int, int],
    cells: tuple[tuple[int, int], tuple[int, int]],
    sizes: tuple[int, int],
    classes: int | None = None,
) -> Iterator[tuple[slice, Float]]:
    """Bilinear return from cells to pixels among the cells that hold data: some columns, and their values.

    Every so many columns lie alike between their cells: those come together, as slices of the cells, because
    to gather them one by one, and to deal them out before the decision, takes most of the time of a mask.

    `sums` is (..., class, cells y, cells x), where the first `classes` are probabilities (all of them by
    default), and is zero in every class where a cell holds no data, so
    interpolating and dividing by the interpolated total leaves those cells out. A cell for which the network
    answered NaN is left out, too, and its own pixels stay zero: they hold data, and nothing is known of them.
    """
    if factors == (1, 1):
        yield slice(None), sums
        return
    silent = np.isnan(sums[..., :classes, :, :].sum(axis=-3, keepdims=True))
    some_silent = bool(silent.any())
    if some_silent:
        sums = np.where(silent, np.float32(0), sums)
    rows = np.arange(*pixels[0])
    if factors[0] > 1:
        left, share = between(rows, factors[0])
        above, below = (np.clip(each, 0, sizes[0] - 1) - cells[0][0] for each in (left, left + 1))
        sums = sums[..., above, :] * (1 - share[:, None]) + sums[..., below, :] * share[:, None]
    factor, first = factors[1], cells[1][0]
    if factor > 1:  # beyond the edge is what is at the edge
        sums = np.concatenate([sums[..., :1], sums, sums[..., -1:]], axis=-1)
    for phase in range(min(factor, pixels[1][1] - pixels[1][0])):
        columns = np.arange(pixels[1][0] + phase, pixels[1][1], factor)
        out = sums
        if factor > 1:
            (start,), (share,) = between(columns[:1], factor)
            start += 1 - first
            out = sums[..., start : start + columns.size] * (1 - share)
            out += sums[..., start + 1 : start + 1 + columns.size] * share
        total = out[..., :classes, :, :].sum(axis=-3, keepdims=True)
        known = total > 0
        out = out / total if known.all() else np.divide(out, total, out=np.zeros_like(out), where=known)
        if some_silent:
            own = (rows // factors[0] - cells[0][0])[:, None], columns // factor - first
            out = np.where(silent[..., *own], np.float32(0), out)
        yield slice(phase, None, factor), out


def between(pixels: npt.NDArray[np.intp], factor: int) -> tuple[npt.NDArray[np.intp], Float]:
    """Return the cell whose centre lies before each pixel's, and the share of the next.

    Positions follow from the pixel's number in the whole array, so every chunk computes the same ones.

    Examples
    --------
    >>> between(np.arange(3), 3)[0].tolist(), between(np.arange(3), 2)[1].tolist()
    ([-1, 0, 0], [0.75, 0.25, 0.75])
    """
    twice = 2 * pixels + 1 - factor  # 2 * factor * (position in cells), an exact integer
    left = twice // (2 * factor)
    return left, ((twice - left * 2 * factor) / np.float64(2 * factor)).astype(np.float32)
