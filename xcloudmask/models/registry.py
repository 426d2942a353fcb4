"""The models that were added in this process, beside those that come with the package."""

from __future__ import annotations

from xcloudmask.models.sources import ukis
from xcloudmask.types import ModelSpec

#: By name.
registered: dict[str, ModelSpec] = {spec.name: spec for spec in ukis.SPECS}


def add(spec: ModelSpec, *, replace: bool = False) -> ModelSpec:
    """Add a model by its card, so that ``predict(model=NAME)`` finds it; see `register`.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.testing import TOY
    >>> xcloudmask.models.add(TOY, replace=True).name
    'toy'
    """
    if spec.name == "auto":
        raise ValueError("no model may be called 'auto'")
    if spec.name in registered and registered[spec.name] != spec and not replace:
        raise ValueError(f"a model called {spec.name!r} exists already; choose another name, or replace=True")
    registered[spec.name] = spec
    return spec
