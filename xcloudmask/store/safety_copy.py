"""A copy of all that is small in a group, in the group: its documents, coordinates and ledger.

``stream/copy/zarr.json`` holds the bytes of these files and its own checksum. It is the last that a call
writes, and deleted before the next one changes anything, so while it is there, a file that differs from it is
damaged: a reader and a later call say so, and `verify` puts it back. What the mask itself is stored in has
checksums within (see `packing`), and its sizes in the ledger.

Icechunk checks and keeps what is committed by itself, and has none of this.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from itertools import product
from typing import Any

from xcloudmask.errors import StoreError
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.store import REMEDY, Target, group_document, groups_within, to_json

PATH = (FOLDER, "copy", "zarr.json")
#: Files above that many bytes (coordinates by row and column) are not copied, only known by their checksum.
LARGE = 2**20

#: What is copied of a file: its bytes (base 64), or its size and checksum; None: there is no such file.
Entry = str | list[int] | None


def entry_of(data: bytes | None) -> Entry:
    """Return what is copied of a file."""
    if data is None:
        return None
    return base64.b64encode(data).decode() if len(data) <= LARGE else [len(data), zlib.crc32(data)]


def _encode(files: Mapping[str, Entry]) -> bytes:
    attributes = {"files": files, "crc32": zlib.crc32(json.dumps(files, sort_keys=True).encode())}
    return json.dumps(group_document(attributes), sort_keys=True).encode()


def write_copy(target: Target, header: Mapping[str, Any]) -> None:
    """Copy what a call that has ended wrote, but for the chunks of the mask and its overviews."""
    if target.transactional:
        return
    arrays, name = header["arrays"], str(header["contract"]["name"])
    paths = ["zarr.json", f"{FOLDER}/zarr.json", f"{FOLDER}/sync/zarr.json"]
    paths += [f"{inner}/zarr.json" for inner in groups_within(arrays)]
    for array in (*arrays, f"{FOLDER}/status", f"{FOLDER}/sizes"):
        paths.append(f"{array}/zarr.json")
        if array.rpartition("/")[2] != name:
            opened = target.open_array(array, mode="r")
            paths += [
                f"{array}/{opened.metadata.encode_chunk_key(at)}"
                for at in product(*(range(count) for count in opened.cdata_shape))
            ]
    target.put(_encode({path: entry_of(data) for path, data in target.get_all(paths).items()}), *PATH)


def drop_copy(target: Target) -> None:
    """Delete the copy: something is about to change."""
    if not target.transactional:
        target.delete_tree(*PATH[:2])


def read_copy(target: Target) -> dict[str, Entry] | None:
    """Return the copy; None if there is none. Raises `StoreError` if it is damaged itself."""
    data = None if target.transactional else target.get(*PATH)
    if data is None:
        return None
    try:
        files: dict[str, Entry] = json.loads(data)["attributes"]["files"]
        whole = data == _encode(files)
    except (ValueError, TypeError, KeyError, AttributeError):
        whole = False
    if not whole:
        raise StoreError(f"{target.label}/{'/'.join(PATH)} is damaged: its checksum differs. {REMEDY}")
    return files


def find_damage(target: Target, files: Mapping[str, Entry]) -> dict[str, str]:
    """Return what is wrong with each file that differs from its copy."""
    out = {}
    for path, data in target.get_all(list(files)).items():
        entry = files[path]
        if entry_of(data) != entry and not (path == "zarr.json" and _is_opened_up(data, entry)):
            out[path] = "it is missing" if data is None else "it is not what was written"
    return out


def _is_opened_up(data: bytes | None, entry: Entry) -> bool:
    """Whether the group's document lacks its list of arrays only, as where a group was made within."""
    document = json.loads(restored(entry) or b"{}")
    document.pop("consolidated_metadata", None)
    return data == to_json(document)


def check_copy(target: Target) -> None:
    """Raise `StoreError` if a document, a coordinate or the ledger is damaged."""
    files = read_copy(target)
    damage = {} if files is None else find_damage(target, files)
    # A writer may have begun between the two looks: then the copy is gone, or another one.
    if damage and read_copy(target) == files:
        path, what = next(iter(damage.items()))
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        raise StoreError(
            f"{target.label}/{path}{more} is damaged, or was changed by another program: {what}. {REMEDY}"
        )


def restored(entry: Entry) -> bytes | None:
    """Return the bytes of a file, if they were copied."""
    return base64.b64decode(entry) if isinstance(entry, str) else None


def is_open(target: Target) -> bool:
    """Whether a call has begun to change the group, and not ended."""
    return not target.transactional and target.get(*PATH) is None


def overlay(target: Target, files: Mapping[str, Entry]) -> Any:
    """Return the store of a target as if its small files were whole."""
    from zarr.core.buffer import default_buffer_prototype
    from zarr.storage import WrapperStore

    whole = {
        target.path(path): data for path, entry in files.items() if (data := restored(entry)) is not None
    }

    class Whole(WrapperStore[Any]):
        async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
            if key in whole and byte_range is None:
                return (prototype or default_buffer_prototype()).buffer.from_bytes(whole[key])
            return await self._store.get(key, prototype or default_buffer_prototype(), byte_range)

    return Whole(target.store)
