"""What a Sentinel-2 product of ESA's EOPF says of itself, and its groups of 10, 20 and 60 m on one grid.

An EOPF product is a Zarr store: ``stac_discovery`` and ``other_metadata`` on the root, and one group for each
pixel size below ``measurements/reflectance``. GeoZarr conversions of it keep the groups and lose the root's
attributes; then the arrays' own ``long_name`` tells. What is known to be wrong in real products is not used:
``datetime`` may be null or the text "null", and the arrays' ``proj:transform`` that of the group from which
they were resampled, so pixels lie where ``x`` and ``y`` say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, check_number
from xcloudmask.scene.sentinel2 import BASELINE
from xcloudmask.types import Level, parse_level

#: Where the groups of reflectance are, below the root of a product.
REFLECTANCE = "measurements/reflectance"
QUALITY = "quality/mask"
#: The name of an array of reflectance.
BAND = re.compile(r"b(0[1-9]|1[0-2]|8a)", re.IGNORECASE)
#: Bits of the quality masks, as CPM 2 and 3 call them: pixels that were not recorded, and saturated ones.
LOST = ("MSI_LOST", "QT_DEFECTIVE_PIXELS", "QT_NODATA_PIXELS", "DEFECTIVE_PIXEL", "NO_DATA_PIXEL")
SATURATED = ("QT_SATURATED_PIXELS_L1A", "SATURATED_PIXEL")
#: Where the baseline is stated: CPM 3 has the version of its own software in ``processing:version``.
_BASELINES = ("eopf:baseline", "eopf:datatake_id", "eopf:data_take_id", "processing:version")

#: nm by which the centres of two satellites' bands must differ in all to be told apart.
_APART = 0.5
#: Rows and columns of the pieces of a band that is one chunk in the store.
_PIECE = 2048
_NAME = re.compile(r"(S2[A-D])_MSI(L1C|L2A)_(\d{8}T\d{6})_N(\d\d)(\d\d)_R\d{3}_T\w{5}_\d{8}T\d{6}")
_LONG_NAME = re.compile(r"(TOA|BOA) reflectance from MSI acquisition at spectral band b?(\w+) ([\d.]+) nm")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a product says of itself; None where it does not."""

    name: str | None = None  # of the product, without ``.SAFE``
    sensor: str | None = None  # canonical name, such as "sentinel-2b"
    level: Level | None = None
    time: str | None = None  # ISO 8601, UTC, without a zone
    baseline: str | None = None  # of processing, "05.11"
    sun_elevation: float | None = None  # degrees: 90 less the mean zenith angle
    sun_azimuth: float | None = None  # the mean
    crs: str | None = None


def facts_of(
    attrs: Mapping[Any, Any], arrays: Iterable[Mapping[Any, Any]] = (), source: object = ""
) -> Facts | None:
    """Return what a product says of itself; None for anything that is no Sentinel-2 product of EOPF.

    It is asked in the attributes of its root, or of one of its groups, in those of its arrays of reflectance,
    and in the name of the source that it was opened from.

    Examples
    --------
    >>> swir = {"long_name": "TOA reflectance from MSI acquisition at spectral band b11 1610.4 nm"}
    >>> facts = facts_of({}, [swir, {"proj:epsg": 32632}])
    >>> facts.sensor, facts.level, facts.crs
    ('sentinel-2b', 'toa', 'EPSG:32632')
    """
    arrays = list(arrays)
    stac, other = (_mapping(attrs.get(name)) for name in ("stac_discovery", "other_metadata"))
    properties = _mapping(stac.get("properties"))
    named = _NAME.search(str(stac.get("id") or "")) or _NAME.search(str(source))
    described = [match for a in arrays if (match := _LONG_NAME.match(str(a.get("long_name", ""))))]
    if not (described or named) and not str(properties.get("product:type")).startswith("S02MSI"):
        return None
    level = (named and named[2]) or (described and described[0][1]) or said(properties, "processing:level")
    sensor = sensors.identify(said(properties, "platform")) if said(properties, "platform") else None
    if sensor is None:
        sensor = (
            sensors.identify(f"sentinel-2{named[1][-1].lower()}") if named else _by_wavelengths(described)
        )
    zenith, azimuth = (
        other.get(f"mean_sun_{angle}_angle_in_deg_for_all_bands_all_detectors")
        for angle in ("zenith", "azimuth")
    )
    stated = (re.search(r"(?:^|_N)(\d\d\.\d\d)$", said(properties, name) or "") for name in _BASELINES)
    baseline = next((match[1] for match in stated if match), None)
    stamp = named and f"{named[3][:4]}-{named[3][4:6]}-{named[3][6:11]}:{named[3][11:13]}:{named[3][13:]}"
    return Facts(
        name=named[0] if named else None,
        sensor=sensor.name if sensor else "sentinel-2",
        level=parse_level(level) if level else None,
        time=re.sub(r"(Z|\+00:00)$", "", said(properties, "datetime", "start_datetime") or "") or stamp,
        baseline=baseline or (f"{named[4]}.{named[5]}" if named else None),
        sun_elevation=None if zenith is None else 90 - float(zenith),
        sun_azimuth=None if azimuth is None else float(azimuth),
        crs=_crs(attrs, arrays, properties, other),
    )


