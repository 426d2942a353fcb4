"""Models on held-out patches as Proba-V and VGT would have recorded them: an imitation, no evidence on those.

    python benchmarks/imitation.py --data FOLDER [--published FOLDER]
    python benchmarks/imitation.py --table     # measures nothing: prints the result file as tables

FOLDER holds `val/SOURCE/*.npz` and `train/SOURCE/*.npz` with blue, red, NIR and 1.6 um; `--published` the
file `cloud_detection_l8.hdf5` of pvl8dagans. The forward model is `xcloudmask.train.imitation`. No model is
scored on a source that it was trained on. "mean of 10 x 10" is what was done before: averages of 30 m pixels.
VGT1 and VGT2 have the same bands and pixels in `xcloudmask.sensors`, so the table has one of them.
"""

from __future__ import annotations

import json
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _measure import HERE, circumstances, in_words, on_patches, save, table

from xcloudmask import models
from xcloudmask.metrics import METRICS, QUESTIONS, STATISTICS, Histogram, Tally, choose_threshold, summary
from xcloudmask.train.augment import coarsen
from xcloudmask.train.evaluate import classify, legend_of, share_of, take
from xcloudmask.train.files import Entry, find
from xcloudmask.train.imitation import Imitated, imitate
from xcloudmask.train.pseudo import ask
from xcloudmask.train.samples import Sample

sys.path.insert(0, str(HERE.parent / "examples" / "train"))
from baseline import brightness

PLAIN = "mean of 10 x 10"
SCORED = ("proba-v", "proba-v-1km", "spot-vgt2")
PROBA_V = "pvl8dagans"
#: Sources whose scenes were, or may have been, trained on.
SEEN = {"ukis-any": ("dlr",), PROBA_V: ("l8_biome",)}
MODELS = ("brightness", "spectral", "sensei", "ukis-any", PROBA_V)
SHOWN = ("balanced_accuracy", "f1", "f2", "iou", "kappa")
Answer = Callable[[Sample], Any]


def made(entry: Entry, instrument: str) -> Imitated | None:
    """Return a patch as an instrument has it; noise is that of its scene."""
    sample = entry.read()
    if instrument == PLAIN:
        taken = take(sample, "vgt")
        return None if taken is None else Imitated(coarsen(taken, 10), {})
    return imitate(instrument)(sample, np.random.default_rng(zlib.crc32(entry.scene.encode())))


def fitted(training: list[Entry], instrument: str) -> float:
    """Return the brightness that suits training patches best, imitated alike."""
    whole: Histogram | None = None
    for entry in training:
        one = made(entry, instrument)
        if one is not None:
            truth = QUESTIONS["cloud"].truth(one.sample.possible)
            part = Histogram.of(brightness(one.sample), truth)
            whole = part if whole is None else whole + part
    assert whole is not None
    return choose_threshold(whole)[0]


def answering(model: str, spec: Any, threshold: float) -> Answer:
    def bright(sample: Sample) -> Any:
        light = np.where(sample.valid, brightness(sample), np.float32(np.nan))
        return np.stack([1 - light, light]), ("clear", "cloud"), threshold, None

    return bright if model == "brightness" else lambda sample: ask(sample, spec)


def measured(held: list[Entry], instrument: str, model: str, answer: Answer) -> dict[str, Any]:
    """Return scores of a model on the sources that it may be scored on."""
    out: dict[str, Any] = {}
    errors: dict[str, list[float]] = {}
    for entry in held:
        if entry.source in SEEN.get(model, ()):
            continue
        one = made(entry, instrument)
        answered = None if one is None else answer(one.sample)
        if one is None or answered is None:
            continue
        tally = Tally.of(one.sample.possible, classify(*answered), legend_of(answered[1]))
        out.setdefault(entry.source, {})[entry.scene] = list(
            tally.confusion(QUESTIONS["cloud"]).as_tuple()[:4]
        )
        if one.cover:
            off = share_of(answered[0], answered[1], "cloud") - one.cover["cloud"]
            errors.setdefault(entry.source, []).extend(off[np.isfinite(off)].tolist())
    told: dict[str, Any] = {"counts": out}
    if errors:
        told["cover"] = {name: round(float(np.sqrt(np.mean(np.square(e)))), 4) for name, e in errors.items()}
    return told


def show(found: dict[str, Any]) -> str:
    told = []
    for instrument, by_model in found["imitation"].items():
        rows = []
        for model, one in by_model.items():
            for source, scenes in one["counts"].items():
                counts = np.array(list(scenes.values()))
                values = summary(counts)
                at = [METRICS.index(name) for name in SHOWN]
                pooled, low, high, worst = (
                    values[:, STATISTICS.index(s)] for s in ("pooled", "low", "high", "worst")
                )
                interval = "" if np.isnan(low[at[0]]) else f"{low[at[0]]:.2f}-{high[at[0]]:.2f}"
                rows.append([
                    model, source, str(len(scenes)), str(counts.sum()), f"{pooled[at[0]]:.3f}", interval,
                    *(f"{pooled[i]:.3f}" for i in at[2:4]), f"{worst[METRICS.index('oa')]:.2f}",
                    str(one.get("cover", {}).get(source, "")),
                ])  # fmt: skip
        head = ["model", "source", "n", "pixels", "BA", "95 %", "F2", "IoU", "worst", "cover"]
        told.append(f"{instrument}\n{table(head, rows)}")
    notes = (
        "worst: OA of the worst scene\n"
        "cover: root mean square of probability minus share of cloud\n"
        "spectral and sensei learnt from pixels of L8 Biome, perhaps of these scenes;\n"
        "settings of ukis-any were chosen on these patches, too\n"
        "not scored, as (perhaps) trained on it: "
        + "; ".join(f"{model} on {', '.join(on)}" for model, on in SEEN.items())
    )
    for name, when in found["measured"].items():
        notes += f"\n{name}: measured {when['date']} at commit {when['commit']}"
    return "\n\n".join([*told, notes])


def main() -> None:
    published = {"type": Path, "help": "the folder with cloud_detection_l8.hdf5"}
    args = on_patches(__doc__, "imitation.json", published=published)
    if args.table:
        found = json.loads(args.out.read_text())
        print(in_words(found["circumstances"]) + "\n\n" + show(found))
        return
    held, training = (
        [entry for entry in find(args.data / part) if entry.path.suffix == ".npz"]
        for part in ("val", "train")
    )
    specs: dict[str, Any] = {name: models.get(name) for name in ("spectral", "sensei")}
    specs["ukis-any"] = "ukis-any"
    if args.published:
        specs[PROBA_V] = models.load(args.published / "cloud_detection_l8.hdf5")
    found: dict[str, Any] = {"circumstances": circumstances(), "imitation": {}}
    for instrument in (PLAIN, *SCORED):
        threshold = fitted(training, instrument)
        found["imitation"][instrument] = by_model = {}
        for model in MODELS:
            if model == "brightness" or model in specs:
                answer = answering(model, specs.get(model), threshold)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # pixels larger than a model's own: that is asked
                    by_model[model] = measured(held, instrument, model, answer)
        by_model["brightness"]["threshold"] = round(threshold, 3)
    found["measured"] = {"imitation": {k: found["circumstances"][k] for k in ("date", "commit")}}
    print(in_words(found["circumstances"]) + "\n\n" + show(found))
    save(args.out, found)


if __name__ == "__main__":
    main()
