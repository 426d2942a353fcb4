"""Steps that tidy a mask: gaps closed, specks taken out, clouds widened, holes filled.

A step changes classes that hide the ground, and the ground; what is not known changes nothing and stays as
it is. So no data, and what lies beyond the scene, is neither cloud nor clear: it counts as clear where clouds
are closed up, as cloud where they are thinned; a hole that touches it is no hole, a cloud that does no speck:
how large they are is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.masks.apply import CLEAR, DROP
from xcloudmask.masks.components import Codes, Rule, any_of, over_chunks
from xcloudmask.masks.halo import as_blocks, like, with_halo
from xcloudmask.masks.lengths import MOST_PIXELS, Floats, Grid, Size
from xcloudmask.masks.morphology import Disc, dilate, erode
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of

#: Steps that look as far as a length, and by how many of it; steps that take an area.
LOCAL: Mapping[str, int] = {"close": 2, "open": 2, "buffer": 1}
AREAL = ("sieve", "fill")


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what is done, to which classes, and how far or how large.

    Parameters
    ----------
    name : {"close", "open", "buffer", "sieve", "fill"}
    classes : tuple of str
        Taken as one; where a pixel may become either of them, it becomes the first.
    size : Size
        Of `sieve` and `fill` an area, else a length.
    own : bool
        Whether the class was named.

    Examples
    --------
    >>> print(*read_steps({"clear": 0, "cloud": 1}, {"close": 2, "buffer": {"cloud": "150 m"}}), sep="; ")
    close=2 px; buffer(cloud)=150 m
    """

    name: str
    classes: tuple[str, ...]
    size: Size
    own: bool

    def __str__(self) -> str:
        return f"{self.name}{f'({self.classes[0]})' if self.own else ''}={self.size}"


@dataclass(frozen=True, slots=True)
class LocalStep:
    """A step of a length, made definite for a mask's codes and grid."""

    name: str
    codes: tuple[int, ...]
    disc: Disc


def read_steps(codes: Mapping[str, int], given: Mapping[str, Any]) -> tuple[Step, ...]:
    """Return the steps in the order in which they are given; an error for what is none.

    Parameters
    ----------
    codes : mapping
        Of a mask's classes.
    given : mapping
        Size of each step, or a mapping of classes to sizes, which are steps in turn.
    """
    return tuple(_steps(codes, given))


def _steps(codes: Mapping[str, int], given: Mapping[str, Any]) -> Iterator[Step]:
    hiding = tuple(name for name in DROP if name in codes)
    for name, sizes in given.items():
        if name not in (*LOCAL, *AREAL):
            raise OptionError("step", name, allowed=(*LOCAL, *AREAL))
        read = Size.length if name in LOCAL else Size.area
        if not isinstance(sizes, Mapping):
            yield Step(name, hiding, read(name, sizes), False)
            continue
        for word, size in sizes.items():
            if word not in hiding:
                raise OptionError(
                    f"class of {name}", word, allowed=hiding, hint="Steps change clouds and their shadows."
                )
            yield Step(name, (word,), read(name, size), True)


def clean(mask: xr.DataArray, given: Mapping[str, Any]) -> xr.DataArray:
    """Do what `xcloudmask.accessor.CloudMask.clean` documents."""
    mask = as_mask(mask)
    codes = codes_of(mask)
    steps = read_steps(codes, given)
    if not steps:
        raise CloudMaskError("no step is given", "Say which, in order: clean(close='60 m', sieve='1 ha')")
    ground = tuple(codes[name] for name in CLEAR if name in codes)
    if not ground:
        raise OptionError("classes", " ".join(codes), allowed=CLEAR, hint="The mask needs one that is clear.")
    mask = _uint8(mask, codes)
    if not mask.size:
        return mask
    grid = Grid.of(mask)
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
    out = turned.copy(data=like(data, turned)).transpose(*mask.dims)
    done = "; ".join(map(str, steps))
    return out.assign_attrs(cleaned="; ".join(filter(None, [mask.attrs.get("cleaned"), done])))


def _uint8(mask: xr.DataArray, codes: Mapping[str, int]) -> xr.DataArray:
    """Return the mask as uint8: ``where`` makes floats of it, and readers may."""
    if mask.dtype == np.uint8:
        return mask
    if not all(0 <= code <= NO_DATA for code in codes.values()):
        raise OptionError("codes", list(codes.values()), allowed=["0 to 254, and 255 for no data"])
    return mask.where(mask.isin(list(codes.values())), NO_DATA).astype(np.uint8)


def _definite(step: Step, codes: Mapping[str, int], grid: Grid, shape: Sequence[int]) -> LocalStep:
    """Return a step in pixels.

    No two pixels of a scene are farther apart than its corners, so that a longer buffer comes to the same.
    Closing and opening do change beyond, ever less, and need a margin that would not fit into memory.
    """
    rows, columns, scaled = step.size.disc(step.name, grid)
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
    return LocalStep(step.name, tuple(codes[name] for name in step.classes), Disc(rows, columns, scaled))


def _rule(step: Step, codes: Mapping[str, int], ground: tuple[int, ...], grid: Grid) -> Rule:
    hiding = tuple(codes[name] for name in step.classes)
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
