"""What other packages bring by entry points: sensors, and profiles of catalogues (`xcloudmask.stac`)."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any

from xcloudmask.errors import warn_user


def installed(group: str) -> Iterator[tuple[str, Any]]:
    """Go through the entry points of a group: where each comes from, and what it leads to.

    That is an object, or what a function without arguments returns; of a path, the text of its file. One
    that cannot be had is warned of and left out: it must not break what others bring.
    """
    for point in entry_points(group=group):
        try:
            value = point.load()
            value = value() if callable(value) else value
            if isinstance(value, str | PathLike):
                value = Path(value).read_text(encoding="utf-8")
        except Exception as error:  # whatever another package does wrong
            warn_of(group, point.value, error)
            continue
        yield point.value, value


def warn_of(group: str, origin: str, error: Exception) -> None:
    """Warn of an entry point that cannot be used."""
    warn_user(
        f"the entry point {origin} of group {group} cannot be used: {type(error).__name__}: {error}",
        UserWarning,
    )
