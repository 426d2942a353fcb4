"""From the text of one TOML file to one sensor, or to a message that names file, band and field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.sensors._match import band_key
from xcloudmask.types import Band, Sensor

#: STAC's common names (eo extension 2.0).
COMMON_NAMES = (  # noqa: SIM905
    "coastal blue green green05 yellow red rededge rededge071 rededge075 rededge078 "
    "nir nir08 nir09 cirrus swir16 swir22 lwir lwir11 lwir12 pan"
).split()

_TEXT, _TEXTS, _NUMBER, _NUMBERS = "text", "a list of texts", "a number", "a list of numbers"
_SENSOR_FIELDS = {
    **dict.fromkeys(("name", "title", "source", "note"), _TEXT),
    **dict.fromkeys(("scale", "offset", "nodata", "edges"), _NUMBER),
    **dict.fromkeys(("fill", "fill_reflectance"), _NUMBERS),
    **dict.fromkeys(("aliases", "platforms", "instruments", "constellations"), _TEXTS),
    "bands": "a list of [[bands]] tables",
}
_BAND_FIELDS = {
    **dict.fromkeys(("name", "common_name", "kind"), _TEXT),
    **dict.fromkeys(("min_nm", "center_nm", "max_nm", "gsd"), _NUMBER),
    "aliases": _TEXTS,
}
_METADATA = ("source", "note", "scale", "offset", "nodata", "fill", "fill_reflectance", "edges")


@dataclass(frozen=True, slots=True)
class Entry:
    """A sensor and the folded words by which STAC items are recognised as its own."""

    sensor: Sensor
    platforms: frozenset[str]
    instruments: frozenset[frozenset[str]]
    constellations: frozenset[str]

    @classmethod
    def of(cls, sensor: Sensor) -> Entry:
        """Return an entry for a sensor without a file: STAC items name it by its name or an alias."""
        platforms = frozenset(map(fold, (sensor.name, *sensor.aliases)))
        return cls(sensor, platforms=platforms, instruments=frozenset(), constellations=frozenset())


def fold(name: str) -> str:
    """Reduce a name to what must agree: lower-case letters and digits.

    Examples
    --------
    >>> fold("LANDSAT_8") == fold("Landsat 8") == "landsat8"
    True
    """
    return re.sub(r"[\W_]", "", name.casefold())


def fold_instruments(instruments: Iterable[str]) -> frozenset[str]:
    """Return the set of instruments named, however they are joined.

    Examples
    --------
    >>> fold_instruments(["OLI_TIRS"]) == fold_instruments(["oli", "tirs"])
    True
    """
    words = re.split(r"[\s,/_]+", " ".join(instruments))
    return frozenset(filter(None, map(fold, words)))


def read(text: str, file: str) -> Entry:
    r"""Read one sensor from the text of a TOML file, which messages call `file`.

    Examples
    --------
    >>> read("name = 'toy'\ntitle = 'Toy'\nsource = '-'\n[[bands]]\nname = 'B1'", "toy.toml").sensor.name
    'toy'
    """
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CloudMaskError(f"{file}: not valid TOML: {error}") from error
    _check_fields(raw, _SENSOR_FIELDS, ("name", "title", "source", "bands"), file)
    bands = tuple(_band(table, f"{file}: band {i}", file) for i, table in enumerate(raw["bands"], start=1))
    _check_names_differ(bands, file)
    sensor = Sensor(
        name=raw["name"],
        title=raw["title"],
        bands=bands,
        aliases=tuple(raw.get("aliases", ())),
        metadata=tuple(
            (key, tuple(map(float, raw[key])) if isinstance(raw[key], list) else raw[key])
            for key in _METADATA
            if key in raw
        ),
    )
    return Entry(
        sensor,
        platforms=frozenset(map(fold, raw.get("platforms", ()))),
        instruments=frozenset(fold_instruments([one]) for one in raw.get("instruments", ())),
        constellations=frozenset(map(fold, raw.get("constellations", ()))),
    )


def _band(raw: Any, where: str, file: str) -> Band:
    """Make one band, naming it as well as the table allows where it is wrong."""
    if not isinstance(raw, dict):
        raise CloudMaskError(f"{where}: expected a [[bands]] table, got {raw!r}.")
    if isinstance(raw.get("name"), str):
        where = f"{file}: band {raw['name']!r}"
    _check_fields(raw, _BAND_FIELDS, ("name",), where)
    common_name = raw.get("common_name")
    if common_name is not None and common_name not in COMMON_NAMES:
        _fail(where, OptionError("common_name", common_name, allowed=COMMON_NAMES))
    if "gsd" in raw and not raw["gsd"] > 0:
        raise CloudMaskError(f"{where}: gsd: expected metres above 0, got {raw['gsd']!r}.")
    for field in ("min_nm", "center_nm", "max_nm"):
        if field in raw and not 100 <= raw[field] <= 100_000:
            raise CloudMaskError(
                f"{where}: {field}: {raw[field]!r} is no wavelength in nanometres (100 to 100000); "
                "a figure in µm is to be multiplied by 1000."
            )
    numbers = {
        field: float(raw[field]) for field, kind in _BAND_FIELDS.items() if kind == _NUMBER and field in raw
    }
    try:
        return Band(**{**raw, **numbers, "aliases": tuple(raw.get("aliases", ()))})
    except ValueError as error:
        _fail(where, error)


def _fail(where: str, error: Exception) -> NoReturn:
    raise CloudMaskError(f"{where}: {error}") from error


def _check_fields(
    raw: Mapping[str, Any], known: Mapping[str, str], required: Iterable[str], where: str
) -> None:
    for field, value in raw.items():
        if field not in known:
            _fail(where, OptionError("field", field, allowed=known))
        if not _is(value, known[field]):
            raise CloudMaskError(f"{where}: {field}: expected {known[field]}, got {value!r}.")
    for field in required:
        if field not in raw:
            raise CloudMaskError(f"{where}: {field}: missing; expected {known[field]}.")


def _is(value: Any, expected: str) -> bool:
    if expected == _TEXT:
        return isinstance(value, str) and bool(value.strip())
    if expected == _NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected in (_TEXTS, _NUMBERS):
        each = _TEXT if expected == _TEXTS else _NUMBER
        return isinstance(value, list) and all(_is(v, each) for v in value)
    return isinstance(value, list) and bool(value)


def _check_names_differ(bands: tuple[Band, ...], file: str) -> None:
    """Refuse a name that two bands share, or that is another's common name."""
    for position, band in enumerate(bands):
        taken: dict[str, str] = {}
        for other in bands[:position]:
            taken |= dict.fromkeys(map(band_key, (other.name, *other.aliases)), other.name)
        for other in bands[:position] + bands[position + 1 :]:
            if other.common_name and other.common_name != band.common_name:
                taken[band_key(other.common_name)] = other.name
        for field, names in (("name", (band.name,)), ("aliases", band.aliases)):
            for name in names:
                if band_key(name) in taken:
                    raise CloudMaskError(
                        f"{file}: band {band.name!r}: {field}: {name!r} already stands for band "
                        f"{taken[band_key(name)]!r}."
                    )
