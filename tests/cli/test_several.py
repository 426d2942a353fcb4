"""Several scenes in one call: dates out of names, and a mask for each."""

import re
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

from tests.cli.test_cli import UNITS, problem, raster, read, reference, toy
from tests.cli.test_stream import SMALL, cube, run

__all__ = ["toy"]
BANDS = ("B2", "B3", "B4", "B5")
SENSOR = ["--sensor", "landsat-8", *UNITS]


# --- dates ---


@pytest.mark.parametrize("words", [SENSOR, UNITS])
def test_dated_rasters_become_steps_of_a_store(tmp_path: Path, words: list[str]) -> None:
    names = BANDS if "--sensor" in words else ("blue", "green", "red", "nir")
    late = raster(tmp_path / "2020-06-20.tif", names=names)
    early = raster(tmp_path / "LC08_20200615T101021.tif", names=names)
    with rasterio.open(late, "r+") as file:
        file.write(file.read() + np.uint16(900))
    out = tmp_path / "out.zarr"
    assert run("stream", late, early, out, *words, *SMALL, "--quiet") == 0
    assert run("stream", raster(tmp_path / "20200701.tif", names=names), out, *words, *SMALL, "--quiet") == 0
    found = xr.open_zarr(out).cloud_mask
    times = ["2020-06-15T10:10:21", "2020-06-20", "2020-07-01"]
    np.testing.assert_array_equal(found.time.values, np.array(times, "M8[ns]"))
    assert found.item_id.values.tolist() == ["LC08_20200615T101021", "2020-06-20", "20200701"]
    for step, path in enumerate([early, late]):
        expected = reference(path).cloudmask.predict("toy", working_resolution="native")
        np.testing.assert_array_equal(found.values[step], expected.values)
    assert not found[0].equals(found[1])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["stream", "2020-06-15.tif", "2020-06-20.tif", "m.zarr", *SENSOR, "--date", "2020-06-15"], 2,
         "--date 2020-06-15 would be the date of 2 scenes. Leave it out"),
        (["predict", "2020-06-15.tif", "2020-06-20.tif", "--out-dir", "m", *SENSOR, "--date", "2020-06-15"],
         2, "--date 2020-06-15 would be the date of 2 scenes"),
        (["stream", "2020-06-15.tif", "m.zarr", *SENSOR, "--date", "2020-06-16T10:00"], 1,
         "its name says 2020-06-15, --date says 2020-06-16. Rename it, or leave --date out"),
        (["predict", "2020-06-15.tif", "m.tif", *SENSOR, "--date", "2020-06-16"], 1,
         "--date says 2020-06-16"),
        (["stream", "2020-06-15.zarr", "m.zarr"], 1,
         "its name says 2020-06-15, its time coordinate says 2020-06-14. Rename it, or correct the time"),
        (["stream", "2020-06-15.tif", "mean_20200601_20200630.tif", "m.zarr", *SENSOR], 2,
         "mean_20200601_20200630.tif does not tell its date.*2020-06-15.tif"),
        (["stream", "2020-06-15.tif", "plain.tif", "m.zarr", *SENSOR], 2, "plain.tif does not tell its date"),
        (["stream", "scenes", "m.zarr", *SENSOR], 1, "holds 2 scenes.*stream SCENE... OUT.zarr"),
        (["predict", "scenes", "masks"], 1,
         r"2 scenes \(2020-06-15.tif, 2020-06-20.tif\), .* --out-dir MASKS"),
        (["predict", "nameless", "masks"], 1,
         "which instrument.*If it holds several scenes: give each.*--out-dir"),
    ],
)  # fmt: skip
def test_dates_that_contradict_or_lack_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("scenes", "nameless"):
        (tmp_path / name).mkdir()
    for name in ("2020-06-15", "2020-06-20", "plain", "mean_20200601_20200630"):
        raster(tmp_path / f"{name}.tif", (40, 40), names=BANDS)
    for name in ("2020-06-15", "2020-06-20"):
        raster(tmp_path / "scenes" / f"{name}.tif", (40, 40), names=BANDS)
    for name in "ab":
        raster(tmp_path / "nameless" / f"{name}.tif", (40, 40), names=())
    cube(tmp_path / "2020-06-15.zarr", ["2020-06-14"])
    before = sorted(tmp_path.iterdir())
    found, line = problem(capsys, *words)
    assert re.search(says, line), line
    assert found == code
    assert sorted(tmp_path.iterdir()) == before


