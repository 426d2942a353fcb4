"""Score a trained set network on held-out samples, beside a brightness threshold and ukis-csmask.

python examples/train/score_spectral.py --data DATA --model runs/spectral/spectral.safetensors > table.md
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask.metrics import METRICS, QUESTIONS, Histogram, Tally
from xcloudmask.models import arch
from xcloudmask.train import checkpoint
from xcloudmask.train.baseline import brightness, fit_threshold
from xcloudmask.train.evaluate import LEGEND, SETS, Outcome, pooled, run_on, take
from xcloudmask.train.files import Entry, find

SHOWN = ("balanced_accuracy", "oa", "f1", "f2", "iou")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", required=True, help="NAME.safetensors, with its card NAME.json beside it")
    parser.add_argument("--split", default="val")
    parser.add_argument("--ukis", action="store_true", help="score ukis-csmask on the patches too (slow)")
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    torch.set_num_threads(told.threads)
    path = Path(told.model)
    card = json.loads(path.with_suffix(".json").read_text())
    network = arch.build(card["architecture"], card["config"])
    network.load_state_dict(checkpoint.read_weights(path))
    held, training = find(Path(told.data) / told.split), find(Path(told.data) / "train")
    if card["architecture"] != "spectral":  # it sees neighbours, and a table of pixels has none
        held, training = ([e for e in part if e.path.suffix == ".npz"] for part in (held, training))
    print("| bands | source | model | pixels | scenes | " + " | ".join(f"{m} [95 %]" for m in SHOWN)
          + " | median scene OA | worst scene OA |")  # fmt: skip
    print("|" + " --- |" * (7 + len(SHOWN)))
    for bands in SETS:
        ours = run_on(network, tuple(card["classes"]), held, bands=bands, threshold=card["threshold"])
        plain = run_brightness(training, held, bands)
        show(bands, card["name"], ours)
        show(bands, "brightness", plain)
    if told.ukis:
        show("rgb-nir", "ukis-4band", dict(run_ukis(held)))


def show(bands: str, model: str, by_source: dict[str, Outcome]) -> None:
    groups = {
        "pixels (both)": [o for s, o in by_source.items() if s.startswith("pixels/")],
        "patches (all)": [o for s, o in by_source.items() if not s.startswith("pixels/")],
    }
    rows = {**by_source, **{name: pooled(parts) for name, parts in groups.items() if len(parts) > 1}}
    for source, outcome in rows.items():
        found = outcome.scores(["cloud"])
        cells = ["{:.3f} [{:.3f}, {:.3f}]".format(*found.values[0, METRICS.index(m), :3]) for m in SHOWN]
        pixels = sum(found.confusions[0].as_tuple()[:4])
        scene = f"{found.get('cloud', 'oa', 'median'):.3f} | {found.get('cloud', 'oa', 'worst'):.3f}"
        print(
            f"| {bands} | {source} | {model} | {pixels} | {found.scenes} | {' | '.join(cells)} | {scene} |",
            flush=True,
        )


def run_brightness(training: list[Entry], held: list[Entry], bands: str) -> dict[str, Outcome]:
    threshold = fit_threshold(training, bands)
    out: dict[str, Outcome] = {}
    for entry in held:
        sample = take(entry.read(), bands)
        if sample is None:
            continue
        light, truth = brightness(sample), QUESTIONS["cloud"].truth(sample.possible)
        codes = np.where(sample.valid, light >= threshold, 255).astype(np.uint8)
        scenes = np.array([entry.scene] if sample.spatial else entry.groups())
        for scene in np.unique(scenes):
            at = (slice(None),) if sample.spatial else (scenes == scene,)
            out.setdefault(entry.source, Outcome()).add(
                str(scene),
                Tally.of(sample.possible[at], codes[at], LEGEND),
                Histogram.of(light[at], truth[at]),
            )
    return out


def run_ukis(held: list[Entry]) -> Iterator[tuple[str, Outcome]]:
    """ukis, never on what may be in its training data."""
    out: dict[str, Outcome] = {}
    for entry in held:
        sample = entry.read()
        at = take(sample, "rgb-nir")
        if at is None or not sample.spatial or entry.source == "dlr":
            continue
        da = xr.DataArray(at.image, dims=("band", "y", "x"), coords={"band": ["blue", "green", "red", "nir"]})
        model = f"ukis-4band-{'l1c' if at.level == 'toa' else 'l2a'}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resolution = "native" if at.gsd >= 20 else "auto"
            da = da.assign_coords(y=-np.arange(da.sizes["y"]) * at.gsd, x=np.arange(da.sizes["x"]) * at.gsd)
            da = da.rio.write_crs("EPSG:32633")
            mask = da.cloudmask.predict(model=model, resolution=resolution)
        truth = QUESTIONS["cloud"].truth(at.possible)
        codes = np.asarray(mask.values)
        said = np.isin(codes, (1, 2)).astype(np.float32)
        out.setdefault(entry.source, Outcome()).add(
            entry.scene, Tally.of(at.possible, codes, LEGEND), Histogram.of(said, truth)
        )
    yield from out.items()


if __name__ == "__main__":
    main()
