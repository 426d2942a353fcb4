"""Fetching weights: checked, cached, resumed, shared, and never out of the cache."""

import hashlib
import subprocess
import sys

import pytest

from xcloudmask.errors import WeightsError
from xcloudmask.models import weights

DATA = bytes(range(256)) * 12_000  # 3 MB: several blocks
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(weights.time, "sleep", lambda seconds: None)


def test_fetched_once_then_from_the_cache(web, cache):
    web.files["/net.onnx"] = DATA
    had = []
    assert (
        weights.read(f"{web.url}/net.onnx", HASH, progress=lambda have, total: had.append((have, total)))
        == DATA
    )
    assert had[-1] == (len(DATA), len(DATA))
    assert weights.read(f"{web.url}/net.onnx", HASH.upper()) == DATA
    assert len(web.asked) == 1
    assert sorted(p.name for p in (cache / "weights").iterdir()) == [HASH, f"{HASH}.lock"]


def test_a_cut_connection_is_taken_up_where_it_ended(web):
    web.files["/net"] = DATA
    web.faults[:] = [503, ("cut", 2_500_000), 429]
    assert weights.read(f"{web.url}/net", HASH) == DATA
    assert [span for _, span in web.asked] == [None, None, "bytes=2500000-", "bytes=2500000-"]


def test_a_server_that_knows_no_ranges_begins_anew(web):
    web.files["/net"] = DATA
    web.faults[:] = [("cut", 1_000_000), ("whole",)]
    assert weights.read(f"{web.url}/net", HASH) == DATA


def test_a_rest_of_another_file_is_thrown_away(web, cache):
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / f"{HASH}.part").write_bytes(b"x" * 1000)
    web.files["/net"] = DATA
    assert weights.read(f"{web.url}/net", HASH) == DATA
    assert [span for _, span in web.asked] == ["bytes=1000-", None]


def test_a_damaged_cache_heals(web, cache):
    web.files["/net"] = DATA
    weights.read(f"{web.url}/net", HASH)
    (cache / "weights" / HASH).write_bytes(DATA[:-1] + b"!")
    assert weights.read(f"{web.url}/net", HASH) == DATA
    assert len(web.asked) == 2


def test_a_wrong_hash_is_refused_and_nothing_stays(web, cache):
    web.files["/net"] = DATA + b"evil"
    with pytest.raises(WeightsError, match="altered"):
        weights.read(f"{web.url}/net", HASH)
    assert [p.name for p in (cache / "weights").iterdir()] == [f"{HASH}.lock"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_a_redirect_out_of_http_is_refused(web, target):
    web.faults[:] = [("redirect", target)]
    with pytest.raises(WeightsError, match=r"no http|not allowed"):
        weights.read(f"{web.url}/net", HASH)


def test_a_redirect_within_http_is_followed(web):
    web.files["/there"] = DATA
    web.faults[:] = [("redirect", "/there")]
    assert weights.read(f"{web.url}/net", HASH) == DATA


def test_what_is_too_large_is_cut_off(web, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "MAX_BYTES", 1_000_000)
    web.files["/net"] = DATA
    with pytest.raises(WeightsError, match="larger than"):
        weights.read(f"{web.url}/net", HASH)
    (tmp_path / "net").write_bytes(DATA)
    with pytest.raises(WeightsError, match="so large"):
        weights.read(str(tmp_path / "net"), "")


def test_what_cannot_be_had_is_told(web, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="HTTP 404"):
        weights.read(f"{web.url}/none", HASH)
    web.faults[:] = [503] * weights.TRIES
    with pytest.raises(WeightsError, match=f"after {weights.TRIES} attempts: HTTP 503"):
        weights.read(f"{web.url}/none", HASH)
    with pytest.raises(WeightsError, match="sha256="):
        weights.read(f"{web.url}/none", "")
    with pytest.raises(WeightsError, match="64 hexadecimal"):
        weights.read(f"{web.url}/none", "abc")
    with pytest.raises(WeightsError, match="No such file"):
        weights.read(str(tmp_path / "none"), "")
    with pytest.raises(WeightsError, match="use a path or an https"):
        weights.read("nonsense://host/net", HASH)
    monkeypatch.setenv("XCLOUDMASK_OFFLINE", "1")
    before = len(web.asked)
    with pytest.raises(WeightsError, match="XCLOUDMASK_OFFLINE is set"):
        weights.read(f"{web.url}/none", HASH)
    assert len(web.asked) == before


def test_local_files_are_checked_too(tmp_path):
    path = tmp_path / "a net"
    path.write_bytes(DATA)
    assert weights.read(str(path), HASH) == DATA
    assert weights.read(path.as_uri(), "") == DATA
    with pytest.raises(WeightsError, match="altered"):
        weights.read(str(path), "0" * 64)


def test_fsspec_addresses_work():
    import fsspec

    fsspec.filesystem("memory").pipe("/net", DATA)
    assert weights.read("memory://net", HASH) == DATA


def test_a_proxy_from_the_environment_is_used(web, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    web.files["http://weights.example/net"] = DATA
    assert weights.read("http://weights.example/net", HASH) == DATA


def test_processes_share_one_download(web, cache):
    web.files["/net"] = DATA
    code = f"from xcloudmask.models import weights; print(len(weights.read({web.url + '/net'!r}, {HASH!r})))"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    assert [int(process.communicate(timeout=60)[0]) for process in running] == [len(DATA)] * 3
    assert len(web.asked) == 1
