"""Keep a store of masks up to date with a catalogue: only what it lacks is computed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import xarray as xr

from xcloudmask.archive.index import Stored
from xcloudmask.archive.pending import (
    Item,
    find_items,
    missing_items,
    neighbours,
    plan_change,
    select_steps,
    with_stored_labels,
)  # fmt: skip
from xcloudmask.errors import CloudMaskError, ContractError
from xcloudmask.predict.options import Request
from xcloudmask.scene.aux_inputs import AuxLike, read_aux
from xcloudmask.stac import load_stac
from xcloudmask.stac.engines import Engine
from xcloudmask.stac.offset import OffsetMode
from xcloudmask.stac.transport import OnError
from xcloudmask.store.fingerprint import check_contract, describe_contract
from xcloudmask.store.header import put_group
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.packing import choose_packing
from xcloudmask.store.safety_copy import drop_copy
from xcloudmask.store.sizes import Sizes, choose_sizes
from xcloudmask.store.store import Target, open_store
from xcloudmask.streaming.api import Progress, stream
from xcloudmask.streaming.report import StreamReport
from xcloudmask.streaming.source import from_reflectance
from xcloudmask.types import ModelSpec

log = logging.getLogger("xcloudmask.streaming")


@dataclass(frozen=True, slots=True, repr=False)
class SyncReport:
    """What a sync did, by item id; print it for a summary.

    Examples
    --------
    >>> report = SyncReport("masks.zarr", added=("S2B_002",), skipped=("S2A_001",))
    >>> report.complete
    True
    >>> print(report)
    masks.zarr: 1 added, 0 replaced, 1 skipped, 0 left out, 0 failed
    """

    store: str
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()  # changed in the catalogue since, or processed anew
    skipped: tuple[str, ...] = ()  # there already
    left_out: tuple[str, ...] = ()  # beside the grid, an older processing of another, or unusable
    failed: tuple[str, ...] = ()  # not whole; the next sync tries them again
    stream: StreamReport | None = None

    @property
    def complete(self) -> bool:
        """Whether everything that was found is in the store."""
        return not self.failed

    def raise_if_failed(self) -> None:
        """Raise `CloudMaskError` if an item failed."""
        if self.failed:
            raise CloudMaskError(str(self))

    def __repr__(self) -> str:  # what a notebook shows
        return str(self)

    def __str__(self) -> str:
        kinds = ("added", "replaced", "skipped", "left_out", "failed")
        counts = ", ".join(f"{len(getattr(self, kind))} {kind.replace('_', ' ')}" for kind in kinds)
        lines = [f"{self.store}: {counts}"]
        if self.failed and self.stream is not None:
            lines.append(str(self.stream))
        return "\n".join(lines)


def sync(
    items_or_search: Any,
    store: Any,
    *,
    model: str | ModelSpec = "auto",
    group: str | None = None,
    bands: str | Sequence[str] = "auto",
    resolution: float | tuple[float, float] | None = None,
    crs: Any = None,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    level: str | None = None,
    offset: OffsetMode = "auto",
    resampling: str = "nearest",
    read_chunks: int | str | tuple[int, int] | Mapping[str, int] = 1024,
    engine: Engine = "stackstac",
    patch_url: Callable[[str], str] | None = None,
    modifier: Callable[[Any], Any] | None = None,
    on_error: OnError = "raise",
    gdal_env: Mapping[str, Any] | None = None,
    output: Literal["classes", "probabilities"] = "classes",
    threshold: float | None = None,
    scheme: str = "default",
    patch_size: int | None = None,
    overlap: int | None = None,
    working_resolution: str | float = "auto",
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    aux: AuxLike | None = None,
    tta: bool | int = False,
    uncertainty: bool = False,
    overwrite: bool = False,
    chunks: Sizes | None = None,
    shards: Sizes | Literal[False] | None = None,
    encoding: Mapping[str, Any] | None = None,
    progress: Progress = True,
    regions_in_flight: int | None = None,
    retries: int = 2,
    storage_options: dict[str, Any] | None = None,
) -> SyncReport:
    """Compute the masks of those items that a store lacks; the rest is not touched.

    An item is lacking if its id is not in the store, if not all of it was written, or if the catalogue's
    ``updated`` is newer than what the store recorded; one processed anew (a later baseline of the same scene)
    takes the older one's place. The first call makes the store and fixes its grid and bands, later ones
    continue it: run the same call every night. A sync that was stopped is resumed by the next.

    New steps are appended, also those of items that come late: what is stored is never moved. So the store's
    time is not sorted; `open_masks` and `timeseries` sort it, and so does
    ``xr.open_zarr(store).sortby("time")``.

    Parameters
    ----------
    items_or_search : pystac-client search, ItemCollection, items or FeatureCollection
        What there should be. What the store has beyond that is kept.
    store, model, group, output, threshold, scheme, patch_size, overlap, batch_size, device, dtype
        As of `stream`.
    tta, uncertainty
        As of `stream`.
    aux : DataArray, Dataset or mapping, optional
        As of `stream`; one picture for all times, such as a DEM.
    bands, resolution, crs, bbox, geometry, level, offset, resampling
        As of `load_stac`. They make the grid and the pixels, so they must not change from call to call.
    engine, patch_url, modifier, on_error, gdal_env
        As of `load_stac`.
    read_chunks : int, "auto", (int, int) or mapping
        ``chunks`` of `load_stac`.
    working_resolution : "auto", "native" or float
        ``resolution`` of `stream`.
    overwrite : bool
        Start anew: what the store holds is replaced.
    chunks, shards, encoding, progress, regions_in_flight, retries, storage_options
        As of `stream`. Shards hold one step.

    Returns
    -------
    SyncReport
        The items that were added, replaced, skipped, left out, and that failed.

    Raises
    ------
    ContractError
        The store holds something else; both values are shown.
    StoreError, StoreLockedError
        As of `stream`.

    Examples
    --------
    >>> import xcloudmask
    >>> report = xcloudmask.sync(search, "s3://bucket/masks.zarr", bbox=(10, 44, 11, 45))  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    s3://bucket/masks.zarr: 3 added, 0 replaced, 140 skipped, 0 left out, 0 failed
    """
    request = Request(
        output=output, model=model, threshold=threshold, scheme=scheme, patch_size=patch_size,
        overlap=overlap, batch_size=batch_size, device=device, dtype=dtype, resolution=working_resolution,
        aux=aux, tta=tta, uncertainty=uncertainty,
    )  # fmt: skip
    _check_aux(aux)
    target = Target(open_store(store, storage_options), group or "")
    stored = None if overwrite else Stored.read(target)
    found = find_items(items_or_search, modifier, stored)
    todo = missing_items(found, stored)
    skipped = tuple(str(item["id"]) for item in found if str(item["id"]) not in todo)
    asked = _settings(
        bands=bands, resolution=resolution, crs=crs, bbox=bbox, geometry=geometry, level=level, offset=offset,
        resampling=resampling,
    )  # fmt: skip
    record = _record(target, stored)
    _check_settings(target, stored, record, asked)
    if not found:
        return SyncReport(target.label)

    fresh = stored is None
    da = load_stac(
        [*todo.values(), *neighbours(found, todo)],
        bands=record["bands"] if record is not None else bands,
        resolution=resolution if fresh else None,
        crs=crs if fresh else None,
        bbox=bbox if fresh else None,
        geometry=geometry if fresh else None,
        like=None if stored is None else stored.open(),
        chunks=read_chunks, engine=engine, level=level, offset=offset, resampling=resampling,
        patch_url=patch_url, on_error=on_error, gdal_env=gdal_env,
    )  # fmt: skip
    _check_level(target, record, da)
    if stored is not None:  # also where nothing is missing: other options are not taken in silence
        _check_same(stored, da, request, chunks, shards, encoding)
    scene, replaced = select_steps(da, found, todo, stored)
    if not scene.sizes["time"]:
        return SyncReport(target.label, skipped=skipped, left_out=tuple(todo))
    if stored is None:
        _write_record(target, asked, scene)
    else:
        scene = with_stored_labels(scene, stored)
        stored.relabel(plan_change(stored, scene, replaced))
    done = stream(
        scene, target.store, model, group=group, output=output, threshold=threshold, scheme=scheme,
        patch_size=patch_size, overlap=overlap, resolution=working_resolution, batch_size=batch_size,
        device=device, dtype=dtype, aux=aux, tta=tta, uncertainty=uncertainty, overwrite=overwrite,
        chunks=chunks, shards=shards, encoding=encoding, progress=progress,
        regions_in_flight=regions_in_flight, retries=retries,
    )  # fmt: skip
    return _report(
        stored, scene, todo, replaced, SyncReport(target.label, skipped=skipped, stream=done), target
    )


def _check_aux(aux: AuxLike | None) -> None:
    """Refuse a picture for each time: which times are lacking is not known before the store is read."""
    for name, array in read_aux(aux).items():
        if array.sizes.get("time", 1) > 1:
            raise CloudMaskError(
                f"aux[{name!r}] has {array.sizes['time']} times, and sync takes one picture for all: "
                "aux.median('time'). For a picture for each time use load_stac and stream"
            )


def _check_same(
    stored: Stored,
    scene: xr.DataArray,
    request: Request,
    chunks: Sizes | None,
    shards: Sizes | Literal[False] | None,
    encoding: Mapping[str, Any] | None,
) -> None:
    """Refuse what `stream` would refuse, before any label is changed for it."""
    source = from_reflectance(scene, request)
    template = source.template
    dims = [str(dim) for dim in template.dims]
    storage = choose_sizes(dims, template.shape, source.spatial, source.class_dim, chunks, shards)
    packing = choose_packing(template.dtype, source.class_dim is not None, encoding)
    contract = describe_contract(template, source.spatial, "time", storage, packing, source.plan)
    check_contract(stored.header["contract"], contract, stored.target.label)


def _report(
    before: Stored | None,
    scene: xr.DataArray,
    todo: Mapping[str, Item],
    taken_over: Mapping[str, str],
    report: SyncReport,
    target: Target,
) -> SyncReport:
    after = Stored.read(target)
    names = [str(name) for name in scene.item_id.values]
    whole = {name for name in names if after is not None and after.done[after.places[name]]}
    had = {
        name
        for name in names
        if name in taken_over or (before and name in before.places and before.done[before.places[name]])
    }
    report = replace(
        report,
        added=tuple(name for name in names if name in whole - had),
        replaced=tuple(name for name in names if name in whole & had),
        left_out=tuple(name for name in todo if name not in names),
        failed=tuple(name for name in names if name not in whole),
    )
    log.info("%s", report)
    return report


def _settings(**given: Any) -> dict[str, Any]:
    """Return what fixes a store's grid and pixels, as JSON holds it."""
    out = dict(given)
    if given["crs"] is not None:
        from rasterio.crs import CRS

        out["crs"] = CRS.from_user_input(given["crs"]).to_string()
    if given["geometry"] is not None:
        shape = given["geometry"]
        out["geometry"] = getattr(shape, "__geo_interface__", shape)
    if given["bbox"] is not None:
        out["bbox"] = [float(value) for value in given["bbox"]]
    settings: dict[str, Any] = json.loads(json.dumps(out, default=list))
    return settings


