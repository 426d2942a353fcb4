"""Which networks, thresholds and working pixel the default should have.

    nice python benchmarks/default.py --data FOLDER [--cache FOLDER] [--pictures FOLDER]
    python benchmarks/default.py --table     # measures nothing: prints the result file, writes docs/scores.md

FOLDER as for `choices.py`; the labelled patches of `train` and `val` are taken together, as ukis was fitted
to none of them: not dlr, which it may have seen, and s2_cloudsen12 beside the rest, as ukis 1.0 learnt from
CloudSEN12+. Each network is asked once about each patch, and its answer kept under `--cache`; all else is
arithmetic. `--pictures` writes a page with the worst ten patches.

The rule: **the simplest candidate is the default, unless another is better beyond chance.** The simplest is
one network, for the four bands that every patch has, with its likeliest class. Networks, and so settings,
differ by level: at the top of the atmosphere there are two sources, and what is chosen on one is scored on
the other; at the surface one, on which only what has no setting is scored. A kind is better beyond chance if
the mean over sources of what it gains has a 95 % interval above 0 (scenes drawn anew within each source, the
same for both), if it changes six scenes or more (that five agree happens by chance once in sixteen times),
and if it loses on no source beyond chance.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from _measure import HERE, circumstances, in_words, on_patches, table
from choices import Patch, patches, scene

from xcloudmask import models
from xcloudmask.metrics import BITS, METRICS, QUESTIONS, Tally, metrics
from xcloudmask.metrics.cases import Case, Collected
from xcloudmask.metrics.report import write as write_report
from xcloudmask.train.evaluate import classify, legend_of
from xcloudmask.types import ModelSpec

sys.path.insert(0, str(HERE.parent / "examples" / "train"))
from score_tables import SHORT, part

CLASSES = ("clear", "cloud", "cloud_shadow")
SOURCES = ("l8_biome", "l8_38cloud", "s2_oncloudn", "s2_cloudsen12")
LEVELS = {True: SOURCES[:2], False: SOURCES[2:]}
#: Perhaps trained on: shown, and counted for nothing.
SEEN = ("s2_cloudsen12",)
#: Scenes that a kind must change.
FEWEST = 6
#: One landscape, labelled for shadow alone.
SHADED = "s2_shadow_alberta"
#: Draws of scenes.
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a default may be: networks for four and six bands, a threshold, turns, a working pixel."""

    share: float = 1.0  # of the network for four bands; -1: the network for all bands that are there, alone
    cloud: float | None = None  # the probability that suffices; None: the likeliest class
    shadow: float | None = None
    views: int = 1
    pixel: int = 30  # metres, where pixels are finer