def said(properties: Mapping[Any, Any], *names: str) -> str | None:
    """Return the first of these that says something: null, and the text "null", do not.

    Examples
    --------
    >>> said({"datetime": "null", "start_datetime": "2025-01-13T10:33:09Z"}, "datetime", "start_datetime")
    '2025-01-13T10:33:09Z'
    """
    values = (properties.get(name) for name in names)
    return next(
        (str(v) for v in values if v is not None and str(v).lower() not in ("null", "none", "")), None
    )


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _by_wavelengths(described: Iterable[re.Match[str]]) -> Any:
    """Return the satellite whose centres are nearest to those that the arrays' names state.

    Whole numbers, as CPM 3 has them, are the mission's and tell no satellite.
    """
    centres = {f"B{match[2].upper()}": float(match[3]) for match in described if "." in match[3]}

    def away(name: str) -> float:
        return sum(abs((sensors.get(name).band(band).center_nm or 0) - nm) for band, nm in centres.items())

    best, second, *_ = sorted(("sentinel-2a", "sentinel-2b", "sentinel-2c"), key=away)
    return sensors.get(best if away(second) - away(best) > _APART else "sentinel-2")


def _crs(
    attrs: Mapping[Any, Any],
    arrays: Iterable[Mapping[Any, Any]],
    properties: Mapping[Any, Any],
    other: Mapping[Any, Any],
) -> str | None:
    for place in (attrs, *arrays, properties):
        if code := said(place, "proj:code"):
            return code
        if epsg := said(place, "proj:epsg"):
            return f"EPSG:{int(float(epsg))}"
    return said(other, "horizontal_CRS_code", "horizontal_crs_code")


def describe_dataset(ds: xr.Dataset, root: Mapping[Any, Any] | None = None) -> xr.Dataset:
    """Return a dataset of a product's bands with sensor, level, CRS and time written on it.

    Any other dataset comes back as it is; what a user has described stays. `root` has the attributes of the
    product's root, where those of the dataset are not.
    """
    bands = {str(name): v for name, v in ds.data_vars.items() if BAND.fullmatch(str(name))}
    if not bands or "sensor" in ds.attrs:
        return ds
    attrs = {**(root or {}), **ds.attrs}
    facts = facts_of(attrs, [v.attrs for v in bands.values()], ds.encoding.get("source", ""))
    if facts is None:
        return ds
    # The items and lists of a product's root are no attributes that netCDF or a mask could carry on.
    kept = {key: value for key, value in ds.attrs.items() if isinstance(value, (str, int, float))}
    stated = {"sensor": facts.sensor, "level": facts.level}
    out = ds.assign({name: _with_fill(var) for name, var in bands.items()})
    out = out.drop_encoding()  # that of xarray-eopf cannot be copied, and says where things were
    out.attrs = {**kept, **{key: value for key, value in stated.items() if value}}
    coords: dict[str, Any] = {
        "item_id": facts.name,
        "sun_elevation": facts.sun_elevation,
        "sun_azimuth": facts.sun_azimuth,
        BASELINE: facts.baseline,
    }
    if facts.time:
        coords["time"] = np.datetime64(facts.time, "ns")
    for name, value in coords.items():
        if value is not None and name not in out.coords and name not in out.dims:
            # text as an object: NumPy's own fixed-length text has no place in Zarr 3
            out = out.assign_coords({name: np.array(value, object) if isinstance(value, str) else value})
    out = out.drop_vars(["spatial_ref"], errors="ignore")
    if facts.crs is None:
        return out
    import rioxarray  # noqa: F401  registers .rio

    # of an empty dataset: write_crs copies what it is called on, pixels and encoding, too
    return out.assign_coords(spatial_ref=xr.Dataset().rio.write_crs(facts.crs)["spatial_ref"])


