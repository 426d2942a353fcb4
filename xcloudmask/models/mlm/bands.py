"""Which bands an MLM item means: names, objects or free text, of which STAC common names are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from xcloudmask.errors import BandError, WeightsError
from xcloudmask.sensors import COMMON_NAMES

#: Wavelengths (nm) by which a band of unknown name is known: from, to.
RANGES = {
    "coastal": (425, 450), "blue": (450, 525), "green": (525, 600), "red": (600, 690), "nir": (760, 900),
    "cirrus": (1360, 1390), "swir16": (1550, 1750), "swir22": (2080, 2350),
}  # fmt: skip


def common_names(
    source: Mapping[str, Any], body: Mapping[str, Any], asset: Mapping[str, Any], href: str
) -> tuple[str, ...]:
    """Return the common names of an input's bands; none if it lists none."""
    known = {str(band.get("name")): band for band in _described(body, asset)}
    found = []
    for band in source.get("bands") or ():
        if isinstance(band, Mapping) and band.get("expression") is not None:
            raise WeightsError(
                f"{href}: its input {band.get('name')!r} is computed by the expression "
                f"{band['expression']!r}, which is not evaluated: export the network with that step inside"
            )
        name = str(band.get("name") if isinstance(band, Mapping) else band)
        common = _common(name, known.get(name, {}))
        if common is None:
            raise BandError(
                f"{href}: nothing tells which band {name!r} is; pass bands=[...], the common names of its "
                "inputs in order, such as 'red', 'nir'"
            )
        found.append(common)
    if len(set(found)) != len(found):
        raise BandError(f"{href}: its inputs {', '.join(found)} repeat; pass bands=[...], each once")
    return tuple(found)


def _described(body: Mapping[str, Any], asset: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    places = (body["properties"], asset, *(body.get("assets") or {}).values())
    for place in places:
        for key in ("bands", "eo:bands", "raster:bands"):
            yield from (band for band in place.get(key) or () if isinstance(band, Mapping))


def _common(name: str, described: Mapping[str, Any]) -> str | None:
    """Return the common name: the one that is stated, else by wavelength, else by the words of its name."""
    stated = described.get("eo:common_name") or described.get("common_name")
    if stated in COMMON_NAMES:
        return str(stated)
    if name.lower() in COMMON_NAMES:
        return name.lower()
    micrometres = described.get("eo:center_wavelength") or described.get("center_wavelength")
    written = re.search(r"(\d{3,4})\s*nm", name)
    nm = float(micrometres) * 1000 if micrometres else float(written[1]) if written else None
    if nm is not None:
        return next((common for common, (low, high) in RANGES.items() if low <= nm < high), None)
    words = re.findall(r"[a-z]+", name.lower())
    if {"near", "infrared"} <= set(words):
        return "nir"
    return next((word for word in words if word in ("blue", "green", "red", "nir")), None)
