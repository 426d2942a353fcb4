"""What an MLM item says of its input: which bands (names, objects, free text), and how they are scaled."""

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


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one.

    Examples
    --------
    >>> mapping("text")
    {}
    """
    return value if isinstance(value, Mapping) else {}


def scaling(
    source: Mapping[str, Any], bands: int, href: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and deviation in the network's units, from the item's scaling of either generation."""
    steps: Any = source.get("value_scaling")
    if steps is None and source.get("norm_type"):
        kind, numbers = source["norm_type"], source.get("statistics") or ()
        steps = [{"type": kind, **mapping(one)} for one in numbers]
        if not steps:
            raise WeightsError(f"{href}: its norm_type is {kind!r} without statistics: pass mean= and std=")
    if source.get("norm_clip"):
        raise WeightsError(f"{href} clips its input (norm_clip): export the network with that step inside")
    if not steps:
        return None, None
    if not isinstance(steps, list) or len(steps) not in (1, bands):
        raise WeightsError(f"{href}: its scaling is not one for all of its {bands} bands, nor one for each")
    pairs = [_affine(mapping(step), href) for step in steps]
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _affine(step: Mapping[str, Any], href: str) -> tuple[float, float]:
    """Return (a, b) of the scaling (value - a) / b."""
    kind = step.get("type")
    kind = str(kind) if kind is not None else None
    wanted = {
        "min-max": ("minimum", "maximum"), "z-score": ("mean", "stddev"), "offset": ("value",),
        "scale": ("value",), None: (),
    }.get(kind)  # fmt: skip
    if wanted is None:
        raise WeightsError(
            f"{href}: its scaling {kind!r} is not min-max, z-score, offset or scale: export the network with "
            "that step inside"
        )
    numbers = [step.get(name) for name in wanted]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise WeightsError(f"{href}: its scaling {kind!r} lacks {' or '.join(wanted)}")
    values = [float(str(number)) for number in numbers]
    first, second = {"offset": (*values, 1.0), "scale": (0.0, *values), None: (0.0, 1.0)}.get(kind, values)
    if kind == "min-max":
        second -= first
    if not second > 0:
        raise WeightsError(f"{href}: its scaling {kind!r} divides by {second:g}")
    return first, second
