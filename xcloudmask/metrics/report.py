"""A page with the scores of masks and pictures of the worst scenes; one file that needs no other."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.calibration import Histogram, reliability
from xcloudmask.metrics.codes import check_scored
from xcloudmask.metrics.labels import BITS, QUESTIONS, open_classes, question
from xcloudmask.metrics.scores import CLASSES, Scores, questions_of, score
from xcloudmask.metrics.statistics import metrics
from xcloudmask.metrics.tally import Tally, answers_by_code, cross_table
from xcloudmask.metrics.xarray_scores import legend_of, possible_of, tally_mask

#: Of the picture of errors.
RIGHT, FALSE_ALARM, MISSED = "#FFFFFF", "#D55E00", "#0072B2"
#: Rows of pixels that a picture has at least.
ZOOM = 240
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em}
table{border-collapse:collapse;display:block;overflow-x:auto}img{max-width:100%;image-rendering:pixelated}
td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
td:first-child{text-align:left}tr:first-child{font-weight:bold}i{padding:0 .7em;border:1px solid #999}"""
COUNTED = """A pixel counts where its label decides the question and the mask has an answer; "no answer"
counts labelled pixels where the mask has no data. In brackets the 95 % interval, from a bootstrap over
scenes: with few scenes it says little, with one there is none. The mean of scenes counts each scene alike,
where the score is defined. "classes" scores all classes at once: means over them, but for OA and kappa. The
worst is the lowest of each score on its
own: where a scene has no cloud, say, F1 of cloud is 0 as soon as one pixel is wrong."""
PICTURES = "From left to right: image (if there is one), reference, mask, errors."


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One scene: its mask, its reference, and the image if there is one; lazy ones stay so.

    Parameters
    ----------
    name : str
        Of the scene.
    mask, reference : DataArray
        As `xcloudmask.metrics.xarray_scores.score_mask` takes them.
    image : DataArray, optional
        With bands, on the same grid, for the pictures.
    probability : DataArray, optional
        Of cloud, on the same grid, for the reliability curve; or of classes along ``class``.
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
        from xcloudmask.scene.dims import spatial_dims

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
            bits = open_classes(str(word) for word in cloud["class"].values)
            words = [word for word, b in bits.items() if b and not b & ~QUESTIONS["cloud"].positive]
            cloud = cloud.sel({"class": words}).sum("class", skipna=False)
        truth = QUESTIONS["cloud"].truth(np.asarray(possible_of(self.reference).values))
        if cloud.shape != truth.shape:
            raise CloudMaskError(
                f"{self.name}: probabilities {cloud.shape} and reference {truth.shape} differ in shape"
            )
        return Histogram.of(np.asarray(cloud.values), truth)


class Collected:
    """Counts of scenes that come one by one, and the worst few of them for pictures; the others are let go.

    Parameters
    ----------
    questions : iterable of str, optional
        Of `xcloudmask.metrics.QUESTIONS`, and ``"classes"``; by default each that the masks can answer.
    worst : int
        How many cases are kept, those of lowest overall accuracy in the first question.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> found = Collected()
    >>> found.add(Case("a", mask, mask))
    >>> found.scores().get("cloud", "oa"), [case.name for case in found.worst_cases]
    (1.0, ['a'])
    """

    def __init__(self, questions: Iterable[str] | None = None, *, worst: int = 4) -> None:
        self.questions = None if questions is None else list(questions)
        self.worst = worst
        self.tallies: dict[str, Tally] = {}
        self.histogram: Histogram | None = None
        self._worst: list[tuple[float, str, int, Case]] = []

    def add(self, case: Case) -> None:
        """Count one; cases of one name are one scene."""
        tally = case.tally()
        name = case.name
        self.tallies[name] = self.tallies[name] + tally if name in self.tallies else tally
        histogram = case.histogram()
        if histogram is not None:
            self.histogram = histogram if self.histogram is None else self.histogram + histogram
        counts = np.array(tally.confusion(question(self._asked(tally))).as_tuple())
        if counts[:4].sum():
            place = (float(metrics(counts)[0]), name, len(self.tallies), case)
            self._worst = sorted([*self._worst, place], key=lambda each: each[:3])[: self.worst]

    def _asked(self, tally: Tally) -> str:
        """Return the question by which cases are ranked and drawn, answered by yes or no."""
        asked = questions_of(dict(tally.legend), self.questions)
        return next((name for name in asked if name != CLASSES), "cloud")

    @property
    def worst_cases(self) -> list[Case]:
        """Those kept, the worst first."""
        return [case for *_, case in self._worst]

    def scores(self, *, samples: int = 1000, seed: int = 0) -> Scores:
        """Return the scores of all."""
        return score(self.tallies, self.questions, samples=samples, seed=seed)

    def write(
        self, folder: str | Path, *, title: str, samples: int = 1000, seed: int = 0, notes: Iterable[str] = ()
    ) -> Scores:
        """Write ``report.html`` and ``scores.json``, and return the scores; pictures need matplotlib."""
        scores = self.scores(samples=samples, seed=seed)
        scores = replace(scores, notes=(*scores.notes, *notes))
        asked = _first(scores)
        pictures: dict[str, bytes] = {}
        for case in self.worst_cases:  # several may be of one scene
            pictures.setdefault(case.name, draw(case, asked))
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        page = _page(title, scores, self.tallies, pictures, self.histogram)
        (folder / "report.html").write_text(page, encoding="utf-8")
        numbers = _numbers(scores, self.tallies, self.histogram)
        (folder / "scores.json").write_text(json.dumps(numbers, indent=2) + "\n")
        return scores


