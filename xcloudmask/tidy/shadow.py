"""Shadows by geometry: clouds moved along the sun's rays to the ground, and held against what is dark there.

How high a cloud is, no mask tells. So each is tried at many heights, and put where most of the ground on
which its shadow would fall is dark. That is done on coarse cells of the whole scene; then each pixel where a
shadow falls is shadow if it is dark itself. Three passes, as in `components`:

    look     counts a chunk's clouds and adds its brightness up, cell by cell; keeps its pixels, compressed
    match    finds the height of each cloud, and the cells on which its shadow falls
    paint    decides each pixel of those

All that is added up is whole numbers, so the result is the same for any chunks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, product
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLEAR, DROP, NO_DATA, SCHEMES, SHADOW
from xcloudmask.engine.pixels import calibrate
from xcloudmask.engine.progress import Progress
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.scene.bands import find_band
from xcloudmask.scene.dims import crs_of, spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.scene.same_grid import check_same_grid
from xcloudmask.scene.scene import Scene, read_scene
from xcloudmask.scene.sun_angles import grid_north, sun_angles
from xcloudmask.scene.units import calibration_of
from xcloudmask.tidy.clean import as_bytes
from xcloudmask.tidy.components import CORNERS, Codes, any_of
from xcloudmask.tidy.graph import DataNode, Task, TaskRef, array_of
from xcloudmask.tidy.halo import Packed, as_blocks, like
from xcloudmask.tidy.lengths import PixelSize

#: Bands in which a shadow is dark, the first that a scene has.
BANDS = ("nir", "nir08", "swir16", "swir22")
#: Metres of a cell, and around one what is compared with it; cells of that at least.
CELL, AROUND, LEAST_AROUND = 60.0, 1500.0, 12
#: Darker than this share of its surroundings is dark; steps of reflectance up to 1 that are told apart.
DARK, STEPS = 0.75, 250
#: Share of the ground under a shadow that must be dark; how much more of it a cloud needs to be a km higher;
#: share of a cloud whose shadow must fall on ground, not on clouds or beyond the scene.
LEAST_FIT, HIGHER, SEEN = 0.5, 0.02, 0.2

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Own = Literal["replace", "match", "keep"]


@dataclass(frozen=True, slots=True)
class Look:
    """What shadows are made from, for all chunks of a mask."""

    clouds: tuple[int, ...]  # codes
    ground: tuple[int, ...]  # of ground on which a shadow can fall, with the mask's own shadow
    shadow: tuple[int, ...]  # of the mask's own
    becomes: int  # code of what is found to be shadow
    lit: int  # of a shadow that is none
    own: Own  # what becomes of the mask's own shadows
    factors: tuple[int, int]  # pixels in a cell, rows and columns

    def cells(self, counted: npt.NDArray[Any]) -> Ints:
        """Add up a chunk's pixels cell by cell; the last may be cut off."""
        (fy, fx), (height, width) = self.factors, counted.shape
        rows = np.add.reduceat(counted, range(0, height, fy), axis=0, dtype=np.int64)
        return np.add.reduceat(rows, range(0, width, fx), axis=1)

    def spread(self, cells: npt.NDArray[Any], shape: tuple[int, int]) -> npt.NDArray[Any]:
        """Return each pixel's cell."""
        fy, fx = self.factors
        return np.repeat(np.repeat(cells, fy, axis=0), fx, axis=1)[: shape[0], : shape[1]]


@dataclass(frozen=True, slots=True)
class Rays:
    """Where shadows fall: cells along rows and columns for each metre of height, and the heights to try."""

    per_metre: tuple[float, float]  # on latitude and longitude, columns of the middle row
    heights: tuple[float, float]
    scale: Floats | None  # of rows of cells, as `PixelSize.scale`
    around: tuple[int, int]  # cells on each side with which one is compared

    def tried(self, across: int) -> Floats:
        """Return heights by which a shadow moves a cell at a time, lowest first; none beyond the scene."""
        down, along = map(abs, self.per_metre)
        narrow, wide = (1.0, 1.0) if self.scale is None else (self.scale.min(), self.scale.max())
        low, high = self.heights
        heights = np.linspace(low, high, math.ceil((high - low) * max(down, along / narrow)) + 1)
        return heights[heights * max(down, along / wide) <= across]

    def fall(self, rows: Ints, columns: Ints, height: Floats | float) -> tuple[Ints, Ints]:
        """Return the cells on which the shadows of cells fall."""
        across = np.asarray(height * self.per_metre[1])
        if self.scale is not None:
            across = across / self.scale[rows]
        down = np.rint(np.asarray(height * self.per_metre[0])).astype(np.int64)
        return rows + down, columns + np.rint(across).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Seen:
    """A chunk after the first pass: its codes and brightness, packed, and sums over its cells."""

    codes: Packed
    light: Packed
    sums: Ints


