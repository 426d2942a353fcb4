"""Each command in a real terminal of 80 columns (tmux) and in a pipe; a run that is stopped by Ctrl-C there.

What scrolls by is kept where XCLOUDMASK_PICTURES names a folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from tests.cli.test_cli import UNITS, raster
from tests.cli.test_score_train import mask_of, placed
from tests.cli.test_stream import AT, GRID, SMALL, items
from tests.train.conftest import data, write_patch
from tests.train.test_loop import CONFIG
from xcloudmask import models
from xcloudmask.cli import COMMANDS, main
from xcloudmask.masks.write import write
from xcloudmask.testing import TOY

__all__ = ["data", "items"]
pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]
#: Runs what is typed as the console script does, in one process, as its imports take seconds.
SHELL = """
import shlex
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.testing import TOY
models.register(TOY)
while words := input("$ "):
    print("exit", main(shlex.split(words)))
"""
TOY_WORDS = " ".join([*UNITS, "--model", "toy"])
#: Each command, also where it asks for nothing, with a bar, and with an error.
TYPED = (
    f"predict 2026-05-01.tif mask.tif {TOY_WORDS}",
    f"predict 2026-05-01.tif 2026-05-11.tif --out-dir masks {TOY_WORDS}",
    f"predict 2026-05-01.tif dry.tif {TOY_WORDS} --dry-run",
    f"predict no.tif mask.tif {TOY_WORDS}",
    "info 2026-05-01.tif",
    "info mask.tif",
    "models",
    "models show ukis-any-l1c",
    "sensors",
    "sensors show sentinel-2a",
    f"stream 2026-05-01.tif 2026-05-11.tif stream.zarr {' '.join([*UNITS, *SMALL])}",
    "verify stream.zarr",
    "stac items.json",
    f"stac items.json --to stac.zarr {' '.join([*AT, *GRID])}",
    "clean mask.tif tidy.tif --sieve '1 ha' --buffer '60 m'",
    f"composite 2026-05-01.tif 2026-05-11.tif composite.tif {TOY_WORDS}",
    "score scored patches",
    "datasets",
    "datasets show sparcs",
    "train tiny.toml --data DATA --out trained",
    "demo demo",
    "bench toy --size 40 --runs 1 --device cpu",
    "doctor",
)
#: What is wrong on purpose, and the exit code.
WRONG = {TYPED[3]: 1}


@pytest.fixture(scope="module")
def words() -> None:
    """None: a module without what it types is of no use."""
    assert {each.split()[0] for each in TYPED} == set(COMMANDS)


@pytest.fixture
def folder(tmp_path: Path, items: list[dict[str, Any]], data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the commands read."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    for day in ("2026-05-01", "2026-05-11"):
        raster(work / f"{day}.tif")
    (work / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    (work / "tiny.toml").write_text(CONFIG)
    (work / "DATA").symlink_to(data)
    (work / "scored").mkdir()
    for seed in (0, 1):
        write_patch(work / "patches" / f"s{seed}.npz", seed)
        write(placed(mask_of(seed)), work / "scored" / f"s{seed}.tif")
    return work


class Terminal:
    """A terminal of 80 columns and 24 lines, in which a program runs."""

    def __init__(self, home: Path, command: str, **environment: str) -> None:
        self._tmux = ["tmux", "-S", str(home / "socket")]
        (home / "tmux.conf").write_text("set -g history-limit 50000\nset -g remain-on-exit on\n")
        names = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "SHELL": "/bin/sh", **environment}
        left_out = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TMUX")
        env = {key: value for key, value in os.environ.items() if key not in left_out} | names
        start = ["-f", str(home / "tmux.conf"), "new-session", "-d", "-x", "80", "-y", "24", command]
        subprocess.run([*self._tmux, *start], check=True, env=env)

    def call(self, *words: str) -> str:
        return subprocess.run([*self._tmux, *words], check=True, capture_output=True, text=True).stdout

    def type(self, text: str) -> None:
        self.call("send-keys", "-l", text)
        self.call("send-keys", "Enter")

    def shown(self, *, colours: bool = False) -> str:
        """All that there is to scroll to; lines that the terminal had to break are whole."""
        return self.call("capture-pane", "-p", "-J", "-S", "-", *(["-e"] if colours else []))

    def until(self, pattern: str, times: int = 1, patience: float = 200) -> str:
        """Wait until a line is seen so many times; return all that is there."""
        deadline = time.monotonic() + patience
        while len(re.findall(f"(?m)^{pattern}", shown := self.shown())) < times:
            assert time.monotonic() < deadline, f"{pattern} never came:\n{shown[-3000:]}"
            time.sleep(0.05)
        return shown


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Any]:
    """Opens terminals, and closes them."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is absent: apt-get install tmux")
    opened: list[Terminal] = []

    def opens(command: str, **environment: str) -> Terminal:
        opened.append(Terminal(tmp_path, command, **environment))
        return opened[-1]

    yield opens
    for each in opened:
        each.call("kill-server")


