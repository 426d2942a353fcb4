"""Text for a terminal: tables and paragraphs that fit its width, and one-line messages."""

from __future__ import annotations

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
