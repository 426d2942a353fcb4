"""The direct executor: the plan carried out on a NumPy array, one band of windows after another.

Memory beyond input and output is that of a few rows of windows, whatever the scene's height.
"""

from __future__ import annotations

import numpy as np

from xcloudmask.engine.arrays import Array
from xcloudmask.engine.chunks import AxisChunk
from xcloudmask.engine.kernel import finish, infer_windows, valid_pixels
from xcloudmask.engine.plan import Plan


def run(plan: Plan, raw: Array) -> Array:
    """Return the output (..., y, x) or (..., class, y, x) for raw pixels (..., band, y, x)."""
    lead = raw.shape[:-3]
    height, width = raw.shape[-2:]
    scenes = raw.reshape(-1, *raw.shape[-3:])
    classes = plan.class_axis
    dtype = np.float32 if classes else np.uint8
    out = np.empty((scenes.shape[0], *classes, height, width), dtype)
    for scene, pixels in enumerate(scenes):
        _run_scene(plan, pixels, out[scene])
    return out.reshape(*lead, *classes, height, width)


def _run_scene(plan: Plan, pixels: Array, out: Array) -> None:
    height, width = pixels.shape[-2:]
    step = (plan.options.patch - plan.options.overlap) * plan.options.factors[0]
    bands = plan.y.cut([min(step, height - first) for first in range(0, height, step)])
    (col,) = plan.x.cut((width,))
    sums: dict[int, Array] = {}
    written = 0
    for index, band in enumerate(bands):
        if band.windows[0] < band.windows[1]:
            first, stop = plan.y.pixel_span(band.windows)
            sums[index] = infer_windows(plan, pixels[:, first:stop], band.windows, col.windows)
        while written < len(bands) and bands[written].sums[-1].chunk <= index:  # no window to come reaches it
            _write(plan, pixels, out, bands[written], col, sums)
            written += 1
        needed = bands[written].sums[0].chunk if written < len(bands) else len(bands)
        for old in [key for key in sums if key < needed]:
            del sums[old]


def _write(
    plan: Plan, pixels: Array, out: Array, band: AxisChunk, col: AxisChunk, sums: dict[int, Array]
) -> None:
    pieces = [(sums[piece.chunk][..., piece.start : piece.stop, :], piece.offset, 0) for piece in band.sums]
    rows = slice(*band.pixels)
    valid = valid_pixels(plan, pixels[:, rows])
    out[..., rows, :] = finish(plan, pieces, valid, band.pixels, col.pixels)
