"""Models that other packages bring, found by the entry points of the group ``xcloudmask.models``.

An entry point is called as its model is and leads to a `ModelSpec`, or to a function without arguments that
returns one. It is imported when its model is first asked for; a list of names imports nothing.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from xcloudmask.errors import CloudMaskError
from xcloudmask.types import ModelSpec

GROUP = "xcloudmask.models"

#: What the loaders of this package's own entries import, and how it is installed. A model that another
#: package brings by an entry point of its own comes with all it needs.
NEEDS = {
    "xcloudmask.models.sources.adapters:s2cloudless": (
        ("s2cloudless", "lightgbm"),
        "pip install s2cloudless lightgbm",
    ),
    "xcloudmask.models.sources.adapters:cloudsen12": (("sentle",), "pip install sentle"),
    "xcloudmask.models.sources.adapters:omnicloudmask": (("omnicloudmask",), "pip install omnicloudmask"),
    "xcloudmask.models.sources.ukis:load": (("ukis_csmask",), "pip install 'ukis-csmask>=1.0,<2'"),
}


@cache
def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def names() -> list[str]:
    """Return the names of the models that installed packages bring."""
    return sorted(_found())


@cache
def read(name: str) -> ModelSpec:
    """Return the card of a model that a package brings; this imports the package."""
    entry = _found()[name]
    try:
        spec = entry.load()
        spec = spec() if callable(spec) else spec
    except Exception as error:  # whatever another package does wrong
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        raise CloudMaskError(
            f"model {name!r} comes from {entry.value}, which cannot be imported: {kind}{error}"
        ) from error
    if not isinstance(spec, ModelSpec) or spec.name != name:
        raise CloudMaskError(
            f"the entry point {name!r} of group {GROUP} leads to {entry.value}, which must be a ModelSpec of "
            f"that name, or a function that returns it; got {spec!r}"
        )
    return spec


def missing(spec: ModelSpec) -> str | None:
    """Return how to install what a model needs and is not there, None if nothing is missing.

    Packages are looked for, not imported.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> missing(TOY) is None
    True
    """
    packages, remedy = NEEDS.get(spec.loader, ((), ""))
    return remedy if any(find_spec(package) is None for package in packages) else None
