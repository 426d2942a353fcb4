"""``xcloudmask stream`` and ``xcloudmask stac``: what Python writes, and how a run ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr

from tests.cli.test_cli import UNITS, problem, raster, reference, start, terrain
from tests.streaming.items import BOX, make_item
from xcloudmask import models, open_masks
from xcloudmask.archive.sync import SyncReport
from xcloudmask.cli import main
from xcloudmask.stac import load_stac
from xcloudmask.streaming import StreamReport
from xcloudmask.streaming.report import Failure
from xcloudmask.testing import TOY

SMALL = ["--zarr-chunk", "32", "--zarr-shard", "64", "--working-resolution", "native", "--model", "toy"]


@pytest.fixture(autouse=True)
def toy() -> None:
    """A fast model, by name."""
    models.register(TOY, overwrite=True)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, in one line, wherever it was wrapped."""
    return " ".join(capsys.readouterr().out.split())


# --- stream ---


def test_stream_writes_what_predict_returns_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "m.zarr"
    words = ["stream", scene, out, *UNITS, *SMALL]
    assert run(*words) == 0
    told = capsys.readouterr()
    assert "9 of 9 regions done (9 now, 0 before)" in " ".join(told.out.split())
    assert "9/9 regions" in told.err
    expected = reference(scene).cloudmask.predict("toy", working_resolution="native")
    found = xr.open_zarr(out).cloud_mask
    np.testing.assert_array_equal(found.values, expected.values)
    assert zarr.open_array(out / "cloud_mask", mode="r").shards == (64, 64)
    assert run(*words, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run(*words) == 0
    assert "(0 now, 9 before)" in printed(capsys)


def test_every_option_reaches_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: dict[str, Any] = {}

    def note(source: Any, store: Any, **options: Any) -> StreamReport:
        taken.update(options, store=store)
        return StreamReport("m.zarr", "cloud_mask", 1, 1, 0, (), 1.0, 1.0)

    monkeypatch.setattr("xcloudmask.streaming.stream", note)
    scene, dem = raster(tmp_path / "scene.tif", (40, 40)), terrain(tmp_path / "dem.tif")
    words = [
        "--model", "toy", "--scheme", "native", "--working-resolution", "30", "--patch-size", "64",
        "--overlap", "8", "--tta-views", "4", "--device", "cpu", "--dtype", "float32", "--batch-size", "3",
        "--group", "g", "--saturation", "0.4",
        "--overwrite", "--uncertainty", "--aux", f"dem={dem}",
        "--zarr-chunk", "16", "--zarr-shard", "32", "--store-option", "anon=true", "--store-option",
        "endpoint_url=http://127.0.0.1:1", "--regions-in-flight", "2", "--retries", "0",
        "--no-resume", "--proba", "--stored", "float16", "--quiet", "--overviews", "--stac", "catalogue",
    ]  # fmt: skip
    assert run("stream", scene, "s3://bucket/m.zarr", *UNITS, *words) == 0
    assert list(aux := taken["predict"].pop("aux")) == ["dem"]
    assert aux["dem"].shape == (90, 90)
    assert aux["dem"].chunks is not None
    assert taken == {
        "predict": {
            "model": "toy", "scheme": "native", "working_resolution": 30.0, "patch_size": 64, "overlap": 8,
            "tta": 4, "post": None, "uncertainty": True, "device": "cpu", "dtype": "float32", "batch_size": 3,
            "threshold": None, "saturation": 0.4,
        },
        "group": "g", "append_dim": "time", "overwrite": True,
        "chunks": {"y": 16, "x": 16}, "shards": {"y": 32, "x": 32}, "regions_in_flight": 2, "retries": 0,
        "resume": False, "output": "probabilities", "encoding": {"dtype": "float16"}, "progress": False,
        "overviews": True, "stac": "catalogue",
        "storage_options": {"anon": True, "endpoint_url": "http://127.0.0.1:1"},
        "store": "s3://bucket/m.zarr",
    }  # fmt: skip
    assert run("stream", scene, "m.zarr", *UNITS, "--no-shards", "--threshold", "0.3") == 0
    assert (taken["shards"], taken["predict"]["threshold"], taken["resume"]) == (False, 0.3, True)
    assert "1 of 1 regions done" in printed(capsys)


def cube(path: Path, days: list[str]) -> Path:
    values = np.random.default_rng(len(days)).random((len(days), 2, 70, 80), np.float32)
    da = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(days, "M8[ns]"), "item_id": ("time", [f"scene-{day}" for day in days]),
            "y": 4_000_000.0 - 10 * np.arange(70), "x": 500_000.0 + 10 * np.arange(80),
        },
        name="reflectance",
    ).rio.write_crs(32632)  # fmt: skip
    da = da.cloudmask.describe(bands=["red", "nir"], level="L1C")
    words = {name: coord.astype(object) for name, coord in da.coords.items() if coord.dtype.kind == "U"}
    da.assign_coords(words).to_zarr(path, zarr_format=3, consolidated=False)
    return path


