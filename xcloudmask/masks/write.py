"""Write a mask or probabilities to a Cloud Optimized GeoTIFF or to Zarr: chunk by chunk, whole or not at all.

Everything is made in a hidden folder beside the output and renamed into place at the end. A run that fails
clears that folder; one that is killed outright leaves it, and the next run to the same output removes it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import xarray as xr

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.masks.geotiff import make_cog
from xcloudmask.masks.sink import Progress
from xcloudmask.masks.zarr_copy import make_zarr
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.store.atomic import SinkError, beside, install

__all__ = ["ENDINGS", "Written", "check_output", "write"]

#: What a file's ending asks for.
ENDINGS: Mapping[str, str] = {".tif": "cog", ".tiff": "cog", ".zarr": "zarr"}
#: Pixels along a side of a chunk, where the mask is a NumPy array and has none; a multiple of a COG's blocks.
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and where.

    Parameters
    ----------
    path : Path
    counts : dict
        Pixels of each class by name, and of ``no_data``. Of probabilities: of the most probable class.

    Examples
    --------
    >>> print(Written(Path("mask.tif"), {"clear": 60, "cloud": 20, "no_data": 20}))
    mask.tif: clear 75.0 %, cloud 25.0 % of valid pixels; no data 20.0 %
    """

    path: Path
    counts: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        valid = {name: count for name, count in self.counts.items() if name != "no_data"}
        gaps = self.counts.get("no_data", 0)
        if not sum(valid.values()):
            return f"{self.path}: no valid pixel, all is no data"
        shares = ", ".join(f"{name} {_percent(n, sum(valid.values()))}" for name, n in valid.items())
        return f"{self.path}: {shares} of valid pixels; no data {_percent(gaps, sum(self.counts.values()))}"


def _percent(part: int, whole: int) -> str:
    share = 100 * part / whole
    if 0 < share < 0.05:
        return "< 0.1 %"
    return f"{share:.1f} %"


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Return the output's path if it can be written; else an error, before anything is computed.

    Parameters
    ----------
    path : str or path-like
        Ends in .tif, .tiff or .zarr.
    overwrite : bool
        Whether an output of that name may be replaced.

    Examples
    --------
    >>> check_output("mask.tif").name
    'mask.tif'
    """
    text = os.fspath(path)
    if "://" in text:
        raise CloudMaskError(
            f"{text}: only files on this machine are written here; name a local .tif or .zarr"
        )
    out = Path(text).expanduser().absolute()
    if out.suffix.lower() not in ENDINGS:
        raise OptionError(
            "ending of the output", out.suffix or out.name, allowed=ENDINGS,
            hint=".tif is a Cloud Optimized GeoTIFF.",
        )  # fmt: skip
    if not out.parent.is_dir():
        raise CloudMaskError(f"{out.parent}: there is no such folder. Make it first: mkdir -p {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise CloudMaskError(f"{out.parent}: no permission to write in this folder. Choose another.")
    if not os.path.lexists(out):
        return out
    if not overwrite:
        raise CloudMaskError(f"{out}: exists already. Say overwrite=True, or choose another name.")
    store = ENDINGS[out.suffix.lower()] == "zarr"
    if store and not any((out / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise CloudMaskError(f"{out}: is not a Zarr store and so not replaced. Remove it, or choose another.")
    if not store and not out.is_file():
        raise CloudMaskError(f"{out}: is a folder, so it is not replaced by a file. Choose another name.")
    return out


def write(
    mask: xr.DataArray,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Compute a mask or probabilities, chunk by chunk, into a Cloud Optimized GeoTIFF or a Zarr store.

    Memory holds a few chunks, and what one row of them has found so far, which grows with the scene's width;
    `xcloudmask.stream` keeps that in the store instead. The work is done by threads of this process.

    Parameters
    ----------
    mask : DataArray
        What ``da.cloudmask.predict()`` or ``predict_proba()`` returned; lazy or not.
    path : str or path-like
        ``.tif``: one scene; classes as uint8 with a colour table, or one float32 band a class. ``.zarr``:
        any dimensions, chunks as they are; a mask in memory is cut into chunks of 2048 by 2048.
    overwrite : bool
        Whether an output of that name may be replaced.
    progress : callable, optional
        Called with pixels done and pixels in all.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, rasterio
    >>> mask = xr.DataArray(np.array([[0, 1], [1, 255]], "u1"), dims=("y", "x"), name="cloud_mask",
    ...                     coords={"y": [45.0, 15.0], "x": [15.0, 45.0]},
    ...                     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     counts = write(mask, f"{folder}/mask.tif").counts
    ...     with rasterio.open(f"{folder}/mask.tif") as file:
    ...         nodata = file.nodata
    >>> counts, nodata
    ({'clear': 1, 'cloud': 2, 'no_data': 1}, 255.0)
    """
    out = check_output(path, overwrite=overwrite)
    y, x = spatial_dims(mask)
    mask = mask.transpose(..., *(["class"] if "class" in mask.dims else []), y, x)
    if mask.chunks is None or any(not sizes for sizes in mask.chunks):
        mask = mask.chunk({dim: CHUNK if dim in (y, x) else 1 for dim in mask.dims})
    if "class" in mask.dims:
        mask = mask.chunk({"class": -1})
    kind = ENDINGS[out.suffix.lower()]
    with beside(out) as work, _failures(out):
        make = make_cog if kind == "cog" else make_zarr
        counts = make(mask, work / out.name, (y, x), progress)
        check_output(out, overwrite=overwrite)  # another run may have been quicker
        install(work, out)
    return Written(out, counts)


@contextmanager
def _failures(out: Path) -> Iterator[None]:
    """Tell failures to write apart from failures to read."""
    try:
        yield
    except SinkError as error:
        raise CloudMaskError(
            f"{out}: cannot be written: {error}. Nothing is left of it. Check free space and permissions."
        ) from error.__cause__
