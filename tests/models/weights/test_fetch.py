"""Fetching weights: checked, cached, resumed, shared, and never out of the cache."""

import hashlib
import socket
import subprocess
import sys

import pytest

from xcloudmask.errors import WeightsError
from xcloudmask.models.weights import fetch

DATA = bytes(range(256)) * 12_000  # 3 MB: several blocks
HASH = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: None)


def test_fetched_once_then_from_the_cache(web, cache):
    web.files["/net.onnx"] = DATA
    assert fetch.read(f"{web.url}/net.onnx", HASH) == DATA
    assert fetch.read(f"{web.url}/net.onnx", HASH.upper()) == DATA
    assert len(web.asked) == 1
    assert sorted(p.name for p in (cache / "weights").iterdir()) == [HASH, f"{HASH}.lock"]


def test_a_cut_connection_and_a_busy_server_are_tried_again(web):
    web.files["/net"] = DATA
    web.faults[:] = [503, ("cut", 2_500_000), 429]
    assert fetch.read(f"{web.url}/net", HASH) == DATA
    assert len(web.asked) == 4


def test_what_a_killed_process_left_is_cleared_away(web, cache):
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / f"{HASH}.123.part").write_bytes(DATA[:1000])
    web.files["/net"] = DATA
    assert fetch.read(f"{web.url}/net", HASH) == DATA
    assert sorted(p.name for p in (cache / "weights").iterdir()) == [HASH, f"{HASH}.lock"]


def test_a_damaged_cache_heals(web, cache):
    web.files["/net"] = DATA
    fetch.read(f"{web.url}/net", HASH)
    (cache / "weights" / HASH).write_bytes(DATA[:-1] + b"!")
    assert fetch.read(f"{web.url}/net", HASH) == DATA
    assert len(web.asked) == 2


def test_a_wrong_hash_is_refused_and_nothing_stays(web, cache):
    web.files["/net"] = DATA + b"evil"
    with pytest.raises(WeightsError, match="altered"):
        fetch.read(f"{web.url}/net", HASH)
    assert [p.name for p in (cache / "weights").iterdir()] == [f"{HASH}.lock"]


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x"])
def test_a_redirect_out_of_http_is_refused(web, target):
    web.faults[:] = [("redirect", target)]
    with pytest.raises(WeightsError, match=r"no http|not allowed"):
        fetch.read(f"{web.url}/net", HASH)


def test_a_redirect_within_http_is_followed(web):
    web.files["/there"] = DATA
    web.faults[:] = [("redirect", "/there")]
    assert fetch.read(f"{web.url}/net", HASH) == DATA


def test_what_is_too_large_is_cut_off(web, cache, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "MAX_BYTES", 1_000_000)
    web.files["/net"] = DATA
    with pytest.raises(WeightsError, match="larger than"):
        fetch.read(f"{web.url}/net", HASH)
    (tmp_path / "net").write_bytes(DATA)
    with pytest.raises(WeightsError, match="so large"):
        fetch.read(str(tmp_path / "net"), "")


def test_a_host_that_is_not_found_is_tried_twice_and_the_way_round_told(monkeypatch):
    tried, look_up = [], socket.getaddrinfo

    def counted(host, *more, **options):
        tried.append(host)
        return look_up(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", counted)
    address = "http://nowhere.invalid/net.onnx"  # a name that no one may own
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match=r"after 2 attempts: .*download that .*models load FILE") as error:
        fetch.read(address, HASH)
    assert tried == ["nowhere.invalid"] * 2
    assert address in str(error.value)


def test_what_cannot_be_had_is_told(web, tmp_path, monkeypatch):
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch.read(f"{web.url}/none", HASH)
    web.faults[:] = [503] * fetch.TRIES
    with pytest.raises(WeightsError, match=f"after {fetch.TRIES} attempts: HTTP 503"):
        fetch.read(f"{web.url}/none", HASH)
    with pytest.raises(WeightsError, match="sha256="):
        fetch.read(f"{web.url}/none", "")
    with pytest.raises(WeightsError, match="64 hexadecimal"):
        fetch.read(f"{web.url}/none", "abc")
    with pytest.raises(WeightsError, match="No such file"):
        fetch.read(str(tmp_path / "none"), "")
    with pytest.raises(WeightsError, match="use a path or an https"):
        fetch.read("nonsense://host/net", HASH)
    monkeypatch.setenv("XCLOUDMASK_OFFLINE", "1")
    before = len(web.asked)
    with pytest.raises(WeightsError, match="XCLOUDMASK_OFFLINE is set"):
        fetch.read(f"{web.url}/none", HASH)
    assert len(web.asked) == before


def test_local_files_are_checked_too(tmp_path):
    path = tmp_path / "a net"
    path.write_bytes(DATA)
    assert fetch.read(str(path), HASH) == DATA
    assert fetch.read(path.as_uri(), "") == DATA
    with pytest.raises(WeightsError, match="altered"):
        fetch.read(str(path), "0" * 64)


def test_fsspec_addresses_work():
    import fsspec

    fsspec.filesystem("memory").pipe("/net", DATA)
    assert fetch.read("memory://net", HASH) == DATA


def test_a_proxy_from_the_environment_is_used(web, monkeypatch):
    monkeypatch.setenv("http_proxy", web.url)
    web.files["http://fetch.example/net"] = DATA
    assert fetch.read("http://fetch.example/net", HASH) == DATA


def test_processes_share_one_download(web, cache):
    web.files["/net"] = DATA
    code = (
        f"from xcloudmask.models.weights import fetch; print(len(fetch.read({web.url + '/net'!r}, {HASH!r})))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(3)]
    assert [int(process.communicate(timeout=60)[0]) for process in running] == [len(DATA)] * 3
    assert len(web.asked) == 1
