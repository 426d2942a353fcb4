"""One training from one config file: data, network, loop, threshold, card."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import xcloudmask
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics import choose_threshold, reliability
from xcloudmask.models import arch, card
from xcloudmask.train import checkpoint
from xcloudmask.train.curves import draw
from xcloudmask.train.evaluate import SETS, pooled, run_on
from xcloudmask.train.files import Entry, check_no_leak, find, split
from xcloudmask.train.loop import Settings, Trainer
from xcloudmask.train.losses import combined
from xcloudmask.train.stream import Recipe, Stream
from xcloudmask.types import ModelSpec

TABLES = {
    "": ("name", "description", "licence", "data", "recipe", "network", "loss", "loop", "validation", "card"),
    "data": (
        "folder",
        "train",
        "held_out",
        "sources",
        "weights",
        "dev",
        "used",
        "batch",
        "length",
        "seed",
        "memory",
    ),
    "network": ("architecture", "classes", "settings", "seed"),
    "loss": ("terms", "smoothing"),
    "validation": ("bands", "metric"),
    "card": ("version", "gsd", "patch", "overlap", "citation", "training_data", "scores", "limits"),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """A config file, read and checked."""

    name: str
    tables: Mapping[str, Mapping[str, Any]]
    description: str = ""
    licence: str = ""
    sha256: str = ""

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a config file.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp(), "a.toml")
        >>> _ = path.write_text("name = 'a'" + chr(10) + "[date]" + chr(10))
        >>> Plan.read(path)
        Traceback (most recent call last):
        ...
        xcloudmask.errors.OptionError: unknown table or setting 'date'; did you mean 'data'? ...
        """
        text = Path(path).read_text(encoding="utf-8")
        try:
            config = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CloudMaskError(f"{path}: not TOML: {error}") from error
        _known(config, "", "table or setting")
        tables = {key: value for key, value in config.items() if isinstance(value, dict)}
        for name, table in tables.items():
            if name in TABLES:
                _known(table, name, f"setting of [{name}]")
        for needed in ("data", "network", "loop"):
            if needed not in tables:
                raise CloudMaskError(f"{path}: the table [{needed}] is missing")
        digest = hashlib.sha256(text.encode()).hexdigest()
        return cls(config["name"], tables, config.get("description", ""), config.get("licence", ""), digest)

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table, empty if the file has none."""
        return self.tables.get(name, {})


def _known(table: Mapping[str, Any], name: str, what: str) -> None:
    for key in table:
        if key not in TABLES[name]:
            raise OptionError(what, key, allowed=TABLES[name])


def train(
    config: str | Path, *, data: str | Path | None = None, out: str | Path | None = None
) -> dict[str, Any]:
    """Train as a config file says, and write weights, log, record and card.

    The weights and the card, ``NAME.safetensors`` and ``NAME.json``, are what `xcloudmask.models.load` takes.

    Parameters
    ----------
    config : path
        A TOML file; ``examples/train`` has some.
    data : path, optional
        The folder with the data, instead of the config's.
    out : path, optional
        Where results go; by default ``runs/<name>``.

    Returns
    -------
    dict
        The record: threshold and scores by set of bands, hashes of weights and config.
    """
    plan = Plan.read(config)
    folder = Path(out) if out is not None else Path("runs") / plan.name
    fit, dev, held_out = entries_of(plan, data)
    check_no_leak([*fit, *dev], held_out)
    settings = Settings.from_dict(plan.table("loop"))
    table, network_table = plan.table("data"), plan.table("network")
    classes = tuple(network_table["classes"])
    network = arch.build(
        network_table["architecture"],
        {**network_table.get("settings", {}), "classes": len(classes)},
        seed=network_table.get("seed", 0),
    )
    weights = {
        source: w for source, w in table.get("weights", {}).items() if source in {e.source for e in fit}
    }
    stream = Stream(
        tuple(fit), Recipe.from_dict(plan.table("recipe")), table.get("batch", 16), table.get("length", 100),
        seed=table.get("seed", 0), weights=weights, memory=table.get("memory", 2**29),
        rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")),
    )  # fmt: skip
    loss_table = plan.table("loss")
    loss = combined(
        loss_table.get("terms", {"ambiguous-ce": 1.0}), smoothing=loss_table.get("smoothing", 0.0)
    )
    trainer = Trainer(
        network, classes, loss, stream, settings, folder,
        validate=(lambda net: validate(net, classes, dev, plan.table("validation"))) if dev else None,
    )  # fmt: skip
    trainer.run()
    network.load_state_dict(checkpoint.read_weights(folder / "best.safetensors"))
    return finish(plan, network, classes, dev, fit, folder)


def entries_of(plan: Plan, data: str | Path | None = None) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Return what to fit, what to choose settings by, and what is held out."""
    table = plan.table("data")
    root = Path(data if data is not None else table.get("folder", "."))
    known = find(root / table.get("train", "train"), table.get("sources"))
    for source in table.get("weights", {}):
        if source not in {entry.source for entry in known}:
            raise OptionError("source in [data.weights]", source, allowed={entry.source for entry in known})
    fit, dev = split(known, table.get("dev", 0.0), used=table.get("used", 1.0))
    if not table.get("dev"):
        dev = []
    held = root / table["held_out"] if table.get("held_out") else None
    return fit, dev, find(held) if held is not None and held.is_dir() else []