_GRID = ("resolution", "crs", "bbox", "geometry")


def _record(target: Target, stored: Stored | None) -> dict[str, Any] | None:
    """Return what the first sync noted of its settings, unless the store has been replaced since."""
    found = (target.get_json(FOLDER, "sync", "zarr.json") or {}).get("attributes")
    if found is None or stored is None or found["grid"] != _grid(stored.open()):
        return None
    return dict(found)


def _write_record(target: Target, settings: Mapping[str, Any], scene: xr.DataArray) -> None:
    attributes = {
        "settings": settings,
        "bands": [str(name) for name in scene.band.values],
        "level": scene.attrs.get("level"),
        "grid": _grid(scene),
    }
    drop_copy(target)
    put_group(target, attributes, FOLDER, "sync")


def _grid(da: xr.DataArray) -> list[Any]:
    ends = [float(da[dim].values[at]) for dim in ("y", "x") for at in (0, -1)]
    return [da.rio.crs.to_string(), *ends, da.sizes["y"], da.sizes["x"]]


def _check_settings(
    target: Target, stored: Stored | None, record: Mapping[str, Any] | None, asked: Mapping[str, Any]
) -> None:
    if record is not None:
        check_contract(record["settings"], asked, target.label)
    elif stored is not None:
        given = [name for name in _GRID if asked[name] is not None]
        if given:
            raise ContractError(
                f"{target.label} was not made by sync and has a grid of its own: leave out {', '.join(given)}"
            )


def _check_level(target: Target, record: Mapping[str, Any] | None, da: xr.DataArray) -> None:
    level = da.attrs.get("level")
    if record is not None and level != record["level"]:
        raise ContractError(
            f"{target.label} was made from items of level {record['level']!r}, those that it lacks are of "
            f"{level!r}. Pass level={record['level']!r}, or narrow the search"
        )