def cast_shadow(
    mask: xr.DataArray,
    scene: xr.DataArray,
    sun: tuple[Any, Any] | None = None,
    view: tuple[float, float] | None = None,
    heights: tuple[float, float] = (200.0, 6000.0),
    own: Own = "replace",
    progress: Progress = "auto",
) -> xr.DataArray:
    """Do what `xcloudmask.accessor.CloudMask.cast_shadow` documents."""
    mask = as_mask(mask)
    codes = codes_of(mask)
    if own not in get_args(Own):
        raise OptionError("own", own, allowed=get_args(Own))
    try:
        low, high = map(float, heights)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 <= low < high <= 30_000:
        raise OptionError("heights", heights, hint="Give metres, the lower first: heights=(200, 6000).")
    try:
        away = (0.0, 0.0) if view is None else tuple(map(float, view))
    except (TypeError, ValueError):
        away = ()
    if len(away) != 2 or not (0 <= away[0] < 90 and abs(away[1]) <= 360):
        raise OptionError("view", view, hint="Give zenith and azimuth in degrees: view=(10.0, 290.0).")
    check_same_grid(mask, scene, "mask")
    described = read_scene(scene)
    grid = PixelSize.of(mask)
    if grid.size is None:
        raise CloudMaskError(
            "shadows need the pixel size: give the mask y and x coordinates in metres or degrees"
        )
    light, calibration = _light(described)
    lead = [dim for dim in mask.dims if dim not in spatial_dims(mask)]
    turned = as_bytes(mask, codes).transpose(*lead, *spatial_dims(mask))
    light = light.transpose(*lead, *spatial_dims(mask))
    factors = tuple(max(1, round(CELL / size)) for size in grid.size)
    look, codes = _look(codes, (factors[0], factors[1]), own)
    angles = sun_angles(light, sun)
    axes = {dim: mask[dim] for dim in spatial_dims(mask)}
    placed = light.assign_coords(axes) if crs_of(mask) is None else mask
    rays = [_rays(placed, grid, look.factors, angle, view, (low, high)) for angle in angles]

    blocks = as_blocks(turned.data)
    cut = tuple(_whole(sizes, factor) for sizes, factor in zip(blocks.chunks[-2:], factors, strict=True))
    cut = (*(((1,) * size) for size in turned.shape[:-2]), *cut)
    data = _three_passes(blocks.rechunk(cut), as_blocks(light.data).rechunk(cut), look, calibration, rays)
    out = turned.copy(data=like(data.rechunk(blocks.chunks), turned, progress)).transpose(*mask.dims)
    done = f"cast_shadow={low:g} to {high:g} m"
    out.attrs |= {
        "flag_values": list(codes.values()),
        "flag_meanings": " ".join(codes),
        "cleaned": "; ".join(filter(None, [mask.attrs.get("cleaned"), done])),
    }
    return out


def _light(scene: Scene) -> tuple[xr.DataArray, Any]:
    """Return the band in which shadows are sought, and how its numbers become reflectance."""
    places = (find_band(scene.bands, name) for name in BANDS)
    place = next((place for place in places if place is not None), None)
    if place is None:
        raise BandError(
            f"shadows are dark in {', '.join(BANDS)}, and the scene has none of them: name its bands with "
            "da.cloudmask.describe(bands=[...])"
        )
    return scene.da.isel({scene.band: place}), calibration_of(scene, (place,))


def _look(codes: Mapping[str, int], factors: tuple[int, int], own: Own) -> tuple[Look, dict[str, int]]:
    """Return what to look for, and the codes of the result: shadow is added where a mask has none."""
    clouds = tuple(codes[name] for name in DROP if name in codes and name != SHADOW)
    lit = tuple(codes[name] for name in CLEAR if name in codes and name != "water")
    if not clouds or not lit:
        raise OptionError(
            "classes", " ".join(codes), allowed=(*DROP, *CLEAR), hint="The mask needs a cloud and a ground."
        )
    free = [code for code in (SCHEMES["default"][0][SHADOW], *range(NO_DATA)) if code not in codes.values()]
    code = codes.get(SHADOW)
    becomes = free[0] if code is None else code
    shadow = () if code is None else (code,)
    known = {name: code for name, code in codes.items() if code != NO_DATA}
    rest = {name: code for name, code in codes.items() if code == NO_DATA}
    return (
        Look(clouds, (*lit, *shadow), shadow, becomes, lit[0], own, factors),
        {**known, SHADOW: becomes, **rest},
    )


