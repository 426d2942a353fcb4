"""Published systems that load from their authors' files: one module each, with a constant ``FAMILY``."""

from __future__ import annotations

import importlib

from xcloudmask.errors import OptionError
from xcloudmask.models.published.family import Contents, Family

#: Modules of this package, asked in this order.
FAMILIES: tuple[str, ...] = ("clouds2mask", "ipl_uv", "omnicloudmask", "sensei_v1", "sensei_v2")


def family(name: str) -> Family:
    """Return the published system that is called `name`."""
    for module in FAMILIES:
        known = _load(module)
        if known.name == name:
            return known
    raise OptionError("family of published models", name, allowed=[_load(module).name for module in FAMILIES])


def recognised(contents: Contents) -> Family | None:
    """Return the published system that a file belongs to, None if it is none that is known here."""
    families = map(_load, FAMILIES)
    return next((family for family in families if family.recognises(contents)), None)


def _load(module: str) -> Family:
    known: Family = importlib.import_module(f"{__name__}.{module}").FAMILY
    return known
