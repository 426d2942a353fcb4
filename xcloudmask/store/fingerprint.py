"""What a store was made with, and whether a call asks for the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

from xcloudmask.engine.plan import Plan
from xcloudmask.errors import ContractError, Remedy, Use
from xcloudmask.predict.options import PredictOptions
from xcloudmask.store.packing import Packing
from xcloudmask.store.sizes import Storage


def describe_contract(
    template: xr.DataArray,
    spatial: tuple[str, str],
    append_dim: str | None,
    storage: Storage,
    packing: Packing,
    plan: Plan | None,
) -> dict[str, Any]:
    """Return everything on which a stored result depends, but the pixels, as JSON can hold it."""
    crs = template.rio.crs
    out: dict[str, Any] = {"name": str(template.name), **_made_with(template, plan)}
    out["dims"] = [str(dim) for dim in template.dims]
    out["shape"] = {str(dim): size for dim, size in template.sizes.items() if dim != append_dim}
    out["crs"] = None if crs is None else str(crs.to_string())
    for dim in spatial:
        out[str(dim)] = _axis(template, dim)
    out["stored_dtype"] = packing.dtype
    out["chunks"] = list(storage.chunks)
    out["shards"] = None if storage.shards is None else list(storage.shards)
    return out


def _made_with(template: xr.DataArray, plan: Plan | None) -> dict[str, Any]:
    if plan is None:  # the mask was changed since it was made: its attributes tell how that was
        names = [*PredictOptions.recorded(), "cleaned"]
        made = {name: _plain(template.attrs[name]) for name in names if name in template.attrs}
        return {**made, "made_by": "blocks of a graph"}
    options = plan.options
    calibration = options.calibration
    return {
        **options.record,
        "output": options.output,
        "classes": list(options.scheme.names),
        "codes": list(options.scheme.codes),
        "scale": None if calibration.scale is None else list(calibration.scale),
        "offset": None if calibration.offset is None else list(calibration.offset),
        "nodata": " ".join(map(str, calibration.nodata)) or None,
        "fill": " ".join(map(str, calibration.fill)) or None,
        "made_by": "windows",
    }


def _axis(template: xr.DataArray, dim: str) -> Any:
    """Return the ends of a coordinate and a hash of all of it."""
    if dim not in template.coords:
        return None
    values = np.ascontiguousarray(template[dim].values)
    digest = hashlib.sha256(values.tobytes()).hexdigest()[:12]
    return {"first": _plain(values[0]), "last": _plain(values[-1]), "sha256": digest}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "uifb" else str(value)
    return list(value) if isinstance(value, tuple) else value


def check_contract(stored: Mapping[str, Any], asked: Mapping[str, Any], label: str) -> None:
    """Refuse a call that would not continue what is stored, and show both values of all that differs.

    Examples
    --------
    >>> check_contract({"model": "a"}, {"model": "b"}, "masks.zarr")
    Traceback (most recent call last):
    xcloudmask.errors.ContractError: masks.zarr holds another mask than this call would make:
      model: 'a' in the store, 'b' in this call
    Pass overwrite=True to replace it, or name another group=, or pass model='a' to go on with it
    """
    keys = [key for key in {**stored, **asked} if stored.get(key) != asked.get(key)]
    if keys:
        lines = [
            f"  {key}: {stored.get(key)!r} in the store, {asked.get(key)!r} in this call" for key in keys
        ]
        remedy = Remedy("Pass {} to replace it, or name another {}", Use(overwrite=True), Use(group=...))
        # "auto" may choose another model than it did: with the name, the store can be continued
        if "model" in keys and (name := stored.get("model")):
            remedy = Remedy(f"{remedy.text}, or pass {{}} to go on with it", *remedy.uses, Use(model=name))
        raise ContractError(
            f"{label} holds another mask than this call would make:\n" + "\n".join(lines) + "\n", remedy
        )
