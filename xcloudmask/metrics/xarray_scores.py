"""Scores of masks held in xarray, lazy if the mask or the reference is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import BITS, possible_from_classes
from xcloudmask.metrics.scores import counts_for, questions_of
from xcloudmask.metrics.statistics import METRICS, STATISTICS, summary
from xcloudmask.metrics.tally import ANSWERS, LABELS, check_legend, count
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.mask_classes import numbers_of

#: How a reference is marked as bit masks.
BIT_MASKS = (
    ". If it is bit masks (partial labels: 1 clear, 2 thick_cloud, 4 thin_cloud, 8 cloud_shadow ...), pass "
    "reference.assign_attrs(flag_masks=list(xcloudmask.metrics.BITS.values()))"
)


def score_mask(
    mask: xr.DataArray,
    reference: xr.DataArray,
    *,
    questions: Iterable[str] | None = None,
    scene_dims: Iterable[str] | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> xr.DataArray:
    """Return the scores of `mask` against `reference`, lazy if either is.

    Parameters
    ----------
    mask : DataArray
        Classes as ``predict`` gives them, with ``flag_values`` and ``flag_meanings``.
    reference : DataArray
        Class codes with ``flag_values`` and ``flag_meanings``, or partial labels: bit masks with the bits
        of `xcloudmask.metrics.BITS` and the attribute ``flag_masks``. Its coordinates must be the mask's.
    questions : iterable of str, optional
        Names from `xcloudmask.metrics.QUESTIONS`, and "classes", which scores all classes at once; by default
        each that the mask's classes can answer: a mask without shadow is not asked for "invalid" and "clear",
        for what it calls clear may be shadow. "classes" is asked where there are more than two.
    scene_dims : iterable of str, optional
        Dimensions along which scenes lie; by default all but rows and columns.
    samples, seed : int
        Draws of the bootstrap over scenes, and their seed.

    Returns
    -------
    DataArray of float64, (question, metric, statistic)
        Pooled over pixels, the ends of the 95 % interval (NaN with one scene), the median and the worst
        scene, the mean over scenes. Pixels whose code has no class do not count.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
    >>> mask = xr.DataArray(np.array([[0, 1, 255]], "u1"), dims=("y", "x"), attrs=flags)
    >>> truth = xr.DataArray(np.array([[0, 0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> float(score_mask(mask, truth).sel(question="cloud", metric="oa", statistic="pooled"))
    0.5
    """
    legend = legend_of(mask, "mask")
    asked = questions_of(legend, questions)
    if not asked:
        raise CloudMaskError(f"a mask with the classes {', '.join(legend.values())} answers no question")
    scenes = [d for d in mask.dims if d not in spatial_dims(mask)] if scene_dims is None else [*scene_dims]
    tables = tally_mask(mask, reference, scene_dims=[str(d) for d in scenes])
    tables = tables.stack(scene=scenes) if scenes else tables.expand_dims("scene")

    def scored(counts: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        flat = counts.reshape(-1, LABELS, ANSWERS)
        each = (counts_for(flat, legend, name) for name in asked)
        return np.stack([summary(*counted, samples=samples, seed=seed) for counted in each])

    if tables.chunks is not None:
        tables = tables.chunk({"scene": -1, "label": -1, "answer": -1})
    out: xr.DataArray = xr.apply_ufunc(
        scored,
        tables.drop_vars(["scene", *scenes], errors="ignore"),
        input_core_dims=[["scene", "label", "answer"]],
        output_core_dims=[["question", "metric", "statistic"]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={
            "output_sizes": {"question": len(asked), "metric": len(METRICS), "statistic": len(STATISTICS)}
        },
    )
    return (
        out.drop_attrs()
        .assign_coords(question=asked, metric=list(METRICS), statistic=list(STATISTICS))
        .rename("score")
    )


def tally_mask(mask: xr.DataArray, reference: xr.DataArray, *, scene_dims: list[str]) -> xr.DataArray:
    """Return counts ``(*scene_dims, label, answer)``: of each label against each class code.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> int(tally_mask(mask, mask, scene_dims=[]).sum())
    2
    """
    check_legend(legend_of(mask, "mask"))
    try:
        mask, reference = xr.align(mask, reference, join="exact", copy=False)
    except ValueError as error:
        raise CloudMaskError(
            f"mask and reference lie on different grids ({error}). Bring the reference to the mask's grid: "
            "reference.rio.reproject_match(mask)"
        ) from error
    lost = [dim for dim in scene_dims if dim not in mask.dims]
    if lost:
        raise CloudMaskError(
            f"the mask has no dimension {lost[0]!r}; it has {', '.join(map(str, mask.dims))}"
        )
    if set(mask.dims) != set(reference.dims):
        raise CloudMaskError(
            f"mask and reference differ in dimensions: {mask.dims} and {reference.dims}. Add or drop what "
            "one lacks (expand_dims, isel)"
        )
    over = [dim for dim in mask.dims if dim not in scene_dims]
    return counted(mask, possible_of(reference).transpose(*mask.dims), over)


def counted(mask: xr.DataArray, reference: xr.DataArray, over: list[Any]) -> xr.DataArray:
    """Count each label against each code along the dimensions `over`.

    If either is lazy, each chunk is counted by itself and added up: no scene need fit in memory.
    """
    scenes = [dim for dim in mask.dims if dim not in over]
    order = [*scenes, *over]

    def block(labels: np.ndarray[Any, Any], codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        lead = labels.shape[: len(scenes)]
        out = np.empty((*lead, LABELS, ANSWERS), np.int64)
        for place in np.ndindex(lead):
            out[place] = count(labels[place], codes[place])
        return out.reshape(*lead, *(1 for _ in over), LABELS, ANSWERS)

    if mask.chunks is None and reference.chunks is None:
        tables: Any = block(reference.transpose(*order).values, mask.transpose(*order).values)
    else:
        import dask.array as da

        if mask.chunks is None:
            mask = mask.chunk(dict(zip(reference.dims, reference.chunks or (), strict=True)))
        reference = reference.chunk(dict(zip(mask.dims, mask.chunks or (), strict=True)))
        mask, reference = mask.transpose(*order), reference.transpose(*order)
        chunks = mask.chunks or ()
        ones = tuple((1,) * len(sizes) for sizes in chunks[len(scenes) :])
        tables = da.map_blocks(  # type: ignore[no-untyped-call]
            block, reference.data, mask.data, dtype=np.int64,
            chunks=(*chunks[: len(scenes)], *ones, (LABELS,), (ANSWERS,)),
            new_axis=[len(order), len(order) + 1], meta=np.empty((0,) * (len(order) + 2), np.int64),
        )  # fmt: skip
    total = tables.sum(axis=tuple(range(len(scenes), len(order))))
    return xr.DataArray(total, dims=(*scenes, "label", "answer"))


def legend_of(da: xr.DataArray, what: str) -> dict[int, str]:
    """Return code and word of each class."""
    if "flag_values" not in da.attrs or "flag_meanings" not in da.attrs:
        raise CloudMaskError(
            f"the {what} does not tell its classes: give it the attributes flag_values and flag_meanings "
            "(keep those that predict wrote: xr.set_options(keep_attrs=True)), for instance "
            "flag_values=[0, 1], flag_meanings='clear cloud'" + (BIT_MASKS if what == "reference" else "")
        )
    try:
        values = [int(value) for value in numbers_of(da.attrs["flag_values"])]
    except ValueError:
        raise CloudMaskError(
            f"flag_values of the {what} are no numbers: {da.attrs['flag_values']!r}; give [0, 1], say"
        ) from None
    words = str(da.attrs["flag_meanings"]).split()
    if len(values) != len(words):
        raise CloudMaskError(
            f"the {what} has {len(values)} flag_values and {len(words)} words in flag_meanings: {values}, "
            f"{words}"
        )
    return dict(zip(values, words, strict=True))


def possible_of(reference: xr.DataArray) -> xr.DataArray:
    """Return the reference as bit masks."""
    if "flag_masks" in reference.attrs:
        masks = numbers_of(reference.attrs["flag_masks"])
        words = str(reference.attrs.get("flag_meanings", " ".join(BITS))).split()
        given: Mapping[str, int] = dict(zip(words, map(int, masks), strict=False))
        if any(BITS.get(word) != bit for word, bit in given.items()):
            raise CloudMaskError(
                f"the reference's flag_masks are {given}; those of partial labels are {dict(BITS)}"
            )
        return reference
    legend = legend_of(reference, "reference")
    out: xr.DataArray = xr.apply_ufunc(
        possible_from_classes, reference, kwargs={"legend": legend}, dask="parallelized",
        output_dtypes=[np.uint8],
    )  # fmt: skip
    return out
