"""What sets of options have in common: each option is one field with its sentence; all else reads these."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np

from xcloudmask.errors import CloudMaskError, OptionError, Use

Call = TypeVar("Call", bound=Callable[..., Any])


def about(
    sentence: str,
    placeholder: str = "",
    *,
    recorded: bool = True,
    settled: Mapping[str, str] | None = None,
    always: bool = False,
) -> dict[str, Any]:
    """Return the metadata of an option's field.

    Parameters
    ----------
    sentence : str
        What it does, as a help text.
    placeholder : str
        Stands for its value there.
    recorded : bool
        Whether another value makes another result, so that it is recorded with it.
    settled : mapping of str to str, optional
        What to record: names, and where in `xcloudmask.types.Options`, what the call came to, each stands.
        Without it the value itself is recorded.
    always : bool
        Whether its default is recorded in attributes, too.
    """
    return {
        "about": sentence, "placeholder": placeholder, "recorded": recorded, "settled": settled,
        "always": always,
    }  # fmt: skip


def types_of(option: Field[Any]) -> set[str]:
    """Return the names in a field's annotation."""
    return set(re.findall(r"\w+", getattr(option.type, "__name__", str(option.type))))


def check_whole(name: str, value: object, need: str, least: float = -math.inf) -> None:
    """Refuse a value that is not a whole number, or below the least."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise CloudMaskError(f" must be {need}", option=Use(**{name: value}))


@dataclass(frozen=True, kw_only=True, eq=False)
class OptionSet:
    """Options of one call. A subclass's fields are its options; ``about`` gives each its sentence.

    Examples
    --------
    >>> from xcloudmask.store.options import WriteOptions
    >>> WriteOptions.read({"retries": 0}).retries
    0
    >>> WriteOptions.read({"retires": 0})
    Traceback (most recent call last):
    xcloudmask.errors.OptionError: unknown option of write 'retires'; did you mean 'retries'? ...
    """

    def __post_init__(self) -> None:
        """Refuse what is neither true nor false where nothing else is taken: "no" would count as true."""
        for option in fields(self):
            value = getattr(self, option.name)
            if types_of(option) == {"bool"} and not isinstance(value, (bool, np.bool_)):
                raise OptionError(option.name, value, allowed=(False, True))

    @classmethod
    def read(cls, given: Mapping[str, Any], **more: Any) -> Self:
        """Return the options that a mapping names; a name that is none offers the nearest."""
        if not isinstance(given, Mapping):
            raise OptionError(f"{cls.word()} options", given, hint="Give a mapping of names to values.")
        names = cls.names()
        for name in given:
            if name not in names or name in more:
                allowed = [name for name in names if name not in more]
                raise OptionError(f"option of {cls.word()}", name, allowed=allowed)
        return cls(**given, **more)

    @classmethod
    def word(cls) -> str:
        """Return what the options are of: ``predict``, ``write`` or ``load``."""
        return cls.__name__.removesuffix("Options").lower()

    @classmethod
    def names(cls) -> list[str]:
        """Names of the options."""
        return [option.name for option in fields(cls)]

    @classmethod
    def fields(cls) -> tuple[Field[Any], ...]:
        """Return the fields."""
        return fields(cls)

    def given(self) -> dict[str, Any]:
        """Return names and values."""
        return {name: getattr(self, name) for name in self.names()}


def spelled_out(options: type[OptionSet]) -> Callable[[Call], Call]:
    """Show options that a function takes as ``**more`` in its signature, where completion reads them."""

    def decorate(function: Call) -> Call:
        signature = inspect.signature(function)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        more = [
            inspect.Parameter(
                option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type
            )
            for option in options.fields()
        ]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return function

    return decorate
