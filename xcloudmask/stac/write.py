"""Masks as STAC 1.1: an Item of one scene, a Collection of a time series in one store."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import CLOUDY, NO_DATA, class_colours
from xcloudmask.errors import CloudMaskError, OptionError, StoreLockedError, names_checked
from xcloudmask.scene.dims import pixel_size, spatial_dims
from xcloudmask.scene.mask_classes import codes_of
from xcloudmask.stac.items import plain_items
from xcloudmask.stac.opening import is_zarr
from xcloudmask.store.geozarr import ImageGrid
from xcloudmask.store.lock import LEASE, Lock
from xcloudmask.store.record import open_mask
from xcloudmask.store.store import Target, open_existing, open_store

ZARR, COG = "application/vnd.zarr; version=3", "image/tiff; application=geotiff; profile=cloud-optimized"
#: Versions that pystac and published schemas know.
EXTENSIONS: Mapping[str, str] = {
    name: f"https://stac-extensions.github.io/{name}/v{version}/schema.json"
    for name, version in (
        ("classification", "1.1.0"), ("projection", "2.0.0"), ("processing", "1.2.0"), ("eo", "1.1.0"),
        ("raster", "2.0.0"), ("datacube", "2.2.0"), ("xarray-assets", "1.0.0"),
    )
}  # fmt: skip
#: Roles of an asset that holds a class, as STAC's best practices name them.
ROLES: Mapping[str, str] = {
    "cloud": "cloud", "cloud_shadow": "cloud-shadow", "snow": "snow-ice", "water": "land-water",
}  # fmt: skip
MEANINGS: Mapping[str, str] = {
    "clear": "Neither cloud nor shadow", "not_cloud": "Not cloud", "land": "Clear land",
    "cloud": "Cloud", "thick_cloud": "Cloud that hides the ground",
    "thin_cloud": "Cloud through which the ground shows",
    "cloud_shadow": "Shadow of a cloud", "snow": "Snow or ice", "water": "Clear water",
    "no_data": "Nothing was seen",
}  # fmt: skip
#: Decimals of degrees: a tenth of a metre.
DECIMALS = 6

Document = dict[str, Any]


@names_checked
def stac_of(
    store: Any,
    group: str | None = None,
    *,
    href: str | None = None,
    id: str | None = None,
    items: Any = None,
    cloud_cover: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> Any:
    """Return what STAC says of a store of masks: an Item of one scene, a Collection of several dates.

    Parameters
    ----------
    store : path, URL, zarr Store or obstore store
        As of `stream`.
    group : str, optional
        Group within the store.
    href : str, optional
        Address under which readers find the store, if it is not the path or URL that was given.
    id : str, optional
        By default the store's name.
    items : search, ItemCollection, items, table or JSON, optional
        The items of the scenes, as `load_stac` takes them: their addresses become links ``derived_from``.
        Without them the coordinate ``item_href`` tells, where the mask has one.
    cloud_cover : bool
        Whether the mask is read, once, for ``eo:cloud_cover``: the share of cloud and thin cloud, in per
        cent, among the pixels that hold data.
    storage_options : dict, optional
        As of `stream`.

    Returns
    -------
    pystac.Item or pystac.Collection

    Examples
    --------
    >>> import tempfile, xcloudmask
    >>> times = np.array(["2026-05-01", "2026-05-11"], "M8[ns]")
    >>> codes = np.array([[[0, 1]] * 2, [[0, 0]] * 2], "u1")
    >>> mask = xr.DataArray(codes, dims=("time", "y", "x"), name="cloud_mask",
    ...     coords={"time": times, "y": [45.5, 45.4], "x": [9.0, 9.1]}, attrs={
    ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}).rio.write_crs(4326)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = mask.cloudmask.to_zarr(f"{folder}/masks.zarr", progress=False)
    ...     found = xcloudmask.stac_of(f"{folder}/masks.zarr")
    >>> found.id, found.summaries.to_dict()["eo:cloud_cover"]
    ('masks', {'minimum': 0.0, 'maximum': 50.0})
    """
    address = href or address_of(store)
    mask, header = open_mask(Target(open_existing(store, storage_options), group or ""))
    return describe_mask(
        mask, "/".join(filter(None, (address, group))), store=address, id=id, items=items,
        cloud_cover=cloud_cover, overviews="overviews" in header,
    )  # fmt: skip


def address_of(store: Any) -> str:
    """Return the address of a store that was named by one."""
    if isinstance(store, (str, os.PathLike)) and not os.fspath(store).startswith("icechunk:"):
        text = os.fspath(store).removeprefix("file://").rstrip("/")
        return text if "://" in text or "::" in text else str(Path(text).expanduser().absolute())
    raise CloudMaskError(
        f"a {type(store).__name__ if not isinstance(store, str) else 'repository of Icechunk'} does not tell "
        "the address under which STAC finds it",
        "Name the store by its path or URL, or pass href= to stac_of",
    )


def describe_mask(
    mask: xr.DataArray,
    href: str,
    *,
    store: str | None = None,
    id: str | None = None,
    items: Any = None,
    cloud_cover: bool = True,
    overviews: bool = False,
) -> Any:
    """Return what STAC says of a mask that lies at an address; `stac_of` says how."""
    import pystac

    y, x = spatial_dims(mask)
    place, times = where_and_when(mask)
    cover = _cloud_cover(mask, (y, x)) if cloud_cover else []
    zarr = store is not None or is_zarr(href)
    asset = _asset(mask, href, place, zarr=zarr, overviews=overviews)
    used = ["projection", "raster", "processing"]
    used += ["classification"] if "classification:classes" in asset else []
    used += ["eo"] if cover else []
    used += ["datacube", "xarray-assets"] if zarr else []
    name = id or re.sub(r"\.(zarr|tiff?)$", "", (store or href).rstrip("/").rpartition("/")[2])
    within = "" if store is None else href.removeprefix(store).strip("/")
    if id is None and within:
        name += "-" + within.replace("/", "-")
    links = [] if store is None else [{"rel": "store", "href": store, "type": ZARR, "title": "Zarr store"}]
    document: Document = {
        "stac_version": "1.1.0",
        "id": name,
        "stac_extensions": sorted(EXTENSIONS[extension] for extension in used),
        "links": [*links, *_sources(mask, items)],
        "assets": {str(mask.name or "cloud_mask"): asset},
    }
    stamps = [_stamp(time) for time in (min(times), max(times))]
    software = _software(mask)
    cube = _cube(mask, (y, x), times) if zarr else {}
    if len(times) == 1:
        cloud = {"eo:cloud_cover": cover[0]} if cover else {}
        when = {"datetime": stamps[0]}
        document |= {"type": "Feature", **_geometry(place)}
        document["properties"] = {**when, **_sensors(mask, single=True), **cloud, **software, **cube}
        return pystac.Item.from_dict(document, migrate=False)
    summaries: Document = _sensors(mask, single=False)
    if cover:
        summaries["eo:cloud_cover"] = {"minimum": min(cover), "maximum": max(cover)}
    asset |= software
    document |= {
        "type": "Collection",
        "description": f"{software['processing:lineage']}: {len(times)} dates in one store",
        "license": "other",
        "providers": [{"name": "xcloudmask", "roles": ["processor"], **software}],
        "extent": {"spatial": {"bbox": [_geometry(place)["bbox"]]}, "temporal": {"interval": [stamps]}},
        **({"summaries": summaries} if summaries else {}),
        **cube,
    }
    return pystac.Collection.from_dict(document, migrate=False)


def where_and_when(mask: xr.DataArray) -> tuple[ImageGrid, list[Any]]:
    """Return place and times of a mask; an error where it has none that STAC could tell."""
    y, x = spatial_dims(mask)
    lead = [str(dim) for dim in mask.dims if dim not in (y, x, "class")]
    if lead not in ([], ["time"]):
        raise CloudMaskError(f"STAC tells scenes apart by their time, and this mask has {lead}. Select one")
    return _place(mask, (y, x)), _times(mask)


def save(document: Any, catalogue: str, storage_options: dict[str, Any] | None = None) -> str:
    """Write an Item or a Collection into a catalogue of JSON documents; return where to.

    The ``catalog.json`` at that path or URL is made, or given one more link.
    """
    target = Target(open_store(catalogue, storage_options))
    kind = "item" if document.STAC_OBJECT_TYPE == "Feature" else "child"
    names = {"item": f"{document.id}.json", "child": "collection.json"}
    path = (document.id, names[kind])
    own = document.to_dict(include_self_link=False, transform_hrefs=False)
    up = {"href": "../catalog.json", "type": "application/json"}
    own["links"] = [link for link in own["links"] if link["rel"] not in ("root", "parent")]
    own["links"] += [{"rel": "root", **up}, {"rel": "parent", **up}]
    media = "application/geo+json" if kind == "item" else "application/json"
    link = {"rel": kind, "href": f"./{'/'.join(path)}", "type": media}
    other = next(name for each, name in names.items() if each != kind)
    with _locked(target):  # so that nobody's link is lost
        root = target.get_json("catalog.json") or {
            "type": "Catalog", "id": "masks", "stac_version": "1.1.0", "description": "Cloud masks",
            "links": [{"rel": "root", "href": "./catalog.json", "type": "application/json"}],
        }  # fmt: skip
        target.put_json(own, *path)
        links = [each for each in root["links"] if each.get("href") != f"./{document.id}/{other}"]
        if len(links) < len(root["links"]):  # one scene became several
            target.delete(document.id, other)
        if link not in links:
            target.put_json({**root, "links": [*links, link]}, "catalog.json")
    return "/".join((str(catalogue).rstrip("/"), *path))


@contextmanager
def _locked(target: Target) -> Iterator[None]:
    """Hold a catalogue's lock; others write for a moment only, so it is waited for."""
    until, lock = time.monotonic() + LEASE, Lock(target)
    while True:
        try:
            lock.acquire()
            break
        except StoreLockedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def _place(mask: xr.DataArray, dims: tuple[str, str]) -> ImageGrid:
    grid = ImageGrid.of(mask.coords.to_dataset(), dims, (mask.sizes[dims[0]], mask.sizes[dims[1]]))
    if grid.crs is None or grid.bounds is None:
        lacks = "CRS" if grid.crs is None else "even coordinates"
        raise CloudMaskError(
            f"the mask has no {lacks}, so STAC cannot say where it is. Give it one before it is written: "
            "mask.rio.write_crs('EPSG:32632'), mask.assign_coords(y=..., x=...)"
        )
    return grid


