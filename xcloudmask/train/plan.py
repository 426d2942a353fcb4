"""A config file, read and checked before anything else is read, and the stages that it describes."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import Field, PrivateAttr, model_validator

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import config_tables as tables
from xcloudmask.train.config_base import Table
from xcloudmask.train.losses import combined
from xcloudmask.train.networks import begin
from xcloudmask.types import ModelSpec

#: Tables that a stage may change, entry by entry.
STAGED = ("data", "recipe", "loss", "loop", "validation")
#: Tables that a search may vary.
TABLES = ("data", "recipe", "network", "loss", "loop", "validation", "score", "card", "teacher", "log")
#: Names of other files that a training writes: beside weights, and beside the folders of stages.
TAKEN = ("best", "last", "record")
TAKEN_BY_FILES = (
    *TAKEN, "teacher", "tensorboard", "mlflow-run", "log.csv", "state.pt", "curves.png", "record.json",
    "best.safetensors", "last.safetensors",
)  # fmt: skip


def _check_name(
    name: Any, what: str = "name", others: tuple[str, ...] = (), taken: tuple[str, ...] = TAKEN
) -> None:
    """Raise CloudMaskError unless a name can be that of files, in any system, and is not that of others."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise CloudMaskError(
            f"{what} = {name!r} must be a text of letters, digits, '_', '.' and '-', the first a letter or a "
            "digit: files will bear it"
        )
    if name.casefold() in taken:
        raise CloudMaskError(f"{what} = {name!r} is what a training calls a file of its own: choose another")
    if name.casefold() in {other.casefold() for other in others}:
        raise CloudMaskError(f"{what} = {name!r} is used twice: stages and what they end in need own names")


