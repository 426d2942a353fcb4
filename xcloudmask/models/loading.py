"""`models.load`: from a file or an address to a model; what a format is and who checks it, `weights` says.

The forms are data: tensors for an architecture that is known by name or recognised
(`xcloudmask.models.published`), an ONNX graph, an exported program. Nothing that a file brings along is run.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Unpack
from urllib.parse import urlsplit

from xcloudmask import types
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import arch, card, published
from xcloudmask.models.card_fields import CardKeywords, checked, plain_name, with_units
from xcloudmask.models.imputation import imputer_for
from xcloudmask.models.members import ENSEMBLE, joined
from xcloudmask.models.network import Network
from xcloudmask.models.published import Contents, Family, known
from xcloudmask.models.registry import add
from xcloudmask.models.weights import fetch, formats, inspect
from xcloudmask.models.weights.formats import FORMS, Form, form_of, vetted
from xcloudmask.types import Activation, ModelSpec

#: Forms that hold a network whole, not its tensors alone.
GRAPHS = ("onnx", "pt2")
#: Architectures that take any bands, described by their wavelengths.
SETS = ("sensei-v1", "sensei-v2", "spectral")
LOADER = "xcloudmask.models.loading:network"


def load(
    href: str | Path | Sequence[str | Path], *, overwrite: bool = False, **card: Unpack[CardKeywords]
) -> ModelSpec:
    """Add a model that lies in a file or at an address, so that ``predict(model=NAME)`` finds it.

    Parameters
    ----------
    href : str or Path, or a sequence of them
        A path or an address (http(s), s3, gs, hf) of weights (``.safetensors``, ``.onnx``, ``.pt2``, ``.pt``,
        ``.pth``, ``.pkl``, ``.h5``, ``.hdf5``), or of a ``.json`` that says most of what follows: a STAC item
        with the MLM extension, or a model's card; a folder of such files; or one of
        ``xcloudmask.models.names(published=True)``, which is fetched. Several files are an ensemble. A
        published system is recognised by its tensors and needs no further argument. No code is fetched or
        run: of pickles and Keras files the numbers are read and nothing is built.
    overwrite : bool
        Whether a model of the same name may be replaced.
    **card
        Fields of `ModelSpec`, which describes each: ``name`` (the file's if not given), ``bands`` (not for
        architectures that take any), ``classes``, ``aux``, ``min_bands``, ``fills``, ``spare``, ``mean``,
        ``std``, ``activation``, ``uncertainty``, ``level``, ``gsd``, ``finest_pixel``, ``patch``,
        ``largest_patch``, ``overlap``, ``gaps``, ``threshold``, ``shadow_threshold``, ``training_data``,
        ``chosen``, ``scores``, ``limits``, ``cost``, ``licence``, ``citation``, ``description``; and

        - ``sha256`` of the weights: needed where they come over a network and no item gives it;
        - ``architecture`` (`xcloudmask.models.arch.NAMES`) and ``config``, its settings: for
          ``.safetensors`` that `xcloudmask.models.export` did not write;
        - ``activation``: ``"softmax"`` (scores of all classes), ``"sigmoid"`` (one score, of cloud),
          ``"complement"`` (one probability, of cloud) or ``"none"`` (probabilities of all classes); required
          for ONNX and exported programs, which may end with any of them;
        - ``reduce`` (``"mean"``, ``"max"``, ``"min"`` or ``"median"``): how the several files of an ensemble
          are joined; of an item by their maximum if not given;
        - ``units``, in which `mean` and `std` are and the network wants its input: ``"reflectance"`` (0 to 1,
          the default) or such as ``"reflectance*10000"``.

    Examples
    --------
    >>> import tempfile
    >>> from xcloudmask import models
    >>> from xcloudmask.models.arch import build
    >>> from safetensors.torch import save_file
    >>> path = Path(tempfile.mkdtemp(), "tiny.safetensors")
    >>> save_file(build("pixel-mlp", {"bands": 2}).state_dict(), path)
    >>> spec = models.load(path, architecture="pixel-mlp", config={"bands": 2}, bands=["red", "nir"],
    ...                    classes=["clear", "cloud"], overwrite=True)
    >>> spec.name, len(spec.sha256)
    ('tiny', 64)
    """
    given = checked(card)
    if isinstance(href, str | Path):
        return add(read(str(href), given), overwrite=overwrite)
    if not isinstance(href, Sequence) or not all(isinstance(each, str | Path) for each in href):
        raise CloudMaskError(f"weights are a path, an address, a name or a list of them, got {href!r}")
    return add(together([read(str(each), _each(given)) for each in href], given), overwrite=overwrite)


def read(href: str, given: Mapping[str, Any]) -> ModelSpec:
    """Return the card of what lies at `href`, see `load`; nothing is registered."""
    if href in known.models():
        return _known(known.models()[href], given)
    path = fetch.local_path(href)
    if path is not None and os.path.isdir(path):
        return _folder(path, given)
    if PurePosixPath(urlsplit(href).path).suffix.lower() in (".json", ".geojson"):
        from xcloudmask.models.mlm import read

        text = fetch.read_text(href)
        if card.is_card(text):
            return from_card(text, href, given)
        item = read.read(href, text, given)
        specs = [make(where, fields) for where, fields in item.files]
        return joined(specs, **item.joining) if item.joining else specs[0]
    return make(href, given)


def together(specs: Sequence[ModelSpec], given: Mapping[str, Any]) -> ModelSpec:
    """Return the one card of several files: that of an ensemble, or of the one file."""
    if not specs:
        raise WeightsError("no file of weights was given: pass a path, an address or a list of them")
    if len(specs) == 1:
        return dataclasses.replace(specs[0], name=given.get("name", specs[0].name))
    name = given.get("name") or "+".join(spec.name for spec in specs)
    return joined(specs, name, reduce=given.get("reduce"))


def _each(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of each of several files: all but the name of the whole and how they are joined."""
    if "sha256" in given:
        raise CloudMaskError("sha256= is that of one file: load each alone, then xcloudmask.models.ensemble")
    return {name: value for name, value in given.items() if name not in ("name", "reduce")}


