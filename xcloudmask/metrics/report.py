"""A page with the scores of masks and pictures of the worst scenes; one file that needs no other."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcloudmask.classes import COLOURS, GAP_FACE
from xcloudmask.metrics.calibration import Histogram, reliability
from xcloudmask.metrics.cases import Case, Collected, overall_accuracy, ranked_by
from xcloudmask.metrics.labels import BITS, question
from xcloudmask.metrics.scores import Scores, score
from xcloudmask.metrics.tally import answers_by_code, cross_table
from xcloudmask.metrics.xarray_scores import legend_of, possible_of

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


def write(
    collected: Collected,
    folder: str | Path,
    *,
    title: str,
    samples: int = 1000,
    seed: int = 0,
    notes: Iterable[str] = (),
) -> Scores:
    """Write ``report.html`` and ``scores.json`` into a folder, and return the scores; needs matplotlib.

    The worst scenes are drawn. Samples and seed are those of `xcloudmask.metrics.bootstrap`; notes stand
    below the scores, behind those on the questions.
    """
    scores = collected.scores(samples=samples, seed=seed)
    scores = replace(scores, notes=(*scores.notes, *notes))
    asked = ranked_by(scores.questions)
    pictures: dict[str, bytes] = {}
    for case in collected.worst_cases:  # several may be of one scene
        pictures.setdefault(case.name, draw(case, asked))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page = _page(title, scores, collected, pictures)
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(_numbers(scores, collected), indent=2) + "\n")
    return scores


def _numbers(scores: Scores, collected: Collected) -> dict[str, Any]:
    """Return the scores of all and of each scene, fit for JSON."""
    scenes = {
        name: {
            asked: {metric: values["pooled"] for metric, values in by_metric.items()}
            for asked, by_metric in score({name: tally}, scores.questions, samples=1).to_dict().items()
        }
        for name, tally in collected.tallies.items()
    }
    rows, columns, counts = cross_table(collected.tallies.values())
    confusion = {"labels": rows, "answers": columns, "pixels": counts.tolist()}
    numbers: dict[str, Any] = {
        "all": scores.to_dict(), "scenes": scenes, "notes": list(scores.notes), "confusion": confusion
    }  # fmt: skip
    if collected.histogram is not None:
        curve = reliability(collected.histogram)
        filled = curve.pixels > 0
        numbers["reliability"] = {
            "expected_error": round(curve.expected_error, 4) if filled.any() else None,
            "predicted": curve.predicted[filled].round(4).tolist(),
            "observed": curve.observed[filled].round(4).tolist(),
            "pixels": curve.pixels[filled].tolist(),
        }
    return numbers


def draw(case: Case, asked: str = "cloud") -> bytes:
    """Return a PNG of image (if there is one), reference, mask and errors in a question, side by side."""
    from matplotlib.colors import to_rgb
    from matplotlib.image import imsave

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


def _page(title: str, scores: Scores, collected: Collected, pictures: dict[str, bytes]) -> str:
    """Return the page; pictures are of the worst scenes, those first that are worst."""
    asked, tallies = ranked_by(scores.questions), collected.tallies
    accuracy = {name: overall_accuracy(tally, asked) for name, tally in tallies.items()}
    ranked = sorted((oa, name) for name, oa in accuracy.items() if oa is not None)
    rows = [score({name: tallies[name]}, [asked], samples=1).to_rows()[1] for _, name in ranked]
    scenes = [
        ["scene", *scores.to_rows()[0][1:]],
        *([name, *row[1:]] for (_, name), row in zip(ranked, rows, strict=True)),
    ]
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in scores.notes)
    shown = "".join(
        f"<h3>{html.escape(name)}</h3>"
        f"<img alt='' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
        for name, png in pictures.items()
    )
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style><h1>{html.escape(title)}</h1>
<p>{scores.scenes} scene{"s" if scores.scenes != 1 else ""}. {COUNTED}</p>{_table(scores.to_rows())}{notes}
{"" if collected.histogram is None else _reliability(collected.histogram)}
<h2>Each scene: {asked.replace("_", " ")}, worst first</h2>{_table(scenes)}
<h2>The worst scenes</h2><p>{PICTURES} {_key()}</p>{shown}</html>
"""


def _key() -> str:
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


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
