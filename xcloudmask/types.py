"""Frozen value objects that travel through the library: `Band`, `Sensor`, `ModelSpec`, `Options`.

They hold numbers and names only, so they hash, compare and pickle cheaply: a task graph may carry them
by the ten thousand. They validate themselves when made, so code further down need not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Literal, get_args

from xcloudmask.errors import CloudMaskError, OptionError

Kind = Literal["reflectance", "brightness_temperature", "sar", "elevation"]
Level = Literal["toa", "boa"]
Activation = Literal["softmax", "sigmoid", "complement"]
Reduction = Literal["mean", "mean-logits", "max", "min", "median"]
Gaps = Literal["nearest", "zero", "nan"]

AuxName = Literal["elevation", "vv", "vh", "angle", "lwir11", "lwir12"]

KINDS: tuple[str, ...] = get_args(Kind)
REDUCTIONS: tuple[str, ...] = get_args(Reduction)

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
        for names in (lambda b: (b.name,), lambda b: b.aliases, lambda b: (b.common_name or "",)):
            for band in self.bands:
                if wanted in map(str.casefold, names(band)):
                    return band
        raise OptionError("band", name, allowed=[b.name for b in self.bands])


#: Default mean and standard deviation of each aux input: metres, decibels, degrees; of thermal bands, in
#: kelvin, what becomes 0, and how far above it 1 lies, as for SEnSeI-v2.
AUX_SCALING: Mapping[AuxName, tuple[float, float]] = {
    "elevation": (1000.0, 1000.0),
    "vv": (-12.0, 6.0),
    "vh": (-19.0, 6.0),
    "angle": (38.0, 8.0),
    "lwir11": (132.0, 117.0),
    "lwir12": (127.0, 112.0),
}
#: Edges (nm) of the thermal bands, those of Landsat 8 and 9.
THERMAL_EDGES: Mapping[str, tuple[float, float]] = {"lwir11": (10600, 11190), "lwir12": (11500, 12510)}


@dataclass(frozen=True, slots=True)
class AuxInput:
    """An input beside reflectance that a model takes: height, what radar saw, or brightness temperature.

    The network is given ``(value - mean) / std``, clipped to 0-1 for thermal bands, and 0 where nothing is
    known.

    Parameters
    ----------
    name : {"elevation", "vv", "vh", "angle", "lwir11", "lwir12"}
        Height in metres, backscatter of Sentinel-1 in decibels, incidence angle in degrees, brightness
        temperature near 11 and 12 µm in kelvin.
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
    def of(cls, entry: Any) -> AuxInput:
        """Return an aux input for a name, or for its entries in a card.

        Examples
        --------
        >>> AuxInput.of("elevation").std, AuxInput.of({"name": "vh", "required": True}).required
        (1000.0, True)
        """
        if isinstance(entry, cls):
            return entry
        try:
            return cls(**entry) if isinstance(entry, Mapping) else cls(entry)
        except TypeError:  # other entries than these, or of another kind
            raise OptionError("aux input", entry, allowed=AUX_SCALING) from None

    @property
    def band(self) -> Band:
        """How it is described to a model for any bands."""
        if self.name in THERMAL_EDGES:
            low, high = THERMAL_EDGES[self.name]
            return Band(self.name, self.name, low, None, high, kind="brightness_temperature")
        return Band(self.name, kind="elevation" if self.name == "elevation" else "sar")


#: Metadata of a field that the weights tell.
_MADE: dict[str, Any] = {"label": "", "mlm": "", "made": True}

