"""Into an Icechunk session: nothing is seen before the commit; a crash loses what was not committed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.stream.helpers import COUNTED, numbered
from xcloudmask.errors import CloudMaskError
from xcloudmask.stream import stream

icechunk = pytest.importorskip("icechunk")
CUT = {"chunks": {"y": 24, "x": 24}, "shards": {"y": 48, "x": 48}, "progress": False}


def test_a_session_is_written_committed_and_extended(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repo = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path)))
    da = numbered(3, 100, 110)
    session = repo.writable_session("main")
    first = stream(da.isel(time=slice(0, 2)), session, COUNTED, **CUT)
    assert first.written == 2 * 9
    session.commit("S2A_000, S2A_001")
    crashed = repo.writable_session("main")
    stream(da, crashed, COUNTED, **CUT)
    del crashed  # never committed
    last = xr.open_zarr(repo.readonly_session("main").store, consolidated=False).cloud_mask
    expected = da.cloudmask.predict(COUNTED)
    np.testing.assert_array_equal(last.values, expected.values[:2])
    session = repo.writable_session("main")
    report = stream(da, session, COUNTED, **CUT)
    assert (report.written, report.skipped) == (9, 18)
    session.commit("S2A_002")
    last = xr.open_zarr(repo.readonly_session("main").store, consolidated=False).cloud_mask
    np.testing.assert_array_equal(last.values, expected.values)
    with pytest.raises(CloudMaskError, match="read-only"):
        stream(da, repo.readonly_session("main"), COUNTED, **CUT)
