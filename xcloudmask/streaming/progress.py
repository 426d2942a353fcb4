"""Progress that people and programs can read: a bar in a terminal or in Jupyter, or events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from xcloudmask.engine.progress import Progress, ProgressEvent, bar_file, in_notebook, is_shown, tqdm_class

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


def choose_display(progress: Progress, title: str) -> Display:
    """Return what shows the events for a value of ``progress=``; ``"auto"``: a bar where somebody looks."""
    if callable(progress):
        return progress
    return Bar(title) if is_shown(progress) else lambda event: None
