"""Aux inputs as a caller gives them: named, resampled to the scene's grid, and put behind its bands.

Nothing is computed here for lazy arrays. See `xcloudmask.engine.aux_planes` for what happens to them in a
window.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.engine.aux_planes import DECIBELS, QUANTITIES, Cleaner
from xcloudmask.engine.regrid import Axis, Regrid
from xcloudmask.errors import CloudMaskError, OptionError, Remedy, UnitError, Use
from xcloudmask.scene.bands import labels_of
from xcloudmask.scene.dims import BAND_DIMS, SPATIAL, coordinate, crs_of, spacing
from xcloudmask.scene.same_grid import differ_along
from xcloudmask.scene.units import declared_nodata
from xcloudmask.types import AuxInput, AuxName, ModelSpec

#: What `predict` takes as aux.
AuxLike = xr.DataArray | xr.Dataset | Mapping[str, xr.DataArray]

#: Names in use for each aux input; case does not matter.
ALIASES: Mapping[AuxName, tuple[str, ...]] = {
    "elevation": ("elevation", "dem", "dsm", "dtm", "height", "altitude"),
    "vv": ("vv", "sar_vv"),
    "vh": ("vh", "sar_vh"),
    "angle": ("angle", "sar_angle", "incidence_angle", "incidence"),
    "lwir11": ("lwir11", "lwir1"),
    "lwir12": ("lwir12", "lwir2"),
}
#: Rows and columns of a chunk, where an array in memory meets lazy ones.
CHUNK = 2048


def take_aux(aux: AuxLike | None, spec: ModelSpec) -> dict[AuxInput, xr.DataArray]:
    """Return what the model takes of what the caller gives, in the model's order; an error for the rest.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from xcloudmask.testing import TOY
    >>> dem = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"))
    >>> [each.name for each in take_aux({"DEM": dem}, replace(TOY, aux=("vv", "elevation")))]
    ['elevation']
    """
    given = read_aux(aux)
    taken = {each.name: each for each in spec.aux}
    strange = [name for name in given if name not in taken]
    if strange:
        from xcloudmask.models.lookup import readable

        own = f"it takes {', '.join(taken)}" if taken else "it takes none"
        others = [each.name for each in readable() if {*strange} <= {aux.name for aux in each.aux}]
        raise CloudMaskError(
            f"model {spec.name!r} has no use for the aux input {', '.join(strange)}: {own}.",
            f"Models that take it: {', '.join(others)}" if others else "No model that is known here takes it",
        )
    lacking = [each.name for each in spec.aux if each.required and each.name not in given]
    if lacking:
        raise CloudMaskError(
            f"model {spec.name!r} needs the aux input {', '.join(lacking)}:",
            Remedy("{}", Use(aux=dict.fromkeys(lacking, ...))),
        )
    return {each: given[each.name] for each in spec.aux if each.name in given}


def read_aux(aux: AuxLike | None) -> dict[AuxName, xr.DataArray]:
    """Return aux inputs by their names, for a DataArray, a Dataset or a mapping.

    Examples
    --------
    >>> radar = xr.DataArray(np.zeros((2, 4, 4)), dims=("band", "y", "x"), coords={"band": ["VV", "vh"]})
    >>> list(read_aux(radar))
    ['vv', 'vh']
    """
    if aux is None:
        return {}
    pairs: list[tuple[Hashable | None, Any]]
    if isinstance(aux, xr.DataArray):
        band = next((dim for dim in BAND_DIMS if dim in aux.dims), None)
        labels = [] if band is None else labels_of(aux, band)
        if band is None or (len(labels) == 1 and known(labels[0]) is None):  # a raster of one band
            pairs = [(aux.name, aux)]
        else:
            pairs = [(label, aux.isel({band: i})) for i, label in enumerate(labels)]
    elif isinstance(aux, xr.Dataset):
        # what has no pixels is a grid mapping: where it is a coordinate, its CRS is found
        aux = aux.set_coords([label for label, each in aux.data_vars.items() if not each.ndim])
        pairs = list(aux.data_vars.items())
    elif isinstance(aux, Mapping):
        pairs = list(aux.items())
    else:
        raise CloudMaskError(
            "aux must be a DataArray, a Dataset, or DataArrays by name, such as {'elevation': dem}; got "
            f"{type(aux).__name__}"
        )
    out: dict[AuxName, xr.DataArray] = {}
    for label, array in pairs:
        name = known(label)
        if name is None:
            hint = (
                ""
                if label is not None
                else "Give it one: aux={'elevation': dem}, or dem.rename('elevation')."
            )
            if isinstance(aux, xr.Dataset):
                renamed = f"aux.rename({{{label!r}: 'elevation'}})"
                hint = f"Leave it out, aux[['elevation']], or rename it: {renamed}."
            raise OptionError("name of an aux input", label, allowed=sum(ALIASES.values(), ()), hint=hint)
        if name in out:
            raise CloudMaskError(
                f"the aux input {name!r} is given twice ({', '.join(ALIASES[name])} are one)"
            )
        if not isinstance(array, xr.DataArray):
            raise CloudMaskError(f"aux[{label!r}] must be a DataArray, got {type(array).__name__}")
        out[name] = array
    return out


def known(name: object) -> AuxName | None:
    """Return the name that an aux input has here, None for a strange one.

    Examples
    --------
    >>> known("DEM"), known("red")
    ('elevation', None)
    """
    folded = name.casefold() if isinstance(name, str) else name
    return next((own for own, others in ALIASES.items() if folded in others), None)


def add_planes(
    picked: xr.DataArray, planes: Mapping[AuxInput, xr.DataArray], da: xr.DataArray
) -> xr.DataArray:
    """Return bands (..., band, y, x) with a plane for each aux input behind them; lazy if any of it is.

    The bands are `picked` from a scene `da`, which has the coordinates; the planes are those of `take_aux`.
    """
    arranged = {each: _arranged(each.name, plane, picked, da) for each, plane in planes.items()}
    unread = picked.chunks is None and not picked.variable._in_memory  # in a file, without Dask
    lazy = unread or any(array.chunks is not None for array in (picked, *arranged.values()))
    if lazy:
        picked = _chunked(picked)
    ready = []
    for each, plane in arranged.items():
        if lazy:
            plane = _chunked(plane).chunk({dim: picked.chunksizes[dim] for dim in plane.dims[:-2]})
        plane = plane.copy(data=_cleaned(plane, _cleaner(each.name, plane)))
        ready.append(_on_grid(each.name, plane, picked, da))
    return _stacked(picked, ready)


def _chunked(da: xr.DataArray) -> xr.DataArray:
    if da.chunks is not None:
        return da
    last = dict.fromkeys(da.dims[-2:], CHUNK)
    return da.chunk({**{dim: -1 if dim in BAND_DIMS else 1 for dim in da.dims}, **last})


def _arranged(name: str, array: xr.DataArray, picked: xr.DataArray, scene: xr.DataArray) -> xr.DataArray:
    """Return an aux input as (some leading dimensions of the scene, y, x), in the scene's names."""
    pair = next((pair for pair in SPATIAL if set(pair) <= set(array.dims)), None)
    if pair is None:
        raise CloudMaskError(
            f"aux[{name!r}] has the dimensions {array.dims}: none are rows and columns such as y and x"
        )
    if array.dtype.kind not in "fiu":
        raise UnitError(f"aux[{name!r}] must hold real numbers, got {array.dtype}")
    array = array.squeeze([dim for dim in array.dims if array.sizes[dim] == 1 and dim not in pair], drop=True)
    lead = [dim for dim in picked.dims[:-3] if dim in array.dims]
    for dim in array.dims:
        if dim in pair:
            continue
        if dim not in lead or array.sizes[dim] != picked.sizes[dim] or differ_along(array, scene, dim):
            raise CloudMaskError(
                f"aux[{name!r}] has a dimension {dim!r} that is not that of the scene: bring it to the "
                f"scene's steps, aux.sel({dim}=da.{dim}, method='nearest').assign_coords({dim}=da.{dim}), or "
                f"to one picture for all, aux.median({dim!r})"
            )
    array = array.transpose(*lead, *pair)
    if (crs := _crs(array)) is not None:  # under the scene's names of dimensions it would be lost
        array = array.rio.write_crs(crs)
    return array.rename({old: new for old, new in zip(pair, picked.dims[-2:], strict=True) if old != new})