_CHOICES: Mapping[str, tuple[Any, ...]] = {
    "activation": (*get_args(Activation), "none"),
    "runtime": ("onnx", "torch"),
    "gpu_runtime": ("torch",),
    "reduce": REDUCTIONS,
    "gaps": get_args(Gaps),
}
_EXAMPLES = {"str": "'red', 'nir'", "float": "0.1, 0.2", "AuxInput": "'elevation'", "ModelSpec": "spec, spec"}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything about a model but its weights: small, hashable, and the only part a task graph carries.

    Each field is declared here alone. The keywords of `xcloudmask.models.load` and `register`, the JSON card,
    the STAC item and `xcloudmask.models.show` follow from the fields and their metadata: ``label`` heads its
    row in `show` ("": it has none of its own), ``mlm`` is its place among an item's properties (absent: under
    ``mlm:hyperparameters``; "": `xcloudmask.models.mlm` has code for it), ``made`` says that the weights
    tell it and no caller does. Lists become tuples, and words such as ``"L1C"`` the ones used here.

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
        `xcloudmask.models.network.Network`.
    any_bands : bool
        True if it takes any reflectance bands, described by their wavelengths.
    aux : tuple of AuxInput
        What it takes beside reflectance; a name stands for one that is optional and scaled as usual. A
        network for fixed bands gets all of them behind its bands, in this order, zeros where one is not
        given; one for any bands gets those that are given.
    min_bands : int
        How many it needs at least, if it takes any bands or estimates those that are missing.
    fills : bool
        True if those of its `bands` that an array lacks are estimated from those it has, which must be
        `min_bands` at least.
    spare : tuple of str
        Those of its bands that it does as well without, by its scores: that they are estimated is no reason
        for a warning.
    mean, std : tuple of float or None
        The network is given ``(reflectance - mean) / std``; one number for all inputs, or one each.
    activation : {"softmax", "sigmoid", "complement", None}
        What makes probabilities of its output, see `xcloudmask.models.network.Network`.
    uncertainty : bool
        Whether the network adds a channel behind those of the classes (or behind its one of cloud): how far
        its members disagree. Its channels must be probabilities already.
    level : {"toa", "boa", None}
        Processing level it was trained on; None if either.
    gsd : (float, float)
        Pixel sizes it was trained on, in metres, from and to.
    finest_pixel : float or None
        Where pixels are smaller than two thirds of so many metres, ``auto`` asks models made for them first.
        For one trained on coarse pixels that is of use on others as they are; `gsd` has them averaged.
    patch, overlap : int
        Window size and overlap, in its own pixels, unless the caller asks for others.
    patch_fixed : bool
        True if the network takes no other window size than `patch`, or those up to `largest_patch`.
    largest_patch : int or None
        The largest window that may be chosen for the size of a scene; None if `patch` is for all scenes. The
        device's memory has no say, or the mask would depend on the machine: batches are halved in its place.
    gaps : {"nearest", "zero", "nan"}
        What the network is given for pixels without data: the nearest pixel that has some; zeros, for one
        that was trained with them; NaN, for one that sets them aside itself. In the answer they are no data.
    threshold : float or None
        Probability of cloud at or above which a pixel is cloud, where the caller names none.
    shadow_threshold : float or None
        The probability of cloud shadow below which a pixel that is no cloud is the likeliest of the rest.
    architecture, config : str
        Where `weights` are tensors alone: the network they belong to, a name that `xcloudmask.models.arch`
        knows, and its settings in JSON.
    family : str
        The published system (`xcloudmask.models.published`) whose names the tensors have; "" if they have the
        architecture's own.
    runtime : {"onnx", "torch"}
        What runs it. ONNX graphs run in the precision they were exported in.
    gpu_runtime : {"torch", None}
        What runs it on a GPU, and in another precision than float32, if not `runtime`: `loader` is then given
        a card with this runtime.
    weights : str
        Where they are, in words that `loader` understands.
    sha256 : str
        Of the weights; checked before they are parsed. Empty if there are no weights.
    members : tuple of ModelSpec
        The models of an ensemble (`xcloudmask.models.ensemble`); each is given the window, and their
        probabilities are joined.
    member_weights : tuple of float
        What the members count for in the mean; the same if empty.
    reduce : {"mean", "mean-logits", "max", "min", "median"}
        How the members' probabilities are joined; of a single model, how to join it with others.
    training_data, scores, limits : str
        What it was trained on; how well it does, and who says so; what it cannot do.
    chosen, cost : str
        Who chose its thresholds and other settings, and on what; time and energy of training and of use.
    licence, citation, description : str
        For `xcloudmask models`.
    """

    name: str = field(metadata={"label": "", "mlm": ""})
    version: str = field(metadata=_MADE)
    bands: tuple[str, ...] = field(metadata={"mlm": ""})
    classes: tuple[str, ...] = field(metadata={"mlm": ""})
    loader: str = field(metadata=_MADE)
    any_bands: bool = field(default=False, metadata=_MADE)
    aux: tuple[AuxInput, ...] = ()
    min_bands: int = field(default=1, metadata={"label": ""})
    fills: bool = field(default=False, metadata={"label": ""})
    spare: tuple[str, ...] = field(default=(), metadata={"label": ""})
    mean: tuple[float, ...] | None = field(default=None, metadata={"label": "units", "mlm": ""})
    std: tuple[float, ...] | None = field(default=None, metadata={"label": "", "mlm": ""})
    activation: Activation | None = field(default="softmax", metadata={"label": ""})
    uncertainty: bool = False
    level: Level | None = None
    gsd: tuple[float, float] | None = field(default=None, metadata={"label": "pixel"})
    finest_pixel: float | None = field(default=None, metadata={"label": ""})
    patch: int = field(default=256, metadata={"label": "window", "mlm": ""})
    overlap: int = field(default=64, metadata={"label": ""})
    patch_fixed: bool = field(default=False, metadata=_MADE)
    largest_patch: int | None = field(default=None, metadata={"label": ""})
    gaps: Gaps = field(default="nearest", metadata={"label": "no data"})
    threshold: float | None = None
    shadow_threshold: float | None = field(default=None, metadata={"label": ""})
    architecture: str = field(default="", metadata={"label": "network", "mlm": ""})
    config: str = field(default="", metadata={"label": ""})
    family: str = field(default="", metadata=_MADE | {"label": "published as"})
    runtime: Literal["onnx", "torch"] = field(default="torch", metadata=_MADE | {"label": "runs on"})
    gpu_runtime: Literal["torch"] | None = field(default=None, metadata=_MADE)
    weights: str = field(default="", metadata=_MADE | {"label": "weights"})
    sha256: str = field(default="", metadata={"mlm": ""})
    members: tuple[ModelSpec, ...] = field(default=(), metadata=_MADE | {"label": "members"})
    member_weights: tuple[float, ...] = field(default=(), metadata=_MADE)
    reduce: Reduction = field(default="mean", metadata={"label": ""})
    training_data: str = field(default="", metadata={"label": "trained on"})
    chosen: str = field(default="", metadata={"label": "settings by"})
    scores: str = ""
    limits: str = ""
    cost: str = field(default="", metadata={"label": "time, energy"})
    licence: str = field(default="", metadata={"mlm": "license"})
    citation: str = field(default="", metadata={"label": "cite", "mlm": "sci:citation"})
    description: str = field(default="", metadata={"label": "", "mlm": "description"})

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, card_value(entry, getattr(self, entry.name)))
        if problem := _contradiction(self):
            raise CloudMaskError(f"model {self.name!r}: {problem}")

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


def card_value(entry: Field[Any], value: Any) -> Any:
    """Return a value of `ModelSpec` in the form its field declares: callers and JSON write it in others.

    Examples
    --------
    >>> by_name = {entry.name: entry for entry in fields(ModelSpec)}
    >>> card_value(by_name["bands"], ["red", "nir"]), card_value(by_name["level"], "L2A")
    (('red', 'nir'), 'boa')
    """
    kind = entry.type.__name__ if isinstance(entry.type, type) else str(entry.type)  # as it is annotated
    if value is None and kind.endswith("None"):
        return None
    if entry.name == "level":
        return parse_level(value)
    if entry.name in _CHOICES:
        if value not in _CHOICES[entry.name]:
            raise OptionError(entry.name, value, allowed=_CHOICES[entry.name])
        return None if value == "none" else value
    if entry.name == "config":
        return _config(value)
    if not kind.startswith("tuple["):
        return _plain(entry.name, value, kind.removesuffix(" | None"))
    inner = kind.removeprefix("tuple[").partition(",")[0]
    if inner == "float" and isinstance(value, Real):
        value = (value,)
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise CloudMaskError(f"{entry.name} must be a list, such as [{_EXAMPLES[inner]}]; got {value!r}")
    if inner == "AuxInput":
        return tuple(AuxInput.of(each) for each in value)
    if inner == "ModelSpec":
        return tuple(ModelSpec(**each) if isinstance(each, Mapping) else each for each in value)
    return tuple(_plain(f"each of {entry.name}", each, inner) for each in value)


def _config(value: Any) -> str:
    """Return settings as JSON, empty text for none."""
    try:
        settings = json.loads(value or "{}") if isinstance(value, str) else value
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, Mapping):
        raise CloudMaskError(f"config must be a mapping, or one as JSON, got {str(value)[:80]!r}")
    return json.dumps(dict(settings), sort_keys=True) if settings else ""


_PLAIN: Mapping[str, tuple[type, type]] = {
    "str": (str, str), "bool": (bool, bool), "int": (Integral, int), "float": (Real, float),
}  # fmt: skip


def _plain(what: str, value: Any, kind: str) -> Any:
    """Return a text, number or truth value; whole numbers may stand for floats, nothing else for another."""
    accepted, wanted = _PLAIN[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind != "bool"):
        raise CloudMaskError(f"{what} must be of type {kind}, got {value!r}")
    return wanted(value)


#: A larger window would be a scene, and fits into no memory.
MOST_PATCH = 2**14


def _contradiction(spec: ModelSpec) -> str:
    """Return why the fields of a card cannot stand together, "" if they can."""
    if not re.fullmatch(r"(?!\.)[\w.+\-]+", spec.name):  # files are called after it, so it is no path
        return "a name is of letters, digits and . _ + -, and does not begin with a dot"
    count, names = len(spec.bands), {each.name for each in spec.aux}
    if len(names) != len(spec.aux):
        return "aux inputs must not repeat"
    if spec.uncertainty and spec.activation not in (None, "complement"):
        return (
            "with uncertainty=True the network's channels must be probabilities, and activation None or "
            f"'complement', got {spec.activation!r}"
        )
    if bool(count) == spec.any_bands or not spec.classes:
        return "needs bands, or any_bands=True, and at least one class"
    if set(spec.spare) - set(spec.bands) or (spec.spare and not spec.fills):
        return "spare must be some of its bands, and fills=True"
    if spec.fills and spec.any_bands:
        return "takes any bands: there are none that could be filled in"
    if spec.fills and (spec.aux or not 0 < spec.min_bands <= count):
        return f"with fills=True it takes no aux, and min_bands is 1 to {count}, got {spec.min_bands}"
    if len(set(spec.bands)) != count or len(set(spec.classes)) != len(spec.classes):
        return "bands and classes must not repeat"
    if not 0 < spec.patch <= MOST_PATCH or spec.overlap < 0:
        return f"patch must be 1 to {MOST_PATCH} and overlap not below 0, got {spec.patch} and {spec.overlap}"
    if ":" not in spec.loader:
        return "loader must read 'package.module:function'"
    if spec.gsd is not None and (len(spec.gsd) != 2 or not 0 < spec.gsd[0] <= spec.gsd[1]):
        return f"gsd must be (from, to) in metres, got {spec.gsd}"
    if spec.finest_pixel is not None and not spec.finest_pixel > 0:
        return f"finest_pixel must be above 0 metres, got {spec.finest_pixel:g}"
    for name, numbers in (("mean", spec.mean), ("std", spec.std)):
        if numbers is not None and len(numbers) not in (1, count or 1):
            return f"{name} has {len(numbers)} numbers; one, or one a band"
    if spec.largest_patch is not None and spec.largest_patch < spec.patch:
        return f"largest_patch must be patch={spec.patch} at least, got {spec.largest_patch}"
    if spec.std is not None and not all(number > 0 for number in spec.std):
        return f"std must be above 0, got {spec.std}"
    for name, value in (("threshold", spec.threshold), ("shadow_threshold", spec.shadow_threshold)):
        if value is not None and not 0 < value < 1:
            return f"{name} must lie between 0 and 1, got {value:g}"
    if len(spec.members) == 1 or len(spec.member_weights) not in (0, len(spec.members)):
        return "an ensemble has two members or more, and a weight for each or for none"
    return ""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How stored numbers become reflectance: ``value * scale + offset``, one pair a band.

    Any of `nodata` is compared with the stored number, before scaling; so is any of `fill`, which means no
    data only where every band holds it. `assumed`: nobody said so, and it is warned of where it occurs.
    `saturation`: the reflectance from which on each band is saturated, infinite where it is not looked at;
    `alike`: only where these bands hold one and the same reflectance, too.
    """

    scale: tuple[float, ...] | None = None
    offset: tuple[float, ...] | None = None
    nodata: tuple[float, ...] = ()
    fill: tuple[float, ...] = ()
    assumed: bool = False
    saturation: tuple[float, ...] | None = None
    alike: bool = False


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
    record: Mapping[str, Any] = field(
        default_factory=dict, hash=False
    )  # what attributes and stores tell of it

    @property
    def input_band_names(self) -> str | None:
        """Names of the bands that were given, where the model's card does not tell; None where it does."""
        given = [band for band in self.inputs if band.kind == "reflectance"]
        return " ".join(band.common_name or band.name for band in given) or None

    @property
    def saturation(self) -> str | None:
        """Which bands are saturated, and from where on: ``"blue 0.4, red 0.4"``; None if none is."""
        if self.calibration.saturation is None:
            return None
        given = [band for band in self.inputs if band.kind == "reflectance"]
        names = [band.common_name or band.name for band in given] or self.spec.bands
        pairs = zip(names, self.calibration.saturation, strict=True)
        return ", ".join(f"{name} {value:g}" for name, value in pairs if math.isfinite(value))

    @property
    def saturation_alike(self) -> int | None:
        """1 if, as unasked, these bands must also hold one and the same reflectance; None if not."""
        return 1 if self.calibration.saturation is not None and self.calibration.alike else None

    @property
    def aux_names(self) -> str | None:
        """Names of the aux inputs that were given."""
        return " ".join(aux.name for aux in self.aux) or None


#: What `predict` takes as a model: a name, a card, or a module or function that was registered.
ModelLike = str | ModelSpec | Callable[..., Any]
