"""Write a mask or probabilities as a Cloud Optimized GeoTIFF: chunk by chunk, atomically.

It is made in a hidden folder beside the output and renamed into place at the end. A run that fails clears
that folder; one that is killed outright leaves it, and the next run to the same output removes it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import NO_DATA, class_colours
from xcloudmask.engine.progress import Tell
from xcloudmask.errors import CloudMaskError, OptionError, Remedy, Use
from xcloudmask.scene.dims import plain_axes, spatial_dims, transform_of
from xcloudmask.scene.mask_classes import codes_of
from xcloudmask.store.atomic import SinkError, beside, install, writing

Array = npt.NDArray[Any]

ENDINGS = (".tif", ".tiff")
#: Pixels along a side of a block of the file, and of a chunk where the mask is a NumPy array and has none.
BLOCK, CHUNK = 512, 2048
#: Chunks worked on at a time: some are inferred, the others read and written.
WORKERS = max(2, min(4, os.cpu_count() or 2))


@dataclass(frozen=True, slots=True)
class Written:
    """What was written, and where.

    Parameters
    ----------
    path : Path
    counts : dict
        Pixels of each class by name, and of ``no_data``. Of probabilities: of the most probable class, as
        stored: a Zarr store keeps them in steps of 1/254, where the first of two equal classes counts.

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
    return "< 0.1 %" if 0 < share < 0.05 else f"{share:.1f} %"


def write_geotiff(
    mask: xr.DataArray, path: str | os.PathLike[str], *, overwrite: bool = False, progress: Tell | None = None
) -> Written:
    """Compute a mask or probabilities, chunk by chunk, into a Cloud Optimized GeoTIFF.

    Memory holds a few chunks, and what one row of them has found so far (and its pixels, where chunks have up
    to 512 x 512), which grows with the scene's width; `xcloudmask.stream` keeps that in the store instead.
    The work is done by threads of this process.

    Classes are uint8 with a colour table, probabilities one float32 band a class. `progress` is called with
    pixels done and pixels in all.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, rasterio
    >>> mask = xr.DataArray(np.array([[0, 1], [1, 255]], "u1"), dims=("y", "x"), name="cloud_mask",
    ...                     coords={"y": [45.0, 15.0], "x": [15.0, 45.0]},
    ...                     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     counts = write_geotiff(mask, f"{folder}/mask.tif").counts
    ...     with rasterio.open(f"{folder}/mask.tif") as file:
    ...         nodata = file.nodata
    >>> counts, nodata
    ({'clear': 1, 'cloud': 2, 'no_data': 1}, 255.0)
    """
    out = check_output(path, ENDINGS, overwrite=overwrite)
    y, x = spatial_dims(mask)
    mask = mask.transpose(..., *(["class"] if "class" in mask.dims else []), y, x)
    if mask.chunks is None or any(not sizes for sizes in mask.chunks):
        mask = mask.chunk({dim: CHUNK if dim in (y, x) else 1 for dim in mask.dims})
    if "class" in mask.dims:
        mask = mask.chunk({"class": -1})
    with beside(out) as work, failures(out):
        counts = _make_cog(mask, work / out.name, (y, x), progress)
        check_output(out, ENDINGS, overwrite=overwrite)  # another run may have been quicker
        install(work, out)
    return Written(out, counts)


