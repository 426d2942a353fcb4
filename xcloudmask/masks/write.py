"""Write a mask or probabilities where a path's ending says: ``.tif`` is a GeoTIFF, ``.zarr`` a store."""

from __future__ import annotations

import os
import re
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import xarray as xr

from xcloudmask.engine.progress import Tell
from xcloudmask.errors import CloudMaskError, StreamWarning
from xcloudmask.masks import geotiff
from xcloudmask.masks.geotiff import Tally, Written, failures, write_geotiff
from xcloudmask.store.atomic import beside, install
from xcloudmask.store.lock import FOLDER, Lock
from xcloudmask.store.overviews import PLACE
from xcloudmask.store.store import Target, open_store

__all__ = ["ENDINGS", "Written", "check_output", "write", "write_geotiff"]

ENDINGS = (*geotiff.ENDINGS, ".zarr")


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the output's path if it can be written; else an error, before anything is computed."""
    out = geotiff.check_output(path, ENDINGS, overwrite=overwrite)
    if out.suffix.lower() == ".zarr" and out.exists():
        _check_replaceable(out)
    return out


def _check_replaceable(out: Path) -> None:
    """Refuse to replace what is more than a store of one mask: the whole folder would go."""
    if not out.is_dir():
        raise CloudMaskError(f"{out}: is a file, so it is not replaced by a store. Choose another name.")
    groups = [
        file.parent.name
        for file in out.glob("*/zarr.json")
        if file.parent.name not in (FOLDER, PLACE)
        and re.search(r'"node_type":\s*"group"', file.read_text(errors="replace"))
    ]
    if groups:
        raise CloudMaskError(
            f"{out}: holds the groups {', '.join(sorted(groups))}, which would go with the mask. Choose "
            "another name, or use mask.cloudmask.to_zarr(..., overwrite=True), which keeps them."
        )


def write(
    mask: xr.DataArray, path: str | os.PathLike[str], *, overwrite: bool = False, progress: Tell | None = None
) -> Written:
    """Compute a mask or probabilities into a Cloud Optimized GeoTIFF, or a Zarr store.

    Either appears when it is complete, and what it replaces stands until then. A Zarr store is written anew
    as a whole; ``mask.cloudmask.to_zarr`` resumes and extends one. `progress` is called with pixels done and
    pixels in all.

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

    with beside(out) as work, failures(out), ExitStack() as locked:
        if out.exists():  # nobody may be writing to what is replaced
            lock = Lock(Target(open_store(out)))
            lock.acquire()
            locked.callback(lock.release)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StreamWarning)  # it is an error here
            report = to_zarr(mask, work / out.name, progress=show)
        replace(report, store=str(out)).raise_if_failed()
        stored: xr.DataArray = xr.open_zarr(work / out.name, consolidated=False)[report.name]
        tally = Tally(stored)
        for block in stored.data.blocks.ravel():
            tally.add(block.compute())
        check_output(out, overwrite=overwrite)  # another run may have been quicker
        locked.close()  # or its renewal might write where the new store goes
        install(work, out)
    return Written(out, tally.counts())
