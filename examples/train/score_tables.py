"""What follows from the counts that score_models.py stores: tables of the docs, and evidence.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xcloudmask.metrics import METRICS, STATISTICS, metrics
from xcloudmask.metrics.scores import figure
from xcloudmask.metrics.statistics import summary
from xcloudmask.train.augment import INSTRUMENTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "scores-in-full.md"
SHORT = ROOT / "docs" / "scores.md"
#: Counts of benchmarks/imitation.py.
IMITATED = ROOT / "benchmarks" / "results" / "imitation.json"
SCORED = ROOT / "xcloudmask" / "models" / "data" / "scored.json"
EVIDENCE = ROOT / "xcloudmask" / "predict" / "evidence.json"
SHOWN = ("balanced_accuracy", "oa", "f1", "f2", "iou")
#: Also as mean over scenes, as FDR4VGT-CLOUD reports them.
MEANS = ("f2", "iou", "kappa")
#: Sources that every model is scored on, top of atmosphere: what models are compared by.
COMMON = ("l8_biome", "l8_38cloud")
#: Balanced accuracies that lie closer are taken for equal: far less than the scenes can tell apart.
ALIKE = 0.02
#: Models that learnt from single pixels of scenes of L8 Biome, which ones nobody tells.
DEPENDENT = ("spectral",)
#: Made for coarser pixels than these: its card tells its scores on imitations.
COARSE = "sensei"
#: Models some of whose settings were chosen by their scores on these scenes, too.
CHOSEN = ("ukis-any",)
#: The bands that models were trained on; others take what there is.
MADE_FOR = {
    "ukis-4band": {"blue", "green", "red", "nir"},
    "ukis-6band": {"blue", "green", "red", "nir", "swir16", "swir22"},
    "ukis-any": {"blue", "green", "red", "nir", "swir16", "swir22"},
}
TITLES = {
    "all": "All reflective bands that a patch has",
    "vgt": "Blue, red, NIR, 1.6 µm",
    "rgb-nir": "Blue, green, red, NIR",
}
ROWS = {
    "l8_biome": ["l8_biome"], "l8_38cloud": ["l8_38cloud"], "**both, TOA**": list(COMMON),
    "dlr (Sentinel-2)": ["dlr"],
    "s2_oncloudn": ["s2_oncloudn"], "pixels, Landsat 8": ["pixels/landsat8"],
    "pixels, Sentinel-2": ["pixels/sentinel2"],
}  # fmt: skip

Stored = Mapping[str, Any]


def compact(stored: Stored) -> str:
    """Return JSON with each list of counts on one line, so that a difference can be read."""
    text = json.dumps(stored, indent=1, sort_keys=True)
    return re.sub(r"\[\s+((?:-?\d+,?\s*)+?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


def scenes_of(stored: Stored, model: str, bands: str, sources: Iterable[str]) -> dict[str, Any]:
    """Return the counts of each scene of some sources."""
    found = stored[model]["counts"].get(bands, {})
    return {scene: counts for source in sources for scene, counts in found.get(source, {}).items()}


def counts_of(scenes: Mapping[str, Any], asked: str = "cloud") -> np.ndarray:
    return np.array([counts[asked] for counts in scenes.values()], np.int64).reshape(-1, 4)


def cell(values: Any, metric: str) -> str:
    low, high = values[METRICS.index(metric), 1:3]
    value = values[METRICS.index(metric), 0]
    if np.isnan(value):
        return "–"
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.2f}, {high:.2f}]"


def shadow_of(scenes: Mapping[str, Any]) -> tuple[float, float, int]:
    """Return IoU and balanced accuracy of shadow, and how many scenes have any; 0 where none is answered."""
    counts = counts_of(scenes, "cloud_shadow")
    count = int(((counts[:, 0] + counts[:, 2]) > 0).sum())
    if not count or not counts[:, :2].any():
        return 0.0, 0.0, count
    said = metrics(counts.sum(axis=0))
    return float(said[METRICS.index("iou")]), float(said[METRICS.index("balanced_accuracy")]), count


def row(name: str, model: str, scenes: Mapping[str, Any]) -> str:
    """Return one line: pooled scores with intervals, shadow, the median scene and the worst."""
    values = summary(counts_of(scenes))
    iou, ba, count = shadow_of(scenes)
    told = f"{iou:.2f}, {ba:.2f} ({count})" if ba else "–"
    pixels = f"{int(counts_of(scenes).sum()):,}"
    worst = f"{values[0, 3]:.3f}, {values[0, 4]:.3f}"
    means = ", ".join(figure(values[METRICS.index(m), STATISTICS.index("mean")]) for m in MEANS)
    cells = [name, model, f"{len(scenes)}", pixels, *(cell(values, m) for m in SHOWN), means, told, worst]
    return "| " + " | ".join(cells) + " |"


def full_table(stored: Stored, bands: str) -> list[str]:
    head = ["scored on", "model", "scenes", "pixels", "BA", "OA", "F1", "F2", "IoU",
            "mean of scenes: F2, IoU, kappa", "shadow IoU, BA (scenes)",
            "OA: median, worst scene"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, sources in ROWS.items():
        for model in stored:
            there = stored[model]["counts"].get(bands, {})
            if name.startswith("**") and not all(s in there for s in sources):
                continue
            scenes = scenes_of(stored, model, bands, sources)
            if scenes:
                lines.append(row(name, model, scenes))
    return lines


#: Sensors of the short page: heads, the set of bands, and the source.
SENSORS = {
    "Landsat 8, all bands": ("all", "l8_biome"), "Landsat 8, blue, green, red, NIR": ("all", "l8_38cloud"),
    "Landsat 8, blue, red, NIR, 1.6 µm": ("vgt", "l8_biome"), "Sentinel-2": ("all", "s2_oncloudn"),
}  # fmt: skip


def short_table(stored: Stored) -> list[str]:
    """Return a table a sensor: every model's balanced accuracy, F2 and IoU, pooled, and the worst scene."""
    lines = []
    for title, (bands, source) in SENSORS.items():
        rows = {model: scenes_of(stored, model, bands, [source]) for model in stored}
        count = max(map(len, rows.values()))
        lines += ["", f"**{title}**: {count} {'scenes' if count > 1 else 'scene'} of {source}", ""]
        lines += ["| model | BA | F2 | IoU | worst scene: OA |", "|" + " --- |" * 5]
        for model, scenes in rows.items():
            if scenes:
                values = summary(counts_of(scenes))
                cells = [cell(values, metric) for metric in ("balanced_accuracy", "f2", "iou")]
                lines.append(f"| {model} | {' | '.join(cells)} | {values[0, 4]:.2f} |")
    return lines[1:]