def test_a_date_that_agrees_with_the_name_is_taken(tmp_path: Path) -> None:
    scene = raster(tmp_path / "2020-06-15.tif", (40, 40), names=BANDS)
    words = [*SENSOR, *SMALL, "--quiet", "--date", "2020-06-15T10:20"]
    assert run("stream", scene, tmp_path / "m.zarr", *words) == 0
    assert xr.open_zarr(tmp_path / "m.zarr").time.values == np.datetime64("2020-06-15T10:20")
    store = cube(tmp_path / "2020-06-15.zarr", ["2020-06-15"])
    assert run("stream", store, tmp_path / "n.zarr", *SMALL, "--quiet") == 0


# --- a mask for each ---

TOY_MODEL = [*UNITS, "--model", "toy"]


def test_each_scene_has_its_mask_and_a_failing_one_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = raster(tmp_path / "a.tif"), raster(tmp_path / "c.v2.tiff", (60, 70))
    (tmp_path / "b.tif").write_text("no picture")
    store, out = cube(tmp_path / "d.zarr", ["2020-06-15"]), tmp_path / "new" / "masks"
    words = ["predict", first, tmp_path / "b.tif", last, store, "--out-dir", out, "--model", "toy"]
    assert run(*words, *UNITS) == 1
    told = capsys.readouterr()
    assert sorted(path.name for path in out.glob("*.tif")) == ["a.tif", "c.v2.tif"]
    for scene, name in ((first, "a.tif"), (last, "c.v2.tif")):
        np.testing.assert_array_equal(read(out / name)[0], reference(scene).cloudmask.predict("toy").values)
    assert "a.tif:" in told.out
    assert "c.v2.tif:" in told.out
    lines = told.err.splitlines()
    assert lines[0] == "xcloudmask: 2 of 4 scenes failed:"
    assert re.fullmatch(r"xcloudmask: \S*b\.tif: cannot be opened.*", lines[1])
    assert "d.zarr: " in lines[2]  # reflectance already, so that --scale does not apply
    assert len(lines) == 3


def test_outputs_that_exist_are_refused_before_anything_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = [raster(tmp_path / f"{name}.tif", (60, 70)) for name in "abc"]
    out = tmp_path / "masks"
    out.mkdir()
    (out / "c.tif").write_text("mine")
    words = ["predict", *scenes, "--out-dir", out, *TOY_MODEL]
    code, line = problem(capsys, *words)
    assert code == 1
    assert "c.tif: exists already. Say --overwrite" in line
    assert [path.name for path in out.iterdir()] == ["c.tif"]
    assert (out / "c.tif").read_text() == "mine"
    assert run(*words, "--overwrite", "--quiet") == 0
    assert sorted(path.name for path in out.glob("*.tif")) == ["a.tif", "b.tif", "c.tif"]
    assert read(out / "c.tif").shape == (1, 60, 70)
    assert capsys.readouterr() == ("", "")


def test_one_scene_has_its_mask_in_the_folder_too(tmp_path: Path) -> None:
    scene = raster(tmp_path / "a.tif", (60, 70))
    assert run("predict", "--out-dir", tmp_path / "m", scene, *TOY_MODEL) == 0
    assert run("predict", scene, *TOY_MODEL, "--out-dir", tmp_path / "n") == 0
    np.testing.assert_array_equal(read(tmp_path / "m" / "a.tif"), read(tmp_path / "n" / "a.tif"))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (
            ["a.tif", "b.tif", "masks"],
            2,
            "'masks' is one word too many. For several scenes say --out-dir DIR",
        ),
        (["a.tif", "b.tif", "--out-dir", ".", "--overwrite"], 2, "OUT is IN .*a.tif.*another folder"),
        (
            ["a.tif", "sub/a.tif", "--out-dir", "m"],
            2,
            "a.tif and sub/a.tif would both be masked into .*two runs",
        ),
        (["a.tif", "b.tif", "--out-dir", "c"], 2, "--out-dir .*c is a file: name a folder"),
        (["a.tif", "b.tif", "--out-dir", "m", "--model", "ukis-6ban"], 2, "mean 'ukis-6band"),
    ],
)
def test_problems_of_several_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    words: list[str], code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "c").write_text("")
    inputs = [raster(tmp_path / name, (40, 40)) for name in ("a.tif", "b.tif", "sub/a.tif")]
    before = [path.read_bytes() for path in inputs]
    found, line = problem(capsys, "predict", *words, *UNITS)
    assert re.search(says, line), line
    assert found == code
    assert [path.read_bytes() for path in inputs] == before
    assert not list(tmp_path.rglob("m/*"))
