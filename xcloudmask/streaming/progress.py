"""Progress that people and programs can read: a line in a terminal, a bar in Jupyter, or events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any, Literal, TextIO

from xcloudmask.errors import OptionError


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """Where a stream stands; given to ``progress=callable`` at the start, after each region and at the end.

    Examples
    --------
    >>> event = ProgressEvent("done", 15, 60, 0, 0, 62.9, 21.0, 2 * 60.0, "2026-05-01 S2A", (0, 2, 3))
    >>> event.text
    '15/60 regions  3.0 Mpx/s  ETA 0:40'
    """

    kind: Literal["start", "done", "failed", "end"]
    done: int  # regions, with those of earlier runs
    total: int
    failed: int
    skipped: int  # done in an earlier run
    megapixels: float  # written in this run
    seconds: float  # since the start of this run
    left: float  # megapixels that remain
    scene: str = ""
    region: tuple[int, ...] | None = None
    message: str = ""  # why a region failed

    @property
    def rate(self) -> float:
        """Megapixels a second in this run."""
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds that remain at this rate; None while unknown."""
        return self.left / self.rate if self.rate > 0 else None

    @property
    def text(self) -> str:
        """One line."""
        parts = [f"{self.done}/{self.total} regions", f"{self.rate:.1f} Mpx/s"]
        if self.kind == "end":
            parts.append(f"in {clock(self.seconds)}")
        else:
            parts.append(f"ETA {'?' if self.eta is None else clock(self.eta)}")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss.

    Examples
    --------
    >>> clock(3725), clock(65.4)
    ('1:02:05', '1:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


Display = Callable[[ProgressEvent], None]


class Line:
    """One line that is written over in a terminal; elsewhere (a log file) a new line now and then."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self.inplace = self.stream.isatty()
        self._next = 0.0
        self._width = 0

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event, unless one was shown a moment ago."""
        now = time.monotonic()
        if now < self._next and event.kind not in ("end", "start"):
            return
        self._next = now + (0.2 if self.inplace else 30.0)
        filled = round(24 * event.done / event.total) if event.total else 24
        line = f"{self.title}  [{'#' * filled}{'.' * (24 - filled)}]  {event.text}"
        if not self.inplace:
            self.stream.write(line + "\n")
        else:
            self.stream.write("\r" + line.ljust(self._width) + ("\n" if event.kind == "end" else ""))
            self._width = len(line)
        self.stream.flush()


class Notebook:
    """A bar in Jupyter, of plain HTML that is updated: no widgets, so it stays in a saved notebook."""

    def __init__(self, title: str) -> None:
        from IPython import display

        tools: Any = display
        self.title = title
        self._html = tools.HTML
        self._next = 0.0
        self._handle = tools.display(tools.HTML(""), display_id=True)

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event, unless one was shown a moment ago."""
        now = time.monotonic()
        if self._handle is None or (now < self._next and event.kind not in ("end", "start")):
            return
        self._next = now + 0.5
        self._handle.update(self._html(bar_html(self.title, event)))


def bar_html(title: str, event: ProgressEvent) -> str:
    """Return the bar as HTML."""
    total = max(event.total, 1)
    done, failed = 100 * event.done / total, 100 * event.failed / total
    notes = f"<div>last failure: {escape(event.message)}</div>" if event.message else ""
    return (
        '<div style="font-family:monospace;font-size:13px;max-width:60em" role="progressbar" '
        f'aria-valuemin="0" aria-valuemax="{event.total}" aria-valuenow="{event.done}">'
        f"<div>{escape(title)} {escape(event.scene)}</div>"
        '<div style="border:1px solid #8888;height:12px;display:flex">'
        f'<div style="width:{done:.1f}%;background:#3a8f4d"></div>'
        f'<div style="width:{failed:.1f}%;background:#c0392b"></div></div>'
        f"<div>{escape(event.text)}</div>{notes}</div>"
    )


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    import IPython

    tools: Any = IPython
    shell = tools.get_ipython()
    return type(shell).__name__ == "ZMQInteractiveShell"


def choose_display(progress: bool | Callable[[ProgressEvent], None], title: str) -> Display:
    """Return what shows the events for a value of ``progress=``."""
    if callable(progress):
        return progress
    if not isinstance(progress, bool):
        raise OptionError("progress", progress, allowed=(True, False, "a function of an event"))
    if not progress:
        return lambda event: None
    return Notebook(title) if _in_notebook() else Line(title)
