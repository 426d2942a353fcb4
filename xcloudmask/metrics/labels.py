"""Partial labels: a bit mask of the classes a pixel may have, and which questions such a label decides.

A label says what is possible, not what is: an annotator who marked cloud but not how thick leaves thin and
thick open, one who marked no shadow leaves clear and shadow open. A pixel counts for a question only where
every class that its label leaves open gives the same answer.

References
----------
A. Francis, "Sensor independent cloud and shadow masking with partial labels and multimodal inputs", IEEE
TGRS 62, 2024 (partial labels)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError, OptionError

#: Bit of each class; land, water and snow are kinds of clear and may stand beside its bit.
BITS: Mapping[str, int] = {
    "clear": 1, "thick_cloud": 2, "thin_cloud": 4, "cloud_shadow": 8, "land": 16, "water": 32, "snow": 64,
}  # fmt: skip

GROUND = BITS["land"] | BITS["water"] | BITS["snow"]
CLOUD = BITS["thick_cloud"] | BITS["thin_cloud"]
EVERY = CLOUD | BITS["cloud_shadow"] | GROUND

#: Words for classes, and the elementary classes that each leaves open.
WORDS: Mapping[str, int] = {
    **{word: bit for word, bit in BITS.items() if word != "clear"},
    "clear": GROUND,
    "cloud": CLOUD,
    "not_cloud": EVERY & ~CLOUD,
    "no_data": 0,
}


#: What every teacher is asked: whether a pixel is clear, cloud or shadow.
ASKED: Mapping[str, int] = {
    "clear": GROUND | BITS["clear"], "cloud": CLOUD, "cloud_shadow": BITS["cloud_shadow"],
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """A yes-or-no question about a pixel: whether it is one of the elementary classes in `positive`.

    Examples
    --------
    >>> QUESTIONS["cloud"].truth(np.array([2, 6, 9, 7, 0], "u1")).tolist()  # 1 yes, 0 no, -1 not decided
    [1, 1, 0, -1, -1]
    """

    name: str
    positive: int

    def truth(self, possible: NDArray[np.uint8]) -> NDArray[np.int8]:
        """Return 1 where the labels say yes, 0 where they say no, -1 where they leave it open."""
        return answers(elementary(possible), self.positive)


QUESTIONS: Mapping[str, Question] = {
    "cloud": Question("cloud", CLOUD),
    "invalid": Question("invalid", CLOUD | BITS["cloud_shadow"]),
    "clear": Question("clear", GROUND),
    **{word: Question(word, bit) for word, bit in BITS.items() if word != "clear"},
}


def question(name: str) -> Question:
    """Return one of `QUESTIONS` by name."""
    if name not in QUESTIONS:
        raise OptionError("question", name, allowed=QUESTIONS)
    return QUESTIONS[name]


def elementary(possible: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return labels without the bit for clear: clear of an unknown kind may be land, water or snow.

    Examples
    --------
    >>> elementary(np.array([1, 17, 6, 9], "u1")).tolist()
    [112, 16, 6, 120]
    """
    possible = np.asarray(possible)
    if possible.dtype != np.uint8 or (possible.size and int(possible.max()) > 127):
        raise CloudMaskError(
            f"labels must be uint8 bit masks of {dict(BITS)}, at most 127; got {possible.dtype}"
            + (f" up to {int(possible.max())}" if possible.size else "")
            + ". Turn class codes into bit masks with xcloudmask.metrics.possible_from_classes"
        )
    return _ELEMENTARY[possible]


def _spread() -> NDArray[np.uint8]:
    every = np.arange(256, dtype=np.uint8)
    unknown_kind = ((every & BITS["clear"]) > 0) & ((every & GROUND) == 0)
    return (np.where(unknown_kind, every | GROUND, every) & EVERY).astype(np.uint8)


_ELEMENTARY = _spread()


def answers(open_classes: NDArray[np.uint8], positive: int) -> NDArray[np.int8]:
    """Return 1 where only classes of `positive` are open, 0 where none is, -1 where both or nothing."""
    yes = (open_classes & np.uint8(positive)) > 0
    no = (open_classes & np.uint8(EVERY & ~positive)) > 0
    return np.where(yes == no, -1, yes).astype(np.int8)


def certain(labels: NDArray[np.uint8], bits: int) -> NDArray[np.bool_]:
    """Return where there is a label, and it leaves nothing open but these classes.

    Examples
    --------
    >>> certain(np.array([2, 6, 7, 0], "u1"), CLOUD).tolist()
    [True, True, False, False]
    """
    return np.asarray((labels != 0) & ((labels & ~np.uint8(bits)) == 0))


def within(legend: Mapping[str, int], bits: int) -> list[bool]:
    """Return which words of a legend, as `open_classes` gives it, mean nothing but these classes.

    Examples
    --------
    >>> within(open_classes(["clear", "cloud", "thin_cloud"]), CLOUD)
    [False, True, True]
    """
    return [bool(own) and not own & ~bits for own in legend.values()]


def covers_all(words: Mapping[str, int]) -> bool:
    """Whether a legend, as `open_classes` gives it, has a class for every pixel.

    Examples
    --------
    >>> covers_all(open_classes(["clear", "cloud"])), covers_all(open_classes(["cloud"]))
    (True, False)
    """
    covered = 0
    for bits in words.values():
        covered |= bits
    return covered == EVERY or "land" in words


def open_classes(words: Iterable[str]) -> dict[str, int]:
    """Return which elementary classes each word of a legend leaves open, given the other words.

    A legend that does not know shadow calls it clear, and one without thin cloud calls it cloud.

    Examples
    --------
    >>> open_classes(["clear", "cloud"])  # no class for shadow: clear is 1 or 8, that is land...snow, shadow
    {'clear': 120, 'cloud': 6}
    >>> open_classes(["clear", "cloud", "thin_cloud", "cloud_shadow"])["cloud"]
    2
    """
    legend = list(words)
    unknown = [word for word in legend if word not in WORDS]
    if unknown:
        raise OptionError("class", unknown[0], allowed=WORDS)
    out = {word: WORDS[word] for word in legend}
    if "cloud" in out and "thin_cloud" in out:
        out["cloud"] = BITS["thick_cloud"]
    if "clear" in out:
        out["clear"] &= ~sum(BITS[word] for word in ("land", "water", "snow") if word in out)
        if "cloud_shadow" not in out:
            out["clear"] |= BITS["cloud_shadow"]
    return out


def possible_from_classes(codes: NDArray[np.generic], legend: Mapping[int, str]) -> NDArray[np.uint8]:
    """Return a class map as bit masks of what each pixel may be; codes not in `legend` are not labelled.

    Parameters
    ----------
    codes : array of integer
        Class codes.
    legend : mapping
        The word for each code, out of `WORDS`.

    Examples
    --------
    >>> possible_from_classes(np.array([0, 1, 255]), {0: "clear", 1: "cloud", 255: "no_data"}).tolist()
    [121, 6, 0]
    """
    codes = np.asarray(codes)
    bits = open_classes(legend.values())
    out = np.zeros(codes.shape, np.uint8)
    for code, word in legend.items():
        ground = BITS["clear"] if bits[word] & GROUND else 0
        out[codes == code] = bits[word] | ground
    return out
