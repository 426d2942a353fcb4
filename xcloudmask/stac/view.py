"""One view of a STAC item, whatever its version: assets, bands and numbers in one shape.

STAC 1.0 keeps bands in ``eo:bands`` and numbers in ``raster:bands``; 1.1 merges both into ``bands`` and lets
an asset (or the item) state what all its bands share; 0.7 to 0.9 list the bands in the item's properties and
point at them by index. Nothing here knows a catalogue, and pystac is not imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from posixpath import dirname, normpath
from typing import Any
from urllib.parse import urlsplit

from xcloudmask.errors import OptionError
from xcloudmask.stac.opening import is_zarr

#: What a band entry may say of its numbers, under the names of each version; the first found wins.
_NUMBERS = {
    "scale": ("raster:scale", "scale", "gee:scale"),
    "offset": ("raster:offset", "offset", "gee:offset"),
    "nodata": ("nodata", "raster:nodata"),
    "unit": ("unit", "raster:unit"),
    "data_type": ("data_type", "raster:data_type"),
    "spatial_resolution": ("raster:spatial_resolution", "spatial_resolution", "gsd"),
}


#: Links that tell where an item is from.
_ORIGINS = ("self", "root", "parent", "collection", "search")


@dataclass(frozen=True, slots=True)
class BandEntry:
    """What an item says of one band of one asset."""

    name: str | None = None
    common_name: str | None = None
    description: str | None = None
    center_um: float | None = None
    fwhm_um: float | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    unit: str | None = None
    data_type: str | None = None
    gsd: float | None = None

    @property
    def is_integer(self) -> bool:
        """Whether the pixels are stored as whole numbers, as far as the item tells."""
        return bool(self.data_type) and str(self.data_type).lower().lstrip("c").startswith(("int", "uint"))


@dataclass(frozen=True, slots=True)
class AssetView:
    """One asset, with its bands in one shape."""

    key: str
    href: str
    title: str
    media_type: str
    roles: tuple[str, ...]
    bands: tuple[BandEntry, ...]
    gsd: float | None
    crs: str | None
    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @property
    def is_zarr(self) -> bool:
        """Whether this is a Zarr group or array, as EOPF has them."""
        kind = self.media_type.partition(";")[0].strip()
        return kind in _ZARR or is_zarr(self.href)

    @property
    def is_zarr_array(self) -> bool:
        """Whether this is one array of a Zarr store, which can be read as a file can."""
        return self.is_zarr and self.raw.get("zarr:node_type") == "array" and "proj:transform" in self.raw

    @property
    def is_from_store(self) -> bool:
        """Whether the store itself told what is said here, and no catalogue, which may be wrong."""
        return self.is_zarr_array and self.raw.get(FROM_STORE) is True

    @property
    def is_jp2(self) -> bool:
        """Whether the file is JPEG 2000, the form in which ESA delivers Sentinel-2."""
        return "jp2" in self.media_type or urlsplit(self.href).path.lower().endswith(".jp2")


#: Our own mark on assets that `xcloudmask.stac.eopf` makes of a store's arrays.
FROM_STORE = "xcloudmask:from_store"
#: Media types of Zarr groups and arrays.
_ZARR = ("application/vnd.zarr", "application/vnd+zarr", "application/x-zarr", "application/zarr")


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item, in one shape."""

    id: str
    collection: str | None
    properties: Mapping[str, Any]
    assets: Mapping[str, AssetView]
    links: tuple[str, ...] = ()
    bbox: tuple[float, ...] | None = None
    geometry: Mapping[str, Any] = field(default_factory=dict)
    remote: bool = False  # from a catalogue elsewhere
    without_address: tuple[str, ...] = ()  # keys of assets that cannot be read
    address: str = ""  # of the item itself

    def first(self, *names: str) -> Any:
        """Return the first of the named properties that is there and not None."""
        for name in names:
            value = self.properties.get(name)
            if value is not None and value != "null":  # the text, as EOPF's generator writes it
                return value
        return None

    def text(self, *names: str) -> str | None:
        """Return `first` as text."""
        value = self.first(*names)
        return None if value is None else str(value)

    def number(self, *names: str) -> float | None:
        """Return `first` as a number, None where it is not one."""
        return to_number(self.first(*names))


