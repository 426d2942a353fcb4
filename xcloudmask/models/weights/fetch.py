"""Where weights come from: a file or an address; fetched once for all processes, checked every time.

What is returned are the bytes whose SHA-256 was compared, so nothing can change between check and use.
Files in the cache are named after their hash: no name that a server chose ever becomes a path.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import socket
import stat
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from xcloudmask._version import __version__
from xcloudmask.errors import WeightsError
from xcloudmask.models.weights.atomic import replace_file

log = logging.getLogger("xcloudmask")

#: No model that masks clouds is larger; a server that sends more is not sending one.
MAX_BYTES = 4 * 2**30
#: Text that describes a model is never larger.
MAX_TEXT = 16 * 2**20
BLOCK = 2**20
TRIES = 5
#: Answers that are worth asking again for.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

#: Weights that a name needs no file for: bytes by their hash, put there by `hold`.
HELD, PACKAGE = "held:", "package:"
_held: dict[str, bytes] = {}


class MissingError(WeightsError):
    """There is nothing at an address, and whoever serves it says so."""


def cache_dir() -> Path:
    """Return the folder that fetched weights are kept in; ``XCLOUDMASK_CACHE`` names another.

    Examples
    --------
    >>> cache_dir().name
    'xcloudmask'
    """
    own = os.environ.get("XCLOUDMASK_CACHE")
    if own:
        return Path(own)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "xcloudmask"


def offline() -> bool:
    """Whether the user forbade the network (``XCLOUDMASK_OFFLINE=1``)."""
    return os.environ.get("XCLOUDMASK_OFFLINE", "").lower() not in ("", "0", "false", "no")


def local_path(href: str) -> Path | None:
    """Return the path that `href` means, or None if it is an address on a network.

    Examples
    --------
    >>> local_path("https://example.com/model.onnx") is None
    True
    """
    if href.startswith(PACKAGE):
        return Path(__file__).parents[1] / "data" / Path(href.removeprefix(PACKAGE)).name
    try:
        parts = urlsplit(href)
    except ValueError as error:  # such as brackets that do not close
        raise WeightsError(f"{href!r} is no address: {error}. Pass a path or an https address") from error
    if "\0" in href:
        raise WeightsError(f"{href!r} is no path: it has a NUL in it")
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in href:
        return None
    return Path(href)


def read(href: str, sha256: str) -> bytes:
    """Return the weights at `href` after comparing their hash, which may be empty for a local file only.

    An address is http(s), or what fsspec has a file system for (s3, gs, hf).
    """
    if sha256.lower() in _held:
        return _held[sha256.lower()]
    if href.startswith(HELD):
        raise WeightsError(
            f"the model's weights {sha256[:12]} were registered in another process and have not come to this "
            "one: call predict, or xcloudmask.models.own.send(NAME), after the cluster's Client is made"
        )
    path = local_path(href)
    if path is not None:
        return _checked(_read_file(path), sha256, href) if sha256 else _read_file(path)
    if not sha256:
        raise WeightsError(
            f"{href}: the SHA-256 of these weights is not known, and what comes over a network is not parsed "
            "unchecked. Pass sha256=, from where the author publishes it"
        )
    return _cached(href, sha256.lower())


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def hold(data: bytes) -> str:
    """Keep weights in this process under their hash, which is returned; `read` then gives them.

    Examples
    --------
    >>> read("held:", hold(b"weights"))
    b'weights'
    """
    sha256 = digest(data)
    _held[sha256] = data
    return sha256


def read_text(href: str) -> bytes:
    """Return a small file, such as a STAC item, from a path or an address. It is not kept."""
    path = local_path(href)
    if path is not None:
        data = _read_file(path)
    elif offline():
        raise WeightsError(
            f"{href} is on a network and XCLOUDMASK_OFFLINE is set: save it, and give its path"
        )
    else:
        data = _download(href, MAX_TEXT)
    if len(data) > MAX_TEXT:
        raise WeightsError(f"{href} has more than {MAX_TEXT:,} bytes: no description of a model is so large")
    return data


def _read_file(path: Path) -> bytes:
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe or a device may never end, or never begin
            raise WeightsError(
                f"the weights {path} cannot be read: it is no regular file. Pass the path of one"
            )
        if state.st_size > MAX_BYTES:
            raise WeightsError(
                f"{path} has {state.st_size / 1e9:.0f} GB: no model that masks clouds is so large"
            )
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"the weights {path} cannot be read: {error.strerror}. To workers of a cluster that do not see "
            "this file, xcloudmask.models.own.send(NAME) takes it"
        ) from error


def _checked(data: bytes, sha256: str, href: str) -> bytes:
    actual = digest(data)
    if actual != sha256.lower():
        raise WeightsError(
            f"{href} has SHA-256 {actual}, expected {sha256.lower()}: the file was altered, is another "
            "version, or did not arrive whole. Nothing of it was used"
        )
    return data


def _cached(href: str, sha256: str) -> bytes:
    from filelock import FileLock

    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise WeightsError(f"sha256={sha256!r} is no SHA-256: it has 64 hexadecimal digits")
    folder = cache_dir() / "weights"
    kept = folder / sha256
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(
            f"the cache {folder} cannot be made: {error.strerror}; name another folder with XCLOUDMASK_CACHE"
        ) from error
    with FileLock(f"{kept}.lock"):  # processes that want the same file wait for the first, then find it
        if kept.exists():
            data = kept.read_bytes()
            if digest(data) == sha256:
                return data
            log.warning("%s in the cache is damaged; fetching it again", kept)
            kept.unlink()
        if offline():
            raise WeightsError(
                f"{href} is not in the cache and XCLOUDMASK_OFFLINE is set: unset it once, or put the file "
                f"there as {kept}"
            )
        for part in folder.glob(f"{sha256}.*.part"):  # of a process that was killed as it wrote
            part.unlink()
        data = _checked(_download(href, MAX_BYTES), sha256, href)
        replace_file(kept, data)
    return data


def _download(href: str, limit: int) -> bytes:
    """Read an address whole, but for what goes beyond `limit`; what may pass is tried again."""
    for attempt in range(1, TRIES + 1):
        try:
            return _read_address(href, limit)
        except _TransientError as error:
            if attempt >= min(error.tries, TRIES):
                raise WeightsError(
                    f"{href} cannot be fetched after {attempt} attempt{'s' * (attempt > 1)}: {error}.",
                    "Without a network, download that address elsewhere, and load the file: "
                    "xcloudmask models load FILE, or xcloudmask.models.load(FILE)",
                ) from error
            log.warning("%s: %s; trying again", href, error)
            time.sleep(error.wait or min(0.25 * 2 ** (attempt - 1), 8))
    raise AssertionError  # the last attempt returned or raised


class _TransientError(Exception):
    """Something that may work a moment later."""

    def __init__(self, message: str, wait: float = 0.0, tries: int = TRIES) -> None:
        super().__init__(message)
        self.wait, self.tries = wait, tries


def _read_address(href: str, limit: int) -> bytes:
    from tqdm.auto import tqdm

    file, total = (_http if urlsplit(href).scheme in ("http", "https") else _fsspec)(href)
    hidden = True if limit == MAX_TEXT else None  # None: unless there is a terminal
    with file, tqdm(total=total, unit="B", unit_scale=True, desc="weights", disable=hidden) as bar:
        data = bytearray()
        try:
            while block := file.read(BLOCK):
                data += block
                bar.update(len(block))
                if len(data) > limit or (total or 0) > limit:
                    raise WeightsError(
                        f"{href} is larger than {limit / 2**20:,.0f} MiB: no model that masks clouds is"
                    )
        except (OSError, http.client.HTTPException) as error:  # a cut connection
            raise _TransientError(str(error)) from error
    if total is not None and len(data) < total:
        raise _TransientError(f"the connection ended after {len(data)} of {total} bytes")
    return bytes(data)


def _http(href: str) -> tuple[Any, int | None]:
    """Open an address; urllib takes proxies from the environment and follows redirects to http(s) only."""
    request = urllib.request.Request(href, headers={"User-Agent": f"xcloudmask/{__version__}"})
    try:
        answer = urllib.request.build_opener(_HttpOnly).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code in TRANSIENT:
            wait = error.headers.get("Retry-After", "")
            seconds = min(float(wait), 60.0) if wait.isdigit() else 0.0
            raise _TransientError(f"HTTP {error.code}", seconds) from error
        kind = MissingError if error.code == 404 else WeightsError
        raise kind(f"{href} cannot be fetched: HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        tries = 2 if isinstance(reason, socket.gaierror) else TRIES  # no such host: there is no network
        raise _TransientError(str(reason), tries=tries) from error
    length = answer.headers.get("Content-Length")
    return answer, int(length) if length else None


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never out of http(s)."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise WeightsError(
                f"{req.full_url} redirects to {newurl!r}, which is no http(s) address: refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fsspec(href: str) -> tuple[Any, int | None]:
    """Open an address for which fsspec has a file system."""
    import fsspec

    scheme = urlsplit(href).scheme
    try:
        fs, path = fsspec.core.url_to_fs(href)
    except (ImportError, ValueError) as error:
        packages = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs"}
        hint = f"pip install {packages[scheme]}" if scheme in packages else "use a path or an https address"
        raise WeightsError(f"{href} cannot be fetched: {error}; {hint}") from error
    try:
        return fs.open(path, "rb"), fs.size(path)
    except (FileNotFoundError, PermissionError) as error:
        kind = MissingError if isinstance(error, FileNotFoundError) else WeightsError
        raise kind(f"{href} cannot be fetched: {error}") from error
    except OSError as error:
        raise _TransientError(str(error)) from error
