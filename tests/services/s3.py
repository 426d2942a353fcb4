"""A real S3 server (SeaweedFS) that checks keys."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.services.process import answers, find_program, free_port, listens, server

_KEY, _SECRET = "test-key", "test-secret-0123456789"


@dataclass
class S3:
    port: int
    key: str = _KEY
    secret: str = _SECRET

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def storage_options(self, secret: str | None = None) -> dict[str, Any]:
        """What s3fs needs."""
        return {"key": self.key, "secret": secret or self.secret, "endpoint_url": self.url}

    def gdal_env(self, secret: str | None = None) -> dict[str, Any]:
        """What GDAL needs."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": secret or self.secret,
            "AWS_S3_ENDPOINT": f"127.0.0.1:{self.port}",
            "AWS_HTTPS": False,
            "AWS_VIRTUAL_HOSTING": False,
            "AWS_REGION": "us-east-1",
        }

    def filesystem(self, secret: str | None = None, attempts: int = 5) -> Any:
        import s3fs

        config = {"retries": {"max_attempts": attempts}}
        options = self.storage_options(secret)
        return s3fs.S3FileSystem(**options, config_kwargs=config, skip_instance_cache=True)


@contextmanager
def seaweedfs(home: Path) -> Iterator[S3]:
    program = find_program("weed")
    # Each server of SeaweedFS also listens on its port + 10000.
    ports = {name: _pair_of_ports() for name in ("s3", "master", "volume", "filer")}
    config = home / "s3.json"
    identity = {"name": "test", "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"]}  # fmt: skip
    config.write_text(json.dumps({"identities": [identity]}))
    data = home / "data"
    data.mkdir()
    command = [
        program, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", "-s3",
        f"-s3.port={ports['s3']}", f"-master.port={ports['master']}", f"-volume.port={ports['volume']}",
        f"-filer.port={ports['filer']}", f"-s3.config={config}", "-volume.max=300",
        "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",  # they would take fixed ports
    ]  # fmt: skip
    s3 = S3(ports["s3"])

    def ready() -> bool:
        # 403 is the answer to a stranger. A volume server that is not registered yet refuses all writes.
        return (
            listens(s3.port)
            and answers(s3.url, (200, 403))
            and answers(f"http://127.0.0.1:{ports['volume']}/status")
        )

    try:
        # Asked politely it takes five seconds to stop; nothing it holds is wanted any more.
        with server(command, ready, home / "weed.log", stop_signal=signal.SIGKILL):
            _until_writable(s3)
            yield s3
    finally:
        for name, port in ports.items():  # its sockets, whose names cannot be chosen
            for socket in (f"seaweedfs-{name}-{port}", f"seaweedfs-{name}-grpc-{port + 10000}"):
                Path(f"/tmp/{socket}.sock").unlink(missing_ok=True)


def _pair_of_ports() -> int:
    import socket

    while True:
        port = free_port()
        if port > 55000:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        return port


def _until_writable(s3: S3) -> None:
    import time

    fs = s3.filesystem(attempts=1)
    deadline = time.monotonic() + 30
    while True:
        try:
            fs.makedirs("ready", exist_ok=True)
            fs.pipe_file("ready/ready", b"yes")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return
