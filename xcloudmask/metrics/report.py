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
from xcloudmask.metrics.curve import draw_reliability
from xcloudmask.metrics.edge import legend_of, possible_of, tally_mask
from xcloudmask.metrics.labels import BITS, QUESTIONS, open_classes, question
from xcloudmask.metrics.scores import METRICS, Scores, figure, metrics, score
from xcloudmask.metrics.tally import Tally, said_by_code

WORDS = {
    "oa": "OA", "balanced_accuracy": "balanced accuracy", "precision": "precision", "recall": "recall",
    "f1": "F1", "f2": "F2", "iou": "IoU", "kappa": "kappa",
}  # fmt: skip
#: Of the picture of errors: right, false alarm, missed.
RIGHT, FALSE_ALARM, MISSED = "#FFFFFF", "#D55E00", "#0072B2"
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}
th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap}
th:first-child,td:first-child{text-align:left}small{color:#666}img{max-width:100%}h3{margin-bottom:.2em}"""


@dataclass(frozen=True, eq=False, slots=True)
class Case:
    """One scene: its mask, its reference, and the image if there is one; lazy ones stay so.

    Parameters
    ----------
    name : str
        Of the scene.
    mask, reference : DataArray
        As `xcloudmask.metrics.edge.score_mask` takes them.
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
        said = self.probability
        if "class" in said.dims:
            bits = open_classes(str(word) for word in said["class"].values)
            cloud = [word for word, b in bits.items() if b and not b & ~QUESTIONS["cloud"].positive]
            said = said.sel({"class": cloud}).sum("class", skipna=False)
        truth = QUESTIONS["cloud"].truth(np.asarray(possible_of(self.reference).values))
        if said.shape != truth.shape:
            raise CloudMaskError(
                f"{self.name}: probabilities {said.shape} and reference {truth.shape} differ in shape"
            )
        return Histogram.of(np.asarray(said.values), truth)


def tally_cases(cases: Iterable[Case]) -> dict[str, Tally]:
    """Count each scene; scenes of one name are one.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> score(tally_cases([Case("a", mask, mask)])).get("cloud", "oa")
    1.0
    """
    out: dict[str, Tally] = {}
    for case in cases:
        tally = case.tally()
        out[case.name] = out[case.name] + tally if case.name in out else tally
    return out


def score_cases(
    cases: Sequence[Case], questions: Iterable[str] | None = None, *, samples: int = 1000, seed: int = 0
) -> tuple[Scores, dict[str, Tally]]:
    """Return the scores of scenes and the tally of each; an error says why, if nothing can be scored.

    Examples
    --------
    >>> flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), attrs=flags)
    >>> score_cases([Case("a", mask, mask)])[0].get("cloud", "oa")
    1.0
    """
    tallies = tally_cases(cases)
    found = score(tallies, questions, samples=samples, seed=seed)
    check_scored(found, tallies, [case.mask for case in cases], [case.reference for case in cases])
    return found, tallies


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
    found, tallies = score_cases(cases, questions, samples=samples, seed=seed)
    found = replace(found, notes=(*found.notes, *notes))
    rows = _ranked(tallies, found.questions[0])
    told = [histogram for case in cases if (histogram := case.histogram()) is not None]
    calibration = sum(told[1:], start=told[0]) if told else None
    pictures = [
        (name, png)
        for name, _, _ in rows[:worst]
        for png in [draw(next(case for case in cases if case.name == name), found.questions[0])]
    ]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text(_page(title, found, rows, pictures, calibration), encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(_numbers(found, tallies, calibration), indent=2) + "\n")
    return found


def _numbers(found: Scores, tallies: dict[str, Tally], calibration: Histogram | None) -> dict[str, Any]:
    """Return the scores of all and of each scene, fit for JSON."""
    scenes: dict[str, dict[str, dict[str, float | None]]] = {}
    for name, tally in tallies.items():
        one = score({name: tally}, found.questions, samples=1).to_dict()
        scenes[name] = {
            asked: {metric: values["pooled"] for metric, values in by_metric.items()}
            for asked, by_metric in one.items()
        }
    numbers: dict[str, Any] = {"all": found.to_dict(), "scenes": scenes, "notes": list(found.notes)}
    if calibration is not None:
        curve = reliability(calibration)
        there = curve.pixels > 0
        numbers["reliability"] = {
            "expected_error": round(curve.expected_error, 4) if there.any() else None,
            "said": curve.said[there].round(4).tolist(),
            "seen": curve.seen[there].round(4).tolist(),
            "pixels": curve.pixels[there].tolist(),
        }
    return numbers


def _ranked(tallies: dict[str, Tally], asked: str) -> list[tuple[str, NDArray[np.float64], int]]:
    """Return name, metrics and labelled pixels of each scene, the lowest overall accuracy first."""
    rows = []
    for name, tally in tallies.items():
        counts = np.array(tally.confusion(QUESTIONS[asked]).as_tuple())
        rows.append((name, metrics(counts), int(counts[:4].sum())))
    rows = [row for row in rows if row[2]]
    return sorted(rows, key=lambda row: (float(row[1][0]), row[0]))


def draw(case: Case, asked: str = "cloud") -> bytes:
    """Draw image, reference, mask and errors of a scene; return it as PNG.

    Parameters
    ----------
    case : Case
        The scene.
    asked : str
        The question whose errors are shown.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    from xcloudmask.masks.picture import COLOURS, GAP_FACE, picture_of, stretch_colours, thin
    from xcloudmask.masks.plot import tint

    labels, codes = (
        thin(da).values for da in (possible_of(case.reference), case.mask.drop_vars(list(case.mask.coords)))
    )
    if labels.shape != codes.shape:
        labels = labels[: codes.shape[0], : codes.shape[1]]
    legend = legend_of(case.mask, "mask")
    names = {word: code for code, word in legend.items() if word != "no_data"}
    panels: list[tuple[str, Any]] = []
    if case.image is not None:
        shown, what = picture_of(case.image, ("red", "green", "blue"))
        panels.append((what, stretch_colours(thin(shown).values.astype(np.float32), (2, 98))))
    shown_labels, words = display(labels)
    panels += [
        ("reference", tint(shown_labels, words, 1.0, False)),
        ("mask", tint(codes, names, 1.0, False)),
        (f"errors: {asked.replace('_', ' ')}", _errors(labels, codes, legend, asked)),
    ]
    tall = codes.shape[0] / codes.shape[1]
    figure = Figure(figsize=(3.4 * len(panels), 3.4 * min(max(tall, 0.3), 2) + 0.8), layout="constrained")
    for ax, (name, picture) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        ax.set_facecolor(GAP_FACE)
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(name, loc="left", fontsize=10)
        ax.set(xticks=[], yticks=[])
    present = [word for word in dict.fromkeys((*words, *names))
               if (word in words and (shown_labels == words[word]).any())
               or (word in names and (codes == names[word]).any())]  # fmt: skip
    key = {word.replace("_", " "): COLOURS.get(word, RIGHT) for word in present}
    key |= {"right": RIGHT, "false alarm": FALSE_ALARM, "missed": MISSED, "not labelled, no data": GAP_FACE}
    figure.legend(
        handles=[Patch(facecolor=colour, edgecolor="#999999", linewidth=0.6, label=name)
                 for name, colour in key.items()],
        loc="outside lower center", ncols=min(len(key), 8), frameon=False, fontsize=9,
    )  # fmt: skip
    file = io.BytesIO()
    figure.savefig(file, dpi=90)
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
    answer = said_by_code(legend, question(asked))[np.minimum(codes, 15)]
    out = np.zeros((*labels.shape, 4), np.float32)
    for t, s, colour in ((0, 0, RIGHT), (1, 1, RIGHT), (0, 1, FALSE_ALARM), (1, 0, MISSED)):
        out[(truth == t) & (answer == s)] = (*to_rgb(colour), 1.0)
    return out


