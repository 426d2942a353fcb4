"""Score models on held-out patches and pixels, by source and set of bands, and write what follows from it.

python examples/train/score_models.py --data DATA spectral sensei ukis-4band ukis-6band
python examples/train/score_models.py --table

The first command writes counts of each scene into ``scores.json`` beside this file (a model scored before is
scored anew). Both write the tables of ``docs/scores.md`` and ``docs/scores-in-full.md``, and
``xcloudmask/predict/evidence.json``, by which ``model="auto"`` chooses. Nothing is fitted here, except one
brightness to the training samples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import score_tables as tables
import torch
from baseline import run_baseline

from xcloudmask.metrics import QUESTIONS, reliability
from xcloudmask.models.network import load_network
from xcloudmask.train.evaluate import SETS, Outcome, pooled, run_model, run_on
from xcloudmask.train.files import Entry, find
from xcloudmask.train.networks import model_of
from xcloudmask.train.run import curve_of
from xcloudmask.types import ModelSpec

STORE = Path(__file__).with_name("scores.json")
#: Imitations of coarse sensors: how many 30 m pixels a side are averaged.
COARSER = {"vgt at 300 m": 10, "vgt at 1 km": 33}
#: Never scored: the source may be in the model's training data.
SEEN = {"ukis-4band": ("dlr",), "ukis-6band": ("dlr",), "ukis-any": ("dlr",)}

Counts = dict[str, dict[str, dict[str, dict[str, list[int]]]]]  # set, source, scene, question


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "models", nargs="*", help="names, or weights and cards that a training wrote; brightness"
    )
    parser.add_argument("--data", help="the folder with train/ and val/")
    parser.add_argument("--store", type=Path, default=STORE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only write the tables from what is stored")
    parser.add_argument("--no-write", action="store_true", help="leave docs and evidence alone")
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    stored: dict[str, Any] = json.loads(told.store.read_text()) if told.store.exists() else {}
    if not told.table:
        held = find(Path(told.data) / "val")
        training = find(Path(told.data) / "train")
        for model in told.models:
            name, entry = score_one(model, held, training)
            stored[name] = entry
            told.store.write_text(tables.compact(stored))
            print(name, "done", flush=True)
    if not told.no_write:
        tables.write(stored)


def score_one(model: str, held: list[Entry], training: list[Entry]) -> tuple[str, dict[str, Any]]:
    """Return a model's name, and its counts with what is needed to know which model that was."""
    if model == "brightness":
        return model, counted(lambda bands, _: run_baseline(training, held, bands), coarse=False)
    spec = None if model in SEEN else model_of(model)
    mine = [entry for entry in held if entry.source not in SEEN.get(model, ())]

    def ask(bands: str, coarser: int) -> dict[str, Outcome]:
        found = run_model(spec or model, mine, bands=bands, coarser=coarser)
        return found if coarser > 1 else {**found, **on_pixels(spec, mine, bands)}

    entry = counted(ask, coarse=True)
    if spec is None:
        unseen = [e for e in training if e.source not in SEEN[model]]
        # ukis was fitted to none of our training samples: more scenes for comparing its variants
        for bands in ("all", "vgt"):
            if on_train := run_model(model, unseen, bands=bands):
                entry["counts"][f"{bands}, training scenes"] = plain(on_train)
        return model, entry
    told = {"sha256": spec.sha256, "threshold": spec.threshold, "version": spec.version}
    return spec.name, {**told, **entry}


def on_pixels(spec: ModelSpec | None, held: list[Entry], bands: str) -> dict[str, Outcome]:
    """Return the outcome on tables of pixels, which only a network without neighbours can answer for."""
    if spec is None or spec.architecture != "spectral" or spec.threshold is None:
        return {}
    network = load_network(spec).body
    pixels = [entry for entry in held if entry.path.suffix != ".npz"]
    return run_on(network, spec.classes, pixels, bands=bands, threshold=spec.threshold)


def counted(ask: Callable[[str, int], dict[str, Outcome]], *, coarse: bool) -> dict[str, Any]:
    """Return counts of every scene, and reliability curves, for each set of bands."""
    found = {bands: ask(bands, 1) for bands in SETS}
    curves = {}
    for bands in tables.TITLES:
        whole = pooled(o for source, o in found[bands].items() if source in tables.COMMON).histogram
        if whole is not None:
            error = round(reliability(whole).expected_error, 4)
            curves[bands] = {"expected_error": error, "curve": curve_of(whole)}
    if coarse:
        found |= {name: ask("vgt", factor) for name, factor in COARSER.items()}
    counts: Counts = {bands: plain(by_source) for bands, by_source in found.items() if by_source}
    return {"counts": counts, "reliability": curves}


def plain(by_source: dict[str, Outcome]) -> dict[str, dict[str, dict[str, list[int]]]]:
    """Return tp, fp, fn, tn of each scene for cloud and for shadow."""
    return {
        source: {
            scene: {
                asked: list(tally.confusion(QUESTIONS[asked]).as_tuple()[:4])
                for asked in ("cloud", "cloud_shadow")
            }
            for scene, tally in outcome.tallies.items()
        }
        for source, outcome in by_source.items()
    }


if __name__ == "__main__":
    main()