def _geometry(place: ImageGrid) -> Document:
    """Return the footprint in degrees; one that crosses the antimeridian is cut there."""
    from rasterio.warp import transform_bounds, transform_geom

    west, south, east, north = place.bounds or (0, 0, 0, 0)
    xs, ys = np.linspace(west, east, 9), np.linspace(south, north, 9)
    ring = [(x, south) for x in xs] + [(east, y) for y in ys[1:]]
    ring += [(x, north) for x in xs[-2::-1]] + [(west, y) for y in ys[-2::-1]]
    shape = {"type": "Polygon", "coordinates": [[(float(x), float(y)) for x, y in ring]]}
    geometry = transform_geom(place.crs, "EPSG:4326", shape, precision=DECIMALS)
    box = transform_bounds(place.crs, "EPSG:4326", *(place.bounds or ()))
    return {"geometry": geometry, "bbox": [round(value, DECIMALS) for value in box]}


def _times(mask: xr.DataArray) -> list[Any]:
    values = np.ravel(mask["time"].values) if "time" in mask.coords else np.zeros(0)
    times: list[Any] = [time for time in values if values.dtype.kind == "M" and not np.isnat(time)]
    if not times:
        raise CloudMaskError(
            "the mask has no time, and STAC needs one. Give it before it is written: "
            "mask.assign_coords(time=np.datetime64('2026-05-01T10:30', 'ns'))"
        )
    return times


