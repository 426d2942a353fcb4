"""One line on stderr that tells how far a run is; nothing where nobody looks."""

from __future__ import annotations

import sys
import time

from xcloudmask.cli.text import width


class ProgressLine:
    """Call it with pixels done and pixels in all."""

    def __init__(self, *, shown: bool | None = None) -> None:
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._start = self._told = time.monotonic()
        self._drawn = False

    def __call__(self, done: int, total: int) -> None:
        """Draw the line anew, if the last one is a while ago."""
        now = time.monotonic()
        if not self._shown or (done < total and self._drawn and now - self._told < 0.2):
            return
        self._told = now
        self._draw(line(done, total, now - self._start))

    def _draw(self, text: str) -> None:
        sys.stderr.write("\r" + text[: width() - 1].ljust(width() - 1))
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the line away."""
        if self._drawn:
            sys.stderr.write("\r" + " " * (width() - 1) + "\r")
            sys.stderr.flush()
            self._drawn = False


def line(done: int, total: int, seconds: float) -> str:
    """Return the line.

    Examples
    --------
    >>> line(30_000_000, 120_000_000, 20.0)
    ' 25 %  30.0 of 120.0 Mpx  1.5 Mpx/s  1:00 left'
    >>> line(0, 120_000_000, 0.0)
    '  0 %  0.0 of 120.0 Mpx'
    """
    text = f"{100 * done // max(total, 1):3d} %  {done / 1e6:.1f} of {total / 1e6:.1f} Mpx"
    if not done or seconds <= 0:
        return text
    left = round((total - done) * seconds / done)
    hours, rest = divmod(left, 3600)
    clock = f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
    speed = done / seconds / 1e6
    return f"{text}  {speed:.1f} Mpx/s" + (f"  {clock} left" if done < total else "")
