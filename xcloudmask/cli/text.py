"""Text for a terminal: tables and paragraphs that fit its width, and one-line messages."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence


def width() -> int:
    """Columns of the terminal; 80 where there is none. ``COLUMNS`` overrides."""
    return max(40, min(120, shutil.get_terminal_size((80, 24)).columns))


def table(rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    """Return rows as aligned columns two blanks apart; the last one, of lines, is wrapped to the width.

    Examples
    --------
    >>> print(table([("a", "one two three four five six seven"), ("bb", "x")], columns=30))
    a   one two three four five
        six seven
    bb  x
    """
    columns = columns or width()
    fixed = [max(len(cell) for cell in column) for column in list(zip(*rows, strict=True))[:-1]]
    indent = sum(fixed) + 2 * len(fixed)
    lines = []
    for *cells, last in rows:
        start = "".join(f"{cell:<{size}}  " for cell, size in zip(cells, fixed, strict=True))
        wrapped = [
            line
            for part in last.splitlines() or [""]
            for line in textwrap.wrap(part, max(12, columns - indent), break_on_hyphens=False)
        ] or [""]
        lines += [(start + wrapped[0]).rstrip(), *(" " * indent + line for line in wrapped[1:])]
    return "\n".join(lines)


def paragraph(text: str, columns: int | None = None) -> str:
    """Return text wrapped to the width; words and paths stay whole."""
    return textwrap.fill(text, columns or width(), break_long_words=False, break_on_hyphens=False)


def say(message: str) -> None:
    """Write to stderr, in the place of a progress line: wrapped for a person, one line in a pipe."""
    if sys.stderr.isatty():
        lines = [paragraph(part) for part in f"xcloudmask: {message}".splitlines()]
        print("\r\x1b[K" + "\n".join(lines), file=sys.stderr, flush=True)
    else:
        print(f"xcloudmask: {' '.join(message.split())}", file=sys.stderr, flush=True)


#: Python arguments that are options here; a message of the library may name them.
_ARGUMENTS = (
    "sensor", "bands", "level", "scale", "offset", "nodata", "sun_elevation", "date", "model", "threshold",
    "scheme", "patch_size", "overlap", "batch_size", "resolution", "device", "dtype", "tta", "chunks",
    "overwrite", "group", "uncertainty",
)  # fmt: skip
_ARGUMENT = re.compile(rf"(?<![\w.-])({'|'.join(_ARGUMENTS)})=(\[[^\]]*\]|'[^']*'|\.\.\.|[\w.-]*\w)?")


def as_options(message: str) -> str:
    """Return a message of the library with Python's arguments as options of the command line.

    Examples
    --------
    >>> as_options("Pass sensor=, or say da.cloudmask.describe(level='L1C', bands=[...])")
    'Pass --sensor, or say --level L1C --bands a,b,c'
    >>> as_options("patch_size=16: model takes 256; use overwrite=True")
    '--patch-size 16: model takes 256; use --overwrite'
    >>> as_options("needs aux={'elevation': ..., 'vv': ...}, a DataArray each")
    'needs --aux elevation=FILE --aux vv=FILE'
    """
    message = message.replace("pass resume=True", "leave --no-resume out")
    message = re.sub(r"aux=\{(.*?)\}(, a DataArray each)?", _as_aux, message)
    message = re.sub(r"(?:set |assign_attrs\()units='(\w+)'\)?", r"say --aux-units NAME=\1", message)
    message = re.sub(r"(?:da\.cloudmask\.)?describe\(([^()]+)\)", lambda m: m[1].replace(", ", " "), message)

    def option(match: re.Match[str]) -> str:
        value = (match[2] or "").strip("'")
        if match[1] == "bands":
            value = "a,b,c" if value.strip("[]. ") == "" else value
        elif value.strip(".") in ("", "True"):
            value = ""
        return f"--{match[1].replace('_', '-')} {value}".rstrip()

    return _ARGUMENT.sub(option, message)


def _as_aux(match: re.Match[str]) -> str:
    return " ".join(f"--aux {name}=FILE" for name in re.findall(r"'(\w+)':", match[1]))
