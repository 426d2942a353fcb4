"""How weights get to the workers of a cluster: once each, whenever a worker joins."""

from __future__ import annotations

from distributed import WorkerPlugin

from xcloudmask.models.weights import fetch

#: Hashes of what has come to this process, in the order it came.
arrived: list[str] = []


class WeightsPlugin(WorkerPlugin):
    """A plug-in of Dask's workers that brings bytes and leaves them where `fetch.read` finds them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def setup(self, worker: object) -> None:
        """Leave the bytes in the worker's process."""
        arrived.append(fetch.hold(self.data))