def score_cases(
    cases: Sequence[Case], questions: Iterable[str] | None = None, *, samples: int = 1000, seed: int = 0
) -> tuple[Scores, dict[str, Tally]]:
    """Return the scores of scenes and the tally of each; an error says why, if nothing can be scored.

    Cases of one name are one scene.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> score_cases([Case("a", mask, mask)])[0].get("cloud", "oa")
    1.0
    """
    found = _collected(cases, questions, 0)
    return found.scores(samples=samples, seed=seed), found.tallies


def _collected(cases: Sequence[Case], questions: Iterable[str] | None, worst: int) -> Collected:
    found = Collected(questions, worst=worst)
    for case in cases:
        found.add(case)
    scores = score(found.tallies, found.questions, samples=1)
    check_scored(scores, found.tallies, [case.mask for case in cases], [case.reference for case in cases])
    return found


def write_report(
    cases: Sequence[Case],
    folder: str | Path,
    *,
    title: str = "Scores",
    questions: Iterable[str] | None = None,
    worst: int = 4,
    samples: int = 1000,
    seed: int = 0,
    notes: Iterable[str] = (),
) -> Scores:
    """Score scenes and write ``report.html`` and ``scores.json``; pictures need matplotlib.

    Parameters
    ----------
    cases : sequence of Case
        One a scene.
    folder : path
        Where to; it is made.
    title : str
        Of the page.
    questions : iterable of str, optional
        Of `xcloudmask.metrics.QUESTIONS`; by default each that the masks can answer. Scenes are ranked by
        the first.
    worst : int
        How many scenes are drawn, those of lowest overall accuracy.
    samples, seed : int
        See `xcloudmask.metrics.bootstrap`.
    notes : iterable of str
        Sentences to put below the scores, besides those on the questions.

    Returns
    -------
    Scores
    """
    found = _collected(cases, questions, worst)
    return found.write(folder, title=title, samples=samples, seed=seed, notes=notes)


def _numbers(scores: Scores, tallies: dict[str, Tally], calibration: Histogram | None) -> dict[str, Any]:
    """Return the scores of all and of each scene, fit for JSON."""
    scenes = {
        name: {
            asked: {metric: values["pooled"] for metric, values in by_metric.items()}
            for asked, by_metric in score({name: tally}, scores.questions, samples=1).to_dict().items()
        }
        for name, tally in tallies.items()
    }
    rows, columns, counts = cross_table(tallies.values())
    confusion = {"labels": rows, "answers": columns, "pixels": counts.tolist()}
    numbers: dict[str, Any] = {
        "all": scores.to_dict(), "scenes": scenes, "notes": list(scores.notes), "confusion": confusion
    }  # fmt: skip
    if calibration is not None:
        curve = reliability(calibration)
        filled = curve.pixels > 0
        numbers["reliability"] = {
            "expected_error": round(curve.expected_error, 4) if filled.any() else None,
            "predicted": curve.predicted[filled].round(4).tolist(),
            "observed": curve.observed[filled].round(4).tolist(),
            "pixels": curve.pixels[filled].tolist(),
        }
    return numbers


