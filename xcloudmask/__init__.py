"""Cloud masks from satellite reflectance held in xarray."""

from xcloudmask import accessor as _accessor  # noqa: F401  registers .cloudmask
from xcloudmask import models, sensors
from xcloudmask._version import __version__
from xcloudmask.local import open
from xcloudmask.stac import load_stac
from xcloudmask.types import ModelSpec


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)


__all__ = ["ModelSpec", "__version__", "load_stac", "models", "open", "sensors"]
