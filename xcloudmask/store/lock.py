"""One writer at a time: a lease in the store.

The lock is a chain of small documents ``stream/lock.1``, ``lock.2``, ... (empty Zarr groups, so that the
store stays a valid hierarchy), each written only if absent. The chain is walked from 1 to its end:

* a document whose owner may be alive ends the walk: `StoreLockedError`;
* past stale ones the next number is claimed; of several claimants the store lets one win.

A lock is stale if its owner ran on this machine, since it was started last, and its process is gone (a killed
run is followed at once), if this machine has been restarted since, or if it was not renewed for `LEASE`
seconds by its own count of them (clocks of different machines may differ by less than that). Owners renew
every `RENEWAL` seconds and look whether a higher number has been claimed meanwhile, as may happen to a
machine that slept; such an owner stops. Released locks are deleted from 1 upwards, so a missing 1 means that
nobody writes.

Icechunk keeps writers apart itself and needs none of this.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from xcloudmask.errors import StoreError, StoreLockedError
from xcloudmask.store.retry import brief
from xcloudmask.store.store import Target, group_document

log = logging.getLogger("xcloudmask.streaming")

LEASE = 90.0
RENEWAL = 15.0
FOLDER = "stream"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Return when a process was started, in the kernel's count; empty if there is no such process."""
    stat = _read(f"/proc/{pid}/stat")
    if stat:
        fields = stat.rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "unknown"


def here() -> dict[str, Any]:
    """Return what tells this process from all others."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "machine": _read("/etc/machine-id") or f"{uuid.getnode():x}",
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "pids": namespace,
        "pid": os.getpid(),
        "started": _started(os.getpid()),
    }


def is_stale(lock: dict[str, Any], me: dict[str, Any], now: float) -> bool:
    """Whether the owner of a lock is surely gone."""
    if now - float(lock.get("renewed", 0)) > LEASE:
        return True
    if any(lock.get(key) != me[key] for key in ("host", "machine")):
        return False
    if lock.get("boot") != me["boot"]:
        return True
    return lock.get("pids") == me["pids"] and _started(int(lock["pid"])) != lock.get("started")


class Lock:
    """Held from `acquire` to `release`; a thread renews it meanwhile."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.number = 0
        self.lost: str | None = None
        self._owner = uuid.uuid4().hex
        self._since = time.time()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Take the lock, or raise `StoreLockedError` with who holds it."""
        if self.target.transactional:
            return
        me, number = here(), 1
        while True:
            holder = self._holder(number)
            if holder is None:
                if self.target.put_if_absent(self._document(), *self._names(number)):
                    break
                continue
            if not is_stale(holder, me, time.time()):
                raise StoreLockedError(_refusal(self.target, holder))
            log.warning("%s: taking over from a writer that is gone (%s)", self.target.label, _who(holder))
            number += 1
        self.number = number
        self._thread = threading.Thread(target=self._renew, name="xcloudmask-lock", daemon=True)
        self._thread.start()

    def __enter__(self) -> Lock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Raise if somebody else has taken over."""
        if self.lost is not None:
            raise StoreLockedError(self.lost)

    def release(self) -> None:
        """Give the lock back."""
        if not self.number:
            return
        self._stop.set()
        # A store that is down has been waited for already.
        self.target = replace(self.target, patience=5.0)
        if self._thread is not None:
            self._thread.join()
        if self.lost is None:
            # also those behind a gap: of a run that was killed while it deleted its own
            left = replace(self.target, group=self.target.path(FOLDER)).children()
            numbers = {int(name[5:]) for name in left if name.startswith("lock.") and name[5:].isdigit()}
            for number in sorted({*range(1, self.number + 1), *numbers}):
                self.target.delete_tree(FOLDER, f"lock.{number}")
            # no empty folders are left where a refused call has written nothing
            if self.target.local is not None:
                with contextlib.suppress(OSError):  # not empty: the usual case
                    (self.target.local / FOLDER).rmdir()
        self.number = 0

    def _names(self, number: int) -> tuple[str, ...]:
        return FOLDER, f"lock.{number}", "zarr.json"

    def _holder(self, number: int) -> dict[str, Any] | None:
        document = self.target.get_json(*self._names(number))
        return None if document is None else dict(document.get("attributes", {}))

    def _document(self) -> bytes:
        attributes = {**here(), "owner": self._owner, "since": self._since, "renewed": time.time()}
        return json.dumps(group_document(attributes)).encode()

    def _renew(self) -> None:
        while not self._stop.wait(RENEWAL):
            try:
                mine, next_holder = self._holder(self.number), self._holder(self.number + 1)
                if mine is None or mine.get("owner") != self._owner or next_holder is not None:
                    self.lost = (
                        f"{self.target.label}: another process has taken over this store, as this one did "
                        f"not answer for {LEASE:.0f} s (was the machine asleep?). What it recorded is kept; "
                        "run the same call again when the other has ended"
                    )
                    return
                self.target.put(self._document(), *self._names(self.number))
            except StoreError as error:
                log.warning("cannot renew the lock of %s: %s", self.target.label, brief(error))


def _who(lock: dict[str, Any]) -> str:
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(lock.get("since", 0))))
    return f"process {lock.get('pid')} on {lock.get('host')}, since {since}"


def _refusal(target: Target, lock: dict[str, Any]) -> str:
    lapse = time.strftime("%H:%M:%S", time.localtime(float(lock.get("renewed", 0)) + LEASE))
    return (
        f"{target.label} is being written by {_who(lock)}. Wait until it has ended, or name another group. "
        f"If that process is gone, its lock lapses at {lapse}: run the same call again then"
    )
