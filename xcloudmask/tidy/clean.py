"""Steps that tidy a mask: gaps closed, specks taken out, clouds widened, holes filled.

A step changes classes that hide the ground, and the ground; what is not known changes nothing and stays as
it is. So no data, and what lies beyond the scene, is neither cloud nor clear: it counts as clear where clouds
are closed up, as cloud where they are thinned; a hole that touches it is no hole, a cloud that does no speck:
how large they are is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import CLEAR, NO_DATA
from xcloudmask.engine.progress import Progress
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.tidy.components import Codes, Rule, any_of, over_chunks
from xcloudmask.tidy.halo import as_blocks, like, with_halo
from xcloudmask.tidy.hysteresis import decide
from xcloudmask.tidy.lengths import MOST_PIXELS, Floats, PixelSize, warn_of_nothing
from xcloudmask.tidy.morphology import Disc, dilate, erode
from xcloudmask.tidy.steps import HYSTERESIS, LOCAL, Step, Steps, read_steps


@dataclass(frozen=True, slots=True)
class LocalStep:
    """A step of a length, made definite for a mask's codes and grid."""

    name: str
    codes: tuple[int, ...]
    disc: Disc


def clean(mask: xr.DataArray, given: Steps | Sequence[Step], progress: Progress = "auto") -> xr.DataArray:
    """Do what `xcloudmask.accessor.CloudMask.clean` documents."""
    mask, steps = as_mask(mask), read_steps(given)
    done = "; ".join(map(str, steps))
    if not steps:
        raise CloudMaskError("no step is given", "Say which, in order: clean(close='60 m', sieve='1 ha')")
    if steps[0].name == HYSTERESIS:
        mask, steps = decide(mask, steps[0].size.low, steps[0].size.high, progress), steps[1:]
    codes = codes_of(mask)
    ground = tuple(codes[name] for name in CLEAR if name in codes)
    if not ground:
        raise OptionError("classes", " ".join(codes), allowed=CLEAR, hint="The mask needs one that is clear.")
    mask = as_bytes(mask, codes)
    if not mask.size:
        return mask
    grid = PixelSize.of(mask)
    turned = mask.transpose(..., *spatial_dims(mask))
    data = as_blocks(turned.data)
    for local, group in groupby(steps, key=lambda step: step.name in LOCAL):
        if local:
            definite = [_definite(step, codes, grid, turned.shape[-2:]) for step in group]
            data = _nearby(data, definite, ground, tuple(codes.values()), grid.scale)
            continue
        for step in group:
            scale = None if step.size.unit == "px" else grid.scale
            data = over_chunks(data, _rule(step, codes, ground, grid), scale)
    out = turned.copy(data=like(data, turned, progress)).transpose(*mask.dims)
    return out.assign_attrs(cleaned="; ".join(filter(None, [mask.attrs.get("cleaned"), done])))


def as_bytes(mask: xr.DataArray, codes: Mapping[str, int]) -> xr.DataArray:
    """Return the mask as uint8: ``where`` makes floats of it, and readers may."""
    if mask.dtype == np.uint8:
        return mask
    if not all(0 <= code <= NO_DATA for code in codes.values()):
        raise OptionError("codes", list(codes.values()), allowed=["0 to 254, and 255 for no data"])
    return mask.where(mask.isin(list(codes.values())), NO_DATA).astype(np.uint8)


def _definite(step: Step, codes: Mapping[str, int], grid: PixelSize, shape: Sequence[int]) -> LocalStep:
    """Return a step in pixels.

    No two pixels of a scene are farther apart than its corners, so that a longer buffer comes to the same.
    Closing and opening do change beyond, ever less, and need a margin that would not fit into memory.
    """
    rows, columns, scaled = step.size.disc(step.name, grid)
    warn_of_nothing(str(step), rows, columns)
    if rows:
        widest = 1.0 if grid.scale is None else max(1.0, float(grid.scale.max()))
        across = math.hypot(shape[0], shape[1] * widest * rows / columns) + 1
        if step.name != "buffer" and rows > max(4 * across, MOST_PIXELS):
            raise CloudMaskError(
                f"{step.name}={str(step.size)!r} is {rows:,.0f} pixels, and the scene has {across:,.0f}",
                "Give a distance that is no longer than clouds are",
            )
        share = min(1.0, across / rows) if step.name == "buffer" else 1.0
        rows, columns = rows * share, columns * share
    return LocalStep(
        step.name, tuple(codes[name] for name in step.classes(codes)), Disc(rows, columns, scaled)
    )


def _rule(step: Step, codes: Mapping[str, int], ground: tuple[int, ...], grid: PixelSize) -> Rule:
    hiding = tuple(codes[name] for name in step.classes(codes))
    least = step.size.pixels(step.name, grid)
    if step.name == "fill":
        return Rule(ground, least, walls=hiding)
    return Rule(hiding, least, ground[0], beside=tuple(code for code in codes.values() if code != NO_DATA))


def _nearby(
    data: Any, steps: Sequence[LocalStep], ground: Sequence[int], codes: Sequence[int], scale: Floats | None
) -> Any:
    """Take steps that follow one another at once, with one halo for all."""
    reaches = [(LOCAL[step.name], step.disc.depth(scale)) for step in steps]
    depth = (sum(n * rows for n, (rows, _) in reaches), sum(n * cols for n, (_, cols) in reaches))
    known = tuple(code for code in codes if code != NO_DATA)
    kernel = partial(_take, steps=tuple(steps), ground=tuple(ground), known=known)
    return with_halo(data, kernel, depth, scale, NO_DATA)


def _take(
    block: Codes,
    *,
    steps: Sequence[LocalStep],
    ground: Sequence[int],
    known: Sequence[int],
    scale: Floats | None,
) -> Codes:
    """Take the steps on a block, one after the other."""
    block = block.copy()
    for step in steps:
        hidden = any_of(block, step.codes)
        if not hidden.any():
            continue
        if step.name == "open":
            solid = hidden | ~any_of(block, known)
            block[hidden & ~dilate(erode(solid, step.disc, scale), step.disc, scale)] = ground[0]
            continue
        free = any_of(block, ground)
        if step.name == "close":
            free &= erode(dilate(hidden, step.disc, scale), step.disc, scale)
        for code in step.codes:
            reached = dilate(block == code, step.disc, scale) & free
            block[reached] = code
            free &= ~reached
    return block
