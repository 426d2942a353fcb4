"""Published systems that load from their authors' files: one module each, with a constant ``FAMILY``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import OptionError

if TYPE_CHECKING:
    from torch import Tensor

#: Modules of this package, asked in this order.
FAMILIES: tuple[str, ...] = ("clouds2mask", "ipl_uv", "omnicloudmask", "sensei_v1", "sensei_v2")


@dataclass(frozen=True)
class Contents:
    """What a vetted file of weights holds; nothing of it has been run.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        By the names they were published under; of a Keras file ``layer/kernel`` and so on.
    notes : mapping
        ``"file"``, its name; ``"config"``, the YAML beside it, None if there is none and absent unless the
        family has `config`; ``"classes"``, the Python classes that a pickled module names.
    """

    tensors: Mapping[str, Tensor]
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """A published system.

    Parameters
    ----------
    name : str
        Kept in the card, so that each process that loads the weights translates them the same way.
    recognises : callable
        Whether the contents of a file are this system's; by names and shapes of tensors, not by the file's
        name.
    card : callable
        Fields of `xcloudmask.ModelSpec` that follow from the contents; what a user passes goes first.
    translate : callable
        The tensors under the names that the card's architecture has for them.
    config : bool
        Whether a file ``config.yaml`` was published beside the weights, and tells what they do not.
    """

    name: str
    recognises: Callable[[Contents], bool]
    card: Callable[[Contents], dict[str, Any]]
    translate: Callable[[Contents], dict[str, Tensor]]
    config: bool = False


def shown(value: Any) -> str:
    """Return a value that a file gives as a message may show it; of what could be long, the type's name.

    Examples
    --------
    >>> shown(7), shown("Segformer"), shown([1, 2])
    ('7', "'Segformer'", 'list')
    """
    if value is None or isinstance(value, str | float | bool):
        return repr(value if not isinstance(value, str) else value[:60])
    return repr(value) if isinstance(value, int) and abs(value) < 2**63 else type(value).__name__


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
