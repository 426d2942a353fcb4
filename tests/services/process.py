"""Start a server, wait until it answers, and stop it with all its children."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

_PR_SET_PDEATHSIG = 1


def unavailable(reason: str) -> NoReturn:
    """Skip, and say why; on CI, where every server must be there, fail."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must run this, but {reason}")
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_program(name: str, *places: str) -> str:
    """Path of a program, looked for in the environment's own scripts, in PATH, and in `places`."""
    scripts = os.path.dirname(sys.executable)
    path = os.pathsep.join([scripts, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", *places])
    found = shutil.which(name, path=path)
    if found is None:
        unavailable(f"{name} is not installed (sh .ci/services.sh, and the extra 'test', install it)")
    return found


@contextmanager
def server(
    command: Sequence[str],
    ready: Callable[[], bool],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
    stop_signal: int = signal.SIGTERM,
    patience: float = 60,
) -> Iterator[subprocess.Popen[Any]]:
    """Run a server in a process group of its own while the block runs."""
    identity = {"user": user, "group": user, "extra_groups": []} if user else {}
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            **identity,
        )
    try:
        deadline = time.monotonic() + patience
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = log.read_text(errors="replace")[-2000:]
                pytest.fail(f"{command[0]} did not start (exit status {process.poll()}):\n{tail}")
            time.sleep(0.05)
        yield process
    finally:
        _stop(process, stop_signal)


def _die_with_parent() -> None:
    """Stop the server even if the test run is killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: subprocess.Popen[Any], stop_signal: int) -> None:
    # SIGQUIT before SIGKILL: PostgreSQL's children are in groups of their own, and only it can end them.
    for sign, patience in ((stop_signal, 5), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            break
        try:
            os.killpg(process.pid, sign)
            process.wait(patience)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)  # what the leader left behind


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def answers(url: str, statuses: Sequence[int] = (200,)) -> bool:
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=2) as answer:
            return answer.status in statuses
    except HTTPError as error:
        error.close()
        return error.code in statuses
    except (URLError, OSError):
        return False
