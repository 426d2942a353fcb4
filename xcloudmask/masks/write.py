"""Write a mask or probabilities where a path's ending says: ``.tif`` is a GeoTIFF, ``.zarr`` a store."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from xcloudmask.masks import geotiff
from xcloudmask.masks.geotiff import Progress, Tally, Written, write_geotiff

__all__ = ["ENDINGS", "Written", "check_output", "write", "write_geotiff"]

ENDINGS = (*geotiff.ENDINGS, ".zarr")


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the output's path if it can be written; else an error, before anything is computed."""
    return geotiff.check_output(path, ENDINGS, overwrite=overwrite)


def write(
    mask: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Compute a mask or probabilities into a Cloud Optimized GeoTIFF, or by `to_zarr` into a Zarr store.

    Parameters
    ----------
    mask : DataArray
        What ``da.cloudmask.predict()`` or ``predict_proba()`` returned; lazy or not.
    path : str or path-like
        Ends in ``.tif``, ``.tiff`` or ``.zarr``.
    overwrite : bool
        Whether an output of that name may be replaced.
    progress : callable, optional
        Called with pixels done and pixels in all.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr
    >>> mask = xr.DataArray(np.array([[0, 1]], "u1"), dims=("y", "x"), name="cloud_mask",
    ...                     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(mask, f"{folder}/mask.zarr").counts
    {'clear': 1, 'cloud': 1, 'no_data': 0}
    """
    out = check_output(path, overwrite=overwrite)
    if out.suffix.lower() != ".zarr":
        return write_geotiff(mask, out, overwrite=overwrite, progress=progress)
    from xcloudmask.streaming import ProgressEvent, to_zarr

    def show(event: ProgressEvent) -> None:
        if progress is not None:
            total = event.megapixels + event.left
            progress(round(1e6 * event.megapixels), round(1e6 * total))

    to_zarr(mask, out, overwrite=overwrite, progress=show).raise_if_failed()
    stored: xr.DataArray = xr.open_zarr(out, consolidated=False)[str(mask.name or "cloud_mask")]
    tally = Tally(stored)
    for block in stored.data.blocks.ravel():
        tally.add(block.compute())
    return Written(out, tally.counts())
