"""Frozen value objects that travel through the library.

They hold numbers and names only, so they hash, compare and pickle cheaply: a task graph may carry them
by the ten thousand. They validate themselves when made, so code further down need not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from xcloudmask.errors import OptionError

Kind = Literal["reflectance", "brightness_temperature", "sar", "elevation"]
Level = Literal["toa", "boa"]
Activation = Literal["softmax", "sigmoid", "complement"]
AuxName = Literal["elevation", "vv", "vh", "angle"]

KINDS: tuple[str, ...] = get_args(Kind)

LEVEL_TITLES: Mapping[Level, str] = {"toa": "top-of-atmosphere", "boa": "bottom-of-atmosphere"}

#: What people write for the two processing levels, and what we call them.
LEVEL_ALIASES: Mapping[str, Level] = {
    **dict.fromkeys(("toa", "l1", "l1c", "l1t", "l1tp", "l1gt", "l1gs", "1c"), "toa"),
    **dict.fromkeys(("boa", "toc", "sr", "surface", "l2", "l2a", "l2sp", "l2sr", "2a"), "boa"),
}


def parse_level(level: str) -> Level:
    """Return ``"toa"`` or ``"boa"`` for any of the usual names of a processing level.

    Examples
    --------
    >>> parse_level("L2A")
    'boa'
    """
    try:
        return LEVEL_ALIASES[level.strip().lower()]
    except (KeyError, AttributeError):
        raise OptionError("level", level, allowed=LEVEL_ALIASES) from None


@dataclass(frozen=True, slots=True)
class Band:
    """One band of an instrument.

    Parameters
    ----------
    name : str
        The provider's own name, ``"B04"``.
    common_name : str or None
        STAC common name, ``"red"``.
    min_nm, center_nm, max_nm : float or None
        Where the response is at half its maximum, and its centre, in nanometres. None for bands that
        have no wavelength (elevation).
    gsd : float or None
        Pixel size in metres.
    kind : str
        What the numbers mean: reflectance, brightness_temperature, sar or elevation.
    aliases : tuple of str
        Other names in use for the same band.

    Examples
    --------
    >>> Band("B04", "red", 649.3, 664.6, 679.9, gsd=10).center_nm
    664.6
    """

    name: str
    common_name: str | None = None
    min_nm: float | None = None
    center_nm: float | None = None
    max_nm: float | None = None
    gsd: float | None = None
    kind: Kind = "reflectance"
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError("kind", self.kind, allowed=KINDS)
        edges = (self.min_nm, self.center_nm, self.max_nm)
        if any(edge is not None for edge in edges):
            known = [edge for edge in edges if edge is not None]
            if known != sorted(known):
                raise ValueError(
                    f"band {self.name!r}: wavelengths must rise from min to centre to max, got {edges}"
                )


@dataclass(frozen=True, slots=True)
class Sensor:
    """An instrument: its bands and the names by which it is known.

    Examples
    --------
    >>> Sensor("toy", "A toy", (Band("1", "red"),)).band("red").name
    '1'
    """

    name: str
    title: str
    bands: tuple[Band, ...]
    aliases: tuple[str, ...] = ()
    metadata: tuple[tuple[str, Any], ...] = field(default=(), compare=False)

    def band(self, name: str) -> Band:
        """Return the band known as `name`: its own name, an alias, or its common name."""
        wanted = name.casefold()
        for names in (
            lambda b: (b.name,),
            lambda b: b.aliases,
            lambda b: (b.common_name or "",),
        ):
            for band in self.bands:
                if wanted in (str(n).casefold() for n in names(band)):
                    return band
        raise OptionError("band", name, allowed=[b.name for b in self.bands])


#: What an aux input is less, and divided by, where a card gives no figures: metres, decibels, degrees.
AUX_SCALING: Mapping[AuxName, tuple[float, float]] = {
    "elevation": (1000.0, 1000.0),
    "vv": (-12.0, 6.0),
    "vh": (-19.0, 6.0),
    "angle": (38.0, 8.0),
}


@dataclass(frozen=True, slots=True)
class AuxInput:
    """An input beside reflectance that a model takes: height, or what radar saw.

    The network is given ``(value - mean) / std``, and 0 where nothing is known.

    Parameters
    ----------
    name : {"elevation", "vv", "vh", "angle"}
        Height in metres, backscatter of Sentinel-1 in decibels, incidence angle in degrees.
    required : bool
        Whether the model is of no use without it.
    mean, std : float
        Its scaling; `AUX_SCALING` has those taken where none are given.

    Examples
    --------
    >>> AuxInput("vv")
    AuxInput(name='vv', required=False, mean=-12.0, std=6.0)
    """

    name: AuxName
    required: bool = False
    mean: float = math.nan
    std: float = math.nan

    def __post_init__(self) -> None:
        if self.name not in AUX_SCALING:
            raise OptionError("aux input", self.name, allowed=AUX_SCALING)
        mean, std = AUX_SCALING[self.name]
        object.__setattr__(self, "mean", mean if math.isnan(self.mean) else float(self.mean))
        object.__setattr__(self, "std", std if math.isnan(self.std) else float(self.std))
        if not self.std > 0:
            raise ValueError(f"aux input {self.name!r}: std must be above 0, got {self.std}")

    @classmethod
    def of(cls, said: Any) -> AuxInput:
        """Return an aux input for a name, or for its entries in a card.

        Examples
        --------
        >>> AuxInput.of("elevation").std, AuxInput.of({"name": "vh", "required": True}).required
        (1000.0, True)
        """
        if isinstance(said, cls):
            return said
        try:
            return cls(**said) if isinstance(said, Mapping) else cls(said)
        except TypeError:  # other entries than these, or of another kind
            raise OptionError("aux input", said, allowed=AUX_SCALING) from None

    @property
    def band(self) -> Band:
        """What a model for any bands is told of it."""
        return Band(self.name, kind="elevation" if self.name == "elevation" else "sar")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model but its weights: small, hashable, and the only part a task graph carries.

    Parameters
    ----------
    name, version : str
        How it is called.
    bands : tuple of str
        STAC common names of its inputs, in order; empty for a model that takes any bands.
    classes : tuple of str
        What each output channel means, in the words of `xcloudmask.classes`.
    loader : str
        ``"package.module:function"``; called as ``function(spec)`` in each process that infers, returns a
        `xcloudmask.models.Network`.
    any_bands : bool
        True if it takes any reflectance bands and is told their wavelengths.
    min_bands : int
        How many it needs at least, if it takes any bands or estimates those that are missing.
    level : {"toa", "boa", None}
        Processing level it was trained on; None if either.
    gsd : (float, float)
        Pixel sizes it was trained on, in metres, from and to.
    patch, overlap : int
        Window size and overlap, in its own pixels, unless the caller asks for others.
    patch_fixed : bool
        True if the network takes no other window size.
    runtime : {"onnx", "torch"}
        What runs it. ONNX graphs run in the precision they were exported in.
    sha256 : str
        Of the weights; checked before they are parsed. Empty if there are no weights.
    weights : str
        Where they are, in words that `loader` understands.
    licence, citation, description : str
        For `xcloudmask models`.
    architecture, config : str
        Where `weights` are tensors alone: the network they belong to, a name that `xcloudmask.models.arch`
        knows, and its settings in JSON.
    mean, std : tuple of float or None
        The network is given ``(reflectance - mean) / std``; one number for all inputs, or one each.
    activation : {"softmax", "sigmoid", "complement", None}
        What makes probabilities of its output, see `xcloudmask.models.Network`.
    threshold : float or None
        The probability of cloud that its author says suffices; used where the caller names none.
    shadow_threshold : float or None
        The probability of cloud shadow below which a pixel that is no cloud is the likeliest of the rest.
    training_data, scores, limits : str
        What it was trained on; how well it does, and who says so; what it cannot do.
    aux : tuple of AuxInput
        What it takes beside reflectance; a name stands for one that is optional and scaled as usual. A
        network for fixed bands gets all of them behind its bands, in this order, zeros where one is not
        given; one for any bands gets those that are given.
    uncertainty : bool
        Whether the network tells, in one channel behind those of the classes, how far its members disagree
        (`xcloudmask.models.arch.ensemble`). Its channels must be probabilities already.
    fills : bool
        True if those of its `bands` that an array lacks are estimated from those it has, which must be
        `min_bands` at least.
    spare : tuple of str
        Those of its bands that it does as well without, by its scores: that they are estimated is no reason
        for a warning.
    """

    name: str
    version: str
    bands: tuple[str, ...]
    classes: tuple[str, ...]
    loader: str
    any_bands: bool = False
    min_bands: int = 1
    level: Level | None = None
    gsd: tuple[float, float] | None = None
    patch: int = 256
    overlap: int = 64
    patch_fixed: bool = False
    runtime: Literal["onnx", "torch"] = "torch"
    sha256: str = ""
    weights: str = ""
    licence: str = ""
    citation: str = ""
    description: str = ""
    architecture: str = ""
    config: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = "softmax"
    threshold: float | None = None
    shadow_threshold: float | None = None
    training_data: str = ""
    scores: str = ""
    limits: str = ""
    aux: tuple[AuxInput, ...] = ()
    uncertainty: bool = False
    fills: bool = False
    spare: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "aux", tuple(AuxInput.of(each) for each in self.aux))
        if len({each.name for each in self.aux}) != len(self.aux):
            raise ValueError(f"model {self.name!r}: aux inputs must not repeat")
        if self.uncertainty and self.activation is not None:
            raise ValueError(
                f"model {self.name!r}: with uncertainty=True the network's channels must be probabilities, "
                f"and activation None, got {self.activation!r}"
            )
        if bool(self.bands) == self.any_bands or not self.classes:
            raise ValueError(f"model {self.name!r} needs bands, or any_bands=True, and at least one class")
        if set(self.spare) - set(self.bands) or (self.spare and not self.fills):
            raise ValueError(f"model {self.name!r}: spare must be some of its bands, and fills=True")
        if self.fills and self.any_bands:
            raise ValueError(f"model {self.name!r} takes any bands: there are none that could be filled in")
        if self.fills and (self.aux or not 0 < self.min_bands <= len(self.bands)):
            raise ValueError(
                f"model {self.name!r}: with fills=True it takes no aux, and min_bands is 1 to "
                f"{len(self.bands)}, got {self.min_bands}"
            )
        if len(set(self.bands)) != len(self.bands) or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"model {self.name!r}: bands and classes must not repeat")
        if ":" not in self.loader:
            raise ValueError(f"model {self.name!r}: loader must read 'package.module:function'")
        if self.gsd is not None and not 0 < self.gsd[0] <= self.gsd[1]:
            raise ValueError(f"model {self.name!r}: gsd must be (from, to) in metres, got {self.gsd}")
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, len(self.bands) or 1):
                raise ValueError(
                    f"model {self.name!r}: {what} has {len(numbers)} numbers; one, or one a band"
                )
        if self.std is not None and not all(number > 0 for number in self.std):
            raise ValueError(f"model {self.name!r}: std must be above 0, got {self.std}")
        if self.activation not in (None, *get_args(Activation)):
            raise OptionError("activation", self.activation, allowed=(*get_args(Activation), None))
        for what, value in (("threshold", self.threshold), ("shadow_threshold", self.shadow_threshold)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"model {self.name!r}: {what} must lie between 0 and 1, got {value}")

    @property
    def needs(self) -> str:
        """Which bands it needs, in words.

        Examples
        --------
        >>> from xcloudmask import models
        >>> models.get("ukis-any-l1c").needs
        '3 or more of blue, green, red, nir, swir16, swir22'
        """
        if self.any_bands:
            return f"{self.min_bands} or more reflectance bands of known wavelength"
        return f"{self.min_bands} or more of " * self.fills + ", ".join(self.bands)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How stored numbers become reflectance: ``value * scale + offset``, one pair a band.

    Any of `nodata` is compared with the stored number, before scaling; so is any of `fill`, which means no
    data only where every band holds it. `assumed`: nobody said so, and it is warned of where it occurs.
    """

    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    nodata: tuple[float, ...] = ()
    fill: tuple[float, ...] = ()
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Scheme:
    """The classes of the answer: a code and a name each, and how the model's channels add up to them."""

    name: str
    codes: tuple[int, ...]
    names: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]  # one row a class of the answer, one column a channel of the model
    cloudy: tuple[bool, ...]  # which classes of the answer a cloud threshold speaks of


@dataclass(frozen=True, slots=True)
class Options:
    """Every choice of one call, made once and carried unchanged to where the pixels are."""

    spec: ModelSpec
    scheme: Scheme
    calibration: Calibration
    patch: int
    overlap: int
    factors: tuple[int, int]
    inputs: tuple[Band, ...] = ()  # where a card does not tell them: the bands that the model is given
    output: Literal["classes", "probabilities"] = "classes"
    threshold: float | None = None
    shadow_threshold: float | None = None
    batch_size: int | None = None  # None: chosen for the device
    device: str = "auto"
    dtype: str = "auto"
    tta: int = 0
    aux: tuple[AuxInput, ...] = ()  # those given; their planes follow the bands
    uncertainty: bool = False  # whether the spread comes with the probabilities

    @property
    def told(self) -> str:
        """Names of the bands that were given, where the model's card does not tell."""
        given = [band for band in self.inputs if band.kind == "reflectance"]
        return " ".join(band.common_name or band.name for band in given)


#: What `predict` takes as a model: a name, a card, or a module or function that was registered.
ModelLike = str | ModelSpec | Callable[..., Any]
