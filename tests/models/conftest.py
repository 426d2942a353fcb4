"""A small web server that can be told to misbehave."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Web:
    """What it serves, how it fails, and what it was asked."""

    url: str = ""
    files: dict = field(default_factory=dict)
    #: One entry is used up a request: an HTTP status, ("cut", bytes), ("redirect", address), ("whole",).
    faults: list = field(default_factory=list)
    asked: list = field(default_factory=list)


@pytest.fixture
def web():
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            span = self.headers.get("Range")
            state.asked.append((self.path, span))
            fault = state.faults.pop(0) if state.faults else None
            if isinstance(fault, int):
                self.send_response(fault)
                self.send_header("Retry-After", "0")
                self.end_headers()
                return
            if fault and fault[0] == "redirect":
                self.send_response(302)
                self.send_header("Location", fault[1])
                self.end_headers()
                return
            body = state.files.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = int(span[6:-1]) if span and fault != ("whole",) else 0
            if start and start >= len(body):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            stop = fault[1] if fault and fault[0] == "cut" else len(body)
            self.wfile.write(body[start:stop])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Give each test a cache of its own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("XCLOUDMASK_CACHE", str(folder))
    monkeypatch.delenv("XCLOUDMASK_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def canary(tmp_path):
    """Name a file that code hidden in weights would leave behind; there must be none."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "code from the file was run"