def scored(stored: Stored) -> dict[str, list[dict[str, str]]]:
    """Return what cards of bundled models tell: scores, on what, and whether that was seen in training."""
    out: dict[str, list[dict[str, str]]] = {}
    for model in stored:
        for title, (bands, source) in SENSORS.items():
            if model not in ("brightness", COARSE) and (scenes := scenes_of(stored, model, bands, [source])):
                values = summary(counts_of(scenes))
                out.setdefault(model, []).append({
                    "level": "boa" if source == "s2_oncloudn" else "toa",
                    "on": f"{title}, {len(scenes)} of {source}",
                    "score": f"{cell(values, 'balanced_accuracy')}, {values[0, 4]:.2f}",
                    "seen": seen(model, source),
                })  # fmt: skip
    return out


def seen(model: str, source: str) -> str:
    """Say whether a model saw the held-out scenes of a source."""
    if model in DEPENDENT:
        return (
            "single pixels of it, perhaps of these scenes, were trained on" if source == "l8_biome"
            else "not seen; other scenes of it were trained on"
        )  # fmt: skip
    known = "not named by the authors among what they trained on"
    return known + "; settings were chosen with it in view" * (model in CHOSEN and source in COMMON)


def imitated_table(found: Mapping[str, Any]) -> list[str]:
    """Return the scores on imitated Proba-V and VGT; how far the probability is from the share of cloud."""
    scores = ["BA", "F2", "IoU", "worst scene: OA", "cover: RMSE"]
    head = ["imitated", "scored on", "model", "scenes", "pixels", *scores]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for instrument, by_model in found["imitation"].items():
        for source in ("l8_biome", "dlr"):
            for model, one in by_model.items():
                scenes = one["counts"].get(source, {})
                if isinstance(scenes, str):  # why there is no score
                    lines.append(f"| {instrument} | {source} | {model} | | | {scenes} | | | | |")
                    continue
                counts = np.array(list(scenes.values()), np.int64).reshape(-1, 4)
                values = summary(counts)
                cells = [cell(values, metric) for metric in ("balanced_accuracy", "f2", "iou")]
                cells = [
                    instrument, source, model, str(len(counts)), f"{counts.sum():,}", *cells,
                    f"{values[0, 4]:.2f}", f"{one['cover'][source]:.3f}",
                ]  # fmt: skip
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def difference(mine: Mapping[str, Any], other: Mapping[str, Any], *, samples: int = 4000) -> np.ndarray:
    """Return how much higher the balanced accuracy of `mine` is: pooled, and its interval, scenes paired."""
    both = [scene for scene in mine if scene in other]
    a, b = (counts_of({scene: of[scene] for scene in both}) for of in (mine, other))
    drawn = np.random.default_rng(0).multinomial(len(both), np.full(len(both), 1 / len(both)), size=samples)
    at = METRICS.index("balanced_accuracy")
    apart = metrics(drawn @ a)[:, at] - metrics(drawn @ b)[:, at]
    pooled = metrics(a.sum(axis=0))[at] - metrics(b.sum(axis=0))[at]
    return np.array([pooled, *np.nanquantile(apart, (0.025, 0.975))])


