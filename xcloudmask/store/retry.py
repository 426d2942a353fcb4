"""What an error of a disk, a server or a network means, in words; and trying again where that may help.

`classify` is the one table of such words: of stores, and of the assets of catalogues, read by GDAL, fsspec or
plain HTTP. `call_with_retries` waits out what passes, for a time, and names what does not; `repeat` tries a
number of times and leaves the error as it is.
"""

from __future__ import annotations

import errno
import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, TypeVar

from xcloudmask.errors import AssetError, StoreError

log = logging.getLogger("xcloudmask.streaming")

#: How long an unreachable store is waited for, in seconds, and the longest pause between two attempts.
PATIENCE = 180.0
LONGEST_PAUSE = 15.0
#: Pauses of `repeat`: the first, which doubles, the longest, and the longest that a server may ask for.
FIRST_DELAY, LONGEST_DELAY, LONGEST_ASKED = 0.5, 30.0, 120.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of error."""

    kind: Literal["passes", "absent", "final"]  # trying again may help, the file is not there, or neither
    name: str  # "full", "denied", "refused", "busy", ...
    reason: str = ""  # what to tell the user, and the remedy
    retries: int = 0  # how often at most it is worth trying again


_FULL = Fault("final", "full", "the disk is full. Free some space")
_QUOTA = Fault("final", "full", "the disk quota is used up. Free some space")
_DENIED = Fault("final", "denied", "permission denied. Ask for write access, or name another store")
_READ_ONLY = Fault(
    "final", "read_only", "it was opened read-only. Open it for writing, or name another store"
)
_NO_FOLDER = Fault("final", "path", "a part of the path is a file, not a folder. Name another store")
_REFUSED = Fault(
    "final", "refused", "access denied. Check the credentials and that they may read and write here"
)
_NO_BUCKET = Fault("final", "no_bucket", "the bucket does not exist. Create it, or name another")
_ABSENT = Fault("absent", "absent", "it is not there")
_BUSY = Fault("passes", "busy", "the server is busy", 1_000_000)
_BROKEN = Fault("passes", "broken", "the connection broke", 1_000_000)
_SHORT = Fault("passes", "short", "the file, or the answer, was cut short", 2)
_UNCLEAR = Fault("passes", "unclear", "it is not there, or the server hung up", 2)
_OTHER = Fault("final", "other")

_BY_NUMBER = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _QUOTA,
    errno.EFBIG: Fault(
        "final", "full", "the file system or a limit of this process allows no file that large. Raise it"
    ),
    errno.EROFS: Fault(
        "final", "read_only", "the file system is read-only. Remount it, or name another store"
    ),
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOTDIR: _NO_FOLDER,
    errno.ENAMETOOLONG: Fault("final", "path", "the path is too long. Name another store"),
}


def _words(*phrases: str) -> re.Pattern[str]:
    return re.compile("|".join(phrases), re.IGNORECASE)


def _status(codes: str) -> re.Pattern[str]:
    """Find a status where a status stands: paths hold such numbers too."""
    return _words(rf"(?:code|error|status|occurred)\W{{0,3}}(?:{codes})\b", rf"\b(?:{codes}), message")


#: The words of clients that have no error numbers; the first that fits counts.
_BY_WORDS: tuple[tuple[re.Pattern[str], Fault], ...] = (
    # what a status 403 or 404 may be for ...
    (_words("no ?such ?bucket"), _NO_BUCKET),
    (_words("no space left on device"), _FULL),
    (_words("quota exceeded"), _QUOTA),
    # ... and a status before words that may as well be of the path: /data/read-only/x.tif
    (_status("40[13]"), _REFUSED),
    (_status("404|410"), _ABSENT),
    (_status("408|429|50[0234]"), _BUSY),
    # zarr's and icechunk's words; numpy says "assignment destination is read-only", a bug of the program
    (
        _words("read[- ]only (?:store|session|mode|file ?system)", r"store (?:is|was opened) read[- ]only"),
        _READ_ONLY,
    ),
    (_words("permission denied"), _DENIED),
    (_words("not a directory"), _NO_FOLDER),
    (
        _words(
            "access ?denied", "access ?key", "credential", "signature", "unauthori[sz]ed", "unauthenticated",
            "forbidden",
        ),
        _REFUSED,
    ),
    (_words("no such file", "nosuchkey", "filenotfound"), _ABSENT),
    (_words("slow ?down", "too many requests", "temporarily unavailable"), _BUSY),
    (_words("curl error", "timed? ?out", "connection", "transfer closed", "range downloading"), _BROKEN),
    # GDAL says the same of a file that ends too early and of an answer that was cut short, ...
    (_words("readencoded", "fill(tile|strip)", r"got \d+ bytes", "readblock failed"), _SHORT),
    # ... and of a file that is not there and of a server that hung up.
    (_words("does not exist in the file system", "not recognized as being in a"), _UNCLEAR),
)  # fmt: skip

#: Packages whose errors are those of a network or a server.
_CLIENTS = (
    "botocore", "aiobotocore", "aiohttp", "obstore", "httpx", "requests", "urllib3", "rasterio", "gcsfs",
    "google", "azure",
)  # fmt: skip
_RESUME = "then run the same call again: it resumes"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from; a group's members, too."""
    seen: set[int] = set()
    stack: list[BaseException] = [error]
    while stack:
        current = stack.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        context = None if current.__suppress_context__ else current.__context__
        stack += [cause for cause in (context, current.__cause__) if cause is not None]
        if isinstance(current, BaseExceptionGroup):
            stack += current.exceptions


