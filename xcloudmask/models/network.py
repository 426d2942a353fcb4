"""What a loader returns: the network and the arithmetic around it; devices are the engine's."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast

from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models.imputation import BandImputer
from xcloudmask.models.weights.fetch import digest
from xcloudmask.types import Activation, ModelSpec, Reduction


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network.

    Parameters
    ----------
    body : bytes or torch.nn.Module
        A serialised ONNX graph, or a module; either maps (n, bands, y, x) to (n, classes, y, x).
    mean, std : tuple of float or None
        Normalisation of each band, ``(reflectance - mean) / std``, done before the network.
    activation : {"softmax", "sigmoid", "complement", None}
        Turns its output into probabilities. ``"sigmoid"`` is for one score of cloud: it becomes the two
        classes not cloud, cloud; ``"complement"`` for one channel that is the probability of cloud already.
    members, member_weights, reduce
        Networks whose probabilities are joined, instead of one `body`, and how: see `xcloudmask.ModelSpec`.
    spread : tuple of int
        The channels of cloud, if a last one is added: the members' standard deviation of their sum.
    channels : int, optional
        Of a member: how many of the first channels it takes; all if not given.
    imputer : BandImputer, optional
        How bands are estimated that an array lacks; for cards with ``fills=True``.
    parallel : bool
        Whether several threads may call a module at once, a window each, which on a CPU is faster than many
        threads for one window. Not so for a module that keeps things between calls.
    half : {"float16", "bfloat16"}, optional
        Of a module: in what a GPU computes unless ``dtype=`` says otherwise. Only where its answers have been
        compared with those of float32; without it a GPU computes in float32.
    """

    body: Any = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    activation: Activation | None = "softmax"
    members: tuple[Network, ...] = ()
    member_weights: tuple[float, ...] = ()
    reduce: Reduction = "mean"
    spread: tuple[int, ...] = ()
    channels: int | None = None
    imputer: BandImputer | None = None
    parallel: bool = False
    half: Literal["float16", "bfloat16"] | None = None


def load_network(spec: ModelSpec) -> Network:
    """Call the loader that a card names.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> load_network(TOY).activation
    'softmax'
    """
    load = _find_loader(spec)
    try:
        network = load(spec)
    except (CloudMaskError, OSError, ImportError, MemoryError):
        raise  # these tell what is wrong by themselves
    except Exception as error:
        if "out of memory" in str(error).lower():
            raise
        raise _broken(spec, f"fails with {type(error).__name__}: {error}") from error
    if not isinstance(network, Network):
        raise _broken(spec, f"returns {type(network).__name__}, not an xcloudmask.models.network.Network")
    if spec.fills and network.imputer is None:
        raise _broken(spec, "returns a Network without `imputer`, and the card says fills=True")
    return network


def _find_loader(spec: ModelSpec) -> Callable[[ModelSpec], Any]:
    module, _, function = spec.loader.partition(":")
    if not module or not function:
        raise _broken(spec, "does not have the form 'package.module:function'")
    try:
        load = getattr(importlib.import_module(module), function)
    except Exception as error:  # a module may fail in any way as it is imported
        raise _broken(spec, f"cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(load):
        raise _broken(spec, f"is {type(load).__name__}, not a function")
    return cast("Callable[[ModelSpec], Any]", load)


def _broken(spec: ModelSpec, why: str) -> CloudMaskError:
    return CloudMaskError(
        f"model {spec.name!r}: its loader {spec.loader!r} {why}. ModelSpec(loader='package.module:function') "
        "names a function that workers can import, that takes the ModelSpec and returns a Network"
    )


def carried(spec: ModelSpec, install: str) -> tuple[bytes, Path]:
    """Return the weights in an installed package, whose hash was compared, and their path; no code is run."""
    package = spec.weights.partition("/")[0]
    found = find_spec(package)
    if found is None or found.origin is None:
        raise WeightsError(
            f"model {spec.name!r} needs the package {package.replace('_', '-')}, which carries its weights: "
            f"{install}"
        )
    path = Path(found.origin).parent.parent / spec.weights
    if not path.exists():
        raise WeightsError(
            f"the installed {package} has no {spec.weights}; model {spec.name!r} needs another version: "
            f"{install}"
        )
    data = path.read_bytes()
    if (sha256 := digest(data)) != spec.sha256:
        raise WeightsError(
            f"the weights of model {spec.name!r} ({path.name}) have SHA-256 {sha256}, expected "
            f"{spec.sha256}: the file was altered or is another version; reinstall the package with it"
        )
    return data, path