def validate(
    network: nn.Module, classes: tuple[str, ...], dev: list[Entry], table: Mapping[str, Any]
) -> dict[str, float]:
    """Return the score of each set of bands at its best threshold, and their mean as ``score``."""
    out: dict[str, float] = {}
    metric = table.get("metric", "balanced_accuracy")
    for bands in table.get("bands", ["all"]):
        whole = pooled(run_on(network, classes, dev, bands=bands).values())
        if whole.histogram is not None:
            out[bands] = choose_threshold(whole.histogram, metric)[1]
    out["score"] = sum(out.values()) / max(len(out), 1)
    return out


def finish(
    plan: Plan, network: nn.Module, classes: tuple[str, ...], dev: list[Entry], fit: list[Entry], folder: Path
) -> dict[str, Any]:
    """Choose the threshold, and write the weights, their card and the record."""
    table = plan.table("validation")
    by_bands: dict[str, Any] = {}
    histogram = None
    for bands in table.get("bands", ["all"]) if dev else []:
        if bands not in SETS:
            raise OptionError("set of bands", bands, allowed=SETS)
        whole = pooled(run_on(network, classes, dev, bands=bands).values())
        if whole.histogram is None:
            continue
        best = choose_threshold(whole.histogram, table.get("metric", "balanced_accuracy"))
        error = reliability(whole.histogram).expected_error
        by_bands[bands] = {
            "threshold": best[0], "score": round(best[1], 4), "calibration_error": round(error, 4)
        }  # fmt: skip
        histogram = whole.histogram if histogram is None else histogram + whole.histogram
    threshold = choose_threshold(histogram, table.get("metric", "balanced_accuracy"))[0] if histogram else 0.5
    architecture = plan.table("network")["architecture"]
    settings = json.dumps(
        {**plan.table("network").get("settings", {}), "classes": len(classes)}, sort_keys=True
    )
    path = folder / f"{plan.name}.safetensors"
    note = json.dumps({"architecture": architecture, "config": json.loads(settings)}, sort_keys=True)
    # one entry: safetensors writes several in an order of its own, and equal weights shall be equal bytes
    checkpoint.write_weights(path, network.state_dict(), {"network": note})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    least = Recipe.from_dict(plan.table("recipe")).least_bands
    spec = ModelSpec(
        name=plan.name, bands=(), any_bands=True, min_bands=least,
        classes=classes, loader="xcloudmask.models.loading:network", sha256=digest, weights=path.name,
        licence=plan.licence, description=plan.description, architecture=architecture, config=settings,
        threshold=threshold, **{"version": "1", **plan.table("card")},
    )  # fmt: skip
    path.with_suffix(".json").write_text(card.to_json(spec))
    record = {
        "name": plan.name,
        "sha256": digest,
        "threshold": threshold,
        "chosen_on": by_bands,
        "sources": sorted({entry.source for entry in fit}),
        "files": len(fit),
        "config_sha256": plan.sha256,
        "xcloudmask": xcloudmask.__version__,
    }
    (folder / "record.json").write_text(json.dumps(record, indent=2) + "\n")
    if importlib.util.find_spec("matplotlib") is not None:
        draw(folder)
    return record
