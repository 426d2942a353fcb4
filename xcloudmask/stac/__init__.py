"""From STAC items to one lazy, calibrated, described DataArray."""

from xcloudmask.stac.load import load_stac

__all__ = ["load_stac"]
