"""`compare`: two masks beside each other, by a table of their classes, kappa, and a map of differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import DROP, NO_DATA, SCHEMES
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.tally import LABELS
from xcloudmask.metrics.xarray_scores import counted
from xcloudmask.scene.mask_classes import as_mask, codes_of
from xcloudmask.scene.same_grid import check_same_grid

#: What the map of differences says, by its codes.
DIFFERENCES = ("same", "masked_only_here", "masked_only_there", "other_class")
#: Words that mean the same, and what a mask calls a class that it does not know.
SAME = {**SCHEMES["default"][1], "not_cloud": "clear"}
BROADER = {
    word: SAME.get(to, to) for word, to in SCHEMES["binary"][1].items() if word not in ("clear", *SAME)
}

Places = npt.NDArray[np.uint8]


def compare(mask: xr.DataArray, other: xr.DataArray) -> xr.Dataset:
    """Do what `xcloudmask.accessor.CloudMask.compare` documents."""
    if not isinstance(other, xr.DataArray):
        raise CloudMaskError(f"the other mask must be a DataArray, got {type(other).__name__}")
    mask, other = as_mask(mask), as_mask(other)
    check_same_grid(other, mask, "mask")
    check_same_grid(mask, other, "mask")
    other = other.transpose(*mask.dims)
    here, there = (
        {name: code for name, code in codes_of(m).items() if code != NO_DATA} for m in (mask, other)
    )
    ours, theirs = shared(here, there), shared(there, here)
    words = list(dict.fromkeys([*ours, *theirs]))
    places = [_places(m, list(codes.values())) for m, codes in ((mask, here), (other, there))]
    table = counted(places[0], places[1], list(mask.dims))[: len(there), : len(here)].transpose()

    same = xr.DataArray(
        np.array([[word == other_word for other_word in theirs] for word in ours]), dims=table.dims
    )
    total = table.sum().astype(float)
    total = total.where(total > 0)
    agreement = (table * same).sum() / total
    chance = sum(
        table[[word == w for word in ours]].sum() * table[:, [word == w for word in theirs]].sum()
        for w in words
    )
    left = 1 - chance / total**2
    kappa = (agreement - chance / total**2) / left.where(left > 0)
    codes = _differences(ours, theirs)
    difference = xr.apply_ufunc(
        lambda here, there: codes[here, there], *places, dask="parallelized", output_dtypes=[np.uint8]
    )
    difference.attrs = {
        "long_name": "where two masks differ", "flag_values": [*range(len(DIFFERENCES)), NO_DATA],
        "flag_meanings": " ".join([*DIFFERENCES, "no_data"]), "nodata": NO_DATA,
    }  # fmt: skip
    return xr.Dataset(
        {
            "table": table.rename(answer="here", label="there"),
            "agreement": agreement,
            "kappa": kappa,
            "difference": difference.assign_coords(mask.coords),
        },
        coords={"here": list(here), "there": list(there)},
    )


def shared(words: Iterable[str], others: Iterable[str]) -> list[str]:
    """Return a mask's classes as words that another mask has, too.

    Examples
    --------
    >>> shared(["clear", "thick_cloud", "thin_cloud", "snow"], ["not_cloud", "cloud"])
    ['clear', 'cloud', 'cloud', 'clear']
    """
    known = {SAME.get(word, word) for word in others}
    out = []
    for word in words:
        plain = SAME.get(word, word)
        if plain not in known:
            plain = BROADER.get(plain, plain)
        if plain not in ("clear", "cloud", *BROADER):
            raise OptionError("class", word, allowed=("clear", "cloud", *BROADER, *SAME))
        out.append(plain)
    return out


def _places(mask: xr.DataArray, codes: Sequence[int]) -> xr.DataArray:
    """Return the place of each pixel's class among the codes; 127, the last label, for none."""

    def look_up(values: npt.NDArray[Any]) -> Places:
        out = np.full(values.shape, LABELS - 1, np.uint8)
        for place, code in enumerate(codes):
            out[values == code] = place
        return out

    bare = mask.drop_vars(list(mask.coords))
    return xr.apply_ufunc(look_up, bare, dask="parallelized", output_dtypes=[np.uint8])  # type: ignore[no-any-return]


def _differences(ours: Sequence[str], theirs: Sequence[str]) -> Places:
    """Return the code of each pair of `_places`, 255 where there is none."""
    out = np.full((LABELS, LABELS), NO_DATA, np.uint8)
    for i, here in enumerate(ours):
        for j, there in enumerate(theirs):
            masked = here in DROP, there in DROP
            kind = {(True, False): "masked_only_here", (False, True): "masked_only_there"}.get(masked)
            out[i, j] = DIFFERENCES.index("same" if here == there else kind or "other_class")
    return out