def test_scenes_become_steps_in_the_order_of_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    late = cube(tmp_path / "late.zarr", ["2026-05-11", "2026-05-16"])
    early, last = cube(tmp_path / "early.zarr", ["2026-05-01"]), cube(tmp_path / "z.zarr", ["2026-06-01"])
    out = tmp_path / "out.zarr"
    assert run("stream", late, early, out, *SMALL) == 0
    assert run("stream", last, out, *SMALL) == 0
    found = xr.open_zarr(out).cloud_mask
    days = ["2026-05-01", "2026-05-11", "2026-05-16", "2026-06-01"]
    assert found.time.dt.strftime("%Y-%m-%d").values.tolist() == days
    assert found.item_id.values.tolist() == [f"scene-{day}" for day in days]
    for path, steps in {early: [0], late: [1, 2], last: [3]}.items():
        scene = xr.open_zarr(path, consolidated=False, decode_coords="all").reflectance.compute()
        expected = scene.cloudmask.predict("toy", working_resolution="native")
        np.testing.assert_array_equal(found.values[steps], expected.values)
    middle = cube(tmp_path / "middle.zarr", ["2026-05-05"])
    assert run("stream", middle, out, *SMALL, "--quiet") == 0  # what comes late is appended
    stored = xr.open_zarr(out).cloud_mask.time.dt.strftime("%Y-%m-%d").values.tolist()
    assert stored == [*days, "2026-05-05"]
    assert open_masks(out).time.to_index().is_monotonic_increasing
    assert run("stream", middle, last, out, *SMALL, "--overwrite") == 0
    assert xr.open_zarr(out).sizes["time"] == 2


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["{d}/s.tif"], 2, "required: OUT.*xcloudmask stream --help"),
        (["{d}/s.tif", "{d}/s.tif", "{d}/m.zarr", *UNITS], 2, "does not tell its date"),
        (["{d}/s.tif", "{d}/m.zarr", *UNITS, "--stored", "uint8"], 2, "say --proba too"),
        (["{d}/s.tif", "{d}/m.zarr", *UNITS, "--proba", "--threshold", "0.5"], 2, "leave --proba out"),
        (["{d}/s.tif", "{d}/m.zarr", *UNITS, "--store-option", "anon"], 2, "KEY=VALUE"),
        (["{d}/s.tif", "{d}/m.zarr", *UNITS, "--workers", "2", "--scheduler", "tcp://a:1"], 2, "not allowed"),
        (["{d}/s.tif", "{d}/m.zarr", *UNITS, "--retries", "-1"], 2, "whole number"),
        (["{d}/none.tif", "{d}/m.zarr", *UNITS], 1, "no such file"),
        (["{d}/s.tif", "{d}/file/m.zarr", *UNITS], 1, "a part of the path is a file"),
        (["{d}/s.tif", "{d}/done.zarr", *UNITS, *SMALL, "--no-resume"], 1, "pass --resume to go on"),
    ],
)  # fmt: skip
def test_problems_of_stream_are_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    scene = raster(tmp_path / "s.tif", (40, 40))
    (tmp_path / "file").write_text("")
    if any("done.zarr" in word for word in words):
        assert run("stream", scene, tmp_path / "done.zarr", *UNITS, *SMALL, "--quiet") == 0
    found, line = problem(capsys, "stream", *(word.format(d=tmp_path) for word in words))
    assert re.search(says, line), line
    assert found == code


