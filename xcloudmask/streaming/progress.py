"""Progress that people and programs can read: a bar in a terminal or in Jupyter, or events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TextIO

from xcloudmask.engine.progress import bar_file, in_notebook, tqdm_class
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
        parts = [f"{self.done}/{self.total} regions"]
        if self.rate > 0:
            parts.append(f"{figure(self.rate)} Mpx/s")
        if self.kind == "end":
            parts.append(f"in {clock(self.seconds)}")
        else:
            parts.append(f"ETA {'?' if self.eta is None else clock(self.eta)}")
        if self.failed:
            parts.append(f"{self.failed} failed")
        return "  ".join(parts)


def figure(value: float) -> str:
    """Return a number with one digit after the point, or its first that is not zero.

    Examples
    --------
    >>> figure(4.24), figure(0.0361)
    ('4.2', '0.04')
    """
    return f"{value:.1f}" if value >= 0.1 else f"{value:.1g}"


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


class Bar:
    """tqdm's bar in a terminal or a notebook; where that is a file, a line now and then."""

    def __init__(self, title: str, stream: TextIO | None = None) -> None:
        self.title = title
        self.stream = stream or sys.stderr
        self._next = 0.0
        self._bar: Any = None

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event, unless one was shown a moment ago."""
        if not (self.stream.isatty() or in_notebook()):
            now = time.monotonic()
            if now >= self._next or event.kind in ("start", "end"):
                self._next = now + 30.0
                self.stream.write(f"{self.title}  {event.text}\n")
                self.stream.flush()
            return
        if self._bar is None:
            layout = "{desc}  {percentage:3.0f} % |{bar}|  {unit}"  # a postfix would begin with a comma
            file = bar_file() if self.stream is sys.stderr else self.stream
            self._bar = tqdm_class()(
                total=event.total, initial=event.done, desc=self.title, file=file, bar_format=layout
            )
        self._bar.unit = event.text
        self._bar.update(event.done - self._bar.n)
        if event.kind == "end":
            self._bar.refresh()
            self._bar.close()


def choose_display(progress: bool | Literal["auto"] | Callable[[ProgressEvent], None], title: str) -> Display:
    """Return what shows the events for a value of ``progress=``; ``"auto"``: a bar where somebody looks."""
    if callable(progress):
        return progress
    if not isinstance(progress, bool) and progress != "auto":
        raise OptionError("progress", progress, allowed=("auto", True, False, "a function of an event"))
    shown = sys.stderr.isatty() or in_notebook() if progress == "auto" else progress
    return Bar(title) if shown else lambda event: None
