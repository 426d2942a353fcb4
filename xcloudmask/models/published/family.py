"""What a published system's module says of itself: how its files are recognised, and what they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


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
