"""The tables of a training config: what each entry may be, and its default."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics import METRICS
from xcloudmask.metrics.labels import WORDS, covers_all, open_classes
from xcloudmask.models.arch import NAMES
from xcloudmask.train.config_base import Above0, AtLeast1, Count, From0, Share, Table, one_of
from xcloudmask.train.evaluate import SETS
from xcloudmask.train.imitation import INSTRUMENTS
from xcloudmask.train.loggers import LOGGERS
from xcloudmask.train.losses import LOSSES
from xcloudmask.train.samples import AUX_NAMES
from xcloudmask.types import ModelSpec


def _known_model(model: Any) -> Any:
    if not isinstance(model, str | ModelSpec):
        raise ValueError("must be the name of a model")
    names = [*models.families(), *models.names()]
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
    sensors: tuple[str, ...] | None = None
    weights: dict[str, From0] = Field(
        default={}, description="be a table of numbers, 0 or more: { l8_biome = 6.0 }"
    )
    dev: Share = 0.0
    dev_scenes: tuple[str, ...] = ()
    used: Annotated[float, Field(gt=0, le=1)] = 1.0
    batch: AtLeast1 = 16
    length: AtLeast1 = 100
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
    bands: Names = ()
    aux: Annotated[tuple[Annotated[str, one_of(AUX_NAMES)], ...], AfterValidator(_none_twice)] = ()
    start: Model = Field(default=None, description=f"be {MODEL}")
    encoder: str | None = None
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
        unused = [entry for entry in ("architecture", "settings", "encoder") if getattr(self, entry)]
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
    cover: From0 = 0.0
    distil: Distil | None = None

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not (any(self.terms.values()) or self.recovery or self.cover or self.distil):
            raise CloudMaskError("all terms in [loss] are 0: nothing would be learnt")
        return self


class Validation(Table):
    """How epochs are compared, and the threshold chosen: the table [validation]."""

    section = "validation"
    bands: tuple[Annotated[str, one_of(SETS)], ...] = Field(default=("all",), min_length=1)
    metric: Annotated[str, one_of(METRICS)] = "balanced_accuracy"
    temperature: bool = False
    instrument: Annotated[str, one_of(INSTRUMENTS)] | None = None


class Score(Table):
    """What the trained model is scored on, by itself and with others' bands: the table [score]."""

    section = "score"
    folder: str = "val"
    sources: tuple[str, ...] | None = None
    bands: Annotated[str, one_of(SETS)] = "all"
    coarser: AtLeast1 = 1


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
