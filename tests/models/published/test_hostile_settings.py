"""What lies beside weights, and paths that are no files: refused by name, at once, without taking memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models import load
from xcloudmask.models.published import known

NINES = [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)]
MERGED = [f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)]
SETTINGS = {
    "a list of lists of itself": "NAME: &a0 [x]\n" + "".join(NINES),
    "merged with itself": "a0: &a0 {k: v}\n" + "".join(MERGED),
    "deep": "[" * 5000 + "]" * 5000,
    "no day": "a: 2001-99-99",
    "long number": "a: " + "1" * 5000,
    "no number": "a: !!int x",
    "code": "!!python/object/apply:os.system ['touch ran']",
    "long": "k: v\n" * 20_000,
    "nothing": "",
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_that_are_none_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(SETTINGS[kind])
    with pytest.raises(WeightsError, match=r"config\.yaml, beside the weights,"):
        known.config_beside(str(tmp_path / "weights.pt"))


def test_a_name_that_no_file_can_have_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(f"SEnSeIv2: {'a' * 300}.yaml")
    assert known.config_beside(str(tmp_path / "weights.pt")) == {"SEnSeIv2": f"{'a' * 300}.yaml"}


def test_paths_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")  # a pipe waits for a writer for ever
    (tmp_path / "zero.pt").symlink_to("/dev/zero")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    for path in (
        *(tmp_path / f"{name}.pt" for name in ("pipe", "zero", "loop", "pipe.pt/x")),
        "a" * 300 + ".pt",
    ):
        with pytest.raises(WeightsError, match="cannot be read"):
            load(path)
    for href, says in (("http://[::1/x.pt", "is no address"), ("a\0b.pt", "is no path"), (None, "got None")):
        with pytest.raises(CloudMaskError, match=says):
            load(href)
