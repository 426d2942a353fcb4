"""What is opened of what others name: which addresses, which formats, how many bytes. All else is refused.

GDAL opens far more than images: a text that names other files (VRT), prefixes that name a driver
(``GTIFF_DIR:``, ``WMS:``), archives inside of downloads. An address in an item, or a file that only looks
like a GeoTIFF, could so make it read any file of this machine or reach any host of its network.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import time
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import urlsplit

from xcloudmask.errors import AssetError, CloudMaskError

#: Bytes of metadata that are read at most; the largest of a Sentinel-2 product have less than two million.
MOST_BYTES = 8 * 2**20
#: Set to ``0``, ``no`` or ``false`` where items come from people who may not reach your own network.
PRIVATE_HOSTS = "XCLOUDMASK_ALLOW_PRIVATE_HOSTS"

_PREFIXES = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "abfs": "/vsiadls/",
    "abfss": "/vsiadls/",
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
}
_STORES = ("/vsis3/", "/vsigs/", "/vsiaz/", "/vsiadls/")
_ARCHIVES = ("/vsizip/", "/vsitar/")
#: A driver's name or a scheme; one letter is a drive of Windows.
_PREFIXED = re.compile(r"[A-Za-z][A-Za-z0-9+._-]+:")


class Readable(Protocol):
    """What can be read in pieces."""

    def read(self, size: int, /) -> bytes: ...  # noqa: D102


def is_zarr(href: str) -> bool:
    """Whether an address is one of a Zarr store, or of something within one.

    Examples
    --------
    >>> is_zarr("https://a/b.zarr/r10m"), is_zarr("b.zarr"), is_zarr("b.zarr.zip"), is_zarr("b.tif")
    (True, True, False, False)
    """
    return re.search(r"\.zarr(/|$)", urlsplit(href).path) is not None


def is_local(address: str) -> bool:
    """Tell whether an address is a path of this machine.

    Examples
    --------
    >>> [is_local(text) for text in ("/a.tif", "file:///a.tif", "/vsizip//a.zip/b.tif", "s3://bucket/a.tif")]
    [True, True, True, False]
    """
    if address.startswith("/vsi"):
        return address.startswith(_ARCHIVES)
    return "://" not in address or address.lower().startswith("file://")


def gdal_path(address: str, *, private: bool = True) -> str:
    """Return the path under which GDAL knows an address, or refuse one that is not simply that of a file.

    It may be a path, or a URL of http, https, s3, gs, az, abfs or file; with `private` of a host of a private
    address, too, if the environment does not forbid that.

    Examples
    --------
    >>> gdal_path("s3://bucket/a.tif")
    '/vsis3/bucket/a.tif'
    """
    if address.startswith("/vsi"):
        return _checked_vsi(address, private)
    scheme, separator, rest = address.partition("://")
    if separator and scheme.lower() != "file":
        prefix = _PREFIXES.get(scheme.lower())
        if prefix is None:
            raise _refused(address, f"addresses of kind {scheme}:// are not opened")
        check_host(address, private)
        return prefix + rest
    path = rest if separator else address
    if address.lstrip().startswith("<") or (_PREFIXED.match(path) and not os.path.lexists(path)):
        raise _refused(address, "it is neither a path nor a URL")
    # absolute, so that no file's name is taken for a driver's prefix
    return _regular(os.path.abspath(path))


def _checked_vsi(address: str, private: bool) -> str:
    if address.startswith(_STORES):
        return address
    if address.startswith("/vsicurl/"):
        url = address.removeprefix("/vsicurl/")
        if url.startswith(("http://", "https://")):
            check_host(url, private)
            return address
    kind = next((prefix for prefix in _ARCHIVES if address.startswith(prefix)), None)
    archive = address.removeprefix(kind or "")
    if kind is None or "://" in archive or re.match(r"[{/]*vsi", archive):  # GDAL needs no second slash
        raise _refused(address, "of GDAL's virtual files only plain ones are opened, none inside another")
    in_braces = re.match(r"\{(.*?)\}", archive)
    if in_braces:
        _regular(in_braces[1])
    return address


def _regular(path: str) -> str:
    """Refuse what is no file: a pipe never ends."""
    try:
        mode = os.stat(path).st_mode
    except OSError:  # whoever opens it says what is wrong
        return path
    if not stat.S_ISREG(mode):
        raise _refused(path, "it is a folder, a pipe or a device, and no file")
    return path


def _refused(address: str, why: str) -> AssetError:
    return AssetError(f"{address[:200]!r} is not opened: {why}. Give the path or the URL of a GeoTIFF.")


def check_host(url: str, private: bool = True) -> None:
    """Refuse a URL of a private or loopback address where the caller or the environment forbids them.

    GDAL follows redirections by itself, so a server that must not reach its own network needs a firewall too.
    """
    if private and os.environ.get(PRIVATE_HOSTS, "").strip().lower() not in ("0", "no", "false", "off"):
        return
    host = urlsplit(url).hostname or ""
    try:
        addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError) as error:
        raise AssetError(f"{host!r}: no such host ({error}).") from None
    local = [text for text in addresses if not ip_address(text.partition("%")[0]).is_global]
    if local:
        by = PRIVATE_HOSTS if private else "allow_private_hosts=False"
        why = f"{host} is {local[0]}, a private address, which {by} forbids"
        raise _refused(url.split("?", 1)[0], why)


def open_raster(path: str, *, filesystem: Any = None, own_vrt: bool = False) -> Any:
    """Open an image as GeoTIFF or JPEG 2000, whatever its name says: other formats may name other files.

    The path is as `gdal_path` returns it, or an address of the fsspec `filesystem`, which opens it in GDAL's
    place; with `own_vrt` it may be the text of a VRT, as `xcloudmask.local` writes it for HDF5.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    if own_vrt and path.startswith("<VRTDataset"):
        return rasterio.open(path, driver="VRT", sharing=False)
    drivers: tuple[str, ...] = ("GTiff", "JP2OpenJPEG")
    if re.search(r"\.(jp2|j2k|jpx)(\?|$)", path, re.IGNORECASE):
        drivers = ("JP2OpenJPEG", "JP2KAK", "JP2ECW", "GTiff")
    options = {"sharing": False} if filesystem is None else {"opener": filesystem}
    refusal: Exception | None = None
    for driver in drivers:
        try:
            return rasterio.open(path, driver=driver, **options)
        except RasterioIOError as error:
            if "not recognized as being in" not in str(error):
                if filesystem is not None:  # GDAL does not pass on what it says
                    with filesystem.open(path, "rb") as file:
                        file.read(1)
                raise
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def read_bounded(file: Readable, what: str, seconds: float | None = None) -> bytes:
    """Return what is in a file of metadata, or refuse one that is too large, or comes too slowly, to be that.

    Examples
    --------
    >>> import io
    >>> read_bounded(io.BytesIO(b"END"), "MTL")
    b'END'
    """
    start, parts, size = time.monotonic(), [], 0
    while part := file.read(2**16):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise CloudMaskError(
                f"{what}: larger than {MOST_BYTES // 2**20} MiB, which no product's metadata are. Fetch it"
                " again."
            )
        if seconds is not None and time.monotonic() - start > seconds:
            raise TimeoutError(f"{what}: timed out after {seconds:g} s, {size:,} bytes")
    return b"".join(parts)
