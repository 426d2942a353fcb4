"""One training from one config file: data, network, loop, threshold, card; stage after stage."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from xcloudmask._version import __version__
from xcloudmask.errors import CloudMaskError, ModelWarning, names_checked, warn_user
from xcloudmask.metrics import Histogram, Scores, choose_threshold, reliability
from xcloudmask.models import card
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.atomic import replace_file
from xcloudmask.models.weights.fetch import digest
from xcloudmask.models.weights.formats import packed
from xcloudmask.train import checkpoint, losses, pseudo
from xcloudmask.train.calibrate import divide_head, fit_temperature
from xcloudmask.train.config_tables import Score
from xcloudmask.train.curves import draw
from xcloudmask.train.evaluate import losses_of, pooled, run_model, run_on
from xcloudmask.train.extras import with_extras
from xcloudmask.train.files import Entry, check_no_leak, find
from xcloudmask.train.loggers import Logger, open_loggers
from xcloudmask.train.loop import Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.networks import LOADER, Begun, begin, model_of
from xcloudmask.train.place import device_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.split import check_aux, entries_of
from xcloudmask.train.stream import Stream
from xcloudmask.types import ModelSpec

#: Steps below which a training is remarked upon.
HANDFUL = 50
#: Where, among a training's results, what its teacher labelled lies.
TEACHER = "teacher"


@names_checked
def train(
    config: str | Path | Plan,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    threads: int | None = None,
    loggers: Sequence[Logger] = (),
) -> dict[str, Any]:
    """Train as a config file says, and write weights, log, record and card; a stopped training is resumed.

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
        The record: threshold and scores by set of bands, hashes of weights and config. Where the config has
        [score], ``scored`` holds its `xcloudmask.metrics.Scores`, and in ``record.json`` their numbers.
    """
    if threads:
        import torch

        torch.set_num_threads(threads)
    plan = config if isinstance(config, Plan) else Plan.read(config)
    folder = Path(out) if out is not None else Path("runs") / plan.name
    root = Path(data if data is not None else plan.data.folder)
    if plan.teacher is not None:
        teacher = plan.teacher
        pseudo.label_folder(
            root / teacher.unlabelled, folder / TEACHER, teacher.models,
            confident=teacher.confident, tta=teacher.tta,
        )  # fmt: skip
    *before, last = plan.each_stage()
    start: str | None = None  # the card of the stage before
    for stage in before:
        stage = stage.model_copy(  # only what is kept at the end is calibrated
            update={"validation": stage.validation.model_copy(update={"temperature": False})}
        )
        fit(_starting_from(stage, start), root, folder / stage.name, folder / TEACHER, loggers)
        start = str(folder / stage.name / f"{stage.name}.json")
    record = fit(_starting_from(last, start), root, folder, folder / TEACHER, loggers)
    _warn_of_thresholds(record)
    if plan.score is None:
        return record
    scores = score_on(plan, plan.score, root, folder / f"{plan.name}.json")
    note = {**record, "scored": {"on": plan.score.given(), "scenes": scores.scenes, **scores.to_dict()}}
    (folder / "record.json").write_text(json.dumps(note, indent=2) + "\n")
    return {**record, "scored": scores}


def _starting_from(plan: Plan, start: str | None) -> Plan:
    """Return a plan whose network starts from the weights of the stage before, if there was one."""
    if start is None:
        return plan
    network = plan.network.model_copy(
        update={"start": start, "architecture": None, "settings": {}, "bands": (), "encoder": None}
    )
    return plan.model_copy(update={"network": network})


def _warn_of_thresholds(record: Mapping[str, Any]) -> None:
    """Warn where a training was too short, or its threshold too extreme, to be relied on."""
    threshold, steps = record["threshold"], record["steps"]
    if threshold is not None and not 0.1 <= threshold <= 0.9:
        warn_user(
            f"the threshold chosen, {threshold}, is extreme: the probabilities of {record['name']}, after "
            f"{steps} steps on {record['files']} files, mean little. Train longer (epochs, length), give "
            "more scenes, or pass threshold=0.5 to predict",
            ModelWarning,
        )
    elif steps < HANDFUL:
        warn_user(
            f"{record['name']} was trained for {steps} steps only: train longer (epochs, length)",
            ModelWarning,
        )


def fit(plan: Plan, root: Path, folder: Path, taught: Path, loggers: Sequence[Logger] = ()) -> dict[str, Any]:
    """Train one stage, and return its record.

    The data lie in `root`, results go to `folder`, and what a teacher labelled lies in `taught`.
    """
    classes, data, settings = plan.network.classes, plan.data, plan.loop
    if plan.recipe.hard and plan.network.start is None:
        raise CloudMaskError(
            "hard in [recipe] looks for the files where a trained network errs most: name one, start = '...' "
            "in [network], or put hard into the recipe of a later [[stage]]"
        )
    device = "cpu" if device_of(settings.device).type == "cpu" else "auto"
    table = {**plan.network.given(), "seed": plan.recipe.seed}
    begun, asked = with_extras(begin(table), plan.loss, classes, device=device)
    if plan.recipe.given().get("hide_aux") and not begun.entries["aux"]:
        raise CloudMaskError(
            "hide_aux in [recipe] hides aux inputs, and the network takes none: name them, aux = [...] in "
            "[network], or leave hide_aux out"
        )
    if plan.recipe.resize and begun.entries.get("patch_fixed"):
        raise CloudMaskError(f"resize in [recipe]: {plan.network.start} takes one size of window only")
    takes = "among" if begun.entries.get("fills") else "bands"
    recipe = plan.recipe.model_copy(update={takes: begun.entries["bands"]})
    to_fit, dev, held_out = entries_of(plan, root, taught, recipe)
    check_aux([*to_fit, *dev], begun.entries["aux"], every=not begun.entries["any_bands"])
    check_no_leak([*to_fit, *dev], held_out)
    if dev and not settings.watch:
        settings = settings.model_copy(update={"watch": "score"})
    sources = {entry.source for entry in to_fit}
    wanted = tuple(begun.entries["bands"]) if recipe.bands else "all"
    hardness = losses_of(begun.called, classes, to_fit, wanted, recipe.pixels > 0) if recipe.hard else ()
    stream = Stream(
        tuple(to_fit), recipe, data.batch, data.length, epochs=settings.epochs, memory=data.memory,
        weights={source: weight for source, weight in data.weights.items() if source in sources},
        rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")), teacher=asked,
        aux=begun.entries["aux"], hardness=hardness,
    )  # fmt: skip
    sets, teaching = sets_of(plan, begun), None
    if asked:
        teaching = asked.loss(classes)
    elif weight := plan.loss.cover:  # of what a sample's own soft labels say
        teaching = partial(losses.teaching, classes=classes, weight=weight)
    trainer = Trainer(
        begun.called, classes, combined(plan.loss.terms, classes, smoothing=plan.loss.smoothing), stream,
        settings, folder,
        validate=(lambda net: validate(net, classes, dev, sets, plan.validation.metric)) if dev else None,
        loggers=() if stream.rank else [*open_loggers(plan.log.to, folder, plan.name), *loggers],
        about={**_about(plan), "files": _listing([*to_fit, *dev])},
        teaching=teaching,
    )  # fmt: skip
    steps = trainer.run().total
    begun.called.load_state_dict(checkpoint.read_weights(folder / "best.safetensors"))
    return finish(plan, begun, dev, to_fit, folder, steps)


def _about(plan: Plan) -> dict[str, str]:
    """Return all of a plan on which weights depend, but for what the loop keeps itself."""
    network, data = plan.network.given(), plan.data.given()
    if plan.network.start is not None:
        network["start"] = model_of(plan.network.start).sha256
    if plan.network.encoder is not None:
        network["encoder"] = digest(fetch.read(plan.network.encoder, ""))
    data = {key: value for key, value in data.items() if key not in ("folder", "memory")}
    tables = {"network": network, "recipe": plan.recipe.given(), "loss": plan.loss.given(), "data": data}
    return {name: json.dumps(table, sort_keys=True, default=str) for name, table in tables.items()}


def _listing(entries: list[Entry]) -> str:
    """Return a hash of what is trained on and chosen by: the files' sources, names and sizes."""
    files = sorted((e.source, e.scene, e.path.name, e.path.stat().st_size, e.part) for e in entries)
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


