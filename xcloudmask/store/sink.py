"""The arrays of a store: created once, checked when met again, extended along one dimension.

Everything is written in an order that a kill cannot spoil. ``stream/zarr.json`` says what is there: it is
written before the arrays with ``state: creating`` and after them with ``ready`` and the number of steps, and
an array longer than that number is cut back before anything else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from xcloudmask.errors import ContractError, Remedy, StoreError, Use
from xcloudmask.store.fingerprint import check_contract
from xcloudmask.store.header import read_any_header, write_header
from xcloudmask.store.ledger import Ledger
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.metadata import append_labels, array_attrs, consolidate, coordinates, write_coordinates
from xcloudmask.store.overviews import drop_overviews
from xcloudmask.store.packing import Packing, with_checksum
from xcloudmask.store.retry import call_with_retries
from xcloudmask.store.safety_copy import drop_copy
from xcloudmask.store.sizes import Storage
from xcloudmask.store.store import Target

_ELSEWHERE = Remedy("name another store or {}", Use(group=...))

log = logging.getLogger("xcloudmask.streaming")


@dataclass(frozen=True)
class Output:
    """What a call wants to have in the store."""

    template: xr.DataArray  # its data is never looked at
    append_dim: str | None
    storage: Storage
    packing: Packing
    compressors: tuple[Any, ...] | None
    contract: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the array."""
        return str(self.template.name)

    @property
    def steps(self) -> int:
        """Length along the dimension that may grow."""
        return 0 if self.append_dim is None else int(self.template.sizes[self.append_dim])


@dataclass(frozen=True)
class Sink:
    """What a call found or made in the store."""

    target: Target
    array: Any
    ledger: Ledger
    storage: Storage  # with the store's number of steps
    steps: tuple[int, ...]  # where each step of the source lies in the store


def open_sink(target: Target, output: Output, *, resume: bool, overwrite: bool) -> Sink:
    """Find or make the arrays for an output; the caller holds the lock."""
    _refuse_repeats(output)
    try:
        header = read_any_header(target)
    except StoreError:
        if not overwrite:
            raise
        header = None  # damaged, and replaced
    _refuse_other_kinds(target)
    if overwrite or (header is not None and header.get("state") == "creating"):
        _remove(target, output, header)
        return _create(target, output)
    if header is None:
        _refuse_strangers(target, output)
        return _create(target, output)
    if not resume:
        refuse_existing(target)
    check_contract(header["contract"], output.contract, target.label)
    return _extend(target, output, header)


def refuse_existing(target: Target) -> NoReturn:
    """Say that a call which may not resume met a mask."""
    raise ContractError(
        f"{target.label} holds a mask already:",
        Remedy(
            "pass {} to go on with it, {} to replace it, or name another {}",
            Use(resume=True),
            Use(overwrite=True),
            Use(group=...),
        ),
    )


def _members(target: Target) -> list[str]:
    kinds = {name: (target.get_json(name, "zarr.json") or {}).get("node_type") for name in target.children()}
    return sorted(name for name, kind in kinds.items() if kind == "array")


def _refuse_other_kinds(target: Target) -> None:
    document = target.get_json("zarr.json")
    if document is not None and document.get("node_type") == "array":
        raise ContractError(f"{target.label} is an array, not a group;", _ELSEWHERE)
    if target.transactional or document is not None:
        return
    if any(target.get(name) is not None for name in (".zgroup", ".zarray")):
        raise ContractError(f"{target.label} is in Zarr format 2;", _ELSEWHERE)


def _refuse_strangers(target: Target, output: Output) -> None:
    if names := _members(target):
        shapes = ""
        if output.name in names:
            there = target.open_array(output.name, mode="r").shape
            shapes = f" Its {output.name!r} has shape {there}, this call's {output.template.shape}."
        raise ContractError(
            f"{target.label} holds arrays that stream did not write: {', '.join(names)}.{shapes}",
            Remedy(
                "Name another {}, or pass {} to replace those of this call's names",
                Use(group=...), Use(overwrite=True),
            ),
        )  # fmt: skip


def _remove(target: Target, output: Output, header: Mapping[str, Any] | None) -> None:
    """Delete what an earlier call made, and whatever has the name of something this one makes."""
    names = {output.name, *(str(name) for name in coordinates(output.template).coords)}
    if header is not None:
        names.update(header.get("arrays", ()))
    drop_copy(target)
    write_header(target, state="creating", arrays=sorted(names))
    target.sweep()  # half a document would pass for a stranger, and the list of arrays not be made
    for name in sorted(names):
        target.delete_tree(name)
    drop_overviews(target)
    for name in ("status", "sizes", "strips"):
        target.delete_tree(FOLDER, name)


def _create(target: Target, output: Output) -> Sink:
    coords = coordinates(output.template)
    names = sorted([output.name, *(str(name) for name in coords.coords)])
    write_header(target, state="creating", arrays=names)
    write_coordinates(target, coords, output.append_dim)
    template, storage = output.template, output.storage

    array = target.create_array(
        output.name,
        shape=template.shape,
        chunks=storage.chunks,
        shards=storage.shards,
        dtype=output.packing.dtype,
        compressors=with_checksum(output.compressors, output.packing, storage.shards is not None),
        fill_value=output.packing.fill,
        dimension_names=[str(dim) for dim in template.dims],
        attributes=array_attrs(template, output.packing, coords),
    )
    ledger = Ledger.create(target, storage.layout, _lead_dims(output))
    _ready(target, output.contract, names, output.steps)
    return Sink(target, array, ledger, storage, tuple(range(output.steps)))