def _page(
    title: str,
    found: Scores,
    rows: Sequence[tuple[str, NDArray[np.float64], int]],
    pictures: Sequence[tuple[str, bytes]],
    calibration: Histogram | None = None,
) -> str:
    asked = found.questions[0].replace("_", " ")
    head = ["question", "pixels", *(WORDS[m] for m in METRICS), "no answer"]
    body, scenes = [], []
    for q, name in enumerate(found.questions):
        counts = found.confusions[q]
        cells = [_with_interval(*found.values[q, m, :3]) for m in range(len(METRICS))]
        pixels = f"{sum(counts.as_tuple()[:4]):,}"
        body.append([name.replace("_", " "), pixels, *cells, f"{counts.refused:,}"])
        for statistic in ("median", "worst"):
            values = [found.get(name, metric, statistic) for metric in METRICS]
            scenes.append([f"{name.replace('_', ' ')}, {statistic}", *map(figure, values)])
    each = [[html.escape(n), f"{pixels:,}", *map(figure, values)] for n, values, pixels in rows]
    shown = "".join(
        f"<h3>{html.escape(name)}</h3><img alt='image, reference, mask and errors of {html.escape(name)}' "
        f"src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        for name, png in pictures
    )
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in found.notes)
    curve = "" if calibration is None else _reliability(calibration)
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>{html.escape(title)}</h1>
<p>{found.scenes} scene{"s" if found.scenes != 1 else ""}. A pixel counts where its label decides the question
and the mask has an answer; “no answer” counts labelled pixels where the mask has no data.</p>
<h2>Pooled over pixels</h2>{_table(head, body)}
{notes}<p><small>{_on_intervals(found)}</small></p>
<h2>Over scenes</h2>{_table(["", *(WORDS[m] for m in METRICS)], scenes)}
<p><small>The worst is the lowest of each score on its own. Where a scene has no cloud, say, F1 of cloud is
0 as soon as one pixel is wrong.</small></p>{curve}
<h2>Each scene: {asked}, worst first</h2>{_table(["scene", "pixels", *(WORDS[m] for m in METRICS)], each)}
<h2>The worst scenes</h2>{shown}</html>
"""


def _on_intervals(found: Scores) -> str:
    if np.isnan(found.values[:, :, 1]).all():
        return "There are no intervals: they take labels in two scenes or more."
    return "Below each score its 95 % interval, from a bootstrap over scenes: with few scenes it says little."


def _with_interval(pooled: float, low: float, high: float) -> str:
    below = "" if np.isnan(low) else f"<br><small>{figure(low)} – {figure(high)}</small>"
    return figure(pooled) + below


def _reliability(calibration: Histogram) -> str:
    error = reliability(calibration).expected_error
    if np.isnan(error):
        return "<h2>Reliability</h2><p>No pixel has both a probability and a label that decides cloud.</p>"
    png = base64.b64encode(draw_reliability(calibration)).decode()
    return (
        f"<h2>Reliability</h2><p>Said and seen lie {error:.3f} apart, in the mean over pixels (expected "
        "calibration error).</p><img alt='share that was cloud against the probability of cloud that was "
        f"said' src='data:image/png;base64,{png}'>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{cell}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{lines}</table>"
