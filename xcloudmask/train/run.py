"""One training from one config file: data, network, loop, threshold, card; stage after stage."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from xcloudmask._version import __version__
from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError, warn_user
from xcloudmask.metrics import Histogram, choose_threshold, reliability
from xcloudmask.models import card
from xcloudmask.models.weights.fetch import digest
from xcloudmask.train import checkpoint, pseudo
from xcloudmask.train.augment import count_of
from xcloudmask.train.calibrate import divide_head, fit_temperature
from xcloudmask.train.curves import draw
from xcloudmask.train.evaluate import SETS, pooled, run_on
from xcloudmask.train.extras import with_extras
from xcloudmask.train.files import Entry, check_no_leak, find, split
from xcloudmask.train.loggers import Logger, open_loggers
from xcloudmask.train.loop import Settings, Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.networks import LOADER, Begun, begin, model_of
from xcloudmask.train.place import device_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.stream import Recipe, Stream
from xcloudmask.types import ModelSpec

#: Scenes below which a fixed number of them is kept for choosing.
FEW = 10
#: Where, among a training's results, what its teacher labelled lies.
TEACHER = "teacher"


def train(
    config: str | Path | Plan,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    threads: int | None = None,
    loggers: Sequence[Logger] = (),
) -> dict[str, Any]:
    """Train as a config file says, and write weights, log, record and card; goes on with what it finds.

    The weights and the card, ``NAME.safetensors`` and ``NAME.json``, are what `xcloudmask.models.load` takes.
    Where the config has stages, each starts from the weights of the one before, in a folder of its own.

    Parameters
    ----------
    config : path or Plan
        A TOML file; ``examples/train`` has some.
    data : path, optional
        The folder with the data, instead of the config's.
    out : path, optional
        Where results go; by default ``runs/<name>``.
    threads : int, optional
        Threads of torch; by default what it takes itself.
    loggers : sequence of callable
        Given the steps made and the numbers of each epoch, besides those of the table [log].

    Returns
    -------
    dict
        The record: threshold and scores by set of bands, hashes of weights and config.
    """
    if threads:
        import torch

        torch.set_num_threads(threads)
    plan = config if isinstance(config, Plan) else Plan.read(config)
    folder = Path(out) if out is not None else Path("runs") / plan.name
    root = Path(data if data is not None else plan.table("data").get("folder", "."))
    if plan.table("teacher"):
        pseudo.label_folder(
            root / plan.table("teacher").get("unlabelled", "unlabelled"),
            folder / TEACHER,
            plan.table("teacher")["models"],
            **{
                key: plan.table("teacher")[key]
                for key in ("confident", "tta")
                if key in plan.table("teacher")
            },
        )
    record: dict[str, Any] = {}
    stages, start = plan.each_stage(), plan.table("network").get("start")
    for stage in stages:
        where = folder if stage is stages[-1] else folder / stage.name
        if start is not None:
            stage = stage.with_entry("network", start=start)
        if where != folder:
            stage = stage.with_entry("validation", temperature=False)  # only what is kept is calibrated
        record = fit(stage, root, where, folder / TEACHER, loggers)
        start = str(where / f"{stage.name}.json")
    return record


def fit(plan: Plan, root: Path, folder: Path, taught: Path, loggers: Sequence[Logger] = ()) -> dict[str, Any]:
    """Train one stage.

    Parameters
    ----------
    plan : Plan
        Of the stage.
    root, folder, taught : path
        The data, where results go, and where what a teacher labelled lies.
    loggers : sequence of callable
        See `train`.
    """
    classes = tuple(plan.table("network")["classes"])
    how = Settings.from_dict(plan.table("loop"))
    device = "cpu" if device_of(how.device).type == "cpu" else "auto"
    begun, asked = with_extras(begin(plan.table("network")), plan.table("loss"), classes, device=device)
    takes = "among" if begun.entries.get("fills") else "bands"
    recipe = Recipe.from_dict({**plan.table("recipe"), takes: begun.entries["bands"]})
    fit_on, dev, held_out = entries_of(plan, root, taught, recipe)
    check_no_leak([*fit_on, *dev], held_out)
    if dev and not how.watch:
        how = replace(how, watch="score")
    table = plan.table("data")
    sources = {entry.source for entry in fit_on}
    stream = Stream(
        tuple(fit_on),
        recipe,
        table.get("batch", 16), table.get("length", 100),
        seed=table.get("seed", 0), memory=table.get("memory", 2**29),
        weights={source: w for source, w in table.get("weights", {}).items() if source in sources},
        rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")), teacher=asked,
    )  # fmt: skip
    terms = plan.table("loss").get("terms", {"ambiguous-ce": 1.0})
    loss = combined(terms, smoothing=plan.table("loss").get("smoothing", 0.0))
    sets, metric = sets_of(plan, begun), plan.table("validation").get("metric", "balanced_accuracy")
    trainer = Trainer(
        begun.called, classes, loss, stream, how, folder,
        validate=(lambda net: validate(net, classes, dev, sets, metric)) if dev else None,
        loggers=[
            *open_loggers(plan.table("log").get("to", ()) if not stream.rank else (), folder, plan.name),
            *(() if stream.rank else loggers),
        ],
        about={**_about(plan), "files": _listing([*fit_on, *dev])},
        teaching=asked.loss(classes) if asked else None,
    )  # fmt: skip
    trainer.run()
    begun.called.load_state_dict(checkpoint.read_weights(folder / "best.safetensors"))
    return finish(plan, begun, dev, fit_on, folder)


def _about(plan: Plan) -> dict[str, str]:
    """Return all of a plan on which weights depend, but for what the loop keeps itself."""
    network = dict(plan.table("network"))
    if "start" in network:
        network["start"] = model_of(network["start"]).sha256
    data = {key: value for key, value in plan.table("data").items() if key not in ("folder", "memory")}
    told = {"network": network, "recipe": plan.table("recipe"), "loss": plan.table("loss"), "data": data}
    return {name: json.dumps(table, sort_keys=True, default=str) for name, table in told.items()}


def _listing(entries: list[Entry]) -> str:
    """Return a hash of what is trained on and chosen by: the files' sources, names and sizes."""
    told = sorted((e.source, e.scene, e.path.name, e.path.stat().st_size, e.part) for e in entries)
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def entries_of(
    plan: Plan, root: Path, taught: Path, recipe: Recipe | None = None
) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Return what to fit, what to choose settings by, and what is held out."""
    table = plan.table("data")
    known = find(root / table.get("train", "train"), table.get("sources"))
    weak = find(taught) if table.get("teacher") else []
    there = {entry.source for entry in (*known, *weak)}
    for source in table.get("weights", {}):
        if source not in there:
            raise OptionError("source in [data.weights]", source, allowed=there)
    fit, dev = _parted(known, table)
    fit = [*(fit if table.get("labelled", True) else []), *weak]
    recipe = recipe or Recipe()
    wanted = recipe.bands or recipe.among
    if wanted:
        few = len(recipe.bands) or recipe.least_bands
        fit, dev = ([e for e in part if count_of(e.read(), wanted) >= few] for part in (fit, dev))
    if not fit:
        which = f"{recipe.least_bands} of the bands" if recipe.among else "the bands"
        raise CloudMaskError(
            f"nothing to train on in {root}" + (f" has {which} {', '.join(wanted)}" if wanted else "")
        )
    held = root / table["held_out"] if table.get("held_out") else None
    if held is not None and not held.is_dir():
        raise CloudMaskError(
            f"held_out names {held}, which is no folder: nothing could be kept out of training. Correct it, "
            "or leave it out"
        )
    return fit, dev, find(held) if held is not None else []


def _parted(known: list[Entry], table: Mapping[str, Any]) -> tuple[list[Entry], list[Entry]]:
    """Part what is labelled by hand: scenes in dev_scenes, or a share `dev` of them, are for choosing."""
    named = table.get("dev_scenes", [])
    for scene in named:
        if scene not in {entry.scene for entry in known}:
            raise OptionError("scene in dev_scenes", scene, allowed={entry.scene for entry in known})
    if named:
        rest = [entry for entry in known if entry.scene not in named]
        return split(rest, 0.0, used=table.get("used", 1.0))[0], [e for e in known if e.scene in named]
    if not table.get("dev"):
        return split(known, 0.0, used=table.get("used", 1.0))[0], []
    fit, dev = split(known, table["dev"], used=table.get("used", 1.0))
    patches = [entry for entry in known if entry.path.suffix == ".npz"]
    scenes = sorted({e.scene for e in patches}, key=lambda scene: hashlib.sha256(scene.encode()).digest())
    if len(scenes) < FEW:  # a hash of their names decides, and may take none of a few, or most
        kept = set(scenes[: max(1, round(table["dev"] * len(scenes)))] if len(scenes) > 2 else ())
        rest = split([e for e in patches if e.scene not in kept], 0.0, used=table.get("used", 1.0))[0]
        chosen = [e for e in patches if e.scene in kept]
        fit = [*rest, *(e for e in fit if e.path.suffix != ".npz")]
        dev = [*chosen, *(e for e in dev if e.path.suffix != ".npz")]
    if not dev:
        warn_user(
            "too few scenes to keep one for choosing: the epoch of the least loss is taken, and no threshold "
            "is chosen. Give more scenes, or name some in dev_scenes",
            ModelWarning,
        )
    return fit, dev


def sets_of(plan: Plan, begun: Begun) -> dict[str, str | tuple[str, ...]]:
    """Return the sets of bands to validate on, by name; a network for fixed bands has its own only."""
    if begun.entries["bands"] and not begun.entries.get("fills"):
        return {"+".join(begun.entries["bands"]): tuple(begun.entries["bands"])}
    names = plan.table("validation").get("bands", ["all"])
    for name in names:
        if name not in SETS:
            raise OptionError("set of bands", name, allowed=SETS)
    return {name: name for name in names}


def validate(
    network: nn.Module,
    classes: tuple[str, ...],
    dev: list[Entry],
    sets: Mapping[str, str | tuple[str, ...]],
    metric: str,
) -> dict[str, float]:
    """Return the score of each set of bands at its best threshold, and their mean as ``score``.

    A set that no scene has, or whose scenes are all cloud or all clear, has no score; if none has, nothing is
    returned.
    """
    found = _histograms(network, classes, dev, sets)
    out = {name: choose_threshold(histogram, metric)[1] for name, histogram in found}
    return {**out, "score": sum(out.values()) / len(out)} if out else {}


def _histograms(
    network: nn.Module,
    classes: tuple[str, ...],
    dev: list[Entry],
    sets: Mapping[str, str | tuple[str, ...]],
) -> Iterator[tuple[str, Histogram]]:
    """Yield what was said with each set of bands; those without cloud, or all cloud, give no threshold."""
    for name, bands in sets.items():
        found = pooled(run_on(network, classes, dev, bands=bands).values()).histogram
        if found is not None and found.counts.sum(axis=1).all():
            yield name, found


def finish(plan: Plan, begun: Begun, dev: list[Entry], fit: list[Entry], folder: Path) -> dict[str, Any]:
    """Choose temperature and threshold, and write the weights, their card and the record."""
    metric = plan.table("validation").get("metric", "balanced_accuracy")
    classes = tuple(plan.table("network")["classes"])
    sets = sets_of(plan, begun) if dev else {}
    heat = 1.0
    if plan.table("validation").get("temperature") and dev:
        heat = fit_temperature(begun.called, classes, dev, sets.values())
        divide_head(begun.kept, begun.architecture, begun.config, heat)
    by_bands: dict[str, Any] = {}
    histogram = None
    for name, found in _histograms(begun.called, classes, dev, sets):
        best = choose_threshold(found, metric)
        error = reliability(found).expected_error
        by_bands[name] = {
            "threshold": best[0], "score": round(best[1], 4), "calibration_error": round(error, 4)
        }  # fmt: skip
        histogram = found if histogram is None else histogram + found
    threshold = choose_threshold(histogram, metric)[0] if histogram else None
    path = write_kept(begun, folder / plan.name)
    sha256 = digest(path.read_bytes())
    spec = card_of(plan, begun, path.name, sha256, threshold)
    path.with_suffix(".json").write_text(card.to_json(spec))
    record = {
        "name": plan.name,
        "sha256": sha256,
        "threshold": threshold,
        "temperature": round(heat, 4),
        "reliability": curve_of(histogram),
        "chosen_on": by_bands,
        "sources": sorted({entry.source for entry in fit}),
        "files": len(fit),
        "config_sha256": plan.sha256,
        "xcloudmask": __version__,
    }
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    if importlib.util.find_spec("matplotlib") is not None:
        draw(folder)
    return record


def card_of(plan: Plan, begun: Begun, weights: str, sha256: str, threshold: float | None) -> ModelSpec:
    """Return the card of what is trained."""
    least = Recipe.from_dict(plan.table("recipe")).least_bands
    entries = {"min_bands": least if begun.entries["any_bands"] else 1, **begun.entries, "version": "1"}
    if entries.get("fills"):
        entries["min_bands"] = least
    return ModelSpec(
        name=plan.name, classes=tuple(plan.table("network")["classes"]), loader=LOADER, sha256=sha256,
        weights=weights, licence=plan.licence, description=plan.description, architecture=begun.architecture,
        config=json.dumps(begun.config, sort_keys=True), threshold=threshold,
        **{**entries, **plan.table("card")},
    )  # fmt: skip


def write_kept(begun: Begun, stem: Path) -> Path:
    """Write what is kept of a training, and return where."""
    path = stem.with_name(f"{stem.name}.safetensors")
    note = json.dumps({"architecture": begun.architecture, "config": begun.config}, sort_keys=True)
    # one entry: safetensors writes several in an order of its own, and equal weights shall be equal bytes
    checkpoint.write_weights(path, begun.kept.state_dict(), {"network": note})
    return path


def curve_of(histogram: Histogram | None) -> list[list[float]]:
    """Return the reliability curve as said, seen, and share of the pixels, a bin a row.

    Examples
    --------
    >>> import numpy as np
    >>> curve_of(Histogram.of(np.array([0.25, 0.25, 0.75]), np.array([0, 1, 1])))
    [[0.25, 0.5, 0.6667], [0.75, 1.0, 0.3333]]
    """
    if histogram is None:
        return []
    found = reliability(histogram)
    rows = zip(found.said, found.seen, found.pixels / max(found.pixels.sum(), 1), strict=True)
    return [[round(float(v), 4) for v in row] for row in rows if row[2]]