def _cleaner(name: AuxName, array: xr.DataArray) -> Cleaner:
    """Return what makes a plane of an aux input's stored numbers; an error where its unit is missing."""
    attrs = {str(key): value for key, value in array.attrs.items()}
    units = str(attrs.get("units", attrs.get("unit", "")) or "").strip().casefold()
    scale, offset = (float(attrs.get(key) or none) for key, none in (("scale_factor", 1), ("add_offset", 0)))
    if array.dtype.kind == "f" and (scale != 1 or offset != 0):
        raise UnitError(
            f"aux[{name!r}] holds {array.dtype} and its attributes say scale_factor={scale:g}, "
            f"add_offset={offset:g}: apply them, or delete them if they were applied"
        )
    quantity = QUANTITIES[name]
    if units not in quantity.units:
        stated = f"units={units!r}" if units else "no attribute units"
        raise UnitError(f"aux[{name!r}] has {stated}; it must be in {quantity.unit}:", quantity.remedy)
    return Cleaner(declared_nodata(attrs), scale, offset, units in DECIBELS, name)


def _cleaned(plane: xr.DataArray, cleaner: Cleaner) -> Any:
    if plane.chunks is None:
        return cleaner(plane.values)
    meta = np.empty((0,) * plane.ndim, np.float32)
    return plane.data.map_blocks(cleaner, dtype=np.float32, meta=meta)


