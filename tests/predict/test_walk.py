"""One array goes through planning as CONTRIBUTING draws it: which modules a call enters, in which order."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import xcloudmask
from tests.scenes import noise, scene
from xcloudmask import testing

ROOT = Path(xcloudmask.__file__).parent
DRAWN = ROOT.parent / "CONTRIBUTING.md"


def module_of(frame: FrameType | None) -> str:
    """The module of a function that runs, ``engine/plan``; "" for others' code."""
    path = Path("" if frame is None else frame.f_code.co_filename)
    return path.relative_to(ROOT).with_suffix("").as_posix() if path.is_relative_to(ROOT) else ""


@contextmanager
def entered(caller: str) -> Iterator[list[str]]:
    """Note which modules the code of another one calls into, in turn."""
    found: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and module_of(frame.f_back) == caller != (module := module_of(frame)) and module:
            found.append(module)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)


@pytest.mark.skipif(not DRAWN.exists(), reason="CONTRIBUTING.md is not installed")
def test_the_walk_is_the_one_drawn() -> None:
    drawing = (
        DRAWN.read_text(encoding="utf-8").partition("## One array through planning")[2].partition("## ")[0]
    )
    drawn = re.findall(r"^ (\w+/\w+) {2,}", drawing, re.M)
    da = scene(noise(2, 70, 60), ["red", "nir"]).chunk()
    valid = da.isel(band=0, drop=True) > 0
    da.cloudmask.predict(testing.TOY, valid=valid)  # imports are no part of it
    with entered("predict/prepare") as found:
        da.cloudmask.predict(testing.TOY, valid=valid)
    planning = [module for module, _ in groupby(found[: found.index("engine/plan") + 1])]
    assert len(drawn) <= 8
    assert planning == drawn