def test_other_settings_than_the_stores_are_told_on_lines_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["stream", raster(tmp_path / "s.tif", (40, 40)), tmp_path / "m.zarr", *UNITS, *SMALL, "--quiet"]
    assert run(*words) == 0
    capsys.readouterr()
    assert run(*words, "--threshold", "0.3", "--scheme", "binary") == 1
    first, *facts, last = capsys.readouterr().err.splitlines()
    assert first.startswith("xcloudmask: ")
    assert first.endswith("m.zarr holds another mask than this call would make:")
    assert "  threshold: None in the store, 0.3 in this call" in facts
    assert len(facts) > 1
    assert all(re.match(r"  \w+: .* in the store, .* in this call$", fact) for fact in facts), facts
    assert re.match("Pass --overwrite to replace.*another --group", last)


def test_an_icechunk_repository_is_written_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    icechunk = pytest.importorskip("icechunk")
    scene, out = raster(tmp_path / "scene.tif"), f"icechunk:{tmp_path / 'repo'}"
    words = ["stream", scene, out, *UNITS, *SMALL, "--group", "masks"]
    assert run(*words) == 0
    assert "9 of 9 regions done (9 now, 0 before)" in printed(capsys)
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    found = xr.open_zarr(repo.readonly_session("main").store, group="masks", consolidated=False).cloud_mask
    expected = reference(scene).cloudmask.predict("toy", working_resolution="native")
    np.testing.assert_array_equal(found.values, expected.values)
    assert run(*words) == 0
    assert "(0 now, 9 before)" in printed(capsys)
    repo.create_branch("other", repo.lookup_branch("main"))
    assert run(*words, "--store-option", "branch=other", "--threshold", "0.3", "--overwrite") == 0
    tips = [repo.readonly_session(branch).store for branch in ("main", "other")]
    kept, new = (xr.open_zarr(tip, group="masks", consolidated=False).cloud_mask for tip in tips)
    assert "threshold" not in kept.attrs
    assert new.attrs["threshold"] == 0.3
    assert xr.open_zarr(tips[0], group="masks", consolidated=False).cloud_mask.equals(found)


@pytest.mark.parametrize(
    ("out", "options", "says"),
    [
        ("icechunk:az://a/b", [], "place of an Icechunk repository 'az://a/b'.*s3://.*pass the repository"),
        ("icechunk:", [], "place of an Icechunk repository ''"),
        ("icechunk:{d}/r", ["--store-option", "anon=true"], "icechunk:.*'anon'"),
        ("icechunk:{d}/r", ["--store-option", "branch=gone"], "branch gone.*cannot be opened.*gone"),
    ],
)
def test_an_icechunk_repository_that_cannot_be_opened_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, options: list[str], says: str
) -> None:
    pytest.importorskip("icechunk")
    scene = raster(tmp_path / "s.tif", (40, 40))
    _, line = problem(capsys, "stream", scene, out.format(d=tmp_path), *UNITS, *SMALL, *options)
    assert re.search(says, line), line


