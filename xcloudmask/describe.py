"""Write on a DataArray what its bands, its times and its pixels are: the one form that all loaders give.

Dims are ``time, band, y, x``. Nothing here is None, a dict or a list, so the result can be written to Zarr
and netCDF: text that is missing is ``""``, a number that is missing is NaN, a date that is missing is NaT.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xcloudmask.types import Band, Level

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
    found = [str(value) for value in values]
    out = np.empty(len(found), dtype=object)
    out[:] = found
    return out


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


def describe_bands(da: xr.DataArray, bands: Sequence[Band]) -> xr.DataArray:
    """Return `da` with its band dimension labelled and described.

    Parameters
    ----------
    da : DataArray
        With a dimension ``band``.
    bands : sequence of Band
        One for each position, in order.

    Returns
    -------
    DataArray
        The same data. Along ``band``: labels as `band_labels` gives them; common_name, band_name,
        center_wavelength and full_width_half_max (µm), min_nm, max_nm, gsd (m), kind.

    Examples
    --------
    >>> import xarray as xr
    >>> da = describe_bands(xr.DataArray([[0.1]], dims=("band", "x")), [Band("B4", "red", 630, 660, 690, 30)])
    >>> da.center_wavelength.item(), da.band.item()
    (0.66, 'red')
    """
    if da.sizes.get("band") != len(bands):
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
    coords: dict[str, Any] = {name: ("band", columns[name]) for name in BAND_COORDS}
    return da.assign_coords({"band": texts(band_labels(bands)), **coords})


def describe_times(
    da: xr.DataArray, times: Sequence[Any], item_ids: Sequence[str], sensors: Sequence[str]
) -> xr.DataArray:
    """Return `da` with its time dimension labelled: time (UTC), item_id and sensor.

    Parameters
    ----------
    da : DataArray
        With a dimension ``time``.
    times : sequence
        What NumPy turns into datetime64 (naive, UTC); ``"NaT"`` where it is not known.
    item_ids, sensors : sequence of str
        One for each time.

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

    Parameters
    ----------
    da : DataArray
        With dimensions ``y`` and ``x`` and their coordinates (pixel centres).
    levels : sequence of {"toa", "boa", None}
    sensors : sequence of str
    crs : anything that rioxarray takes

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
