"""One picture of many dates: of each pixel, the median or one of its clear views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLEAR
from xcloudmask.engine.pixels import NEAR
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.masks.apply import clear_fraction, one_of
from xcloudmask.masks.select import clear_counts, enough, read_where
from xcloudmask.masks.series import dated, nan_median, whole_series
from xcloudmask.scene.dataset import as_variables, stack
from xcloudmask.scene.dims import BAND_DIMS
from xcloudmask.scene.same_grid import differ_along
from xcloudmask.scene.units import NODATA_ATTRS, fill_of

METHODS = ("median", "medoid", "best", "latest")
#: Periods by name, as pandas calls them.
PERIODS = {"day": "D", "week": "W-MON", "month": "MS", "season": "QS-DEC", "year": "YS"}
#: A period has its first day, and is named by it.
FIRST: Any = {"closed": "left", "label": "left"}

Pixels = npt.NDArray[Any]
Groups = list[tuple[Any, npt.NDArray[np.intp]]]


def composite(
    data: xr.DataArray | xr.Dataset,
    mask: xr.DataArray,
    method: str = "median",
    by: Any = None,
    min_clear: float | None = None,
    clear: Sequence[str] = CLEAR,
    quality: xr.DataArray | None = None,
    sources: bool = False,
) -> xr.DataArray | xr.Dataset:
    """Do what `xcloudmask.accessor.CloudMask.composite` documents."""
    if method not in METHODS:
        raise OptionError("method", method, allowed=METHODS)
    if quality is not None and method != "best":
        raise CloudMaskError(f"quality= is what method='best' goes by; method={method!r} takes none")
    da = stack(data) if isinstance(data, xr.Dataset) else data
    given = mask
    mask, da, dim, order = dated(mask, da)
    if quality is not None and (dim not in quality.dims or {**mask.sizes, **quality.sizes} != mask.sizes):
        raise CloudMaskError(f"quality= has sizes {dict(quality.sizes)}, which do not fit {dict(mask.sizes)}")
    if quality is not None and any(differ_along(quality, given, along) for along in quality.dims):
        raise CloudMaskError(
            "quality= and the mask have other coordinates", "Bring it there: quality.reindex_like(mask)"
        )
    if method == "best":
        quality = clear_fraction(mask, clear) if quality is None else quality.isel({dim: order})
    if isinstance(by, xr.DataArray) and by.sizes == mask[dim].sizes:
        by = by.isel({dim: order})
    gaps, fill = fill_of(da)  # a mask of others may call them clear
    groups = _groups(mask[dim], by)
    kept = np.arange(mask.sizes[dim])
    if min_clear is not None:
        counts = clear_counts(mask, da, clear)
        kept = np.flatnonzero(enough(counts.sum(axis=(-2, -1)), min_clear))
        if da.chunks is not None:  # where nothing is clear, reading would change nothing
            da = read_where(da, counts[0] > 0, mask.dims)
    banded = any(name in da.dims for name in BAND_DIMS)
    stored, da = da, da if da.dtype.kind == "f" else da.astype(np.float32)
    if gaps:
        da = da.where(~stored.isin(gaps))
    for number in fill:
        held = abs(stored - number) > NEAR if number else stored != number
        da = da.where(held.any([name for name in BAND_DIMS if name in da.dims]))
    cube = (da if banded else da.expand_dims("band")).drop_vars(
        [name for name in da.coords if name not in da.dims]
    )
    by_date = [part.drop_vars(part.coords) for part in (one_of(mask, clear), quality) if part is not None]
    parts = [_of_dates(where[np.isin(where, kept)], cube, by_date, dim, method) for _, where in groups]
    bands, views, chosen = (list(part) for part in zip(*parts, strict=True))
    labels = xr.DataArray([label for label, _ in groups], dims=dim, name=dim)
    out, count, at = (xr.concat(part, labels) for part in (bands, views, chosen))
    out = (out if banded else out.isel(band=0, drop=True)).transpose(*da.dims)
    out = out.assign_coords({name: coord for name, coord in da.coords.items() if dim not in coord.dims})
    out.attrs = {**{key: v for key, v in da.attrs.items() if key not in NODATA_ATTRS}, "composite": method}
    made: Any = as_variables(out, data) if isinstance(data, xr.Dataset) else out.rename(data.name)
    if by is None:  # its one label is the first date, which says too little
        days = mask[dim].values[kept].astype("M8[D]")
        span = f", {days[0]} to {days[-1]}" if len(days) else ""
        made = made.assign_attrs(composite_of=f"{len(days)} dates{span}")
    elif isinstance(by, str):  # so that a picture is titled with the period, not with its first day
        made = made.assign_attrs(composite_by=by)
    if not sources:
        return made  # type: ignore[no-any-return]
    maps = {"views": count.transpose(dim, ...).assign_attrs(long_name="clear views")}
    if method != "median":
        date = xr.apply_ufunc(
            _dates, at, kwargs={"times": mask[dim].values}, dask="parallelized",
            output_dtypes=[mask[dim].dtype],
        )  # fmt: skip
        maps["date"] = date.transpose(dim, ...).assign_attrs(long_name="date of the view")
    ds: xr.Dataset = made if isinstance(made, xr.Dataset) else made.to_dataset(name="composite")
    return ds.assign(maps)


def _groups(time: xr.DataArray, by: Any) -> Groups:
    """Return label and places of the dates of each period that has one; they are in order."""
    import pandas as pd

    places = pd.Series(np.arange(time.size), index=pd.DatetimeIndex(time.values))
    if by is None:
        return [(time.values[0], places.to_numpy())]
    if isinstance(by, xr.DataArray):
        if by.sizes != time.sizes:
            raise CloudMaskError(f"by= lies over {dict(by.sizes)}, and the dates over {dict(time.sizes)}")
        grouped: Any = places.groupby(by.values)
    else:
        try:
            grouped = places.resample(PERIODS[by], **FIRST) if by in PERIODS else places.resample(by)
        except (ValueError, TypeError):
            hint = (
                "Or a length of time as pandas writes it, '10D', or labels of the dates: scene.time.dt.month"
            )
            raise OptionError("by", by, allowed=PERIODS, hint=hint) from None
    return [(label, part.to_numpy()) for label, part in grouped if len(part)]


def _of_dates(
    where: npt.NDArray[np.intp], cube: xr.DataArray, by_date: list[xr.DataArray], dim: str, method: str
) -> tuple[xr.DataArray, ...]:
    """Return bands, clear views and the dates taken of some dates of a scene; `by_date` as of `_pick`."""
    band = next(name for name in BAND_DIMS if name in cube.dims)
    if len(where) == 0:  # no date is clear enough: one without a clear pixel stands for them
        where, cube = np.array([0]), xr.full_like(cube, np.nan)
    parts = [whole_series(part.isel({dim: where}), dim, band) for part in (cube, *by_date)]
    made: tuple[xr.DataArray, ...] = xr.apply_ufunc(
        partial(_pick, method=method, where=where), *parts,
        input_core_dims=[[dim, band], *([dim] for _ in by_date)], output_core_dims=[[band], [], []],
        dask="parallelized", output_dtypes=[cube.dtype, np.uint16, np.int32],
    )  # fmt: skip
    return made


def _pick(
    pixels: Pixels, usable: Pixels, quality: Pixels | None = None, *, method: str, where: Pixels
) -> tuple[Pixels, Pixels, Pixels]:
    """Return bands, clear views, and the place of the date taken (-1: none), of (..., date, band)."""
    cube = np.ascontiguousarray(np.moveaxis(pixels, (-2, -1), (0, 1)))
    good = np.moveaxis(np.broadcast_to(usable, pixels.shape[:-1]), -1, 0) & np.isfinite(cube).all(axis=1)
    if quality is not None:
        rank = np.moveaxis(np.broadcast_to(quality, pixels.shape[:-1]), -1, 0)
        good &= np.isfinite(rank)
    views = good.sum(axis=0)
    at = np.zeros(views.shape, np.intp)
    if method == "median":
        out = nan_median(np.where(good[:, None], cube, np.asarray(np.nan, cube.dtype)))
    else:
        if method == "latest":
            at = len(good) - 1 - np.argmax(good[::-1], axis=0)
        elif method == "medoid":
            at = np.argmin(_distances(cube, good), axis=0)
        else:
            at = np.argmax(np.where(good, rank, -np.inf), axis=0)
        out = np.take_along_axis(cube, at[None, None], axis=0)[0]
    out = np.where(views > 0, out, np.asarray(np.nan, pixels.dtype))
    return (
        np.moveaxis(out, 0, -1),
        views.astype(np.uint16),
        np.where(views > 0, where[at], -1).astype(np.int32),
    )


def _distances(cube: Pixels, good: Pixels) -> Pixels:
    """Return how far each view lies from all others, added; infinite where there is none."""
    seen = np.where(good[:, None], cube, 0)
    total = np.where(good, np.asarray(0, cube.dtype), np.inf)
    for one, other in combinations(range(len(seen)), 2):
        # in one order always
        squares = sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True))
        apart = np.where(good[one] & good[other], np.sqrt(squares), 0)
        total[one] += apart
        total[other] += apart
    return total


def _dates(at: Pixels, times: Pixels) -> Pixels:
    out: Pixels = np.where(at >= 0, times[at], np.datetime64("NaT"))
    return out
