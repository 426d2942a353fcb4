"""What is streamed: a plan over pixels, or a finished mask; NumPy or Dask, or read as it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.engine.plan import Plan
from xcloudmask.errors import CloudMaskError, Use
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import predict, prepare
from xcloudmask.scene.dims import BAND_DIMS, spatial_dims
from xcloudmask.scene.mask_classes import is_mask
from xcloudmask.tidy.steps import LOCAL, Step, read_steps

#: Rows and columns of pixels around a region that are inferred once more where its mask is cleaned.
MARGIN = 256


@dataclass(frozen=True)
class Source:
    """Where regions come from.

    `pixels` is (lead..., band, y, x) with a plan, or the output itself (lead..., [class], y, x) without one.
    """

    template: xr.DataArray  # (lead..., [class], y, x); coordinates, attributes and name of the output
    pixels: xr.DataArray
    plan: Plan | None
    class_dim: str | None

    @property
    def spatial(self) -> tuple[str, str]:
        """Names of rows and columns."""
        y, x = self.template.dims[-2:]
        return str(y), str(x)

    @property
    def in_memory(self) -> bool:
        """Whether the pixels are in, or read by, this process."""
        return self.pixels.chunks is None

    def piece(self, leads: tuple[Any, ...], box: tuple[slice, slice]) -> Any:
        """Return pixels of some leading indices and a box, unread: a Dask array or a DataArray."""
        middle = self.pixels.ndim - len(leads) - 2
        part = self.pixels[(*leads, *(slice(None),) * middle, *box)]
        return part if part.chunks is None else part.data


def from_reflectance(da: xr.DataArray, asked: PredictOptions) -> Source:
    """Plan a prediction; nothing is read."""
    import dask.array

    if asked.post is not None and (steps := read_steps(asked.post)):
        return from_mask(_cleaned(da, asked, steps))
    job = prepare(da, asked)
    plan = job.plan
    shape = (*job.pixels.shape[:-3], *plan.class_axis, *job.pixels.shape[-2:])
    dtype = np.float32 if plan.class_axis else np.uint8
    empty = job.wrap(dask.array.zeros(shape, dtype=dtype, chunks=-1))
    return _source(empty, job.pixels, plan)


def _cleaned(da: xr.DataArray, asked: PredictOptions, steps: Sequence[Step]) -> xr.DataArray:
    """Return the mask, lazily: around each region, as far as its steps look, pixels are inferred again."""
    whole = [str(step) for step in steps if step.name not in LOCAL]
    if whole:
        raise CloudMaskError(
            " needs the whole of a scene, and regions are written one by one:",
            "leave it out here, and clean what xcloudmask.open_masks returns: .cloudmask.clean(...)",
            option=Use(post="; ".join(whole)),
        )
    y, x = spatial_dims(da)  # small chunks: those around a region are inferred as wholes
    other = {dim: -1 if dim in BAND_DIMS else 1 for dim in da.dims if dim not in (y, x)}
    da = da.chunk({y: MARGIN, x: MARGIN, **(other if da.chunks is None else {})})
    return predict(da, asked)


def from_mask(mask: xr.DataArray) -> Source:
    """Take a mask. If it is what `predict` returned, lazily, its plan is followed region by region."""
    spatial_dims(mask)
    _refuse_scene(mask)
    if mask.size == 0:
        raise CloudMaskError(f"the mask is empty: its sizes are {dict(mask.sizes)}; check the selection")
    if mask.name is None:
        mask = mask.rename("cloud_mask")
    planned = _planned(mask)
    if planned is not None:
        return _source(mask, *planned)
    ordered = _ordered(mask)
    return Source(ordered, ordered, None, _class_dim(ordered))


def _refuse_scene(da: xr.DataArray) -> None:
    """Refuse reflectance, which would be stored as a mask; masks from a GeoTIFF have a band dimension."""
    band = next((dim for dim in BAND_DIMS if dim in da.dims), None)
    if band is None or is_mask(da) or "model" in da.attrs:
        return
    if da.sizes[band] > 1 or da.dtype not in (np.dtype(bool), np.dtype(np.uint8)):
        raise CloudMaskError(
            f"this is a scene, not a mask: it has {da.sizes[band]} of {band!r}. Use "
            "da.cloudmask.predict().cloudmask.to_zarr(...), or xcloudmask.stream(da, ...)"
        )


def _source(output: xr.DataArray, pixels: xr.DataArray, plan: Plan) -> Source:
    ordered = _ordered(output)
    if pixels.chunks is not None and len(pixels.chunks[-3]) > 1:
        pixels = pixels.chunk({pixels.dims[-3]: -1})
    return Source(ordered, pixels, plan, _class_dim(ordered))


def _class_dim(mask: xr.DataArray) -> str | None:
    return "class" if "class" in mask.dims else None


def _ordered(mask: xr.DataArray) -> xr.DataArray:
    """Return the mask as (lead..., [class], y, x), its labels read."""
    lazy = {name: coord.compute() for name, coord in mask.coords.items() if coord.chunks is not None}
    mask = mask.assign_coords(lazy)
    last = [*(["class"] if "class" in mask.dims else []), *spatial_dims(mask)]
    return mask.transpose(*(dim for dim in mask.dims if dim not in last), *last)


def _planned(mask: xr.DataArray) -> tuple[xr.DataArray, Plan] | None:
    """Find the plan and the pixels in the graph of a mask that came straight from `predict`."""
    if mask.chunks is None:
        return None
    import dask.array

    from xcloudmask.engine.run_dask import CloudMaskLayer

    graph = mask.data.dask
    layer = getattr(graph, "layers", {}).get(mask.data.name)
    if not isinstance(layer, CloudMaskLayer) or layer.source not in graph.layers:
        return None
    # What type the pixels have is not recorded in the graph, and does not matter to slicing.
    meta = np.empty((0,) * len(layer.chunks), np.float32)
    array: Any = dask.array.Array
    # Without the mask's own layer, whose tasks would be written, and kept, with the first piece that is read.
    data = array(graph.cull_layers([layer.source]), layer.source, layer.chunks, meta=meta)
    lead = [dim for dim in mask.dims if dim not in (*spatial_dims(mask), "class")]
    return xr.DataArray(data, dims=[*lead, "band", *spatial_dims(mask)]), layer.plan
