"""Cloud masks from satellite reflectance held in xarray."""

__version__ = "0.1.0"
