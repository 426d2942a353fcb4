"""What training ukis on with more labelled scenes brings, and what it breaks.

    nice python benchmarks/tuning.py --data FOLDER                 # goes on where it was stopped
    python benchmarks/tuning.py --table                            # only writes its table in the docs

FOLDER holds train/, val/ and unlabelled/. The later layers of the decoder of ukis-4band-l1c (686,000 of 19.5
million weights) are trained on a share of the training scenes, bands left out at random, with unlabelled
patches that ukis is sure of; what comes out is scored on val, cloud from a probability of 0.5, and so is ukis
as published, with the same bands estimated. One row leaves out the one training scene of clear snow.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import RESULTS, arguments, circumstances

from xcloudmask.metrics import METRICS, QUESTIONS, metrics
from xcloudmask.train import label_folder
from xcloudmask.train.evaluate import run_on
from xcloudmask.train.files import find
from xcloudmask.train.networks import begin, model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import TEACHER, train

ROOT = Path(__file__).parents[1]
STORE = RESULTS / "tuning.json"
START = "ukis-4band-l1c"
SHARES = (0.34, 0.67, 1.0)
SEEDS = (0, 1)
SNOW = "l8_biome/SnowIce_01_0909"
LATE = [f"up.{block}." for block in (1, 2, 3, 4)] + ["logits."]
WEIGHTS = {
    "l8_biome": 6.0, "l8_38cloud": 3.0, "dlr": 1.0, "s2_cloudsen12": 0.3, "s2_shadow_alberta": 1.0,
    "landsat_l1": 2.0, "s2_l1c": 0.3,
}  # fmt: skip
CONFIG: dict[str, Any] = {
    "name": "tuned",
    "recipe": {
        "size": 256, "least_bands": 3, "whole": 0.4, "simulate": 0.12, "mix": 0.1, "radiometry": 0.5,
        "air": 0.3, "noise": 0.3, "saturate": 0.1,
    },
    "network": {
        "start": START, "classes": ["clear", "cloud", "cloud_shadow"], "only": LATE, "estimate": True
    },
    "loss": {"smoothing": 0.05},
    "loop": {"epochs": 1, "rate": 2e-4, "warmup": 30, "weight_decay": 0.0, "ema": 0.98, "clip": 1.0},
}  # fmt: skip


def tuned(data: Path, taught: Path, share: float, seed: int, *, leave: str = "") -> dict[str, Any]:
    """Train on a share of the scenes and return what it scores."""
    names = [e for e in find(data / "train") if e.source in WEIGHTS]
    sources = sorted({entry.source for entry in names})
    table = {
        "sources": sources, "weights": WEIGHTS, "used": share, "batch": 4, "length": 120,
        "teacher": True, "held_out": "val", "dev_scenes": [leave] if leave else [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / TEACHER).symlink_to(taught)
        config = {**CONFIG, "data": table, "recipe": {**CONFIG["recipe"], "seed": seed}}
        record = train(Plan.of(config), data=data, out=out)
        return {"files": record["files"], **scored(data, str(out / "tuned.json"))}


def scored(data: Path, model: str) -> dict[str, Any]:
    """Return counts of each scene of val, for cloud and for shadow."""
    held = [entry for entry in find(data / "val") if entry.source in ("l8_biome", "l8_38cloud", "dlr")]
    spec = model_of(model)
    network = begin({"start": spec, "classes": spec.classes, "estimate": True}).called
    return {
        bands: {
            scene: {q: list(tally.confusion(QUESTIONS[q]).as_tuple()[:4]) for q in ("cloud", "cloud_shadow")}
            for outcome in run_on(network, spec.classes, held, bands=bands, threshold=0.5).values()
            for scene, tally in outcome.tallies.items()
        }
        for bands in ("rgb-nir", "vgt")
    }


def main() -> None:
    told = arguments(
        __doc__, "data", "table", threads={"type": int, "default": 2},
        only={"nargs": "*", "help": "these rows only"},
    )  # fmt: skip
    stored: dict[str, Any] = json.loads(STORE.read_text()) if STORE.exists() else {}
    if not told.table:
        torch.set_num_threads(told.threads)
        data = told.data.resolve()
        with tempfile.TemporaryDirectory() as folder:
            taught = Path(folder) / TEACHER
            label_folder(data / "unlabelled", taught, ["ukis-4band", "ukis-6band"], confident=0.9)
            jobs = {"as published": lambda: scored(data, START)}
            jobs["no clear snow, seed 0"] = lambda: tuned(data, taught, 1.0, 0, leave=SNOW)
            for seed in SEEDS:
                for share in reversed(SHARES):
                    jobs[f"{share:g}, seed {seed}"] = lambda s=share, n=seed: tuned(data, taught, s, n)
            for name, job in jobs.items():
                if name not in stored and (not told.only or name in told.only):
                    stored[name] = {**job(), **circumstances()}
                    STORE.write_text(json.dumps(stored, indent=1) + "\n")
                    print(name, "done", flush=True)
    write_table(stored)


def pooled(rows: list[dict[str, Any]], bands: str, source: str, asked: str) -> float:
    """Return the mean over seeds of balanced accuracy of cloud, or of IoU of shadow; NaN where not scored."""
    values = []
    for row in rows:
        counts = [c[asked] for scene, c in row.get(bands, {}).items() if scene.startswith(source)]
        told = np.array([c for c in counts if asked == "cloud" or c[0] + c[2]], np.int64).reshape(-1, 4)
        metric = "balanced_accuracy" if asked == "cloud" else "iou"
        values.append(float(metrics(told.sum(axis=0))[METRICS.index(metric)]) if len(told) else np.nan)
    return float(np.mean(values)) if values else np.nan


def accuracy(rows: list[dict[str, Any]], scene: str) -> float:
    counts = np.array([row["rgb-nir"][scene]["cloud"] for row in rows])
    return float(((counts[:, 0] + counts[:, 3]) / counts.sum(axis=1)).mean())


def table(stored: dict[str, Any]) -> list[str]:
    """Return the rows: share of scenes, and what is scored on val."""
    heads = ["trained on", "patches", "seeds", "l8_biome, RGB-NIR", "blue, red, NIR, 1.6 µm", "l8_38cloud",
             "shadow IoU: l8_biome, dlr", "OA of the scene of clear snow",
             "of one partly cloudy"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    named = {"nothing (as published)": ["as published"]}
    for share in SHARES:
        named[f"{share:.0%} of scenes"] = [f"{share:g}, seed {seed}" for seed in SEEDS]
    named["all but the one of clear snow"] = ["no clear snow, seed 0"]
    for title, keys in named.items():
        rows = [stored[key] for key in keys if key in stored]
        if not rows:
            continue
        biome, vgt, other = (
            pooled(rows, bands, source, "cloud")
            for bands, source in (("rgb-nir", "l8_biome"), ("vgt", "l8_biome"), ("rgb-nir", "l8_38cloud"))
        )
        shadows = [pooled(rows, "rgb-nir", source, "cloud_shadow") for source in ("l8_biome", "dlr")]
        scenes = [accuracy(rows, f"l8_biome/{name}") for name in ("SnowIce_00_1415", "Urban_11_1326")]
        cells = [title, f"{rows[0].get('files', 0)}", f"{len(rows)}", f"{biome:.3f}",
                 "–" if np.isnan(vgt) else f"{vgt:.3f}", f"{other:.3f}",
                 ", ".join(f"{value:.2f}" for value in shadows),
                 *(f"{value:.3f}" for value in scenes)]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write_table(stored: dict[str, Any]) -> None:
    import sys

    sys.path.insert(0, str(ROOT / "examples" / "train"))
    from score_tables import DOCS, part

    DOCS.write_text(part(DOCS.read_text(), "tuning", table(stored)))


if __name__ == "__main__":
    main()
