"""`rio cloudmask` is `xcloudmask predict` under another name."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.cli.test_cli import UNITS, raster, read, reference, toy

__all__ = ["toy"]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def rio():
    """Rasterio's command with the plug-in that pyproject.toml declares."""
    from rasterio.rio.main import main_group

    plugins = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][
        "rasterio.rio_plugins"
    ]
    before = dict(main_group.commands)
    main_group.commands.update(
        {name: EntryPoint(name, value, "rasterio.rio_plugins").load() for name, value in plugins.items()}
    )
    yield lambda *words: CliRunner().invoke(main_group, ["cloudmask", *map(str, words)])
    main_group.commands.clear()
    main_group.commands.update(before)


def test_it_masks_with_the_same_options_and_exit_codes(rio, tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "s.tif"), tmp_path / "m.tif"
    done = rio(scene, out, *UNITS, "--model", "toy", "--threshold", "0.2")
    assert done.exit_code == 0, done.output
    np.testing.assert_array_equal(
        read(out)[0], reference(scene).cloudmask.predict("toy", threshold=0.2).values
    )
    again = rio(scene, out, *UNITS, "--model", "toy")
    assert again.exit_code == 1
    assert "exists already. Say --overwrite" in again.output
    wrong = rio(scene, out, "--levle", "L1C")
    assert wrong.exit_code == 2
    assert "Did you mean '--level'" in wrong.output
    shown = rio("--help")
    assert shown.exit_code == 0
    assert "usage: rio cloudmask [options] IN OUT" in shown.output
