"""Zarr stores, wherever they lie: which arrays a group has, where their pixels are, and a part's numbers.

A store is opened through obstore if that is installed, else through fsspec; with `Transport.filesystem`,
through that. What is opened and decoded is kept for a while: an EOPF product may have one chunk a band, which
every chunk of the result needs.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from xcloudmask.errors import AssetError
from xcloudmask.stac.boxes import Bounds, parse_crs, transform_box
from xcloudmask.stac.grid import Grid
from xcloudmask.stac.opening import check_host, is_local
from xcloudmask.stac.transport import Transport, s3_options
from xcloudmask.store.retry import is_io

#: Kinds of addresses that are opened, whoever names them.
KINDS = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss")
#: Bytes of decoded pixels that a process keeps.
KEPT_BYTES = 2**31
#: Rows and columns that are decoded in one go, where the store's own chunks are smaller.
_UNIT = 1024
#: Pixels around a block that a warp's kernel may reach, at the size of the coarser of the two.
_MARGIN = 4


def split(href: str) -> tuple[str, str]:
    """Return the address of a store, and the path within it; a query, as of a signature, is the store's.

    Examples
    --------
    >>> split("s3://bucket/a.zarr/measurements/reflectance")
    ('s3://bucket/a.zarr', 'measurements/reflectance')
    >>> split("https://a/b.zarr/r10m/b02?sig=1/2")
    ('https://a/b.zarr?sig=1/2', 'r10m/b02')
    """
    address, query = _parted(href)
    match = re.match(r"(.*?\.zarr)/+(.+?)/*$", address)
    root, path = (match[1], match[2]) if match else (address.rstrip("/"), "")
    return root + query, path


def join(root: str, path: str) -> str:
    """Return the address of what is in a store: what `split` parts.

    Examples
    --------
    >>> join("https://a/b.zarr?sig=1/2", "r10m/b02")
    'https://a/b.zarr/r10m/b02?sig=1/2'
    """
    address, query = _parted(root)
    return f"{address}/{path}{query}"


def _parted(href: str) -> tuple[str, str]:
    query = urlsplit(href).query if href.startswith(("http://", "https://")) else ""
    return (href.partition("?")[0], f"?{query}") if query else (href, "")


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """What a store says of one array over rows and columns."""

    path: str  # within the store
    shape: tuple[int, int]
    dtype: str
    fill: float | None
    attrs: Mapping[str, Any]  # as they are stored

    @property
    def group(self) -> str:
        """Path of the group that the array is in."""
        return self.path.rpartition("/")[0]


def open_group(root: str, transport: Transport, *, remote: bool = False) -> Any:
    """Return the root of a store as a Zarr group, read-only; the one opened already, if it is the same."""
    url = transport.url(root, remote=remote)
    if is_local(url):  # whoever opens it anew may have written to it
        _KEPT.forget(url)
    return _group(url, transport, _stamp(url))


@lru_cache(maxsize=64)
def _group(url: str, transport: Transport, stamp: tuple[float, ...]) -> Any:
    import zarr

    return zarr.open_group(read_only_store(url, transport), mode="r")


def _stamp(url: str) -> tuple[float, ...]:
    """Return what changes when a store on this machine is written again."""
    if not is_local(url):
        return ()
    names = (
        os.path.join(url.removeprefix("file://"), name) for name in (".zmetadata", ".zattrs", "zarr.json")
    )
    return tuple(os.stat(name).st_mtime_ns for name in names if os.path.exists(name))


def read_only_store(url: str, transport: Transport) -> Any:
    """Return the store at an address, for reading."""
    from zarr.storage import FsspecStore, LocalStore

    if transport.filesystem is not None:
        _refuse_query(url, "leave out filesystem=")
        return FsspecStore.from_mapper(transport.filesystem.get_mapper(url), read_only=True)
    if is_local(url):
        return LocalStore(url.removeprefix("file://"), read_only=True)
    scheme = urlsplit(url).scheme.lower()
    if scheme in ("http", "https"):
        check_host(url, transport.allow_private_hosts)
    elif scheme not in KINDS:
        raise AssetError(f"{url[:200]!r} is not opened: addresses of kind {scheme}:// are not.")
    options = s3_options(dict(transport.gdal_env)) if scheme == "s3" else {}
    profile = _profile(transport) if scheme == "s3" and not {"key", "anon"} & {*options} else None
    try:
        if profile is None:
            return _obstore(url, scheme, transport)
        options["profile"] = profile
    except ImportError:
        pass
    _refuse_query(url, "pip install obstore")
    try:
        return FsspecStore.from_url(url, storage_options=options, read_only=True)
    except ImportError as error:
        raise AssetError(f"{url}: Zarr there needs obstore: pip install obstore ({error}).") from error


def _profile(transport: Transport) -> str | None:
    """Return whose keys are in a file (AWS_PROFILE, ~/.aws), which s3fs reads and obstore does not."""
    settings = {**os.environ, **dict(transport.gdal_env)}
    keys = settings.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    named = settings.get("AWS_PROFILE")
    has_keys = named is not None or os.path.exists(os.path.expanduser(keys))
    return (named or "default") if has_keys and find_spec("s3fs") else None


def _refuse_query(url: str, remedy: str) -> None:
    address, query = _parted(url)
    if query:
        raise AssetError(f"{address}: only obstore reads Zarr whose address has a query (?...): {remedy}.")


def _obstore(url: str, scheme: str, transport: Transport) -> Any:
    from datetime import timedelta

    from obstore.store import HTTPStore, from_url
    from zarr.storage import ObjectStore

    limits: dict[str, Any] = {
        "client_options": {"timeout": timedelta(seconds=transport.timeout), "allow_http": True},
        "retry_config": {"max_retries": 0},  # the reader tries again, and logs it
    }
    if scheme in ("http", "https"):
        return ObjectStore(HTTPStore.from_url(url, **limits), read_only=True)
    config: dict[str, Any] = {}
    url = re.sub("^gcs:", "gs:", url, flags=re.IGNORECASE)  # fsspec's word for it
    if scheme == "s3":
        names = {
            "key": "access_key_id", "secret": "secret_access_key", "token": "session_token",
            "endpoint_url": "endpoint", "anon": "skip_signature", "requester_pays": "request_payer",
        }  # fmt: skip
        options = s3_options(dict(transport.gdal_env))
        config = {ours: options[theirs] for theirs, ours in names.items() if theirs in options}
        if region := {**os.environ, **dict(transport.gdal_env)}.get("AWS_REGION"):
            config["region"] = region
    return ObjectStore(from_url(url, **(limits | ({"config": config} if config else {}))), read_only=True)


def arrays_below(group: Any, path: str) -> dict[str, ArrayFacts]:
    """Return the two-dimensional arrays below a path of a store's root, by path; from the metadata alone.

    Where these are not consolidated, and the store cannot be listed (HTTP), the groups that a GeoZarr
    ``multiscales`` names are looked into.
    """
    known = group.metadata.consolidated_metadata
    if known is not None:
        nodes = {name: meta for name, meta in known.flattened_metadata.items() if name.startswith(f"{path}/")}
    else:
        nodes = dict(_probed(group, path))
    return {
        name: array_facts(name, meta) for name, meta in nodes.items() if len(getattr(meta, "shape", ())) == 2
    }


def array_facts(path: str, meta: Any) -> ArrayFacts:
    """Return what the metadata of an array say."""
    fill = np.asarray(meta.fill_value if meta.fill_value is not None else np.nan)
    dtype = np.dtype(meta.dtype.to_native_dtype())  # of format 2 and 3
    number = float(fill) if fill.dtype.kind in "iuf" else float("nan")
    shape = (meta.shape[0], meta.shape[1])
    return ArrayFacts(path, shape, dtype.name, None if number != number else number, meta.attributes)


def _probed(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    node = group.get(path)
    if node is None:
        return
    try:
        members = list(node.members(max_depth=None))
    except Exception as error:  # HTTP lists nothing; each client has an error of its own for it
        if not is_io(error):
            raise
    else:
        yield from ((f"{path}/{name}", member.metadata) for name, member in members)
        return
    for level in dict(node.attrs).get("multiscales", {}).get("layout", ()):
        for number in ("01", "02", "03", "04", "05", "06", "07", "08", "8a", "09", "10", "11", "12"):
            name = f"{path}/{level['asset']}/b{number}"
            member = group.get(name)
            if member is not None:
                yield name, member.metadata


def grid_of_group(group: Any, path: str, crs: str, shape: tuple[int, int]) -> Grid:
    """Return where the pixels of a group's arrays lie: by its ``spatial:transform``, else by its x and y.

    The arrays' own ``proj:transform`` is not used: that of a resampled array is often its source's.
    """
    node = group[path]
    attrs = dict(node.attrs)
    transform = attrs.get("spatial:transform")
    if transform and len(transform) >= 6:
        a, b, left, d, e, top = transform[:6]
        if a > 0 > e and not b and not d:  # of a pixel's corner, or of its middle
            half = 0.5 if attrs.get("spatial:registration") == "node" else 0.0
            return Grid(crs, left - half * a, top - half * e, a, -e, shape)
    try:
        x, y = (np.asarray(node[name][:], "float64") for name in ("x", "y"))
    except KeyError as error:
        raise AssetError(f"{path}: it has no {error}, so nothing tells where its pixels lie.") from error
    if len(x) < 2 or len(y) < 2 or (len(y), len(x)) != shape:
        raise AssetError(f"{path}: its x and y have {len(x)} and {len(y)} values, its bands {shape} pixels.")
    grid = Grid.of_centres(crs, x, y)
    if grid.res_x <= 0 or grid.res_y <= 0:
        raise AssetError(f"{path}: its x and y do not run from west to east and from north to south.")
    return grid


class Raster:
    """One array of a store, with what the reader asks of a rasterio dataset.

    Its decoded pixels are kept under `name`, that of the array and its version.
    """

    count = 1

    def __init__(self, array: Any, grid: Grid, name: Any) -> None:
        from rasterio.crs import CRS

        self._array, self.grid, self._name = array, grid, name
        self.crs = CRS.from_user_input(grid.crs)
        self.transform = grid.transform
        self.height, self.width = grid.shape
        self.bounds = grid.bounds
        self.dtypes = (np.dtype(array.dtype).name,)
        self.nodata = float("nan") if array.dtype.kind == "f" else None

    def read(self, index: int, *, window: Any, masked: bool) -> Any:
        """Return a window as a masked array in which NaN alone is masked."""
        rows = slice(window.row_off, window.row_off + window.height)
        columns = slice(window.col_off, window.col_off + window.width)
        data = self.pixels(rows, columns)
        return np.ma.masked_array(data, mask=np.isnan(data) if data.dtype.kind == "f" else np.ma.nomask)

    def pixels(self, rows: slice, columns: slice) -> np.ndarray[Any, Any]:
        """Return pixels, each block of the array decoded once."""
        sizes = [size * max(1, -(-_UNIT // size)) if size < _UNIT else size for size in self._array.chunks]
        out = np.empty((rows.stop - rows.start, columns.stop - columns.start), self._array.dtype)
        for row in range(rows.start // sizes[0], -(-rows.stop // sizes[0])):
            for column in range(columns.start // sizes[1], -(-columns.stop // sizes[1])):
                block = _KEPT.get((self._name, row, column), partial(self._block, row, column, sizes))
                inner, outer = [], []
                for wanted, at, size in ((rows, row, sizes[0]), (columns, column, sizes[1])):
                    low, high = max(wanted.start, at * size), min(wanted.stop, (at + 1) * size)
                    inner.append(slice(low - at * size, high - at * size))
                    outer.append(slice(low - wanted.start, high - wanted.start))
                out[tuple(outer)] = block[tuple(inner)]
        return out

    def _block(self, row: int, column: int, sizes: list[int]) -> np.ndarray[Any, Any]:
        rows, columns = (
            slice(at * size, (at + 1) * size) for at, size in zip((row, column), sizes, strict=True)
        )
        return np.asarray(self._array[rows, columns])

    @contextmanager
    def around(self, block: Grid) -> Iterator[Any]:
        """Give a rasterio dataset of the pixels that a warp onto `block` may reach."""
        from rasterio.io import MemoryFile

        left, bottom, right, top = self._reach(block)
        own = self.grid
        columns = _span((left - own.left) / own.res_x, (right - own.left) / own.res_x, self.width)
        rows = _span((own.top - top) / own.res_y, (own.top - bottom) / own.res_y, self.height)
        data = self.pixels(rows, columns)
        part = own.window(rows.start, columns.start, (data.shape[0], data.shape[1]))
        form = {
            "driver": "GTiff", "count": 1, "height": data.shape[0], "width": data.shape[1],
            "dtype": data.dtype, "crs": self.crs, "transform": part.transform, "nodata": self.nodata,
        }  # fmt: skip
        with MemoryFile() as memory:
            with memory.open(**form) as file:
                file.write(data, 1)
            with memory.open() as file:
                yield file

    def _reach(self, block: Grid) -> Bounds:
        own = self.grid
        box = transform_box(block.bounds, block.crs, own.crs)
        across = max((box[2] - box[0]) / block.shape[1], own.res_x) * _MARGIN
        down = max((box[3] - box[1]) / block.shape[0], own.res_y) * _MARGIN
        return box[0] - across, box[1] - down, box[2] + across, box[3] + down


def _span(low: float, high: float, length: int) -> slice:
    """Return whole pixels; one at least, as a warp needs one even where its block lies beside the array."""
    first = min(max(math.floor(low), 0), length - 1)
    return slice(first, max(min(math.ceil(high), length), first + 1))


def open_array(url: str, crs: str | None, transport: Transport) -> Raster:
    """Return one array of a store, by its address (patched already), opened once for all its chunks."""
    return _raster(url, crs or "", transport, _stamp(split(url)[0]))


@lru_cache(maxsize=256)
def _raster(url: str, crs: str, transport: Transport, stamp: tuple[float, ...]) -> Raster:
    root, path = split(url)
    group = _group(root, transport, stamp)
    array = group.get(path)
    if array is None:
        raise AssetError(f"the store has no array {path!r}.")
    if not crs:
        raise AssetError("neither the item nor the store tells the CRS of its pixels.")
    grid = grid_of_group(group, path.rpartition("/")[0], parse_crs(crs), array.shape)
    return Raster(array, grid, (root, path, stamp))


class _Kept:
    """Decoded blocks, the last used first; each is made by whoever asks first, the others wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.reset()

    def reset(self) -> None:
        """Start anew: after a fork the locks may be held for ever, by threads that are not there."""
        self._size = 0
        self._lock = threading.Lock()
        self._blocks: OrderedDict[Any, np.ndarray[Any, Any]] = OrderedDict()
        self._making: dict[Any, threading.Lock] = {}

    def get(self, key: Any, make: Callable[[], np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        with self._lock:
            own = self._making.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                if key in self._blocks:
                    self._making.pop(key, None)
                    self._blocks.move_to_end(key)
                    return self._blocks[key]
            try:
                block = make()
                with self._lock:
                    self._size += block.nbytes - (self._blocks[key].nbytes if key in self._blocks else 0)
                    self._blocks[key] = block
                    while self._size > self._most and len(self._blocks) > 1:
                        self._size -= self._blocks.popitem(last=False)[1].nbytes
            finally:
                with self._lock:
                    self._making.pop(key, None)
        return block

    def forget(self, root: str) -> None:
        """Drop what was decoded of a store."""
        with self._lock:
            for key in [key for key in self._blocks if key[0][0] == root]:
                self._size -= self._blocks.pop(key).nbytes


_KEPT = _Kept(KEPT_BYTES)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_KEPT.reset)
