"""The same call on a real Dask Gateway: its workers write the mask."""

import gc
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.services.gateway import PASSWORD, dask_gateway, user
from tests.streaming.helpers import described
from xcloudmask import testing
from xcloudmask.streaming import ProgressEvent, stream
from xcloudmask.streaming.worker_plugin import WorkerPlugin

pytestmark = [
    pytest.mark.services,
    # It closes a second time what its `with` has closed.
    pytest.mark.filterwarnings("ignore:.*Gateway.*__del__:pytest.PytestUnraisableExceptionWarning"),
]


def test_two_workers_of_a_gateway_write_the_mask_that_numpy_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_module = pytest.importorskip("dask_gateway", reason="dask-gateway is not installed")
    rng = np.random.default_rng(0)
    da = described(rng.random((3, 2, 150, 130), dtype=np.float32), ["red", "nir"])
    with dask_gateway(tmp_path) as url:
        gateway = gateway_module.Gateway(
            url, auth=gateway_module.BasicAuth(user(), PASSWORD), asynchronous=False
        )
        with gateway, gateway.new_cluster(shutdown_on_close=True) as cluster:
            cluster.scale(2)
            with cluster.get_client() as client:
                client.wait_for_workers(2, timeout=120)
                client.register_plugin(WorkerPlugin(testing.TOY))
                events: list[ProgressEvent] = []
                cut = {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}, "progress": events.append}
                report = stream(da.chunk(time=1, y=70), tmp_path / "a", predict={"model": testing.TOY}, **cut)
                writers = set(client.run(_has_written).values())
    del gateway, cluster, client
    gc.collect()
    assert report.complete
    assert events[-1].done == 36
    assert report.written == 3 * 4 * 3
    assert writers == {True}
    found = xr.open_zarr(tmp_path / "a").cloud_mask
    np.testing.assert_array_equal(found.values, da.cloudmask.predict(testing.TOY).values)


def _has_written() -> bool:
    """Whether this worker's process has written a region."""
    from xcloudmask.store import store

    return bool(store._settled)
