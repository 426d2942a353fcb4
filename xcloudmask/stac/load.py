"""`load_stac`: the public call, from items to plans, to a grid, to layers, to the array."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from xcloudmask.errors import AssetError, CloudMaskError, OptionError, UnitError, names_checked
from xcloudmask.scene.describe import describe_bands, describe_scene, describe_times, texts
from xcloudmask.scene.dims import DEGREE
from xcloudmask.scene.sun_angles import describe_sun
from xcloudmask.stac.arrange import by_time_step, check_lacking, in_order, make_layers, newest, on_grid
from xcloudmask.stac.assumptions import warn_about
from xcloudmask.stac.bands import BandChoice, band_names, bands_by_sensor, choose_bands, keys_by_sensor
from xcloudmask.stac.boxes import is_geographic, parse_crs
from xcloudmask.stac.engines import Engine, Stack, build
from xcloudmask.stac.eopf import with_arrays
from xcloudmask.stac.grid import check_resolution, grid_like, make_grid
from xcloudmask.stac.item_plan import ItemPlan
from xcloudmask.stac.items import plain_items, with_preferred
from xcloudmask.stac.match_assets import UNTOLD, MatchedItem, match_item, name_unreadable
from xcloudmask.stac.offset import OffsetMode
from xcloudmask.stac.options import LoadOptions
from xcloudmask.stac.reader import with_places
from xcloudmask.stac.transport import OnError, Transport, for_each, freeze_env, make_read_text
from xcloudmask.stac.view import view_item
from xcloudmask.types import parse_level

if TYPE_CHECKING:
    import xarray as xr


@names_checked
def load_stac(
    items_or_search: Any,
    *,
    bands: str | Sequence[str] = "auto",
    resolution: float | tuple[float, float] | None = None,
    crs: Any = None,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    like: Any = None,
    chunks: int | str | tuple[int, int] | Mapping[str, int] = 1024,
    engine: Engine = "stackstac",
    mosaic: Literal["day"] | None = None,
    level: str | None = None,
    sentinel2_offset: OffsetMode = "auto",
    sun_elevation: float | Mapping[str, float] | None = None,
    resampling: str = "nearest",
    duplicates: Literal["newest", "keep"] = "newest",
    patch_url: Callable[[str], str] | None = None,
    prefer: str | None = None,
    modifier: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    retries: int = 4,
    timeout: float = 60.0,
    gdal_env: Mapping[str, Any] | None = None,
    filesystem: Any = None,
    allow_private_hosts: bool = True,
    max_pixels: int = 10_000_000_000,
    masks: bool = False,
    dtype: str = "float32",
) -> xr.DataArray:
    """Load STAC items as one lazy array of calibrated values.

    Reflectance is 0 to 1, temperature in kelvin, no data NaN, whatever the catalogue, the product level and
    the processing baseline. No asset is opened before the result is computed, but for the metadata of Zarr
    stores, and for headers where the items do not say where their pixels lie.

    Parameters
    ----------
    items_or_search : search, ItemCollection, items, FeatureCollection, table or JSON
        What to load: of pystac-client, pystac or plain; a table is a DataFrame as stac-geoparquet has it, or
        the path of such a file, JSON a text or the path of a file. Items of Zarr groups (EOPF) are read
        through their stores.
    bands : "auto", "all" or sequence of str
        ``"auto"`` takes what the models of this library can use: blue, green, red, one near infrared and the
        two short-wave infrareds, as far as every sensor at hand has them. Names may be common names, the
        provider's own, aliases, or keys of assets, which are then the ones that are read.
    resolution : float or (float, float), optional
        Pixel size in units of the CRS; the finest of the chosen bands if left out. Of copies of a band at
        several sizes the nearest is read that is no coarser.
    crs : str, int or CRS, optional
        The grid's CRS; by default that of the items, the most frequent one (with a warning) if there are
        several.
    bbox : (west, south, east, north), optional
        Extent in degrees. West greater than east means that it crosses the antimeridian.
    geometry : GeoJSON or shapely geometry, optional
        Extent in degrees, as its bounding box; pixels outside of the geometry are not masked.
    like : DataArray or Dataset, optional
        Take the grid of this one; it must have ``x``, ``y`` and a CRS.
    chunks : int, "auto", (int, int) or mapping, default 1024
        Rows and columns of a chunk. Time steps and bands are chunks of one.
    engine : {"stackstac", "odc"}
        What builds the graph. Grid and pixels are the same; stackstac's graph is smaller.
    mosaic : {"day"}, optional
        Merge the items of one sensor and solar day into one time step; where they overlap, the earlier
        valid pixel counts.
    level : {"toa", "boa"}, optional
        Take the items of this level only. Needed where both are among the items.
    sentinel2_offset : {"auto", "apply", "skip"}
        Whether Sentinel-2's offset of baseline 04.00 and later is added; ``"auto"`` decides for each item.
    sun_elevation : float or mapping of item id to float, optional
        Degrees, for items that need it and do not tell.
    resampling : str
        Name of rasterio's method, ``"nearest"`` or ``"bilinear"`` for instance. Quality bands are always
        nearest.
    duplicates : {"newest", "keep"}
        Of a scene that was processed more than once, keep the latest baseline (with a warning), or all.
    patch_url : callable, optional
        Called with each URL just before it is opened, ``planetary_computer.sign`` for instance.
    prefer : str, optional
        Of several addresses of an asset (``alternate``), the one to take: ``"s3"``, ``"https"``, or its name.
    modifier : callable, optional
        Called with a copy of each item (of pystac, if it was one) before it is interpreted.
    on_error : {"raise", "skip"}
        An asset that is missing or broken is an error, or no data and a warning that names it.
    retries : int
        Attempts after the first, with growing pauses, for 429, 5xx and broken connections.
    timeout : float
        Seconds that one request may take.
    gdal_env : mapping, optional
        Settings for GDAL. They travel in the graph: keep secrets in the environment of the workers.
    filesystem : fsspec file system, optional
        Opens the assets in GDAL's place (obstore's fsspec adapter too).
    allow_private_hosts : bool
        False refuses files on hosts with private or loopback addresses: for servers that load what strangers
        name. The environment variable ``XCLOUDMASK_ALLOW_PRIVATE_HOSTS=no`` does so for a whole process.
    max_pixels : int
        How many pixels a grid may have whose extent comes from the items alone: two of them far apart span
        half the globe. It does not matter where `bbox`, `geometry` or `like` is given.
    masks : bool
        Bring masks along, on the grid of the scenes: those of the products (SCL, those beside it in
        EOPF stores, QA_PIXEL, Fmask, the status map of Proba-V and SPOT-VGT) and ours, of items beside the
        scenes or alone, or of one collection.
        The result is a Dataset then: ``reflectance``, and a variable for each, as `masks.decode` takes it.
    dtype : {"float32", "float64"}
        Of the result.

    Returns
    -------
    xarray.DataArray
        ``(time, band, y, x)``, with the wavelengths of the bands, the items and sensors of the time steps,
        where the sun stood (sun_elevation, sun_azimuth; of several items the mean, where they tell), and the
        CRS as coordinates.

    Examples
    --------
    >>> from xcloudmask.stac import load_stac
    >>> place = {"proj:shape": [3, 4], "proj:transform": [10, 0, 300000, 0, -10, 4900020]}
    >>> item = {
    ...     "id": "S2A_T34RCT_20240517T091933_L2A",
    ...     "collection": "sentinel-2-c1-l2a",
    ...     "properties": {"datetime": "2024-05-17T09:19:33Z", "proj:code": "EPSG:32634",
    ...                    "s2:processing_baseline": "05.10"},
    ...     "assets": {"red": {"href": "https://example.com/B04.tif", **place,
    ...                        "raster:bands": [{"scale": 0.0001, "offset": -0.1, "nodata": 0}]}},
    ... }
    >>> scene = load_stac([item])
    >>> dict(scene.sizes), scene.band.values.tolist(), scene.attrs["level"]
    ({'time': 1, 'band': 1, 'y': 3, 'x': 4}, ['red'], 'boa')
    """
    options = dict(locals())  # exactly what the signature spells out
    del options["items_or_search"]
    from xcloudmask.stac.product_masks import as_collection, masks_alone, open_listed, split_items, with_masks

    dtype = LoadOptions(**options).dtype
    transport = Transport(
        retries, timeout, on_error, patch_url, freeze_env(gdal_env), filesystem, allow_private_hosts
    )

    if masks and (listed := as_collection(items_or_search)) is not None:
        return cast("xr.DataArray", open_listed([view_item(listed)], transport))
    items = with_arrays(
        with_preferred(plain_items(items_or_search, modifier), prefer), transport, masks=masks
    )
    _check_sun_elevation(sun_elevation, items)
    pixel = _pixel(like, crs, resolution)
    names = band_names(bands)
    matched, others = split_items(items, partial(_matched, pixel=pixel, keys=names), masks=masks)
    grid_of = partial(
        make_grid, crs=crs, resolution=resolution, bbox=bbox, geometry=geometry, like=like,
        max_pixels=max_pixels,
    )  # fmt: skip
    if not matched:
        alone = masks_alone(others, transport, partial(_chunk_shape, chunks), grid_of, engine)
        return cast("xr.DataArray", alone)
    keys = keys_by_sensor(matched)
    choices = choose_bands(bands_by_sensor(matched), bands, name_unreadable(matched), keys)
    plans = _plan(matched, choices, sentinel2_offset, sun_elevation, transport)
    warn_about((plan.item_id, assumption) for plan in plans for assumption in plan.assumptions)
    plans = in_order(_of_level(plans, level))
    check_lacking(plans, choices, on_error)
    if duplicates == "newest":
        plans = newest(plans)
    if like is None and crs is None:
        plans = with_places(plans, transport)
    grid = grid_of([source.place for plan in plans for source in plan.assets if source.place is not None])
    groups = by_time_step(on_grid(plans, grid), mosaic)
    stack = Stack(
        np.array([group[0].time for group in groups], dtype="datetime64[ns]"),
        tuple(make_layers(group, choices, grid) for group in groups),
        grid,
        _chunk_shape(chunks, grid.shape),
        resampling,
        transport,
        dtype,
    )
    array = _describe(build(stack, engine), stack, groups, choices, like)
    if not masks:
        return array
    scene = array.to_dataset(name="reflectance")
    return cast("xr.DataArray", with_masks(scene, stack, groups, matched, others, engine))


def _matched(item: Mapping[str, Any], **how: Any) -> MatchedItem:
    try:
        view = view_item(item)
    # where an entry is of another kind than STAC's: a number for a list, a text that is no number
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise CloudMaskError(
            f"item {item['id']!r} is not understood: {error!r}",
            "If an entry of it is wrong (item.validate() of pystac tells which), correct it or leave it out; "
            "else the fault is this library's: report it, with the item",
        ) from error
    return match_item(view, **how)


def _check_sun_elevation(given: Any, items: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a mapping that names an item which is not loaded: a slip that would go unseen."""
    if isinstance(given, Mapping):
        ids = [str(item["id"]) for item in items]
        for name in given:
            if name not in ids:
                raise OptionError("item in sun_elevation", name, allowed=ids[:20])


