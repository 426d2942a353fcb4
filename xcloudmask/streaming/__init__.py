"""Masks into a store, region by region: resumable, each window once; the store itself is `xcloudmask.store`.

`stream` makes a mask from reflectance, `to_zarr` writes one. Both record each region in the store when it is
durable (``stream/status``), so that a call that was stopped, by whatever, resumes when it is run again.
"""

from xcloudmask.engine.progress import ProgressEvent
from xcloudmask.errors import ClusterError, ContractError, StoreError, StoreLockedError, StreamWarning
from xcloudmask.streaming.api import stream, to_zarr
from xcloudmask.streaming.report import Failure, StreamReport

__all__ = [
    "ClusterError",
    "ContractError",
    "Failure",
    "ProgressEvent",
    "StoreError",
    "StoreLockedError",
    "StreamReport",
    "StreamWarning",
    "stream",
    "to_zarr",
]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)
