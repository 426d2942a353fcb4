"""Networks of the user's own: a module or a function becomes a model, here and on a cluster.

The object is pickled once, by the user and for the user's own processes, and kept under the hash of its
bytes. A task graph carries the hash. A cluster's workers get the bytes once each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import CloudMaskError
from xcloudmask.models.lookup import get
from xcloudmask.models.network import Network, parse_activation
from xcloudmask.models.registry import add
from xcloudmask.models.units import normalisation
from xcloudmask.models.weights import fetch
from xcloudmask.types import AuxInput, ModelSpec, parse_level

if TYPE_CHECKING:
    import torch
    from distributed import Client

LOADER = "xcloudmask.models.own.modules:network"

_cards: weakref.WeakKeyDictionary[Any, ModelSpec] = weakref.WeakKeyDictionary()
#: What each cluster has been sent; by the client, which knows its cluster.
_sent: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def register(
    model: ModelSpec | Callable[..., Any],
    *,
    name: str | None = None,
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
    aux: Sequence[AuxInput | str] = (),
    uncertainty: bool = False,
    licence: str | None = None,
    description: str | None = None,
    replace: bool = False,
) -> ModelSpec:
    """Add a model, so that ``predict(model=NAME)``, or ``predict(model=my_module)``, finds it.

    Parameters
    ----------
    model : ModelSpec or torch.nn.Module or callable
        A card, whose `loader` names a function that every process that infers can import. Or a module or
        function of your own, which maps a tensor (n, bands, y, x) to (n, classes, y, x); it needs the
        arguments below. On a cluster its code must be importable there, or be defined in your notebook.
    name : str, optional
        How it is to be called; the name of its class or function if not given.
    bands : sequence of str
        STAC common names of its inputs, in order. Leave out for a set network, which has a method
        ``describe`` (`xcloudmask.models.arch.setnet.SetNetwork`).
    classes : sequence of str
        What each output channel means (`xcloudmask.classes.VOCABULARY`).
    level : {"toa", "boa"}, optional
        Processing level it was trained on; either if not given.
    gsd : (float, float), optional
        Pixel sizes it was trained on, in metres, from and to; any if not given.
    units, mean, std
        It is given ``(value - mean) / std`` of reflectance in these units, see `load`.
    activation : {"softmax", "sigmoid", "complement", "none"}, optional
        What makes probabilities of its output, see `load`; softmax if not given.
    threshold : float, optional
        Probability of cloud that suffices where the caller of predict says none.
    shadow_threshold : float, optional
        Probability of cloud shadow below which a pixel that is no cloud is the likeliest of the rest.
    patch, overlap : int, optional
        Window size (256) and overlap (a quarter), in pixels.
    aux : sequence of AuxInput or str
        What it takes behind its bands, see `ModelSpec`: ``"elevation"``, ``"vv"``, ``"vh"``, ``"angle"``.
    uncertainty : bool
        Whether its last channel tells how far its members disagree, see `ModelSpec`.
    licence, description : str, optional
        For the card.
    replace : bool
        Whether a model of the same name may be replaced.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.testing import TOY
    >>> xcloudmask.models.register(TOY, replace=True).name
    'toy'
    >>> def bright(pixels):
    ...     return pixels[:, :1] * 20 - 6
    >>> spec = xcloudmask.models.register(bright, bands=["red"], classes=["clear", "cloud"],
    ...                                   activation="sigmoid", replace=True)
    >>> spec.name, spec.weights[:5]
    ('bright', 'held:')
    """
    if isinstance(model, ModelSpec):
        if any(value is not None for value in (name, bands, classes, level, gsd, units, mean, std)):
            raise CloudMaskError("a ModelSpec says bands, classes and the rest itself; pass it alone")
        return add(model, replace=replace)
    if not callable(model):
        raise TypeError(
            f"register takes a ModelSpec, a torch module or a function, got {type(model).__name__}"
        )
    name = name or _name_of(model)
    any_bands = hasattr(model, "describe")
    if classes is None or (bands is None) != any_bands:
        raise CloudMaskError(
            f"a set network is told its bands: leave bands= out of register({name!r})"
            if any_bands and classes is not None
            else f"say what goes in and out: {_line(name)}"
        )
    centre, spread = normalisation(units, mean, std)
    patch = patch or 256
    spec = ModelSpec(
        name=name,
        version="",
        bands=tuple(bands or ()),
        classes=tuple(classes),
        loader=LOADER,
        any_bands=any_bands,
        level=None if level is None else parse_level(level),
        gsd=gsd,
        patch=patch,
        overlap=patch // 4 if overlap is None else overlap,
        licence=licence or "your own",
        description=description or "registered in this session",
        mean=centre,
        std=spread,
        activation=parse_activation(activation or ("none" if uncertainty else "softmax")),
        threshold=threshold,
        shadow_threshold=shadow_threshold,
        aux=tuple(AuxInput.of(each) for each in aux),
        uncertainty=uncertainty,
    )
    return add(_filled(spec, model), replace=replace)


def spec_of(model: object) -> ModelSpec:
    """Return the card of a module or function that was registered, or that has a ``cloudmask_spec``.

    Its weights are looked at again: if they have changed since, so has the card's hash.

    Examples
    --------
    >>> spec_of(len)
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: model=len is not registered: xcloudmask.models.register(my_model, ...
    """
    if isinstance(model, ModelSpec):
        return model
    if not callable(model):
        raise TypeError(
            f"model must be a name, a ModelSpec, a module or a function, got {type(model).__name__}"
        )
    try:
        spec = _cards.get(model)
    except TypeError:  # it has no hash
        spec = None
    spec = spec or getattr(model, "cloudmask_spec", None)
    if not isinstance(spec, ModelSpec):
        raise CloudMaskError(f"model={_name_of(model)} is not registered: {_line(_name_of(model))}")
    return add(_filled(spec, model), replace=True)


def send(model: str | ModelSpec, client: Client | None = None) -> None:
    """Send a model's weights to every worker of a cluster, also to those that come later.

    predict does it for modules and functions that were registered, where a cluster's Client exists.
    Weights in a file are sent where this is called: for workers that do not see the file.

    Parameters
    ----------
    model : str or ModelSpec
        Which.
    client : distributed.Client, optional
        To which cluster; that of the current client if not given.
    """
    from distributed import default_client

    from xcloudmask.models.own.carrier import Carrier

    spec = get(model) if isinstance(model, str) else model
    client = client or default_client()  # type: ignore[no-untyped-call]
    sent = _sent.setdefault(client, set())
    if spec.sha256 and spec.sha256 not in sent:
        data = fetch.read(spec.weights, spec.sha256)
        client.register_plugin(Carrier(data), name=f"xcloudmask-weights-{spec.sha256}")
        sent.add(spec.sha256)


def ready(spec: ModelSpec) -> None:
    """Send a registered module to the current cluster, if there is one; nothing else is ever sent."""
    if spec.weights.startswith(fetch.HELD) and "distributed" in sys.modules:
        from distributed import default_client

        try:
            client = default_client()  # type: ignore[no-untyped-call]
        except ValueError:  # no cluster
            return
        send(spec, client)


def network(spec: ModelSpec) -> Network:
    """Load a module or function that `register` keeps."""
    import torch

    from xcloudmask.models.own.pickling import loads

    found = loads(fetch.read(spec.weights, spec.sha256))

    class Function(torch.nn.Module):
        """A function as a module."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(found(pixels), device=pixels.device)

    body = found if isinstance(found, torch.nn.Module) else Function()
    return Network(body, spec.mean, spec.std, spec.activation)


def _filled(spec: ModelSpec, model: Any) -> ModelSpec:
    """Keep a model's bytes and return its card with their hash."""
    from xcloudmask.models.own.pickling import dumps

    sha256 = fetch.hold(dumps(model))
    spec = dataclasses.replace(
        spec, version=sha256[:12], loader=LOADER, weights=f"{fetch.HELD}{sha256}", sha256=sha256
    )
    with contextlib.suppress(TypeError):  # one that has no hash is known by its name alone
        _cards[model] = spec
    return spec


def _name_of(model: Any) -> str:
    name = str(getattr(model, "__name__", type(model).__name__))
    return re.sub(r"[^A-Za-z0-9_.\-]+", "-", name).strip("-.").lower() or "model"


def _line(name: str) -> str:
    return (
        f"xcloudmask.models.register(my_model, name={name!r}, bands=['red', 'nir'], "
        "classes=['clear', 'cloud'], gsd=(20, 40), patch=256)"
    )
