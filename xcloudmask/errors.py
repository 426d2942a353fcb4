"""Every exception and warning of the library: few, each also a built-in one, each naming the remedy."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any


class CloudMaskError(ValueError):
    """Base of every error that the library raises on purpose."""


class OptionError(CloudMaskError, KeyError):
    """A name or value that is not one of those allowed; the message offers the nearest match."""

    def __init__(self, what: str, value: object, *, allowed: Iterable[object] = (), hint: str = "") -> None:
        names = [str(name) for name in allowed]
        folded = {name.casefold(): name for name in names}
        near = get_close_matches(str(value).casefold(), folded, n=1, cutoff=0.5)
        shown = repr(value)
        message = f"unknown {what} {shown if len(shown) <= 300 else shown[:300] + '...'}"
        if near:
            message += f"; did you mean {folded[near[0]]!r}?"
        elif names or hint:
            message += "."
        if names:
            message += f" Allowed: {', '.join(names)}."
        if hint:
            message += f" {hint}"
        super().__init__(message)
        self.what = what
        self.value = value
        self.allowed = tuple(names)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:  # an exception remembers what it told, not what it was told
        again = partial(type(self), self.what, self.value, allowed=self.allowed, hint=self.hint)
        return again, (), self.__dict__

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class BandError(CloudMaskError, KeyError):
    """The bands at hand do not serve the model, or cannot be told apart."""

    def __str__(self) -> str:
        return str(self.args[0])


class UnitError(CloudMaskError):
    """Numbers whose unit is unknown or contradicts what is declared."""


class WeightsError(CloudMaskError):
    """Weights that are missing, altered, or in a form that is not loaded."""


class UnitWarning(UserWarning):
    """Something about units or level was assumed; the message says what, and how to settle it."""


class ModelWarning(UserWarning):
    """A model answers that was not made for such bands or pixels; the message says how good it may be."""


class NoDataWarning(UserWarning):
    """Input that holds no usable pixel, or values (such as inf) that are taken as no data."""


class AssetError(OSError, CloudMaskError):
    """A file that a catalogue names and that cannot be read; the message names item, asset and remedy."""


class StoreError(OSError, CloudMaskError):
    """The store refused or failed; the message says what to do. What was recorded as done stays done."""


class StoreLockedError(StoreError):
    """Another process is writing to the same store."""


class ClusterError(CloudMaskError):
    """The cluster is gone, or all of its workers are. What was recorded as done stays done."""


class ContractError(CloudMaskError):
    """The store holds a mask that was made otherwise; the message shows both."""


class StreamWarning(UserWarning):
    """A stream ended, but not all of its regions are done."""


_HERE = str(Path(__file__).parent)


def warn_user(message: str, category: type[Warning]) -> None:
    """Warn with the first line outside this package as its place."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
