"""From STAC items to one lazy, calibrated, described DataArray."""
