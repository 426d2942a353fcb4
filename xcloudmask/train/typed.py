"""Settings from a table of a config file, refused where a name or a type is not that of the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from xcloudmask.errors import CloudMaskError, OptionError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def from_table(cls: type[T], table: Mapping[str, object], what: str) -> T:
    """Return a dataclass of settings, made of a table whose names and types were checked.

    Fields may be bool, int, float, str (or `Literal`), ``tuple[str, ...]`` (a list serves) and Mapping, or
    one of several of these. A bool is no number, and a number must be finite.

    Parameters
    ----------
    cls : type
        A dataclass.
    table : mapping
        Its fields by name; those that are missing keep their default.
    what : str
        What an entry is, for messages: ``"setting of [recipe]"``.

    Raises
    ------
    OptionError
        For a name that is not one of the fields'.
    CloudMaskError
        For a value of another type than the field's, and for a field that must be given and is not.

    Examples
    --------
    >>> from xcloudmask.train.stream import Recipe
    >>> from_table(Recipe, {"size": 64, "bands": ["red", "nir"]}, "setting of [recipe]").bands
    ('red', 'nir')
    >>> from_table(Recipe, {"size": "64"}, "setting of [recipe]")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: size = '64' in [recipe] must be a whole number, without quotes
    """
    where, types = what.removeprefix("setting of "), get_type_hints(cls)
    known = {entry.name: entry for entry in fields(cls) if entry.init}
    for key in table:
        if key not in known:
            raise OptionError(what, key, allowed=known)
    for name, entry in known.items():
        if name not in table and entry.default is MISSING and entry.default_factory is MISSING:
            raise CloudMaskError(f"{name} is missing in {where}; it must be {_words(types[name])}")
    return cls(**{key: _checked(key, value, types[key], where) for key, value in table.items()})


def _checked(key: str, value: object, annotation: Any, where: str) -> object:
    """Return a value if it is of its field's type, a list of text as a tuple."""
    for kind in _kinds(annotation):
        if _IS[kind](value):
            return tuple(value) if kind is tuple else value  # type: ignore[arg-type]
    unquote = isinstance(value, str) and not {tuple, Mapping} & set(_kinds(annotation))
    raise CloudMaskError(
        f"{key} = {value!r} in {where} must be {_words(annotation)}" + (", without quotes" if unquote else "")
    )


def _kinds(annotation: Any) -> list[Any]:
    """Return which keys of `_IS` an annotation names."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return list(dict.fromkeys(kind for part in parts for kind in _kinds(part)))
    if origin is Literal and all(isinstance(part, str) for part in parts):
        return [str]
    if origin is tuple and parts == (str, ...):
        return [tuple]
    kind = origin or annotation
    if kind is tuple or kind not in _IS:
        raise TypeError(f"a setting cannot be of type {annotation}: there is no check for it")
    return [kind]


def _words(annotation: Any) -> str:
    return " or ".join(_WORDS[kind] for kind in _kinds(annotation))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, Integral) or (isinstance(value, Real) and math.isfinite(value))


#: By type of field, whether a value serves, and how that is said.
_IS: Mapping[Any, Callable[[object], bool]] = {
    bool: lambda value: isinstance(value, bool),
    int: _is_whole,
    float: _is_number,
    str: lambda value: isinstance(value, str),
    tuple: lambda value: isinstance(value, list | tuple) and all(isinstance(item, str) for item in value),
    Mapping: lambda value: isinstance(value, Mapping),
    NoneType: lambda value: value is None,
}
_WORDS: Mapping[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "text in quotes",
    tuple: "a list of texts", Mapping: "a table", NoneType: "left out",
}  # fmt: skip
