"""Which bands an array has, and which of them a model's inputs are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import xarray as xr

from xcloudmask import sensors
from xcloudmask.errors import BandError, OptionError, Remedy, UnitError, UnitWarning, Use, warn_user
from xcloudmask.scene.dims import coordinate
from xcloudmask.types import KINDS, Band, ModelSpec, Sensor

_SENSOR, _BANDS = Use("describe", sensor=...), Use("describe", bands=[...])

#: What `load_stac` notes for a platform that no sensor is known for.
UNKNOWN = "unknown"
#: Names in use for the same input, the better one first.
EQUIVALENT = {
    "nir": ("nir", "nir08"),
    "nir08": ("nir08", "nir"),
    "swir16": ("swir16", "swir1"),
    "swir22": ("swir22", "swir2"),
}
COMMON = (
    "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
    "swir16", "swir22", "swir1", "swir2", "cirrus",
)  # fmt: skip
#: Centre wavelengths (nm) that serve an input: from, to, and the best.
RANGES = {
    "blue": (450.0, 525.0, 485.0),
    "green": (525.0, 600.0, 560.0),
    "red": (600.0, 690.0, 660.0),
    "nir": (760.0, 900.0, 850.0),
    "nir08": (760.0, 900.0, 860.0),
    "swir16": (1550.0, 1750.0, 1610.0),
    "swir22": (2080.0, 2350.0, 2200.0),
}
#: Edges (nm) of a band of which only the common name is known: those of Sentinel-2 and Landsat 8, roughly.
TYPICAL = {
    "coastal": (433.0, 453.0),
    "blue": (455.0, 520.0),
    "green": (540.0, 580.0),
    "red": (645.0, 682.0),
    "rededge071": (697.0, 712.0),
    "rededge075": (733.0, 748.0),
    "rededge078": (773.0, 793.0),
    "nir": (780.0, 890.0),
    "nir08": (850.0, 880.0),
    "nir09": (935.0, 955.0),
    "cirrus": (1360.0, 1390.0),
    "swir16": (1565.0, 1655.0),
    "swir1": (1565.0, 1655.0),
    "swir22": (2105.0, 2290.0),
    "swir2": (2105.0, 2290.0),
}
#: What coordinates or attributes may tell of a band, and what stands for nothing told.
COLUMNS = {
    "common_name": "", "center_wavelength": math.nan, "full_width_half_max": math.nan, "min_nm": math.nan,
    "max_nm": math.nan, "gsd": math.nan, "kind": "",
}  # fmt: skip
#: Wavelengths of optical and thermal bands, in nm. Beyond them, the unit is another one.
SHORTEST, LONGEST = 100.0, 50_000.0


def sensor_of(da: xr.DataArray | xr.Dataset) -> Sensor | None:
    """Return the sensor that the data names, in its attributes or as one for all times."""
    name = da.attrs.get("sensor")
    if name is not None and not isinstance(name, str):
        raise OptionError("sensor in the attributes", name, allowed=sensors.names())
    if not name and "sensor" in da.coords:
        names = {str(value) for value in coordinate(da["sensor"]).reshape(-1)}
        name = names.pop() if len(names) == 1 else None
    if not name or name == UNKNOWN or "+" in name:  # a mosaic of several
        return None
    return sensors.get(name)


def name_bands(names: Sequence[str | Band], sensor: Sensor | None) -> list[Band]:
    """Turn names, as a user gives them, into bands: the sensor's where it has them."""
    matches: Sequence[Band | None] = [None] * len(names)
    if sensor is not None:
        matches = sensors.match([n.name if isinstance(n, Band) else str(n) for n in names], sensor)
    out = []
    for name, band in zip(names, matches, strict=True):
        if isinstance(name, Band):
            out.append(name)
        elif band is not None:
            out.append(band)
        else:
            common = common_name(str(name))
            out.append(Band(str(name), common))
            known = [*COMMON, *(band.name for band in sensor.bands)] if sensor else COMMON
            near = get_close_matches(str(name).lower(), known, n=1, cutoff=0.75)
            if near and common is None:
                text = f"band {str(name)!r} is none that is known by that name; did you mean {near[0]!r}?"
                warn_user(text, UnitWarning)
    return out


def common_name(label: str) -> str | None:
    """Return the label as a common name if it is one."""
    return label.lower() if label.lower() in COMMON else None


