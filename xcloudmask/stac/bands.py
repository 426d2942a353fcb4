"""Which bands are loaded: names, "auto" or "all", settled once for all items and all their sensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xcloudmask.errors import BandError, OptionError
from xcloudmask.scene.describe import band_labels
from xcloudmask.stac.item_plan import ItemPlan, Source
from xcloudmask.stac.match_assets import UNTOLD, MatchedItem
from xcloudmask.types import Band

#: What the models that come with the library can use; the first name of a group that is there is taken.
AUTO_BANDS = (("blue",), ("green",), ("red",), ("nir", "nir08"), ("swir16",), ("swir22",))


@dataclass(frozen=True, slots=True)
class BandChoice:
    """One band of the result."""

    band: Band  # as it is described: of several sensors, the mean centre between the outermost edges
    label: str  # on the band dimension
    by_sensor: tuple[tuple[str, Band], ...]  # the band of each sensor that it stands for

    def name_in(self, item: MatchedItem) -> str | None:
        """Return the name under which an item holds this band, None if it does not."""
        wanted = dict(self.by_sensor).get(item.sensor_name)
        return wanted.name if wanted is not None and wanted in item.bands else None

    def source(self, plan: ItemPlan) -> Source | None:
        """Return the asset of an item that holds this band, if it has one."""
        wanted = dict(self.by_sensor).get(plan.sensor)
        return next((asset for asset in plan.assets if wanted is not None and asset.band == wanted), None)


def bands_by_sensor(items: Iterable[MatchedItem]) -> dict[str, tuple[Band, ...]]:
    """Return all bands that items hold, for each sensor among them."""
    bands: dict[str, dict[Band, None]] = {}
    for item in items:
        bands.setdefault(item.sensor_name, {}).update(dict.fromkeys(item.bands))
    return {sensor: tuple(held) for sensor, held in bands.items()}


def keys_by_sensor(items: Iterable[MatchedItem]) -> dict[str, dict[str, str]]:
    """Return the bands' own names by the keys of the assets that hold one band, for each sensor."""
    keys: dict[str, dict[str, str]] = {}
    for item in items:
        single = (choice for choice in item.choices.values() if len(choice.asset.bands) == 1)
        keys.setdefault(item.sensor_name, {}).update({c.asset.key: c.band.name for c in single})
    return keys


def band_names(bands: str | Sequence[str]) -> list[str]:
    """Return the names among what the caller says of bands; "auto" and "all" count as one."""
    if isinstance(bands, str) or not isinstance(bands, Iterable):
        return [str(bands)]
    return [str(name) for name in bands]


