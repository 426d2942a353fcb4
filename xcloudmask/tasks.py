"""The three things that are done to a chunk: find its valid pixels, infer its windows, make its output.

Plain functions from arrays to arrays. The lazy executor makes tasks of them, the direct one calls them.
All follow one `Plan`, so a result depends on the pixels and never on who called.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.aux_planes import encode
from xcloudmask.blend import Bool, Float, upsample, window_weights
from xcloudmask.chunking import ChunkedAxis, Range
from xcloudmask.classes import NO_DATA, SHADOW
from xcloudmask.engine import WindowJob, get_predictor
from xcloudmask.errors import NoDataWarning, UnitError
from xcloudmask.tiling import TilePlan, reflect_indices
from xcloudmask.types import AuxInput, Calibration, Options, Scheme
from xcloudmask.warn import warn_user

Array = npt.NDArray[Any]

#: Sums of windows, and the row and column where they begin.
Piece = tuple[Float, int, int]

#: Rows of an output that are made at once: what is made on the way would take many times the output.
ROWS_AT_ONCE = 256

#: What no reflectance is, nor counts that were not scaled, of which `check_units` tells: a fill value that
#: nobody declared. It is no data; a network's answer would be spoilt all around it.
LOWEST, HIGHEST = -0.5, 65_535.0

APPLIED_TWICE = (
    "the scale or the offset is wrong, or was applied already. Say how the numbers are stored with "
    "da.cloudmask.describe(scale=..., offset=...), scale=1, offset=0 if they are reflectance"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One call on one array: its options, and the windows over its rows and columns."""

    options: Options
    y: ChunkedAxis
    x: ChunkedAxis

    @classmethod
    def make(cls, options: Options, shape: tuple[int, int]) -> Plan:
        """Plan the windows over an image of `shape` pixels."""
        fy, fx = options.factors
        tiles = TilePlan.make((-(-shape[0] // fy), -(-shape[1] // fx)), options.patch, options.overlap)
        return cls(options, ChunkedAxis(shape[0], fy, tiles.y), ChunkedAxis(shape[1], fx, tiles.x))

    @property
    def tiles(self) -> TilePlan:
        """The windows over the cells."""
        return TilePlan(self.y.plan, self.x.plan)

    @property
    def channels(self) -> int:
        """How many numbers a pixel has in the sums: one a class, and the uncertainty if it is asked for."""
        return len(self.options.spec.classes) + self.options.uncertainty

    @property
    def class_axis(self) -> tuple[int, ...]:
        """Shape of the output's class axis; empty where the output has none."""
        if self.options.output == "classes":
            return ()
        return (len(self.options.scheme.codes) + self.options.uncertainty,)

    @property
    def aux(self) -> tuple[AuxInput, ...]:
        """What the network is given behind the bands: of fixed inputs all, whether at hand or not."""
        return self.options.aux if self.options.spec.any_bands else self.options.spec.aux


def calibrate(raw: Array, calibration: Calibration) -> tuple[Float, Bool]:
    """Turn stored numbers (..., band, y, x) into reflectance and the pixels where every band has one."""
    with np.errstate(over="ignore"):  # what is beyond float32 is no data, see LOWEST
        values: Float = raw.astype(np.float32, copy=False)
        if calibration.scale is not None:
            values = values * np.asarray(calibration.scale, np.float32)[:, None, None]
        if calibration.offset is not None:
            values = values + np.asarray(calibration.offset, np.float32)[:, None, None]
    return values, holds_data(raw, calibration)


def holds_data(raw: Array, calibration: Calibration) -> Bool:
    """Pixels of stored numbers (..., band, y, x) that hold data in every band."""
    valid = np.ones((*raw.shape[:-3], *raw.shape[-2:]), bool)
    limits = stored_limits(calibration, raw.shape[-3])
    # a band at a time: all of them would take as much as the pixels
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        valid &= within(values, low, high)
        for gap in calibration.nodata:
            valid &= values != raw.dtype.type(gap)
    return valid


def within(values: Array, low: float, high: float) -> Bool:
    """Where numbers lie between two, in whatever type: NaN does not, nor does infinity.

    Examples
    --------
    >>> within(np.array([np.nan, 0.5, np.inf]), 0.0, 1.0).tolist()
    [False, True, False]
    >>> within(np.array([0, 9], "u1"), -5.0, 5.5).tolist()
    [True, False]
    """
    if values.dtype.kind == "f":
        kind = np.finfo(values.dtype)
        inside: Bool = values >= max(low, float(kind.min))
        inside &= values <= min(high, float(kind.max))
        return inside
    least, most = np.iinfo(values.dtype).min, np.iinfo(values.dtype).max
    inside = np.ones(values.shape, bool)
    if low > least:
        inside &= values >= math.ceil(low)
    if high < most:
        inside &= values <= math.floor(high)
    return inside


def stored_limits(calibration: Calibration, bands: int) -> list[tuple[float, float]]:
    """Return what `LOWEST` and `HIGHEST` are in stored numbers, a pair a band.

    Examples
    --------
    >>> stored_limits(Calibration(scale=(1e-4,), offset=(0.0,)), 1)
    [(-5000.0, 655350000.0)]
    """
    scales, offsets = calibration.scale or (1.0,), calibration.offset or (0.0,)
    pairs = zip(np.broadcast_to(scales, bands), np.broadcast_to(offsets, bands), strict=True)
    return [(float((LOWEST - b) / a), float((HIGHEST - b) / a)) for a, b in pairs]


def name_fill_value(raw: Array, calibration: Calibration) -> None:
    """Warn of a number (..., band, y, x) that is no data only because no reflectance is so low or high.

    A lazy array can be asked no sooner than where it is computed; one and the same warning is shown once.
    """
    limits = stored_limits(calibration, raw.shape[-3])
    for values, (low, high) in zip(np.moveaxis(raw, -3, 0), limits, strict=True):
        odd = values[~within(values, low, high)]
        odd = odd[np.isfinite(odd)]
        for gap in calibration.nodata:
            odd = odd[odd != raw.dtype.type(gap)]
        if odd.size:
            worst = max(odd.min().item(), odd.max().item(), key=abs)
            number = int(worst) if float(worst).is_integer() and abs(worst) < 1e15 else float(worst)
            warn_user(
                f"values such as {number!r} are no reflectance and are taken as no data (255). Say so "
                f"with nodata={number!r}; or, if they hold data, say how they are scaled: "
                "da.cloudmask.describe(scale=..., offset=...)",
                NoDataWarning,
            )
            return


def valid_pixels(plan: Plan, raw: Array) -> Bool:
    """Pixels of a chunk (..., band, y, x) that hold data in every band; aux planes have no say in it."""
    return holds_data(reflectance(plan, raw), plan.options.calibration)


def reflectance(plan: Plan, raw: Array) -> Array:
    """Return the bands without the aux planes behind them."""
    return raw[..., : raw.shape[-3] - len(plan.options.aux), :, :]


def coarsen(values: Float, valid: Bool, factors: tuple[int, int]) -> tuple[Float, Bool]:
    """Mean of the valid pixels of each cell; a cell is valid if any of its pixels is.

    Added up pixel by pixel in a fixed order, so a cell's mean never depends on what lies around it.
    """
    if factors == (1, 1):
        return values, valid
    fy, fx = factors
    rows, cols = -(-valid.shape[0] // fy), -(-valid.shape[1] // fx)
    total = np.zeros((values.shape[0], rows, cols), np.float32)
    count = np.zeros((rows, cols), np.float32)
    values = np.where(valid, values, np.float32(0))
    for dy in range(min(fy, valid.shape[0])):
        for dx in range(min(fx, valid.shape[1])):
            part, there = values[:, dy::fy, dx::fx], valid[dy::fy, dx::fx]
            total[:, : part.shape[1], : part.shape[2]] += part
            count[: there.shape[0], : there.shape[1]] += there
    total /= np.maximum(count, np.float32(1))
    return total, count > 0


def fill_gaps(pixels: Float, valid: Bool) -> Float:
    """Replace invalid cells of one window (band, y, x) by the nearest valid ones.

    Networks take no NaN. What is filled in depends on nothing but the window's valid pixels: not on the
    number stored in the gap, and not on the chunking. benchmarks/choices.py measured it against other fills.
    """
    if valid.all():
        return pixels
    from scipy.ndimage import distance_transform_edt

    rows, cols = distance_transform_edt(~valid, return_distances=False, return_indices=True)
    filled: Float = pixels[:, rows, cols]
    return filled


def check_units(pixels: Float, valid: Bool, scaled: bool) -> None:
    """Refuse a window whose values cannot be reflectance; a lazy array can be asked no sooner.

    Asked of a window, as those lie the same however the array is chunked. `scaled` says that a scale was
    declared and applied.
    """
    sample = pixels[:, ::8, ::8][:, valid[::8, ::8]]
    if not sample.size:
        return
    middle, largest = float(np.median(sample)), float(np.abs(sample).max())
    if middle > 5:
        found, scale = f"half of the values are above {middle:.4g}", "0.01" if middle <= 150 else "0.0001"
        remedy = (
            f"say how they are scaled: da.cloudmask.describe(scale={scale}, offset=0.0), with the figures of "
            "your product"
        )
    elif middle < -0.1:
        found = f"half of the values are below {middle:.2g}"
        remedy = (
            f"{APPLIED_TWICE}; or these pixels hold no data: say which number means it, describe(nodata=...)"
        )
    elif scaled and 0 < largest < 1e-3:
        found, remedy = f"no value is above {largest:.2g} after the declared scale was applied", APPLIED_TWICE
    else:
        return
    raise UnitError(f"{found}: reflectance is 0 to 1, so {remedy}")


def window_jobs(plan: Plan, raw: Array, rows: Range, cols: Range) -> Iterator[WindowJob]:
    """Cut windows rows x cols of the plan out of raw pixels (scene, band, y, x) that begin with them.

    Windows without a valid pixel are left out.
    """
    tiles = plan.tiles
    calibration, scaled = plan.options.calibration, plan.options.calibration.scale is not None
    row0, col0 = tiles.y.start(rows[0]), tiles.x.start(cols[0])
    patch = plan.options.patch
    for scene in range(raw.shape[0]):
        bands = reflectance(plan, raw[scene])
        values, valid = calibrate(bands, calibration)
        if not valid.all():
            name_fill_value(bands, calibration)
        if not valid.any():
            continue
        cells, there = coarsen(values, valid, plan.options.factors)
        planes = aux_cells(plan, raw[scene])
        for row in range(*rows):
            top = tiles.y.start(row) - row0
            for col in range(*cols):
                left = tiles.x.start(col) - col0
                inside = there[top : top + patch, left : left + patch]
                if not inside.any():
                    continue
                pixels = cells[:, top : top + patch, left : left + patch]
                check_units(pixels, inside, scaled)
                pixels = fill_gaps(pixels, inside)
                if plan.aux:
                    box = slice(top, top + patch), slice(left, left + patch)
                    pixels = np.concatenate([pixels, aux_window(plan, planes, box, inside.shape)])
                if inside.shape != (patch, patch):
                    pixels = pixels[:, reflect_indices(inside.shape[0], patch)]
                    pixels = pixels[:, :, reflect_indices(inside.shape[1], patch)]
                yield WindowJob(scene, top, left, pixels, inside, window_weights(tiles, row, col))


def aux_cells(plan: Plan, raw: Array) -> dict[AuxInput, tuple[Float, Bool]]:
    """Return the cells of each aux plane that was given, (1, y, x), averaged where it holds data itself."""
    out = {}
    for aux, plane in zip(plan.options.aux, raw[raw.shape[0] - len(plan.options.aux) :], strict=True):
        values: Float = plane[None].astype(np.float32, copy=False)
        out[aux] = coarsen(values, np.isfinite(values[0]), plan.options.factors)
    return out


def aux_window(
    plan: Plan,
    planes: dict[AuxInput, tuple[Float, Bool]],
    box: tuple[slice, slice],
    shape: tuple[int, ...],
) -> Float:
    """Return the aux channels of one window (aux, y, x); gaps take the nearest value that it knows."""
    out = np.zeros((len(plan.aux), *shape), np.float32)
    for channel, aux in zip(out, plan.aux, strict=True):
        if aux in planes:
            cells, there = planes[aux]
            valid = there[box]
            if valid.any():
                channel[:] = encode(fill_gaps(cells[:, *box], valid)[0], valid, aux)
    return out


def infer_windows(plan: Plan, raw: Array, rows: Range, cols: Range) -> Float:
    """Infer windows rows x cols; return their weighted sums (..., class, y, x) over the cells they cover.

    `raw` is (..., band, y, x): exactly the pixels those windows cover.
    """
    lead = raw.shape[:-3]
    scenes = raw.reshape(-1, *raw.shape[-3:])
    top, bottom = plan.y.plan.span(*rows)
    left, right = plan.x.plan.span(*cols)
    options = plan.options
    shape = (scenes.shape[0], plan.channels, bottom - top, right - left)
    jobs = window_jobs(plan, scenes, rows, cols)
    first = next(jobs, None)
    if first is None:  # nothing but gaps: no model need be loaded
        return np.zeros((*lead, *shape[1:]), np.float32)
    predictor = get_predictor(options.spec, options.device, options.dtype, options.inputs)
    sums = predictor.blend(chain([first], jobs), shape, batch_size=options.batch_size, tta=options.tta)
    return sums.reshape(*lead, *shape[1:])


def finish(plan: Plan, pieces: Sequence[Piece], valid: Bool, rows: Range, cols: Range) -> Array:
    """Make the output of pixels rows x cols from the sums of whichever windows cover the cells they need.

    Each piece comes with its first row and column among those cells.
    """
    classes = plan.class_axis
    dtype = np.float32 if classes else np.uint8
    out: Array = np.empty((*valid.shape[:-2], *classes, *valid.shape[-2:]), dtype)
    if not out.size:
        return out
    (first, stop), (left, right) = rows, plan.x.needed_cells(cols)
    origin = plan.y.needed_cells(rows)[0]
    for start in range(first, stop, ROWS_AT_ONCE):
        band = start, min(start + ROWS_AT_ONCE, stop)
        top, bottom = plan.y.needed_cells(band)
        sums = np.zeros((*valid.shape[:-2], plan.channels, bottom - top, right - left), np.float32)
        add_pieces(sums, [(part, row + origin - top, col) for part, row, col in pieces])
        inside = slice(band[0] - first, band[1] - first)
        out[..., inside, :] = _finish(plan, sums, valid[..., inside, :], band, cols)
    return out


def add_pieces(total: Float, pieces: Sequence[Piece]) -> None:
    """Add sums to those of a band, which may begin and end anywhere within them."""
    for part, row, col in pieces:
        rows = slice(max(row, 0), max(row + part.shape[-2], 0))
        there = total[..., rows, col : col + part.shape[-1]]
        there += part[..., max(-row, 0) : max(-row, 0) + there.shape[-2], :]


def _finish(plan: Plan, sums: Float, valid: Bool, rows: Range, cols: Range) -> Array:
    options = plan.options
    needs = (plan.y.needed_cells(rows), plan.x.needed_cells(cols))
    sizes = (plan.y.plan.size, plan.x.plan.size)
    count = len(options.spec.classes)
    found = upsample(sums, (rows, cols), options.factors, needs, sizes, count)
    found, spread = found[..., :count, :, :], found[..., count:, :, :]
    # A network that returns NaN has told nothing; such a pixel must not become class 0.
    valid = valid & (found.sum(axis=-3) > 0)
    found = to_scheme(found, options.scheme)
    if options.output == "probabilities":
        found = np.concatenate([found, spread], axis=-3) if options.uncertainty else found
        out: Float = np.where(valid[..., None, :, :], np.clip(found, 0, 1), np.float32(np.nan))
        return out
    codes = np.asarray(options.scheme.codes, np.uint8)
    return np.where(valid, codes[choose(found, options)], np.uint8(NO_DATA))


def to_scheme(found: Float, scheme: Scheme) -> Float:
    """Add the model's channels up to the classes of the answer."""
    matrix = scheme.matrix
    if all(row[k] == (i == k) for i, row in enumerate(matrix) for k in range(len(row))):
        return found
    parts: list[Float] = []
    for row in matrix:
        channels = [found[..., k, :, :] for k, share in enumerate(row) if share]
        parts.append(sum(channels[1:], channels[0]))
    return np.stack(parts, axis=-3)


def choose(found: Float, options: Options) -> npt.NDArray[np.intp]:
    """Index of the class of each pixel: the most probable, or as thresholds of cloud and shadow decide."""
    if options.shadow_threshold is not None:
        shadow = options.scheme.names.index(SHADOW)
        found = found.copy()
        weak = found[..., shadow, :, :] < options.shadow_threshold
        found[..., shadow, :, :][weak] = -1.0  # behind every other class
    best: npt.NDArray[np.intp] = found.argmax(axis=-3)
    threshold = options.threshold
    if threshold is None:
        return best
    cloudy = np.asarray(options.scheme.cloudy)
    there = found[..., cloudy, :, :]
    as_cloud = np.flatnonzero(cloudy)[there.argmax(axis=-3)]
    as_ground = np.flatnonzero(~cloudy)[found[..., ~cloudy, :, :].argmax(axis=-3)]
    decided: npt.NDArray[np.intp] = np.where(there.sum(axis=-3) >= threshold, as_cloud, as_ground)
    return decided