def ranked(stored: Stored, bands: str) -> list[tuple[str, np.ndarray, Mapping[str, Any]]]:
    """Return models, the best first by balanced accuracy on `COMMON`, with their scores and scenes.

    Of those within `ALIKE` of the best that is left, one that is independent of them goes first, or the one
    that finds shadow best. A model that
    was made for these bands goes before all that merely do with them, unless those are better beyond chance.
    """
    out = []
    for model in stored:
        scenes = scenes_of(stored, model, bands, COMMON)
        if scenes and model != "brightness":
            out.append((model, summary(counts_of(scenes)), scenes))
    at = METRICS.index("balanced_accuracy")
    rest, out = out, []
    while rest:
        best = max(values[at, 0] for _, values, _ in rest)
        alike = [found for found in rest if found[1][at, 0] >= best - ALIKE]
        out.append(max(alike, key=lambda f: (f[0] not in DEPENDENT, shadow_of(f[2])[0], f[1][at, 0])))
        rest = [found for found in rest if found is not out[-1]]
    made = [found for found in out if MADE_FOR.get(found[0], {"-"}) <= set(INSTRUMENTS[bands])]
    if made and difference(out[0][2], made[0][2])[1] <= 0:
        out.sort(key=lambda found: found not in made[:1])
    return out


def evidence(stored: Stored) -> dict[str, Any]:
    """Return for each set of bands the models that were scored with it, the best first."""
    sets: dict[str, Any] = {}
    for bands, names in INSTRUMENTS.items():
        found = ranked(stored, bands)
        at = METRICS.index("balanced_accuracy")
        sets[bands] = {
            "bands": list(names),
            "scenes": max((len(scenes) for _, _, scenes in found), default=0),
            "order": [model for model, _, _ in found],
            "balanced_accuracy": {m: [round(float(v), 4) for v in values[at, :3]] for m, values, _ in found},
        }
    return {
        "scored_on": f"val: {', '.join(COMMON)}", "level": "toa", "settings_chosen_there": list(CHOSEN),
        "sets": sets,
    }  # fmt: skip


