"""The pages' code runs as it is printed, and the page names every dataset."""

import re
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.datasets.samples import MAKERS
from xcloudmask import datasets

DOCS = Path(__file__).parents[2] / "docs"


def blocks(name: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.M | re.S)


def test_the_code_on_datasets_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["sparcs"](tmp_path / "copy")
    names = {"FOLDER": tmp_path / "copy"}
    for block in blocks("datasets.md"):
        exec(compile(block, "datasets.md", "exec"), names)
    assert "LC80010812013365LGN00_18" in capsys.readouterr().out


def test_the_page_names_every_dataset() -> None:
    rows = re.findall(r"^\| (`.*?`) \|", (DOCS / "datasets.md").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"`([^`]*)`", " ".join(rows))) == set(datasets.names())


def test_a_site_of_ones_own_is_scored(capsys: pytest.CaptureFixture[str]) -> None:
    axis = 5.0 + 10 * np.arange(64)
    day = np.datetime64("2024-05-01", "ns") + np.arange(8) * np.timedelta64(5, "D")
    rng = np.random.default_rng(0)
    pixels = 0.1 + 0.002 * np.arange(8)[:, None, None, None] + 0.001 * rng.standard_normal((8, 2, 64, 64))
    pixels[3, :, 20:40] = 0.6  # a cloud of one day
    scenes = xr.DataArray(
        pixels.astype("f4"), dims=("time", "band", "y", "x"),
        coords={"time": day, "band": ["red", "nir"], "y": -axis, "x": axis},
    ).cloudmask.describe(bands=["red", "nir"], level="L1C")  # fmt: skip
    mask = xr.zeros_like(scenes.isel(band=0, drop=True), dtype="u1")
    mask.attrs = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
    mask[3, 20:40] = 1
    reference = mask.copy()
    none = xr.zeros_like(mask).assign_attrs(mask.attrs)  # as if nothing were cloud
    names = {"scenes": scenes, "mask": mask, "reference": reference, "other": none}
    first, second = blocks("scores.md")
    exec(compile(first, "scores.md", "exec"), names)
    assert "1.000" in capsys.readouterr().out
    exec(compile(second, "scores.md", "exec"), names)
    said = capsys.readouterr().out
    assert re.search(r"mine +noise 0.00\d\d, clear 9\d%, missed 0% of the clear, lost 0% of the masked", said)
    # a straight rise with a noise of 0.001: sqrt(1.5) times that stays
    noise = names["found"].noise.sel(mask=["mine", "other"]).values
    assert noise[0] == pytest.approx(0.001 * 1.5**0.5, abs=0.0005)
    assert noise[1] > 0.05
