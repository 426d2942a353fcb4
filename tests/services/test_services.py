"""The servers themselves: that they answer, and that S3 refuses a stranger."""

from __future__ import annotations

import sys
from urllib.request import Request, urlopen

import pytest

from tests.services.process import find_program, server

pytestmark = pytest.mark.services


def test_nginx_serves_ranges(web_server):
    (web_server.root / "digits").write_bytes(b"0123456789")
    request = Request(f"{web_server.url}/digits", headers={"Range": "bytes=2-4"})
    with urlopen(request, timeout=5) as answer:
        assert (answer.status, answer.read()) == (206, b"234")


def test_the_proxy_answers_with_the_faults_that_were_queued(web_server, faults):
    from urllib.error import HTTPError

    (web_server.root / "digits").write_bytes(b"0123456789")
    faults.queue("/digits", 503)
    with pytest.raises(HTTPError, match="503") as failure:
        urlopen(f"{faults.url}/digits", timeout=5)
    failure.value.close()
    with urlopen(f"{faults.url}/digits", timeout=5) as answer:
        assert answer.read() == b"0123456789"


def test_s3_refuses_a_wrong_key(s3_server):
    s3_server.filesystem().pipe_file("ready/a", b"1")
    assert s3_server.filesystem().cat_file("ready/a") == b"1"
    with pytest.raises(PermissionError):
        s3_server.filesystem("wrong").cat_file("ready/a")


def test_stac_api_answers(stac_api):
    with urlopen(stac_api.url + "/conformance", timeout=10) as answer:
        assert answer.status == 200


def test_a_missing_server_skips_here_and_fails_on_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-server is not installed"):
        find_program("no-such-server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI must run this, but no-such-server is not installed"):
        find_program("no-such-server")


def test_a_server_that_does_not_start_shows_its_log(tmp_path):
    command = [sys.executable, "-c", "print('out of cheese'); raise SystemExit(3)"]
    with (
        pytest.raises(pytest.fail.Exception, match=r"(?s)exit status 3.*out of cheese"),
        server(command, lambda: False, tmp_path / "log"),
    ):
        pass


def test_a_server_is_stopped_when_its_test_fails(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(ZeroDivisionError), server(command, lambda: True, tmp_path / "log") as process:
        1 / 0  # noqa: B018
    assert process.poll() is not None
