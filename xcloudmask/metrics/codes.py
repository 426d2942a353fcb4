"""Codes that no class is declared for, and why nothing could be scored: what a score must not keep silent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import elementary, question
from xcloudmask.metrics.scores import CLASSES, Scores
from xcloudmask.metrics.tally import ANSWERS, LABELS, Tally
from xcloudmask.scene.mask_classes import numbers_of

_SHOWN = 6  # codes that a message lists


@dataclass(frozen=True, slots=True)
class Undeclared:
    """Codes without a class in class maps, and how many pixels hold each.

    `seen` are all codes there are, no data left out, `pixels` those of all the maps.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> da = xr.DataArray(np.array([[0, 1, 4, 4, 255]], "u1"), dims=("y", "x"), attrs=flags)
    >>> found = Undeclared.of([da])
    >>> str(found), found.count, found.like_bit_masks
    ('4 (2 pixels)', 2, True)
    """

    codes: Mapping[float, int]
    seen: frozenset[float]
    pixels: int

    @classmethod
    def of(cls, maps: Iterable[xr.DataArray]) -> Undeclared:
        """Count them. 255, NaN and what a map's file calls no data are no codes; bit masks have none."""
        codes: Counter[float] = Counter()
        seen: set[float] = set()
        pixels = 0
        for da in maps:
            pixels += da.size
            if "flag_masks" in da.attrs:
                continue
            none = {255, _number(da.attrs.get("_FillValue")), _number(da.encoding.get("_FillValue"))}
            declared = set(numbers_of(da.attrs.get("flag_values", [])))
            there = {code: count for code, count in _counts(da).items() if code not in none}
            seen |= there.keys()
            codes.update({code: count for code, count in there.items() if code not in declared})
        return cls(dict(sorted(codes.items())), frozenset(seen), pixels)

    def __str__(self) -> str:
        listed = [f"{code:g} ({count:,} pixel{'s' * (count != 1)})" for code, count in self.codes.items()]
        rest = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        return ", ".join(listed[:_SHOWN]) + rest

    @property
    def count(self) -> int:
        """Pixels that hold such a code."""
        return sum(self.codes.values())

    @property
    def like_bit_masks(self) -> bool:
        """Whether the codes look like partial labels: sums of 1, 2, 4 ... rather than a run of numbers."""
        if not self.codes:
            return False
        values = sorted(code for code in self.seen if code)
        if not {2, 4, 8} & set(values) or not all(0 < v < LABELS and v == int(v) for v in values):
            return False
        powers = all(int(v) & (int(v) - 1) == 0 for v in values)
        return powers or values[-1] - values[0] >= len(values)


def _number(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _counts(da: xr.DataArray) -> Counter[float]:
    """Return how often each value occurs, chunk by chunk."""
    if da.chunks is None:
        return counted(np.asarray(da.values))
    import dask

    blocks = da.data.to_delayed().ravel()
    delayed: Any = dask.delayed(counted)  # type: ignore[attr-defined]
    parts: Any = dask.compute(*map(delayed, blocks))  # type: ignore[attr-defined,no-untyped-call]
    return sum(parts, start=Counter())


def counted(values: NDArray[Any]) -> Counter[float]:
    """Return how often each value occurs in an array."""
    if values.dtype == np.uint8:  # much quicker than to sort them
        counts = np.bincount(values.ravel(), minlength=256)
        codes: NDArray[Any] = np.flatnonzero(counts)
        return Counter(dict(zip(codes.tolist(), counts[codes].tolist(), strict=True)))
    codes, counts = np.unique(values, return_counts=True)
    pairs = zip(codes.tolist(), counts.tolist(), strict=True)
    return Counter({code: count for code, count in pairs if code == code})  # NaN is no code


def check_scored(
    scores: Scores,
    tallies: Mapping[str, Tally],
    masks: Iterable[xr.DataArray] = (),
    references: Iterable[xr.DataArray] = (),
) -> None:
    """Raise an error that says why, if not one pixel could be scored.

    Masks and references are those of the tallies, to name codes that are not declared.

    Examples
    --------
    >>> from xcloudmask.metrics import score
    >>> tallies = {"a": Tally.of(np.array([7], "u1"), np.array([0], "u1"), {0: "clear", 1: "cloud"})}
    >>> check_scored(score(tallies), tallies)
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: nothing can be scored: no label decides cloud (each leaves it open)
    """
    legend = dict(next(iter(tallies.values())).legend)
    if not scores.questions:
        raise CloudMaskError(
            f"nothing can be scored: masks with the classes {', '.join(legend.values())} answer no question"
        )
    if any(sum(counts.as_tuple()[:4]) for counts in scores.confusions):
        return
    table = np.sum([tally.table for tally in tallies.values()], axis=0)
    answers = [code for code, word in legend.items() if word != "no_data" and code < ANSWERS]
    labels = np.arange(LABELS, dtype=np.uint8)
    asked = [question(name) for name in scores.questions if name != CLASSES]
    decided = np.any([each.truth(labels) >= 0 for each in asked], axis=0)
    reasons = []
    if not table[:, answers].sum():
        reasons.append(_blank("mask", masks) or "the mask is no data everywhere")
    if not table[elementary(labels) > 0].sum():
        reasons.append(_blank("reference", references) or "the reference has no label, all is no data")
    elif not table[decided].sum():
        reasons.append(f"no label decides {', '.join(scores.questions)} (each leaves it open)")
    why = "; ".join(reasons) or "where a label decides, the mask is no data"
    raise CloudMaskError(f"nothing can be scored: {why}")


def _blank(what: str, maps: Iterable[xr.DataArray]) -> str:
    """Say which codes stand where no class does; nothing if there are none."""
    codes = list(Undeclared.of(maps).codes)
    rest = " ..." if len(codes) > _SHOWN else ""
    listed = ", ".join(f"{code:g}" for code in codes[:_SHOWN]) + rest
    return f"the {what} has no class that is declared, but the codes {listed}" if codes else ""
