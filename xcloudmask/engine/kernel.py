"""What is done to a chunk, from top to bottom: cut its windows out, infer them, make its output.

Plain functions from arrays to arrays, which NumPy (`run_numpy`), Dask (`run_dask`) and a stream call alike.
All follow one `Plan`, so a result depends on the pixels and never on who called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from itertools import chain, product

import numpy as np

from xcloudmask.classes import NO_DATA
from xcloudmask.engine.arrays import Array, Bool, Float
from xcloudmask.engine.aux_planes import encode
from xcloudmask.engine.blend import PlacedSum, add_sums, window_weights
from xcloudmask.engine.chunks import Range
from xcloudmask.engine.classify import count_as_cloud, decide_classes, to_scheme
from xcloudmask.engine.input_checks import check_units, name_gaps, name_oddities
from xcloudmask.engine.output_checks import no_answer
from xcloudmask.engine.pixels import cells_of, coarsen, fill_gaps, holds_data, saturated
from xcloudmask.engine.plan import Plan
from xcloudmask.engine.predictor import WindowJob, get_predictor
from xcloudmask.engine.stopwatch import spent_on
from xcloudmask.engine.tiling import reflect_indices
from xcloudmask.engine.upsample import upsample
from xcloudmask.errors import ModelWarning, warn_user
from xcloudmask.types import AuxInput

#: Rows of an output that are made at once: what is made on the way would take many times the output, and
#: of a few rows it stays in the processor's cache.
ROWS_AT_ONCE = 16
#: What a pixel holds.
GAP, DATA, SATURATED = 0, 1, 2


def pixel_states(plan: Plan, raw: Array) -> Array:
    """Return what pixels (..., band, y, x) hold: `GAP`, `DATA` in every band, or `SATURATED` data.

    Aux planes do not count.

    `window_jobs` scans the pixels that windows reach once more. That is half a percent of the time of the
    least network here; to hand the result on, chunk by chunk, would double the strips in a Dask graph.
    """
    bands, calibration = reflectance(plan, raw), plan.options.calibration
    with spent_on("pixels"):
        states = holds_data(bands, calibration).view(np.uint8)
        if calibration.saturation is not None:
            states[(states == DATA) & saturated(bands, calibration)] = SATURATED
    return states


def reflectance(plan: Plan, raw: Array) -> Array:
    """Return the bands without the aux planes behind them."""
    return raw[..., : raw.shape[-3] - len(plan.options.aux), :, :]


def window_jobs(plan: Plan, raw: Array, rows: Range, cols: Range) -> Iterator[WindowJob]:
    """Cut windows rows x cols of the plan out of raw pixels (scene, band, y, x) that begin with them.

    Windows without a valid pixel are left out. This is a generator that `Predictor.blend` pulls batches from:
    it runs between inferences, a window at a time, and its warnings and errors come up there.
    """
    tiles = plan.tiles
    calibration, (fy, fx) = plan.options.calibration, plan.options.factors
    row0, col0 = tiles.y.start(rows[0]), tiles.x.start(cols[0])
    patch = plan.options.patch
    for scene in range(raw.shape[0]):
        bands = reflectance(plan, raw[scene])
        for row, col in product(range(*rows), range(*cols)):
            top, left = tiles.y.start(row) - row0, tiles.x.start(col) - col0
            # every eighth cell; of the stored numbers, as what is no data here may be counts
            sample = (
                slice(top * fy, (top + patch) * fy, 8 * fy),
                slice(left * fx, (left + patch) * fx, 8 * fx),
            )
            check_units(bands[:, *sample], calibration)
        cells, cell_valid, gaps = cells_of(bands, calibration, plan.options.factors)
        if gaps:
            name_gaps(bands, calibration)
        if not cell_valid.any():
            continue
        name_oddities(bands, calibration)
        planes = aux_cells(plan, raw[scene])
        for row in range(*rows):
            top = tiles.y.start(row) - row0
            for col in range(*cols):
                left = tiles.x.start(col) - col0
                box = slice(top, top + patch), slice(left, left + patch)
                inside = cell_valid[box]
                if not inside.any():
                    continue
                pixels = cells[:, *box]
                pixels = fill_gaps(pixels, inside, plan.options.spec.gaps)
                if plan.aux:
                    pixels = np.concatenate([pixels, aux_window(plan, planes, box, inside.shape)])
                if inside.shape != (patch, patch):  # only where the image is smaller than a window
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
    plan: Plan, planes: dict[AuxInput, tuple[Float, Bool]], box: tuple[slice, slice], shape: tuple[int, ...]
) -> Float:
    """Return the aux channels of one window (aux, y, x); gaps take the nearest value that it knows."""
    out = np.zeros((len(plan.aux), *shape), np.float32)
    for channel, aux in zip(out, plan.aux, strict=True):
        if aux in planes:
            cells, cell_valid = planes[aux]
            valid = cell_valid[box]
            if valid.any():
                channel[:] = encode(fill_gaps(cells[:, *box], valid)[0], valid, aux)
    return out


def infer_windows(
    plan: Plan, raw: Array, rows: Range, cols: Range, tell: Callable[[int], None] | None = None
) -> Float:
    """Infer windows rows x cols; return their weighted sums (..., class, y, x) over the cells they cover.

    `raw` is (..., band, y, x): exactly the pixels those windows cover. `tell` is told how many are inferred.
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
    jobs = chain([first], jobs)
    sums = predictor.blend(
        jobs if tell is None else _counted(jobs, tell), shape, batch_size=options.batch_size, tta=options.tta
    )
    return sums.reshape(*lead, *shape[1:])