def messages(error: BaseException) -> str:
    """All that an error and its causes say: rasterio keeps GDAL's own words in the cause."""
    return "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in _chain(error)))


def classify(error: BaseException) -> Fault:
    """Return what kind of fault an error is, by the words of GDAL, curl, the servers and the clients.

    Examples
    --------
    >>> classify(OSError(28, "No space left on device")).reason
    'the disk is full. Free some space'
    >>> fault = classify(OSError("HTTP response code: 503"))
    >>> fault.kind, fault.name
    ('passes', 'busy')
    >>> classify(OSError("HTTP response code: 404")).kind
    'absent'
    """
    if isinstance(error, AssetError):  # it explains a fault already, and may quote its words
        return _OTHER
    for each in _chain(error):
        if isinstance(each, OSError) and each.errno in _BY_NUMBER:
            return _BY_NUMBER[each.errno]
    text = "; ".join(f"{type(each).__name__} {each}" for each in _chain(error))
    for words, fault in _BY_WORDS:
        if words.search(text):
            return fault
    if isinstance(error, PermissionError):  # s3fs gives it no number: words of the server came first
        return _DENIED
    return _BROKEN if isinstance(error, (ConnectionError, TimeoutError)) else _OTHER


def is_transient(error: BaseException) -> bool:
    """Whether an error looks like one of the network or the server rather than of the program.

    Examples
    --------
    >>> is_transient(ConnectionRefusedError()), is_transient(ZeroDivisionError())
    (True, False)
    """
    return not _is_final(error, classify(error)) and is_io(error)


def _is_final(error: BaseException, fault: Fault) -> bool:
    """Whether trying again is no use, and the user can be told why."""
    # KeyError("credential") is a bug of the program; that a store is read-only, zarr says by ValueError
    return fault.kind == "final" and fault is not _OTHER and (fault is _READ_ONLY or is_io(error))


def is_io(error: BaseException) -> bool:
    """Whether an error, or one it came from, is of the system, a server or a client of one.

    Examples
    --------
    >>> is_io(OSError("odd")), is_io(KeyError("not a directory"))
    (True, False)
    """
    for each in _chain(error):
        module = type(each).__module__.partition(".")[0]
        if isinstance(each, OSError) and not isinstance(each, (FileNotFoundError, FileExistsError)):
            return True
        if module in _CLIENTS:
            return True
        if module == "icechunk" and re.search(r"object store|storage|i/o error|dispatch", str(each).lower()):
            return True
    return False


def call_with_retries(what: str, call: Callable[[], T], patience: float | None = None) -> T:
    """Call until it works: an error that may pass is waited out, a final one becomes a `StoreError`.

    `what` is being done by the call, which must be safe to repeat; `PATIENCE` seconds are waited in all.
    """
    began, pause = time.monotonic(), 0.25
    while True:
        try:
            return call()
        except (StoreError, AssetError):
            raise
        except Exception as error:
            fault = classify(error)
            if _is_final(error, fault):
                raise StoreError(f"cannot {what}: {fault.reason}, {_RESUME}. ({brief(error)})") from error
            if not is_transient(error):
                raise
            waited = time.monotonic() - began
            if waited + pause > (PATIENCE if patience is None else patience):
                raise StoreError(
                    f"cannot {what}: the store did not answer for {waited:.0f} s. Check that it runs and can "
                    f"be reached, {_RESUME}. ({brief(error)})"
                ) from error
            log.warning("cannot %s; trying again in %.1f s (%s)", what, pause, brief(error))
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def repeat(
    call: Callable[[], T], retries: int, what: str, before_retry: Callable[[], None] | None = None
) -> T:
    """Call until it works, its fault is one that stays, or `retries` are used up: then raise its error.

    The call must be safe to repeat. Where `before_retry` is given, which is called before each further
    attempt, GDAL is at work, which has repeated by itself each request of a busy server.
    """
    for attempt in range(retries + 1):
        try:
            return call()
        except Exception as error:
            fault = classify(error)
            if attempt >= min(retries, fault.retries) or (before_retry is not None and fault is _BUSY):
                raise
            delay = min(FIRST_DELAY * 2**attempt, LONGEST_DELAY) * (0.75 + random.random() / 2)
            delay = max(delay, min(_asked_pause(error), LONGEST_ASKED))
            log.info("%s: %s; trying again in %.1f s", what, error, delay)
            time.sleep(delay)
            if before_retry is not None:
                before_retry()
    raise AssertionError("unreachable")


def _asked_pause(error: Exception) -> float:
    """Return the seconds that a server asks to wait, told as such or as a date; GDAL does not pass it on."""
    asked = str((getattr(error, "headers", None) or {}).get("Retry-After") or "").strip()
    if asked.isdecimal():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # none, or a date without a zone
        return 0.0


def brief(error: BaseException) -> str:
    """Return an error as one short line.

    Examples
    --------
    >>> brief(ValueError("no such item"))
    'ValueError: no such item'
    """
    text = str(error)
    if "See previous exception" in text and error.__cause__ is not None:  # rasterio's way of saying nothing
        text = str(error.__cause__)
    text = " ".join(f"{type(error).__name__}: {text}".split()) if text else type(error).__name__
    return text if len(text) < 300 else text[:297] + "..."
