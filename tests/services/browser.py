"""Chromium without a screen, driven over a pipe: open pages, see what they log and fetch, take pictures."""

from __future__ import annotations

import base64
import io
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

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
        while not (value := self._evaluate_here(condition)):
            assert time.monotonic() < deadline, f"never true: {condition}; {self.problems}"
            time.sleep(0.05)
        return value

    def _evaluate_here(self, code: str) -> Any:
        """Return what JavaScript gives; None where the page was left meanwhile."""
        try:
            return self.evaluate(code)
        except AssertionError as error:
            if "navigated" in str(error):
                return None
            raise

    def evaluate(self, code: str) -> Any:
        """Return what JavaScript gives, of promises what they come to."""
        answer = self("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str, words: str = "", times: int = 1) -> None:
        """Click on the first element in sight that begins with these words, once it has come to rest."""
        x, y = self.until(
            f"""(() => {{
              const each = [...document.querySelectorAll({json.dumps(selector)})].find(
                e => e.getClientRects().length && e.innerText.trim().startsWith({json.dumps(words)}))
              if (!each) return null
              each.scrollIntoView({{block: "nearest"}})
              const box = each.getBoundingClientRect(), at = [box.x + box.width / 2, box.y + box.height / 2]
              const before = window.before
              return `${{before}}` == `${{window.before = at}}` ? at : null
            }})()"""
        )
        self("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        for count in range(1, times + 1):
            for what in ("mousePressed", "mouseReleased"):
                self("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=count)

    def scroll(self, selector: str, words: str, by: int) -> None:
        """Turn the mouse wheel until the element that begins with these words is in the upper half."""
        seen = f"""[...document.querySelectorAll({json.dumps(selector)})].some(e =>
            e.innerText.startsWith({json.dumps(words)}) && e.getBoundingClientRect().y > 60
            && e.getBoundingClientRect().y < innerHeight / 2)"""
        for _ in range(100):
            if self.evaluate(seen):
                break
            self("Input.dispatchMouseEvent", type="mouseWheel", x=700, y=150, deltaX=0, deltaY=by)
            self.idle(0.1)
        else:
            raise AssertionError(f"{words} never came in sight")
        self.idle(0.5)

    def idle(self, quiet: float = 0.3, patience: float = 20) -> None:
        """Wait until no message came for a moment."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and (message := self._receive(quiet)) is not None:
            self._take(message)

    def picture(self, name: str) -> Image.Image:
        """Return what is seen; where XCLOUDMASK_PICTURES names a folder, it is kept there, too."""
        png = base64.b64decode(self("Page.captureScreenshot")["data"])
        if folder := os.environ.get("XCLOUDMASK_PICTURES"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            Path(folder, f"{name}.png").write_bytes(png)
        return Image.open(io.BytesIO(png)).convert("RGB")

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
