"""From probabilities to classes with two thresholds: cloud is what hangs together with what is surely cloud.

A pixel is coded with all that it may become: what it is if it is no cloud, and if it may be one, which and
whether it is a seed. So one byte a pixel waits for the areas to be joined over the chunks.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import CLOUDY, EMPTY, NO_DATA, SCHEMES, SHADOW
from xcloudmask.engine.classify import likeliest
from xcloudmask.engine.progress import Progress
from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.tidy.components import Codes, Rule, over_chunks
from xcloudmask.tidy.halo import as_blocks, like


def decide(proba: xr.DataArray, low: float, high: float, progress: Progress = "auto") -> xr.DataArray:
    """Return the mask of probabilities: cloud from `low` on, where that touches pixels from `high` on.

    Cloud is of the likeliest kind, all else the likeliest of the rest, as with one threshold.

    Examples
    --------
    >>> p = xr.DataArray([[[0.4, 0.6, 0.6, 0.1, 0.6]]], dims=("class", "y", "x"))
    >>> p = xr.concat([1 - p, p], dim="class").assign_coords({"class": ["clear", "cloud"]})
    >>> p[1, 0, 0] = 0.9
    >>> decide(p, 0.5, 0.8).values.tolist()
    [[1, 1, 1, 0, 0]]
    """
    if "class" not in proba.dims or "class" not in proba.coords:
        raise CloudMaskError(
            "hysteresis takes probabilities, and this is a mask",
            "Start from scene.cloudmask.predict_proba(), or say predict(post={'hysteresis': (0.3, 0.7)})",
        )
    names = [name for name in proba["class"].values.tolist() if name != "uncertainty"]
    cloudy = [place for place, name in enumerate(names) if name in CLOUDY]
    ground = [place for place, name in enumerate(names) if name not in CLOUDY]
    if not cloudy or not ground:
        raise CloudMaskError(f"hysteresis decides between cloud and the rest, and the classes are {names}")
    scheme = str(proba.attrs.get("scheme", "default"))
    own = {name: place for place, name in enumerate(names)}
    known = own if scheme == "native" else SCHEMES[scheme][0]
    codes = {name: NO_DATA if name == EMPTY else known[name] for name in names}

    turned = proba.transpose("class", ..., *spatial_dims(proba)).isel({"class": slice(len(names))})
    weak = proba.attrs.get("shadow_threshold")
    coder = partial(
        _code, cloudy=cloudy, ground=ground, low=low, high=high,
        shadow=names.index(SHADOW) if SHADOW in names and len(ground) > 1 and weak else None, weak=weak,
    )  # fmt: skip
    blocks = as_blocks(turned.data)
    blocks = blocks.rechunk({0: -1}).map_blocks(
        coder, drop_axis=0, dtype=np.uint8, meta=np.empty((0,) * (blocks.ndim - 1), np.uint8)
    )
    kinds = [(c, g, sure) for c in cloudy for g in range(len(ground)) for sure in (0, 1)]
    coded = range(len(ground), len(ground) + len(kinds))
    grounds, final = np.arange(256), np.full(256, NO_DATA, np.uint8)
    final[: len(ground)] = [codes[names[k]] for k in ground]
    for number, (c, g, _) in zip(coded, kinds, strict=True):
        grounds[number], final[number] = g, codes[names[c]]
    seeds = tuple(n for n, kind in zip(coded, kinds, strict=True) if kind[2])
    data = over_chunks(
        blocks, Rule(tuple(coded), 1, becomes=0, seeds=seeds, grounds=tuple(grounds.tolist())), None
    )
    data = data.map_blocks(partial(np.take, final), dtype=np.uint8)

    plane = turned.isel({"class": 0}, drop=True)
    out = plane.copy(data=like(data, plane, progress)).transpose(
        *(dim for dim in proba.dims if dim != "class")
    )
    attrs = {key: value for key, value in proba.attrs.items() if key not in ("uncertainty", "_FillValue")}
    flags = {**codes, EMPTY: NO_DATA}
    out.attrs = {
        **attrs, "long_name": "cloud mask", "flag_values": [*flags.values()],
        "flag_meanings": " ".join(flags), "nodata": NO_DATA,
    }  # fmt: skip
    out.encoding = {"fill_value": NO_DATA}
    return out.rename("cloud_mask")


def _code(
    block: npt.NDArray[Any], *, cloudy: list[int], ground: list[int], low: float, high: float,
    shadow: int | None, weak: float | None,
) -> Codes:  # fmt: skip
    """Return the number of what each pixel (class, ..., y, x) may become."""
    planes = list(block)
    if shadow is not None:
        planes[shadow] = np.where(planes[shadow] < weak, np.float32(-1), planes[shadow])
    cloud = sum((planes[k] for k in cloudy[1:]), planes[cloudy[0]])
    at = np.zeros(256, np.uint8)
    at[ground] = np.arange(len(ground))
    at[cloudy] = np.arange(len(cloudy))
    g, c = at[likeliest(planes, ground)], at[likeliest(planes, cloudy)]
    kind = len(ground) + 2 * (c * np.uint8(len(ground)) + g) + (cloud >= high)
    out = np.where(cloud >= low, kind, g).astype(np.uint8)
    out[np.isnan(cloud)] = NO_DATA
    return out
