"""`predict --dry-run` tells what would run, reads no pixel and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import DEM, UNITS, main, problem, raster, reference, terrain, toy
from xcloudmask.engine import run_dask, run_numpy
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import prepare

__all__ = ["toy"]


def test_it_tells_windows_model_and_output_of_each_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scenes = [
        raster(tmp_path / f"{name}.tif", size) for name, size in {"a": (150, 170), "b": (60, 40)}.items()
    ]
    monkeypatch.setattr(run_dask, "run", lambda *_: pytest.fail("a scene was masked"))
    words = ["predict", *map(str, scenes), "--out-dir", str(tmp_path / "out"), *UNITS, "--model", "toy"]
    assert main([*words, "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for each, scene in zip(told, scenes, strict=True):
        job = prepare(reference(scene), PredictOptions(model="toy"))
        assert each["windows"] == job.plan.tiles.count
        assert each["megapixels"] == pytest.approx(job.pixels[0].size / 1e6)
        assert each["out"] == str(tmp_path / "out" / scene.name)
        assert each["model"] == "toy"
        assert 0 < each["seconds"] < 60
        assert 0.05 < each["memory_gb"] < 10
    assert told[0]["seconds"] / told[0]["windows"] == pytest.approx(told[1]["seconds"] / told[1]["windows"])
    assert not (tmp_path / "out").exists()


def test_the_estimate_is_measured_with_the_options_that_are_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, plans = raster(tmp_path / "s.tif"), []
    run = run_numpy.run
    monkeypatch.setattr(run_numpy, "run", lambda plan, *given: plans.append(plan) or run(plan, *given))
    words = ["predict", str(scene), str(tmp_path / "m.tif"), *DEM, "--patch-size", "40", "--tta", "--dry-run"]
    assert main([*words, "--aux", f"elevation={terrain(tmp_path / 'dem.tif')}"]) == 0
    assert {(p.options.patch, p.options.tta) for p in plans} == {(40, 8)}
    assert [p.tiles.count for p in plans] == [1, 4]
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "Nothing was read or written" in shown


def test_what_would_fail_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = raster(tmp_path / "s.tif")
    (tmp_path / "there.tif").write_text("mine")
    code, line = problem(capsys, "predict", str(scene), str(tmp_path / "there.tif"), *UNITS, "--dry-run")
    assert (code, "exists already" in line) == (1, True)
    assert (
        problem(capsys, "predict", str(scene), str(tmp_path / "m.tif"), "--level", "L1C", "--dry-run")[0] == 1
    )
