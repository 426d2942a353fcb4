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


class Recipe(Table):
    """What is done to a sample on its way into a batch, the table [recipe]; the shares are probabilities.

    Parameters
    ----------
    seed : int
        Of everything random: the first weights, samples, dropout.
    size : int
        Rows and columns of a crop.
    resize : tuple of int
        Progressive resizing: with ``(4, 2, 1)`` crops are averaged 4 by 4 in the first third of the epochs,
        to a quarter of `size`, then 2 by 2, and in the last third left as they are.
    hard : float
        Hard fine-tuning: this share of the samples is drawn from files in proportion to the loss that the
        network has there as the training starts, which must be a trained one; the rest as ever.
    pixels : int
        If not 0, this many labelled pixels are drawn from each crop or table, for pixel-wise networks.
    least_bands, whole : int, float
        Fewest bands of a random subset, and the share of samples that keep all bands.
    mix, simulate, coarsen, flip, gaps : float
        Shares of samples with cloud laid over from another, simulated cloud, larger pixels, turns, gaps.
    radiometry, air, noise, salt_pepper, saturate, bright : float
        Shares of samples with gain and offset, more or less air light, noise, single pixels turned black or
        white, clipping, and with clear ground turned into snow or sand.
    hide_aux : float
        Share of samples from which an aux input is hidden, so that the network learns to do without.
    coarsest : float
        Largest pixel size made, in metres.
    imitate, finest : float
        Share of patches seen by an imitated instrument (`xcloudmask.train.imitation`) of pixels from `finest`
        metres to `coarsest`, half of them with Proba-V's bands if they can be made; others keep their bands.
        `size` then counts its pixels, and the share of each that is cloud can be learnt: ``cover`` in [loss].
        Of each patch `xcloudmask.train.stream.VARIANTS` imitations are made, when first drawn, and kept.
    reflectance_only : bool
        Whether thermal and other bands are left out.
    bands : tuple of str
        If any, these by common name, in this order, and no subsets: for a network of fixed bands.
    among : tuple of str
        If any, only these by common name are kept, as many as there are, before subsets are drawn: for a
        network of fixed bands that estimates those that are missing.
    mosaic : bool
        Whether tables of pixels become patches, for a network that looks at neighbours.

    Examples
    --------
    >>> Recipe(size=64).pixels
    0
    """

    section = "recipe"
    seed: Count = 0
    size: AtLeast1 = 128
    resize: tuple[AtLeast1, ...] = ()
    hard: Share = 0.0
    pixels: Count = 0
    least_bands: AtLeast1 = 3
    whole: Share = 0.25
    mix: Share = 0.0
    simulate: Share = 0.0
    coarsen: Share = 0.0
    coarsest: Above0 = 1000.0
    imitate: Share = 0.0
    finest: Above0 = 100.0
    flip: Share = 1.0
    gaps: Share = 0.0
    radiometry: Share = 0.0
    air: Share = 0.0
    noise: Share = 0.0
    salt_pepper: Share = 0.0
    saturate: Share = 0.0
    bright: Share = 0.0
    hide_aux: Share = 0.25
    reflectance_only: bool = True
    bands: tuple[str, ...] = ()
    among: tuple[str, ...] = ()
    mosaic: bool = False

    @model_validator(mode="after")
    def _sizes_are_whole(self) -> Self:
        for factor in self.resize:
            if self.size % factor:
                raise CloudMaskError(
                    f"resize = {list(self.resize)} in [recipe]: size = {self.size} is no multiple of {factor}"
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


class Settings(Table):
    """How to train: the table [loop] of a config.

    Parameters
    ----------
    epochs : int
        Passes of ``stream.length`` batches.
    optimiser : {"adamw", "adam", "sgd"}
        How weights follow the gradient.
    rate, weight_decay : float
        Learning rate, and what pulls weights toward 0.
    momentum : float
        With ``"sgd"``, the share of the last step that the next one keeps.
    warmup : int
        Steps in which the rate rises from nothing.
    schedule : {"cosine", "plateau", "constant"}
        What it does afterwards.
    patience : int
        With ``"plateau"``, validations without a better score after which the rate is divided by 5.
    ema : float
        Decay of the mean of the weights, which is what is validated and kept; 0 for none.
    clip : float
        Largest norm of the gradient; 0 for none.
    autocast : {"off", "bf16", "fp16"}
        Precision inside the network.
    stop_after : int
        Epochs without a better score after which training stops; 0 for never.
    watch : str
        The score of the validation that is watched, higher being better; without validation, minus the loss.
    save_every : int
        Steps between checkpoints within an epoch; 0 for one a minute.
    workers : int
        Threads that make batches ahead.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``...
    deterministic : bool
        Whether to refuse operations that may differ from run to run.

    Examples
    --------
    >>> Settings(epochs=3).schedule
    'cosine'
    """

    section = "loop"
    epochs: AtLeast1 = Field(examples=[10])
    optimiser: Annotated[str, one_of(("adamw", "adam", "sgd"))] = "adamw"
    rate: Above0 = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: From0 = 1e-4
    warmup: Count = 0
    schedule: Annotated[str, one_of(("cosine", "plateau", "constant"))] = "cosine"
    patience: AtLeast1 = 5
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip: From0 = 0.0
    autocast: Annotated[str, one_of(("off", "bf16", "fp16"))] = "off"
    stop_after: Count = 0
    watch: str = ""
    save_every: Count = 0
    workers: Count = 0
    device: str = "auto"
    deterministic: bool = True

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum and self.optimiser != "sgd":
            raise CloudMaskError(
                f"momentum = {self.momentum} in [loop] is of optimiser = 'sgd', not {self.optimiser!r}"
            )
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