def _ready(
    target: Target, contract: Mapping[str, Any], names: Sequence[str], steps: int, **more: Any
) -> None:
    consolidate(target, names)
    write_header(target, **more, state="ready", steps=steps, contract=dict(contract), arrays=list(names))


def _lead_dims(output: Output) -> list[str]:
    return [str(dim) for dim in output.template.dims[: len(output.storage.layout.lead)]]


def _extend(target: Target, output: Output, header: Mapping[str, Any]) -> Sink:
    """Open what is there, and append the steps that it lacks."""
    names, have = list(header["arrays"]), int(header["steps"])
    ledger = Ledger.open(target)
    if output.append_dim is None:
        return Sink(target, target.open_array(output.name), ledger, output.storage, ())
    _set_length(target, names, output.append_dim, have)
    ledger.resize(_resized(output, have).layout.grid)
    steps = _match(target, output, have)
    total = max(have, max(steps) + 1)
    if total > have:
        if have % output.storage.layout.block[_axis(output)]:
            raise ContractError(
                f"{target.label} has {have} steps along {output.append_dim!r}, which do not fill its "
                "last shard: nothing can be appended",
                Remedy("Write with shards of one step there, or into another {}", Use(group=...)),
            )
        drop_copy(target)
        fresh = output.template.isel({output.append_dim: [i for i, step in enumerate(steps) if step >= have]})
        _set_length(target, names, output.append_dim, total)
        labels = coordinates(fresh).variables
        for name, coord in labels.items():
            if output.append_dim in coord.dims and str(name) in names:
                append_labels(target.open_array(str(name)), coord, output.append_dim, have)
        late = {
            str(name): coord
            for name, coord in labels.items()
            if coord.dims == (output.append_dim,) and coord.dtype.kind == "f" and str(name) not in names
        }
        if late:  # such as where the sun stood, which the earlier steps did not know
            padded = {name: coord.pad({output.append_dim: (have, 0)}) for name, coord in late.items()}
            write_coordinates(target, xr.Dataset(coords=padded), output.append_dim)
            attrs = target.open_array(output.name).attrs
            listed = " ".join(sorted({*str(attrs.get("coordinates", "")).split(), *late}))
            call_with_retries(f"describe {target.label}", partial(attrs.update, {"coordinates": listed}))
            names = sorted([*names, *late])
        ledger.resize(_resized(output, total).layout.grid)
        more = {key: header[key] for key in ("overviews",) if key in header}
        _ready(target, header["contract"], names, total, **more)
    return Sink(target, target.open_array(output.name), ledger, _resized(output, total), steps)


def _axis(output: Output) -> int:
    return _lead_dims(output).index(str(output.append_dim))


def _resized(output: Output, steps: int) -> Storage:
    layout = output.storage.layout
    lead = list(layout.lead)
    lead[_axis(output)] = steps
    return replace(output.storage, layout=replace(layout, lead=tuple(lead)))


def _set_length(target: Target, names: Sequence[str], dim: str, steps: int) -> None:
    """Bring every array that has a dimension to a length along it."""
    for name in names:
        array = target.open_array(name)
        dims = array.metadata.dimension_names or ()
        if dim in dims and array.shape[dims.index(dim)] != steps:
            shape = tuple(steps if d == dim else n for d, n in zip(dims, array.shape, strict=True))
            call_with_retries(f"resize {name} in {target.label}", partial(array.resize, shape))


#: The label of a step without a date.
NO_DATE = "NaT"


def _match(target: Target, output: Output, have: int) -> tuple[int, ...]:
    """Return where each step of the source lies, or will lie, in the store."""
    dim, size = str(output.append_dim), output.steps
    if dim not in output.template.coords:
        if size != have:
            raise ContractError(
                f"{target.label} has {have} steps along {dim!r}, this call {size}, and no coordinate tells "
                f"which are the same: give the array one ({dim}=...)"
            )
        return tuple(range(size))
    stored = target.attempt(f"read {dim}", lambda: _labels(target.open_dataset(), dim))
    asked = _labels(coordinates(output.template), dim)
    places = {label: step for step, label in enumerate(stored)}
    fresh = [label for label in asked if label not in places]
    places |= {label: step for step, label in enumerate(fresh, have)}
    return tuple(places[label] for label in asked)


def _refuse_repeats(output: Output) -> None:
    dim = output.append_dim
    if dim is not None and dim in output.template.coords:
        labels = _labels(coordinates(output.template), dim)
        if len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ContractError(
                f"{dim} {twice[0]} {twice[1]} stands twice in this call: steps are told apart by {dim!r} and "
                "item_id. Drop one, or give them different item_id coordinates"
            )


def _labels(ds: xr.Dataset, dim: str) -> list[tuple[Any, str]]:
    """Return what tells the steps of a dimension apart: the label, and the source item if it is named."""
    labels = ds[dim].values
    if labels.dtype.kind == "M":
        labels = labels.astype("datetime64[us]")
    items = ds["item_id"].values if "item_id" in ds and ds["item_id"].dims == (dim,) else [""] * len(labels)
    # NaT differs from itself, and a scene without a date must be found again.
    named = [NO_DATE if label != label else label for label in np.asarray(labels)]
    return [(label, str(item)) for label, item in zip(named, items, strict=True)]
