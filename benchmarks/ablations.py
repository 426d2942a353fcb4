"""What parts of the first recipe for `sensei` (30 m) were worth, at a small scale; if data limit `spectral`.

    nice python benchmarks/ablations.py --data FOLDER              # goes on where it was stopped
    python benchmarks/ablations.py --table                         # only writes its tables in the docs

FOLDER holds train/, val/ and unlabelled/. Every row is trained from nothing, on one thread, with each seed.
The networks are a tenth of the shipped one and see a fraction of its pixels: rows tell differences between
recipes at this scale, and nothing about the shipped models. Thresholds are chosen on the training scenes of
DEV; scores are of val, which nothing is fitted to or chosen on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import RESULTS, arguments, circumstances
from torch import Tensor, nn

from xcloudmask.metrics import METRICS, QUESTIONS, choose_threshold, metrics
from xcloudmask.metrics.labels import BITS
from xcloudmask.models import arch
from xcloudmask.models.arch.compact_unet import CompactUNet
from xcloudmask.train import pseudo
from xcloudmask.train.evaluate import pooled, run_on
from xcloudmask.train.extras import Asked, Taught
from xcloudmask.train.files import Entry, check_no_leak, find, split
from xcloudmask.train.fixed import Fixed
from xcloudmask.train.loop import Settings, Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.samples import Sample
from xcloudmask.train.stream import Recipe, Stream
from xcloudmask.types import AuxInput

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples" / "train"))
STORE = RESULTS / "ablations.json"
SEEDS = (1, 2)
CLASSES = ("clear", "thick_cloud", "thin_cloud", "cloud_shadow")
VGT = ("blue", "red", "nir", "swir16")
SETS = ("six", "vgt", "rgb-nir")
DEV = (
    "l8_biome/Barren_03_0207", "l8_biome/Water_11_0728",
    "l8_38cloud/LC08_L1TP_032029_20160420", "s2_oncloudn/chip_3",
)  # fmt: skip
#: How often each source is drawn.
WEIGHTS = {
    "l8_biome": 6.0, "l8_38cloud": 2.0, "dlr": 1.0, "s2_oncloudn": 1.0, "s2_cloudsen12": 0.3,
    "s2_shadow_alberta": 1.0, "landsat_l1": 3.0, "s2_l1c": 0.5, "pixels/landsat8": 3.0,
    "pixels/sentinel2": 2.0,
}  # fmt: skip
NETWORK = {"classes": 4, "channels": 16, "width": 32, "layers": 1, "step": 2, "compact_widths": [16, 32, 64]}
RECIPE = Recipe(size=64, simulate=0.25, mix=0.1, coarsen=0.15, gaps=0.05, radiometry=0.5, air=0.4, noise=0.4)
WEAK = RECIPE.model_copy(update={"simulate": 0.6, "mix": 0.2})
BATCH = 8
#: Steps of a row in all; those of two stages have half of them each.
STEPS = 800
FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)
CURVE_STEPS = 1000


@dataclass(frozen=True)
class Row:
    """One recipe; a field that is left alone is as in the full one."""

    title: str
    stages: tuple[str, ...] = ("weak", "strong")
    encoder: bool = True
    fixed: tuple[str, ...] = ()
    percentiles: bool = True
    reduced: bool = False
    simulate: bool = True
    mosaic: bool = True
    recovery: float = 0.0
    bright: float = 0.0
    asked: bool = False
    used: float = 1.0


ROWS = {
    "full": Row("SEnSeI, random bands, percentiles, partial labels, weak to strong"),
    "fixed bands": Row("SEnSeI, always blue, red, NIR, 1.6 µm", fixed=VGT),
    "no sensei": Row("no SEnSeI: a 1 × 1 layer on blue, red, NIR, 1.6 µm", fixed=VGT, encoder=False),
    "no percentiles": Row("no percentiles in the descriptors", percentiles=False),
    "weak only": Row("weak labels only (simulated, teacher)", stages=("weak", "weak")),
    "strong only": Row("labels by hand only (patches and pixels)", stages=("strong", "strong")),
    "reduced labels": Row("partial labels reduced to one class, or dropped", reduced=True),
    "no simulated cloud": Row("no simulated cloud", simulate=False),
    "no mosaics": Row("no mosaics of labelled pixels", mosaic=False),
    "recovery": Row("band recovery, weight 0.1, besides", recovery=0.1),
    "bright": Row("clear ground made snow or sand in three of ten samples, besides", bright=0.3),
    "asked": Row("what `ukis-any` says of the same images, besides", asked=True),
    "both": Row("both of these", bright=0.3, asked=True),
    "half": Row("half of the training scenes, labelled or not", used=0.5),
    "quarter": Row("a quarter of them", used=0.25),
}


@dataclass(frozen=True, slots=True)
class Reduced(Entry):
    """A sample whose labels name one class each: clear or shadow is clear, cloud is thick, the rest none."""

    def read(self) -> Sample:
        sample = Entry.read(self)
        sure = QUESTIONS["cloud"].truth(sample.possible)
        exact = np.isin(sample.possible, list(BITS.values()))
        guess = np.where(sure == 1, BITS["thick_cloud"], np.where(sure == 0, BITS["clear"], 0))
        return replace(sample, possible=np.where(exact, sample.possible, guess).astype(np.uint8))


class Flat(Entry):
    """A table of pixels whose heights are all 0."""

    def read(self) -> Sample:
        sample = Entry.read(self)
        height = np.array([band.kind == "elevation" for band in sample.bands])
        return replace(sample, image=np.where(height[:, None, None], np.float32(0), sample.image))


class Plain(nn.Module):
    """What stands in for SEnSeI: a layer on single pixels, from fixed bands to as many channels."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        channels = int(NETWORK["channels"])
        self.enter = nn.Sequential(nn.Conv2d(bands, channels, 1), nn.BatchNorm2d(channels))
        self.head = CompactUNet(channels, len(CLASSES), widths=tuple(NETWORK["compact_widths"]))

    def forward(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.head(self.enter(pixels))
        return out


def build(row: Row, seed: int) -> nn.Module:
    if not row.encoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Fixed(Plain(len(row.fixed)), row.fixed)
    network = arch.build("sensei-v2", NETWORK, seed=seed)
    if not row.percentiles:

        def without(_: nn.Module, told: tuple[Tensor]) -> tuple[Tensor]:
            return (torch.cat([told[0][..., :-5], torch.zeros_like(told[0][..., -5:])], dim=-1),)

        network.encoder.enter.register_forward_pre_hook(without)  # type: ignore[union-attr]
    return Taught(network, recovery=row.recovery) if row.recovery else network


def train(
    network: nn.Module, entries: Iterable[Entry], recipe: Recipe, steps: int, seed: int, rate: float,
    out: Path, *, weights: Mapping[str, float], batch: int = BATCH, teacher: Asked | None = None,
    aux: tuple[AuxInput, ...] = (),
) -> None:  # fmt: skip
    entries = tuple(entries)
    there = {entry.source for entry in entries}
    stream = Stream(
        entries, recipe.model_copy(update={"seed": seed}), batch, steps,
        weights={source: weight for source, weight in weights.items() if source in there}, teacher=teacher,
        aux=aux,
    )  # fmt: skip
    settings = Settings(epochs=1, rate=rate, weight_decay=1e-2, warmup=50, ema=0.99, clip=1.0, device="cpu")
    loss = combined({"ambiguous-ce": 1.0}, CLASSES, smoothing=0.05)
    teaching = teacher.loss(CLASSES) if teacher else None
    trainer = Trainer(network, CLASSES, loss, stream, settings, out, teaching=teaching)
    trainer.run()
    network.load_state_dict(trainer.kept().state_dict())


def scored(
    network: nn.Module, dev: list[Entry], held: list[Entry], sets: Mapping[str, Any]
) -> dict[str, Any]:
    """Return tp, fp, fn, tn of each scene of val, by set of bands and source, at the threshold of dev."""
    out: dict[str, Any] = {}
    for name, bands in sets.items():
        whole = pooled(run_on(network, CLASSES, dev, bands=bands).values())
        threshold = 0.5 if whole.histogram is None else choose_threshold(whole.histogram)[0]
        found = run_on(network, CLASSES, held, bands=bands, threshold=threshold)
        out[name] = {
            source: {
                scene: list(tally.confusion(QUESTIONS["cloud"]).as_tuple()[:4])
                for scene, tally in outcome.tallies.items()
            }
            for source, outcome in found.items()
        }
    return out


def one(row: Row, seed: int, data: Path, taught: Path) -> dict[str, Any]:
    """Train and score one row."""
    known = [e for e in find(data / "train") if row.mosaic or e.path.suffix == ".npz"]
    held = [e for e in find(data / "val") if e.source in ("l8_biome", "l8_38cloud")]
    dev, strong = [e for e in known if e.scene in DEV], [e for e in known if e.scene not in DEV]
    weak = find(taught)
    strong, weak = (split(part, 0.0, used=row.used)[0] for part in (strong, weak))
    check_no_leak([*strong, *dev, *weak], find(data / "val"))
    if row.fixed:
        strong, weak, held = ([e for e in part if has(e, row.fixed)] for part in (strong, weak, held))
        dev = [e for e in dev if has(e, row.fixed)]
    if row.reduced:
        strong = [Reduced(e.path, e.source, e.scene, e.part) for e in strong]
        weak = [Reduced(e.path, e.source, e.scene, e.part) for e in weak]
    network = build(row, seed)
    for stage, rate in zip(row.stages, (3e-3, 1e-3), strict=True):
        recipe = (WEAK if stage == "weak" else RECIPE).model_copy(
            update={"bands": row.fixed, "mosaic": row.mosaic, "bright": row.bright}
        )
        recipe = recipe if row.simulate else recipe.model_copy(update={"simulate": 0.0})
        with tempfile.TemporaryDirectory() as out:
            entries = weak if stage == "weak" else [*strong, *weak]
            weights = WEIGHTS if stage == "weak" else {**WEIGHTS, "landsat_l1": 1.0, "s2_l1c": 0.2}
            if "weak" not in row.stages:
                entries = strong
            teacher = Asked("ukis-any", device="cpu") if row.asked else None
            train(
                network, entries, recipe, STEPS // 2, seed, rate, Path(out), weights=weights, teacher=teacher
            )
    sets = {"vgt": row.fixed} if row.fixed else {name: name for name in SETS}
    return scored(network, dev, held, sets)


def has(entry: Entry, bands: tuple[str, ...]) -> bool:
    from xcloudmask.train.evaluate import take

    return take(entry.read(), bands) is not None


def on_pixels(data: Path, seed: int, *, used: float = 1.0, height: str = "") -> dict[str, Any]:
    """Train a small `spectral` on the tables of pixels, with a share of their scenes, and score it."""
    tables = [e for e in find(data / "train") if e.path.suffix != ".npz"]
    held = [e for e in find(data / "val") if e.path.suffix != ".npz"]
    check_no_leak(tables, held)
    sets = {"all": "all", "vgt": "vgt"}
    aux = (AuxInput("elevation"),) if height else ()
    if height:
        kind = Flat if height == "flat" else Entry
        fit, held = ([kind(e.path, e.source, e.scene, e.part) for e in part] for part in (tables, held))
        dev: list[Entry] = list(fit)
    else:
        fit, dev = split(tables, 0.12, used=used)
    network: Any = arch.build("spectral", {"classes": 4, "width": 24, "hidden": 48}, seed=seed)
    network.aux = aux
    recipe = Recipe(
        size=1, pixels=128, least_bands=2, whole=0.4, simulate=0.0, radiometry=0.5, air=0.4, noise=0.4,
        hide_aux=0.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as out:
        train(network, fit, recipe, CURVE_STEPS, seed, 3e-3, Path(out), weights={}, batch=16, aux=aux)
    if height:
        return heights_scored(network, dev, held)
    found = scored(network, dev, held, sets)
    scenes = len({name for e in fit for name in e.groups()})
    return {"scenes": scenes, "pixels": sum(len(e.groups()) for e in fit), **found}


def heights_scored(network: nn.Module, dev: list[Entry], held: list[Entry]) -> dict[str, Any]:
    from xcloudmask.metrics import Histogram, Tally
    from xcloudmask.train.evaluate import classify, legend_of, probabilities, share_of

    said = [(e, s := e.read(), probabilities(network, s)) for e in (*dev, *held)]
    seen: Histogram | None = None
    for _, sample, p in said[: len(dev)]:
        truth = QUESTIONS["cloud"].truth(sample.possible)
        part = Histogram.of(share_of(p, CLASSES, "cloud"), truth)
        seen = part if seen is None else seen + part
    threshold = 0.5 if seen is None else choose_threshold(seen)[0]
    out: dict[str, Any] = {}
    for entry, sample, p in said[len(dev) :]:
        codes, groups = classify(p, CLASSES, threshold), np.array(entry.groups())
        for scene in np.unique(groups):
            at = groups == scene
            tally = Tally.of(sample.possible[at], codes[at], legend_of(CLASSES))
            counts = list(tally.confusion(QUESTIONS["cloud"]).as_tuple()[:4])
            out.setdefault(entry.source, {})[str(scene)] = counts
    return {"all": out}


def jobs(data: Path, taught: Path) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Return what is to be run, by name."""
    out: dict[str, Callable[[int], dict[str, Any]]] = {
        f"curve {used:g}": (lambda seed, used=used: on_pixels(data, seed, used=used)) for used in FRACTIONS
    }
    out |= {name: (lambda seed, row=row: one(row, seed, data, taught)) for name, row in ROWS.items()}
    out |= {
        f"height {how}": (lambda seed, how=how: on_pixels(data, seed, height=how)) for how in ("told", "flat")
    }
    return out


def main() -> None:
    told = arguments(
        __doc__, "data", "table", taught={"type": Path, "help": "where labels of the teacher are, or go"},
        only={"nargs": "*", "help": "these rows only"},
    )  # fmt: skip
    stored = json.loads(STORE.read_text()) if STORE.exists() else {"runs": {}}
    if not told.table:
        torch.set_num_threads(1)
        taught = told.taught or Path(tempfile.gettempdir()) / "xcloudmask-ablations-taught"
        pseudo.label_folder(told.data / "unlabelled", taught, ["ukis-4band", "ukis-6band"], confident=0.9)
        for seed in SEEDS:
            for name, run in jobs(told.data, taught).items():
                if f"{name}, seed {seed}" in stored["runs"] or (told.only and name not in told.only):
                    continue
                began = time.process_time()
                counts = run(seed)
                seconds = round(time.process_time() - began, 1)
                stored["runs"][f"{name}, seed {seed}"] = {"cpu_seconds": seconds, "counts": counts}
                stored["circumstances"] = circumstances()
                save_all(stored)
                print(name, seed, seconds, flush=True)
    write_tables(stored)


def save_all(stored: dict[str, Any]) -> None:
    from score_tables import compact

    part = STORE.with_suffix(".part")
    part.write_text(compact(stored))
    part.replace(STORE)


# --- tables ---


def balanced(stored: dict[str, Any], name: str, bands: str, sources: tuple[str, ...]) -> np.ndarray:
    """Return counts (seed, scene, 4) of a row, scenes in one order; empty if it was not run."""
    out = []
    for seed in SEEDS:
        found = stored["runs"].get(f"{name}, seed {seed}", {}).get("counts", {}).get(bands, {})
        scenes = {f"{source} {k}": v for source in sources for k, v in found.get(source, {}).items()}
        if scenes:
            out.append([scenes[k] for k in sorted(scenes)])
    return np.array(out, np.int64)


def mean_and_interval(counts: np.ndarray, other: np.ndarray | None = None) -> str:
    """Return the mean over seeds of the pooled balanced accuracy (less that of another row), scenes drawn."""
    if not counts.size or (other is not None and not other.size):
        return "–"
    seeds = counts.shape[0] if other is None else min(counts.shape[0], other.shape[0])
    scenes = counts.shape[1]
    drawn = np.random.default_rng(0).multinomial(scenes, np.full(scenes, 1 / scenes), size=4000)
    at = METRICS.index("balanced_accuracy")

    def means(of: np.ndarray, weights: np.ndarray) -> np.ndarray:
        return np.mean([metrics(weights @ of[s])[..., at] for s in range(seeds)], axis=0)

    whole, draws = means(counts, np.ones((1, scenes), int)), means(counts, drawn)
    if other is not None:
        whole, draws = whole - means(other, np.ones((1, scenes), int)), draws - means(other, drawn)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return f"{whole[0]:{'+' if other is not None else ''}.3f} [{low:.2f}, {high:.2f}]"


def apart(counts: np.ndarray) -> float:
    """Return how far the seeds lie apart."""
    each = metrics(counts.sum(axis=1))[:, METRICS.index("balanced_accuracy")]
    return float(each.max() - each.min())


def ablation_table(stored: dict[str, Any]) -> list[str]:
    lines = ["| recipe | seeds | six bands | blue, red, NIR, 1.6 µm | less full | RGB, NIR | seeds apart |",
             "|" + " --- |" * 7]  # fmt: skip
    toa = ("l8_biome", "l8_38cloud")
    for name, row in ROWS.items():
        by_set = {bands: balanced(stored, name, bands, toa) for bands in SETS}
        full = balanced(stored, "full", "vgt", toa)
        vgt = by_set["vgt"]
        if not vgt.size:
            continue
        less = "" if name == "full" else mean_and_interval(vgt, full)
        cells = [row.title, str(len(vgt)), mean_and_interval(by_set["six"]), mean_and_interval(vgt), less,
                 mean_and_interval(by_set["rgb-nir"]), f"{apart(vgt):.3f}"]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    pixels = ("pixels/landsat8", "pixels/sentinel2")
    told, flat = (balanced(stored, f"height {how}", "all", pixels) for how in ("told", "flat"))
    if told.size and flat.size:
        lines += ["", "| single pixels of val, all bands | seeds | balanced accuracy | more than without |",
                  "|" + " --- |" * 4,
                  f"| without heights | {len(flat)} | {mean_and_interval(flat)} | |",
                  f"| with heights | {len(told)} | {mean_and_interval(told)} | "
                  f"{mean_and_interval(told, flat)} |"]  # fmt: skip
    return lines


def curve_table(stored: dict[str, Any]) -> list[str]:
    head = ["share", "training scenes", "pixels", "seeds", "all bands: both", "Landsat 8", "Sentinel-2",
            "blue, red, NIR, 1.6 µm: both"]  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    both = ("pixels/landsat8", "pixels/sentinel2")
    for used in FRACTIONS:
        name = f"curve {used:g}"
        runs = [stored["runs"][k]["counts"] for k in stored["runs"] if k.startswith(f"{name}, ")]
        if not runs:
            continue
        found = [balanced(stored, name, "all", s) for s in (both, both[:1], both[1:])]
        cells = [f"{used:.0%}", str(runs[0]["scenes"]), f"{runs[0]['pixels']:,}", str(len(runs)),
                 *(mean_and_interval(c) for c in found),
                 mean_and_interval(balanced(stored, name, "vgt", both))]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def write_tables(stored: dict[str, Any]) -> None:
    from score_tables import DOCS, part

    text = part(DOCS.read_text(), "ablations", ablation_table(stored))
    DOCS.write_text(part(text, "curve", curve_table(stored)))


if __name__ == "__main__":
    main()