def draw(case: Case, asked: str = "cloud") -> bytes:
    """Draw image (if there is one), reference, mask and errors of a scene side by side; return it as PNG.

    Parameters
    ----------
    case : Case
        The scene.
    asked : str
        The question whose errors are shown.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.image import imsave

    from xcloudmask.classes import GAP_FACE
    from xcloudmask.masks.picture import picture_of, stretch_colours, thin
    from xcloudmask.masks.plot import tint

    labels, codes = (
        thin(da).values for da in (possible_of(case.reference), case.mask.drop_vars(list(case.mask.coords)))
    )
    labels = labels[: codes.shape[0], : codes.shape[1]]
    legend = legend_of(case.mask, "mask")
    panels: list[Any] = []
    if case.image is not None:
        shown = thin(picture_of(case.image, ("red", "green", "blue"))[0])
        panels.append(stretch_colours(shown.values.astype(np.float32), (2, 98)))
    panels += [
        tint(*display(labels), 1.0, False),
        tint(codes, {word: code for code, word in legend.items() if word != "no_data"}, 1.0, False),
        _errors(labels, codes, legend, asked),
    ]
    gap = np.ones((len(codes), 4, 3))  # a white line between them
    gaps = np.array(to_rgb(GAP_FACE))
    opaque = [panel[..., :3] * panel[..., 3:] + gaps * (1 - panel[..., 3:]) for panel in panels]
    picture = np.concatenate([part for panel in opaque for part in (gap, panel)][1:], axis=1)
    zoom = max(1, ZOOM // len(codes))
    file = io.BytesIO()
    imsave(file, np.clip(picture, 0, 1).repeat(zoom, axis=0).repeat(zoom, axis=1), format="png")
    return file.getvalue()


def display(labels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """Return partial labels as codes that can be drawn, and the names of the codes.

    What is clear or shadow is drawn as clear, what may be anything as not labelled (255).

    Examples
    --------
    >>> display(np.array([1, 9, 6, 4, 8, 7, 0], "u1"))[0].tolist()
    [0, 0, 1, 2, 3, 255, 255]
    """
    out = np.full(labels.shape, 255, np.uint8)
    out[question("cloud").truth(labels) == 0] = 0
    out[question("cloud").truth(labels) == 1] = 1
    out[labels == BITS["thin_cloud"]] = 2
    out[question("cloud_shadow").truth(labels) == 1] = 3
    return out, {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3}


def _errors(
    labels: NDArray[np.uint8], codes: NDArray[np.integer], legend: dict[int, str], asked: str
) -> NDArray[np.float32]:
    from matplotlib.colors import to_rgb

    truth = question(asked).truth(labels)
    answer = answers_by_code(legend, question(asked))[np.minimum(codes, 15)]
    out = np.zeros((*labels.shape, 4), np.float32)
    for t, s, colour in ((0, 0, RIGHT), (1, 1, RIGHT), (0, 1, FALSE_ALARM), (1, 0, MISSED)):
        out[(truth == t) & (answer == s)] = (*to_rgb(colour), 1.0)
    return out


def _page(
    title: str,
    scores: Scores,
    tallies: dict[str, Tally],
    pictures: dict[str, bytes],
    calibration: Histogram | None,
) -> str:
    """Return the page; pictures are of the worst scenes, those first that are worst."""
    asked = _first(scores)
    each = ((name, score({name: tallies[name]}, [asked], samples=1)) for name in _worst_first(tallies, asked))
    scenes = [["scene", *scores.to_rows()[0][1:]], *([name, *one.to_rows()[1][1:]] for name, one in each)]
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in scores.notes)
    shown = "".join(
        f"<h3>{html.escape(name)}</h3>"
        f"<img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        for name, png in pictures.items()
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>{html.escape(title)}</h1>
<p>{scores.scenes} scene{"s" if scores.scenes != 1 else ""}. {COUNTED}</p>{_table(scores.to_rows())}{notes}
{"" if calibration is None else _reliability(calibration)}
<h2>Each scene: {asked.replace("_", " ")}, worst first</h2>{_table(scenes)}
<h2>The worst scenes</h2><p>{PICTURES} {_key()}</p>{shown}</html>
"""


def _key() -> str:
    from xcloudmask.classes import COLOURS, GAP_FACE

    colours = {
        name: COLOURS[name] for name in ("clear", "cloud", "thin_cloud", "cloud_shadow", "snow", "water")
    }
    colours |= {"right": RIGHT, "false alarm": FALSE_ALARM, "missed": MISSED, "no label or data": GAP_FACE}
    return " ".join(f"<i style='background:{c}'></i> {name.replace('_', ' ')}" for name, c in colours.items())


def _reliability(calibration: Histogram) -> str:
    """Return how often it was cloud at each probability, as text and as a curve over the diagonal."""
    curve = reliability(calibration)
    filled = curve.pixels > 0
    if not filled.any():
        return "<h2>Reliability</h2><p>No pixel has both a probability and a label that decides cloud.</p>"
    pairs = zip(curve.predicted[filled], curve.observed[filled], strict=True)
    points = " ".join(f"{100 * x:.1f},{100 - 100 * y:.1f}" for x, y in pairs)
    return f"""<h2>Reliability</h2><p>Across, the probability of cloud; up, the share of pixels that was
cloud; from 0 to 1. On the grey line they agree. Their mean distance over pixels, the expected calibration
error, is {curve.expected_error:.3f}.</p><svg viewBox="-2 -2 104 104" width="320" fill="none">
<path d="M0 0V100H100M0 100L100 0" stroke="#999"/>
<polyline points="{points}" stroke="{MISSED}" stroke-width="2"/></svg>"""


def _first(scores: Scores) -> str:
    """Return the question by which scenes are ranked and drawn, answered by yes or no."""
    return next((name for name in scores.questions if name != CLASSES), "cloud")


def _worst_first(tallies: dict[str, Tally], asked: str) -> list[str]:
    """Return the scenes with labels that decide a question, those of the lowest overall accuracy first."""
    counts = {name: np.array(tally.confusion(question(asked)).as_tuple()) for name, tally in tallies.items()}
    oa = {name: float(metrics(each)[0]) for name, each in counts.items() if each[:4].sum()}
    return sorted(oa, key=lambda name: (oa[name], name))


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
