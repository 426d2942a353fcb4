"""What the shares and thresholds of `ukis-any` do, on labelled scenes of `train` and `val`.

    python examples/train/choose_any.py --data DATA

Asks both networks, with all bands that a patch has and with blue, red, NIR and 1.6 µm, and writes the tables
"shares" and "shadow" of docs/scores-in-full.md. Shares and thresholds themselves stand in
xcloudmask/models/sources/ukis.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import score_tables as tables
import torch

from xcloudmask import models
from xcloudmask.metrics import METRICS, QUESTIONS, metrics
from xcloudmask.models.sources.ukis import BANDS, SHARES, THRESHOLDS
from xcloudmask.train.augment import among
from xcloudmask.train.evaluate import classify, probabilities
from xcloudmask.train.files import find
from xcloudmask.train.networks import begin

CLASSES = ("clear", "cloud", "cloud_shadow")
SOURCES = ("l8_biome", "l8_38cloud", "dlr", "s2_shadow_alberta")
SETS = {"all": BANDS, "vgt": ("blue", "red", "nir", "swir16")}
WEIGHTS = (0.0, 0.5, 0.65, 0.75, 0.8, 0.85, 1.0)
CLOUD = (None, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8)
SHADOW = (0.0, 0.5, 0.6, 0.7, 0.8)


@dataclass(frozen=True)
class Asked:
    """What both networks say of the labelled pixels of one patch, (class, pixel), and what they are."""

    part: str
    source: str
    bands: str
    four: np.ndarray
    six: np.ndarray
    cloud: np.ndarray
    shadow: np.ndarray

    def mean(self, weight: float) -> np.ndarray:
        return weight * self.four + (1 - weight) * self.six


def asked(data: Path) -> Iterator[Asked]:
    networks = {}
    for name in ("ukis-4band-l1c", "ukis-6band-l1c"):
        spec = models.get(name)
        networks[name] = begin({"start": spec, "classes": spec.classes, "estimate": True}).called
    for part in ("train", "val"):
        for entry in find(data / part):
            if entry.source not in SOURCES or entry.path.suffix != ".npz":
                continue
            sample = entry.read()
            for bands, names in SETS.items():
                one = among(sample, names)
                if bands != "all" and len(one.bands) < len(names):
                    continue
                said = [probabilities(network, one) for network in networks.values()]
                at = (sample.possible > 0) & one.valid
                truth = [QUESTIONS[asked].truth(sample.possible[at]) for asked in ("cloud", "cloud_shadow")]
                yield Asked(part, entry.source, bands, said[0][:, at], said[1][:, at], *truth)


def counts(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return tp, fp, fn, tn of what is decided."""
    known = truth >= 0
    yes, right = said[known], truth[known] == 1
    return np.array([(yes & right).sum(), (yes & ~right).sum(), (~yes & right).sum(), (~yes & ~right).sum()])


def some(found: Sequence[Asked], part: str, source: str, bands: str) -> list[Asked]:
    return [one for one in found if (one.part, one.source, one.bands) == (part, source, bands)]


def balanced(found: Sequence[Asked], weight: float, threshold: float | None) -> float:
    total = np.zeros(4, np.int64)
    for one in found:
        codes = classify(one.mean(weight), CLASSES, threshold)
        total += counts(codes == 1, one.cloud)
    return float(metrics(total)[METRICS.index("balanced_accuracy")])


def shadow_iou(found: Sequence[Asked], weight: float, cloud: float, threshold: float) -> float:
    total = np.zeros(4, np.int64)
    for one in found:
        if (one.shadow == 1).any():
            codes = classify(one.mean(weight), CLASSES, cloud, threshold)
            total += counts(codes == 3, one.shadow)
    return float(metrics(total)[METRICS.index("iou")])


def shares_table(found: Sequence[Asked]) -> list[str]:
    heads = ["share of four bands", *("likeliest class" if c is None else f"{c:g}" for c in CLOUD)]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    picks = [("l8_biome", "all"), ("l8_38cloud", "all"), ("l8_biome", "vgt")]
    for weight in WEIGHTS:
        cells = []
        for threshold in CLOUD:
            values = {
                part: ", ".join(
                    f"{balanced(some(found, part, *pick), weight, threshold):.3f}" for pick in picks
                )
                for part in ("train", "val")
            }
            mark = "**" if (weight, threshold) == (SHARES[1], THRESHOLDS[0]) else ""
            cells.append(f"{mark}{values['train']}; {values['val']}{mark}")
        lines.append(f"| {weight:g} | {' | '.join(cells)} |")
    return lines


def shadow_table(found: Sequence[Asked]) -> list[str]:
    kinds = [("train", "dlr"), ("train", "l8_biome"), ("train", "s2_shadow_alberta"), ("val", "dlr"),
             ("val", "l8_biome")]  # fmt: skip
    heads = ["shadow from", *(f"{source}, {part}" for part, source in kinds)]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for threshold in SHADOW:
        values = [
            shadow_iou(
                some(found, *kind, "all"), SHARES[1], THRESHOLDS[0], threshold
            )
            for kind in kinds
        ]  # fmt: skip
        mark = "**" if threshold == THRESHOLDS[1] else ""
        name = f"{mark}{threshold:g}{mark}" if threshold else "more than clear"
        lines.append(f"| {name} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with train/ and val/")
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    found = list(asked(told.data))
    text = tables.DOCS.read_text()
    text = tables.part(text, "shares", shares_table(found))
    tables.DOCS.write_text(tables.part(text, "shadow", shadow_table(found)))


if __name__ == "__main__":
    main()
