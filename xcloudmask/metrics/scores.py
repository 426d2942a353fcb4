"""Scores of a set of scenes: counts (`tally`) gathered for each question, put through `statistics`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import BITS, QUESTIONS, WORDS, open_classes, question
from xcloudmask.metrics.statistics import METRICS, STATISTICS, Floats, class_metrics, metrics, summary
from xcloudmask.metrics.tally import (
    Confusion,
    Tally,
    answers_by_code,
    can_answer,
    can_answer_yes,
    class_counts,
    classes_of,
    confusion_counts,
    decided_by,
    leaves_open,
)

#: Asked beside `QUESTIONS`: which of all its classes the mask should say.
CLASSES = "classes"


def counts_for(
    tables: NDArray[np.int64], legend: Mapping[int, str], asked: str
) -> tuple[NDArray[np.int64], Callable[[NDArray[np.integer]], Floats]]:
    """Return what `summary` takes for a question: counts of each scene, and what makes scores of them."""
    if asked == CLASSES:
        matrix = class_counts(tables, legend.items())
        return matrix.reshape(*matrix.shape[:-2], -1), class_metrics
    return confusion_counts(tables, legend.items(), question(asked))[..., :4], metrics


def questions_of(legend: Mapping[int, str], wanted: Iterable[str] | None = None) -> list[str]:
    """Return the questions to score: those wanted, or all that a mask with these classes answers.

    Examples
    --------
    >>> questions_of({0: "clear", 1: "cloud"})
    ['cloud']
    """
    classes = classes_of(legend)
    if wanted is None:
        asked = [name for name, each in QUESTIONS.items() if can_answer(legend, each)]
        return [*asked, CLASSES] if len(classes) > 2 else asked
    asked = list(wanted)
    for name in asked:
        if name != CLASSES:
            question(name)
        elif not classes:
            raise CloudMaskError(
                f"the mask's classes overlap ({', '.join(legend.values())}): {CLASSES} cannot be scored"
            )
    return asked


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of a set of scenes: ``values[question, metric, statistic]``.

    Parameters
    ----------
    questions : tuple of str
        What was asked, from `QUESTIONS`; ``"classes"`` for all classes at once.
    values : array of float
        In the order of `questions`, `METRICS` and `STATISTICS`.
    confusions : tuple of Confusion
        Pooled counts of each question; of ``"classes"``, what is right as tp, what is wrong as fn.
    worst_scenes : tuple of str
        The scene with the lowest overall accuracy, for each question.
    scenes : int
        How many scenes were counted.
    notes : tuple of str
        What to know of the questions: which the masks leave open.
    """

    questions: tuple[str, ...]
    values: Floats
    confusions: tuple[Confusion, ...]
    worst_scenes: tuple[str, ...]
    scenes: int
    notes: tuple[str, ...] = ()

    def get(self, asked: str, metric: str, statistic: str = "pooled") -> float:
        """Return one number.

        Examples
        --------
        >>> one = Tally.of(np.array([1, 6], "u1"), np.array([0, 1], "u1"), {0: "clear", 1: "cloud"})
        >>> score({"a": one}).get("cloud", "f1")
        1.0
        """
        at = (self.questions, METRICS, STATISTICS)
        try:
            index = tuple(names.index(n) for names, n in zip(at, (asked, metric, statistic), strict=True))
        except ValueError:
            raise CloudMaskError(
                f"there is no {asked}/{metric}/{statistic}; asked were {', '.join(self.questions)}, "
                f"metrics {', '.join(METRICS)}, statistics {', '.join(STATISTICS)}"
            ) from None
        return float(self.values[index])

    def to_dict(self) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return question, metric, statistic: number, fit for JSON (None where not defined)."""
        return {
            asked: {
                metric: {
                    name: None if np.isnan(v) else round(float(v), 4)
                    for name, v in zip(STATISTICS, self.values[q, m], strict=True)
                }
                for m, metric in enumerate(METRICS)
            }
            for q, asked in enumerate(self.questions)
        }

    def to_rows(self) -> list[list[str]]:
        """Return the scores as text: a head, and four rows a question.

        Pooled with the interval, the mean over scenes, the median scene, and the lowest of each score over
        scenes, with the name of the scene of lowest OA. "no answer" counts labelled pixels where the mask has
        no data.

        Examples
        --------
        >>> one = Tally.of(np.array([1, 6], "u1"), np.array([0, 1], "u1"), {0: "clear", 1: "cloud"})
        >>> score({"a": one}, ["cloud"]).to_rows()[1][:5]
        ['cloud', '2', '0', '1.000', '1.000']
        """
        rows = [["", "pixels", "no answer", *(name.replace("_", " ") for name in METRICS)]]
        for q, asked in enumerate(self.questions):
            name, counts = asked.replace("_", " "), self.confusions[q]
            pooled = [_with_interval(*self.values[q, m, :3]) for m in range(len(METRICS))]
            rows.append([name, f"{sum(counts.as_tuple()[:4]):,}", f"{counts.refused:,}", *pooled])
            worst = f"worst scene ({self.worst_scenes[q]}, by OA)" if self.worst_scenes[q] else "worst scene"
            for title, at in (("mean of scenes", "mean"), ("median scene", "median"), (worst, "worst")):
                rows.append(
                    [f"{name}, {title}", "", "", *map(figure, self.values[q, :, STATISTICS.index(at)])]
                )
        return rows


def figure(value: float) -> str:
    """Return a score as text.

    Examples
    --------
    >>> figure(0.94567), figure(float("nan"))
    ('0.946', '–')
    """
    return "–" if np.isnan(value) else f"{value:.3f}"


def _with_interval(pooled: float, low: float, high: float) -> str:
    return figure(pooled) + ("" if np.isnan(low) else f" [{figure(low)}, {figure(high)}]")


def score(
    tallies: Mapping[str, Tally],
    questions: Iterable[str] | None = None,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Scores:
    """Return the scores of a set of scenes.

    Parameters
    ----------
    tallies : mapping of str to Tally
        One tally a scene. Add up those of patches of one scene first: the bootstrap draws scenes.
    questions : iterable of str, optional
        Names from `QUESTIONS`, and ``"classes"``, which scores all classes at once; by default each that the
        mask's classes can answer, and ``"classes"`` where there are more than two. One that a class leaves
        open ("invalid" where clear may hide shadow) is scored if asked for, and `Scores.notes` says so.
    samples, level, seed : int, float, int
        See `bootstrap`.

    Examples
    --------
    >>> one = Tally.of(np.array([1, 6], "u1"), np.array([0, 1], "u1"), {0: "clear", 1: "cloud"})
    >>> score({"a": one}, ["cloud"]).confusions
    (Confusion(tp=1, fp=0, fn=0, tn=1, refused=0),)
    """
    if not tallies:
        raise CloudMaskError("there is no scene to score")
    names, items = list(tallies), list(tallies.values())
    legend = dict(items[0].legend)
    if any(dict(t.legend) != legend for t in items):
        raise CloudMaskError("the scenes' masks have different classes; score them apart, or use one scheme")
    asked = questions_of(legend, questions)
    tables = np.stack([t.table for t in items])
    values, confusions, worst = [], [], []
    for name in asked:
        counts, measure = counts_for(tables, legend, name)
        values.append(summary(counts, measure, samples=samples, level=level, seed=seed))
        confusions.append(_pooled(tables.sum(axis=0), legend, name))
        oa = measure(counts)[:, 0]
        worst.append("" if np.isnan(oa).all() else names[int(np.nanargmin(oa))])
    shape = (len(asked), len(METRICS), len(STATISTICS))
    notes = _left_out(legend) if questions is None else _left_open(legend, asked)
    array = np.array(values).reshape(shape)
    return Scores(tuple(asked), array, tuple(confusions), tuple(worst), len(names), tuple(notes))


def _pooled(table: NDArray[np.int64], legend: Mapping[int, str], asked: str) -> Confusion:
    if asked != CLASSES:
        return Tally(table, tuple(legend.items())).confusion(question(asked))
    matrix = class_counts(table, legend.items())
    decided = np.any(decided_by(classes_of(legend)), axis=0)
    right, every = int(np.trace(matrix)), int(matrix.sum())
    return Confusion(right, 0, every - right, 0, int(table[decided].sum()) - every)


def _left_out(legend: Mapping[int, str]) -> list[str]:
    """Say which questions are not asked because a class leaves them open."""
    left = [q for q in QUESTIONS.values() if can_answer_yes(legend, q) and leaves_open(legend, q)]
    if not left:
        return []
    words = dict.fromkeys(word for q in left for word in leaves_open(legend, q))
    named, them = ", ".join(q.name for q in left), "it" if len(left) == 1 else "them"
    return [f"Not scored: {named}. The mask's {_classes(legend, words)} leaves {them} open."]


def _left_open(legend: Mapping[int, str], asked: Iterable[str]) -> list[str]:
    """Say of each question that was asked for all the same how it is answered."""
    out = []
    codes = {word: code for code, word in legend.items()}
    for name in asked:
        if name == CLASSES:
            continue
        answer_of = answers_by_code(legend, question(name))
        for word in leaves_open(legend, question(name)):
            answer = "yes" if answer_of[codes[word]] == 1 else "no"
            out.append(
                f"{name}: the mask's {_classes(legend, [word])} leaves it open and counts as {answer}; what "
                "the mask cannot tell counts as an error."
            )
    return out


def _classes(legend: Mapping[int, str], words: Iterable[str]) -> str:
    """Return classes as text, with what each may hide for want of a class of its own."""
    bits, named = open_classes(legend.values()), []
    for word in words:
        hidden = [name for name, bit in BITS.items() if bits[word] & ~WORDS[word] & bit]
        named.append(f"class {word}" + (f" (it may hide {', '.join(hidden)})" if hidden else ""))
    return ", ".join(named)