def _stamp(time: np.datetime64) -> str:
    return f"{time.astype('datetime64[s]')}Z"


def _cloud_cover(mask: xr.DataArray, dims: tuple[str, str]) -> list[float]:
    """Return the share of cloud of each step that holds data, in per cent."""
    if "class" in mask.dims:
        return []
    cloudy = [code for name, code in codes_of(mask).items() if name in CLOUDY]
    counts = xr.Dataset(
        {"cloud": mask.isin(cloudy).sum(dims), "valid": (mask != NO_DATA).sum(dims)}
    ).compute()
    shares = 100 * counts.cloud / counts.valid.where(counts.valid > 0)
    return [round(float(share), 4) for share in np.ravel(shares.values) if cloudy and share == share]


def _asset(mask: xr.DataArray, href: str, place: ImageGrid, *, zarr: bool, overviews: bool) -> Document:
    band: Document = {"name": str(mask.name or "cloud_mask"), "data_type": str(mask.dtype)}
    if metres := pixel_size(mask, *spatial_dims(mask)):
        band["raster:spatial_resolution"] = round(sum(metres) / 2, 3)
    out: Document = {"href": href, "title": str(mask.attrs.get("long_name", "cloud mask"))}
    out["type"] = ZARR + ("; profile=multiscales" if overviews else "") if zarr else COG
    roles = ["data"]
    if "class" in mask.dims:
        out["description"] = "probability of " + ", ".join(map(str, mask["class"].values))
        roles.append("cloud")
    else:
        codes = codes_of(mask)
        band["nodata"] = NO_DATA
        roles += [
            role for name, role in ROLES.items() if name in codes or (role == "cloud" and CLOUDY & {*codes})
        ]
        out["classification:classes"] = _classes(codes)
    authority = place.crs.to_authority()
    out |= {
        "roles": roles,
        "bands": [band],
        "proj:code": ":".join(authority) if authority else None,
        "proj:shape": list(place.shape),
        "proj:transform": list(place.transform or ()),
        "proj:bbox": list(place.bounds or ()),
    }
    if authority is None:
        out["proj:wkt2"] = place.crs.to_wkt(version="WKT2_2019")
    return {**out, "xarray:open_kwargs": {"engine": "zarr", "chunks": {}}} if zarr else out