def choose_bands(
    sensors: Mapping[str, Sequence[Band]],
    bands: str | Sequence[str],
    note: str = "",
    keys: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[BandChoice, ...]:
    """Settle which bands the stack has, of those that each sensor's items hold.

    ``"auto"``: those of blue, green, red, near infrared and the two short-wave infrareds that every sensor
    has. ``"all"``: every reflectance band that all sensors have. Else names: a common name, the sensor's own
    name, an alias, or the key of an asset, by which `keys` have the names of bands for each sensor. Where a
    name is not found, the error says the `note` besides.

    Examples
    --------
    >>> red, pan = Band("B4", "red"), Band("B8", "pan")
    >>> [choice.label for choice in choose_bands({"landsat-8": (red, pan)}, "auto")]
    ['red']
    """
    if not isinstance(bands, Iterable):
        raise OptionError("bands", bands, hint="Give 'auto', 'all', or a list of names.")
    if bands == "auto":
        chosen = _auto(sensors)
    elif bands == "all":
        chosen = _all(sensors)
    else:
        chosen = [_named(sensors, name, note, keys or {}) for name in band_names(bands)]
    if not chosen:
        if not isinstance(bands, str):
            why = f"bands={bands!r} names no band."
        elif len(sensors) == 1:
            why = f"bands={bands!r} finds no band."
        else:
            why = f"bands={bands!r} finds nothing that {' and '.join(map(_holder, sensors))} have in common."
        raise BandError(f"{why} {_listing(sensors)} Name the bands you want: bands=[...]")
    merged = [_merge(name, list(by_sensor.values())) for name, by_sensor in chosen]
    labels = band_labels(merged)
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise BandError(f"bands={bands!r} names {', '.join(twice)} more than once")
    return tuple(
        BandChoice(band, label, tuple(by_sensor.items()))
        for band, label, (_, by_sensor) in zip(merged, labels, chosen, strict=True)
    )


def _auto(sensors: Mapping[str, Sequence[Band]]) -> list[tuple[str, dict[str, Band]]]:
    chosen = []
    for names in AUTO_BANDS:
        # One band for all if there is one (Landsat has nir08 only: then Sentinel-2's nir08 is its match).
        shared = next((name for name in names if all(_find(b, (name,)) for b in sensors.values())), None)
        order = (shared,) if shared else names
        by_sensor = {sensor: band for sensor, held in sensors.items() if (band := _find(held, order))}
        if len(by_sensor) == len(sensors):
            chosen.append((order[0], by_sensor))
    return chosen


def _find(bands: Sequence[Band], common_names: Iterable[str]) -> Band | None:
    by_name = {band.common_name: band for band in reversed(bands) if band.kind == "reflectance"}
    return next((by_name[name] for name in common_names if name in by_name), None)


def _all(sensors: Mapping[str, Sequence[Band]]) -> list[tuple[str, dict[str, Band]]]:
    first, *others = sensors
    chosen = []
    for band in sensors[first]:
        name = band.common_name or band.name
        if band.kind != "reflectance":
            continue
        match = {first: band}
        for other in others:
            own = (each for each in sensors[other] if each.name == band.name)
            if same := _find(sensors[other], (name,)) or next(own, None):
                match[other] = same
        if len(match) == len(sensors):
            chosen.append((name, match))
    return chosen


def _named(
    sensors: Mapping[str, Sequence[Band]], name: str, note: str, keys: Mapping[str, Mapping[str, str]]
) -> tuple[str, dict[str, Band]]:
    by_sensor = {}
    for sensor, bands in sensors.items():
        band = _match(bands, name) or _match(bands, keys.get(sensor, {}).get(name, ""))
        if band is None:
            names = dict.fromkeys(n for band in bands for n in (band.common_name, band.name) if n)
            if note:  # the nearest name would be no help: the band is there, and cannot be read
                raise BandError(f"band {name!r} cannot be read: {note} Bands found: {', '.join(names)}.")
            raise OptionError(
                "band" if sensor == UNTOLD else f"band of {sensor}", name, allowed=names,
                hint="" if names else f"{_holder(sensor).capitalize()} has no band that is known.",
            )  # fmt: skip
        by_sensor[sensor] = band
    return name, by_sensor


def _match(bands: Sequence[Band], name: str) -> Band | None:
    """Return the band by its own name, its common name, or an alias; several are an error."""
    wanted = name.casefold()
    ways = (
        [band for band in bands if band.name.casefold() == wanted],
        [band for band in bands if (band.common_name or "").casefold() == wanted],
        [band for band in bands if wanted in (alias.casefold() for alias in band.aliases)],
    )
    matches = next((way for way in ways if way), [])
    if len(matches) > 1:
        raise BandError(
            f"band {name!r} may be any of {', '.join(b.name for b in matches)}: name one of these"
        )
    return matches[0] if matches else None


def _listing(sensors: Mapping[str, Sequence[Band]]) -> str:
    return " ".join(
        f"{_holder(sensor)} has {', '.join(band.common_name or band.name for band in bands) or 'none'}."
        for sensor, bands in sensors.items()
    )


def _holder(sensor: str) -> str:
    return "an item of no known instrument" if sensor == UNTOLD else sensor


def _merge(asked: str, bands: Sequence[Band]) -> Band:
    """Describe the bands of several sensors as one."""
    if len(set(bands)) == 1:
        return bands[0]
    own, common, kinds = ({getattr(b, f) for b in bands} for f in ("name", "common_name", "kind"))
    if len(kinds) > 1:
        raise BandError(f"band {asked!r} is {' and '.join(sorted(kinds))}: load the sensors apart")
    centres = _known(band.center_nm for band in bands)
    return Band(
        own.pop() if len(own) == 1 else asked,
        common.pop() if len(common) == 1 else None,
        min(_known(band.min_nm for band in bands), default=None),
        sum(centres) / len(centres) if centres else None,
        max(_known(band.max_nm for band in bands), default=None),
        max(_known(band.gsd for band in bands), default=None),
        bands[0].kind,
    )


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]
