"""Networks of the user's own: a module or a function becomes a model, here and on a cluster.

The object is pickled once, by the user and for the user's own processes, and kept under the hash of its
bytes. A task graph carries the hash. A cluster's workers get the bytes once each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

from xcloudmask import types
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.card_fields import CardKeywords, checked, plain_name, with_units
from xcloudmask.models.imputation import imputer_for
from xcloudmask.models.lookup import get
from xcloudmask.models.network import Network
from xcloudmask.models.registry import add
from xcloudmask.models.weights import fetch
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    import torch
    from distributed import Client

LOADER = "xcloudmask.models.own.modules:network"

_cards: weakref.WeakKeyDictionary[Any, ModelSpec] = weakref.WeakKeyDictionary()
#: What each cluster has been sent; by the client, which knows its cluster.
_sent: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def register(
    model: ModelSpec | Callable[..., Any], *, overwrite: bool = False, **card: Unpack[CardKeywords]
) -> ModelSpec:
    """Add a model, so that ``predict(model=NAME)``, or ``predict(model=my_module)``, finds it.

    Parameters
    ----------
    model : ModelSpec or torch.nn.Module or callable
        A card, whose `loader` names a function that every process that infers can import; pass it alone. Or
        a module or function of your own, which maps a tensor (n, bands, y, x) to (n, classes, y, x). On a
        cluster its code must be importable there, or be defined in your notebook.
    overwrite : bool
        Whether a model of the same name may be replaced.
    **card
        Fields of `ModelSpec`, which describes each. Needed are ``classes`` and, unless it is a set network
        with a method ``describe`` (`xcloudmask.models.arch.setnet.SetNetwork`), ``bands``. Besides:
        ``name`` (that of its class or function if not given), ``aux``, ``min_bands``, ``fills``, ``spare``,
        ``units`` and ``activation`` (as for `load`; softmax if not given), ``mean``, ``std``,
        ``uncertainty``, ``level``, ``gsd``, ``finest_pixel``, ``patch`` (256), ``largest_patch``,
        ``overlap`` (a quarter), ``gaps``, ``threshold``, ``shadow_threshold``, ``training_data``, ``chosen``,
        ``scores``, ``limits``, ``cost``, ``licence``, ``citation``, ``description``.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.testing import TOY
    >>> xcloudmask.models.register(TOY, overwrite=True).name
    'toy'
    >>> def bright(pixels):
    ...     return pixels[:, :1] * 20 - 6
    >>> spec = xcloudmask.models.register(bright, bands=["red"], classes=["clear", "cloud"],
    ...                                   activation="sigmoid", overwrite=True)
    >>> spec.name, spec.weights[:5]
    ('bright', 'held:')
    """
    given = checked(card, without=("architecture", "config", "reduce", "sha256"))
    if isinstance(model, ModelSpec):
        if given:
            raise CloudMaskError(f"a ModelSpec holds all of its card: leave {', '.join(given)} out")
        return add(model, overwrite=overwrite)
    if not callable(model):
        raise TypeError(
            f"register takes a ModelSpec, a torch module or a function, got {type(model).__name__}"
        )
    name = given.get("name") or _name_of(model)
    any_bands = hasattr(model, "describe")
    if "classes" not in given or ("bands" in given) == any_bands:
        raise CloudMaskError(
            f"a set network takes any bands: leave bands= out of register({name!r})"
            if any_bands and "classes" in given
            else f"pass what goes in and out: {_line(name)}"
        )
    defaults = {
        "version": "",
        "bands": (),
        "patch": 256,
        "overlap": given.get("patch", 256) // 4,
        "licence": "your own",
        "description": "registered in this session",
        "activation": None if given.get("uncertainty") else "softmax",
    }
    made = {"name": name, "loader": LOADER, "any_bands": any_bands}
    spec = types.ModelSpec(**{**defaults, **with_units(given), **made})
    return add(_filled(spec, model), overwrite=overwrite)


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
            f"model={model!r}: pass a name, a ModelSpec, or a module or function that was registered"
        )
    spec = None
    with contextlib.suppress(TypeError):  # it has no hash
        spec = _cards.get(model)
    spec = spec or getattr(model, "cloudmask_spec", None)
    if not isinstance(spec, ModelSpec):
        raise CloudMaskError(f"model={_name_of(model)} is not registered: {_line(_name_of(model))}")
    return add(_filled(spec, model), overwrite=True)


def send(model: str | ModelSpec, client: Client | None = None) -> None:
    """Send a model's weights to every worker of a cluster, also to those that come later.

    predict does it for modules and functions that were registered, where a cluster's Client exists. Weights
    in a file are sent where this is called: for workers that do not see the file. The cluster is that of the
    current client if none is given.
    """
    from distributed import default_client

    from xcloudmask.models.own.send_weights import WeightsPlugin

    spec = get(model) if isinstance(model, str) else model
    client = client or default_client()  # type: ignore[no-untyped-call]
    sent = _sent.setdefault(client, set())
    for each in spec.members or (spec,):
        if each.sha256 and each.sha256 not in sent:
            data = fetch.read(each.weights, each.sha256)
            client.register_plugin(WeightsPlugin(data), name=f"xcloudmask-weights-{each.sha256}")
            sent.add(each.sha256)


def send_registered(spec: ModelSpec) -> None:
    """Send a registered module to the current cluster, if there is one; nothing else is ever sent."""
    held = any(each.weights.startswith(fetch.HELD) for each in (spec, *spec.members))
    if held and "distributed" in sys.modules:
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

    model = loads(fetch.read(spec.weights, spec.sha256))

    class Function(torch.nn.Module):
        """A function as a module."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(model(pixels), device=pixels.device)

    body = model if isinstance(model, torch.nn.Module) else Function()
    imputer = imputer_for(spec.bands) if spec.fills else None
    return Network(body, spec.mean, spec.std, spec.activation, imputer=imputer)


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
    return plain_name(name).lower()


def _line(name: str) -> str:
    return (
        f"xcloudmask.models.register(my_model, name={name!r}, bands=['red', 'nir'], "
        "classes=['clear', 'cloud'], gsd=(20, 40), patch=256)"
    )
