"""The page on dates: its code runs as it is printed, its figures are those of the benchmark's results."""

import json
import re
from pathlib import Path
from types import ModuleType

import geopandas
import numpy as np
import pytest
import shapely

import xcloudmask

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "time.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dates: ModuleType
) -> None:
    mpl = pytest.importorskip("matplotlib")
    mpl.use("Agg")
    site = dates.simulate(0, 12, 48, 0.3)
    mask = dates.naive(site).rio.write_crs(32632)
    parcels = geopandas.GeoDataFrame(geometry=[shapely.box(20, -300, 95, -20)], crs=32632)
    series = dates.record(np.random.default_rng(0), regions=2)
    names = {"xcloudmask": xcloudmask, "scene": site["scene"].chunk(y=20), "mask": mask.chunk(y=20)}
    names |= {"parcels": parcels, "series": series}
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        exec(compile(block, "time.md", "exec"), names)
    said = capsys.readouterr().out
    assert "steps in 52 tests" in said
    assert {path.name for path in tmp_path.iterdir()} == {"steps.csv", "steps.png"}
    found = names["found"].compute()
    assert found.lost.sel(mask="threshold") > found.lost.sel(mask="revised")
    assert int(names["revised"].persistent_bright.sum()) > 10
    assert names["monthly"].sizes["time"] >= 6
    mpl.pyplot.close("all")


def test_its_figures_are_those_that_were_measured() -> None:
    found = json.loads((ROOT / "benchmarks" / "results" / "dates.json").read_text())
    plain = " ".join(TEXT.split())
    ranks = found["ranks"]
    for value in (ranks["mean"]["error"], ranks["worst"]["error"], ranks["mean"]["noise"]):
        assert f"{value:.2f}" in plain
    assert f"{ranks['pairs_right']} of {ranks['pairs']}" in plain
    for run in found["rules"]:
        shares = ("ground_called_cloud_before", "ground_called_cloud_after", "missed_found", "to_cloud_right")
        cells = " | ".join(f"{100 * run[key]:.1f}" for key in shares)
        assert f"| {run['dates']} | {cells} |" in TEXT
    for run in found["alarms"]:
        assert f"{100 * run['p_low_months']:.1f} %" in plain
        assert f"{100 * run['p_low_year']:.1f} %" in plain
    for run in found["power"]:
        cells = " | ".join(f"{100 * run[key]:.0f}" for key in ("months_seen", "years_seen", "false_steps"))
        assert f"| {run['size']:.2f} | {cells} |" in TEXT
    for name in ("ukis-any-l2a", "spectral"):
        run = found["alberta"][name]
        assert f"| `{name}` | {run['noise']:.4f} | {run['error']:.3f} | {run['missed']:.3f} |" in TEXT


@pytest.mark.parametrize("name", ["time.png", "continuity.png"])
def test_pictures_are_small(name: str) -> None:
    assert (ROOT / "docs" / name).stat().st_size < 150_000