def test_failed_regions_are_summed_up_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.zarr"
    scene = raster(tmp_path / "s.tif", tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    whole = scene.read_bytes()
    with rasterio.open(scene) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_2_2", "TIFF", bidx=1))
    scene.write_bytes(whole[:offset] + bytes(100) + whole[offset + 100 :])  # a block is spoilt
    words = ["stream", scene, out, *UNITS, *SMALL, "--chunks", "64", "--retries", "0", "--quiet"]
    assert run(*words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert all(line.startswith("xcloudmask: ") for line in lines)
    assert (
        sum(bool(re.search(r": cloud_mask, \d of 9 regions done .* failed:$", line)) for line in lines) == 1
    )
    why = re.compile(r"xcloudmask: region \(2, 2\) of the image: RasterioIOError: (?!Read failed)")
    assert any(why.match(line) for line in lines)
    assert lines[-1] == "xcloudmask: Run the same command again to try the failed ones once more"
    scene.write_bytes(whole)
    assert run(*words) == 0
    assert capsys.readouterr() == ("", "")
    expected = reference(scene).cloudmask.predict("toy", working_resolution="native")
    np.testing.assert_array_equal(xr.open_zarr(out).cloud_mask.values, expected.values)


def test_many_failures_are_not_all_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    failed = tuple(Failure((0, 0, at), "2026-05-01 S2A", "OSError: 404") for at in range(30))
    report = StreamReport("m.zarr", "cloud_mask", 30, 0, 0, failed, 0.0, 1.0)
    monkeypatch.setattr("xcloudmask.streaming.stream", lambda *args, **options: report)
    assert run("stream", raster(tmp_path / "s.tif", (40, 40)), tmp_path / "m.zarr", *UNITS) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 13
    assert "and 20 more" in lines[-2]


def wait_for_region(store: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a region is recorded as done."""
    for _ in range(3000):
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            if (zarr.open_array(store / "stream" / "status", mode="r")[...] == 1).any():
                return
        except (FileNotFoundError, ValueError):  # not yet there, or just being written
            pass
        time.sleep(0.02)
    raise AssertionError("no region was done within a minute")


@pytest.mark.network
@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=lambda value: str(value)
)
def test_a_stopped_stream_says_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sent: signal.Signals, code: int
) -> None:
    scene, out = raster(tmp_path / "s.tif", (800, 800)), tmp_path / "m.zarr"
    words = [
        "stream",
        scene,
        out,
        *UNITS,
        "--zarr-chunk",
        64,
        "--zarr-shard",
        128,
        "--model",
        "ukis-4band-l1c",
    ]
    process = start(*words)
    wait_for_region(out, process)
    process.send_signal(sent)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert stdout == ""
    assert "finishing the regions in progress" in stderr
    assert "run the same command again, and it goes on there" in stderr
    assert "Traceback" not in stderr
    assert not list((out / "stream").glob("lock.*"))
    done = int((zarr.open_array(out / "stream" / "status", mode="r")[...] == 1).sum())
    assert 0 < done < 49
    assert run(*words) == 0
    assert f"({49 - done} now, {done} before)" in printed(capsys)


@pytest.mark.slow
def test_workers_on_this_machine_write_the_same(tmp_path: Path) -> None:
    scene = raster(tmp_path / "s.tif")
    code = (
        "import sys; from xcloudmask import models; from xcloudmask.cli import main;"
        "from xcloudmask.testing import TOY; models.register(TOY)\n"
        "if __name__ == '__main__': sys.exit(main(sys.argv[1:]))"
    )
    (tmp_path / "program.py").write_text(code)
    words = ["stream", scene, tmp_path / "m.zarr", *UNITS, *SMALL, "--workers", "1"]
    command = [sys.executable, str(tmp_path / "program.py"), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "9 of 9 regions done" in done.stdout.replace("\n", " ")
    expected = reference(scene).cloudmask.predict("toy", working_resolution="native")
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "m.zarr").cloud_mask.values, expected.values)


# --- stac ---

AT = ["--bbox", *map(str, BOX)]
GRID = ["--bands", "red,nir", "--working-resolution", "native", "--model", "toy", "--zarr-chunk", "16",
        "--zarr-shard", "48"]  # fmt: skip


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("items")
    made = [make_item(root, f"CLI_{i}", f"2026-05-{2 * i + 1:02d}") for i in range(3)]
    for number, item in enumerate(made):
        west, south, east, north = item["bbox"]
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        item["geometry"] = {"type": "Polygon", "coordinates": [ring]}
        item["collection"] = "cli-sentinel-2-l2a"
        item["properties"]["eo:cloud_cover"] = 30.0 * number
    return made


def check(store: Path, items: list[dict[str, Any]]) -> None:
    found = xr.open_zarr(store).cloud_mask
    scene = load_stac(items, bands=["red", "nir"], bbox=BOX)
    expected = scene.cloudmask.predict("toy", working_resolution="native").compute()
    assert found.item_id.values.tolist() == [item["id"] for item in items]
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.services
def test_what_an_api_finds_is_listed_and_masked(
    items: list[dict[str, Any]], stac_api: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}}
    name = items[0]["collection"]
    collection = {
        "type": "Collection", "id": name, "stac_version": "1.0.0", "description": name, "license": "other",
        "extent": extent, "links": [],
    }  # fmt: skip
    stac_api.load([collection], items)
    search = ["stac", "--api", stac_api.url, "--collection", name, *AT]
    assert run(*search, "--datetime", "2026-05-01/2026-05-04") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["time", "cloud", "item"]
    assert lines[1].split() == ["2026-05-01", "10:10", "0", "%", "CLI_0"]
    assert lines[2].split() == ["2026-05-03", "10:10", "30", "%", "CLI_1"]
    assert "2 items" in lines[-1]
    assert run(*search, "--limit", "1") == 0
    assert "1 item." in printed(capsys)
    assert run(*search, "--query", "eo:cloud_cover<50", "--save", tmp_path / "found.json") == 0
    assert {one["id"] for one in json.loads((tmp_path / "found.json").read_text())["features"]} == {
        "CLI_0", "CLI_1",
    }  # fmt: skip
    capsys.readouterr()
    store = tmp_path / "m.zarr"
    assert run(*search, "--datetime", "2026-05-01", "--to", store, *GRID) == 0
    assert "1 added, 0 replaced, 0 skipped" in printed(capsys)
    assert run(*search, "--to", store, *GRID) == 0
    assert "2 added, 0 replaced, 1 skipped" in printed(capsys)
    check(store, items)
    assert run(*search, "--to", store, *GRID, "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run(*search, "--datetime", "1999") == 0
    assert "no items. Widen" in printed(capsys)
    assert run("stac", "--api", stac_api.url, "--collection", name, "--datetime", "yesterday") == 1
    assert f"{stac_api.url}: the search failed" in capsys.readouterr().err


def test_a_file_of_items_is_masked(
    items: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = tmp_path / "items.json", tmp_path / "m.zarr"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    assert run("stac", path) == 0
    assert "CLI_2" in printed(capsys)
    assert run("stac", path, *AT, "--to", store, *GRID) == 0
    assert "3 added" in printed(capsys)
    check(store, items)
    assert run("stac", path, *AT, "--to", store, *GRID, "--resolution", "20") == 1
    assert "resolution: None in the store, 20.0 in this call" in capsys.readouterr().err


def test_every_option_reaches_sync(
    items: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, Any] = {}

    def note(found: Any, store: Any, **options: Any) -> SyncReport:
        taken.update(options, store=store, found=[item["id"] for item in found])
        return SyncReport("m.zarr")

    monkeypatch.setattr("xcloudmask.archive.sync.sync", note)
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    words = [
        "--to", "s3://b/m.zarr", "--bbox", "-10", "44", "-9.5", "45", "--bands", "red,nir",
        "--resolution", "20", "--crs", "EPSG:32632", "--level", "L2A", "--engine", "odc", "--model", "toy",
        "--scheme", "native",
        "--threshold", "0.3", "--working-resolution", "30", "--patch-size", "64", "--overlap", "8", "--tta",
        "--device", "cpu", "--dtype", "float32", "--batch-size", "3", "--group", "g", "--overwrite",
        "--zarr-chunk", "16", "--no-shards", "--store-option", "anon=true", "--regions-in-flight", "2",
        "--retries", "0", "--quiet", "--sentinel2-offset", "skip", "--sun-elevation", "41.5",
        "--resampling", "bilinear", "--on-error", "skip", "--timeout", "9", "--max-pixels", "1000000",
        "--no-allow-private-hosts", "--saturation", "0.4", "--prefer", "s3",
    ]  # fmt: skip
    assert run("stac", path, *words) == 0
    assert taken == {
        "found": ["CLI_0", "CLI_1", "CLI_2"], "store": "s3://b/m.zarr", "output": "classes",
        "load": {
            "bbox": [-10.0, 44.0, -9.5, 45.0], "bands": ["red", "nir"], "resolution": 20.0,
            "crs": "EPSG:32632", "level": "L2A", "engine": "odc", "sentinel2_offset": "skip",
            "sun_elevation": 41.5, "resampling": "bilinear", "on_error": "skip", "timeout": 9.0,
            "max_pixels": 1_000_000, "allow_private_hosts": False, "prefer": "s3",
        },
        "predict": {
            "model": "toy", "scheme": "native", "threshold": 0.3, "working_resolution": 30.0,
            "patch_size": 64, "overlap": 8, "tta": True, "post": None, "aux": None, "uncertainty": False,
            "device": "cpu", "dtype": "float32", "batch_size": 3, "saturation": 0.4,
        },
        "write": {
            "group": "g", "append_dim": "time", "resume": True, "overwrite": True,
            "chunks": {"y": 16, "x": 16}, "shards": False, "encoding": None, "regions_in_flight": 2,
            "retries": 0, "progress": False, "storage_options": {"anon": True},
            "overviews": False, "stac": None,
        },
    }  # fmt: skip
    assert run("stac", path, "--to", "m.zarr", "--bands", "auto", "--proba") == 0
    assert (taken["load"]["bands"], taken["output"]) == ("auto", "probabilities")
    assert taken["load"]["engine"] == "stackstac"


def test_items_that_fail_are_summed_up(
    items: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, store = tmp_path / "items.json", tmp_path / "m.zarr"
    asset = items[1]["assets"]["nir"]
    away = {**items[1], "assets": {**items[1]["assets"], "nir": {**asset, "href": f"{tmp_path}/away.tif"}}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [items[0], away]}))
    words = ["stac", path, *AT, "--to", store, *GRID, "--retries", "0", "--quiet"]
    assert run(*words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert "1 added, 0 replaced, 0 skipped, 0 left out, 1 failed" in told.err
    assert "away.tif" in told.err
    assert told.err.splitlines()[-1].endswith("Run the same command again to try the failed ones once more")
    (tmp_path / "away.tif").write_bytes(Path(asset["href"]).read_bytes())
    assert run(*words) == 0
    check(store, items[:2])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 2, "--api URL with --collection C, or a file"),
        (["{d}/items.json", "--api", "http://a"], 2, "--api searches an API.*leave one of them out"),
        (["{d}/none.json"], 1, "No such file"),
        (["{d}/text.json"], 1, "text.json: it is no JSON"),
        (["{d}/empty.json"], 1, "there are no items"),
        (
            ["--api", "http://127.0.0.1:9/stac"],
            1,
            "http://127.0.0.1:9/stac: the search failed.*Check the URL",
        ),
        (["--api", "http://a", "--bbox", "1", "2", "3"], 2, "--bbox: expected 4 arguments"),
        (["--api", "http://a", "--engine", "gdal"], 2, "unknown engine 'gdal'"),
    ],
)
def test_problems_of_stac_are_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    (tmp_path / "text.json").write_text("items")
    for name in ("items.json", "empty.json"):
        (tmp_path / name).write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    found, line = problem(capsys, "stac", *(word.format(d=tmp_path) for word in words))
    assert re.search(says, line), line
    assert found == code


@pytest.mark.parametrize("command", ["stream", "stac"])
def test_help_fits_80_columns_and_loads_nothing_large(command: str) -> None:
    code = (
        f"import sys; from xcloudmask.cli import main; main(['{command}', '--help']);"
        "print(sorted({'torch', 'onnxruntime', 'zarr', 'distributed', 'pystac_client'} & set(sys.modules)))"
    )
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "[]"
    assert max(map(len, lines)) <= 80
    assert "examples:" in lines
    assert "--no-shards a file for each chunk, which GDAL reads from 3.12 on" in " ".join(done.stdout.split())
