"""A config file, read and checked before anything else is read, and the stages that it describes."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, PrivateAttr, model_validator

from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics import METRICS
from xcloudmask.metrics.labels import WORDS, covers_all, open_classes
from xcloudmask.models.arch import NAMES
from xcloudmask.train.evaluate import SETS
from xcloudmask.train.loggers import LOGGERS
from xcloudmask.train.loop import Settings
from xcloudmask.train.losses import LOSSES
from xcloudmask.train.stream import Recipe
from xcloudmask.train.table import Above0, AtLeast1, Count, From0, Share, Table, one_of
from xcloudmask.types import ModelSpec

#: Tables that a stage may change, entry by entry.
STAGED = ("data", "recipe", "loss", "loop", "validation")
#: Tables that a search may vary.
TABLES = ("data", "recipe", "network", "loss", "loop", "validation", "card", "teacher", "log")
#: Names of other files that a training writes: beside weights, and beside the folders of stages.
TAKEN = ("best", "last", "record")
TAKEN_BY_FILES = (
    *TAKEN, "teacher", "tensorboard", "mlflow-run", "log.csv", "state.pt", "curves.png", "record.json",
    "best.safetensors", "last.safetensors",
)  # fmt: skip


def _known_model(model: Any) -> Any:
    if not isinstance(model, str | ModelSpec):
        raise ValueError("must be the name of a model")
    names = [*models.families(), *models.list()]
    if (
        isinstance(model, str)
        and not model.endswith((".safetensors", ".onnx", ".json"))
        and model not in names
    ):
        raise OptionError("", model, allowed=names)
    return model  # the path of weights or a card may be of some to come


def _none_twice(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("must not name one twice")
    return names


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError("must be in order")
    return pair


def check_name(
    name: Any, what: str = "name", others: tuple[str, ...] = (), taken: tuple[str, ...] = TAKEN
) -> Any:
    """Return a name if it can be that of files, in any system, and is not that of others.

    Examples
    --------
    >>> check_name("a/b")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: name = 'a/b' must be a text of letters, digits, '_', '.' and '-', ...
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise CloudMaskError(
            f"{what} = {name!r} must be a text of letters, digits, '_', '.' and '-', the first a letter or a "
            "digit: files will bear it"
        )
    if name.casefold() in taken:
        raise CloudMaskError(f"{what} = {name!r} is what a training calls a file of its own: choose another")
    if name.casefold() in {other.casefold() for other in others}:
        raise CloudMaskError(f"{what} = {name!r} is used twice: stages and what they end in need own names")
    return name


Model = Annotated[Any, AfterValidator(_known_model)]
MODEL = "the name of a model, or the path of its card, in quotes"
Entries = dict[str, Any]
Names = Annotated[tuple[str, ...], AfterValidator(_none_twice)]


class Data(Table):
    """What is trained on: the table [data]."""

    section = "data"
    folder: str = "."
    train: str = "train"
    held_out: str = ""
    sources: tuple[str, ...] | None = None
    weights: dict[str, From0] = Field(
        default={}, description="be a table of numbers, 0 or more: { l8_biome = 6.0 }"
    )
    dev: Share = 0.0
    dev_scenes: tuple[str, ...] = ()
    used: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: AtLeast1 = 16
    length: AtLeast1 = 100
    seed: Count = 0
    memory: AtLeast1 = 2**29
    labelled: bool = True
    teacher: bool = False

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Self:
        if not (self.labelled or self.teacher):
            raise CloudMaskError(
                "labelled = false in [data] leaves nothing to train on but what a teacher labelled: "
                "teacher = true, and models in [teacher]"
            )
        return self


class Network(Table):
    """What is trained: the table [network]."""

    section = "network"
    architecture: Annotated[str, one_of(NAMES)] | None = None
    classes: Annotated[
        tuple[Annotated[str, one_of([word for word in WORDS if word != "no_data"])], ...],
        AfterValidator(_none_twice),
    ] = Field(min_length=1, examples=[["clear", "cloud"]])
    settings: Entries = Field(default_factory=dict)
    seed: Count = 0
    bands: Names = ()
    start: Model = Field(default=None, description=f"be {MODEL}")
    head_only: bool = False
    only: tuple[str, ...] = ()
    estimate: bool = False

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if not covers_all(open_classes(self.classes)):
            raise CloudMaskError(
                f"classes = {list(self.classes)} in [network] must cover every pixel, as clear and cloud do"
            )
        if self.start is None and self.architecture is None:
            raise CloudMaskError(
                "[network] needs architecture = '...', or start = '...', the model to start from"
            )
        unused = [entry for entry in ("architecture", "settings", "bands") if getattr(self, entry)]
        if self.start is not None and unused:
            raise CloudMaskError(
                f"[network] has start and {unused[0]}: what it starts from has its own; leave out one"
            )
        return self


class Distil(Table):
    """A model to learn from: the table [loss.distil]."""

    section = "loss.distil"
    model: Model = Field(description=f"be {MODEL}", examples=["ukis-any"])
    weight: Above0 = 1.0
    temperature: Above0 = 1.0


