"""Models on held-out patches as Proba-V and VGT would have recorded them: an imitation, no evidence on those.

    python benchmarks/imitation.py --data FOLDER [--published FOLDER] [--before CARD] [--only sensei]
    python benchmarks/imitation.py --table     # measures nothing: prints the result file as tables

FOLDER holds `val/SOURCE/*.npz` and `train/SOURCE/*.npz` with blue, red, NIR and 1.6 um; `--published` the
Keras files of pvl8dagans and DL-L8S2-UV; `--before` is the card of `sensei` as it was before it was trained
on such imitations. The forward model is `xcloudmask.train.imitation`. No model is scored on a source that it
was trained on: the table says so in the place of scores. VGT1 and VGT2 have the same bands and pixels in
`xcloudmask.sensors`, so what is said of one holds of both. `--only` measures these models anew and keeps the
rest of the result file.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _measure import HERE, circumstances, in_words, on_patches, save, table

from xcloudmask import models
from xcloudmask.metrics import METRICS, QUESTIONS, STATISTICS, Histogram, Tally, choose_threshold, summary
from xcloudmask.train.evaluate import classify, legend_of, share_of
from xcloudmask.train.files import Entry, find
from xcloudmask.train.pseudo import ask
from xcloudmask.train.samples import Sample
from xcloudmask.train.split import seen_by

sys.path.insert(0, str(HERE.parent / "examples" / "train"))
from baseline import brightness

SCORED = ("proba-v", "proba-v-1km", "spot-vgt2")
PROBA_V, BEFORE = "pvl8dagans", "sensei, before"
#: Published files by the name of their row, in the folder --published.
FILES = {
    PROBA_V: "cloud_detection_l8.hdf5", "DL-L8S2-UV, 4 bands": "landsatbiomeRGBI6.hdf5",
    "DL-L8S2-UV, 6 bands": "landsatbiomeRGBISWIR7.hdf5",
}  # fmt: skip
#: Sources whose scenes were, or may have been, trained on; single pixels of L8 Biome by the first two.
SEEN: dict[str, tuple[str, ...]] = {
    "spectral": ("l8_biome",), BEFORE: ("l8_biome",), "ukis-any": ("dlr",),
    **dict.fromkeys(FILES, ("l8_biome",)),
}  # fmt: skip
TRAINED, LACKS = "trained on it", "lacks bands"
MODELS = ("brightness", "spectral", BEFORE, "sensei", "ukis-any", *FILES)
SHOWN = ("balanced_accuracy", "f1", "f2", "iou", "kappa")
Answer = Callable[[Sample], Any]


def fitted(training: list[Entry]) -> float:
    """Return the brightness that suits training patches best, imitated alike."""
    samples = [entry.read() for entry in training]
    parts = [Histogram.of(brightness(s), QUESTIONS["cloud"].truth(s.possible)) for s in samples]
    return choose_threshold(sum(parts[1:], parts[0]))[0]


def answering(model: str, spec: Any, threshold: float) -> Answer:
    def bright(sample: Sample) -> Any:
        light = np.where(sample.valid, brightness(sample), np.float32(np.nan))
        return np.stack([1 - light, light]), ("clear", "cloud"), threshold, None

    return bright if model == "brightness" else lambda sample: ask(sample, spec)


def measured(held: list[Entry], model: str, answer: Answer) -> dict[str, Any]:
    """Return the counts of a model's scenes by source, or why it has none there."""
    out: dict[str, Any] = {}
    errors: dict[str, list[float]] = {}
    for entry in held:
        if entry.source in SEEN.get(model, ()):
            out[entry.source] = TRAINED
            continue
        sample = entry.read()
        answered = answer(sample)
        if answered is None:
            out[entry.source] = LACKS
            continue
        tally = Tally.of(sample.possible, classify(*answered), legend_of(answered[1]))
        counts = list(tally.confusion(QUESTIONS["cloud"]).as_tuple()[:4])
        out.setdefault(entry.source, {})[entry.scene] = counts
        assert sample.soft_labels is not None
        off = share_of(answered[0], answered[1], "cloud") - sample.soft_labels[1]
        errors.setdefault(entry.source, []).extend(off[np.isfinite(off)].tolist())
    cover = {name: round(float(np.sqrt(np.mean(np.square(e)))), 4) for name, e in errors.items()}
    return {"counts": out, "cover": cover}


def show(found: dict[str, Any]) -> str:
    told = []
    for instrument, by_model in found["imitation"].items():
        rows = []
        for model, one in by_model.items():
            for source, scenes in one["counts"].items():
                if isinstance(scenes, str):
                    rows.append([model, source, "", "", scenes, "", "", "", "", ""])
                    continue
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
        "settings of ukis-any were chosen on these patches; single pixels of L8 Biome, perhaps\n"
        "of these scenes, were learnt by spectral and by sensei before"
    )
    for name, when in found["measured"].items():
        notes += f"\n{name}: measured {when['date']} at commit {when['commit']}"
    return "\n\n".join([*told, notes])


def main() -> None:
    published = {"type": Path, "help": f"the folder with {', '.join(FILES.values())}"}
    before = {"help": "the card of sensei as it was before"}
    only = {"nargs": "+", "choices": MODELS, "default": MODELS, "help": "measure these models alone"}
    args = on_patches(__doc__, "imitation.json", published=published, before=before, only=only)
    if args.table:
        found = json.loads(args.out.read_text())
        print(in_words(found["circumstances"]) + "\n\n" + show(found))
        return
    held, training = (find(args.data / part) for part in ("val", "train"))
    specs: dict[str, Any] = {name: models.get(name) for name in ("spectral", "sensei")}
    specs |= {"brightness": None, "ukis-any": "ukis-any"}
    if args.before:
        specs[BEFORE] = models.get(args.before)
    if args.published:
        specs |= {name: models.load(args.published / file) for name, file in FILES.items()}
    whole = args.only == MODELS
    found: dict[str, Any] = {"imitation": {}} if whole else json.loads(args.out.read_text())
    found["circumstances"] = circumstances()
    for instrument in SCORED:
        patches, threshold = seen_by(instrument, held), fitted(seen_by(instrument, training))
        rows = found["imitation"].setdefault(instrument, {})
        for model in (name for name in args.only if name in specs):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pixels larger than a model's own: that is asked
                rows[model] = measured(patches, model, answering(model, specs[model], threshold))
        found["imitation"][instrument] = {name: rows[name] for name in MODELS if name in rows}
    found["measured"] = {"imitation": {k: found["circumstances"][k] for k in ("date", "commit")}}
    print(in_words(found["circumstances"]) + "\n\n" + show(found))
    save(args.out, found)


if __name__ == "__main__":
    main()