def _rays(
    mask: xr.DataArray, grid: PixelSize, factors: tuple[int, int], sun: tuple[float, float],
    view: tuple[float, float] | None, heights: tuple[float, float],
) -> Rays:  # fmt: skip
    """Return where shadows fall on the cells of a grid.

    A cloud is seen where the view's ray through it meets the ground: away from the satellite, as a shadow is
    away from the sun.
    """
    y, x = spatial_dims(mask)
    north = grid_north(mask)
    east, up = 0.0, 0.0
    for elevation, azimuth, sign in ((*sun, -1), *([] if view is None else [(90 - view[0], view[1], 1)])):
        length = sign / math.tan(math.radians(elevation))
        east += length * math.sin(math.radians(azimuth - north))
        up += length * math.cos(math.radians(azimuth - north))
    height, width = grid.size or (1.0, 1.0)
    steps = [float(mask[dim].values[-1] - mask[dim].values[0]) for dim in (y, x)]
    cell = height * factors[0] * math.copysign(1, steps[0]), width * factors[1] * math.copysign(1, steps[1])
    scale = None
    if grid.scale is not None:
        middle = np.arange(0, len(grid.scale), factors[0]) + factors[0] // 2
        scale = grid.scale[np.minimum(middle, len(grid.scale) - 1)]
    down, along = (max(LEAST_AROUND, round(AROUND / abs(size))) for size in cell)
    return Rays((up / cell[0], east / cell[1]), heights, scale, (down, along))


