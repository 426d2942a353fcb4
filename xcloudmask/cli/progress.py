"""A bar on stderr that tells how far a run is; nothing where nobody looks."""

from __future__ import annotations

import sys
from typing import Any


class ProgressLine:
    """Call it with pixels done and pixels in all."""

    def __init__(self, *, shown: bool | None = None) -> None:
        from tqdm.auto import tqdm

        shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = tqdm(
            unit="px", unit_scale=True, leave=False, disable=not shown, file=sys.stderr, dynamic_ncols=True
        )

    def __call__(self, done: int, total: int) -> None:
        """Show where the run is."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def clear(self) -> None:
        """Take the bar away."""
        self._bar.close()
