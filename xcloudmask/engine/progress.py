"""A bar that tells how far a call is, in a terminal or a notebook; nothing where nobody looks."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Literal

from xcloudmask.errors import OptionError

#: Called with what is done and what there is to do.
Tell = Callable[[int, int], None]
#: Whether a bar is shown, "auto" where somebody looks and waits; or what is called in its place.
Progress = bool | Literal["auto"] | Tell


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
    >>> with progress_bar(lambda done, total: print(f"{done} of {total}"), "mask", "window") as tell:
    ...     tell(1, 2)
    1 of 2
    """
    if callable(progress):
        yield progress
        return
    if not isinstance(progress, bool) and progress != "auto":
        raise OptionError("progress", progress, allowed=("auto", True, False, "a function of done and total"))
    auto = progress == "auto"
    if not (sys.stderr.isatty() or in_notebook() if auto else progress):
        yield tell_nobody
        return
    with tqdm_class()(
        desc=title, unit=unit, unit_scale=unit == "px", file=bar_file(), dynamic_ncols=True, leave=not auto,
        delay=float(auto),
    ) as bar:  # fmt: skip

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show
