"""The pixel grid of a stack: one CRS, one transform, one shape, worked out from metadata alone.

Both engines are given this grid, so neither gets to guess. Nothing here opens a file.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from affine import Affine

from xcloudmask.errors import CloudMaskError, OptionError, warn_user
from xcloudmask.stac.assumptions import name_items
from xcloudmask.stac.boxes import (
    Bounds,
    check_bbox,
    geometry_box,
    in_degrees,
    is_geographic,
    is_metric,
    parse_crs,
    transform_box,
)
from xcloudmask.stac.view import AssetView, ItemView, to_numbers

#: Parts of a pixel below which a difference is rounding, not position.
_TOLERANCE = 1e-4
#: Along one axis; the globe at 10 m has 4 million.
_MOST_PIXELS = 10_000_000
#: Pixels of more degrees are metres that were meant.
_LARGEST_DEGREES = 1.0
#: Units of a CRS that one pixel may have.
_LARGEST = 1e6


@dataclass(frozen=True, slots=True)
class Grid:
    """A north-up grid of pixels.

    Examples
    --------
    >>> grid = Grid("EPSG:32632", 600000.0, 4900020.0, 10.0, 10.0, (2, 3))
    >>> grid.bounds
    (600000.0, 4900000.0, 600030.0, 4900020.0)
    >>> grid.x.tolist()
    [600005.0, 600015.0, 600025.0]
    """

    crs: str  # "EPSG:32632", or WKT where there is no code
    left: float  # outer corner of the first pixel, as is the top
    top: float
    res_x: float  # pixel size in units of the CRS, both positive
    res_y: float
    shape: tuple[int, int]  # rows and columns

    @classmethod
    def of_centres(cls, crs: str, x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> Grid:
        """Return the grid of evenly spaced pixel centres, two or more each way; it may run either way."""
        res_x, res_y = float(x[-1] - x[0]) / (x.size - 1), float(y[0] - y[-1]) / (y.size - 1)
        return cls(crs, float(x[0]) - res_x / 2, float(y[0]) + res_y / 2, res_x, res_y, (y.size, x.size))

    @property
    def transform(self) -> Affine:
        """Affine transform from column, row to x, y."""
        return Affine(self.res_x, 0.0, self.left, 0.0, -self.res_y, self.top)

    @property
    def bounds(self) -> Bounds:
        """Left, bottom, right, top."""
        rows, columns = self.shape
        return (self.left, self.top - rows * self.res_y, self.left + columns * self.res_x, self.top)

    @property
    def x(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Centres of the columns."""
        return self.left + (np.arange(self.shape[1]) + 0.5) * self.res_x

    @property
    def y(self) -> np.ndarray[Any, np.dtype[Any]]:
        """Centres of the rows, from north to south."""
        return self.top - (np.arange(self.shape[0]) + 0.5) * self.res_y

    def window(self, row: int, column: int, shape: tuple[int, int]) -> Grid:
        """Return the grid of a part of this one."""
        left, top = self.left + column * self.res_x, self.top - row * self.res_y
        return Grid(self.crs, left, top, self.res_x, self.res_y, shape)

    def part(self, row: int = 0, column: int = 0, shape: tuple[int, int] | None = None) -> Part:
        """Return a part of this grid, by default all of it."""
        return Part(self, row, column, shape or self.shape)

    def touches(self, box: Bounds | None) -> bool:
        """Tell if `box` may share area with the grid: within two pixels, or unknown, it may."""
        if box is None:
            return True
        left, bottom, right, top = self.bounds
        x, y = 2 * self.res_x, 2 * self.res_y
        return box[0] < right + x and box[2] > left - x and box[1] < top + y and box[3] > bottom - y


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows and columns of a grid: what one chunk holds."""

    whole: Grid  # what the pixels depend on
    row: int  # of the first pixel, counted from the whole grid's, as is the column
    column: int
    shape: tuple[int, int]  # rows and columns

    @property
    def grid(self) -> Grid:
        """The part as a grid of its own."""
        return self.whole.window(self.row, self.column, self.shape)


@dataclass(frozen=True, slots=True)
class AssetGrid:
    """What an item says of where an asset lies; anything may be missing."""

    item_id: str  # for messages
    crs: str | None = None  # of the file
    bounds: Bounds | None = None  # in that CRS
    res: tuple[float, float] | None = None  # pixel size in x and y
    lonlat: Bounds | None = None  # in degrees; right of 180 where it crosses the antimeridian
    corner: tuple[float, float] | None = None  # left and top of the first pixel, or of any other
    assumed: bool = False  # the corner is that of the sensor's products, and the item states none

    def bounds_in(self, crs: str) -> Bounds | None:
        """Return the box in another CRS or None where it cannot be known."""
        if self.crs is not None and self.bounds is not None:
            if self.crs == crs:
                return self.bounds
            return transform_box(self.bounds, self.crs, crs)
        if self.lonlat is not None and not (self.lonlat[2] > 180 and is_geographic(crs)):
            return transform_box(self.lonlat, "EPSG:4326", crs)
        return None


def asset_grid(
    item: ItemView,
    asset: AssetView,
    crs: str | None,
    gsd: float | None,
    lonlat: Bounds | None,
    edges: float | None = None,
) -> AssetGrid:
    """Read where an asset of an item lies from the projection fields, on the asset first.

    Where the item tells no transform, pixels have a size of `gsd` metres, and their `edges`, in metres, are
    those of the sensor's products.

    Examples
    --------
    >>> from xcloudmask.stac.view import view_item
    >>> red = {"href": "a.tif", "proj:shape": [2, 3], "proj:transform": [10, 0, 500, 0, -10, 900]}
    >>> item = view_item({"id": "a", "properties": {}, "assets": {"red": red}})
    >>> asset_grid(item, item.assets["red"], "EPSG:32632", None, None).bounds
    (500.0, 880.0, 530.0, 900.0)
    """

    def stated(name: str, least: int) -> tuple[float, ...] | None:
        return to_numbers(asset.raw.get(name), least) or to_numbers(item.properties.get(name), least)

    transform, shape, box = stated("proj:transform", 6), stated("proj:shape", 2), stated("proj:bbox", 4)
    if shape and min(shape[:2]) < 1:
        shape = None
    bounds: Bounds | None = None
    res: tuple[float, float] | None = None
    corner: tuple[float, float] | None = None
    north_up = transform and not transform[1] and not transform[3] and transform[0] > 0 > transform[4]
    if transform and north_up:
        step_x, _, left, _, step_y, top = transform[:6]
        res, corner = (step_x, -step_y), (left, top)
        if shape:
            bounds = (left, top + shape[0] * step_y, left + shape[1] * step_x, top)
    if bounds is None and box and not in_degrees(box, crs):
        bounds = (box[0], box[1], box[2], box[3])
    if corner is None and bounds is not None:
        corner = (bounds[0], bounds[3])
    if res is None and bounds is not None and shape:
        res = ((bounds[2] - bounds[0]) / shape[1], (bounds[3] - bounds[1]) / shape[0])
    if gsd and (crs is None or is_metric(crs)) and (res is None or not math.isclose(*res, rel_tol=1e-3)):
        # Products have square pixels: others are those of a preview, which old items of USGS state.
        res = (gsd, gsd)
    assumed = corner is None and edges is not None
    if corner is None and edges is not None:
        corner = (edges, edges)
    return AssetGrid(item.id, crs, bounds, res, lonlat, corner, assumed)


def make_grid(
    assets: Sequence[AssetGrid],
    *,
    crs: Any = None,
    resolution: float | tuple[float, float] | None = None,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    like: Any = None,
    max_pixels: float = math.inf,
) -> Grid:
    """Work out the grid that a stack of assets shares.

    The CRS is the one asked for, else the most frequent one among the items (with a warning if there are
    several); the resolution is the one asked for, else the finest. Pixel edges fall on those of the items
    where the resolution is theirs, else on whole multiples of the resolution. The extent is that of
    `bbox` or `geometry` (in degrees, both outward to whole pixels), else the union of the items.

    Parameters
    ----------
    assets : sequence of AssetGrid
        One for each asset of each item that is to be loaded.
    crs, resolution, bbox, geometry, like, max_pixels
        As for :func:`xcloudmask.load_stac`.

    Returns
    -------
    Grid

    Examples
    --------
    >>> tile = AssetGrid("a", "EPSG:32632", (500.0, 880.0, 530.0, 900.0), (10.0, 10.0), corner=(500.0, 900.0))
    >>> make_grid([tile]).shape
    (2, 3)
    """
    if like is not None:
        given = {"crs": crs, "resolution": resolution, "bbox": bbox, "geometry": geometry}
        if clash := [name for name, value in given.items() if value is not None]:
            raise CloudMaskError(f"like= sets the whole grid: leave out {', '.join(clash)}")
        return grid_like(like)
    name = parse_crs(crs) if crs is not None else _common_crs(assets)
    res = _resolution(assets, name, resolution)
    anchor = _anchor(assets, name, res)
    if anchor is None:
        _warn_about_edges(assets, name, res)
        anchor = (0.0, 0.0)
    if bbox is not None and geometry is not None:
        raise CloudMaskError("bbox= and geometry= both set the extent: give one of them")
    if bbox is not None:
        extent = transform_box(check_bbox(bbox), "EPSG:4326", name)
    elif geometry is not None:
        extent = transform_box(geometry_box(geometry), "EPSG:4326", name)
    else:
        extent = _union(assets, name)
    grid = _snap(name, extent, res, anchor)
    pixels = grid.shape[0] * grid.shape[1]
    if bbox is None and geometry is None and pixels > max_pixels:
        raise CloudMaskError(
            f"the items together span {pixels:,} pixels ({grid.shape[0]:,} rows, {grid.shape[1]:,} columns of"
            f" {res[0]:g} in units of {name}), most of them empty if the items lie far apart. Say which part"
            " you want: bbox=, geometry= or like=, or a coarser resolution=, or allow as many: max_pixels="
        )
    return grid


def grid_like(like: Any) -> Grid:
    """Return the grid of a DataArray or Dataset that has ``x``, ``y`` and a CRS."""
    import rioxarray  # noqa: F401 -- registers .rio

    if not hasattr(like, "rio"):
        raise OptionError("like", like, hint="Give a DataArray or Dataset with x, y and a CRS.")
    crs = like.rio.crs
    if crs is None:
        raise CloudMaskError("like= has no CRS: set it with like.rio.write_crs('EPSG:...')")
    x, y = (np.asarray(like[name].values, dtype="float64") for name in (like.rio.x_dim, like.rio.y_dim))
    if x.size < 2 or y.size < 2:
        raise CloudMaskError("like= needs at least two pixels along x and along y to tell their size")
    grid = Grid.of_centres(parse_crs(crs), x, y)
    if grid.res_x <= 0 or grid.res_y <= 0:
        raise CloudMaskError("like= must run west to east and north to south: sort it by x, and by y falling")
    for axis, values, step in (("x", x, grid.res_x), ("y", y, -grid.res_y)):
        if np.abs(values - (values[0] + np.arange(values.size) * step)).max() > 0.01 * abs(step):
            raise CloudMaskError(f"like= has an uneven {axis} axis; its pixels must be of one size")
    return grid


def _common_crs(assets: Sequence[AssetGrid]) -> str:
    """Most frequent CRS by item; the first seen wins a tie."""
    pairs = dict.fromkeys((asset.item_id, asset.crs) for asset in assets if asset.crs is not None)
    if not pairs:
        names = sorted({asset.item_id for asset in assets})
        raise CloudMaskError(
            f"no item tells its CRS (item {names[0]!r} has no proj:code or proj:epsg that can be used):"
            " pass crs= and resolution="
        )
    counts = Counter(crs for _, crs in pairs)
    chosen = counts.most_common(1)[0][0]
    if len(counts) > 1:
        several = ", ".join(f"{crs} ({number})" for crs, number in counts.most_common())
        warn_user(
            f"the items lie in several CRSs: {several}. All are brought to {chosen}, the most frequent one;"
            f" pass crs={chosen!r} to accept that quietly, or another crs=",
            UserWarning,
        )
    return str(chosen)


def _resolution(
    assets: Sequence[AssetGrid], crs: str, resolution: float | tuple[float, float] | None
) -> tuple[float, float]:
    if resolution is not None:
        return check_resolution(resolution, crs)
    known = {asset.res for asset in assets if asset.crs == crs and asset.res is not None}
    if known:
        return min(known)
    sizes = sorted({asset.res[0] for asset in assets if asset.res is not None and asset.crs is not None})
    raise CloudMaskError(
        f"the pixel size on {crs} cannot be told: no item in that CRS carries proj:transform"
        f" (pixel sizes in other CRSs: {sizes or 'none'}). Pass resolution=, in units of {crs}"
    )


def check_resolution(resolution: Any, crs: str | None) -> tuple[float, float]:
    """Return a pixel size in x and y, in units of a CRS, that of the items where it is None."""
    hint = "Give a pixel size above 0, in units of the CRS, or two: (x, y)."
    pair = resolution if isinstance(resolution, (tuple, list)) else (resolution, resolution)
    if len(pair) != 2 or any(isinstance(n, (bool, str)) or not isinstance(n, Real) for n in pair):
        raise OptionError("resolution", resolution, hint=hint)
    res_x, res_y = float(pair[0]), abs(float(pair[1]))
    if not (res_x > 0 and res_y > 0 and math.isfinite(res_x + res_y)):
        raise OptionError("resolution", resolution, hint=hint)
    if max(res_x, res_y) > _LARGEST:
        hint = f"No image has pixels of that size, in units of {crs or 'its CRS'}."
        raise OptionError("resolution", resolution, hint=hint)
    if crs is not None and is_geographic(crs) and max(res_x, res_y) > _LARGEST_DEGREES:
        hint = f"Units of {crs} are degrees: 10 m are about 9e-5. Pass a crs= in metres, or degrees."
        raise OptionError("resolution", resolution, hint=hint)
    return res_x, res_y


def _anchor(assets: Sequence[AssetGrid], crs: str, res: tuple[float, float]) -> tuple[float, float] | None:
    """Where pixel edges fall: most items decide, if they have this resolution; None if they do not say.

    An item that states a transform and no CRS is taken to be on the CRS that the caller names for it.
    """
    offsets: Counter[tuple[float, float]] = Counter()
    exact: dict[tuple[float, float], tuple[float, float]] = {}
    for asset in assets:
        corner = asset.corner
        if asset.crs not in (crs, None) or corner is None or asset.res is None:
            continue
        if not np.allclose(asset.res, res, rtol=1e-9, atol=0):
            continue
        parts = (round((corner[0] / res[0]) % 1.0, 3) % 1.0, round((corner[1] / res[1]) % 1.0, 3) % 1.0)
        offsets[parts] += 1
        exact.setdefault(parts, corner)
    if not offsets:
        return None
    return exact[offsets.most_common(1)[0][0]]


def _warn_about_edges(assets: Sequence[AssetGrid], crs: str, res: tuple[float, float]) -> None:
    """Say that files may lie between the pixels: Landsat's edges are not at multiples of 30 m but at 15 m."""
    silent = [asset.item_id for asset in assets if asset.crs in (crs, None) and asset.corner is None]
    if silent:
        warn_user(
            f"{name_items(list(dict.fromkeys(silent)))}: no proj:transform says where the pixels of the files"
            f" begin, so the edges of the grid are whole multiples of {res[0]:g} in units of {crs}. Files"
            " that begin elsewhere (Landsat's do) are resampled, up to half a pixel off. For the files' own"
            " pixels give their grid: like=rioxarray.open_rasterio(<one of the files>)",
            UserWarning,
        )