def _plan(
    items: Sequence[MatchedItem],
    choices: Sequence[BandChoice],
    offset: OffsetMode,
    sun_elevation: float | Mapping[str, float] | None,
    transport: Transport,
) -> list[ItemPlan]:
    """Plan each item for those of the chosen bands that it holds; left out if its coefficients are lost."""
    from xcloudmask.stac.plan import make_plan

    read_text = make_read_text(transport)

    def plan(item: MatchedItem) -> ItemPlan:
        name = item.view.id
        names = [own for choice in choices if (own := choice.name_in(item)) is not None]
        sun = sun_elevation.get(name) if isinstance(sun_elevation, Mapping) else sun_elevation
        read = partial(read_text, remote=item.view.remote)
        try:
            return make_plan(item, bands=names, offset=offset, sun_elevation=sun, read_text=read)
        except AssetError as error:
            if transport.on_error == "skip":
                raise
            who = "" if repr(name) in str(error) else f"item {name!r}: "
            raise AssetError(f"{who}{error} Leave it out, or pass on_error='skip'.") from error

    return for_each(plan, items, lambda item: item.view.id, transport.on_error)


def _of_level(plans: Sequence[ItemPlan], level: str | None) -> Sequence[ItemPlan]:
    """Return the items of the wanted level; mixing top and bottom of atmosphere is never silent."""
    counts = Counter(plan.level for plan in plans)
    if level is None:
        if len(counts) > 1:
            levels = ", ".join(
                f"{number} {name} (such as {next(p.item_id for p in plans if p.level == name)!r})"
                for name, number in counts.items()
            )
            raise UnitError(f"the items mix processing levels: {levels}. Pass level='toa' or level='boa'")
        return plans
    wanted = parse_level(level)
    kept = [plan for plan in plans if plan.level == wanted]
    if not kept:
        raise CloudMaskError(f"no item is of level={wanted!r}: all {len(plans)} are {', '.join(counts)}")
    return kept


