"""Cloud masks from satellite reflectance held in xarray.

The work begins with `da.cloudmask`, which this import adds to every DataArray and Dataset::

    scene = xcloudmask.load_stac(items)  # or: xcloudmask.open(path), or da.cloudmask.describe(...)
    mask = scene.cloudmask.predict()  # lazy: 0 clear, 1 cloud, 2 thin_cloud, 3 cloud_shadow, 255 no data
    clear = scene.cloudmask.apply(mask, buffer="150 m")
    mask.cloudmask.to_zarr("masks.zarr")

``scene.cloudmask`` shows what was recognised and which model will run, ``help(scene.cloudmask.predict)``
every option, `xcloudmask.models.names` the models, and `xcloudmask.sensors.names` the sensors.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from xcloudmask import accessor as _accessor  # noqa: F401  registers .cloudmask
from xcloudmask import errors, masks, models, sensors
from xcloudmask._version import __version__
from xcloudmask.types import AuxInput, Band, ModelSpec, Sensor

if TYPE_CHECKING:
    from xcloudmask import local, metrics, stac, train
    from xcloudmask.accessor import DataArray, Dataset, typed
    from xcloudmask.archive.continuity import continuity
    from xcloudmask.archive.record import open_masks
    from xcloudmask.archive.sync import sync
    from xcloudmask.archive.timeseries import timeseries
    from xcloudmask.engine.predictor import unload
    from xcloudmask.stac.write import stac_of
    from xcloudmask.store.overviews import add_overviews
    from xcloudmask.store.verify import verify
    from xcloudmask.streaming import stream
    from xcloudmask.streaming.worker_plugin import WorkerPlugin

    open, load_stac = typed(local.open), typed(stac.load_stac)
else:
    from xarray import DataArray, Dataset

#: What is imported when it is first asked for: it is large, or needs zarr, torch or distributed.
_LATER = {
    "WorkerPlugin": "xcloudmask.streaming.worker_plugin",
    "add_overviews": "xcloudmask.store.overviews",
    "continuity": "xcloudmask.archive.continuity",
    "load_stac": "xcloudmask.stac",
    "local": "",
    "metrics": "",
    "open": "xcloudmask.local",
    "open_masks": "xcloudmask.archive.record",
    "stac": "",
    "stac_of": "xcloudmask.stac.write",
    "stream": "xcloudmask.streaming",
    "sync": "xcloudmask.archive.sync",
    "timeseries": "xcloudmask.archive.timeseries",
    "train": "",
    "unload": "xcloudmask.engine.predictor",
    "verify": "xcloudmask.store.verify",
}

# `open` is public, too, but ``from xcloudmask import *`` shall replace no builtin.
__all__ = [
    "AuxInput", "Band", "DataArray", "Dataset", "ModelSpec", "Sensor", "WorkerPlugin", "__version__",
    "add_overviews", "continuity", "errors", "load_stac", "masks", "metrics", "models", "open_masks",
    "sensors", "stac_of", "stream", "sync", "timeseries", "train", "unload", "verify",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is needed only by some."""
    if name in _LATER:
        home = _LATER[name]
        return getattr(import_module(home), name) if home else import_module(f"xcloudmask.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted([*__all__, "open"])
