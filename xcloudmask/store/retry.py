"""What can go wrong with a store, in words; and waiting out what passes by itself."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from xcloudmask.errors import StoreError

log = logging.getLogger("xcloudmask.streaming")


#: How long an unreachable store is waited for, in seconds, and the longest pause between two attempts.
PATIENCE = 180.0


LONGEST_PAUSE = 15.0


T = TypeVar("T")


#: Error numbers for which waiting is no help, and what to tell the user.
_FINAL = {
    errno.ENOSPC: "the disk is full. Free some space",
    errno.EDQUOT: "the disk quota is used up. Free some space",
    errno.EFBIG: "the file system or a limit of this process allows no file that large. Raise it",
    errno.EROFS: "the file system is read-only. Remount it, or name another store",
    errno.EACCES: "permission denied. Ask for write access, or name another store",
    errno.EPERM: "permission denied. Ask for write access, or name another store",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Name another store",
    errno.ENAMETOOLONG: "the path is too long. Name another store",
}


#: The same, by the words of clients that have no error numbers.
_FINAL_WORDS = {
    "read-only": "it was opened read-only. Open it for writing, or name another store",
    "read only": "it was opened read-only. Open it for writing, or name another store",
    "accessdenied": "access denied. Check the credentials and that they may write here",
    "access denied": "access denied. Check the credentials and that they may write here",
    "forbidden": "access denied. Check the credentials and that they may write here",
    "invalidaccesskeyid": "the access key is not known there. Check the credentials",
    "signaturedoesnotmatch": "the secret key is wrong. Check the credentials",
    "unauthenticated": "the credentials are refused. Check them",
    "nosuchbucket": "the bucket does not exist. Create it, or name another",
    "no such bucket": "the bucket does not exist. Create it, or name another",
    "no space left on device": _FINAL[errno.ENOSPC],
    "quota exceeded": _FINAL[errno.EDQUOT],
    "permission denied": _FINAL[errno.EACCES],
    "not a directory": _FINAL[errno.ENOTDIR],
}


_RESUME = "then run the same call again: it goes on where it stopped"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came from; a group's members, too."""
    seen: set[int] = set()
    stack: list[BaseException] = [error]
    while stack:
        one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        stack += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        if isinstance(one, BaseExceptionGroup):
            stack += one.exceptions


def final_reason(error: BaseException) -> str | None:
    """Return why trying again is no use, or None if it may be of use.

    Examples
    --------
    >>> final_reason(OSError(28, "No space left on device"))
    'the disk is full. Free some space'
    >>> final_reason(ConnectionRefusedError()) is None
    True
    """
    for one in _chain(error):
        if isinstance(one, PermissionError):
            return _FINAL[errno.EACCES]
        if isinstance(one, OSError) and one.errno in _FINAL:
            return _FINAL[one.errno]
        text = f"{type(one).__name__} {one}".lower()
        for words, reason in _FINAL_WORDS.items():
            if words in text:
                return reason
    return None


def may_pass(error: BaseException) -> bool:
    """Whether an error looks like one of the network or the server rather than of the program."""
    if final_reason(error) is not None:
        return False
    for one in _chain(error):
        module = type(one).__module__.partition(".")[0]
        if isinstance(one, (OSError, TimeoutError)) and not isinstance(
            one, (FileNotFoundError, FileExistsError)
        ):
            return True
        if module in ("botocore", "aiobotocore", "aiohttp", "obstore", "httpx", "requests", "urllib3"):
            return True
        if module == "icechunk" and re.search(r"object store|storage|i/o error|dispatch", str(one).lower()):
            return True
    return False


def persistently(what: str, call: Callable[[], T], patience: float | None = None) -> T:
    """Call until it works: an error that may pass is waited out, any other becomes a `StoreError`.

    Parameters
    ----------
    what : str
        What is being done, for the message: ``"write region ... to s3://..."``.
    call : callable
        Must be safe to repeat.
    patience : float, optional
        Seconds to wait in all; `PATIENCE` by default.
    """
    began, pause = time.monotonic(), 0.25
    while True:
        try:
            return call()
        except StoreError:
            raise
        except Exception as error:
            reason = final_reason(error)
            if reason is not None:
                raise StoreError(f"cannot {what}: {reason}, {_RESUME}. ({_brief(error)})") from error
            if not may_pass(error):
                raise
            waited = time.monotonic() - began
            if waited + pause > (PATIENCE if patience is None else patience):
                raise StoreError(
                    f"cannot {what}: the store did not answer for {waited:.0f} s. Check that it runs and can "
                    f"be reached, {_RESUME}. ({_brief(error)})"
                ) from error
            log.warning("cannot %s; trying again in %.1f s (%s)", what, pause, _brief(error))
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _brief(error: BaseException) -> str:
    told = str(error)
    if "See previous exception" in told and error.__cause__ is not None:  # rasterio's way of saying nothing
        told = str(error.__cause__)
    text = f"{type(error).__name__}: {told}" if told else type(error).__name__
    return text if len(text) < 300 else text[:297] + "..."


def brief(error: BaseException) -> str:
    """Return an error as one short line.

    Examples
    --------
    >>> brief(ValueError("no such item"))
    'ValueError: no such item'
    """
    return " ".join(_brief(error).split())
