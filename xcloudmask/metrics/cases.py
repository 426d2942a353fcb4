"""Scenes to score, one by one: mask, reference and image of each, their counts, and the worst of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.calibration import Histogram
from xcloudmask.metrics.codes import check_scored
from xcloudmask.metrics.labels import CLOUD, QUESTIONS, open_classes, question, within
from xcloudmask.metrics.scores import CLASSES, Scores, questions_of, score
from xcloudmask.metrics.statistics import metrics
from xcloudmask.metrics.tally import Tally
from xcloudmask.metrics.xarray_scores import legend_of, possible_of, tally_mask
from xcloudmask.scene.dims import spatial_dims


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One scene: its mask, its reference, and the image if there is one; lazy ones stay so.

    Mask and reference are as `xcloudmask.metrics.xarray_scores.score_mask` takes them; on the same grid lie
    an image with bands, for the pictures, and the probability of cloud, or of classes along ``class``, for
    the curve of reliability.
    """

    name: str
    mask: xr.DataArray
    reference: xr.DataArray
    image: xr.DataArray | None = None
    probability: xr.DataArray | None = None

    def scenes(self) -> list[Case]:
        """Return one case a scene, where arrays hold several along a dimension such as time.

        Examples
        --------
        >>> two = xr.DataArray(np.zeros((2, 3, 3), "u1"), dims=("time", "y", "x"))
        >>> [one.name for one in Case("a", two, two).scenes()]
        ['a, time 0', 'a, time 1']
        """
        over = [dim for dim in self.mask.dims if dim not in spatial_dims(self.mask)]
        if not over:
            return [self]
        dim = over[0]
        arrays = {
            "mask": self.mask, "reference": self.reference, "image": self.image,
            "probability": self.probability,
        }  # fmt: skip
        out: list[Case] = []
        for at in range(self.mask.sizes[dim]):
            label = str(self.mask[dim].values[at])[:19] if dim in self.mask.coords else str(at)
            parts: dict[str, Any] = {
                key: da.isel({dim: at}) if da is not None and dim in da.dims else da
                for key, da in arrays.items()
            }
            out += replace(self, name=f"{self.name}, {dim} {label}", **parts).scenes()
        return out

    def tally(self) -> Tally:
        """Count it."""
        table = tally_mask(self.mask, self.reference, scene_dims=[])
        return Tally(np.asarray(table.values), tuple(sorted(legend_of(self.mask, "mask").items())))

    def histogram(self) -> Histogram | None:
        """Count probabilities of cloud against the reference; None if there are none."""
        if self.probability is None:
            return None
        cloud = self.probability
        if "class" in cloud.dims:
            cloudy = within(open_classes(str(word) for word in cloud["class"].values), CLOUD)
            cloud = cloud.isel({"class": np.flatnonzero(cloudy)}).sum("class", skipna=False)
        truth = QUESTIONS["cloud"].truth(np.asarray(possible_of(self.reference).values))
        if cloud.shape != truth.shape:
            raise CloudMaskError(
                f"{self.name}: probabilities {cloud.shape} and reference {truth.shape} differ in shape"
            )
        return Histogram.of(np.asarray(cloud.values), truth)


class Collected:
    """Counts of scenes that come one by one, and the worst few of them for pictures; the others are let go.

    `worst` is how many are kept, those of lowest overall accuracy in the first question.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> collected = Collected.of([Case("a", mask, mask)], worst=1)
    >>> collected.scores().get("cloud", "oa"), [case.name for case in collected.worst_cases]
    (1.0, ['a'])
    """

    def __init__(self, questions: Iterable[str] | None = None, *, worst: int = 4) -> None:
        self.questions = None if questions is None else list(questions)
        self.worst = worst
        self.tallies: dict[str, Tally] = {}
        self.histogram: Histogram | None = None
        self._worst: list[tuple[float, str, int, Case]] = []

    @classmethod
    def of(
        cls, cases: Sequence[Case], questions: Iterable[str] | None = None, *, worst: int = 0
    ) -> Collected:
        """Count cases; an error says why, if nothing can be scored."""
        collected = cls(questions, worst=worst)
        for case in cases:
            collected.add(case)
        scores = collected.scores(samples=1)
        masks, references = [case.mask for case in cases], [case.reference for case in cases]
        check_scored(scores, collected.tallies, masks, references)
        return collected

    def add(self, case: Case) -> None:
        """Count one; cases of one name are one scene."""
        tally = case.tally()
        name = case.name
        self.tallies[name] = self.tallies[name] + tally if name in self.tallies else tally
        histogram = case.histogram()
        if histogram is not None:
            self.histogram = histogram if self.histogram is None else self.histogram + histogram
        accuracy = overall_accuracy(tally, ranked_by(questions_of(dict(tally.legend), self.questions)))
        if accuracy is not None:
            place = (accuracy, name, len(self.tallies), case)
            self._worst = sorted([*self._worst, place], key=lambda each: each[:3])[: self.worst]

    @property
    def worst_cases(self) -> list[Case]:
        """Those kept, the worst first."""
        return [case for *_, case in self._worst]

    def scores(self, *, samples: int = 1000, seed: int = 0) -> Scores:
        """Return the scores of all."""
        return score(self.tallies, self.questions, samples=samples, seed=seed)


def ranked_by(questions: Iterable[str]) -> str:
    """Return the question by which scenes are ranked and drawn, answered by yes or no."""
    return next((name for name in questions if name != CLASSES), "cloud")


def overall_accuracy(tally: Tally, asked: str) -> float | None:
    """Return that of a scene in a question; None where no label decides it."""
    counts = np.array(tally.confusion(question(asked)).as_tuple())
    return float(metrics(counts)[0]) if counts[:4].sum() else None
