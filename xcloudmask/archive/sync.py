"""Keep a store of masks up to date with a catalogue: only what it lacks is computed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import rioxarray  # noqa: F401  registers .rio
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
)
from xcloudmask.errors import CloudMaskError, ContractError, OptionError, names_checked
from xcloudmask.predict.options import PredictOptions
from xcloudmask.scene.aux_inputs import AuxLike, read_aux
from xcloudmask.stac import load_stac
from xcloudmask.stac.options import LoadOptions
from xcloudmask.store.fingerprint import check_contract
from xcloudmask.store.header import put_group
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.options import WriteOptions
from xcloudmask.store.safety_copy import drop_copy
from xcloudmask.store.sink import refuse_existing
from xcloudmask.store.store import Target, open_store
from xcloudmask.streaming.api import plan_output, stream
from xcloudmask.streaming.report import StreamReport
from xcloudmask.streaming.source import from_reflectance

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


@names_checked
def sync(
    items_or_search: Any,
    store: Any,
    *,
    load: Mapping[str, Any] = MappingProxyType({}),
    predict: Mapping[str, Any] = MappingProxyType({}),
    output: Literal["classes", "probabilities"] = "classes",
    write: Mapping[str, Any] = MappingProxyType({}),
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
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        As of `stream`.
    load : mapping
        Options of `load_stac`; they make the grid and the pixels, so they must not change from call to call.
        ``like``, ``mosaic`` and ``duplicates`` are settled by the store.
    predict : mapping
        Options of ``scene.cloudmask.predict``, or of ``predict_proba``. ``aux`` is one picture for all times,
        such as a terrain model.
    output : {"classes", "probabilities"}
        What to predict.
    write : mapping
        Options of ``mask.cloudmask.to_zarr``. ``overwrite=True`` starts anew. Shards hold one step.

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
    >>> area = {"bbox": (10, 44, 11, 45)}
    >>> report = xcloudmask.sync(search, "s3://bucket/masks.zarr", load=area)  # doctest: +SKIP
    >>> print(report)  # doctest: +SKIP
    s3://bucket/masks.zarr: 3 added, 0 replaced, 140 skipped, 0 left out, 0 failed
    """
    loading, writing = LoadOptions.read(_allowed(load)), WriteOptions.read(write)
    asked = PredictOptions.read(predict, output=output)
    if writing.append_dim != "time":
        raise OptionError("append_dim", writing.append_dim, allowed=["time"], hint="sync adds steps of time.")
    _check_aux(asked.aux)
    target = Target(open_store(store, writing.storage_options), writing.group or "")
    stored = None if writing.overwrite else Stored.read(target)
    if stored is not None and not writing.resume:  # before any label is changed
        refuse_existing(target)
    listed = find_items(items_or_search, loading.modifier, stored)
    todo = missing_items(listed, stored)
    skipped = tuple(str(item["id"]) for item in listed if str(item["id"]) not in todo)
    settings = _settings(loading)
    record = _record(target, stored)
    _check_settings(target, stored, record, settings)
    if not listed:
        return SyncReport(target.label)

    items = [*todo.values(), *neighbours(listed, todo)]
    kept = {} if stored is None else {**dict.fromkeys(_GRID), "like": stored.open()}
    if record is not None:
        kept["bands"] = record["bands"]
    da = load_stac(items, **{**loading.given(), "modifier": None, **kept, **_sun(loading, items)})
    _check_level(target, record, da)
    # What `stream` would refuse, before any label is changed, and also where nothing is missing: other
    # options are not taken in silence.
    if stored is not None:
        asked_for = plan_output(from_reflectance(da, asked), writing)
        check_contract(stored.header["contract"], asked_for.contract, target.label)
    scene, replaced = select_steps(da, listed, todo, stored)
    if not scene.sizes["time"]:
        return SyncReport(target.label, skipped=skipped, left_out=tuple(todo))
    if stored is None:
        _write_record(target, settings, scene)
    else:
        scene = with_stored_labels(scene, stored)
        stored.relabel(plan_change(stored, scene, replaced))
    done = stream(scene, target.store, predict=predict, output=output, **write)
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


def _allowed(load: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return options of loading, if they leave to the store what it settles."""
    for name in ("like", "mosaic", "duplicates", "masks"):
        if name in load:
            raise CloudMaskError(
                f"load={{{name!r}: ...}} is settled by sync: the store has its grid, and each item is a step",
                "Leave it out, or use load_stac and stream",
            )
    return load


def _sun(loading: LoadOptions, items: Sequence[Item]) -> dict[str, Any]:
    """Return the sun's elevation of those items only that are loaded now."""
    if not isinstance(loading.sun_elevation, Mapping):
        return {}
    ids = {str(item["id"]) for item in items}
    return {"sun_elevation": {name: sun for name, sun in loading.sun_elevation.items() if name in ids}}


def _settings(loading: LoadOptions) -> dict[str, Any]:
    """Return what fixes a store's grid and pixels, as JSON holds it."""
    out = {
        option.name: getattr(loading, option.name)
        for option in loading.fields()
        if option.metadata["recorded"]
    }
    if out["crs"] is not None:
        from rasterio.crs import CRS

        out["crs"] = CRS.from_user_input(out["crs"]).to_string()
    if out["geometry"] is not None:
        out["geometry"] = getattr(out["geometry"], "__geo_interface__", out["geometry"])
    if out["bbox"] is not None:
        out["bbox"] = [float(value) for value in out["bbox"]]
    settings: dict[str, Any] = json.loads(json.dumps(out, default=list))
    return settings


_GRID = ("resolution", "crs", "bbox", "geometry")


def _record(target: Target, stored: Stored | None) -> dict[str, Any] | None:
    """Return what the first sync noted of its settings, unless the store has been replaced since."""
    record = (target.get_json(FOLDER, "sync", "zarr.json") or {}).get("attributes")
    if record is None or stored is None or record["grid"] != _grid(stored.open()):
        return None
    return dict(record)


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
