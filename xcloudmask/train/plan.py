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
from xcloudmask.train.checks import (
    CHECKS,
    TAKEN_BY_FILES,
    check_name,
    check_network,
    check_search,
    check_stage,
    check_table,
)  # fmt: skip

#: What a config may hold.
PARTS = (
    "name", "description", "licence", "data", "recipe", "network", "loss", "loop", "validation", "card",
    "teacher", "stage", "search", "log",
)  # fmt: skip
#: Those that are tables.
TABLES = tuple(part for part in PARTS if part not in ("name", "description", "licence", "stage"))
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
        except (OSError, UnicodeDecodeError) as error:
            raise CloudMaskError(f"{path}: cannot be read as a text in UTF-8: {error}") from error
        return replace(plan, sha256=hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Plan:
        """Check what a config says, as a mapping of tables."""
        for key in config:
            if key not in PARTS:
                raise OptionError("table or setting", key, allowed=PARTS)
        if "name" not in config:
            raise CloudMaskError("the config has no name = '...', which its files will bear")
        check_name(config["name"], "name")
        tables = {key: config[key] for key in TABLES if key in config}
        for key, table in tables.items():
            check_table(key, table)
        for needed in ("data", "network", "loop"):
            if needed not in tables:
                raise CloudMaskError(f"{config['name']}: the table [{needed}] is missing")
        if not {"architecture", "start"} & tables["network"].keys() or "classes" not in tables["network"]:
            raise CloudMaskError(f"{config['name']}: [network] needs classes, and architecture or start")
        check_table("", {key: config[key] for key in CHECKS[""] if key in config})
        stages = _stages(config.get("stage", ()), config["name"])
        digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()
        plan = cls(
            config["name"], tables, config.get("description", ""), config.get("licence", ""), digest, stages
        )
        check_network(plan.table("network"), plan.table("card"))
        for number, stage in enumerate(plan.each_stage()):  # of the last one, too, before hours go into one
            try:
                check_stage(stage.tables)
            except CloudMaskError as error:
                if not stages:
                    raise
                raise CloudMaskError(f"stage {stages[number]['name']!r}: {error}") from error
        check_search(plan.table("search"), {key: plan.table(key) for key in TABLES if key != "search"})
        return plan

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
        >>> plan = Plan.of({"name": "a", "data": {"batch": 2}, "loop": {"epochs": 1},
        ...                 "network": {"start": "spectral", "classes": ["clear", "cloud"]},
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


def _stages(told: Any, name: str) -> tuple[Mapping[str, Any], ...]:
    """Return the stages of a config, checked."""
    if not isinstance(told, list | tuple) or not all(isinstance(stage, Mapping) for stage in told):
        raise CloudMaskError(
            f"stage = {told!r} must be a list of tables: [[stage]] in two brackets, once for each stage"
        )
    names = [name]
    for stage in told:
        for key, value in stage.items():
            if key not in ("name", *STAGED):
                raise OptionError("setting of [[stage]]", key, allowed=("name", *STAGED))
            if key != "name":
                check_table(key, value, f"stage.{key}")
        if "name" not in stage:
            raise CloudMaskError(f"{name}: a [[stage]] has no name = '...'")
        check_name(stage["name"], "name of a [[stage]]", names, TAKEN_BY_FILES)
        names.append(stage["name"])
    return tuple(told)