def _pixel(like: Any, crs: Any, resolution: float | tuple[float, float] | None) -> float | None:
    """Return the pixel size that is asked for in metres, roughly; None if none is."""
    if like is not None:
        grid = grid_like(like)
        crs, resolution = grid.crs, (grid.res_x, grid.res_y)
    if resolution is None:
        return None
    name = None if crs is None else parse_crs(crs)
    size = min(check_resolution(resolution, name))
    return size * DEGREE if name is not None and is_geographic(name) else size


def _chunk_shape(
    chunks: int | str | tuple[int, int] | Mapping[str, int], shape: tuple[int, int]
) -> tuple[int, int]:
    hint = "Give a number of pixels, 'auto', (rows, columns), or {'y': rows, 'x': columns}."
    if isinstance(chunks, str):
        if chunks != "auto":
            raise OptionError("chunks", chunks, hint=hint)
        from dask.array.core import normalize_chunks

        sizes = normalize_chunks(  # type: ignore[no-untyped-call]
            (1, 1, "auto", "auto"), (1, 1, *shape), dtype="float32", previous_chunks=(1, 1, 1024, 1024)
        )
        return int(sizes[2][0]), int(sizes[3][0])
    if isinstance(chunks, Mapping):
        pair = [chunks.get("y", shape[0]), chunks.get("x", shape[1])]
        if set(chunks) - {"y", "x", "time", "band"}:
            raise OptionError("chunks", chunks, hint=hint)
    elif isinstance(chunks, (tuple, list)):
        pair = list(chunks)
    else:
        pair = [chunks, chunks]
    sizes = [size if value == -1 else value for value, size in zip(pair, shape, strict=False)]
    if len(pair) != 2 or any(
        isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1 for n in sizes
    ):
        raise OptionError("chunks", chunks, hint=hint)
    return min(int(sizes[0]), shape[0]), min(int(sizes[1]), shape[1])


