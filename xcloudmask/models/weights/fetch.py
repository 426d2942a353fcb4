"""Where weights come from: a file or an address; fetched once for all processes, checked every time.

What is returned are the bytes whose SHA-256 was compared, so nothing can change between check and use.
Files in the cache are named after their hash: no name that a server chose ever becomes a path.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import unquote, urlsplit

from xcloudmask._version import __version__
from xcloudmask.errors import WeightsError

log = logging.getLogger("xcloudmask")

#: No model that masks clouds is larger; a server that sends more is not sending one.
MAX_BYTES = 4 * 2**30
BLOCK = 2**20
TRIES = 5
#: Answers that are worth asking again for.
TRANSIENT = {408, 425, 429, 500, 502, 503, 504}

#: Text that describes a model is never larger.
MAX_TEXT = 16 * 2**20
#: Weights that a name needs no file for: bytes by their hash, put there by `hold`.
HELD, PACKAGE = "held:", "package:"
_held: dict[str, bytes] = {}

Progress = Callable[[int, int | None], None]
Answer = TypeVar("Answer")


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
    parts = urlsplit(href)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if "://" in href:
        return None
    return Path(href)


def read(href: str, sha256: str, *, progress: Progress | None = None) -> bytes:
    """Return the weights at `href` after comparing their hash.

    Parameters
    ----------
    href : str
        A path, or an address: http(s), or what fsspec has a file system for (s3, gs, hf).
    sha256 : str
        What their SHA-256 must be. It may be empty for a local file only.
    progress : callable, optional
        Called with bytes had and bytes expected (or None); by default a bar if there is a terminal.
    """
    if sha256.lower() in _held:
        return _held[sha256.lower()]
    if href.startswith(HELD):
        raise WeightsError(
            f"the model's weights {sha256[:12]} were registered in another process and have not come to this "
            "one: call predict, or xcloudmask.models.send(NAME), after the cluster's Client is made"
        )
    path = local_path(href)
    if path is not None:
        return _checked(_read_file(path), sha256, href) if sha256 else _read_file(path)
    if not sha256:
        raise WeightsError(
            f"{href}: nothing tells the SHA-256 of these weights, and what comes over a network is not parsed"
            " unchecked. Pass sha256=, from where the author publishes it"
        )
    return _cached(href, sha256.lower(), progress or bar())


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
    """Return a small file, such as a STAC item, from a path or an address. It is not kept.

    Parameters
    ----------
    href : str
        See `read`.
    """
    path = local_path(href)
    if path is not None:
        data = _read_file(path)
    elif offline():
        raise WeightsError(
            f"{href} is on a network and XCLOUDMASK_OFFLINE is set: save it, and give its path"
        )
    else:
        data = _small(href)
    if len(data) > MAX_TEXT:
        raise WeightsError(f"{href} has more than {MAX_TEXT:,} bytes: no description of a model is so large")
    return data


def _small(href: str) -> bytes:
    def once() -> bytes:
        data = b""
        for block, _, _ in _source(href, 0):
            data += block
            if len(data) > MAX_TEXT:
                break
        return data

    return _patiently(href, once)


def _source(href: str, have: int) -> Iterator[tuple[bytes, int, int | None]]:
    return _http(href, have) if urlsplit(href).scheme in ("http", "https") else _fsspec(href, have)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise WeightsError(
                f"{path} has {path.stat().st_size / 1e9:.0f} GB: no model that masks clouds is so large"
            )
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise WeightsError(
            f"the weights {path} cannot be read: {error.strerror}. To workers of a cluster that do not see "
            "this file, xcloudmask.models.send(NAME) takes it"
        ) from error


def _checked(data: bytes, sha256: str, href: str) -> bytes:
    found = digest(data)
    if found != sha256.lower():
        raise WeightsError(
            f"{href} has SHA-256 {found}, expected {sha256.lower()}: the file was altered, is another "
            "version, or did not arrive whole. Nothing of it was used"
        )
    return data


def _cached(href: str, sha256: str, progress: Progress) -> bytes:
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
    with FileLock(f"{kept}.lock"):
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
        data = _fetch(href, sha256, kept.with_suffix(".part"), progress)
        whole = kept.with_suffix(f".{os.getpid()}")
        whole.write_bytes(data)
        os.replace(whole, kept)
        kept.with_suffix(".part").unlink(missing_ok=True)
    return data


def _fetch(href: str, sha256: str, part: Path, progress: Progress) -> bytes:
    """Download to `part`, going on where an earlier attempt stopped; anew if that gives a wrong hash."""
    for fresh in (False, True):
        if fresh:
            part.unlink(missing_ok=True)
        resumed = part.exists() and part.stat().st_size > 0
        _download(href, part, progress)
        data = part.read_bytes()
        if digest(data) == sha256 or not resumed:
            break
    if digest(data) != sha256:
        part.unlink(missing_ok=True)
    return _checked(data, sha256, href)


def _download(href: str, part: Path, progress: Progress) -> None:
    def once() -> None:
        have = part.stat().st_size if part.exists() else 0
        _append(part, _source(href, have), progress, href)

    _patiently(href, once)


def _patiently(href: str, once: Callable[[], Answer]) -> Answer:
    """Call `once` until it works, a few times."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return once()
        except _TransientError as error:
            if attempt == TRIES:
                raise WeightsError(f"{href} cannot be fetched after {TRIES} attempts: {error}") from error
            log.warning("%s: %s; trying again", href, error)
            time.sleep(error.wait or min(0.25 * 2 ** (attempt - 1), 8))