class Loss(Table):
    """What is made small: the table [loss]."""

    section = "loss"
    terms: dict[Annotated[str, one_of(LOSSES)], From0] = Field(
        default={"ambiguous-ce": 1.0}, min_length=1,
        description="be a table of numbers, 0 or more, one at least: { ambiguous-ce = 1.0 }",
    )  # fmt: skip
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    recovery: From0 = 0.0
    distil: Distil | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not (any(self.terms.values()) or self.recovery or self.distil):
            raise CloudMaskError("all terms in [loss] are 0: nothing would be learnt")
        return self


class Validation(Table):
    """How epochs are compared, and the threshold chosen: the table [validation]."""

    section = "validation"
    bands: tuple[Annotated[str, one_of(SETS)], ...] = Field(default=("all",), min_length=1)
    metric: Annotated[str, one_of(METRICS)] = "balanced_accuracy"
    temperature: bool = False


class Card(Table):
    """What the card of the trained model says: the table [card]."""

    section = "card"
    version: str = "1"
    gsd: Annotated[tuple[Above0, Above0], AfterValidator(_in_order)] | None = Field(
        default=None, description="be two numbers above 0, from and to, in metres: [10, 30]"
    )
    patch: AtLeast1 | None = None
    overlap: Count | None = None
    citation: str = ""
    training_data: str = ""
    scores: str = ""
    limits: str = ""


class Teacher(Table):
    """What labels the unlabelled patches: the table [teacher]."""

    section = "teacher"
    models: tuple[Model, ...] = Field(
        min_length=1, description="be a list of models, by name or by the path of a card, one at least",
        examples=[["ukis-4band"]],
    )  # fmt: skip
    unlabelled: str = "unlabelled"
    confident: Annotated[float, Field(gt=0.5, le=1)] = 0.9
    tta: bool = False


class Log(Table):
    """Where the log goes besides ``log.csv``: the table [log]."""

    section = "log"
    to: tuple[Annotated[str, one_of(LOGGERS)], ...] = ()


class Stage(Table):
    """One of several trainings in a row, each from the weights of the one before: a table [[stage]]."""

    section = "[stage]"
    name: Any = Field(examples=["weak"])
    data: Entries = Field(default_factory=dict)
    recipe: Entries = Field(default_factory=dict)
    loss: Entries = Field(default_factory=dict)
    loop: Entries = Field(default_factory=dict)
    validation: Entries = Field(default_factory=dict)


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
    data: Data = Field(title="table [data]")
    recipe: Recipe = Recipe()
    network: Network = Field(title="table [network]")
    loss: Loss = Loss()
    loop: Settings = Field(title="table [loop]")
    validation: Validation = Validation()
    card: Card = Card()
    teacher: Teacher | None = None
    search: Entries = Field(default_factory=dict)
    log: Log = Log()
    stage: tuple[()] = ()  # what stages change is in the plans of `each_stage`
    _config: Mapping[str, Any] = PrivateAttr(default_factory=dict)
    _sha256: str = PrivateAttr("")
    _before: tuple[Plan, ...] = PrivateAttr(())

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
            check_name(config["name"])
        plans = []
        for stage, changed in _each_stage(config, alone):
            try:
                plans.append(cls(**changed))
            except CloudMaskError as error:
                if not stage or str(error) == _error_of(alone):
                    raise
                raise CloudMaskError(f"stage {stage!r}: {error}") from error
        *before, plan = plans
        text = json.dumps(config, sort_keys=True, default=str)
        plan._config, plan._sha256 = dict(config), sha256 or hashlib.sha256(text.encode()).hexdigest()
        plan._before = tuple(before)
        for name, choice in plan.search.items():
            ends = (
                [choice[end] for end in ("low", "high") if end in choice]
                if isinstance(choice, dict)
                else choice
            )
            for value in ends if isinstance(ends, list | tuple) else ():
                try:
                    plan.with_values({name: value})
                except CloudMaskError as error:
                    raise CloudMaskError(f"[search] {name!r}: {error}") from error
        return plan

    @property
    def sha256(self) -> str:
        """The hash of the config."""
        return self._sha256

    def with_entry(self, table: str, **entries: Any) -> Plan:
        """Return the plan with entries of one table replaced."""
        changed = {**self._config, table: {**self._config.get(table, {}), **entries}}
        return type(self).of(changed, sha256=self._sha256)

    def with_values(self, values: Mapping[str, Any]) -> Plan:
        """Return the plan with what a search tries: values by ``table.entry`` or ``table.entry.part``."""
        changed = {key: value for key, value in self._config.items() if key != "search"}
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
        stage = Stage(**given)
        names.append(check_name(given["name"], "name of a [[stage]]", tuple(names), TAKEN_BY_FILES))
        changed = dict(alone)
        for table in STAGED:
            before = alone.get(table, {})
            entries = getattr(stage, table)
            if entries and isinstance(before, Mapping):  # if it is none, it is refused as it is
                changed[table] = {**before, **entries}
        yield stage.name, changed if number == len(stages) else {**changed, "name": stage.name}


def _error_of(config: Mapping[str, Any]) -> str:
    """Return what is wrong with a config, "" if nothing is."""
    try:
        Plan(**config)
    except CloudMaskError as error:
        return str(error)
    return ""