def _classes(codes: Mapping[str, int]) -> list[Document]:
    colours = class_colours(codes)
    out: list[Document] = []
    for name, code in codes.items():
        word = re.sub(r"[^A-Za-z0-9_-]", "_", name)
        entry = {"value": code, "name": word, "title": name.replace("_", " ").capitalize()}
        entry |= {"description": MEANINGS[name]} if name in MEANINGS else {}
        nodata = {"nodata": True} if code == NO_DATA else {}
        out.append({**entry, "color_hint": colours[name].lstrip("#").upper(), **nodata})
    return out


def _software(mask: xr.DataArray) -> Document:
    """Return what made the mask."""
    attrs = mask.attrs
    software = {"xcloudmask": str(attrs.get("xcloudmask_version", "unknown"))}
    out: Document = {"processing:lineage": "Cloud masks"}
    if model := attrs.get("model"):
        software[str(model)] = str(attrs.get("model_version", "unknown"))
        out = {"processing:lineage": f"Cloud masks by the model {model}", "mlm:name": str(model)}
    return {**out, "processing:software": software}


def _sensors(mask: xr.DataArray, *, single: bool) -> Document:
    values = np.ravel(mask["sensor"].values) if "sensor" in mask.coords else [mask.attrs.get("sensor", "")]
    names = sorted({name for value in values for name in str(value).split("+") if name and name != "unknown"})
    if not names or (single and len(names) > 1):
        return {}
    return {"platform": names[0] if single else names}


def _sources(mask: xr.DataArray, items: Any) -> list[Document]:
    """Return links to the items of the scenes."""
    ids = [str(value) for value in np.ravel(mask["item_id"].values)] if "item_id" in mask.coords else []
    known: dict[str, str] = {}
    if "item_href" in mask.coords and ids:
        for joined, hrefs in zip(ids, np.ravel(mask["item_href"].values), strict=True):
            parts = joined.split("+") if "\n" in str(hrefs) else [joined]  # a mosaic's
            known |= dict(zip(parts, str(hrefs).split("\n"), strict=False))
    if items is not None:
        known = {}
        for item in plain_items(items):
            own = (k["href"] for k in item.get("links") or () if k.get("rel") in ("self", "canonical"))
            known[str(item["id"])] = str(next(own, ""))
        ids = ids or list(known)
        if not {part for name in ids for part in name.split("+")} & {*known}:
            raise OptionError("items", list(known)[:5], hint=f"The mask is of {', '.join(ids[:5])}.")
    parts = [name for joined in ids for name in ([joined] if joined in known else joined.split("+"))]
    return [
        {"rel": "derived_from", "href": known[name], "type": "application/geo+json", "title": name}
        for name in dict.fromkeys(parts)
        if known.get(name)
    ]


def _cube(mask: xr.DataArray, dims: tuple[str, str], times: list[Any]) -> Document:
    crs = mask.rio.crs
    system = crs.to_epsg() or crs.to_wkt(version="WKT2_2019")
    out: Document = {}
    for axis, dim in zip("yx", dims, strict=True):
        values = mask[dim].values.astype(float)
        out[dim] = {
            "type": "spatial", "axis": axis, "extent": [float(values.min()), float(values.max())],
            "step": float((values[-1] - values[0]) / (values.size - 1)), "reference_system": system,
        }  # fmt: skip
    if "time" in mask.dims:
        stamps = sorted(map(_stamp, times))
        out["time"] = {"type": "temporal", "extent": [stamps[0], stamps[-1]], "values": stamps}
    if "class" in mask.dims:
        out["class"] = {"type": "classes", "values": [str(name) for name in mask["class"].values]}
    variable = {"dimensions": [str(dim) for dim in mask.dims], "type": "data"}
    about = {"description": str(mask.attrs.get("long_name", "cloud mask"))}
    return {"cube:dimensions": out, "cube:variables": {str(mask.name or "cloud_mask"): {**variable, **about}}}