class _TransientError(Exception):
    """Something that may work a moment later."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def _append(
    part: Path, blocks: Iterator[tuple[bytes, int, int | None]], progress: Progress, href: str
) -> None:
    """Write blocks, each with where it belongs and the whole size."""
    total: int | None = None
    have = 0
    with open(part, "ab") as out:
        for block, start, total in blocks:
            if start == 0 and out.tell():  # the server began anew
                out.truncate(0)
            have = start + len(block)
            if have > MAX_BYTES or (total or 0) > MAX_BYTES:
                raise WeightsError(
                    f"{href} is larger than {MAX_BYTES / 2**30:.0f} GB: no model that masks clouds is"
                )
            out.write(block)
            progress(have, total)
    if total is not None and have < total:
        raise _TransientError(f"the connection ended after {have} of {total} bytes")


def _http(href: str, have: int) -> Iterator[tuple[bytes, int, int | None]]:
    """Read an address; urllib takes proxies from the environment and follows redirects to http(s) only."""
    request = urllib.request.Request(href, headers={"User-Agent": f"xcloudmask/{__version__}"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.build_opener(_HttpOnly).open(request, timeout=30)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing beyond what is here
            return
        if error.code in TRANSIENT:
            wait = error.headers.get("Retry-After", "")
            raise _TransientError(
                f"HTTP {error.code}", min(float(wait), 60.0) if wait.isdigit() else 0.0
            ) from error
        raise WeightsError(f"{href} cannot be fetched: HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransientError(str(getattr(error, "reason", error))) from error
    with closing(answer):
        start = have if answer.status == 206 else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        yield from _blocks(answer, start, total)


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never out of http(s)."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise WeightsError(
                f"{req.full_url} redirects to {newurl!r}, which is no http(s) address: refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fsspec(href: str, have: int) -> Iterator[tuple[bytes, int, int | None]]:
    import fsspec

    scheme = urlsplit(href).scheme
    try:
        fs, path = fsspec.core.url_to_fs(href)
    except (ImportError, ValueError) as error:
        packages = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "az": "adlfs"}
        hint = f"pip install {packages[scheme]}" if scheme in packages else "use a path or an https address"
        raise WeightsError(f"{href} cannot be fetched: {error}; {hint}") from error
    try:
        total = fs.size(path)
        with fs.open(path, "rb") as file:
            file.seek(have)
            yield from _blocks(file, have, total)
    except (FileNotFoundError, PermissionError) as error:
        raise WeightsError(f"{href} cannot be fetched: {error}") from error
    except (OSError, TimeoutError) as error:
        raise _TransientError(str(error)) from error


def _blocks(file: IO[bytes] | Any, start: int, total: int | None) -> Iterator[tuple[bytes, int, int | None]]:
    while True:
        try:
            block = file.read(BLOCK)
        except (OSError, http.client.HTTPException) as error:  # a cut connection
            raise _TransientError(str(error)) from error
        if not block:
            return
        yield block, start, total
        start += len(block)


def bar() -> Progress:
    """Return a progress bar on a terminal, nothing elsewhere."""

    def draw(have: int, total: int | None) -> None:
        share = f"{have / total:4.0%}" if total else ""
        end = "\n" if have == total else ""
        print(f"\rfetching weights {have / 1e6:.1f} MB {share}", end=end, file=sys.stderr, flush=True)

    return draw if sys.stderr.isatty() else lambda have, total: None