def _whole(sizes: Sequence[int], factor: int) -> tuple[int, ...]:
    """Return chunks of about these sizes that cut no cell."""
    ends = sorted({min(-(-end // factor) * factor, sum(sizes)) for end in accumulate(sizes)})
    return tuple(end - start for start, end in zip([0, *ends[:-1]], ends, strict=True))


def _three_passes(codes: Any, light: Any, look: Look, calibration: Any, rays: Sequence[Rays]) -> Any:
    """Return the codes (..., rows, columns) with their shadows, as a Dask array in chunks of whole cells."""
    from dask.base import tokenize

    name = f"shadow-{tokenize(codes.name, light.name, look, calibration, rays)}"
    seen, sums, matched, look_key, light_key = (
        f"{word}-{name}" for word in ("seen", "sums", "found", "look", "how")
    )
    graph: dict[Any, Any] = {
        look_key: DataNode(look_key, look), light_key: DataNode(light_key, calibration),
    }  # fmt: skip
    *leading, down, across = codes.numblocks
    edges = [
        [0, *accumulate(-(-size // factor) for size in sizes)]
        for sizes, factor in zip(codes.chunks[-2:], look.factors, strict=True)
    ]
    for number, lead in enumerate(product(*map(range, leading))):
        chunks = list(product(range(down), range(across)))
        for i, j in chunks:
            here = (*lead, i, j)
            box = tuple(slice(edge[k], edge[k + 1]) for edge, k in zip(edges, (i, j), strict=True))
            graph[(seen, *here)] = Task(
                (seen, *here), _see, TaskRef((codes.name, *here)), TaskRef((light.name, *here)),
                TaskRef(look_key), TaskRef(light_key),
            )  # fmt: skip
            graph[(sums, *here)] = Task((sums, *here), attrgetter("sums"), TaskRef((seen, *here)))
            graph[f"part-{name}", *here] = Task((f"part-{name}", *here), _cut, TaskRef((matched, *lead)), box)
            graph[(name, *here)] = Task(
                (name, *here), _paint, TaskRef((seen, *here)), TaskRef((f"part-{name}", *here)),
                TaskRef(look_key), (1,) * len(lead),
            )  # fmt: skip
        blocks = [TaskRef((sums, *lead, i, j)) for i, j in chunks]
        graph[(matched, *lead)] = Task((matched, *lead), _match, rays[number], across, *blocks)
    return array_of(name, graph, codes, np.uint8, light)


def _see(block: Codes, raw: npt.NDArray[Any], look: Look, calibration: Any) -> Seen:
    """Sum a chunk up, cell by cell: clouds, known pixels, ground, its light, its own shadow."""
    codes = block.reshape(block.shape[-2:])
    values, valid = calibrate(raw.reshape(1, *codes.shape), calibration)
    steps = np.rint(np.clip(np.where(valid, values[0], 0), 0, 1) * STEPS).astype(np.uint8)
    light = np.where(valid, steps, np.uint8(NO_DATA))
    ground = any_of(codes, look.ground) & valid
    planes = (
        any_of(codes, look.clouds), codes != NO_DATA, ground, np.where(ground, steps, 0),
        any_of(codes, look.shadow) & ground & (look.own != "replace"),
    )  # fmt: skip
    return Seen(Packed.of(codes), Packed.of(light), np.stack([look.cells(plane) for plane in planes]))


def _match(rays: Rays, across: int, *sums: Ints) -> npt.NDArray[np.uint8]:
    """Return, for each cell of the scene, below which light a pixel is shadow, and where all own ones stay.

    0 and 0 where none falls.
    """
    lines = [sums[first : first + across] for first in range(0, len(sums), across)]
    clouds, known, ground, light, own = np.concatenate(
        [np.concatenate(line, axis=-1) for line in lines], axis=-2
    )
    cloudy = (2 * clouds >= known) & (clouds > 0)
    free = ~cloudy & (ground > 0)
    below = DARK * _box(np.where(free, light, 0), rays.around)
    below = np.divide(below, np.maximum(_box(np.where(free, ground, 0), rays.around), 1))
    dark = free & ((light < below * ground) | (2 * own >= np.maximum(ground, 1)))
    falls = shadows(cloudy, free, dark, rays)
    limit = np.where(falls, np.clip(np.ceil(below), 0, NO_DATA), 0)
    return np.stack([limit, falls]).astype(np.uint8)


def shadows(cloudy: Bool, free: Bool, dark: Bool, rays: Rays) -> Bool:
    """Return the cells on which the shadows of clouds fall, each cloud at the height that fits best."""
    from scipy import ndimage

    falls = np.zeros(cloudy.shape, bool)
    labels, count = ndimage.label(cloudy, CORNERS)
    rows, columns = np.nonzero(cloudy)
    label = labels[rows, columns]
    size = np.bincount(label, minlength=count + 1)
    best, height = np.full(count + 1, -np.inf), np.zeros(count + 1)
    for tried in rays.tried(max(cloudy.shape)):
        y, x = rays.fall(rows, columns, tried)
        there = _inside(y, x, cloudy.shape)
        there[there] = free[y[there], x[there]]
        on_ground = np.bincount(label[there], minlength=count + 1)
        in_dark = np.bincount(label[there], weights=dark[y[there], x[there]], minlength=count + 1)
        fit = in_dark / np.maximum(on_ground, 1) - HIGHER * tried / 1000
        fit[(on_ground < SEEN * size) | (on_ground < np.minimum(3, size))] = -np.inf
        better = fit > best
        best[better], height[better] = fit[better], tried
    kept = best[label] >= LEAST_FIT
    y, x = rays.fall(rows[kept], columns[kept], height[label[kept]])
    there = _inside(y, x, cloudy.shape)
    falls[y[there], x[there]] = True
    grown: Bool = ndimage.binary_dilation(falls, CORNERS)
    return grown


def _inside(rows: Ints, columns: Ints, shape: tuple[int, ...]) -> Bool:
    inside: Bool = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return inside


def _box(cells: Ints, around: tuple[int, int]) -> Ints:
    """Return the sum of what lies around each cell, up to the scene's edge."""
    for axis, reach in enumerate(around):
        total = np.concatenate([np.zeros_like(cells.take([0], axis)), cells.cumsum(axis)], axis)
        here = np.arange(cells.shape[axis])
        last, first = np.minimum(here + reach + 1, len(here)), np.maximum(here - reach, 0)
        cells = total.take(last, axis) - total.take(first, axis)
    return cells


def _cut(cells: npt.NDArray[np.uint8], box: tuple[slice, slice]) -> npt.NDArray[np.uint8]:
    return cells[:, *box].copy()


def _paint(seen: Seen, cells: npt.NDArray[np.uint8], look: Look, lead: tuple[int, ...]) -> Codes:
    """Return a chunk's codes with its shadows."""
    codes = seen.codes.part()
    limit, falls = (look.spread(plane, (codes.shape[0], codes.shape[1])) for plane in cells)
    own, ground = any_of(codes, look.shadow), any_of(codes, look.ground)
    light = seen.light.part()
    shadow = ground & (falls > 0) & ((light < limit) | (own & (look.own != "replace")))
    if look.own != "keep":  # where the scene holds nothing, nothing says otherwise
        codes[own & ~shadow & (light != NO_DATA)] = look.lit
    codes[shadow] = look.becomes
    return codes.reshape(*lead, *codes.shape)
