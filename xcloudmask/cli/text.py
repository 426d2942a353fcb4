"""Text for a terminal: tables and paragraphs that fit its width, colours where a person looks, and JSON."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from os import PathLike
from typing import Any

#: What is coloured, and how (the names of the groups are rich's styles).
COLOURS = (
    r"(?m)^  (?P<blue>\w[\w ]*?)(?=  )",
    r"(?P<bold>\A[\w.-]+)(?=[: ])",
    r"(?m)^(?P<bright_red>! .*|  BROKEN .*)",
    r"(?m)^  (?P<yellow>missing) ",
    r"(?m)^  (?P<green>ok) ",
    r"(?P<cyan>xcloudmask(?: [a-z]+)+(?: --?[a-z-]+| [A-Z]+)*)(?=$|[^\w])",
    r"(?<![\w-])(?P<cyan>--[a-z][a-z-]+)",
    r"(?P<red>\Axcloudmask(?=: (?!warning)))",
    r"(?P<yellow>\Axcloudmask: warning)",
    r"(?P<bold>[\d.,]+ ?%)",
)


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
    """Return text wrapped to the width; words, paths and figures with their % stay whole."""
    whole = text.replace(" %", "\xa0%")
    lines = textwrap.fill(whole, columns or width(), break_long_words=False, break_on_hyphens=False)
    return lines.replace("\xa0%", " %")


def show(text: str, *, head: bool = False, stderr: bool = False) -> None:
    """Print; to a terminal in colour, unless ``NO_COLOR`` is set. With `head` line 1 is one of heads."""
    stream = sys.stderr if stderr else sys.stdout
    if not stream.isatty():
        print(text, file=stream, flush=True)
        return
    from rich.console import Console
    from rich.highlighter import RegexHighlighter
    from rich.text import Text

    class Colours(RegexHighlighter):
        highlights = COLOURS

    coloured = Text(text)
    Colours().highlight(coloured)
    if head:
        coloured.stylize("bold underline", 0, text.find("\n") % (len(text) + 1))
    Console(file=stream, highlight=False, markup=False).print(coloured, soft_wrap=True)


def print_facts(
    args: Namespace, facts: Any, text: str | Callable[[], str], *, head: bool = False, quiet: bool = False
) -> None:
    """Print what a command found: with ``--json`` the facts, else the text, or nothing if `quiet`."""
    if args.json:
        print(json.dumps(plain(facts), indent=2, allow_nan=False))
    elif not quiet:
        show(text if isinstance(text, str) else text(), head=head)


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: dataclasses as mappings, what is no finite number as None.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> plain({"bands": (Band("B04", "red", gsd=float("nan")),)})["bands"][0]["gsd"] is None
    True
    """
    if hasattr(value, "tolist"):  # of NumPy
        value = value.tolist()
    if is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, PathLike):
        return str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def say(message: str) -> None:
    """Write to stderr, over a progress line: wrapped for a person; in a pipe a line, and one a fact."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
        show("\n".join(paragraph(part) for part in f"xcloudmask: {message}".splitlines()), stderr=True)
    else:
        lines = [""]
        for line in message.splitlines():  # those that are indented list facts
            if line.startswith("  ") or lines[-1].startswith("  "):
                lines.append(line.rstrip())
            else:
                lines[-1] = " ".join([*lines[-1].split(), *line.split()])
        show("xcloudmask: " + "\n".join(lines), stderr=True)