def view_item(item: Any) -> ItemView:
    """Return the view of a STAC item: a mapping, or an object with the attributes of ``pystac.Item``.

    Examples
    --------
    >>> asset = {"href": "red.tif", "eo:bands": [{"name": "B04"}], "raster:bands": [{"scale": 0.0001}]}
    >>> view = view_item({"id": "one", "properties": {}, "assets": {"red": asset}})
    >>> view.assets["red"].bands[0].scale
    0.0001
    """
    if isinstance(item, Mapping):
        item_id, collection = item.get("id"), item.get("collection")
        properties = item.get("properties") or {}
        raw_assets, bbox = item.get("assets") or {}, item.get("bbox")
        geometry = item.get("geometry")
        links = tuple((str(link.get("rel")), str(link.get("href"))) for link in item.get("links") or ())
    elif hasattr(item, "assets") and hasattr(item, "properties"):
        item_id, collection = item.id, getattr(item, "collection_id", None)
        properties = item.properties
        raw_assets, bbox = {key: asset.to_dict() for key, asset in item.assets.items()}, item.bbox
        geometry = getattr(item, "geometry", None)
        # get_href() of a link to a catalogue in memory may walk to its root: `target` holds the text as read
        links = tuple((str(k.rel), k.target) for k in item.links if isinstance(k.target, str))
        if item.datetime is not None and not properties.get("datetime"):
            properties = {**properties, "datetime": item.datetime.isoformat().replace("+00:00", "Z")}
    else:
        raise OptionError("item", item, hint="Give a pystac.Item or the dictionary of a STAC item.")
    readable = {k: raw for k, raw in raw_assets.items() if isinstance(raw, Mapping) and raw.get("href")}
    base = next((href for rel, href in links if rel == "self"), "")
    listed = properties.get("eo:bands") or properties.get("bands") or ()
    shared = {
        key: value for key, value in properties.items() if key in ("raster:scale", "raster:offset", "nodata")
    }
    return ItemView(
        id=str(item_id),
        collection=None if collection is None else str(collection),
        properties=properties,
        assets={key: _asset(key, raw, listed, shared, base) for key, raw in readable.items()},
        links=tuple(href for _, href in links),
        bbox=to_box(bbox),
        geometry=geometry if isinstance(geometry, Mapping) else {},
        address=base,
        without_address=tuple(key for key in raw_assets if key not in readable),
        remote=any(rel in _ORIGINS and _is_remote(href) for rel, href in links),
    )


def _is_remote(href: str) -> bool:
    """Whether an address lies elsewhere; a catalogue that this machine serves may name its files."""
    if "://" not in href or href.lower().startswith("file://"):
        return False
    host = urlsplit(href).hostname or ""
    return not (host in ("localhost", "::1") or host.startswith("127."))


def crs_of(properties: Mapping[str, Any]) -> str | None:
    """Return ``"EPSG:n"`` or another code from ``proj:code`` or ``proj:epsg``; None where neither is there.

    Examples
    --------
    >>> crs_of({"proj:epsg": 32632}), crs_of({"proj:code": "EPSG:4326"}), crs_of({"proj:code": None})
    ('EPSG:32632', 'EPSG:4326', None)
    """
    code = properties.get("proj:code")
    if code:
        return str(code)
    epsg = properties.get("proj:epsg")
    return f"EPSG:{int(epsg)}" if epsg else None


def access_of(raw: Mapping[str, Any], properties: Mapping[str, Any]) -> str:
    """Return what an asset says of its storage and authentication (``storage:``, ``auth:``), in one line.

    Examples
    --------
    >>> schemes = {"storage:schemes": {"a": {"type": "custom-s3", "region": "de", "requester_pays": False}}}
    >>> access_of({"storage:refs": ["a"]}, schemes)
    'storage: type custom-s3, region de, requester_pays False'
    """
    parts = []
    for kind in ("storage", "auth"):
        schemes = properties.get(f"{kind}:schemes")
        schemes = schemes if isinstance(schemes, Mapping) else {}
        refs = raw.get(f"{kind}:refs")
        if kind == "auth" and refs is None:  # what the item states holds for all of its assets
            refs = list(schemes)
        refs = refs if isinstance(refs, (list, tuple)) else ()
        named = [scheme for ref in refs if isinstance(scheme := schemes.get(str(ref)), Mapping)]
        # version 1 of the storage extension has its fields on the asset
        own = {
            k.partition(":")[2]: v for k, v in raw.items() if k.startswith(f"{kind}:") and k[-5:] != ":refs"
        }
        for scheme in (*named, own):
            plain = [f"{key} {value}" for key, value in scheme.items() if not isinstance(value, (dict, list))]
            parts += [f"{kind}: {', '.join(plain)}"] if plain else []
    return "; ".join(parts)


