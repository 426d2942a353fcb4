"""The models: a registry of `ModelSpec`, which are data. Networks load where they are first used.

Examples
--------
>>> import xcloudmask
>>> xcloudmask.models.get("ukis-4band-l2a").bands
('blue', 'green', 'red', 'nir')
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from xcloudmask.models.ensembles import ensemble
from xcloudmask.models.loading import load
from xcloudmask.models.lookup import automatic, cards, families, for_level, get, names, show
from xcloudmask.models.own.modules import register
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    from xcloudmask.models.mlm.write import export

__all__ = [
    "ModelSpec", "automatic", "cards", "ensemble", "export", "families", "for_level", "get", "load", "names",
    "register", "show",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what few need when it is asked for."""
    if name == "export":
        return importlib.import_module("xcloudmask.models.mlm.write").export
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)