def _union(assets: Sequence[AssetGrid], crs: str) -> Bounds:
    boxes = {box for asset in assets if (box := asset.bounds_in(crs)) is not None}
    if not boxes:
        raise CloudMaskError(
            f"item {assets[0].item_id!r} tells neither proj:shape, proj:bbox nor a geometry, so the extent is"
            " unknown: pass bbox= or like="
        )
    lefts, bottoms, rights, tops = zip(*boxes, strict=True)
    return min(lefts), min(bottoms), max(rights), max(tops)


def _snap(crs: str, box: Bounds, res: tuple[float, float], anchor: tuple[float, float]) -> Grid:
    def outward(low: float, high: float, step: float, origin: float) -> tuple[int, int]:
        first = math.floor((low - origin) / step + _TOLERANCE)
        last = math.ceil((high - origin) / step - _TOLERANCE)
        return first, max(last, first + 1)

    west, east = outward(box[0], box[2], res[0], anchor[0])
    south, north = outward(box[1], box[3], res[1], anchor[1])
    if max(east - west, north - south) > _MOST_PIXELS:
        raise CloudMaskError(
            f"the grid would have {north - south:,} rows and {east - west:,} columns of {res[0]:g} x"
            f" {res[1]:g} in units of {crs}: check resolution= and bbox=, and the proj: fields of the items"
        )
    left, top = anchor[0] + west * res[0], anchor[1] + north * res[1]
    return Grid(crs, left, top, res[0], res[1], (north - south, east - west))
