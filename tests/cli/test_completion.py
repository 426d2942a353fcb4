"""The TAB key: commands, flags, and the names of models and sensors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from xcloudmask import models
from xcloudmask.cli import COMMANDS, main
from xcloudmask.cli.completion import FLAGS, PLACES, script


def completed(*words: str) -> set[str]:
    """What bash offers for the last of these words."""
    at, line = len(words), " ".join(f"'{word}'" for word in ("xcloudmask", *words))
    code = f"{script('bash', COMMANDS)}\nCOMP_WORDS=({line}); COMP_CWORD={at}; COMPREPLY=()\n"
    code += "_shtab_xcloudmask 2>/dev/null; printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-c", code], capture_output=True, text=True, check=True
    )
    return {word.strip() for word in done.stdout.split()}


def test_bash_offers_commands_flags_and_names() -> None:
    assert completed("") >= set(COMMANDS)
    assert "--out-dir" in completed("predict", "--out")
    assert completed("predict", "--model", "ukis-6") >= {"ukis-6band-l1c", "ukis-6band-l2a"}
    assert completed("predict", "--model", "ukis-6") <= set(models.names())
    assert "show" in completed("models", "sh")


@pytest.mark.parametrize("shell", PLACES)
def test_it_is_installed_for_the_shell(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", f"/bin/{shell}")
    assert main([FLAGS[1]]) == 0
    shown = capsys.readouterr().out
    assert main([FLAGS[0]]) == 0
    assert str(tmp_path) in capsys.readouterr().out
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.read_text() == shown.rstrip("\n") + ("\n" if file.read_text().endswith("\n") else "")
    assert "cloudmask" in shown


def test_an_unknown_shell_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([FLAGS[0], "bsh"]) == 2
    assert "Did you mean 'bash'" in capsys.readouterr().err
    assert main([FLAGS[0], "bash", "zsh"]) == 2
    assert "one word too many" in capsys.readouterr().err