def choice_table(stored: Stored) -> list[str]:
    head = ["bands", "scenes", "first", "BA", "then, less the first, scenes paired"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for bands, names in INSTRUMENTS.items():
        found = ranked(stored, bands)
        if not found:
            continue
        best, values, scenes = found[0]
        rest = [
            "{} {:.3f} [{:.2f}, {:.2f}]".format(model, *difference(others, scenes))
            for model, _, others in found[1:]
        ]
        cells = [", ".join(names), f"{len(scenes)}", best, cell(values, "balanced_accuracy"), "; ".join(rest)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def coarse_table(stored: Stored) -> list[str]:
    lines = ["| pixels | model | scenes | pixels | BA | OA | OA: median, worst scene |", "|" + " --- |" * 7]
    for bands in ("vgt", "vgt at 300 m", "vgt at 1 km"):
        for model in stored:
            scenes = scenes_of(stored, model, bands, ["l8_biome"])
            if scenes:
                values = summary(counts_of(scenes))
                cells = [bands.replace("vgt at ", "") if " " in bands else "30 m", model, f"{len(scenes)}",
                         f"{int(counts_of(scenes).sum()):,}", cell(values, "balanced_accuracy"),
                         cell(values, "oa"),
                         f"{values[0, 3]:.3f}, {values[0, 4]:.3f}"]  # fmt: skip
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def reliability_table(stored: Stored) -> list[str]:
    """Say how far probabilities lie from shares, and what was so where little, half or all was said."""
    head = ["model", "bands", "mean distance", "said 0 to 0.1: seen", "0.4 to 0.6", "0.9 to 1"]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for model, entry in stored.items():
        for bands, told in entry.get("reliability", {}).items():
            if model == "brightness":
                continue
            cells = [model, bands, f"{told['expected_error']:.3f}"]
            for low, high in ((0, 0.1), (0.4, 0.6), (0.9, 1.01)):
                rows = [row for row in told["curve"] if low <= row[0] < high]
                share = sum(row[2] for row in rows)
                seen = sum(row[1] * row[2] for row in rows) / share if share else float("nan")
                cells.append("–" if np.isnan(seen) else f"{seen:.2f} ({share:.0%} of pixels)")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def ukis_table(stored: Stored) -> list[str]:
    """Compare the variants of ukis on every patch with six bands, those of training too."""
    variants = [("ukis-4band", "all"), ("ukis-6band", "all"), ("ukis-any", "all"), ("ukis-any", "vgt")]
    if not {model for model, _ in variants} <= stored.keys():
        return []
    heads = [f"{model}{', blue, red, NIR, 1.6 µm' * (bands == 'vgt')}" for model, bands in variants]
    lines = [f"| patches | scenes | {' | '.join(heads)} | 4 less 6, paired |", "|" + " --- |" * 7]
    held, more = (
        [scenes_of(stored, model, bands + end, ["l8_biome"]) for model, bands in variants]
        for end in ("", ", training scenes")
    )
    both = [{**a, **b} for a, b in zip(held, more, strict=True)]
    for name, found in (("l8_biome, val", held), ("l8_biome, train", more), ("l8_biome, both", both)):
        cells = [cell(summary(counts_of(scenes)), "balanced_accuracy") for scenes in found]
        apart = "{:+.3f} [{:+.2f}, {:+.2f}]".format(*difference(found[0], found[1]))
        lines.append(f"| {name} | {len(found[0])} | {' | '.join(cells)} | {apart} |")
    return lines


def write(stored: Stored) -> None:
    """Write the parts of docs/scores-in-full.md that are made here, and evidence.json."""
    text = DOCS.read_text()
    for bands, title in TITLES.items():
        text = part(text, f"scores {bands}", [f"**{title}**", "", *full_table(stored, bands)])
    text = part(text, "choice", choice_table(stored))
    text = part(text, "reliability", reliability_table(stored))
    text = part(text, "coarse", coarse_table(stored))
    text = part(text, "ukis", ukis_table(stored))
    DOCS.write_text(text)
    short = part(SHORT.read_text(), "fine", short_table(stored))
    SHORT.write_text(part(short, "imitated", imitated_table(json.loads(IMITATED.read_text()))))
    told = json.dumps(scored(stored), ensure_ascii=False).replace(' {"level"', '\n {"level"')  # a row a line
    SCORED.write_text(told + "\n", encoding="utf-8")
    EVIDENCE.write_text(json.dumps(evidence(stored), indent=1) + "\n")


def part(text: str, name: str, lines: Iterable[str]) -> str:
    """Return the text with what lies between the marks of one part replaced."""
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    if start not in text or end not in text:
        raise SystemExit(f"{DOCS} has no part {start.strip()}")
    before, rest = text.split(start, 1)
    return before + start + "\n".join(lines) + end + rest.split(end, 1)[1]