def score_on(plan: Plan, table: Score, root: Path, card_path: Path) -> Scores:
    """Return the scores of the finished model, as users get it, on what the table [score] names.

    Patches of another sensor serve, averaged to larger pixels if need be: so it is seen how a model that
    learnt from one instrument does on another.
    """
    entries = find(root / table.folder, table.sources)
    outcomes = run_model(model_of(card_path), entries, bands=table.bands, coarser=table.coarser)
    if not outcomes:
        raise CloudMaskError(
            f"[score]: no patch of {root / table.folder} has the bands {table.bands} and those that "
            f"{plan.name} takes; it is trained, and written as {card_path}"
        )
    return pooled(outcomes.values()).scores()


def sets_of(plan: Plan, begun: Begun) -> dict[str, str | tuple[str, ...]]:
    """Return the sets of bands to validate on, by name; a network for fixed bands has its own only."""
    if begun.entries["bands"] and not begun.entries.get("fills"):
        return {"+".join(begun.entries["bands"]): tuple(begun.entries["bands"])}
    return {name: name for name in plan.validation.bands}


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
    histograms = _decided(_histograms(network, classes, dev, sets))
    scores = {name: choose_threshold(histogram, metric)[1] for name, histogram in histograms.items()}
    return {**scores, "score": sum(scores.values()) / len(scores)} if scores else {}


