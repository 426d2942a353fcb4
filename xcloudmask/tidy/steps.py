"""The steps of cleaning as a user writes them: in Python a mapping or pairs, on the command line text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from xcloudmask.classes import DROP
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.tidy.lengths import Size

#: Steps that look as far as a length, and by how many of it; steps that take an area.
LOCAL: Mapping[str, int] = {"close": 2, "open": 2, "buffer": 1}
AREAL = ("sieve", "fill")
HYSTERESIS = "hysteresis"
NAMES = (HYSTERESIS, *LOCAL, *AREAL)
#: Steps in order: text, a mapping of names to sizes, or pairs of both.
Steps = str | Mapping[str, Any] | Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Two probabilities of cloud: one that a cloud has somewhere, and one that it has everywhere.

    Examples
    --------
    >>> print(Thresholds.of((0.3, 0.7)))
    0.3 0.7
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} {self.high:g}"

    @classmethod
    def of(cls, value: Any) -> Thresholds:
        """Read two numbers, or text with them."""
        parts = value.split() if isinstance(value, str) else value
        try:
            low, high = map(float, parts)
        except (TypeError, ValueError):
            low, high = np.nan, np.nan
        if not 0 < low <= high < 1:
            raise OptionError(
                HYSTERESIS, value, hint="Give two probabilities of cloud, the lower first: (0.3, 0.7)."
            )
        return cls(low, high)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what is done, how far or how large, and to which class, if one is named.

    Examples
    --------
    >>> print(*read_steps({"close": 2, "buffer": {"cloud": "150 m"}}), sep="; ")
    close=2 px; buffer(cloud)=150 m
    """

    name: str  # one of `NAMES`
    size: Any  # of sieve and fill an area, of hysteresis two probabilities, else a length
    word: str = ""  # the class; empty for all that hide the ground

    def __str__(self) -> str:
        return f"{self.name}{f'({self.word})' if self.word else ''}={self.size}"

    def classes(self, codes: Mapping[str, int]) -> tuple[str, ...]:
        """Return the classes that it takes as one; where a pixel may become any of them, the first counts."""
        hiding = tuple(name for name in DROP if name in codes)
        if self.word and self.word not in hiding:
            hint = "Steps change clouds and their shadows."
            raise OptionError(f"class of {self.name}", self.word, allowed=hiding, hint=hint)
        return (self.word,) if self.word else hiding


def read_steps(given: Steps | Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps in the order in which they are given; an error for what is none.

    The size of each step may be a mapping of classes to sizes, which are steps in turn. Text is
    ``"close=2; buffer(cloud)=150 m"``, as `Step` prints.

    Examples
    --------
    >>> steps = [("close", 2), ("buffer", {"cloud": "150 m"}), ("close", 1)]
    >>> read_steps(steps) == read_steps("close=2; buffer(cloud)=150 m, close=1 px")
    True
    """
    if isinstance(given, tuple) and all(isinstance(step, Step) for step in given):
        return cast("tuple[Step, ...]", given)
    return tuple(_steps(_pairs(cast("Steps", given))))


def _pairs(given: Steps) -> Iterator[tuple[str, Any]]:
    if not isinstance(given, (str, Mapping, Sequence)):
        raise OptionError("post", given, hint="Give steps and sizes: {'close': '60 m', 'sieve': '1 ha'}.")
    if isinstance(given, str):
        for part in filter(None, map(str.strip, re.split("[;,]", given))):
            match = re.fullmatch(r"(\w+)\s*(?:\(\s*(\w+)\s*\))?\s*=\s*(.+)", part)
            if match is None:
                hint = "Write steps as 'close=60 m; buffer(cloud)=150 m; sieve=1 ha'."
                raise OptionError("step", part, allowed=NAMES, hint=hint)
            name, word, size = match.groups()
            value = float(size) if re.fullmatch(r"\d+(\.\d+)?", size) else size
            yield name, {word: value} if word else value
        return
    for pair in given.items() if isinstance(given, Mapping) else given:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise OptionError(
                "step", pair, allowed=NAMES, hint="Give pairs: [('close', 1), ('sieve', '1 ha')]."
            )
        yield pair[0], pair[1]


def _steps(pairs: Iterator[tuple[str, Any]]) -> Iterator[Step]:
    for place, (name, sizes) in enumerate(pairs):
        if name not in NAMES:
            raise OptionError("step", name, allowed=NAMES)
        if name == HYSTERESIS:
            if place:
                raise CloudMaskError("hysteresis makes the mask that other steps change", "Write it first")
            yield Step(name, Thresholds.of(sizes))
            continue
        for word, size in sizes.items() if isinstance(sizes, Mapping) else [("", sizes)]:
            yield Step(name, (Size.length if name in LOCAL else Size.area)(name, size), str(word))
