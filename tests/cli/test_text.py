"""What is printed: in colour for a person at a terminal, plain in a pipe, and JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _pytest.capture import CaptureIO

from tests.cli.test_cli import UNITS, main, raster, toy
from xcloudmask.cli import text

__all__ = ["toy"]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> pytest.CaptureFixture[str]:
    """A terminal of 80 columns that knows colours."""
    monkeypatch.setattr(CaptureIO, "isatty", lambda _: True)
    for name, value in {"COLUMNS": "80", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return capsys


@pytest.mark.parametrize(
    "words", [["models"], ["models", "show", "ukis-6band-l1c"], ["sensors"], ["sensors", "show", "spot-5"],
              ["models", "list", "--published"]],
    ids=" ".join,
)  # fmt: skip
def test_colours_add_nothing_but_colours(
    words: list[str], terminal: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(words) == 0
    coloured = terminal.readouterr().out
    assert ESCAPE.search(coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(words) == 0
    without = terminal.readouterr().out
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", without)
    monkeypatch.setattr(CaptureIO, "isatty", lambda _: False)
    assert main(words) == 0
    plain = terminal.readouterr().out
    assert "\x1b" not in plain
    assert ESCAPE.sub("", coloured) == ESCAPE.sub("", without) == plain


def test_what_is_wrong_is_red_and_a_warning_yellow(terminal: pytest.CaptureFixture[str]) -> None:
    text.say("warning: [bold]no markup[/bold]")
    assert (
        terminal.readouterr().err
        == "\r\x1b[K\x1b[1;33mxcloudmask\x1b[0m\x1b[33m: warning\x1b[0m: [bold]no markup[/bold]\n"
    )
    text.say("no.")
    assert "\x1b[1;31mxcloudmask\x1b[0m: no." in terminal.readouterr().err


def facts(capsys: pytest.CaptureFixture[str], *words: Any) -> Any:
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=pytest.fail)


def test_facts_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, out = raster(tmp_path / "s.tif"), tmp_path / "m.tif"
    (made,) = facts(capsys, "predict", scene, out, *UNITS, "--model", "toy")
    assert made["path"] == str(out)
    assert made["scene"] == str(scene)
    assert made["model"] == "toy"
    assert sum(made["counts"].values()) == 150 * 170
    assert made["counts"]["no_data"] == 40 * 60
    seen = facts(capsys, "info", out)
    assert (seen["kind"], seen["sizes"], seen["problems"]) == ("mask", {"y": 150, "x": 170}, [])
    assert seen["counts"] == made["counts"]
    bare = facts(capsys, "info", scene, "--level", "L1C")
    assert bare["kind"] == "scene"
    assert bare["problems"] == ["units"]
    assert "blue" in bare["bands"]


def test_lists_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    from xcloudmask import models, sensors

    assert [each["name"] for each in facts(capsys, "models")] == list(models.names())
    assert facts(capsys, "models", "show", "ukis-6band-l1c")["sha256"] == models.get("ukis-6band-l1c").sha256
    assert [each["name"] for each in facts(capsys, "sensors")] == list(sensors.names())
    bands = facts(capsys, "sensors", "show", "sentinel-2a")["bands"]
    assert [band["name"] for band in bands] == [band.name for band in sensors.get("sentinel-2a").bands]
    assert {"name", "licence", "system"} <= set(facts(capsys, "models", "list", "--published")[0])


def test_the_rest_is_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, store = raster(tmp_path / "s.tif"), tmp_path / "m.zarr"
    (report,) = facts(capsys, "stream", scene, store, *UNITS, "--model", "toy")
    assert report["regions"] == report["written"] == 1
    assert facts(capsys, "verify", store)["ok"] is True
    speed = facts(capsys, "bench", "toy", "--size", "40", "--runs", "1", "--device", "cpu")
    assert speed["megapixels_per_s"] == pytest.approx(0.0016 / speed["runs_s"][0])
    state = facts(capsys, "doctor")
    assert state["broken"] == 0
    assert {each["state"] for each in state["versions"]} == {"ok"}
    items = tmp_path / "items.json"
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "a", "collection": "c", "geometry": None,
        "links": [], "properties": {"datetime": "2026-05-01T10:00:00Z", "eo:cloud_cover": 12.5}, "assets": {},
    }  # fmt: skip
    items.write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    assert facts(capsys, "stac", items) == [
        {"id": "a", "collection": "c", "time": "2026-05-01T10:00:00Z", "cloud_cover": 12.5}
    ]


def test_scenes_that_fail_are_in_the_json_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = raster(tmp_path / "a.tif"), tmp_path / "b.tif"
    bad.write_text("no picture")
    words = ["predict", str(good), str(bad), "--out-dir", str(tmp_path / "o"), *UNITS, "--model", "toy"]
    assert main([*words, "--json"]) == 1
    told = capsys.readouterr()
    assert [each.get("error", "") != "" for each in json.loads(told.out)] == [False, True]
    assert "1 of 2 scenes failed" in told.err


def test_numbers_that_json_does_not_have_are_null() -> None:
    assert text.plain({"a": np.float32("nan"), 1: (np.int64(3), float("inf")), "p": Path("x")}) == {
        "a": None, "1": [3, None], "p": "x",
    }  # fmt: skip


@pytest.mark.slow
def test_a_session_at_80_columns() -> None:
    """In a real terminal."""
    pexpect = pytest.importorskip("pexpect")
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    command = f"{sys.executable} -m xcloudmask clean --help"
    environment |= {"TERM": "xterm-256color"}
    told = pexpect.run(command, dimensions=(24, 80), env=environment, timeout=60).decode()
    assert re.search(r"\x1b\[[0-9;]*3[0-9]m", told)
    assert max(map(len, ESCAPE.sub("", told).splitlines())) <= 80
    assert "usage: xcloudmask clean" in ESCAPE.sub("", told)


def test_a_figure_stays_with_its_sign() -> None:
    lines = text.paragraph("clear 55.7 %, cloud 44.2 %, snow 0.1 %", columns=25).splitlines()
    assert lines == ["clear 55.7 %, cloud", "44.2 %, snow 0.1 %"]