SIMPLEST = Candidate()
CUTS = (0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
SHARES = (0.5, 0.65, 0.8)
KINDS: Mapping[str, Mapping[str, Sequence[Candidate]]] = {
    "top of the atmosphere: BA of cloud, %": {
        "one network, four bands, likeliest class": [SIMPLEST],
        "the network for all bands that are there": [Candidate(-1)],
        "a threshold": [Candidate(cloud=cut) for cut in CUTS],
        "8 turns of each window": [Candidate(views=8)],
        "two networks, likeliest class": [Candidate(share) for share in SHARES],
        "two networks, a threshold": [Candidate(share, cut) for share, cut in product(SHARES, CUTS)],
    },
    "surface: BA of cloud, %": {
        "one network, four bands, likeliest class": [SIMPLEST],
        "8 turns of each window": [Candidate(views=8)],
        "two networks, half each": [Candidate(0.5)],
        "at 20 m": [Candidate(pixel=20)],
        "at 10 m": [Candidate(pixel=10)],
    },
    "IoU of shadow, %": {
        "likeliest class": [SIMPLEST],
        "a threshold": [Candidate(shadow=cut) for cut in (None, 0.5, 0.6, 0.7)],
    },
}
TOA, BOA, SHADOW = KINDS

Counts = dict[str, dict[str, list[int]]]  # source, scene: tp, fp, fn, tn


def asking(patch: Patch, network: str) -> tuple[ModelSpec, int]:
    """Return the network for four or six bands, which estimates those that a patch lacks, and its bands."""
    spec = models.get(f"ukis-{network}band-{patch.model[-3:]}")
    if network == "6" and len(patch.pixels) == 4:
        both = models.get(f"ukis-any-{patch.model[-3:]}")
        spec = replace(
            both, name=f"{spec.name}-estimated", members=(spec, both.members[1]),
            member_weights=(1.0, 0.0), threshold=None, shadow_threshold=None,
        )  # fmt: skip
    return spec, min(len(patch.pixels), int(network))


def told(patch: Patch, network: str, pixel: int, views: int, cache: Path) -> npt.NDArray[np.float32]:
    """Return what a network says of a patch, (class, y, x)."""
    path = cache / f"{patch.source}-{patch.name}-{network}-{pixel}-{views}.npy"
    if not path.exists():
        spec, count = asking(patch, network)
        there = scene(patch.pixels[:count], f"ukis-{count}band-{patch.model[-3:]}", patch.gsd)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of saturated pixels, and of zeros that are no data
            said = there.cloudmask.predict_proba(spec, working_resolution=float(pixel), tta=views)
        np.save(path, said.values.astype(np.float16))
    return np.load(path).astype(np.float32)


def answer(patch: Patch, one: Candidate, cache: Path) -> npt.NDArray[np.uint8]:
    """Return the classes of a candidate."""

    def said(network: str) -> npt.NDArray[np.float32]:
        return told(patch, network, one.pixel if patch.gsd < 30 else 30, one.views, cache)

    if one.share == -1:
        found = said("6" if len(patch.pixels) == 6 else "4")
    else:
        found = said("4") if one.share == 1 else one.share * said("4") + (1 - one.share) * said("6")
    return classify(found, CLASSES, one.cloud, one.shadow)


def counted(found: Sequence[Patch], one: Candidate, question: str, cache: Path) -> Counts:
    """Return the counts of every scene that labels decide."""
    out: Counts = {}
    for patch in found:
        tally = Tally.of(patch.possible, answer(patch, one, cache), legend_of(CLASSES))
        counts = np.array(tally.confusion(QUESTIONS[question]).as_tuple()[:4])
        if question == "cloud_shadow" and not counts[[0, 2]].any():
            continue
        scenes = out.setdefault(patch.source, {})
        scenes[patch.scene] = (counts + scenes.get(patch.scene, 0)).tolist()
    return out


def balanced(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return balanced accuracy along the last axis; where a source has no cloud, the share that is kept."""
    tp, fp, fn, tn = (counts[..., k].astype(float) for k in range(4))
    with np.errstate(invalid="ignore"):
        return np.nanmean([tp / (tp + fn), tn / (tn + fp)], axis=0)


def iou(counts: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return metrics(counts)[..., METRICS.index("iou")]


Measure = Callable[[npt.NDArray[Any]], npt.NDArray[np.float64]]


def chosen(
    kind: Sequence[Candidate], counts: Mapping[Candidate, Counts], without: str, by: Measure
) -> Candidate:
    """Return the candidate of a kind with the best mean over all sources but one; of equals the first."""

    def value(one: Candidate) -> float:
        others = [
            list(scenes.values()) for source, scenes in counts[one].items() if source not in (without, *SEEN)
        ]
        return float(np.mean([by(np.sum(each, axis=0)) for each in others]))

    return kind[0] if len(kind) == 1 else max(kind, key=value)


def compared(kind: Sequence[Candidate], counts: Mapping[Candidate, Counts], by: Measure) -> dict[str, Any]:
    """Return what was chosen without each source, how it did there, and what it gains on the simplest."""
    rng, base = np.random.default_rng(0), counts[SIMPLEST]
    found: dict[str, Any] = {"sources": {}}
    gains, drawn_gains, changed = [], [], 0
    for source in sorted(base):
        one = chosen(kind, counts, source, by)
        mine, plain = (np.array(list(each[source].values())) for each in (counts[one], base))
        drawn = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=DRAWS)
        apart = by(drawn @ mine) - by(drawn @ plain)
        gain = float(by(mine.sum(axis=0)) - by(plain.sum(axis=0)))
        if source not in SEEN:
            gains.append(gain)
            drawn_gains.append(apart)
            changed += int((mine != plain).any(axis=1).sum())
        found["sources"][source] = {
            "settings": settings(one), "scenes": len(mine), "value": float(by(mine.sum(axis=0))),
            "gain": gain, "worst": float(((mine[:, 0] + mine[:, 3]) / mine.sum(axis=1)).min()),
            "interval": None if len(mine) == 1 else np.nanquantile(apart, (0.025, 0.975)).tolist(),
        }  # fmt: skip
    ends = np.nanquantile(np.mean(drawn_gains, axis=0), (0.025, 0.975)).tolist()
    loses = any(
        one["interval"] and one["interval"][1] < 0
        for name, one in found["sources"].items()
        if name not in SEEN
    )
    better = ends[0] > 0 and changed >= FEWEST and not loses
    return found | {"gain": float(np.mean(gains)), "interval": ends, "changed": changed, "better": better}


def measured(data: Path, cache: Path) -> dict[str, Any]:
    """Return counts of every candidate of each part of the table."""
    found = [patch for split in ("train", "val") for patch in patches(data / split, (*SOURCES, SHADED))]
    out: dict[str, Any] = {}
    for section, kinds in KINDS.items():
        mine = [p for p in found if section == SHADOW or p.source in LEVELS[section == TOA]]
        question = "cloud_shadow" if section == SHADOW else "cloud"
        out[section] = [
            {"settings": settings(one), "counts": counted(mine, one, question, cache)}
            for one in dict.fromkeys(one for kind in kinds.values() for one in kind)
        ]
    return {"counts": out}


def verdicts(found: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return of each part of the table what is chosen and gained, by kind."""
    out = {}
    for section, kinds in KINDS.items():
        counts = {Candidate(**one["settings"]): one["counts"] for one in found["counts"][section]}
        by = iou if section == SHADOW else balanced
        out[section] = {name: compared(kind, counts, by) for name, kind in kinds.items()}
    return out


def settings(one: Candidate) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__slots__}


def in_few(one: Mapping[str, Any]) -> str:
    """Return settings in words, those alone that are not the simplest's."""
    words = {
        "share": f"{one['share']:g} of four bands" if one["share"] != -1 else "all bands",
        "cloud": f"cloud {one['cloud']}", "shadow": f"shadow {one['shadow']}",
        "views": f"{one['views']} turns", "pixel": f"{one['pixel']} m",
    }  # fmt: skip
    return ", ".join(words[name] for name, value in settings(SIMPLEST).items() if one[name] != value)


def interval(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f" [{100 * ends[0]:+.1f}, {100 * ends[1]:+.1f}]"


def show(found: dict[str, Any]) -> str:
    out = []
    for section, kinds in verdicts(found).items():
        for name, kind in kinds.items():
            lines = [
                [source, str(one["scenes"]), f"{100 * one['value']:.1f}", f"{one['worst']:.3f}",
                 f"{100 * one['gain']:+.1f}{interval(one['interval'])}", in_few(one["settings"])]
                for source, one in kind["sources"].items()
            ]  # fmt: skip
            lines.append(["mean", "", "", "", f"{100 * kind['gain']:+.1f}{interval(kind['interval'])}",
                          f"{kind['changed']} changed" + ", better" * kind["better"]])  # fmt: skip
            head = ["left out", "n", "%", "worst", "gain", "chosen on the others"]
            out.append(f"{section}: {name}\n{table(head, lines)}")
    return "\n\n".join(out)


def markdown(found: dict[str, Any]) -> list[str]:
    """Return a table a part: of each kind its score on each source, what it gains, and its worst scene."""
    lines = []
    for section, kinds in verdicts(found).items():
        plain = next(iter(kinds.values()))["sources"]
        names = [f"{s} ({o['scenes']}{', perhaps seen' * (s in SEEN)})" for s, o in plain.items()]
        head = [section, *names, "worst scene: OA", "mean gain", "beyond chance"]
        lines += ["", f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
        for at, (name, kind) in enumerate(kinds.items()):
            cells, chose = (
                [],
                {in_few(one["settings"]) for s, one in kind["sources"].items() if s not in SEEN},
            )
            for one in kind["sources"].values():
                gain = f" {100 * one['gain']:+.1f}{interval(one['interval'])}" if at else ""
                cells.append(f"{100 * one['value']:.1f}{gain}")
            words = f" ({'; '.join(sorted(chose))})" if at and chose != {""} else ""
            worst = ", ".join(f"{one['worst']:.2f}" for s, one in kind["sources"].items() if s not in SEEN)
            gain = f"{100 * kind['gain']:+.1f}{interval(kind['interval'])}" if at else ""
            told = ("yes" if kind["better"] else "no") if at else ""
            lines.append(f"| {name}{words} | {' | '.join([*cells, worst, gain, told])} |")
    return lines[1:]


#: What was aimed at, on other patches of these sources: source, part, metric, at least, what `auto` takes.
GOALS = (
    ("l8_biome", TOA, "balanced_accuracy", 0.94, Candidate(0.8, 0.65)),
    ("l8_biome", TOA, "worst", 0.60, Candidate(0.8, 0.65)),
    ("l8_38cloud", TOA, "f1", 0.99, SIMPLEST),
    ("s2_oncloudn", BOA, "balanced_accuracy", 0.85, SIMPLEST),
    ("s2_cloudsen12", BOA, "balanced_accuracy", 0.92, SIMPLEST),
)


def goals(found: dict[str, Any]) -> list[str]:
    """Return the goals beside what the default reaches on the patches that are here."""
    lines = ["| scored on | goal | here, the default | the simplest |", "| --- | --- | ---: | ---: |"]
    for source, section, metric, least, default in GOALS:
        cells = []
        for candidate in (default, SIMPLEST):
            counts = next(
                np.array(list(one["counts"][source].values()))
                for one in found["counts"][section] if one["settings"] == settings(candidate)
            )  # fmt: skip
            each, pooled = metrics(counts), metrics(counts.sum(axis=0))
            value = each[:, 0].min() if metric == "worst" else pooled[METRICS.index(metric)]
            cells.append("no cloud" if np.isnan(value) else f"{value:.3f}{', missed' * bool(value < least)}")
        name = {"worst": "OA of the worst scene", "f1": "F1"}.get(metric, "BA")
        lines.append(f"| {source} | {name} {least:.2f} | {' | '.join(cells)} |")
    return lines


def draw(data: Path, cache: Path, folder: Path) -> None:
    """Write a page with the worst ten scenes of the simplest candidate; its pixels are those of FOLDER."""
    flags = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
    cases = []
    for patch in (p for split in ("train", "val") for p in patches(data / split, SOURCES)):
        image = scene(patch.pixels, patch.model, patch.gsd)
        plain = xr.DataArray(answer(patch, SIMPLEST, cache), dims=("y", "x"), attrs=flags)
        labels = plain.copy(data=patch.possible).drop_attrs().assign_attrs(flag_masks=list(BITS.values()))
        cases.append(Case(f"{patch.source} {patch.name}", plain, labels, image))
    write_report(Collected.of(cases, worst=10), folder, title="The simplest candidate, patch by patch")


def main() -> None:
    args = on_patches(
        __doc__, "default.json",
        cache={"type": Path, "help": "where answers of networks are kept (a folder that is thrown away)"},
        pictures={"type": Path, "help": "write a page with the worst ten scenes there, and nothing else"},
    )  # fmt: skip
    if args.table:
        found = json.loads(args.out.read_text())
    else:
        with tempfile.TemporaryDirectory() as thrown:
            cache = args.cache or Path(thrown)
            cache.mkdir(parents=True, exist_ok=True)
            if args.pictures:
                draw(args.data, cache, args.pictures)
                return
            found = {"circumstances": circumstances(), **measured(args.data, cache)}
        # a candidate a line, so that a difference can be read
        args.out.write_text(json.dumps(found).replace('{"settings"', '\n{"settings"') + "\n")
    print(in_words(found["circumstances"]) + "\n\n" + show(found))
    SHORT.write_text(part(part(SHORT.read_text(), "default", markdown(found)), "goals", goals(found)))


if __name__ == "__main__":
    main()
