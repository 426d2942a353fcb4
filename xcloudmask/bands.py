"""Which bands an array has, and which of them a model's inputs are."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from xcloudmask import sensors
from xcloudmask.errors import BandError, UnitError
from xcloudmask.types import Band, ModelSpec

#: Names in use for the same input, the better one first.
EQUIVALENT = {
    "nir": ("nir", "nir08"),
    "nir08": ("nir08", "nir"),
    "swir16": ("swir16", "swir1"),
    "swir22": ("swir22", "swir2"),
}
COMMON = ("coastal", "blue", "green", "red", "nir", "nir08", "swir16", "swir22", "swir1", "swir2", "cirrus")
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


def read_bands(da: xr.DataArray, dim: str) -> tuple[Band, ...]:
    """Return what is known of each band of `da`: from its coordinates, else its sensor, else its label."""
    labels = [str(v) for v in da[dim].values] if dim in da.coords else [str(i) for i in range(da.sizes[dim])]
    sensor = da.attrs.get("sensor")
    known: Sequence[Band | None] = [None] * len(labels)
    if sensor and "center_wavelength" not in da.coords:
        known = sensors.match(labels, sensors.get(sensor))

    def column(name: str) -> list[object]:
        coord = da.coords.get(name)
        if coord is None or coord.dims != (dim,):
            return [None] * len(labels)
        return [None if value != value or value in ("", "None") else value for value in coord.values.tolist()]

    names, centres = column("common_name"), column("center_wavelength")
    out = []
    for label, found, name, centre in zip(labels, known, names, centres, strict=True):
        nm = None if centre is None else float(str(centre)) * 1000
        if nm is not None and nm > 50_000:
            raise UnitError(
                f"band {label!r} has center_wavelength={centre}: expected µm (0.665 for red), as STAC gives it, "
                f"found what looks like nm; divide by 1000, or use describe(sensor=...)"
            )
        if found is not None:
            out.append(found)
            continue
        common = str(name) if name is not None else label.lower() if label.lower() in COMMON else None
        out.append(Band(label, common, center_nm=nm))
    return tuple(out)


def match_bands(bands: Sequence[Band], spec: ModelSpec) -> tuple[int, ...]:
    """Return where each input of `spec` is among `bands`; a BandError says what is missing."""
    found: list[int] = []
    missing = []
    for need in spec.bands:
        at = _find(bands, need)
        if at is None:
            missing.append(need)
        else:
            found.append(at)
    if missing:
        raise BandError(
            f"model {spec.name!r} needs {', '.join(spec.bands)}; missing: {', '.join(missing)}. "
            f"The array has {', '.join(b.common_name or b.name for b in bands) or 'no bands'}. Name them with "
            "describe(sensor=...) or describe(bands=[...])"
        )
    return tuple(found)


def _find(bands: Sequence[Band], need: str) -> int | None:
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
