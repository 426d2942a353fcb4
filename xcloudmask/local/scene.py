"""What each format module returns: a scene of planes, nothing of which was read from a pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from xcloudmask.errors import CloudMaskError, NoDataWarning, Remedy, UnitError, UnitWarning, Use, warn_user
from xcloudmask.stac.bands import AUTO_BANDS, choose_bands
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.item_plan import Source, ValidRule
from xcloudmask.types import Band, Level, Sensor, parse_level

#: ``"auto"``, ``"all"`` or names.
BandsAsked = str | tuple[str, ...]

#: The bit of the status map that says whether a band's radiometry is good; Proba-V and SPOT-VGT share them.
_GOOD_BITS = {"SWIR": 4, "NIR": 5, "RED": 6, "BLUE": 7, "MIR": 4, "B3": 5, "B2": 6, "B0": 7}

#: Marks a plane in an HDF4 file, which GDAL's usual builds cannot read.
HDF4 = "hdf4:"


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the caller of `open` says; wins over what the product says."""

    bands: BandsAsked = "auto"
    sensor: Sensor | None = None
    level: Level | None = None
    scale: float | None = None  # of the reflectance bands, as are the next two
    offset: float | None = None
    nodata: float | None = None
    sun_elevation: float | None = None  # degrees
    date: datetime | None = None  # UTC
    date_only: bool = False  # it came without a time of day


@dataclass(frozen=True, slots=True)
class Plane:
    """One band: where its numbers are, what they mean, on which pixels they lie."""

    source: Source  # its href is anything that rasterio opens, or ``hdf4:`` and a path
    file: str  # as the user knows it, for messages
    grid: Grid


@dataclass(frozen=True, slots=True)
class Scene:
    """A product on disk."""

    item_id: str  # the product's own name
    sensor: Sensor
    level: Level
    planes: tuple[Plane, ...]
    time: datetime | None = None  # UTC; None where nobody told
    sun_elevation: float | None = None  # degrees; inside the planes' scale already where that needs it
    sun_azimuth: float | None = None


def choose(held: Sequence[Band], asked: BandsAsked, sensor: Sensor) -> list[Band]:
    """Return the bands to be opened out of those that the product holds, by the rules of `load_stac`.

    Examples
    --------
    >>> toy = Sensor("toy", "A toy", (Band("1", "red"), Band("2", "pan")))
    >>> [band.name for band in choose(toy.bands, "auto", toy)]
    ['1']
    """
    choices = choose_bands({sensor.name: held}, asked)
    return [dict(choice.by_sensor)[sensor.name] for choice in choices]


def warn_of_absent(product: Sequence[Band], held: Sequence[Band], given: Overrides, where: str) -> None:
    """Warn where ``bands="auto"`` goes without a band that the product has when it is whole."""
    if given.bands != "auto":
        return
    wanted = (next((b for b in product if b.common_name in names), None) for names in AUTO_BANDS)
    absent = [band for band in wanted if band is not None and band not in held]
    if absent:
        warn_user(
            f"{where}: the files of {', '.join(f'{b.name} ({b.common_name})' for b in absent)} are not there:"
            " opened without. Fetch them, or name the bands you want: bands=[...]",
            NoDataWarning,
        )


def settle_level(stated: str | None, given: Level | None, where: str) -> Level:
    """Return the processing level; a level given may fill a gap but not contradict the product."""
    own = parse_level(stated) if stated else None
    if own and given and own != given:
        raise UnitError(
            f"{where}: the product says it is {own.upper()}, level={given!r} says otherwise",
            Remedy("Leave {} out.", Use(level=...)),
        )
    level = given or own
    if level is None:
        level = "toa"
        warn_user(
            f"{where}: nothing tells whether its reflectance is top of atmosphere or surface; taken as top of"
            " atmosphere",
            UnitWarning,
            Remedy("Pass {} or {} to settle it.", Use(level="toa"), Use(level="boa")),
        )
    return level


def parse_time(text: str | None) -> datetime | None:
    """Return a date and time, naive UTC, from ISO 8601 or bare digits; None if there is none.

    Examples
    --------
    >>> parse_time("2020-01-02T10:20:30.024Z")
    datetime.datetime(2020, 1, 2, 10, 20, 30, 24000)
    >>> parse_time("20060720223132")
    datetime.datetime(2006, 7, 20, 22, 31, 32)
    """
    if not text:
        return None
    text = text.strip()
    if text.isdigit() and len(text) == 14:
        text = f"{text[:8]}T{text[8:]}"
    head, dot, fraction = text.partition(".")
    if dot:  # USGS gives 7 digits of a second, Python takes 3 or 6
        digits = fraction.rstrip("Zz")
        text = f"{head}.{(digits + '000000')[:6]}"
    when = datetime.fromisoformat(text)
    return when.replace(tzinfo=None) if when.tzinfo is None else when.astimezone(UTC).replace(tzinfo=None)


def need(value: str | None, what: str, where: str, remedy: str | Remedy) -> str:
    """Return a text of the metadata, or say that it is missing, where, and what helps."""
    if value is None or not value.strip():
        raise CloudMaskError(f"{where}: {what} is missing", remedy)
    return value.strip()


def good_radiometry(href: str, band: Band) -> ValidRule | None:
    """Return which pixels of a band count, by the status map of Proba-V or SPOT-VGT.

    Examples
    --------
    >>> good_radiometry("SM.tif", Band("RED", "red")).mask
    64
    """
    bit = _GOOD_BITS.get(band.name)
    return None if bit is None else ValidRule("SM", href, 1 << bit, 1 << bit)