def _on_grid(name: str, plane: xr.DataArray, picked: xr.DataArray, scene: xr.DataArray) -> Any:
    """Return the plane's data on the scene's rows and columns."""
    y, x = plane.dims[-2:]
    crs = _crs(plane), _crs(scene)
    if (None in crs or crs[0] == crs[1]) and not any(
        plane.sizes[dim] != scene.sizes[dim] or differ_along(plane, scene, dim) for dim in (y, x)
    ):
        if plane.chunks is None:
            return plane.dims, plane.values
        return plane.dims, plane.chunk({dim: picked.chunksizes[dim] for dim in (y, x)}).data
    regrid = _regrid(name, plane, scene, crs)
    rows, cols = picked.sizes[y], picked.sizes[x]
    _check_overlap(name, regrid, crs, (rows, cols))
    if plane.chunks is None:
        return plane.dims, regrid(plane.values, (0, 0), (0, rows), (0, cols))
    from xcloudmask.engine import run_dask

    chunks = picked.chunksizes
    return plane.dims, run_dask.regrid(regrid, plane.data, (chunks[y], chunks[x]))


def _crs(da: xr.DataArray) -> Any:
    from rasterio.crs import CRS

    names = set(da.coords)
    crs = crs_of(da)
    if crs is None and any(y.startswith("lat") and {y, x} <= names for y, x in SPATIAL):
        return CRS.from_epsg(4326)  # as pixel_size takes them
    return crs


def _regrid(name: str, plane: xr.DataArray, scene: xr.DataArray, crs: tuple[Any, Any]) -> Regrid:
    y, x = map(str, plane.dims[-2:])
    source, target = _axes(plane, y, x, f"aux[{name!r}]"), _axes(scene, y, x, "the scene")
    for what, own, other in ((f"aux[{name!r}]", *crs), ("the scene", *crs[::-1])):
        if own is None and other is not None:
            raise CloudMaskError(
                f"{what} has no CRS, and lies on another grid than the other, whose CRS is "
                f"{other.to_string()}: say it with .rio.write_crs(...)"
            )
    period = 360.0 if crs[0] is not None and crs[0].is_geographic else 0.0
    pair = None if crs[0] == crs[1] else (crs[0].to_wkt(), crs[1].to_wkt())
    return Regrid.plan(source, target, pair, period)