def keep(name: str, text: str) -> None:
    if kept := os.environ.get("XCLOUDMASK_PICTURES"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        Path(kept, name).write_text(text, encoding="utf-8")


def too_long(lines: list[str]) -> list[str]:
    """Lines of more than 80 columns, but for those of a path that is about as long."""
    return [line for line in lines if len(line) > 80 and max(map(len, line.split())) < 50]


@pytest.mark.parametrize("colours", [True, False], ids=["colours", "NO_COLOR"])
def test_a_session_of_each_command(colours: bool, folder: Path, terminal: Any, words: None) -> None:
    (folder / "shell.py").write_text(SHELL)
    command = f"cd {shlex.quote(str(folder))} && {shlex.quote(sys.executable)} shell.py"
    pane = terminal(command, **({} if colours else {"NO_COLOR": "1"}))
    pane.until(r"\$")
    for number, typed in enumerate(TYPED, start=1):
        pane.type(typed)
        pane.until(r"\$", number + 1)
    shown = pane.shown()
    keep(f"terminal{'' if colours else '-no-color'}.txt", pane.shown(colours=True))
    parts = re.split(r"(?m)^\$ ", shown)[1:-1]
    assert len(parts) == len(TYPED)
    for typed, part in zip(TYPED, parts, strict=True):
        lines = [line.rstrip() for line in part.splitlines() if line.strip()]
        told = lines[[line.startswith(typed[:30]) for line in lines].index(True) + 1 :]
        assert told[-1] == f"exit {WRONG.get(typed, 0)}", part
        assert too_long(told) == [], typed
        bars = [line for line in told if re.search(r"%\s?\|", line)]
        assert all(re.search(r"100 ?%\s?\|", bar) for bar in bars), bars
        assert len(told) > 1, typed
    seen = pane.shown(colours=True)
    assert bool(re.search(r"\x1b\[[0-9;]*[39][1-6]m", seen)) == colours


def test_in_a_pipe_there_are_words_alone(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    models.register(TOY, overwrite=True)
    for typed in TYPED:
        if not typed.startswith(("demo", "train")):  # which take long; the session runs them
            assert main(shlex.split(typed)) == WRONG.get(typed, 0), typed
            told = capfd.readouterr()
            assert told.out or typed in WRONG, typed
            assert not re.search(r"[\x1b\r█]", told.out + told.err), typed
            assert too_long(told.out.splitlines()) == [], typed


def test_ctrl_c_in_the_middle_of_a_stream_and_the_same_command_again(tmp_path: Path, terminal: Any) -> None:
    scene, out = raster(tmp_path / "s.tif", (800, 800)), tmp_path / "m.zarr"
    words = ["stream", str(scene), str(out), *UNITS, "--model", "ukis-4band-l1c"]
    words += ["--zarr-chunk", "64", "--zarr-shard", "128"]
    typed = f"{shlex.quote(sys.executable)} -m xcloudmask {shlex.join(words)}; echo exit $?"
    pane = terminal("PS1='$ ' sh")
    pane.type(typed)

    def done() -> int:
        try:
            return int((np.asarray(zarr.open_array(out / "stream" / "status", mode="r")[...]) == 1).sum())
        except (FileNotFoundError, ValueError):  # not yet there, or just being written
            return 0

    deadline = time.monotonic() + 120
    while not done():
        assert time.monotonic() < deadline, pane.shown()
        time.sleep(0.02)
    pane.call("send-keys", "C-c")
    shown = pane.until("exit 130")
    assert "Traceback" not in shown
    assert "run the same command again" in " ".join(shown.split())
    assert 0 < (before := done()) < 49
    pane.type(typed)
    shown = pane.until("exit 0")
    assert f"({49 - before} now, {before} before)" in " ".join(shown.split())
    keep("terminal-ctrl-c.txt", shown)