def _counted(jobs: Iterator[WindowJob], tell: Callable[[int], None]) -> Iterator[WindowJob]:
    for number, job in enumerate(jobs):
        tell(number)
        yield job


def finish(plan: Plan, placed: Collection[PlacedSum], states: Array, rows: Range, cols: Range) -> Array:
    """Make the output of pixels rows x cols from the sums of all windows that cover the cells they need.

    Sums are placed among those cells. `states` are those of the pixels.
    """
    classes = plan.class_axis
    dtype = np.float32 if classes else np.uint8
    out: Array = np.empty((*states.shape[:-2], *classes, *states.shape[-2:]), dtype)
    if not out.size:
        return out
    (first, stop), (left, right) = rows, plan.x.needed_cells(cols)
    origin = plan.y.needed_cells(rows)[0]
    for start in range(first, stop, ROWS_AT_ONCE):
        band = start, min(start + ROWS_AT_ONCE, stop)
        top, bottom = plan.y.needed_cells(band)
        sums = np.zeros((*states.shape[:-2], plan.channels, bottom - top, right - left), np.float32)
        add_sums(sums, placed, top - origin)
        inside = slice(band[0] - first, band[1] - first)
        with spent_on("blending"):
            _output(plan, sums, states[..., inside, :], band, cols, out[..., inside, :])
    return out


def _output(plan: Plan, sums: Float, states: Array, rows: Range, cols: Range, out: Array) -> None:
    """Make a few rows of the output, in `out`: cells to pixels, then what each pixel comes to."""
    needs = (plan.y.needed_cells(rows), plan.x.needed_cells(cols))
    sizes = (plan.y.plan.size, plan.x.plan.size)
    count = len(plan.options.spec.classes)
    for each, channels in upsample(sums, (rows, cols), plan.options.factors, needs, sizes, count):
        out[..., each] = _answer(plan, channels, states[..., each])


def _answer(plan: Plan, channels: Float, states: Array) -> Array:
    """Turn what windows add up to into the answer: the model's classes to the scheme's, the decision."""
    options, count = plan.options, len(plan.options.spec.classes)
    probabilities, uncertainty = channels[..., :count, :, :], channels[..., count:, :, :]
    # Where a network returned NaN, its classes sum to zero or NaN: such a pixel must not become class 0.
    answered = probabilities.sum(axis=-3) > 0
    valid = states != GAP
    if (valid & ~answered).any():
        warn_user(no_answer(options.spec), ModelWarning)
    valid = valid & answered
    full = states == SATURATED
    if full.any():
        probabilities = count_as_cloud(probabilities, full, options.spec)
    probabilities = to_scheme(probabilities, options.scheme)
    if options.output == "probabilities":
        if options.uncertainty:
            probabilities = np.concatenate([probabilities, uncertainty], axis=-3)
        out: Float = np.where(valid[..., None, :, :], np.clip(probabilities, 0, 1), np.float32(np.nan))
        return out
    best = decide_classes(probabilities, options.scheme, options.threshold, options.shadow_threshold)
    return np.where(valid, np.asarray(options.scheme.codes, np.uint8).take(best), np.uint8(NO_DATA))