def labels_of(da: xr.DataArray, dim: str) -> list[str]:
    """Return the labels of the band dimension: what its bands are described as, or their positions.

    rioxarray counts a file's bands and keeps their descriptions in ``long_name``; a counter says nothing.
    """
    count = da.sizes[dim]
    labels = [str(v) for v in coordinate(da[dim])] if dim in da.coords else [str(i) for i in range(count)]
    long_name = da.attrs.get("long_name")
    texts = [long_name] if isinstance(long_name, str) and count == 1 else long_name
    if not isinstance(texts, list | tuple) or len(texts) != count or not all(map(sensors.is_counter, labels)):
        return labels
    return [str(text) or label for text, label in zip(texts, labels, strict=True)]


def read_bands(da: xr.DataArray, dim: str) -> tuple[Band, ...]:
    """Return what is known of each band of `da`: from its coordinates, else its sensor, else its label."""
    labels = labels_of(da, dim)
    columns = {name: _column(da, dim, name) for name in COLUMNS}
    described = [any(column[i] is not None for column in columns.values()) for i in range(len(labels))]
    sensor = sensor_of(da)
    known: Sequence[Band | None] = [None] * len(labels)
    if sensor is not None:
        try:
            known = sensors.match(labels, sensor)
        except BandError:  # labels that may mean several bands do no harm where coordinates tell
            if not all(described):
                raise
        for label, band, name in zip(labels, known, columns["common_name"], strict=True):
            if name is not None and band is not None:
                _check_same_colour(label, str(name), band)
        if all(described):
            known = [None] * len(labels)
    out = []
    for i, label in enumerate(labels):
        own = {name: column[i] for name, column in columns.items()}
        out.append(_band(label, own, known[i], _wavelength_label(da, dim, i)))
    return tuple(out)


def _column(da: xr.DataArray, dim: str, name: str) -> list[Any]:
    """Return a coordinate along the bands, None where it says nothing."""
    coord = da.coords.get(name)
    if coord is None or coord.dims not in ((dim,), ()):
        return [None] * da.sizes[dim]
    values = coordinate(coord).reshape(-1).tolist() * (da.sizes[dim] if coord.dims == () else 1)
    return [None if value is None or value != value or value in ("", "None") else value for value in values]


def _wavelength_label(da: xr.DataArray, dim: str, i: int) -> float | None:
    """Return the wavelength in nm where the band dimension itself is one."""
    if dim != "wavelength" or dim not in da.coords or da[dim].dtype.kind not in "fiu":
        return None
    value = float(coordinate(da[dim])[i])
    return value * 1000 if value < SHORTEST else value


def _band(label: str, own: dict[str, Any], known: Band | None, nm: float | None) -> Band:
    """Put together what is known of one band: its own coordinates go before the sensor's figures."""
    centre = own["center_wavelength"]
    if centre is not None:
        nm = float(centre) * 1000
        _check_wavelength(label, "center_wavelength", centre, nm, "µm (0.665 for red), as STAC gives it")
    edges: dict[str, float | None] = {"min_nm": None, "max_nm": None}
    for name in edges:
        if own[name] is not None:
            edges[name] = float(own[name])
            _check_wavelength(label, name, own[name], float(own[name]), "nm (650 for red)")
    width = own["full_width_half_max"]
    if nm is not None and width is not None and edges["min_nm"] is None:
        edges = {"min_nm": nm - float(width) * 500, "max_nm": nm + float(width) * 500}
    name = own["common_name"]
    band = known or Band(label)
    low, high = edges["min_nm"] or band.min_nm, edges["max_nm"] or band.max_nm
    centre_nm = nm if nm is not None else band.center_nm
    if centre_nm is None and low is not None and high is not None:
        centre_nm = (low + high) / 2
    return replace(
        band,
        common_name=str(name) if name is not None else band.common_name or common_name(label),
        min_nm=low,
        center_nm=centre_nm,
        max_nm=high,
        gsd=float(own["gsd"]) if isinstance(own["gsd"], (int, float)) else band.gsd,
        kind=own["kind"] if own["kind"] in KINDS else band.kind,
    )


def _check_same_colour(label: str, name: str, band: Band) -> None:
    """Refuse a common name of another colour than the band's; nir is no other than nir08."""
    if band.common_name is None or {name, band.common_name} - set(COMMON):
        return
    colours = {
        re.sub(r"\d+$", "", re.sub(r"swir([12]).?$", r"swir-\1-", n)) for n in (name, band.common_name)
    }
    if len(colours) > 1:
        raise BandError(
            f"the band labelled {label!r} is called {name!r} by its coordinate common_name, and by its label "
            f"it is the sensor's band {band.name}, {band.common_name}:",
            Remedy("say which with {}", Use("describe", bands=[...])),
        )