def _describe(
    data: Any, stack: Stack, groups: Sequence[Sequence[ItemPlan]], choices: Sequence[BandChoice], like: Any
) -> xr.DataArray:
    import xarray as xr

    # An instrument that no item tells is no sensor's name: what reads the array would look it up in vain.
    sensors = ["+".join(dict.fromkeys(p.sensor for p in group if p.sensor != UNTOLD)) for group in groups]
    x, y = stack.grid.x, stack.grid.y
    if like is not None:  # the very same floats, so that xarray aligns the two
        x, y = like[like.rio.x_dim].values, like[like.rio.y_dim].values
    array = xr.DataArray(data, dims=("time", "band", "y", "x"), coords={"y": y, "x": x}, name="reflectance")
    array = describe_bands(array, [choice.band for choice in choices])
    ids = ["+".join(plan.item_id for plan in group) for group in groups]
    array = describe_times(array, list(stack.times), ids, sensors)
    addresses = ["\n".join(plan.address for plan in group) for group in groups]  # a path may have a space
    array = array.assign_coords(item_href=("time", texts(addresses)))
    array = describe_sun(
        array, [[(plan.sun_elevation, plan.sun_azimuth) for plan in group] for group in groups]
    )
    levels = [plan.level for group in groups for plan in group]
    return describe_scene(array, levels=levels, sensors=sensors if all(sensors) else (), crs=stack.grid.crs)
