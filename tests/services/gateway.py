"""A real Dask Gateway whose schedulers and workers are processes of this machine."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.process import answers, find_program, free_port, server

PASSWORD = "not-a-secret"


@contextmanager
def dask_gateway(home: Path) -> Iterator[str]:
    """Run the gateway; yields its address. Everyone gets in, as the system's user."""
    program, dask = find_program("dask-gateway-server"), find_program("dask")
    port, inner = free_port(), free_port()
    config = home / "dask_gateway_config.py"
    config.write_text(
        "from dask_gateway_server.backends.local import UnsafeLocalBackend\n"
        "c.DaskGateway.backend_class = UnsafeLocalBackend\n"
        "c.DaskGateway.authenticator_class = 'dask_gateway_server.auth.SimpleAuthenticator'\n"
        f"c.SimpleAuthenticator.password = {PASSWORD!r}\n"
        f"c.DaskGateway.address = '127.0.0.1:{inner}'\n"
        f"c.Proxy.address = '127.0.0.1:{port}'\n"
        f"c.UnsafeLocalBackend.clusters_directory = {str(home / 'clusters')!r}\n"
        # distributed 2026.8 has neither dask-scheduler nor dask-worker
        f"c.ClusterConfig.scheduler_cmd = [{dask!r}, 'scheduler']\n"
        f"c.ClusterConfig.worker_cmd = [{dask!r}, 'worker']\n"
        "c.ClusterConfig.worker_cores = 1\n"
        "c.ClusterConfig.idle_timeout = 120\n"
    )
    url = f"http://127.0.0.1:{port}"
    with server([program, "-f", str(config)], lambda: answers(f"{url}/api/health"), home / "gateway.log"):
        yield url


def user() -> str:
    return getpass.getuser()
