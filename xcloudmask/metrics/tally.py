"""Confusion counts: everything that scores need, in a small table that adds up.

A tally counts how often each label met each answer. Tallies of chunks add up to that of a scene, those of
scenes to that of a data set; every question and every score is read from them afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import (
    EVERY,
    WORDS,
    Question,
    answers,
    certain,
    elementary,
    open_classes,
    within,
)

LABELS = 128  # values of a bit mask
NARROWEST_FIRST = (
    "land", "water", "snow", "clear", "thick_cloud", "thin_cloud", "cloud", "cloud_shadow", "not_cloud",
)  # fmt: skip
ANSWERS = 16  # class codes 0 to 14; the last column is no data (255)


def count(possible: NDArray[np.uint8], codes: NDArray[np.generic]) -> NDArray[np.int64]:
    """Return the table ``[label, code]`` of how often each pair occurs.

    Examples
    --------
    >>> count(np.array([1, 1, 6], "u1"), np.array([0, 1, 1], "u1"))[6, 1]
    np.int64(1)
    """
    possible, codes = np.asarray(possible), np.asarray(codes)
    if possible.shape != codes.shape:
        raise CloudMaskError(f"mask and reference differ in shape: {codes.shape} and {possible.shape}")
    if codes.dtype != np.uint8:
        raise CloudMaskError(f"class codes must be uint8, got {codes.dtype}; threshold probabilities first")
    elementary(possible[:0])  # its dtype
    if possible.size and int(possible.max()) >= LABELS:
        elementary(possible)
    pairs = possible.ravel().astype(np.intp) * ANSWERS + np.minimum(codes.ravel(), ANSWERS - 1)
    table = np.bincount(pairs, minlength=LABELS * ANSWERS).reshape(LABELS, ANSWERS)
    return table.astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False, slots=True)
class Tally:
    """Counts of one scene, or of many: ``table[label, code]``, and what the codes mean.

    Parameters
    ----------
    table : array of int64, (128, 16)
        From `count`.
    legend : tuple of (int, str)
        Codes of the mask and their words, ``no_data`` included if it has one.

    Examples
    --------
    >>> from xcloudmask.metrics import QUESTIONS
    >>> one = Tally.of(np.array([1, 6], "u1"), np.array([0, 1], "u1"), {0: "clear", 1: "cloud"})
    >>> (one + one).confusion(QUESTIONS["cloud"]).tp
    2
    """

    table: NDArray[np.int64]
    legend: tuple[tuple[int, str], ...]

    def __post_init__(self) -> None:
        if self.table.shape != (LABELS, ANSWERS):
            raise CloudMaskError(f"a tally is a table of {LABELS} x {ANSWERS}, got {self.table.shape}")
        check_legend(code for code, _ in self.legend)

    @classmethod
    def of(cls, possible: NDArray[np.uint8], codes: NDArray[np.generic], legend: Mapping[int, str]) -> Tally:
        """Count one scene."""
        return cls(count(possible, codes), tuple(sorted(legend.items())))

    def __add__(self, other: Tally) -> Tally:
        if self.legend != other.legend:
            raise CloudMaskError(f"tallies of different classes do not add: {self.legend}, {other.legend}")
        return Tally(self.table + other.table, self.legend)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tally):
            return NotImplemented
        return self.legend == other.legend and np.array_equal(self.table, other.table)

    __hash__ = None  # type: ignore[assignment]

    def confusion(self, question: Question) -> Confusion:
        """Return the four counts of a yes-or-no question, where label and class both decide it."""
        return Confusion(*(int(v) for v in confusion_counts(self.table, self.legend, question)))


@dataclass(frozen=True, slots=True)
class Confusion:
    """True and false positives and negatives of a question; `refused`: labelled, but the mask has no data.

    Examples
    --------
    >>> Confusion(1, 0, 0, 1).as_tuple()
    (1, 0, 0, 1, 0)
    """

    tp: int
    fp: int
    fn: int
    tn: int
    refused: int = 0

    def as_tuple(self) -> tuple[int, int, int, int, int]:
        """Return tp, fp, fn, tn, refused."""
        return self.tp, self.fp, self.fn, self.tn, self.refused


def confusion_counts(
    table: NDArray[np.int64], legend: Iterable[tuple[int, str]], question: Question
) -> NDArray[np.int64]:
    """Return tp, fp, fn, tn, refused along a last axis, for tables ``[..., label, code]``."""
    truth = answers(elementary(np.arange(LABELS, dtype=np.uint8)), question.positive)
    answer_of = answers_by_code(dict(legend), question)
    out = np.zeros((*table.shape[:-2], 5), np.int64)
    for at, (t, s) in enumerate(((1, 1), (0, 1), (1, 0), (0, 0))):
        out[..., at] = table[..., truth == t, :][..., answer_of == s].sum(axis=(-1, -2))
    out[..., 4] = table[..., truth >= 0, :][..., answer_of == 2].sum(axis=(-1, -2))
    return out


def class_counts(table: NDArray[np.int64], legend: Iterable[tuple[int, str]]) -> NDArray[np.int64]:
    """Return ``[..., label's class, answer's class]`` for tables ``[..., label, code]``; see `classes_of`.

    Examples
    --------
    >>> legend = ((0, "clear"), (1, "cloud"), (3, "cloud_shadow"))
    >>> table = count(np.array([1, 6, 9, 8], "u1"), np.array([0, 1, 0, 0], "u1"))
    >>> class_counts(table, legend).tolist()  # 9, clear or shadow, decides nothing
    [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    """
    classes = classes_of(dict(legend))
    codes = [code for code, _ in classes.values()]
    rows = [table[..., decided, :].sum(axis=-2)[..., codes] for decided in decided_by(classes)]
    return np.stack(rows, axis=-2)


def decided_by(classes: Mapping[str, tuple[int, int]]) -> list[NDArray[np.bool_]]:
    """Return for each class of `classes_of` which labels say it: those that leave nothing else open."""
    open_bits = elementary(np.arange(LABELS, dtype=np.uint8))
    return [certain(open_bits, bits) for _, bits in classes.values()]


def classes_of(legend: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    """Return code and elementary classes of each word of a mask; none where two of them overlap.

    Examples
    --------
    >>> classes_of({0: "clear", 1: "cloud", 255: "no_data"})
    {'clear': (0, 120), 'cloud': (1, 6)}
    """
    words = open_classes(legend.values())
    out = {word: (code, words[word]) for code, word in legend.items() if words[word]}
    bits = [each for _, each in out.values()]
    return {} if any(a & b for i, a in enumerate(bits) for b in bits[:i]) else out


def cross_table(tallies: Iterable[Tally]) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Return labels, answers, and how often each label met each answer: all classes that are told apart.

    A label that leaves several classes open stands in the row of the narrowest word for them: clear for a
    kind of ground that is not known, cloud for a thickness that is not, not_cloud for clear or shadow. Labels
    that may be cloud as well as not are left out; so are rows without a pixel. The last answer is no data.

    Examples
    --------
    >>> one = Tally.of(np.array([17, 6, 9, 7], "u1"), np.array([0, 1, 0, 0], "u1"), {0: "clear", 1: "cloud"})
    >>> cross_table([one])[0], cross_table([one])[2].tolist()
    (['land', 'cloud', 'not_cloud'], [[1, 0, 0], [0, 1, 0], [1, 0, 0]])
    """
    items = list(tallies)
    table, legend = np.sum([item.table for item in items], axis=0), dict(items[0].legend)
    codes = [code for code, word in legend.items() if word != "no_data"]
    left = elementary(np.arange(LABELS, dtype=np.uint8))
    taken, rows, counts = left == 0, [], []
    for word in NARROWEST_FIRST:
        mine = ~taken & ((left & ~np.uint8(WORDS[word])) == 0)
        taken |= mine
        row = table[mine].sum(axis=0)[[*codes, ANSWERS - 1]]
        if row.sum():
            rows.append(word)
            counts.append(row)
    shape = (len(rows), len(codes) + 1)
    return rows, [*(legend[code] for code in codes), "no_data"], np.array(counts, np.int64).reshape(shape)


def check_legend(codes: Iterable[int]) -> None:
    """Refuse class codes that the table has no column for."""
    wrong = [code for code in codes if not 0 <= code < ANSWERS - 1 and code != 255]
    if wrong:
        raise CloudMaskError(f"class codes must be 0 to {ANSWERS - 2}, or 255 for no data; got {wrong}")


def answers_by_code(legend: Mapping[int, str], question: Question) -> NDArray[np.int8]:
    """Return for each column of a tally 1 yes, 0 no, 2 no data (or no class at all).

    A class that leaves the question open is read as no unless all it can be is yes: a mask without shadow
    that says clear is taken at its word.
    """
    answer_of = np.full(ANSWERS, 2, np.int8)
    words = open_classes(legend.values())
    yes = dict(zip(words, within(words, question.positive), strict=True))
    for code, word in legend.items():
        # "clear" of a mask without shadow may hide one, yet it is an answer: clear.
        is_clear = word == question.name == "clear"
        if words[word] or is_clear:
            answer_of[code] = yes[word] or is_clear
    return answer_of


def leaves_open(legend: Mapping[int, str], question: Question) -> list[str]:
    """Return the classes of a mask that may be yes as well as no.

    Examples
    --------
    >>> from xcloudmask.metrics import QUESTIONS
    >>> leaves_open({0: "clear", 1: "cloud"}, QUESTIONS["invalid"])  # clear may be shadow
    ['clear']
    """
    words = open_classes(legend.values())
    return [w for w, bits in words.items() if bits & question.positive and bits & EVERY & ~question.positive]


def can_answer(legend: Mapping[int, str], question: Question) -> bool:
    """Return whether a mask with these classes can answer yes, and each class answers: scoring it is fair.

    Examples
    --------
    >>> from xcloudmask.metrics import QUESTIONS
    >>> can_answer({0: "clear", 1: "cloud"}, QUESTIONS["cloud_shadow"])
    False
    >>> can_answer({0: "clear", 1: "cloud"}, QUESTIONS["invalid"])  # shadow is invalid, and here it is clear
    False
    """
    return can_answer_yes(legend, question) and not leaves_open(legend, question)


def can_answer_yes(legend: Mapping[int, str], question: Question) -> bool:
    """Return whether a mask with these classes can answer yes.

    Examples
    --------
    >>> from xcloudmask.metrics import QUESTIONS
    >>> can_answer_yes({0: "clear", 1: "cloud"}, QUESTIONS["snow"])
    False
    """
    return bool((answers_by_code(legend, question) == 1).any())
