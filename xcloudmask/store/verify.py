"""Check every byte of a store of masks, and have what is damaged made anew."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xcloudmask.errors import ContractError, StoreError, names_checked
from xcloudmask.store.header import read_raw_header
from xcloudmask.store.icechunk import BranchStore
from xcloudmask.store.ledger import BARE, DONE, Ledger
from xcloudmask.store.lock import Lock
from xcloudmask.store.metadata import consolidate
from xcloudmask.store.overviews import fill_overviews, open_pyramid
from xcloudmask.store.regions import Index
from xcloudmask.store.retry import brief
from xcloudmask.store.safety_copy import (
    PATH,
    Entry,
    drop_copy,
    find_damage,
    overlay,
    read_copy,
    restored,
    write_copy,
)
from xcloudmask.store.sizes import storage_of
from xcloudmask.store.store import Target, open_existing, region_keys

#: Regions that are read at a time.
THREADS = 4


@dataclass(frozen=True, slots=True)
class Damage:
    """A file of a store that is not what was written."""

    path: str
    what: str


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport:
    """What was checked, and what is damaged; print it for a summary.

    Examples
    --------
    >>> print(VerifyReport("masks.zarr", 18, 25, (Damage("time/c/0", "it is missing"),)))
    masks.zarr: 18 regions and 25 files checked, 1 damaged
      time/c/0: it is missing
    Run it again with repair=True (on the command line: --repair)
    """

    store: str
    regions: int  # that were read
    files: int  # documents, coordinates and the ledger
    damaged: tuple[Damage, ...] = ()
    repaired: bool = False
    pending: int = 0  # regions that are yet to be made

    @property
    def ok(self) -> bool:
        """Whether all is as it was written."""
        return not self.damaged

    def __repr__(self) -> str:  # what a notebook shows
        return str(self)

    def __str__(self) -> str:
        lines = [
            f"{self.store}: {self.regions} regions and {self.files} files checked, "
            + (f"{len(self.damaged)} damaged" if self.damaged else "all as they were written")
        ]
        lines += [f"  {damage.path}: {damage.what}" for damage in self.damaged[:20]]
        if len(self.damaged) > 20:
            lines.append(f"  and {len(self.damaged) - 20} more")
        if self.damaged and not self.repaired:
            lines.append("Run it again with repair=True (on the command line: --repair)")
        if self.repaired:
            lines.append("Repaired")
        if self.pending:
            lines.append(f"{self.pending} regions are to be made: run the call that made the store again")
        return "\n".join(lines)


@names_checked
def verify(
    store: Any,
    group: str | None = None,
    *,
    repair: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> VerifyReport:
    """Check every byte of a store of masks: arrays, coordinates, documents and the ledger.

    Parameters
    ----------
    store : path, URL, zarr Store, obstore store, Icechunk repository or session
        As of `stream`.
    group : str, optional
        Group within the store.
    repair : bool
        Put damaged documents, coordinates and ledgers back from the copy that the store has of them, and
        delete damaged regions of the mask: they read as no data until the call that made the store, run
        again, makes them anew, with the others of their scene. The result is byte for byte what it was.
        Overviews are compared with the mask, and made anew from it at once.
    storage_options : dict, optional
        As of `stream`.

    Returns
    -------
    VerifyReport
        The files that are damaged.

    Raises
    ------
    ContractError
        There is no mask that `stream` wrote.
    StoreError
        What is damaged cannot be repaired.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, xarray as xr, xcloudmask
    >>> mask = xr.DataArray(np.zeros((90, 90), "u1"), dims=("y", "x"), name="cloud_mask")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = mask.cloudmask.to_zarr(folder, progress=False)
    ...     print(xcloudmask.verify(folder).ok)
    ...     chunk = pathlib.Path(folder, "cloud_mask/c/0/0")
    ...     size = chunk.write_bytes(chunk.read_bytes()[:-1])
    ...     print([damage.path for damage in xcloudmask.verify(folder, repair=True).damaged])
    ...     report = mask.cloudmask.to_zarr(folder, progress=False)
    ...     print(report.written, xcloudmask.verify(folder).ok)
    True
    ['cloud_mask/c/0/0']
    1 True
    """
    target = Target(open_existing(store, storage_options), group or "")
    with Lock(target) if repair else nullcontext():
        return _verify(target, repair)


def _verify(target: Target, repair: bool) -> VerifyReport:
    damaged: dict[str, str] = {}
    files: Mapping[str, Entry] | None = None
    try:
        files = read_copy(target)
        if files is None and not target.transactional:
            damaged["/".join(PATH)] = "there is none: the last call did not end, or it was deleted"
    except StoreError:
        damaged["/".join(PATH)] = "its checksum differs"
    if files is not None:
        damaged |= find_damage(target, files)
    # Whatever is damaged outside, regions are checked as the copy says.
    whole = target if files is None else replace(target, store=overlay(target, files))
    try:
        header = read_raw_header(whole)
        if header is None or header.get("state") != "ready":
            raise ContractError(
                f"{target.label} holds no finished mask that stream wrote. Check the path and group="
            )
        checked = _Arrays(whole, header)
    except StoreError as error:
        raise StoreError(
            f"{error}\nThe copy of its documents is not whole either, so it cannot be repaired: make it anew "
            "with overwrite=True"
        ) from error
    broken, coarse = checked.broken_regions()
    damaged |= {path: what for paths in (*broken.values(), *coarse.values()) for path, what in paths.items()}
    pending = int((checked.ledger.states != DONE).sum())
    if repair and damaged:
        pending = _repair(target, header, files, damaged, list(broken), list(coarse))
    count = len(checked.small) if files is None else len(files) + 1
    return VerifyReport(
        target.label,
        int((checked.ledger.states == DONE).sum()),
        count,
        tuple(Damage(path, what) for path, what in sorted(damaged.items())),
        repair and bool(damaged),
        pending,
    )


class _Arrays:
    """The mask, its coordinates and its ledger, each readable."""

    def __init__(self, target: Target, header: Mapping[str, Any]) -> None:
        self.prefix = f"{target.group}/" if target.group else ""
        self.name = str(header["contract"]["name"])
        self.small = [name for name in header["arrays"] if name.rpartition("/")[2] != self.name]
        for name in self.small:
            target.read(target.open_array(name, mode="r"))
        self.ledger = Ledger.open(target, mode="r")
        self.array = target.open_array(self.name, mode="r")
        self.layout = storage_of(header, self.array.shape).layout
        self.pyramid = open_pyramid(target, header)

    def broken_regions(self) -> tuple[dict[Index, dict[str, str]], dict[Index, dict[str, str]]]:
        """Read all regions that are done; return what is wrong with files of the mask, and of overviews."""
        regions = [at for at in self.layout.regions() if self.ledger[at] == DONE]
        sizes = self.ledger.wrong_sizes(self.array, self.layout, regions)

        def read(at: Index) -> tuple[dict[str, str], dict[str, str]]:
            where = self.layout.box(at, self.array.shape)
            try:
                values = self.array[where]
            except Exception as error:  # whatever a codec raises
                return self._named(self.array, where, brief(error)), {}
            if at in sizes:
                return self._named(self.array, where, sizes[at]), {}
            return {}, self._wrong_overviews(values, where)

        with ThreadPoolExecutor(THREADS) as pool:
            read_regions = list(zip(regions, pool.map(read, regions), strict=True))
        return (
            {at: wrong for at, (wrong, _) in read_regions if wrong},
            {at: wrong for at, (_, wrong) in read_regions if wrong},
        )

    def _wrong_overviews(self, values: Any, where: tuple[slice, ...]) -> dict[str, str]:
        out: dict[str, str] = {}
        for array, place, part in self.pyramid.parts(values, where) if self.pyramid else ():
            try:
                same = np.array_equal(array[place], part, equal_nan=part.dtype.kind == "f")
            except Exception as error:
                out |= self._named(array, place, brief(error))
                continue
            if not same:
                out |= self._named(array, place, "it is not an overview of what the mask holds")
        return out

    def _named(self, array: Any, where: tuple[slice, ...], what: str) -> dict[str, str]:
        return {key.removeprefix(self.prefix): what for key in region_keys(array, where)}


def _repair(
    target: Target,
    header: Mapping[str, Any],
    files: Mapping[str, Entry] | None,
    damaged: Mapping[str, str],
    broken: list[Index],
    coarse: list[Index],
) -> int:
    """Put back what was copied, have broken regions made anew; return how many are to be made."""
    copied = files or {}
    for path in (path for path in damaged if path in copied):
        entry = copied[path]
        data = restored(entry)
        if data is not None:
            target.put(data, path)
        elif entry is None:
            target.delete(path)
        else:
            raise StoreError(
                f"{target.label}/{path} is damaged, and too large to have been copied: make the store "
                "anew with overwrite=True"
            )
    drop_copy(target)
    ledger, array = Ledger.open(target), target.open_array(str(header["contract"]["name"]))
    layout = storage_of(header, array.shape).layout
    ledger.reopen(array, layout, broken, whole_scenes=header["contract"].get("made_by") == "windows")
    for at in coarse:
        if ledger[at] == DONE:
            ledger.mark(at, BARE)
    ledger.save()
    fill_overviews(target, array, ledger, layout, open_pyramid(target, header))
    if not target.transactional:
        consolidate(target, header["arrays"])  # others may have added arrays of theirs
    write_copy(target, header)
    if isinstance(target.store, BranchStore):
        message = f"{len(broken)} damaged regions are to be made anew"
        target.store.commit(message, {"group": target.group}, target.group, None)
    return int((ledger.states != DONE).sum())