def _with_fill(var: xr.DataArray) -> xr.DataArray:
    """Return a band that declares what fills it: CPM 3 does in an attribute that xarray does not know."""
    fill, packed = var.attrs.get("fill_value"), var.encoding.get("scale_factor")
    if fill is None or "_FillValue" in {**var.attrs, **var.encoding}:
        return var
    if packed is not None:  # xarray has scaled it
        fill = fill * packed + var.encoding.get("add_offset", 0)
    elif var.dtype.kind == "f":
        return var
    return var.assign_attrs(_FillValue=fill)


def reflectance_groups(tree: Any) -> dict[str, xr.Dataset]:
    """Return the groups of reflectance, from a product's root or that group; an error if there are none."""
    for path in (REFLECTANCE, "."):
        groups = {
            name: child.to_dataset(inherit=False)
            for name, child in _children(tree, path).items()
            if {"x", "y"} <= set(child.coords) and any(BAND.fullmatch(str(v)) for v in child.data_vars)
        }
        if groups:
            return groups
    raise CloudMaskError(
        f"the tree has no group {REFLECTANCE!r} with bands b01 to b12 over y and x; its groups:"
        f" {', '.join(list(tree.groups)[:8])}. Take the Dataset of its bands: tree['path'].to_dataset()"
    )


def _children(tree: Any, path: str) -> Mapping[str, Any]:
    try:
        children: Mapping[str, Any] = tree[path].children
    except (KeyError, AttributeError):  # no such group, or an array of that name
        return {}
    return children


def on_one_grid(tree: Any, read_at: float | None = None) -> xr.Dataset:
    """Return all bands of a product, decoded or not, on the grid of its finest group; lazy, nothing is read.

    Each is taken from its group that comes nearest to `read_at` metres and is no coarser; by default from its
    finest.
    """
    if read_at is not None:
        check_number("read_at", read_at, above=0)
    groups = reflectance_groups(tree)
    sizes = {name: step(group) for name, group in groups.items()}
    finest = min(groups, key=lambda name: sizes[name])
    wanted = max(read_at or 0.0, sizes[finest])
    chosen: dict[str, xr.DataArray] = {}
    for name in sorted(groups, key=lambda name: nearness(sizes[name], wanted)):
        for band, var in groups[name].data_vars.items():
            if BAND.fullmatch(str(band)):
                chosen.setdefault(str(band).lower(), var)
    base = groups[finest]
    merged = {band: _at(chosen[band], base) for band in sorted(chosen)}
    out = xr.Dataset(merged, coords={"y": base["y"], "x": base["x"]}, attrs=base.attrs)
    out.encoding = dict(base.encoding)
    return describe_dataset(out, {**dict(tree.attrs), **base.attrs})


def quality(tree: Any, like: xr.Dataset | xr.DataArray) -> xr.Dataset:
    """Return where pixels of a grid are valid, and saturated, by the product's own quality masks; lazy."""
    groups = [child.to_dataset(inherit=False) for child in _children(tree, QUALITY).values()]
    masks: dict[str, xr.DataArray] = {}
    for group in sorted((group for group in groups if {"x", "y"} <= set(group.coords)), key=step):
        for name, mask in group.data_vars.items():
            if BAND.fullmatch(str(name)):
                masks.setdefault(str(name).lower(), mask)
    if not masks:
        raise CloudMaskError(f"the tree has no group {QUALITY!r}: open the product from its root")

    if not any(_bits(mask, LOST) for mask in masks.values()):
        raise CloudMaskError(
            f"the masks of {QUALITY!r} have no bit for {' or '.join(LOST)} (flag_meanings, flag_masks), so "
            "what is lost would count as valid",
            "Open the product so that its attributes stay, or leave valid= out",
        )

    def marked(words: tuple[str, ...]) -> xr.DataArray:
        flags = [_any(mask, _bits(mask, words), like) for mask in masks.values()]
        return xr.concat(flags, dim=xr.Variable("band", list(masks)), coords="minimal", compat="override")

    return xr.Dataset({"valid": ~marked(LOST).any("band"), "saturated": marked(SATURATED)})


