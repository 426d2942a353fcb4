"""From STAC items to one lazy, calibrated, described DataArray."""

from xcloudmask.stac.load import load_stac

__all__ = ["load_stac"]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)
