"""The page of the command line: its code runs, its commands and flags are there."""

import re
from pathlib import Path

import pytest

from xcloudmask.cli import COMMANDS, main

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    assert len(blocks) == 4
    for block in blocks:
        exec(compile(block, "cli.md", "exec"), names)
    assert (tmp_path / "map.html").is_file()
    mpl.pyplot.close("all")


def test_every_command_is_in_the_table_and_every_flag_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("| `"))
    named = {word for cell in re.findall(r"`([a-z]+)", table) for word in [cell]}
    assert set(COMMANDS) <= named
    flags = set()
    for words in (["--help"], *([name, "--help"] for name in COMMANDS)):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert max(map(len, shown.splitlines())) <= 80, words
        flags |= set(re.findall(r"--[a-z-]+", shown))
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) <= flags
