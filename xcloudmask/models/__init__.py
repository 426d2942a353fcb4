"""The models: a registry of `ModelSpec`, which are data. Networks load where they are first used.

Examples
--------
>>> import xcloudmask
>>> xcloudmask.models.get("ukis-4band-l2a").bands
('blue', 'green', 'red', 'nir')
"""

from __future__ import annotations

import builtins

from xcloudmask.errors import OptionError
from xcloudmask.models import ukis
from xcloudmask.models.network import Network
from xcloudmask.types import ModelSpec

__all__ = ["ModelSpec", "Network", "get", "list", "register"]

_registry: dict[str, ModelSpec] = {spec.name: spec for spec in ukis.SPECS}


def list() -> builtins.list[str]:  # the name users look for, as in models.list()
    """Return the names of all models.

    Examples
    --------
    >>> import xcloudmask
    >>> "ukis-6band-l1c" in xcloudmask.models.list()
    True
    """
    return builtins.list(_registry)


def get(name: str) -> ModelSpec:
    """Return the card of the model called `name`.

    Examples
    --------
    >>> import xcloudmask
    >>> xcloudmask.models.get("ukis-6band-l1c").licence
    'Apache-2.0'
    """
    try:
        return _registry[name]
    except (KeyError, TypeError):
        raise OptionError("model", name, allowed=("auto", *_registry)) from None


def register(spec: ModelSpec, *, replace: bool = False) -> ModelSpec:
    """Add a model, so that ``predict(model=NAME)`` finds it.

    Its `loader` names a function that every process that infers can import; on a cluster the package that
    holds it must be installed on the workers.

    Parameters
    ----------
    spec : ModelSpec
        The model's card.
    replace : bool
        Whether a model of the same name may be replaced.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.testing import TOY
    >>> xcloudmask.models.register(TOY, replace=True).name
    'toy'
    """
    if not isinstance(spec, ModelSpec):
        raise TypeError(f"register takes a ModelSpec, got {type(spec).__name__}")
    if spec.name in _registry and _registry[spec.name] != spec and not replace:
        raise ValueError(f"a model called {spec.name!r} exists already; choose another name, or replace=True")
    _registry[spec.name] = spec
    return spec


def automatic() -> tuple[ModelSpec, ...]:
    """Return the models that ``model="auto"`` may take, the best first."""
    return ukis.SPECS
