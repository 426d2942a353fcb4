"""From a file or an address to a model: what it is, who checks it, and how a worker loads it.

The forms are data: tensors for an architecture that is known by name, an ONNX graph, an exported program.
Whatever would run code of its author's is refused.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import card
from xcloudmask.models.card_fields import Given
from xcloudmask.models.filling import filling
from xcloudmask.models.network import Network, parse_activation
from xcloudmask.models.registry import add
from xcloudmask.models.units import normalisation
from xcloudmask.models.weights import fetch, inspect
from xcloudmask.models.weights.formats import Form, form_of, vetted
from xcloudmask.types import Activation, AuxInput, Level, ModelSpec, parse_level

#: Architectures that are told which bands they get.
SETS = ("sensei-v1", "sensei-v2", "spectral")
LOADER = "xcloudmask.models.loading:network"


def load(
    href: str | Path,
    *,
    name: str | None = None,
    sha256: str | None = None,
    architecture: str | None = None,
    config: Mapping[str, object] | None = None,
    bands: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    level: str | None = None,
    gsd: tuple[float, float] | None = None,
    units: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    activation: str | None = None,
    threshold: float | None = None,
    shadow_threshold: float | None = None,
    patch: int | None = None,
    overlap: int | None = None,
    aux: Sequence[AuxInput | str] | None = None,
    uncertainty: bool | None = None,
    licence: str | None = None,
    replace: bool = False,
) -> ModelSpec:
    """Add a model that lies in a file or at an address, so that ``predict(model=NAME)`` finds it.

    Parameters
    ----------
    href : str or Path
        A path or an address (http(s), s3, gs, hf) of weights (``.safetensors``, ``.onnx``, ``.pt2``), or of a
        ``.json`` that tells most of what follows: a STAC item with the MLM extension, or a model's card. No
        code is fetched or run; pickles (``.pt``, ``.pth``) are refused.
    name : str, optional
        How it is to be called; the file's name if not given.
    sha256 : str, optional
        Of the weights. Needed where they come over a network and no item gives it.
    architecture, config : str, dict, optional
        For ``.safetensors``: which network (`xcloudmask.models.arch.NAMES`) and its settings. Files that
        `xcloudmask.models.export` wrote say it themselves.
    bands : sequence of str, optional
        STAC common names of the inputs, in order. Not for architectures that take any bands.
    classes : sequence of str, optional
        What each output channel means (`xcloudmask.classes.VOCABULARY`).
    level : {"toa", "boa"}, optional
        Processing level it was trained on (L1C, L2A and the like are understood).
    gsd : (float, float), optional
        Pixel sizes it was trained on, in metres, from and to.
    units : str, optional
        In which numbers `mean` and `std` are, and the network wants its input: ``"reflectance"`` (0 to 1,
        the default) or such as ``"reflectance*10000"``.
    mean, std : sequence of float, optional
        The network is given (value - mean) / std; one number, or one a band.
    activation : {"softmax", "sigmoid", "complement", "none"}, optional
        What makes probabilities of the output: ``"sigmoid"`` for one channel that tells cloud,
        ``"complement"`` where that channel is a probability already, ``"none"`` for probabilities of all
        classes. Needed for ONNX and exported programs, which may end with either.
    threshold : float, optional
        Probability of cloud that suffices where the caller of predict says none.
    shadow_threshold : float, optional
        Probability of cloud shadow below which a pixel that is no cloud is the likeliest of the rest.
    patch, overlap : int, optional
        Window size and overlap, in pixels.
    aux : sequence of AuxInput or str, optional
        What it takes behind its bands, see `ModelSpec`: ``"elevation"``, ``"vv"``, ``"vh"``, ``"angle"``.
    uncertainty : bool, optional
        Whether its last channel tells how far its members disagree, see `ModelSpec`.
    licence : str, optional
        Of the weights.
    replace : bool
        Whether a model of the same name may be replaced.

    Returns
    -------
    ModelSpec

    Examples
    --------
    >>> import tempfile
    >>> from xcloudmask import models
    >>> from xcloudmask.models.arch import build
    >>> from safetensors.torch import save_file
    >>> path = Path(tempfile.mkdtemp(), "tiny.safetensors")
    >>> save_file(build("pixel-mlp", {"bands": 2}).state_dict(), path)
    >>> spec = models.load(path, architecture="pixel-mlp", config={"bands": 2}, bands=["red", "nir"],
    ...                    classes=["clear", "cloud"], replace=True)
    >>> spec.name, len(spec.sha256)
    ('tiny', 64)
    """
    given = Given(
        name, sha256, architecture, config, bands, classes, level, gsd, units, mean, std, activation,
        threshold, patch, overlap, licence, shadow_threshold=shadow_threshold, aux=aux,
        uncertainty=uncertainty,
    )  # fmt: skip
    return add(read(str(href), given), replace=replace)


def read(href: str, given: Given) -> ModelSpec:
    """Return the card of weights, or of what a ``.json`` tells of them; nothing is registered."""
    if PurePosixPath(urlsplit(href).path).suffix.lower() in (".json", ".geojson"):
        from xcloudmask.models.mlm import read

        text = fetch.read_text(href)
        if card.is_card(text):
            return from_card(text, href, given)
        href, given = read.read(href, text, given)
    return make(href, given)


def make(href: str, given: Given) -> ModelSpec:
    """Return the card of the weights at `href`, after looking at them; nothing is registered."""
    form = form_of(href)
    data = fetch.read(href, (given.sha256 or "").lower())
    clean = vetted(data, form, href)
    if form == "safetensors":
        given = _from_notes(given, inspect.metadata(clean), href)
    activation = _activation(given, form, href)
    any_bands = takes_any_bands(given.architecture, given.config or {})
    if given.fills:
        filling(given.bands or ())  # which says so if it knows nothing of one of them
    if given.classes is None or (given.bands is None) != any_bands:
        what = "classes" if given.classes is None else "bands"
        raise CloudMaskError(
            f"{href}: say {what}=[...], what its {'output' if what == 'classes' else 'input'} channels are, "
            "in order"
            if not (any_bands and what == "bands")
            else f"architecture {given.architecture!r} takes any bands: leave bands= out"
        )
    inputs = None if any_bands else len(given.bands or ()) + len(given.aux or ())
    shapes, origin = _shapes(clean, form, href, given.architecture or "", given.config or {}, inputs)
    uncertainty = given.uncertainty
    if uncertainty is None and given.architecture == "ensemble":
        uncertainty = bool((given.config or {}).get("spread", True))
    shapes.check(inputs, len(given.classes) + bool(uncertainty), activation, origin)
    mean, std = normalisation(given.units, given.mean, given.std)
    path = fetch.local_path(href)
    sha256 = fetch.digest(data)
    patch = given.patch or shapes.patch or 256
    if shapes.patch is not None and patch != shapes.patch:
        raise CloudMaskError(f"patch={patch}: {href} takes windows of {shapes.patch} alone")
    return ModelSpec(
        name=given.name or _plain_name(href),
        version=sha256[:12],
        bands=tuple(given.bands or ()),
        classes=tuple(given.classes),
        loader=LOADER,
        any_bands=any_bands,
        level=_level(given.level),
        gsd=given.gsd,
        patch=patch,
        overlap=patch // 4 if given.overlap is None else given.overlap,
        patch_fixed=shapes.patch is not None,
        runtime="onnx" if form == "onnx" else "torch",
        sha256=sha256,
        weights=str(path.resolve()) if path is not None and not href.startswith(fetch.PACKAGE) else href,
        licence=given.licence or "",
        citation=given.citation or "",
        description=given.description or "",
        architecture=given.architecture or "",
        config=card.settings(given.config or {}),
        mean=mean,
        std=std,
        activation=activation,
        threshold=given.threshold,
        shadow_threshold=given.shadow_threshold,
        fills=bool(given.fills),
        min_bands=given.min_bands or 1,
        spare=tuple(given.spare or ()),
        training_data=given.training_data or "",
        scores=given.scores or "",
        limits=given.limits or "",
        aux=tuple(AuxInput.of(each) for each in given.aux or ()),
        uncertainty=bool(uncertainty),
    )


def takes_any_bands(architecture: str | None, config: Mapping[str, object]) -> bool:
    """Whether an architecture is told which bands it gets; an ensemble is what its members are.

    Examples
    --------
    >>> takes_any_bands("spectral", {}), takes_any_bands("ensemble", {"members": [{"name": "spectral"}]})
    (True, True)
    """
    members = config.get("members")
    if architecture == "ensemble" and isinstance(members, list | tuple) and members:
        architecture = members[0].get("name") if isinstance(members[0], Mapping) else None
    return architecture in SETS


def from_card(text: bytes, href: str, given: Given) -> ModelSpec:
    """Return the model of a card that lies beside its weights, after looking at them.

    Who loads it is ours to say, not the card's: a loader is code.
    """
    from xcloudmask.models.mlm.read import resolve

    said = {name: value for name in Given.__slots__ if (value := getattr(given, name)) is not None}
    if said.keys() - {"name"}:
        raise CloudMaskError(
            f"{href} is a model's card and tells all but its name: leave {', '.join(said)} out"
        )
    spec = card.from_json(text, href, loader=LOADER, gpu_runtime=None, **said)
    if spec.fills:
        filling(spec.bands)  # which says so if it knows nothing of one of them
    where = resolve(href, spec.weights)
    form: Form = form_of(where)
    if not spec.sha256 or (form == "onnx") != (spec.runtime == "onnx"):
        raise WeightsError(f"the card {href} gives no hash, or a runtime that does not fit {spec.weights}")
    clean = vetted(fetch.read(where, spec.sha256), form, where)
    inputs = None if spec.any_bands else len(spec.bands) + len(spec.aux)
    config = json.loads(spec.config or "{}")
    if spec.any_bands and not takes_any_bands(spec.architecture, config):
        kinds = f"architecture {spec.architecture!r}" if spec.architecture else f"a network in {form}"
        raise WeightsError(f"the card {href} says any_bands, and {kinds} takes fixed ones: name them, bands")
    shapes, _ = _shapes(clean, form, where, spec.architecture, config, inputs)
    shapes.check(
        inputs,
        len(spec.classes) + spec.uncertainty,
        spec.activation,
        f"{where}, of which {href} is the card,",
    )
    return dataclasses.replace(spec, weights=where)


def _shapes(
    clean: bytes,
    form: Form,
    href: str,
    architecture: str,
    config: Mapping[str, object],
    inputs: int | None,
) -> tuple[inspect.Shapes, str]:
    """Return what goes into vetted weights and comes out, and how messages call them."""
    if form == "safetensors":
        shapes = inspect.configured(architecture, config, inputs)
        return shapes, f"{href}, {architecture} with config={dict(config)},"
    return (inspect.onnx(clean) if form == "onnx" else inspect.pt2(clean)), href


def network(spec: ModelSpec) -> Network:
    """Load a network whose `ModelSpec` `make` wrote, or that this package carries."""
    form: Form = "onnx" if spec.runtime == "onnx" else "safetensors" if spec.architecture else "pt2"
    data = vetted(fetch.read(spec.weights, spec.sha256), form, spec.weights)
    body: Any = data
    if form != "onnx":
        from xcloudmask.models.weights import instantiate

        if form == "safetensors":
            body = instantiate.built(spec.architecture, json.loads(spec.config or "{}"), data, spec.weights)
        else:
            body = instantiate.exported(data, spec.weights)
    how = filling(spec.bands) if spec.fills else None
    return Network(body, spec.mean, spec.std, spec.activation, filling=how)


def _from_notes(given: Given, notes: Mapping[str, str], href: str) -> Given:
    """Complete what the caller says by what the file says of its architecture."""
    if given.architecture is None and {"network", "architecture"} & notes.keys():
        try:
            said = json.loads(notes["network"]) if "network" in notes else notes
            config = said.get("config") or {}
            config = dict(json.loads(config) if isinstance(config, str) else config)
            name = str(said["architecture"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{href}: its note on the architecture is damaged: {error!r}") from error
        given = dataclasses.replace(given, architecture=name, config=given.config or config)
    from xcloudmask.models import arch

    if given.architecture is None:
        raise WeightsError(
            f"{href} holds tensors and does not say of which network: pass architecture=, one of "
            f"{', '.join(arch.NAMES)}, and config="
        )
    if given.architecture not in arch.NAMES:
        raise OptionError(
            "architecture",
            given.architecture,
            allowed=arch.NAMES,
            hint="Code that comes with a model is not run; export the network as ONNX to use it.",
        )
    return given


def _activation(given: Given, form: Form, href: str) -> Activation | None:
    if given.activation is not None:
        return parse_activation(given.activation)
    if form != "safetensors":
        raise CloudMaskError(
            f"{href}: nothing tells whether its output is probabilities already: say activation='softmax' "
            "(scores "
            "of all classes), 'sigmoid' (one score, of cloud), 'complement' (one probability, of cloud) or "
            "'none' "
            "(probabilities of all classes)"
        )
    if given.architecture == "ensemble":
        return None
    settings = given.config or {}
    return "sigmoid" if settings.get("classes") == 1 else "softmax"


def _level(level: str | None) -> Level | None:
    return None if level is None else parse_level(level)


def _plain_name(href: str) -> str:
    stem = PurePosixPath(urlsplit(href).path).stem
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", stem).strip("-.") or "model"
