"""The direct executor: the plan carried out on a NumPy array, one band of windows after another.

Memory beyond input and output is that of a few rows of windows, whatever the scene's height.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xcloudmask.engine.arrays import Array, Float
from xcloudmask.engine.blend import PlacedSum
from xcloudmask.engine.kernel import finish, infer_windows, pixel_states
from xcloudmask.engine.plan import Plan
from xcloudmask.engine.progress import Tell, tell_nobody


def run(plan: Plan, raw: Array, tell: Tell = tell_nobody) -> Array:
    """Return the output (..., y, x) or (..., class, y, x) for raw pixels (..., band, y, x).

    `tell` is told how many windows are done, and of how many.
    """
    lead = raw.shape[:-3]
    height, width = raw.shape[-2:]
    scenes = raw.reshape(-1, *raw.shape[-3:])
    classes = plan.class_axis
    dtype = np.float32 if classes else np.uint8
    out = np.empty((scenes.shape[0], *classes, height, width), dtype)
    windows = plan.tiles.count
    total = windows * len(scenes)
    for scene, pixels in enumerate(scenes):
        _run_scene(plan, pixels, out[scene], _after(scene * windows, lambda done: tell(done, total)))
    return out.reshape(*lead, *classes, height, width)


def _after(before: int, tell: Callable[[int], None]) -> Callable[[int], None]:
    """Return what tells of windows that come after so many others."""
    return lambda done: tell(before + done)


def _run_scene(plan: Plan, pixels: Array, out: Array, tell: Callable[[int], None]) -> None:
    bands = plan.y.cut(plan.y.every((plan.options.patch - plan.options.overlap) * plan.options.factors[0]))
    (col,) = plan.x.cut((pixels.shape[-1],))
    sums: dict[int, Float] = {}
    for number, band in enumerate(bands):
        if band.windows[0] < band.windows[1]:
            (top, bottom), (first, stop) = band.windows, plan.y.pixel_span(band.windows)
            across = plan.tiles.x.count
            sums[number] = infer_windows(
                plan, pixels[:, first:stop], band.windows, col.windows, _after(top * across, tell)
            )
            tell(bottom * across)  # with those that held no data
        # A band is made from its own sums and those of earlier bands, which no later one may need any more.
        for old in [key for key in sums if key < band.sums[0].chunk]:
            del sums[old]
        placed = [PlacedSum(sums[p.chunk][..., p.start : p.stop, :], p.offset, 0) for p in band.sums]
        rows = slice(*band.pixels)
        states = pixel_states(plan, pixels[:, rows])
        out[..., rows, :] = finish(plan, placed, states, band.pixels, col.pixels)
