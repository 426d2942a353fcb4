"""COGs over HTTP: nginx with range requests, and a proxy before it that misbehaves on demand."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.services.process import find_program, free_port, listens, server

#: Where the proxy takes orders.
CONTROL = "/--control--"

_CONF = """
{user}
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log {home}/access.log;
    client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@dataclass
class Web:
    """A directory, served."""

    root: Path
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def requests(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@contextmanager
def nginx(home: Path, root: Path) -> Iterator[Web]:
    program = find_program("nginx")
    port = free_port()
    conf = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    conf.write_text(_CONF.format(user=user, home=home, root=root, port=port))
    command = [program, "-c", str(conf), "-p", str(home), "-e", str(home / "error.log")]
    with server(command, lambda: listens(port), home / "nginx.out"):
        yield Web(root, port, home / "access.log")


class FaultProxy:
    """Forwards to nginx, but for the faults that tests queue for a path.

    A fault is a status (503), a pair of one and what ``Retry-After`` says, ``"cut"`` (headers and half of the
    body, then the line is dead), ``"drop"``
    (closed without an answer), or a number of seconds as float (a slow answer). ``"pass"`` is none.
    It is a process of its own: GDAL may hold Python's lock while it waits for an answer.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def queue(self, path: str, *faults: object) -> None:
        """Set what the next requests for `path` meet."""
        self._tell({"queue": {path: list(faults)}})

    def always(self, path: str, fault: object) -> None:
        """Set what all requests for `path` meet from now on."""
        self._tell({"always": {path: fault}})

    def state(self) -> dict[str, Any]:
        """Return the requests ``seen`` and the faults that are ``left``, by path."""
        return self._tell({})

    def _tell(self, order: dict[str, Any]) -> dict[str, Any]:
        with urlopen(self.url + CONTROL, data=json.dumps(order).encode(), timeout=10) as answer:
            state: dict[str, Any] = json.loads(answer.read())
        return state


@contextmanager
def fault_proxy(upstream: int, home: Path) -> Iterator[FaultProxy]:
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("proxy.py")), str(port), str(upstream)]
    with server(command, lambda: listens(port), home / "proxy.log", stop_signal=signal.SIGKILL):
        yield FaultProxy(port)