def to_number(value: Any) -> float | None:
    """Return a number for a number or its text (``"nan"`` too), None for anything else.

    Examples
    --------
    >>> to_number("-9999"), to_number(None), to_number("none")
    (-9999.0, None, None)
    """
    if value is None or isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def to_numbers(value: Any, least: int) -> tuple[float, ...] | None:
    """Return a list of at least so many finite numbers, None for anything else.

    Examples
    --------
    >>> to_numbers([10, "0", 5], 2), to_numbers([10, None], 2), to_numbers("10", 2)
    ((10.0, 0.0, 5.0), None, None)
    """
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) < least:
        return None
    numbers = [to_number(part) for part in value]
    finite = tuple(number for number in numbers if number is not None and math.isfinite(number))
    return finite if len(finite) == len(value) else None


def to_box(value: Any) -> tuple[float, ...] | None:
    """Return four or six finite numbers as they are, None for anything else that stands for a box.

    Examples
    --------
    >>> to_box(["10", 44, 11, 45]), to_box([None] * 4), to_box([1, 2, 3])
    ((10.0, 44.0, 11.0, 45.0), None, None)
    """
    box = to_numbers(value, 4)
    return box if box and len(box) in (4, 6) else None


def _asset(
    key: str, raw: Mapping[str, Any], listed: Sequence[Any], shared: Mapping[str, Any], base: str
) -> AssetView:
    roles = tuple(str(role) for role in raw.get("roles") or ())
    gsd = to_number(raw.get("gsd", raw.get("eo:gsd")))
    if gsd is None:  # the Copernicus Data Space has a role "gsd:20m"
        sizes = (role.removeprefix("gsd:").removesuffix("m") for role in roles if role.startswith("gsd:"))
        gsd = to_number(next(sizes, None))
    return AssetView(
        key=key,
        href=_absolute(str(raw.get("href", "")), base),
        title=str(raw.get("title") or ""),
        media_type=str(raw.get("type") or "").lower(),
        roles=roles,
        bands=_bands(raw, listed, shared),
        gsd=gsd,
        crs=crs_of(raw),
        raw=raw,
    )


def _bands(raw: Mapping[str, Any], listed: Sequence[Any], shared: Mapping[str, Any]) -> tuple[BandEntry, ...]:
    """Zip the bands' names with their numbers; an asset with numbers only has one nameless entry each."""
    named = raw.get("bands") or raw.get("eo:bands") or ()
    numbers = raw.get("raster:bands") or ()
    count = max(len(named), len(numbers), 1)
    entries = []
    for i in range(count):
        name = named[i] if i < len(named) else {}
        if isinstance(name, int):  # STAC < 1.0: an index into the item's own list
            name = listed[name] if name < len(listed) else {}
        elif isinstance(name, str):
            name = {"name": name}
        number = numbers[i] if i < len(numbers) else {}
        entries.append(_band(name, (name, number, raw, shared)))
    return tuple(entries)


def _band(name: Mapping[str, Any], sources: tuple[Mapping[str, Any], ...]) -> BandEntry:
    stated = {field: _stated(sources, keys) for field, keys in _NUMBERS.items()}
    # in µm, as STAC has it; EOPF states nm, and no band is as long in µm
    centre = to_number(_of_band("center_wavelength", name, sources[2]))
    return BandEntry(
        name=_text(name.get("name", name.get("id"))),
        common_name=_text(_of_band("common_name", name, sources[2])),
        description=_text(name.get("description")),
        center_um=centre / 1000 if centre and centre > 100 else centre,
        fwhm_um=to_number(_of_band("full_width_half_max", name, sources[2])),
        scale=to_number(stated["scale"]),
        offset=to_number(stated["offset"]),
        nodata=to_number(stated["nodata"]),
        unit=_text(stated["unit"]),
        data_type=_text(stated["data_type"]),
        gsd=to_number(stated["spatial_resolution"]),
    )


def _of_band(field: str, name: Mapping[str, Any], asset: Mapping[str, Any]) -> Any:
    """Return what a band entry says, in the words of either version; else what its asset says for all."""
    own = _stated((name,), (f"eo:{field}", field))
    return _stated((asset,), (f"eo:{field}",)) if own is None else own


def _stated(sources: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Any:
    for source in sources:
        for key in keys:
            value = source.get(key)
            if value is not None:
                return value
    return None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _absolute(href: str, base: str) -> str:
    """Resolve a relative href against the item's own address; leave it where there is none."""
    if not href or not base or "://" in href or href.startswith("/"):
        return href
    scheme, separator, path = base.partition("://")
    if not separator:
        return href if base.startswith(".") else normpath(f"{dirname(base)}/{href}")
    return f"{scheme}://{normpath(f'{dirname(path)}/{href}')}"
