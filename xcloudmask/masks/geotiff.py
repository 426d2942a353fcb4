"""Cloud Optimized GeoTIFF."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import xarray as xr

from xcloudmask.classes import NO_DATA
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.picture import class_colours
from xcloudmask.masks.sink import WORKERS, Array, Progress, Tally, flags, store
from xcloudmask.store.atomic import SinkError, writing

BLOCK = 512


class _Raster:
    """An open raster as something to store into."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __setitem__(self, key: tuple[slice, ...], block: Array) -> None:
        rows, cols = key[-2:]
        window = ((rows.start, rows.stop), (cols.start, cols.stop))
        self._dataset.write(block if block.ndim == 3 else block[None], window=window)


def make_cog(
    mask: xr.DataArray, path: Path, spatial: tuple[str, str], progress: Progress | None
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
        "transform": mask.rio.set_spatial_dims(spatial[1], spatial[0]).rio.transform(),
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
                dataset.write_colormap(1, _colour_table(flags(mask)))
        counts = store(mask, _Raster(dataset), progress)
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
            path.with_name(f"{path.name}.aux.xml").write_text(_categories(flags(mask)), encoding="utf-8")
    return counts


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