def _histograms(
    network: nn.Module, classes: tuple[str, ...], dev: list[Entry], sets: Mapping[str, str | tuple[str, ...]]
) -> dict[str, Histogram]:
    """Return the probabilities of cloud with each set of bands that a scene has."""
    outcomes = {
        name: pooled(run_on(network, classes, dev, bands=bands).values()) for name, bands in sets.items()
    }
    return {name: each.histogram for name, each in outcomes.items() if each.histogram is not None}


def _decided(histograms: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """Return those of scenes with cloud and without: others give no threshold."""
    return {name: each for name, each in histograms.items() if each.counts.sum(axis=1).all()}


def _warn_of_one_class(histograms: Mapping[str, Histogram], temperature: bool) -> None:
    """Warn where scenes were kept for choosing, and no threshold can be chosen by them."""
    if temperature or _decided(histograms):  # a temperature that cannot be fitted has been warned of
        return
    cloud = sum(int(each.counts[1].sum()) for each in histograms.values())
    clear = sum(int(each.counts[0].sum()) for each in histograms.values())
    what = (
        "no label that decides cloud" if not cloud + clear else "nothing but cloud" if cloud else "no cloud"
    )
    warn_user(
        f"the scenes kept for choosing show {what}: no threshold can be chosen, and the card has none (the "
        "likeliest class is taken). Give more scenes, or name some with and without cloud in dev_scenes",
        ModelWarning,
    )


def finish(
    plan: Plan, begun: Begun, dev: list[Entry], fit: list[Entry], folder: Path, steps: int
) -> dict[str, Any]:
    """Choose temperature and threshold, and write the weights, their card and the record."""
    metric, classes = plan.validation.metric, plan.network.classes
    sets = sets_of(plan, begun) if dev else {}
    heat, fitted = 1.0, plan.validation.temperature and bool(dev)
    if fitted:
        heat = fit_temperature(begun.called, classes, dev, sets.values())
        divide_head(begun.kept, begun.architecture, begun.config, heat)
    histograms = _histograms(begun.called, classes, dev, sets)
    if dev:
        _warn_of_one_class(histograms, fitted)
    by_bands: dict[str, Any] = {}
    total: Histogram | None = None
    for name, histogram in _decided(histograms).items():
        best = choose_threshold(histogram, metric)
        error = reliability(histogram).expected_error
        by_bands[name] = {
            "threshold": best[0], "score": round(best[1], 4), "calibration_error": round(error, 4)
        }  # fmt: skip
        total = histogram if total is None else total + histogram
    threshold = None if total is None else choose_threshold(total, metric)[0]
    path = folder / f"{plan.name}.safetensors"
    weights = packed(begun.kept.state_dict(), begun.architecture, begun.config)
    replace_file(path, weights)
    sha256 = digest(weights)
    spec = card_of(plan, begun, path.name, sha256, threshold)
    path.with_suffix(".json").write_text(card.to_json(spec))
    record = {
        "name": plan.name,
        "sha256": sha256,
        "threshold": threshold,
        "temperature": round(heat, 4),
        "reliability": curve_of(total),
        "steps": steps,
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
    some = begun.entries["any_bands"] or begun.entries.get("fills")
    least = plan.recipe.least_bands if some else begun.entries.get("min_bands", 1)
    return ModelSpec(
        name=plan.name, classes=plan.network.classes, loader=LOADER, sha256=sha256,
        weights=weights, licence=plan.licence, description=plan.description, architecture=begun.architecture,
        config=json.dumps(begun.config, sort_keys=True), threshold=threshold,
        **{**begun.entries, "min_bands": least, "version": "1", **plan.card.given()},
    )  # fmt: skip


def curve_of(histogram: Histogram | None) -> list[list[float]]:
    """Return the reliability curve as predicted, observed, and share of the pixels, a bin a row.

    Examples
    --------
    >>> import numpy as np
    >>> curve_of(Histogram.of(np.array([0.25, 0.25, 0.75]), np.array([0, 1, 1])))
    [[0.25, 0.5, 0.6667], [0.75, 1.0, 0.3333]]
    """
    if histogram is None:
        return []
    curve = reliability(histogram)
    rows = zip(curve.predicted, curve.observed, curve.pixels / max(curve.pixels.sum(), 1), strict=True)
    return [[round(float(v), 4) for v in row] for row in rows if row[2]]
