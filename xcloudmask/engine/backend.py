"""What every backend offers: a loaded network on one device, and the arithmetic around it.

The engine says what happens in which order; a backend does it with onnxruntime and NumPy, or with torch.
Nothing here knows of batches, locks or memory running out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from xcloudmask.engine.arrays import Float
from xcloudmask.models.network import Network

#: Where a window's cells lie in the sums: scene, classes, rows, columns.
Place = tuple[int, slice, slice, slice]


class Backend(Protocol):
    """A loaded network on one device. Arrays typed `Any` live on that device."""

    kind: str
    network: Network
    #: How many threads may ask for probabilities at the same time.
    lanes: int

    def zeros(self, shape: tuple[int, ...]) -> Any:
        """Return sums to add to."""

    def upload(self, arrays: Sequence[Float]) -> Any:
        """Stack host arrays and copy them to the device, without waiting where that can be done."""

    def probabilities(self, pixels: Any) -> Any:
        """(n, band, y, x) to (n, class, y, x)."""

    def flip(self, array: Any, axes: tuple[int, ...]) -> Any:
        """Reverse axes."""

    def join(self, arrays: Sequence[Any]) -> Any:
        """Put channels of (n, channel, y, x) behind one another."""

    def weigh(self, probabilities: Any, weights: Any) -> Any:
        """Return what (n, class, y, x) add to the sums; nothing, not even NaN, where a weight is zero."""

    def add(self, sums: Any, places: Sequence[Place], parts: Any) -> None:
        """Add each part in its place; takes no memory, so that it cannot fail halfway."""

    def mark(self) -> Callable[[], object]:
        """Return a function that waits until all that was asked of the device so far is done."""

    def fetch(self, sums: Any) -> Float:
        """Bring sums to the host."""

    def release(self) -> None:
        """Give memory that is kept for later back to the device."""


def no_wait() -> None:
    """Wait for a device that is never behind."""