def check_output(
    path: str | os.PathLike[str], endings: tuple[str, ...] = ENDINGS, *, overwrite: bool = False
) -> Path:
    """Return the output's path if it can be written; else an error, before anything is computed.

    Examples
    --------
    >>> check_output("mask.tif").name
    'mask.tif'
    """
    text = os.fspath(path)
    if "://" in text:
        raise CloudMaskError(
            f"{text}: only files on this machine are written here",
            "name a local path; `xcloudmask stream` and to_zarr write a store at an address",
        )
    out = Path(text).expanduser().absolute()
    if out.suffix.lower() not in endings:
        raise OptionError(
            "ending of the output", out.suffix or out.name, allowed=endings,
            hint=".tif is a Cloud Optimized GeoTIFF.",
        )  # fmt: skip
    if not out.parent.is_dir():
        raise CloudMaskError(f"{out.parent}: there is no such folder. Make it first: mkdir -p {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise CloudMaskError(f"{out.parent}: no permission to write in this folder. Choose another.")
    if os.path.lexists(out) and not overwrite:
        raise CloudMaskError(
            f"{out}: exists already", Remedy("Say {}, or choose another name.", Use(overwrite=True))
        )
    if out.is_dir() and out.suffix.lower() in ENDINGS:
        raise CloudMaskError(f"{out}: is a folder, so it is not replaced by a file. Choose another name.")
    return out


@contextmanager
def failures(out: Path) -> Iterator[None]:
    """Tell failures to write apart from failures to read."""
    try:
        yield
    except SinkError as error:
        raise CloudMaskError(
            f"{out}: cannot be written: {error}. Nothing is left of it. Check free space and permissions."
        ) from error.__cause__


class Tally:
    """Counts the pixels of each class as blocks go by."""

    def __init__(self, mask: xr.DataArray) -> None:
        self.probabilities = "class" in mask.dims
        labels = list(map(str, mask["class"].values)) if self.probabilities else []
        self._classes = [place for place, label in enumerate(labels) if label != "uncertainty"]
        self.names = dict(enumerate(labels[p] for p in self._classes)) if labels else _names(mask)
        self._counts = np.zeros(256, dtype=np.int64)

    def add(self, block: Array) -> int:
        """Count a block; return its number of pixels."""
        if self.probabilities:
            empty = np.isnan(block).any(axis=-3)
            best = np.nan_to_num(block[..., self._classes, :, :]).argmax(axis=-3)
            block = np.where(empty, NO_DATA, best).astype(np.uint8)
        self._counts += np.bincount(block.ravel(), minlength=256)
        return block.size

    def counts(self) -> dict[str, int]:
        """Pixels by class name, ``no_data`` last."""
        valid = {name: int(self._counts[code]) for code, name in self.names.items() if code != NO_DATA}
        empty = valid.pop("no_data", 0)  # a class of probabilities, if the network has one
        return {**valid, "no_data": empty + int(self._counts[NO_DATA])}


def _names(mask: xr.DataArray) -> dict[int, str]:
    """Return the name of each code."""
    if mask.dtype != np.uint8:
        raise CloudMaskError(
            f"{mask.name or 'the array'} ({mask.dtype}) is neither a class map nor probabilities: "
            "pass what predict() or predict_proba() return"
        )
    return {code: name for name, code in codes_of(mask).items()}


class _Raster:
    """What Dask stores into: writes a block to the file and counts it, one thread at a time."""

    def __init__(self, dataset: Any, mask: xr.DataArray, progress: Tell | None) -> None:
        self._dataset, self._progress = dataset, progress
        self.tally = Tally(mask)
        self._total = mask.size // (mask.sizes["class"] if self.tally.probabilities else 1)
        self._lock = threading.Lock()
        self._open, self._done = True, 0

    def __dask_tokenize__(self) -> int:
        return id(self)

    def __setitem__(self, key: tuple[slice, ...], block: Array) -> None:
        rows, cols = key[-2:]
        window = ((rows.start, rows.stop), (cols.start, cols.stop))
        self._dataset.write(block if block.ndim == 3 else block[None], window=window)

    def put(self, key: tuple[slice, ...], block: Array, before: None) -> None:
        """Store a block when the one before it is."""
        from xcloudmask.engine.malloc import trim

        with self._lock:
            if self._open:  # else the run was stopped while this chunk was being computed
                with writing():
                    self[key] = block
                self._done += self.tally.add(block)
                self.show()
        trim()

    def show(self) -> None:
        """Tell how far it is."""
        if self._progress is not None:
            self._progress(self._done, self._total)

    def close(self) -> None:
        """Wait for the block being written, and take no more."""
        with self._lock:
            self._open = False


def _make_cog(
    mask: xr.DataArray, path: Path, spatial: tuple[str, str], progress: Tell | None
) -> dict[str, int]:
    """Write blocks into a tiled GeoTIFF as they come, then let GDAL order them as a COG."""
    import rasterio
    import rioxarray  # noqa: F401  registers .rio
    from rasterio import shutil as raster_shutil

    many = {str(d): n for d, n in mask.sizes.items() if d not in ("class", *spatial) and n > 1}
    if many:
        raise CloudMaskError(
            f"{path.name}: a GeoTIFF takes one scene, and this result has {many}. Write a .zarr, "
            "or select one with .isel"
        )
    time = mask["time"] if "time" in mask.coords else None
    mask = mask.squeeze([d for d in mask.dims if d not in ("class", *spatial)], drop=True)
    probabilities = "class" in mask.dims
    form = {
        "driver": "GTiff", "height": mask.sizes[spatial[0]], "width": mask.sizes[spatial[1]],
        "count": mask.sizes["class"] if probabilities else 1, "dtype": str(mask.dtype),
        "nodata": float("nan") if probabilities else NO_DATA, "crs": mask.rio.crs,
        "transform": transform_of(plain_axes(mask, spatial).rio.set_spatial_dims(spatial[1], spatial[0])),
    }  # fmt: skip
    raw = path.with_name("blocks.tif")
    with writing():
        dataset = rasterio.open(
            raw, "w", **form, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1,
            bigtiff="if_safer", sparse_ok=True,
        )  # fmt: skip
    with _closed(dataset):
        with writing():
            dataset.update_tags(**_tags(mask, time))
            if probabilities:
                for index, name in enumerate(mask["class"].values, start=1):
                    dataset.set_band_description(index, f"probability of {name}")
            else:
                dataset.set_band_description(1, str(mask.name or "cloud_mask"))
                dataset.write_colormap(1, _colour_table(_names(mask)))
        counts = _store(mask, _Raster(dataset, mask, progress))
    with writing():
        raster_shutil.copy(
            raw, path, driver="COG", BLOCKSIZE=BLOCK, COMPRESS="DEFLATE", BIGTIFF="IF_SAFER",
            PREDICTOR="YES" if probabilities else "NO", NUM_THREADS=str(WORKERS),
            # Nearest: every pixel of an overview is one of the scene, and gaps keep their share.
            OVERVIEW_RESAMPLING="AVERAGE" if probabilities else "NEAREST",
        )  # fmt: skip
        raw.unlink()
        path.with_name(f"{path.name}.aux.xml").unlink(missing_ok=True)
        _read_back(path, mask, counts)
        if not probabilities:
            path.with_name(f"{path.name}.aux.xml").write_text(_categories(_names(mask)), encoding="utf-8")
    return counts


def _store(mask: xr.DataArray, raster: _Raster) -> dict[str, int]:
    """Compute every chunk once, into the raster."""
    from dask.base import compute

    from xcloudmask.engine.run_dask import in_turn

    raster.show()
    try:
        compute(in_turn(mask.data, raster.put), scheduler="threads", num_workers=WORKERS)  # type: ignore[no-untyped-call]
    finally:
        raster.close()
    return raster.tally.counts()


@contextmanager
def _closed(dataset: Any) -> Iterator[None]:
    """Close a dataset, which writes what GDAL still holds; an error before that is the one to be told."""
    try:
        yield
    except BaseException:
        with suppress(SinkError), writing():
            dataset.close()
        raise
    with writing():
        dataset.close()


def _read_back(path: Path, mask: xr.DataArray, counts: Mapping[str, int]) -> None:
    """Count the classes in the file: GDAL may not say so when the disk is full as it flushes a block."""
    import rasterio

    tally = Tally(mask)
    with rasterio.open(path) as dataset:
        for top in range(0, dataset.height, BLOCK):
            rows = (top, min(top + BLOCK, dataset.height))
            for left in range(0, dataset.width, 8 * BLOCK):
                cols = (left, min(left + 8 * BLOCK, dataset.width))
                block = dataset.read(window=(rows, cols))
                tally.add(block if tally.probabilities else block[0])
    if tally.counts() != counts:
        raise OSError("the file does not hold what was written to it")


def _tags(mask: xr.DataArray, time: xr.DataArray | None) -> dict[str, str]:
    """Return what made the mask, as TIFF tags."""
    tags = {
        key: " ".join(map(str, np.ravel(value)))
        if isinstance(value, (list, tuple, np.ndarray))
        else str(value)
        for key, value in mask.attrs.items()
    }
    tags["TIFFTAG_SOFTWARE"] = f"xcloudmask {mask.attrs.get('xcloudmask_version', '')}".strip()
    if time is not None and time.dtype.kind == "M" and not np.isnat(time.values).any():
        stamp = str(np.ravel(time.values)[0].astype("datetime64[s]"))
        tags["TIFFTAG_DATETIME"] = stamp.replace("-", ":").replace("T", " ")
    return tags


def _colour_table(names: Mapping[int, str]) -> dict[int, tuple[int, int, int, int]]:
    """Return the colours that plots have, as red, green, blue and opacity."""
    codes = {name: code for code, name in names.items() if code != NO_DATA}
    colours = {name: bytes.fromhex(colour[1:]) for name, colour in class_colours(codes).items()}
    return {code: (*colours[name], 255) for name, code in codes.items()}


def _categories(names: Mapping[int, str]) -> str:
    """Return GDAL's sidecar, the one place where it keeps the names of a GeoTIFF's classes."""
    last = max(code for code in names if code != NO_DATA)
    lines = "".join(f"      <Category>{escape(names.get(code, ''))}</Category>\n" for code in range(last + 1))
    return (
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{lines}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n"
    )
