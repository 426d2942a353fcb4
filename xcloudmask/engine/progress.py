"""A bar that tells how far a call is, in a terminal or a notebook; nothing where nobody looks."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from xcloudmask.errors import OptionError


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far a call is; given to ``progress=callable`` as its work goes on, and at the end.

    A stream tells of regions, at the start, too, and after each one; the other calls of windows, pixels or
    tasks, which neither fail nor were done before.

    Examples
    --------
    >>> event = ProgressEvent("done", 15, 60, 0, 0, 62.9, 21.0, 2 * 60.0, "2026-05-01 S2A", (0, 2, 3))
    >>> event.text
    '15/60 regions  3.0 Mpx/s  ETA 0:40'
    """

    kind: Literal["start", "done", "failed", "end"]
    done: int  # with those of earlier runs
    total: int
    failed: int = 0
    skipped: int = 0  # done in an earlier run
    megapixels: float = 0.0  # written in this run
    seconds: float = 0.0  # since the start of this run
    left: float = 0.0  # megapixels that remain
    scene: str = ""
    region: tuple[int, ...] | None = None
    message: str = ""  # why a region failed
    unit: str = "region"

    @property
    def rate(self) -> float:
        """Megapixels a second in this run."""
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds that remain at this rate; None while unknown."""
        if self.rate > 0:
            return self.left / self.rate
        fresh = self.done - self.skipped
        return self.seconds * (self.total - self.done) / fresh if fresh > 0 else None

    @property
    def text(self) -> str:
        """One line."""
        parts = [f"{self.done}/{self.total} {self.unit}{'' if self.unit == 'px' else 's'}"]
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


#: Called with what is done and what there is to do, by what does it.
Tell = Callable[[int, int], None]
#: Whether a bar is shown, "auto" where somebody looks and waits; or what is called in its place.
Progress = bool | Literal["auto"] | Callable[[ProgressEvent], None]


def tqdm_class() -> Any:
    """Return tqdm's bar for where this runs; without ipywidgets a notebook gets that of a terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm
    return tqdm


def in_notebook() -> bool:
    """Whether this runs in Jupyter."""
    if "IPython" not in sys.modules:
        return False
    import IPython

    tools: Any = IPython
    return type(tools.get_ipython()).__name__ == "ZMQInteractiveShell"


def is_shown(progress: bool | str) -> bool:
    """Whether a value of ``progress=`` that is no function asks for a bar: "auto" where somebody looks."""
    if isinstance(progress, bool):
        return progress
    if progress != "auto":
        raise OptionError("progress", progress, allowed=("auto", True, False, "a function of an event"))
    return sys.stderr.isatty() or in_notebook()


class Line:
    """A file for a bar in a notebook without ipywidgets: one line of the cell's output, written over.

    On stderr a bar leaves a red stripe behind.
    """

    encoding = "utf-8"

    def __init__(self) -> None:
        self._shown: Any = None

    def write(self, text: str) -> None:
        """Show text in place of what was shown."""
        from IPython.display import display

        words = {"text/plain": text.strip()}
        if self._shown is None and text.strip():
            self._shown = display(words, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        elif self._shown is not None and text != "\n":  # which ends a bar that stays
            self._shown.update(words, raw=True)

    def flush(self) -> None:
        """Do nothing; nothing waits."""


def bar_file() -> Any:
    """Return where tqdm's bar is written."""
    return Line() if in_notebook() and find_spec("ipywidgets") is None else sys.stderr


def tell_nobody(done: int, total: int) -> None:
    """Do nothing."""


@contextmanager
def progress_bar(progress: Progress, title: str, unit: str) -> Iterator[Tell]:
    """Show a bar for a value of ``progress=``; of "auto" if the work takes a second, and gone when done.

    Examples
    --------
    >>> with progress_bar(lambda event: print(event.kind, event.done, event.total), "mask", "window") as tell:
    ...     tell(1, 2)
    ...     tell(2, 2)
    done 1 2
    end 2 2
    """
    if callable(progress):
        call, began = progress, time.monotonic()

        def event(done: int, total: int) -> None:
            kind: Literal["done", "end"] = "end" if done == total else "done"
            call(ProgressEvent(kind, done, total, seconds=time.monotonic() - began, unit=unit))

        yield event
        return
    if not is_shown(progress):
        yield tell_nobody
        return
    auto = progress == "auto"
    with tqdm_class()(
        desc=title, unit=unit, unit_scale=unit == "px", file=bar_file(), dynamic_ncols=True, leave=not auto,
        delay=float(auto),
    ) as bar:  # fmt: skip

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
