"""A config file, read and checked, and the stages that it describes."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError

#: What each table of a config may hold; those of recipe and loop are checked where they are used.
TABLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "name", "description", "licence", "data", "recipe", "network", "loss", "loop", "validation", "card",
        "teacher", "stage", "search", "log",
    ),
    "data": (
        "folder", "train", "held_out", "sources", "weights", "dev", "dev_scenes", "used", "batch", "length",
        "seed", "memory", "labelled", "teacher",
    ),
    "network": (
        "architecture", "classes", "settings", "seed", "bands", "start", "head_only", "only", "estimate",
    ),
    "loss": ("terms", "smoothing", "recovery", "distil"),
    "validation": ("bands", "metric", "temperature"),
    "card": ("version", "gsd", "patch", "overlap", "citation", "training_data", "scores", "limits"),
    "teacher": ("models", "unlabelled", "confident", "tta"),
    "log": ("to",),
}  # fmt: skip
#: Tables that a stage may change, entry by entry.
STAGED = ("data", "recipe", "loss", "loop", "validation")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a config file says.

    Examples
    --------
    >>> Plan.of({"name": "a", "date": {}})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown table or setting 'date'; did you mean 'data'? ...
    """

    name: str
    tables: Mapping[str, Mapping[str, Any]]
    description: str = ""
    licence: str = ""
    sha256: str = ""
    stages: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a config file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            plan = cls.of(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise CloudMaskError(f"{path}: not TOML: {error}") from error
        except FileNotFoundError:
            raise CloudMaskError(f"{path}: there is no such config file; examples/train has some") from None
        return replace(plan, sha256=hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Plan:
        """Check what a config says, as a mapping of tables."""
        _known(config, "", "table or setting")
        stages = tuple(config.get("stage", ()))
        tables = {key: value for key, value in config.items() if isinstance(value, dict)}
        for name, table in tables.items():
            if name in TABLES:
                _known(table, name, f"setting of [{name}]")
        if "name" not in config:
            raise CloudMaskError("the config has no name = '...', which its files will bear")
        for needed in ("data", "network", "loop"):
            if needed not in tables:
                raise CloudMaskError(f"{config['name']}: the table [{needed}] is missing")
        if not {"architecture", "start"} & tables["network"].keys() or "classes" not in tables["network"]:
            raise CloudMaskError(f"{config['name']}: [network] needs classes, and architecture or start")
        for stage in stages:
            for key, value in stage.items():
                if key not in ("name", *STAGED):
                    raise OptionError("setting of [[stage]]", key, allowed=("name", *STAGED))
                if key in TABLES:
                    _known(value, key, f"setting of [stage.{key}]")
            if "name" not in stage:
                raise CloudMaskError(f"{config['name']}: a [[stage]] has no name = '...'")
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        return cls(
            config["name"], tables, config.get("description", ""), config.get("licence", ""), digest, stages
        )

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table, empty if the file has none."""
        return self.tables.get(name, {})

    def with_entry(self, table: str, **entries: Any) -> Plan:
        """Return the plan with entries of one table replaced."""
        return replace(self, tables={**self.tables, table: {**self.table(table), **entries}})

    def each_stage(self) -> list[Plan]:
        """Return one plan a stage, itself if it has none; the last bears the plan's own name.

        Examples
        --------
        >>> plan = Plan.of({"name": "a", "data": {"batch": 2}, "network": {"start": "b", "classes": []},
        ...                 "loop": {"epochs": 1},
        ...                 "stage": [{"name": "weak", "data": {"batch": 4}}, {"name": "strong"}]})
        >>> [(stage.name, stage.table("data")["batch"]) for stage in plan.each_stage()]
        [('weak', 4), ('a', 2)]
        """
        if not self.stages:
            return [self]
        out = []
        for stage in self.stages:
            told = replace(self, name=stage["name"], stages=())
            for name in STAGED:
                told = told.with_entry(name, **stage.get(name, {}))
            out.append(told)
        return [*out[:-1], replace(out[-1], name=self.name)]


def _known(table: Mapping[str, Any], name: str, what: str) -> None:
    for key in table:
        if key not in TABLES[name]:
            raise OptionError(what, key, allowed=TABLES[name])
