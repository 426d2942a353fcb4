"""Two ways to turn a table of layers into one lazy array: stackstac, and odc-loader.

Both are given the same grid and the same reader (each has a seam for one), so they differ only in the graph
that they build: stackstac's is one Blockwise layer, whose cost does not grow with the image; odc's has one
task a chunk, and knows beforehand which chunks no item touches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.reader import Float, Layer, read_layer
from xcloudmask.stac.transport import Transport

Engine = Literal["stackstac", "odc"]


@dataclass(frozen=True, slots=True)
class Stack:
    """All that an engine is given."""

    times: NDArray[np.datetime64]  # one a time step
    layers: tuple[tuple[Layer, ...], ...]  # layers[step][band]
    grid: Grid
    chunks: tuple[int, int]  # rows and columns
    resampling: str  # name of rasterio's method
    transport: Transport
    dtype: str  # of the values, and what they are calibrated in

    def read(self, layer: Layer, corner: tuple[int, int], shape: tuple[int, int]) -> Float:
        """Return rows and columns of the grid."""
        return read_layer(layer, self.grid.part(*corner, shape), self.resampling, self.transport, self.dtype)

    @property
    def settings(self) -> Stack:
        """What reading a layer depends on besides: small, as it travels with each task."""
        return replace(self, times=self.times[:0], layers=())


def build(stack: Stack, engine: Engine) -> Any:
    """Return the Dask array (time, band, y, x) of a stack."""
    return _with_odc(stack) if engine == "odc" else _with_stackstac(stack)


class _StackstacReader:
    """What stackstac calls for each asset and window; it hands over the layer in the place of a URL."""

    def __init__(self, *, settings: Stack, url: Layer, **_given_by_stackstac: object) -> None:
        self._layer, self._settings = url, settings

    def read(self, window: Any) -> Float:
        corner = int(window.row_off), int(window.col_off)
        return self._settings.read(self._layer, corner, (int(window.height), int(window.width)))


def _with_stackstac(stack: Stack) -> Any:
    import stackstac

    grid = stack.grid
    authority, _, code = grid.crs.partition(":")
    if authority != "EPSG" or not code.isdigit():
        code = "3857"  # stackstac asks for one; items and grid are stated in it alike, so nothing is warped
    # Plain dicts of our own: pystac turns proj:epsg into proj:code, which stackstac does not read. The box is
    # that of the whole grid, as stackstac drops what it believes to lie outside; the reader knows better.
    names = [str(band) for band in range(len(stack.layers[0]))]
    items = [
        {
            "id": str(step),
            "properties": {"datetime": str(time), "proj:epsg": int(code), "proj:bbox": grid.bounds},
            "assets": {name: {"href": layer} for name, layer in zip(names, row, strict=True)},
        }
        for step, (time, row) in enumerate(zip(stack.times, stack.layers, strict=True))
    ]
    data = stackstac.stack(
        items,
        assets=names,
        epsg=int(code),
        resolution=(grid.res_x, grid.res_y),
        bounds=grid.bounds,
        snap_bounds=False,
        chunksize=(1, 1, *stack.chunks),
        dtype=np.dtype(stack.dtype),
        fill_value=np.dtype(stack.dtype).type(np.nan),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        reader=partial(_StackstacReader, settings=stack.settings),
    )
    return data.data


class _OdcReader:
    """Reads one time step: the bands that the chunk selects."""

    def __init__(self, layers: Sequence[Layer], settings: Stack) -> None:
        self._layers, self._settings = layers, settings

    def read(
        self, cfg: Any, dst_geobox: Any, *, dst: Any = None, selection: slice | None = None
    ) -> tuple[tuple[slice, slice], Float]:
        grid, (rows, columns) = self._settings.grid, dst_geobox.shape.yx
        _, _, left, _, _, top = tuple(dst_geobox.transform)[:6]
        # From the whole grid's corner, not from the chunk's: the same floats as with the other engine.
        corner = round((grid.top - top) / grid.res_y), round((left - grid.left) / grid.res_x)
        chosen = self._layers if selection is None else self._layers[selection]
        data = np.stack([self._settings.read(layer, corner, (rows, columns)) for layer in chosen])
        return (slice(0, rows), slice(0, columns)), data


@dataclass(frozen=True)
class _OdcDriver:
    """The driver that odc-loader asks for readers."""

    settings: Stack

    md_parser = None
    dask_reader = None
    aux_reader = None

    def new_load(self, geobox: Any, *, chunks: Any = None) -> None:
        return None

    def finalise_load(self, load_state: Any) -> None:
        return None

    def capture_env(self) -> dict[str, Any]:
        return {}

    def restore_env(self, env: Any, load_state: Any) -> Any:
        return nullcontext()

    def open(self, src: Any, ctx: Any) -> _OdcReader:
        return _OdcReader(src.driver_data, self.settings)


def _with_odc(stack: Stack) -> Any:
    try:
        from odc.geo.geobox import GeoBox, GeoboxTiles
        from odc.loader import chunked_load
        from odc.loader.types import (
            FixedCoord,
            RasterBandMetadata,
            RasterGroupMetadata,
            RasterLoadParams,
            RasterSource,
        )
    except ImportError as error:
        raise CloudMaskError(f"engine='odc' needs odc-stac: pip install odc-stac ({error})") from error
    from dask.base import tokenize

    grid = stack.grid
    name, count = "reflectance", len(stack.layers[0])
    meta = RasterBandMetadata(stack.dtype, float("nan"), dims=("band", "y", "x"))
    template = RasterGroupMetadata(
        {(name, 1): meta}, extra_coords=(FixedCoord("band", [str(index) for index in range(count)]),)
    )
    tiles = GeoboxTiles(GeoBox(grid.shape, grid.transform, grid.crs), stack.chunks)
    # odc names its tasks after addresses alone, so the address is a digest of all that the pixels depend on.
    token = tokenize(grid, stack.resampling, stack.transport, stack.dtype)
    sources = [
        {name: RasterSource(f"{token}-{tokenize(row)}", driver_data=row, meta=meta)} for row in stack.layers
    ]
    dataset = chunked_load(
        {name: RasterLoadParams(stack.dtype, float("nan"), dims=meta.dims, meta=meta)},
        template,
        sources,
        _bins(stack),
        tiles,
        [time.astype("datetime64[us]").item() for time in stack.times],
        {},
        _OdcDriver(stack.settings),
        chunks={"time": 1, "band": 1, "y": stack.chunks[0], "x": stack.chunks[1]},
    )
    return dataset[name].data


def _bins(stack: Stack) -> dict[tuple[int, int, int], list[int]]:
    """Which time steps have something for which chunk; a chunk that is not named here is no data."""
    grid, (rows, columns) = stack.grid, stack.chunks
    bins: dict[tuple[int, int, int], list[int]] = {}
    boxes = [{source.bounds for layer in row for source in layer.sources} for row in stack.layers]
    for top, left in product(range(0, grid.shape[0], rows), range(0, grid.shape[1], columns)):
        part = grid.window(top, left, (min(rows, grid.shape[0] - top), min(columns, grid.shape[1] - left)))
        for step, own in enumerate(boxes):
            if any(part.touches(box) for box in own):
                bins[step, top // rows, left // columns] = [step]
    return bins