def _any(mask: xr.DataArray, bits: int, like: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return where a pixel of `like` holds one that has any of the bits."""
    times = round(step(like) / step(mask))
    flags = (_at(mask, mask).astype("uint8") & bits) > 0
    if times > 1:
        flags = flags.coarsen({"y": times, "x": times}, boundary="trim").max()
    return _at(flags, like)


def _bits(mask: xr.DataArray, words: tuple[str, ...]) -> int:
    """Return the bits that have these meanings, as the array's own attributes tell."""
    meanings = mask.attrs.get("flag_meanings", ())
    meanings = meanings.split() if isinstance(meanings, str) else meanings
    flags = zip(meanings, np.atleast_1d(mask.attrs.get("flag_masks", ())), strict=False)
    return sum(int(bit) for meaning, bit in flags if meaning.upper() in words)


def step(ds: Any) -> float:
    """Return the pixel size of a group, as its x tells."""
    x = ds["x"].values
    return abs(float(x[-1]) - float(x[0])) / (len(x) - 1) if len(x) > 1 else math.inf


def nearness(size: float, wanted: float) -> tuple[bool, float]:
    """Return what orders pixel sizes: those no coarser than wanted first, then the nearest.

    Examples
    --------
    >>> sorted([10, 20, 60, 120], key=lambda size: nearness(size, 30))
    [20, 10, 60, 120]
    """
    return size > wanted * 1.01, abs(math.log(size / wanted))


def _at(var: xr.DataArray, base: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Return a band on another grid, each pixel its nearest; always lazy."""
    own = var.chunks is not None  # the caller's
    var = _with_fill(var)
    if not own:
        chunks = var.encoding.get("preferred_chunks") or {"y": _PIECE, "x": _PIECE}
        var = var.chunk({dim: chunks.get(dim, -1) for dim in var.dims})
    if var.dtype == np.float64:  # what decoding makes of 16 bits
        var = var.astype(np.float32)
    if not own and max(max(sizes) for sizes in var.chunks or ((0,),)) > 2 * _PIECE:
        var = var.chunk({"y": _PIECE, "x": _PIECE})  # decoded whole, once, and masked in pieces
    for dim in ("y", "x"):
        have, want = (np.asarray(each[dim].values, "float64") for each in (var, base))
        times = len(want) // len(have)
        near = 1e-3 * abs(want[-1] - want[0]) / max(len(want) - 1, 1)  # of a pixel
        nested = times > 0 and len(want) == times * len(have)
        if nested and np.allclose(want.reshape(-1, times).mean(1), have, rtol=0, atol=near):
            if times > 1:
                data = _repeated(var.data, times, var.get_axis_num(dim))
                coords = {name: c for name, c in var.coords.items() if dim not in c.dims}
                var = xr.DataArray(data, coords, var.dims, var.name, var.attrs)
        else:
            span = (have[-1] - have[0]) or 1.0
            place = np.rint((want - have[0]) / span * (len(have) - 1)).astype(int)
            var = var.isel({dim: np.clip(place, 0, len(have) - 1)})
    placed: xr.DataArray = var.drop_vars(["y", "x"], errors="ignore").assign_coords(y=base["y"], x=base["x"])
    return placed


def _repeated(data: Any, times: int, axis: int) -> Any:
    chunks = list(data.chunks)
    chunks[axis] = tuple(size * times for size in chunks[axis])
    return data.map_blocks(np.repeat, times, axis=axis, chunks=tuple(chunks), dtype=data.dtype)
