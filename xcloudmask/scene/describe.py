"""Write on a DataArray what its bands, its times and its pixels are: the one form that all loaders give.

Dims are ``time, band, y, x``. Nothing here is None, a dict or a list, so the result can be written to Zarr
and netCDF: text that is missing is ``""``, a number that is missing is NaN, a date that is missing is NaT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xcloudmask.errors import BandError, CloudMaskError, Remedy, Use
from xcloudmask.types import Band, Level, parse_level

if TYPE_CHECKING:
    import xarray as xr

#: Coordinates along `band`, in this order.
BAND_COORDS = (
    "common_name", "band_name", "center_wavelength", "full_width_half_max", "min_nm", "max_nm", "gsd", "kind",
)  # fmt: skip


def texts(values: Iterable[str]) -> Any:
    """Return strings as an array of str objects: what Zarr 2, Zarr 3 and netCDF write without a complaint.

    NumPy's own fixed-length text has no place in Zarr 3's specification, and zarr warns of it.

    Examples
    --------
    >>> texts(["red", "nir"]).tolist()
    ['red', 'nir']
    """
    return np.array([str(value) for value in values], dtype=object)


def band_labels(bands: Sequence[Band]) -> list[str]:
    """Return the labels of the band dimension: common names, the sensor's name where none or not unique.

    Examples
    --------
    >>> band_labels([Band("B04", "red"), Band("B05", "rededge"), Band("B06", "rededge"), Band("B6H")])
    ['red', 'B05', 'B06', 'B6H']
    """
    often = Counter(band.common_name for band in bands)
    return [
        band.common_name if band.common_name and often[band.common_name] == 1 else band.name for band in bands
    ]


def describe_bands(
    da: xr.DataArray, bands: Sequence[Band], *, dim: str = "band", labels: Sequence[str] | None = None
) -> xr.DataArray:
    """Return `da` with its band dimension labelled, by default as `band_labels` does, and described.

    Along it lie common_name, band_name, center_wavelength and full_width_half_max (µm), min_nm, max_nm, gsd
    (m) and kind of the bands, one for each position.

    Examples
    --------
    >>> import xarray as xr
    >>> da = describe_bands(xr.DataArray([[0.1]], dims=("band", "x")), [Band("B4", "red", 630, 660, 690, 30)])
    >>> da.center_wavelength.item(), da.band.item()
    (0.66, 'red')
    """
    if da.sizes.get(dim) != len(bands):
        raise ValueError(f"{len(bands)} bands were given for dimensions {dict(da.sizes)}: one is needed each")

    def numbers(values: Sequence[float | None]) -> Any:
        return np.array([np.nan if value is None else value for value in values], dtype="float64")

    low, high = numbers([b.min_nm for b in bands]), numbers([b.max_nm for b in bands])
    columns = {
        "common_name": texts(b.common_name or "" for b in bands),
        "band_name": texts(b.name for b in bands),
        "center_wavelength": numbers([b.center_nm for b in bands]) / 1000,
        "full_width_half_max": (high - low) / 1000,
        "min_nm": low,
        "max_nm": high,
        "gsd": numbers([b.gsd for b in bands]),
        "kind": texts(b.kind for b in bands),
    }
    coords: dict[str, Any] = {name: (dim, columns[name]) for name in BAND_COORDS}
    return da.assign_coords({dim: (dim, texts(band_labels(bands) if labels is None else labels)), **coords})


def describe_times(
    da: xr.DataArray, times: Sequence[Any], item_ids: Sequence[str], sensors: Sequence[str]
) -> xr.DataArray:
    """Return `da` with its time dimension labelled: time (UTC), item_id and sensor.

    Times are what NumPy turns into datetime64 (naive, UTC), ``"NaT"`` where one is not known.

    Examples
    --------
    >>> import xarray as xr
    >>> da = xr.DataArray([0.0], dims="time")
    >>> describe_times(da, ["2020-01-02T10:00"], ["scene-1"], ["landsat-8"]).item_id.item()
    'scene-1'
    """
    return da.assign_coords(
        time=np.array([np.datetime64(time) for time in times], dtype="datetime64[ns]"),
        item_id=("time", texts(item_ids)),
        sensor=("time", texts(sensors)),
    )


def describe_scene(
    da: xr.DataArray, *, levels: Sequence[Level | None], sensors: Sequence[str], crs: Any
) -> xr.DataArray:
    """Return `da` with the attributes ``level`` and ``sensor`` and the coordinate ``spatial_ref``.

    An attribute is left out where the scenes differ or nobody told; ``da.rio.crs`` works afterwards.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.zeros((1, 1)), dims=("y", "x"), coords={"y": [5.0], "x": [5.0]})
    >>> da = describe_scene(da, levels=["toa"], sensors=["landsat-8"], crs="EPSG:32632")
    >>> da.attrs["level"], da.rio.crs.to_epsg()
    ('toa', 32632)
    """
    import rioxarray  # noqa: F401  (registers .rio)

    attrs: dict[str, str] = {}
    for name, values in (("level", set(levels)), ("sensor", set(sensors))):
        if len(values) == 1 and (value := values.pop()) is not None:
            attrs[name] = str(value)
    described: xr.DataArray = da.assign_attrs(attrs).rio.write_crs(crs)
    return described


def describe(
    da: xr.DataArray,
    sensor: str | None = None,
    *,
    bands: Sequence[str | Band] | None = None,
    level: str | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    nodata: float | None = None,
) -> xr.DataArray:
    """Do what `xcloudmask.accessor.DataArrayAccessor.describe` documents."""
    from xcloudmask import sensors
    from xcloudmask.scene.bands import labels_of, name_bands, sensor_of
    from xcloudmask.scene.dims import band_dim
    from xcloudmask.scene.sentinel2 import warn_of_no_offset
    from xcloudmask.scene.units import NODATA_ATTRS, check_figures

    dim = band_dim(da)
    count = da.sizes[dim]
    known = sensor_of(da) if sensor is None else sensors.get(sensor)
    out = da.copy(deep=False)
    if bands is not None:
        if isinstance(bands, str) or not isinstance(bands, Sequence) or len(bands) != count or None in bands:
            raise CloudMaskError(
                f" must name every band: the array has {count}"
                + (f" ({', '.join(labels_of(da, dim))})" if dim in da.coords else ""),
                option=Use(bands=bands),
            )
        named = name_bands(bands, known)
        _check_none_twice(bands, named)
        out = describe_bands(out, named, dim=dim)
    elif sensor is not None and known is not None:
        labels = labels_of(da, dim)
        named = name_bands(labels, known)
        if not any(band in known.bands for band in named):
            raise BandError(
                f"none of the labels {', '.join(labels)} is a band of {known.name} "
                f"({', '.join(band.name for band in known.bands)}); say which they are",
                Remedy("with {}, in order", Use("describe", sensor=..., bands=[...])),
            )
        out = describe_bands(out, named, dim=dim, labels=labels)
    if known is not None:
        out.attrs["sensor"] = known.name
    if level is not None:
        out.attrs["level"] = parse_level(level)
    if nodata is not None:
        for name in NODATA_ATTRS:  # what was said just now replaces them
            out.attrs.pop(name, None)
        out.attrs["nodata"] = nodata
    if scale is None and offset is None:
        return out
    said_before = "offset" in out.coords or "add_offset" in out.attrs
    if offset is None and not said_before and known is not None and known.name.startswith("sentinel-2"):
        warn_of_no_offset(out)
    # The one of the two that is not said now stays as it was said before.
    if scale is None:
        scale = out.coords.get("scale", out.attrs.get("scale_factor", 1.0))
    if offset is None:
        offset = out.coords.get("offset", out.attrs.get("add_offset", 0.0))
    figures = {"scale": scale, "offset": offset}
    full = {name: _one_each(name, value, count) for name, value in figures.items()}
    check_figures(full["scale"], full["offset"])
    out = out.assign_coords({name: (dim, values) for name, values in full.items()})
    for name in ("scale_factor", "add_offset"):  # what was said just now replaces them
        out.attrs.pop(name, None)
    return out


def _check_none_twice(given: Sequence[str | Band], bands: Sequence[Band]) -> None:
    """Refuse bands of one name: nothing could tell which of them a model is to be given."""
    names = Counter(band.name.casefold() for band in bands)
    if again := next((band for band in bands if names[band.name.casefold()] > 1), None):
        raise BandError(
            f" names {again.name!r} {'twice' if names[again.name.casefold()] == 2 else 'several times'}:",
            "give each band a name of its own, in order; those of no use to a model any, such as 'other1'",
            option=Use(bands=[band.name if isinstance(band, Band) else band for band in given]),
        )


def _one_each(name: str, value: Any, count: int) -> Any:
    """Return a figure for each of `count` bands."""
    try:
        figures = np.asarray(value, float)
    except (TypeError, ValueError):
        raise CloudMaskError(f"{name}={value!r} must be a number, or one a band") from None
    if figures.shape not in ((), (count,)):
        raise CloudMaskError(
            f"{name} has {figures.size} figures, the array {count} bands: give one, or one each"
        )
    return np.broadcast_to(figures, (count,)).copy()