def _known(model: known.KnownModel, given: Mapping[str, Any]) -> ModelSpec:
    """Return a model that is known by name: its files are fetched, and their hashes compared."""
    stated = {"licence": model.licence, **(given if len(model.files) == 1 else _each(given))}
    specs = []
    for file in model.files:
        known_hash = {"sha256": file["sha256"]} if "sha256" in file else {}
        specs.append(read(file["href"], {**known_hash, **stated}))
    return together(specs, {"name": model.name, **given})


def _folder(folder: Path, given: Mapping[str, Any]) -> ModelSpec:
    """Return the model in a folder: of a card or an item if there is one, of its weights otherwise."""
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise WeightsError(f"the folder {folder} cannot be read: {error.strerror}") from error
    documents = [path for path in files if path.suffix == ".json"]
    weights = [path for path in files if path.suffix.lower() in FORMS]
    if len(documents) > 1 or not (documents or weights):
        listed = ", ".join(path.name for path in files[:6]) or "nothing"
        raise WeightsError(
            f"the folder {folder} holds {listed}: pass the path of one card or item (.json), or of weights "
            f"({', '.join(FORMS)})"
        )
    named = {"name": plain_name(folder.resolve().name), **given}
    if len(documents or weights) == 1:
        return read(str((documents or weights)[0]), named)
    return together([read(str(path), _each(given)) for path in weights], named)


