"""Coordinates and attributes in the store, so that xarray, CF readers and GDAL find their way."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from zarr.codecs import ZstdCodec

from xcloudmask.store import geozarr
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.packing import Packing
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.store import Target, group_document, groups_within

log = logging.getLogger("xcloudmask.streaming")

#: Steps whose labels share a chunk.
LABELS = 512
TIME_UNITS = "microseconds since 1970-01-01"


def jsonable(value: Any) -> Any:
    """Return a value as JSON can hold it; raises TypeError where it cannot."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    json.dumps(value)
    return value


def clean_attrs(attrs: Any, what: str) -> dict[str, Any]:
    """Return the attributes that a store can hold; the others are left out and logged."""
    out = {}
    for key, value in attrs.items():
        try:
            out[str(key)] = jsonable(value)
        except (TypeError, ValueError):
            log.info("attribute %r of %s is not stored: a %s", key, what, type(value).__name__)
    return out


def coordinates(template: xr.DataArray) -> xr.Dataset:
    """Return the coordinates that a store can hold, the CRS among them, ready to be written."""
    crs = template.rio.crs
    if crs is None:
        array = template.drop_encoding()
    else:
        array = template.rio.write_crs(crs, grid_mapping_name="spatial_ref")
    ds = xr.Dataset(attrs={"Conventions": "CF-1.11", "title": str(template.name)})
    for name, coord in array.coords.items():
        variable = coord.variable.copy()
        values = np.asarray(variable.values)
        if values.dtype.kind == "M":
            values = values.astype("datetime64[us]")
        elif values.dtype.kind in "UST" or (
            values.dtype == object and all(isinstance(value, str) for value in values.flat)
        ):
            values = values.astype(object)  # stored with any length, so that longer ones can be appended
        elif values.dtype.kind not in "uifb":
            log.info("coordinate %r is not stored: it holds %s", name, values.dtype)
            continue
        attrs = clean_attrs(variable.attrs, f"coordinate {name!r}")
        ds = ds.assign_coords({name: (variable.dims, values, attrs)})
    y, x = map(str, template.dims[-2:])
    return ds.assign_attrs(
        geozarr.attributes(geozarr.ImageGrid.of(ds, (y, x), (template.sizes[y], template.sizes[x])))
    )


def write_coordinates(target: Target, coords: xr.Dataset, append_dim: str | None) -> None:
    """Write coordinates into the group."""
    encoding: dict[Any, dict[str, Any]] = {}
    for name, coord in coords.variables.items():
        chunks = tuple(LABELS if dim == append_dim else max(n, 1) for dim, n in coord.sizes.items())
        encoding[name] = {"compressors": (ZstdCodec(checksum=True),)} | ({"chunks": chunks} if chunks else {})
        if coord.dtype.kind == "M":
            encoding[name] |= {"units": TIME_UNITS, "dtype": "int64", "calendar": "proleptic_gregorian"}

    def write() -> None:
        coords.to_zarr(
            target.store,
            group=target.group or None,
            mode="a",
            encoding=encoding,
            zarr_format=3,
            consolidated=False,
        )

    call_with_retries(f"write coordinates to {target.label}", write)


def append_labels(array: Any, coord: xr.Variable, dim: str, have: int) -> None:
    """Write the new labels of a coordinate that has been lengthened.

    Not by xarray's append, which takes the list of arrays out of the group: readers would see arrays of
    different lengths until it is back.
    """
    values = coord.values
    values = values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values
    where = tuple(slice(have, None) if d == dim else slice(None) for d in coord.dims)
    if values.dtype != object:
        values = values.astype(array.dtype)
    call_with_retries(f"append to {array.path}", partial(array.__setitem__, where, values))


def array_attrs(template: xr.DataArray, packing: Packing, coords: xr.Dataset) -> dict[str, Any]:
    """Return the attributes of the mask in the store."""
    attrs = clean_attrs(template.attrs, "the mask")
    if "flag_values" in attrs:
        attrs.setdefault("standard_name", "quality_flag")
    attrs.setdefault("long_name", "cloud mask")
    attrs |= packing.attrs
    others = sorted(str(name) for name in coords.coords if name not in template.dims)
    if others:
        attrs["coordinates"] = " ".join(others)
    if template.rio.crs is not None:
        # CF's way, which GDAL follows; its own, `_CRS`, no netCDF holds
        attrs["grid_mapping"] = "spatial_ref"
    return attrs


def consolidate(target: Target, names: Sequence[str]) -> None:
    """Write the arrays' metadata into the group's, too, so that readers ask for one document.

    Not zarr's own function: that would include the ledger, which changes with every region. A list hides
    whatever is not in it, so a group in which others lie has none. Xarray reads that of the group that a path
    or URL ends in; with ``group=`` it looks in the outermost one, and is best told ``consolidated=False``.
    """
    _list(target, names)
    _open_up(target)


def _list(target: Target, names: Sequence[str]) -> None:
    for inner in {name.partition("/")[0] for name in names if "/" in name}:  # overviews have a list too
        own = [name.removeprefix(f"{inner}/") for name in names if name.startswith(f"{inner}/")]
        _list(replace(target, group=target.path(inner)), own)
    document = target.get_json("zarr.json") or group_document({})
    # xarray notes the other coordinates here, those of the last call only; the mask's own note is complete.
    attrs = document.get("attributes", {})
    document["attributes"] = {key: attrs[key] for key in sorted(attrs) if key != "coordinates"}
    ours = groups_within(names)
    members = [name for name in target.children() if name not in ("zarr.json", FOLDER)]
    metadata = {name: target.get_json(name, "zarr.json") for name in sorted({*members, *names, *ours})}
    for group in (document, *(metadata[name] or {} for name in ours)):
        group.pop("consolidated_metadata", None)
    plain = all(meta and (meta["node_type"] == "array" or name in ours) for name, meta in metadata.items())
    if plain and not target.transactional:
        document["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    target.put_json(document, "zarr.json")


def _open_up(target: Target) -> None:
    """Take the lists out of the groups around this one, which would hide it."""
    parts = target.group.split("/") if target.group else []
    for depth in range(len(parts)):
        outer = replace(target, group="/".join(parts[:depth]))
        document = outer.get_json("zarr.json")
        if document is None:
            outer.put_json(group_document({}), "zarr.json")
        elif document.pop("consolidated_metadata", None) is not None:
            outer.put_json(document, "zarr.json")