def _check_wavelength(label: str, name: str, value: object, nm: float, expected: str) -> None:
    if not SHORTEST <= nm <= LONGEST:
        unit = "nm" if nm > LONGEST else "µm"
        raise UnitError(
            f"band {label!r} has {name}={value}: expected {expected}, found what looks like {unit}; "
            f"convert the coordinate {name!r},",
            Remedy("or use {}", _SENSOR),
        )


def match_bands(bands: Sequence[Band], spec: ModelSpec) -> tuple[int, ...]:
    """Return where each input of `spec` is among `bands`; a BandError says what is missing."""
    places = [find_band(bands, need) for need in spec.bands]
    missing = missing_bands(bands, spec)
    if missing:
        have = ", ".join(b.common_name or b.name for b in bands) or "no bands"
        raise BandError(
            f"model {spec.name!r} needs {spec.needs}; missing: {', '.join(missing)}. The array has {have}",
            Remedy("Name its bands with {} or {}", _SENSOR, _BANDS),
        )
    return tuple(place for place in places if place is not None)


def choose_bands(bands: Sequence[Band], spec: ModelSpec) -> tuple[tuple[int, ...], tuple[Band, ...]]:
    """Return which bands a model is given and, where it takes any, what it is told of them.

    A model for any bands gets them by rising wavelength, so their order in the array never matters. One that
    fills in what is missing gets those of its bands that are there, in its own order.
    """
    if not spec.any_bands:
        places, absent = match_bands(bands, spec), lacking(bands, spec)
        given = [need for need in spec.bands if need not in absent]
        return places, tuple(Band(need, need) for need in given) if absent else ()
    usable = sorted(
        ((i, band) for i, old in enumerate(bands) if (band := with_edges(old)) is not None),
        key=lambda pair: (pair[1].center_nm or 0.0, pair[1].min_nm or 0.0, pair[1].name),
    )
    if len(usable) < spec.min_bands:
        have = ", ".join(b.common_name or b.name for b in bands) or "no bands"
        raise BandError(
            f"model {spec.name!r} needs {spec.needs}; the array has {len(usable)} ({have})",
            Remedy("Say what they are with {} or {}", _SENSOR, _BANDS),
        )
    return tuple(i for i, _ in usable), tuple(band for _, band in usable)


def with_edges(band: Band) -> Band | None:
    """Return a reflectance band with its wavelengths, typical ones if only its name is known; else None."""
    if band.kind != "reflectance":
        return None
    low, high = band.min_nm, band.max_nm
    if low is None or high is None:
        if band.center_nm is not None:
            low, high = band.center_nm * 0.97, band.center_nm * 1.03
        elif band.common_name in TYPICAL:
            low, high = TYPICAL[band.common_name]
        else:
            return None
    return replace(band, min_nm=low, center_nm=band.center_nm or (low + high) / 2, max_nm=high)


def lacking(bands: Sequence[Band], spec: ModelSpec) -> list[str]:
    """Return those of the bands that `spec` names which none of `bands` serves, needed or not."""
    return [need for need in spec.bands if find_band(bands, need) is None]


def missing_bands(bands: Sequence[Band], spec: ModelSpec) -> list[str]:
    """Return what `spec` cannot do without, and none of `bands` serves."""
    if spec.any_bands:
        short = spec.min_bands - sum(with_edges(band) is not None for band in bands)
        return [f"{short} more band{'s' * (short > 1)} of known wavelength"] if short > 0 else []
    missing = lacking(bands, spec)
    short = spec.min_bands - len(spec.bands) + len(missing)
    if spec.fills:
        return [f"{short} more of {', '.join(missing)}"] if short > 0 else []
    return missing


def find_band(bands: Sequence[Band], need: str) -> int | None:
    """Return which of `bands` serves as the one called `need`: by its name, else by its wavelength."""
    for name in EQUIVALENT.get(need, (need,)):
        hits = [i for i, band in enumerate(bands) if band.common_name == name]
        if len(hits) > 1:
            raise BandError(
                f"bands {', '.join(bands[i].name for i in hits)} are all called {name!r}; select one of them"
            )
        if hits:
            return hits[0]
    if need not in RANGES:
        return None
    low, high, best = RANGES[need]
    near = [
        (abs(band.center_nm - best), i)
        for i, band in enumerate(bands)
        if band.common_name is None and band.center_nm is not None and low <= band.center_nm <= high
    ]
    return min(near)[1] if near else None