def make(href: str, given: Mapping[str, Any]) -> ModelSpec:
    """Return the card of the weights at `href`, after looking at them; nothing is registered."""
    form = form_of(href)
    data = fetch.read(href, given.get("sha256", "").lower())
    clean = vetted(data, form, href)
    notes = inspect.metadata(clean) if form == "safetensors" else {}
    if form in ("torch", "keras") or not (form in GRAPHS or "architecture" in given or notes):
        given = _published(clean, form, href, given)
    elif form == "safetensors":
        given = _with_architecture(given, notes, href)
    architecture, config = given.get("architecture", ""), _settings(given)
    if "activation" not in given:
        given = {**given, "activation": _activation(form, config, href)}
    any_bands = architecture in SETS
    if given.get("fills"):
        imputer_for(given.get("bands", ()))  # which says so if it knows nothing of one of them
    if "classes" not in given or ("bands" in given) == any_bands:
        what = (
            "input channels are, in order: bands" if "classes" in given else "output channels mean: classes"
        )
        raise CloudMaskError(
            f"architecture {architecture!r} takes any bands: leave bands= out"
            if any_bands and "classes" in given
            else f"{href}: pass what its {what}=[...]"
        )
    inputs = None if any_bands else len(given["bands"]) + len(given.get("aux", ()))
    shapes, origin = _shapes(clean, form, href, architecture, config, inputs)
    uncertainty = given.get("uncertainty", False)
    shapes.check(inputs, len(given["classes"]), given["activation"], origin, uncertainty=uncertainty)
    patch = given.get("patch") or shapes.patch or 256
    for side in (patch, given.get("largest_patch", patch)):
        if shapes.patch not in (None, side):
            raise CloudMaskError(f"patch={side}: {href} takes windows of {shapes.patch} alone")
    path, sha256 = fetch.local_path(href), fetch.digest(data)
    made = {
        "version": sha256[:12],
        "loader": LOADER,
        "any_bands": any_bands,
        "patch": patch,
        "patch_fixed": shapes.patch is not None,
        "runtime": "onnx" if form == "onnx" else "torch",
        "sha256": sha256,
        "weights": str(path.resolve()) if path is not None and not href.startswith(fetch.PACKAGE) else href,
    }
    name = plain_name(PurePosixPath(known.file_name(href)).stem)
    defaults = {"name": name, "bands": (), "overlap": patch // 4}
    return types.ModelSpec(**{**defaults, **with_units(given), **made})


def _published(data: bytes, form: Form, href: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Complete what the caller says by what the published system is that these tensors are of."""
    contents, family = contents_of(data, form, href)
    try:
        return _completed(contents, family, form, href, given)
    except CloudMaskError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise WeightsError(
            f"{href} looks like a published network, and it, or the file beside it, is damaged: {error!r}. "
            "Fetch both again"
        ) from error


def _completed(
    contents: Contents, family: Family | None, form: Form, href: str, given: Mapping[str, Any]
) -> Mapping[str, Any]:
    if family is None and form == "safetensors":
        return _with_architecture(given, {}, href)
    if family is None:
        raise WeightsError(
            f"{href} holds {len(contents.tensors)} tensors ({', '.join(sorted(contents.tensors)[:3])}, ...) "
            "of no published system that is known here. If they are those of an architecture of this "
            "library: xcloudmask models convert FILE OUT.safetensors, then load that with architecture=, "
            "bands=, classes=. Any other network: export it as ONNX"
        )
    complete = {**checked(family.card(contents)), **given}
    from xcloudmask.models.weights import instantiate

    instantiate.check(complete["architecture"], _settings(complete), family.translate(contents), href)
    return {**complete, "family": family.name}


def contents_of(data: bytes, form: Form, href: str) -> tuple[Contents, Family | None]:
    """Return the tensors in a file, what it and the file beside it say of them, and whose they are."""
    tensors, notes = formats.tensors(data, form, href)
    contents = Contents(tensors, {**notes, "file": known.file_name(href)})
    family = published.recognised(contents)
    if family is not None and family.config:
        contents = Contents(tensors, {**contents.notes, "config": known.config_beside(href)})
    return contents, family


def from_card(text: bytes, href: str, given: Mapping[str, Any]) -> ModelSpec:
    """Return the model of a card that lies beside its weights, after looking at them.

    Its loader is set here, not by the card: a loader is code.
    """
    if others := given.keys() - {"name"}:
        raise CloudMaskError(
            f"{href} is a model's card and tells all but its name: leave {', '.join(others)} out"
        )
    spec = card.from_json(text, href, **given)
    if spec.members:
        parts = tuple(_beside(member, href) for member in spec.members)
        return dataclasses.replace(spec, loader=ENSEMBLE, gpu_runtime=None, members=parts)
    return _beside(spec, href)


def _beside(spec: ModelSpec, href: str) -> ModelSpec:
    """Return the card in the file `href` with the address of its weights, which must fit it."""
    from xcloudmask.models.mlm.item import resolve

    if spec.fills:
        imputer_for(spec.bands)  # which says so if it knows nothing of one of them
    if spec.family:
        published.family(spec.family)  # which says so if there is none
    where = resolve(href, spec.weights)
    form: Form = form_of(where)
    if spec.family or form in ("torch", "keras"):
        raise WeightsError(
            f"{spec.weights}, of which {href} is the card, has tensors under names of its authors: load the "
            "weights themselves; xcloudmask models convert writes them with a card"
        )
    if not spec.sha256 or (form == "onnx") != (spec.runtime == "onnx"):
        raise WeightsError(f"the card {href} gives no hash, or a runtime that does not fit {spec.weights}")
    clean = vetted(fetch.read(where, spec.sha256), form, where)
    inputs = None if spec.any_bands else len(spec.bands) + len(spec.aux)
    if spec.any_bands and spec.architecture not in SETS:
        kinds = f"architecture {spec.architecture!r}" if spec.architecture else f"a network in {form}"
        raise WeightsError(f"the card {href} says any_bands, and {kinds} takes fixed ones: name them, bands")
    shapes, _ = _shapes(clean, form, where, spec.architecture, json.loads(spec.config or "{}"), inputs)
    origin = f"{where}, of which {href} is the card,"
    shapes.check(inputs, len(spec.classes), spec.activation, origin, uncertainty=spec.uncertainty)
    return dataclasses.replace(spec, loader=LOADER, gpu_runtime=None, weights=where)


def _shapes(
    clean: bytes, form: Form, href: str, architecture: str, config: Mapping[str, object], inputs: int | None
) -> tuple[inspect.Shapes, str]:
    """Return what goes into vetted weights and comes out, and how messages call them."""
    if form not in GRAPHS:
        shapes = inspect.configured(architecture, config, inputs)
        return shapes, f"{href}, {architecture} with config={dict(config)},"
    return (inspect.onnx(clean) if form == "onnx" else inspect.pt2(clean)), href


def network(spec: ModelSpec) -> Network:
    """Load a network whose `ModelSpec` `make` wrote, or that this package carries."""
    form: Form = "onnx" if spec.runtime == "onnx" else "safetensors" if spec.architecture else "pt2"
    if spec.family:
        form = form_of(spec.weights)
    body: Any = vetted(fetch.read(spec.weights, spec.sha256), form, spec.weights)
    if form != "onnx":
        from xcloudmask.models.weights import instantiate

        if form == "pt2":
            body = instantiate.exported(body, spec.weights)
        else:
            tensors, notes = formats.tensors(body, form, spec.weights)
            if spec.family:
                tensors = published.family(spec.family).translate(Contents(tensors, notes))
            body = instantiate.built(
                spec.architecture, json.loads(spec.config or "{}"), tensors, spec.weights
            )
    imputer = imputer_for(spec.bands) if spec.fills else None
    return Network(body, spec.mean, spec.std, spec.activation, imputer=imputer, parallel=True)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(given.get("config") or "{}")
    return config


def _with_architecture(given: Mapping[str, Any], notes: Mapping[str, str], href: str) -> Mapping[str, Any]:
    """Complete what the caller says by what the file says of its architecture."""
    if "architecture" not in given and {"network", "architecture"} & notes.keys():
        try:
            note = json.loads(notes["network"]) if "network" in notes else notes
            config = note.get("config") or {}
            config = dict(json.loads(config) if isinstance(config, str) else config)
            name, settings = str(note["architecture"]), json.dumps(config, sort_keys=True) if config else ""
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WeightsError(f"{href}: its note on the architecture is damaged: {error!r}") from error
        given = {**given, "architecture": name, "config": given.get("config") or settings}

    if "architecture" not in given:
        raise WeightsError(
            f"{href} holds tensors without the name of their network: pass architecture=, one of "
            f"{', '.join(arch.NAMES)}, and config="
        )
    if given["architecture"] not in arch.NAMES:
        raise OptionError(
            "architecture",
            given["architecture"],
            allowed=arch.NAMES,
            hint="Code that comes with a model is not run; export the network as ONNX to use it.",
        )
    return given


def _activation(form: Form, config: Mapping[str, Any], href: str) -> Activation | None:
    """Return what an architecture's output needs; graphs may end with anything."""
    if form in GRAPHS:
        raise CloudMaskError(
            f"{href}: activation= is required for ONNX and exported programs: 'softmax' (scores of all "
            "classes), 'sigmoid' (one score, of cloud), 'complement' (one probability, of cloud) or 'none' "
            "(probabilities of all classes)"
        )
    return "sigmoid" if config.get("classes") == 1 else "softmax"
