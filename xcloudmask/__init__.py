"""Cloud masks from satellite reflectance held in xarray."""

__version__ = "0.1.0"

from xcloudmask import accessor as _accessor  # noqa: F401  registers .cloudmask
from xcloudmask import models, sensors
from xcloudmask.local import open
from xcloudmask.stac import load_stac
from xcloudmask.types import ModelSpec

__all__ = ["ModelSpec", "__version__", "load_stac", "models", "open", "sensors"]