class Plan(Table):
    """What a config file says of one training; of its last stage, if it has several.

    Examples
    --------
    >>> Plan.of({"name": "a", "date": {}})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown table or setting 'date'; did you mean 'data'? ...
    """

    name: str = Field(title="name = '...', which its files will bear")
    description: str = ""
    licence: str = ""
    data: tables.Data = Field(title="table [data]")
    recipe: tables.Recipe = tables.Recipe()
    network: tables.Network = Field(title="table [network]")
    loss: tables.Loss = tables.Loss()
    loop: tables.Settings = Field(title="table [loop]")
    validation: tables.Validation = tables.Validation()
    score: tables.Score | None = None
    card: tables.Card = tables.Card()
    teacher: tables.Teacher | None = None
    search: tables.Entries = Field(default_factory=dict)
    log: tables.Log = tables.Log()
    stage: tuple[()] = ()  # what stages change is in the plans of `each_stage`
    _config: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _sha256: str = PrivateAttr("")
    _before: tuple[Plan, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _losses_suit_classes(self) -> Self:
        combined(self.loss.terms, self.network.classes)
        return self

    @model_validator(mode="after")
    def _network_can_be_built(self) -> Self:
        if self.network.start is None:  # else what it starts from was built before
            with torch.device("meta"):  # without weights
                begin({**self.network.given(), "encoder": None})
        return self

    @model_validator(mode="after")
    def _windows_overlap_in_part(self) -> Self:
        usual: dict[str, Any] = {field.name: field.default for field in fields(ModelSpec)}
        usual |= {} if self.network.start is None else {"patch": None, "overlap": None}  # it has its own
        usual |= {key: value for key, value in self.card.given().items() if value is not None}
        patch, overlap = usual["patch"], usual["overlap"]
        if patch is not None and overlap is not None and overlap >= patch:
            raise CloudMaskError(f"overlap = {overlap} in [card] must be below patch = {patch}")
        return self

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a config file."""
        try:
            text = Path(path).read_text(encoding="utf-8")
            config = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise CloudMaskError(f"{path}: not TOML: {error}") from error
        except FileNotFoundError:
            raise CloudMaskError(f"{path}: there is no such config file; examples/train has some") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CloudMaskError(f"{path}: cannot be read as a text in UTF-8: {error}") from error
        return cls.of(config, sha256=hashlib.sha256(text.encode()).hexdigest())

    @classmethod
    def of(cls, config: Mapping[str, Any], *, sha256: str = "") -> Plan:
        """Check a config, a mapping of tables: each stage as it will be, and all that a search may try."""
        alone = {key: value for key, value in config.items() if key != "stage"}
        if "name" in config:
            _check_name(config["name"])
        plans = []
        for stage, changed in _each_stage(config, alone):
            try:
                plans.append(cls(**changed))
            except CloudMaskError as error:
                if not stage or str(error) == _error_of(alone):
                    raise
                raise CloudMaskError(f"stage {stage!r}: {error}") from error
        *before, plan = plans
        plan._config, plan._before = dict(config), tuple(before)
        text = json.dumps(config, sort_keys=True, default=str)
        for each in plans:
            each._sha256 = sha256 or hashlib.sha256(text.encode()).hexdigest()
        for name, choice in plan.search.items():
            for value in _values_of(choice):
                try:
                    plan.with_values({name: value})
                except CloudMaskError as error:
                    raise CloudMaskError(f"[search] {name!r}: {error}") from error
        return plan

    @property
    def sha256(self) -> str:
        """The hash of the config."""
        return self._sha256

    def with_values(self, values: Mapping[str, Any]) -> Plan:
        """Return the plan with what a search tries: values by ``table.entry`` or ``table.entry.part``."""
        changed = {key: value for key, value in self._config.items() if key not in ("search", "score")}
        for name, value in values.items():
            table, *rest = name.split(".")
            if not 1 <= len(rest) <= 2:
                raise CloudMaskError(
                    "the name must be table.entry, or table.entry.part, in quotes: 'loop.rate'"
                )
            if table not in TABLES:
                raise OptionError("table in [search]", table, allowed=TABLES)
            entries = changed.get(table, {})
            if len(rest) == 2:
                parts = entries.get(rest[0], {})
                if not isinstance(parts, Mapping):
                    raise CloudMaskError(f"{rest[0]} = {parts!r} in [{table}] has no parts")
                value = {**parts, rest[1]: value}
            changed[table] = {**entries, rest[0]: value}
        return type(self).of(changed, sha256=self._sha256)

    def each_stage(self) -> list[Plan]:
        """Return one plan a stage, itself if it has none; the last bears the plan's own name.

        Examples
        --------
        >>> plan = Plan.of({"name": "a", "data": {"batch": 2}, "loop": {"epochs": 1},
        ...                 "network": {"start": "spectral", "classes": ["clear", "cloud"]},
        ...                 "stage": [{"name": "weak", "data": {"batch": 4}}, {"name": "strong"}]})
        >>> [(stage.name, stage.data.batch) for stage in plan.each_stage()]
        [('weak', 4), ('a', 2)]
        """
        return [*self._before, self]


def _each_stage(config: Mapping[str, Any], alone: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of each stage, "" if there is none, and the config as it is in it."""
    stages = config.get("stage", ())
    if not isinstance(stages, list | tuple) or not all(isinstance(stage, dict) for stage in stages):
        raise CloudMaskError(
            f"stage = {stages!r} must be a list of tables: [[stage]] in two brackets, once for each stage"
        )
    if not stages:
        yield "", dict(alone)
    names: list[str] = [str(config.get("name"))]
    for number, given in enumerate(stages, 1):
        stage = tables.Stage(**given)
        _check_name(given["name"], "name of a [[stage]]", tuple(names), TAKEN_BY_FILES)
        names.append(stage.name)
        changed = dict(alone)
        for table in STAGED:
            before = alone.get(table, {})
            entries = getattr(stage, table)
            if entries and isinstance(before, Mapping):  # if it is none, it is refused as it is
                changed[table] = {**before, **entries}
        yield stage.name, changed if number == len(stages) else {**changed, "name": stage.name}


def _values_of(choice: Any) -> tuple[Any, ...]:
    """Return what a search may try of an entry: the values of a list, the ends of a range."""
    if isinstance(choice, dict):
        return tuple(choice[end] for end in ("low", "high") if end in choice)
    return tuple(choice) if isinstance(choice, list | tuple) else ()


def _error_of(config: Mapping[str, Any]) -> str:
    """Return what is wrong with a config, "" if nothing is."""
    try:
        Plan(**config)
    except CloudMaskError as error:
        return str(error)
    return ""
