"""Flags of the command line, made from the fields of `options.py` in predict, store and stac."""

from __future__ import annotations

from argparse import ArgumentTypeError, BooleanOptionalAction, Namespace
from collections.abc import Callable, Iterable
from dataclasses import Field
from typing import Any

from xcloudmask.errors import Remedy, Use, Worded
from xcloudmask.predict.fields import OptionSet, types_of


def flag_of(name: str) -> str:
    """Return the flag of an option.

    Examples
    --------
    >>> flag_of("patch_size")
    '--patch-size'
    """
    return f"--{name.replace('_', '-')}"


def add_flags(group: Any, options: type[OptionSet], leave_out: Iterable[str] = ()) -> None:
    """Declare a flag for each option but those left out, which have one of another kind or none."""
    for option in options.fields():
        if option.name in leave_out:
            continue
        form: dict[str, Any] = {"metavar": option.metadata["placeholder"] or None, "type": _parser(option)}
        if types_of(option) == {"bool"}:
            form = {"action": BooleanOptionalAction if option.default else "store_true"}
        group.add_argument(
            flag_of(option.name),
            dest=option.name,
            default=option.default,
            help=option.metadata["about"],
            **form,
        )


def given(args: Namespace, options: type[OptionSet], leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return what `add_flags` has taken."""
    return {name: getattr(args, name) for name in options.names() if name not in leave_out}


def _parser(option: Field[Any]) -> Callable[[str], Any]:
    """Return what reads an option's value, by its type; the library checks it further."""
    words = types_of(option)
    for number, parse in (("int", whole), ("float", float)):
        if number in words:
            return _number_or_text(parse) if "str" in words else parse
    return str


def _number_or_text(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, ArgumentTypeError):
            return None if text == "none" else text

    return read


def whole(text: str) -> int:
    """Parse a whole number of 0 or more."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"{text!r} must be a whole number")
    return int(text)


def in_flags(message: object) -> str:
    """Return a message of the library, its options as the command line takes them."""
    return message.worded(as_flags) if isinstance(message, (Worded, Remedy)) else str(message)


def as_flags(use: Use) -> str:
    """Return options that a message of the library names as the command line takes them.

    Examples
    --------
    >>> as_flags(Use("da.cloudmask.describe", level="L1C", bands=[...]))
    '--level L1C --bands a,b,c'
    >>> as_flags(Use(aux={"elevation": ..., "vv": ...})), as_flags(Use(units="dB"))
    ('--aux elevation=FILE --aux vv=FILE', '--aux-units NAME=dB')
    >>> as_flags(Use(overwrite=True)), as_flags(Use(patch_size=16)), as_flags(Use(group=...))
    ('--overwrite', '--patch-size 16', '--group')
    >>> as_flags(Use("da.cloudmask.describe", scale=0.0001, offset=...))
    '--scale 0.0001 --offset OFFSET'
    """
    words: list[str] = []
    for name, value in use.options.items():
        if name == "aux" and isinstance(value, dict):
            words += [f"--aux {key}=FILE" for key in value]
        elif name == "units":
            words.append(f"--aux-units NAME={value}")
        elif name == "output":
            words.append("--proba")
        elif value is ... and (use.call or len(use.options) > 1):
            words.append(f"{flag_of(name)} {name.upper()}")
        elif value is True or value is ...:
            words.append(flag_of(name))
        elif isinstance(value, list):
            words.append(f"{flag_of(name)} {'a,b,c' if ... in value else ','.join(map(str, value))}")
        else:
            words.append(f"{flag_of(name)} {'none' if value is None else value}")
    return " ".join(words)
