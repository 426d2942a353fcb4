"""Cloud masks from satellite reflectance held in xarray."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xcloudmask import accessor as _accessor  # noqa: F401  registers .cloudmask
from xcloudmask import models, sensors
from xcloudmask._version import __version__
from xcloudmask.local import open
from xcloudmask.stac import load_stac
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    from xcloudmask.archive.record import open_masks
    from xcloudmask.archive.sync import sync
    from xcloudmask.archive.timeseries import timeseries
    from xcloudmask.engine.predictor import unload
    from xcloudmask.store.verify import verify
    from xcloudmask.streaming import stream
    from xcloudmask.streaming.worker_plugin import WorkerPlugin

#: What is imported when it is first asked for: it needs zarr, or distributed.
_LATER = {
    "WorkerPlugin": "xcloudmask.streaming.worker_plugin",
    "open_masks": "xcloudmask.archive.record",
    "stream": "xcloudmask.streaming",
    "sync": "xcloudmask.archive.sync",
    "timeseries": "xcloudmask.archive.timeseries",
    "unload": "xcloudmask.engine.predictor",
    "verify": "xcloudmask.store.verify",
}

__all__ = [
    "ModelSpec",
    "WorkerPlugin",
    "__version__",
    "load_stac",
    "models",
    "open",
    "open_masks",
    "sensors",
    "stream",
    "sync",
    "timeseries",
    "unload",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import what is needed only by some."""
    if name in _LATER:
        return getattr(import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)
