"""How smooth reflectance is over time under each of several masks: which is better, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLEAR
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.apply import holds_class, one_of
from xcloudmask.masks.series import dated, whole_series
from xcloudmask.scene.reflectance import reflectance_of
from xcloudmask.scene.scene import read_scene

#: Residuals are counted in steps of this reflectance, up to 1: counts add up the same for any chunks.
STEP = 0.001
BINS = 1001
#: A view fits if its residual is no more than so many times the median of the views that most call clear.
FITS = 3.0
#: What is counted: clear views between neighbours of the same mask; then, between views that most call clear,
#: those that most call clear, that this one does, and that it does not.
KINDS = 4

Floats = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]


def smoothness(
    scene: xr.DataArray,
    masks: Mapping[str, xr.DataArray],
    *,
    clear: Sequence[str] = CLEAR,
    days: float = 60,
) -> xr.Dataset:
    """Compare masks of one site by how smooth reflectance is over time under each; lazy if an input is.

    Ground changes little within weeks, clouds and shadows do. A view is compared with the straight line
    between the clear views before and after it (Vermote et al., 2009, doi:10.1109/TGRS.2008.2005977). The
    residual is the root mean square over bands.

    Parameters
    ----------
    scene : DataArray
        With a band dimension and dates, five or more.
    masks : mapping of str to DataArray
        Masks of it, by name. They are judged by the same views, so compare them in one call.
    clear : sequence of str
        Classes that count as clear.
    days : float
        How far apart in time two views that are compared may lie.

    Returns
    -------
    Dataset
        By ``mask``. ``noise``, the temporal smoothness index: root mean square residual of its clear views
        between its own. It falls with every view that is masked, so it says nothing of too large masks.
        ``error``: which share of the views it seems to get wrong, judged between views that most masks call
        clear: those clear that do not fit and those masked that do; also apart as ``missed``, a share of the
        clear, and ``lost``, a share of the masked. ``clear_fraction`` of the ``views`` that could be judged,
        and ``fits``, the largest residual that does: three times the median of views that most call clear.

    Examples
    --------
    >>> import xcloudmask
    >>> time = np.datetime64("2026-05-01", "ns") + np.arange(9) * np.timedelta64(5, "D")
    >>> cloud = np.arange(9).reshape(9, 1, 1) % 4 == 2
    >>> scene = xr.DataArray(np.where(cloud, 0.5, 0.1)[:, None], dims=("time", "band", "y", "x"),
    ...                      coords={"time": time}).cloudmask.describe(bands=["red"], level="L2A")
    >>> good = xr.DataArray(cloud.astype("u1"), dims=("time", "y", "x"), coords={"time": time}, attrs={
    ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> blind = good.where(good.time != time[2], 0).assign_attrs(good.attrs)
    >>> found = smoothness(scene, {"good": good, "blind": blind})
    >>> found.error.values.round(2).tolist(), found.noise.values.round(2).tolist()
    ([0.0, 0.14], [0.0, 0.2])
    """
    if not isinstance(masks, Mapping) or not masks:
        raise CloudMaskError("masks must be given by name: {'a': mask_a, 'b': mask_b}")
    sorted_scene, good, known = scene, [], []
    for mask in masks.values():
        own, sorted_scene, dim, _ = dated(mask, scene)
        own = own.drop_vars(own.coords)
        good.append(one_of(own, clear))
        known.append(holds_class(own))
    times = sorted_scene[dim].values
    if len(times) < 3:
        raise CloudMaskError(f"the scene has {len(times)} dates: smoothness needs three, and better many")
    read = read_scene(sorted_scene, measured=False)
    pixels = reflectance_of(read).transpose(dim, read.band, read.y, read.x)
    views, holds = xr.concat(good, "mask"), xr.concat(known, "mask")
    lazy = any(part.chunks is not None for part in (pixels, views, holds))
    when = (times - times[0]) / np.timedelta64(1, "D")
    counts = _in_chunks(partial(_count, when=when, days=float(days)), pixels, views, holds.all("mask"))
    result = _summarised(counts.assign_coords(mask=list(masks)))
    return result if lazy else result.compute(scheduler="synchronous")


def _in_chunks(count: Any, pixels: xr.DataArray, views: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    """Count chunk by chunk, each of whole series, and add up."""
    import dask.array

    dim, band, *_ = pixels.dims
    like = views if pixels.chunks is None and views.chunks is not None else pixels
    like = whole_series(like if like.chunks is not None else like.chunk(), dim, band, "mask")
    cuts = {name: like.chunksizes[name] for name in known.dims}
    pixels, views, known = (
        part.chunk(cuts) for part in (pixels.chunk({band: -1}), views.chunk(mask=-1), known)
    )
    rows, columns = ((1,) * blocks for blocks in known.data.numblocks[1:])
    parts = dask.array.map_blocks(  # type: ignore[no-untyped-call]
        count, pixels.data, views.data, known.data[None], dtype=np.int64,
        chunks=((views.sizes["mask"],), (KINDS * BINS,), rows, columns), meta=np.empty((0,) * 4, np.int64),
    )  # fmt: skip
    total = parts.sum(axis=(2, 3)).reshape(views.sizes["mask"], KINDS, BINS)
    return xr.DataArray(total, dims=("mask", "kind", "bin"))


def _count(pixels: Floats, views: Bools, known: Bools, *, when: Floats, days: float) -> npt.NDArray[np.int64]:
    """Return how many residuals there are of each size, (mask, kind and bin, 1, 1), of whole series."""
    known = known.reshape(views.shape[1:]) & np.isfinite(pixels).all(axis=1)
    views = views & known
    agreed = 2 * views.sum(axis=0) > len(views)
    bins = _bins(pixels, agreed, when, days)
    out = np.zeros((len(views), KINDS, BINS + 1), np.int64)  # the last: none to compare with
    for mask, seen in enumerate(views):
        own = _bins(pixels, seen, when, days)
        for kind, (size, where) in enumerate(
            [(own, seen), (bins, agreed), (bins, seen), (bins, known & ~seen)]
        ):
            out[mask, kind] = np.bincount(size[where], minlength=BINS + 1)
    return out[..., :-1].reshape(len(views), -1, 1, 1)


def _bins(pixels: Floats, seen: Bools, when: Floats, days: float) -> npt.NDArray[np.int64]:
    """Return each view's residual in steps, between the views seen before and after it; `BINS` for none."""
    out = np.full(seen.shape, BINS, np.int64)
    earlier = _before(pixels, seen, when)
    later = list(_before(pixels[::-1], seen[::-1], when[::-1]))[::-1]
    for at, ((first, since), (last, until)) in enumerate(zip(earlier, later, strict=True)):
        span = until - since
        with np.errstate(invalid="ignore"):
            line = first + (last - first) * ((when[at] - since) / span).astype(np.float32)
            near = span <= days
            squares = np.zeros(near.shape, np.float32)
            for band in range(pixels.shape[1]):  # in one order always
                squares += (pixels[at, band] - line[band]) ** 2
            size = np.sqrt(squares / np.float32(pixels.shape[1])) / np.float32(STEP)
        here = near & np.isfinite(size)
        out[at][here] = np.minimum(size[here], BINS - 1).astype(np.int64)
    return out


def _before(pixels: Floats, seen: Bools, when: Floats) -> Any:
    """Yield for each date the last view seen before it, and when that was; NaN where there is none."""
    last = np.full(pixels.shape[1:], np.nan, np.float32)
    since = np.full(seen.shape[1:], np.nan)
    for at, here in enumerate(seen):
        yield last, since
        last, since = np.where(here, pixels[at], last), np.where(here, when[at], since)


def _summarised(counts: xr.DataArray) -> xr.Dataset:
    size = xr.DataArray((np.arange(BINS) + 0.5) * STEP, dims="bin")
    own, agreed, clear, masked = (counts.isel(kind=kind) for kind in range(KINDS))

    def share(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
        return part.sum("bin") / whole.sum("bin").where(lambda n: n > 0)

    # the bin that holds the median, and no less than a reflectance of 0.01
    below = agreed.cumsum("bin") * 2 < agreed.sum("bin")
    limit = (FITS * (below.sum("bin") + 0.5) * STEP).clip(min=0.01)
    fits = size <= limit
    wrong = clear.where(~fits, 0) + masked.where(fits, 0)
    views = clear + masked
    return xr.Dataset(
        {
            "noise": share(own * size**2, own) ** 0.5,
            "error": share(wrong, views),
            "missed": share(clear.where(~fits, 0), clear),
            "lost": share(masked.where(fits, 0), masked),
            "clear_fraction": share(clear, views),
            "views": views.sum("bin"),
            "fits": limit.isel(mask=0),
        }
    )
