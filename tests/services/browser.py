"""Chromium without a screen, driven over a pipe: open pages, see what they log and fetch, take pictures."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.services.process import find_program

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--disable-component-update", "--no-first-run", "--remote-debugging-pipe", "--hide-scrollbars",
)  # fmt: skip


class Browser:
    """One tab; `problems` holds errors of the console and failed requests, `fetched` every address."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._number, self._rest = write, read, 0, b""
        self._waiting: list[dict[str, Any]] = []
        self.problems: list[str] = []
        self.fetched: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **params: Any) -> Any:
        return self._call(method, sessionId=self._session, **params)

    def open(self, address: str, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Load a page, and wait until nothing was fetched for a moment."""
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self("Emulation.setEmulatedMedia", features=scheme)
        self("Page.navigate", url=address)
        self.until("document.readyState == 'complete'")
        self.idle()

    def until(self, condition: str, patience: float = 30) -> Any:
        """Return the value of a JavaScript expression as soon as it is true."""
        deadline = time.monotonic() + patience
        while not (value := self.evaluate(condition)):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.problems}"
            time.sleep(0.05)
        return value

    def evaluate(self, code: str) -> Any:
        """Return what JavaScript gives, of promises what they come to."""
        answer = self("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def idle(self, quiet: float = 0.3, patience: float = 20) -> None:
        """Wait until no message came for a moment."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and (message := self._receive(quiet)) is not None:
            self._take(message)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen as PNG, or the whole page."""
        data = self("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, sessionId: str = "", **params: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if sessionId:
            message["sessionId"] = sessionId
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive(60)) is not None:
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                return answer["result"]
            self._take(answer)
        raise TimeoutError(f"Chromium does not answer {method}")

    def _receive(self, patience: float) -> dict[str, Any] | None:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], patience)[0]:
                return None
            self._rest += os.read(self._read, 1 << 20) or b"\0"
        line, _, self._rest = self._rest.partition(b"\0")
        assert line, "Chromium is gone"
        return dict(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.fetched.append(about["request"]["url"])
            case "Network.loadingFailed" if not about.get("canceled"):
                self.problems.append(about["errorText"])
            case "Network.responseReceived" if about["response"]["status"] >= 400:
                self.problems.append(f"{about['response']['status']} {about['response']['url']}")
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.problems.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
            case "Runtime.exceptionThrown":
                self.problems.append(str(about["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.problems.append(str([each.get("value") for each in about["args"]]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Run it with an empty profile in `folder` while the block runs."""
    program = find_program("chromium", "/usr/lib/chromium")
    (theirs_in, ours_out), (ours_in, theirs_out) = os.pipe(), os.pipe()
    command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
    with (folder / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command, program, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        with suppress(OSError):  # so that all of its processes leave the profile alone
            os.write(ours_out, b'{"id": 0, "method": "Browser.close"}\0')
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(ours_out)
        os.close(ours_in)