def _axes(array: xr.DataArray, y: str, x: str, what: str) -> tuple[Axis, Axis]:
    rows, columns = _axis(array, y, what), _axis(array, x, what)
    # an axis of one pixel takes the other's spacing, as in pixel_size
    if rows.size == 1:
        rows = Axis(rows.first, abs(columns.step), 1)
    elif columns.size == 1:
        columns = Axis(columns.first, abs(rows.step), 1)
    return rows, columns


def _axis(da: xr.DataArray, dim: str, what: str) -> Axis:
    if dim not in da.coords:
        raise CloudMaskError(
            f"{what} has no coordinate {dim!r}, so aux and scene, of other sizes, cannot be brought "
            "together: give both y and x coordinates"
        )
    values = coordinate(da[dim]).astype(float)
    if len(values) < 2:
        return Axis(float(values[0]), 1.0, 1)
    try:
        step = math.copysign(spacing(values, dim), values[1] - values[0])
    except CloudMaskError as error:
        raise CloudMaskError(f"{what}: {error}") from None
    mean = (values[-1] - values[0]) / (len(values) - 1)
    if abs(mean - step) * len(values) > 0.5 * abs(step):
        raise CloudMaskError(f"{what} is not evenly spaced along {dim!r}: reproject it first")
    return Axis(float(values[0]), float(mean), len(values))


def _check_overlap(name: str, regrid: Regrid, crs: tuple[Any, Any], size: tuple[int, int]) -> None:
    corners = [np.linspace(-0.5, count - 0.5, 9) for count in size]
    places = regrid.places(*corners).reshape(2, -1)
    places = places[:, np.isfinite(places).all(axis=0)]
    spans = []
    for place, axis in zip(places, regrid.cells, strict=True):
        if place.size and place.max() > -0.5 and place.min() < axis.size - 0.5:
            continue
        ends = sorted(axis.at(np.array([-0.5, axis.size - 0.5])))
        there = sorted(axis.at(np.array([place.min(), place.max()]))) if place.size else [math.nan, math.nan]
        spans.append((ends, there))
    if spans:
        where = "; ".join(
            f"it covers {ends[0]:.8g} to {ends[1]:.8g}, the scene {there[0]:.8g} to {there[1]:.8g}"
            for ends, there in spans
        )
        system = "" if crs[0] is None else f" in {crs[0].to_string()}"
        raise CloudMaskError(f"aux[{name!r}] does not overlap the scene{system}: {where}")


def _stacked(picked: xr.DataArray, planes: list[tuple[tuple[Hashable, ...], Any]]) -> xr.DataArray:
    """Put the planes behind the bands; a plane without a leading dimension is the same all along it."""
    dims = picked.dims
    places = [tuple(dims.index(dim) for dim in own) for own, _ in planes]
    if picked.chunks is None:
        data = join(picked.values, *(values for _, values in planes), places=tuple(places))
    else:
        from xcloudmask.engine import run_dask

        data = run_dask.stack(picked.data, [values for _, values in planes], places, join)
    return xr.DataArray(data, dims=dims)


def join(bands: Any, *planes: Any, places: tuple[tuple[int, ...], ...]) -> Any:
    """Put planes behind bands (..., band, y, x); `places` says which axes of the bands each plane has.

    Examples
    --------
    >>> join(np.zeros((3, 2, 4, 4), "u2"), np.ones((4, 4), "f4"), places=((2, 3),)).shape
    (3, 3, 4, 4)
    """
    one_band = (*bands.shape[:-3], 1, *bands.shape[-2:])
    parts = [bands]
    for plane, place in zip(planes, places, strict=True):
        shape = [length if axis in place else 1 for axis, length in enumerate(one_band)]
        parts.append(np.broadcast_to(plane.reshape(shape), one_band))
    return np.concatenate(parts, axis=-3)
