"""Zarr stores: their addresses, where their pixels lie, and what a process keeps of them."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from xcloudmask.errors import AssetError
from xcloudmask.stac.transport import Transport, freeze_env
from xcloudmask.stac.zarr_store import (
    _Kept,
    grid_of_group,
    join,
    open_array,
    open_group,
    read_only_store,
    split,
)

QUERY = "?sig=1/2&to=a.zarr/b"


class _Signed(SimpleHTTPRequestHandler):
    """Serves a folder to those whose address is signed."""

    def do_GET(self) -> None:
        if self.path.endswith(QUERY):
            super().do_GET()
        else:
            self.send_error(403)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def signed(tmp_path: Path) -> Iterator[str]:
    group = zarr.open_group(tmp_path / "b.zarr", mode="w", attributes={}).create_group("r10m")
    group.create_array("b02", data=np.arange(16, dtype="u2").reshape(4, 4))
    group.create_array("x", data=np.arange(4) * 10.0 + 5)
    group.create_array("y", data=35 - np.arange(4) * 10.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Signed, directory=str(tmp_path)))
    threading.Thread(target=partial(server.serve_forever, 0.01), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/b.zarr"
    server.shutdown()
    server.server_close()


def test_a_query_is_the_stores_and_goes_with_every_request(signed: str) -> None:
    address = f"{signed}/r10m/b02{QUERY}"
    assert split(address) == (f"{signed}{QUERY}", "r10m/b02")
    assert join(*split(address)) == address
    pixels = open_array(address, "EPSG:32632", Transport()).pixels(slice(0, 4), slice(0, 4))
    np.testing.assert_array_equal(pixels, np.arange(16).reshape(4, 4))


@pytest.mark.services
def test_keys_in_a_file_are_used(s3_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which s3fs reads, and obstore does not."""
    fs, env = s3_server.filesystem(), dict(s3_server.gdal_env())
    fs.makedirs("scenes", exist_ok=True)
    zarr.open_group(fs.get_mapper("scenes/keys.zarr"), mode="w", zarr_format=2, attributes={"here": True})
    keys = [f"{name.lower()} = {env.pop(name)}" for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    (tmp_path / "keys").write_text("\n".join(["[mine]", *keys]))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "keys"))
    transport = Transport(gdal_env=freeze_env({**env, "AWS_PROFILE": "mine"}))
    assert open_group("s3://scenes/keys.zarr", transport).attrs["here"]


def test_the_addresses_of_google_of_both_kinds_are_opened() -> None:
    stores = [read_only_store(f"{kind}://bucket/a.zarr", Transport()) for kind in ("gs", "gcs")]
    assert stores[0].store == stores[1].store


def test_a_query_that_would_be_lost_is_refused(signed: str) -> None:
    through = Transport(filesystem=fsspec.filesystem("memory"))
    with pytest.raises(AssetError, match=r"b\.zarr: only obstore reads Zarr whose address has a query"):
        open_array(f"{signed}/r10m/b02{QUERY}", "EPSG:32632", through)


@pytest.mark.parametrize(("registration", "corner"), [(None, (100, 200)), ("node", (95, 205))])
def test_a_transform_of_nodes_is_of_the_pixels_middles(
    registration: str | None, corner: tuple[int, int]
) -> None:
    attrs = {"spatial:transform": [10, 0, 100, 0, -10, 200], "spatial:registration": registration}
    group = zarr.create_group(MemoryStore())
    group.create_group("r", attributes=attrs)
    grid = grid_of_group(group, "r", "EPSG:32632", (4, 4))
    assert (grid.left, grid.top) == corner


def test_what_could_not_be_decoded_leaves_nothing_behind() -> None:
    kept = _Kept(10**6)
    with pytest.raises(ZeroDivisionError):
        kept.get(("root", 1), lambda: np.zeros(1 // 0))
    assert kept._making == {}
    assert kept.get(("root", 1), lambda: np.ones(1)).item() == 1


_FORK = """
import os, threading
import numpy as np
from xcloudmask.stac.zarr_store import _KEPT
begun, go_on = threading.Event(), threading.Event()
def slow():
    begun.set()
    go_on.wait()
    return np.zeros(1)
thread = threading.Thread(target=_KEPT.get, args=("k", slow))
thread.start()
begun.wait()
child = os.fork()
if child == 0:
    own = threading.Thread(target=_KEPT.get, args=("k", lambda: np.ones(1)), daemon=True)
    own.start()
    own.join(5)
    os._exit(own.is_alive())
code = os.waitpid(child, 0)[1]
go_on.set()
thread.join()
os._exit(code != 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="nothing forks there")
def test_a_child_forked_while_a_block_is_decoded_decodes_it_anew() -> None:
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", _FORK], check=False).returncode == 0
