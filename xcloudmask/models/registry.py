"""The models that were added in this process, beside those that come with the package."""

from __future__ import annotations

from xcloudmask.models.sources import ukis
from xcloudmask.types import ModelSpec

#: By name.
registered: dict[str, ModelSpec] = {spec.name: spec for spec in ukis.SPECS}


def add(spec: ModelSpec, *, overwrite: bool = False) -> ModelSpec:
    """Add a model by its card, so that ``predict(model=NAME)`` finds it."""
    if spec.name == "auto":
        raise ValueError("no model may be called 'auto'")
    if spec.name in registered and registered[spec.name] != spec and not overwrite:
        raise ValueError(
            f"a model called {spec.name!r} exists already; choose another name, or overwrite=True"
        )
    registered[spec.name] = spec
    return spec
