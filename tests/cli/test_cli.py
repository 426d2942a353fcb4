"""The command line: the same results as in Python, one line a problem, nothing half-written."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.transform
import rioxarray
import xarray as xr

import xcloudmask
from tests.eopf_stores import L2A, needs_eopf
from xcloudmask import models
from xcloudmask.cli import COMMANDS, doctor, main, source
from xcloudmask.cli.parse import Parser
from xcloudmask.errors import WeightsError
from xcloudmask.testing import TOY
from xcloudmask.types import AuxInput

NAMES = ("blue", "green", "red", "nir")
PLACE = rasterio.transform.from_origin(600000, 4900020, 30, 30)


@pytest.fixture(autouse=True)
def toy() -> None:
    """Fast models, by name."""
    models.register(TOY, overwrite=True)
    needed = AuxInput("elevation", required=True)
    models.register(dataclasses.replace(TOY, name="toy-dem", aux=(needed, AuxInput("vv"))), overwrite=True)


def raster(path: Path, size: tuple[int, int] = (150, 170), names: Any = NAMES, **form: Any) -> Path:
    """A GeoTIFF of numbers x 10,000 with a gap of zeros."""
    count = 4
    pixels = np.random.default_rng(4).integers(200, 9000, (count, *size)).astype("u2")
    pixels[:, 20:60, 30:90] = 0
    form = {"crs": "EPSG:32632", "transform": PLACE, "nodata": 0, **form}
    with rasterio.open(
        path, "w", driver="GTiff", height=size[0], width=size[1], count=count, dtype="uint16", **form
    ) as file:
        file.write(pixels)
        for index, name in enumerate(names, start=1):
            file.set_band_description(index, name)
    return path


def terrain(path: Path) -> Path:
    """Heights of twice the scene's pixel size, with a declared gap."""
    values = np.random.default_rng(5).integers(0, 3000, (1, 90, 90)).astype("i2")
    values[0, 10:14] = -32768
    place = PLACE @ rasterio.Affine.translation(-4, -4) @ rasterio.Affine.scale(2)
    with rasterio.open(
        path, "w", driver="GTiff", height=90, width=90, count=1, dtype="int16", crs="EPSG:32632",
        nodata=-32768, transform=place,
    ) as file:  # fmt: skip
        file.write(values)
    return path


def reference(path: Path) -> xr.DataArray:
    """What Python says of the same file, described by hand."""
    da: Any = rioxarray.open_rasterio(path)
    return da.cloudmask.describe(bands=list(NAMES), level="L1C", scale=1e-4, offset=0.0)


def read(path: Path) -> Any:
    with rasterio.open(path) as file:
        return file.read()


UNITS = ["--level", "L1C", "--scale", "1e-4"]
#: The toy, that needs heights.
DEM = [*UNITS, "--model", "toy-dem"]


# --- predict ---


@pytest.mark.parametrize("chunks", ["2048", "64", "37"])
def test_predict_is_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str], chunks: str) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "mask.tif"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", "--chunks", chunks]) == 0
    expected = reference(scene).cloudmask.predict("toy")
    np.testing.assert_array_equal(read(out)[0], expected.values)
    assert (read(out)[0][20:60, 30:90] == 255).all()
    with rasterio.open(out) as file, rasterio.open(scene) as before:
        assert file.transform == before.transform
        assert file.crs == before.crs
        assert file.shape == before.shape
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.tags()["model"] == "toy"
        assert file.tags()["xcloudmask_version"] == xcloudmask.__version__
    told = capsys.readouterr()
    assert told.err == ""
    said = " ".join(told.out.split())
    cloud = 100 * (expected.values == 1).sum() / (expected.values != 255).sum()
    assert f"cloud {cloud:.1f} %" in said
    assert "mask.tif" in said
    assert "toy" in said


def test_every_option_reaches_predict(tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "mask.tif"
    base = ["predict", str(scene), str(out), *UNITS, "--model", "toy", "--overwrite", "--quiet"]
    da = reference(scene)
    plain = da.cloudmask.predict("toy")
    cases: dict[tuple[str, ...], dict[str, Any]] = {
        ("--threshold", "0.2"): {"threshold": 0.2},
        ("--scheme", "binary"): {"scheme": "binary"},
        ("--working-resolution", "90"): {"working_resolution": 90.0},
        ("--patch-size", "48", "--overlap", "5"): {"patch_size": 48, "overlap": 5},
        ("--tta",): {"tta": True},
        ("--tta-views", "2"): {"tta": 2},
    }
    for words, options in cases.items():
        assert main([*base, *words]) == 0
        expected = da.cloudmask.predict("toy", **options)
        assert not np.array_equal(expected.values, plain.values), words  # else the case shows nothing
        np.testing.assert_array_equal(read(out)[0], expected.values, err_msg=str(words))
    assert main([*base, "--nodata", "5000"]) == 0  # in place of the 0 that the file states
    np.testing.assert_array_equal(
        read(out)[0], da.cloudmask.describe(nodata=5000).cloudmask.predict("toy").values
    )
    assert (read(out)[0][20:60, 30:90] != 255).any()
    same = ["--working-resolution", "native", "--batch-size", "3", "--device", "cpu", "--dtype", "float32"]
    assert main([*base, *same]) == 0
    np.testing.assert_array_equal(
        read(out)[0], da.cloudmask.predict("toy", working_resolution="native").values
    )


@pytest.mark.parametrize("form", ["tif", "zarr", "nc"])
def test_heights_and_radar_beside_the_bands(tmp_path: Path, form: str) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "p.tif"
    opened: Any = rioxarray.open_rasterio(terrain(tmp_path / "dem.tif"))
    dem, vv = opened[0], (opened[0] / 10_000).assign_attrs(units="linear")
    files = {"dem": tmp_path / "dem.tif", "vv": tmp_path / "vv.tif"}
    vv.rio.to_raster(files["vv"])
    if form != "tif":
        files = dict.fromkeys(files, tmp_path / f"both.{form}")
        both = xr.Dataset({"height": dem, "vv": vv.drop_attrs()})
        both.to_zarr(files["vv"], zarr_format=2) if form == "zarr" else both.to_netcdf(files["vv"])
    words = ["--aux", f"dem={files['dem']}", "--aux", f"vv={files['vv']}", "--aux-units", "vv=linear"]
    words += ["--proba", "--tta", "--uncertainty"]
    assert main(["predict", str(scene), str(out), *DEM, *words]) == 0
    how: dict[str, Any] = {"tta": True, "uncertainty": True}
    expected = reference(scene).cloudmask.predict_proba("toy-dem", aux={"dem": dem, "vv": vv}, **how)
    np.testing.assert_allclose(read(out), expected.values, atol=1e-5)
    other = reference(scene).cloudmask.predict_proba("toy-dem", aux={"dem": dem}, **how)
    assert float(abs(expected - other).max()) > 0.01  # else the case shows nothing


def test_how_good_an_answer_for_odd_bands_may_be_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("blue", "red", "nir", "swir16")
    source = raster(tmp_path / "four.tif", names=names)
    assert main(["predict", str(source), str(tmp_path / "m.tif"), "--level", "L1C", "--scale", "0.0001"]) == 0
    assert "which estimates green, swir22 from the others: with blue" in " ".join(
        capsys.readouterr().err.split()
    )


def test_probabilities(tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "p.tif"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", "--proba"]) == 0
    expected = reference(scene).cloudmask.predict_proba("toy")
    np.testing.assert_allclose(read(out), expected.values, atol=1e-5)
    with rasterio.open(out) as file:
        assert file.descriptions == tuple(f"probability of {name}" for name in expected["class"].values)


def test_a_known_sensor_needs_no_scale(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = raster(tmp_path / "scene.tif", names=("B02", "B03", "B04", "B08"))
    out = tmp_path / "m.tif"
    words = ["--sensor", "sentinel-2", "--level", "L1C", "--scale", "1e-4", "--model", "toy"]
    assert main(["predict", str(scene), str(out), *words]) == 0
    np.testing.assert_array_equal(read(out)[0], reference(scene).cloudmask.predict("toy").values)
    with rasterio.open(out) as file:
        assert file.transform == PLACE


@pytest.mark.parametrize("degree", [1 / 336, 0.00026949458523585647])
@pytest.mark.parametrize("words", [["--sensor", "sentinel-2"], []])
def test_the_transform_is_the_inputs_to_the_last_digit(
    tmp_path: Path, words: list[str], degree: float
) -> None:
    transform = rasterio.transform.from_origin(-180 - degree / 2, 75 + degree / 2, degree, degree)
    names = ("B02", "B03", "B04", "B08") if words else NAMES
    scene = raster(tmp_path / "scene.tif", names=names, crs="EPSG:4326", transform=transform)
    out = tmp_path / "m.tif"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", *words]) == 0
    with rasterio.open(out) as file:
        assert file.transform == transform


def test_bands_without_names_are_named_on_the_command_line(tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "scene.tif", names=()), tmp_path / "m.tif"
    words = ["predict", str(scene), str(out), *UNITS, "--model", "toy", "--overwrite"]
    assert main([*words, "--bands", "blue,green,red,nir"]) == 0
    right = read(out)
    np.testing.assert_array_equal(right[0], reference(scene).cloudmask.predict("toy").values)
    assert main([*words, "--bands", "blue,green,nir,red"]) == 0
    assert not np.array_equal(read(out), right)


def test_some_of_the_bands_are_taken_by_name(tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "m.tif"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", "--bands", "nir,red"]) == 0
    np.testing.assert_array_equal(read(out)[0], reference(scene).cloudmask.predict("toy").values)


def test_a_scale_that_the_file_states_is_used(tmp_path: Path) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "m.tif"
    expected = reference(scene).cloudmask.predict("toy").values
    with rasterio.open(scene, "r+") as file:
        file.scales = (1e-4,) * 4
    assert main(["predict", str(scene), str(out), "--level", "L1C", "--model", "toy"]) == 0
    np.testing.assert_array_equal(read(out)[0], expected)


@pytest.mark.parametrize("stated", [{"scales": (1e-4,) * 4}, {"offsets": (-0.05,) * 4}, {}])
@pytest.mark.parametrize(
    "said", [["--offset", "-0.1"], ["--scale", "2e-4"], ["--offset", "0", "--scale", "1"]]
)
def test_what_is_said_of_scale_or_offset_stands_over_what_the_file_states(
    tmp_path: Path, stated: dict[str, Any], said: list[str]
) -> None:
    path = raster(tmp_path / "scene.tif")
    with rasterio.open(path, "r+") as file:
        for name, values in stated.items():
            setattr(file, name, values)
    parser = Parser("x", "")
    source.add_arguments(parser)
    found = source.open_scene(parser.parse_args([str(path), "--level", "L2A", *said]))
    options = dict(zip(said[::2], map(float, said[1::2]), strict=True))
    scale = options.get("--scale", stated.get("scales", (1.0,))[0])
    offset = options.get("--offset", stated.get("offsets", (0.0,))[0])
    told = {
        name: np.broadcast_to(found[name].values, 4) for name in ("scale", "offset") if name in found.coords
    }
    np.testing.assert_array_equal(told["offset"], offset)
    if stated or "--scale" in options:
        np.testing.assert_array_equal(told["scale"], scale)


@pytest.mark.parametrize("form", ["array", "bands as variables"])
def test_a_store_in_and_a_store_out(tmp_path: Path, form: str) -> None:
    da = reference(raster(tmp_path / "scene.tif"))
    store, out = tmp_path / "scene.zarr", tmp_path / "mask.zarr"
    if form == "array":
        da.to_dataset(name="reflectance").to_zarr(store, consolidated=False)
        extra = []
    else:
        bands = {name: da.sel(band=name, drop=True) for name in NAMES}
        xr.Dataset(bands).drop_attrs(deep=False).to_zarr(store, consolidated=False)
        extra = ["--scale", "1e-4", "--level", "L1C", "--nodata", "0"]
    assert main(["predict", str(store), str(out), "--model", "toy", "--chunks", "100", *extra]) == 0
    with xr.open_dataset(out, engine="zarr", decode_coords="all") as found:
        np.testing.assert_array_equal(found.cloud_mask.values, da.cloudmask.predict("toy").values)
        assert found.rio.crs == da.rio.crs


def test_a_store_of_several_arrays_asks_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    da = reference(raster(tmp_path / "scene.tif"))
    store, out = tmp_path / "scene.zarr", tmp_path / "mask.tif"
    xr.Dataset({"after": da[:, ::-1].drop_vars("y"), "before": da}).to_zarr(store, consolidated=False)
    assert main(["predict", str(store), str(out)]) == 2
    assert "--variable " in capsys.readouterr().err
    assert main(["predict", str(store), str(out), "--variable", "befor"]) == 2
    assert "Did you mean 'before'" in capsys.readouterr().err
    assert main(["predict", str(store), str(out), "--variable", "before", "--model", "toy"]) == 0
    np.testing.assert_array_equal(read(out)[0], da.cloudmask.predict("toy").values)


def test_an_output_is_not_replaced_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene, out = raster(tmp_path / "scene.tif"), tmp_path / "m.tif"
    out.write_text("mine")
    words = ["predict", str(scene), str(out), *UNITS, "--model", "toy"]
    assert main(words) == 1
    assert "exists already. Say --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([*words, "--overwrite"]) == 0
    assert read(out).shape == (1, 150, 170)
    before = scene.read_bytes()
    assert main(["predict", str(scene), str(scene), *UNITS, "--overwrite"]) == 2
    assert "OUT is IN" in capsys.readouterr().err
    assert scene.read_bytes() == before


def problem(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """Run a command that fails; return its code and its one line."""
    code = main([str(word) for word in words])
    told = capsys.readouterr()
    lines = told.err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("xcloudmask: ")
    assert "Traceback" not in told.err
    assert told.out == ""
    return code, lines[0]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["predict", "{d}/nope.tif", "{d}/m.tif"], 1, "there is no such file"),
        (["predict", "{d}/text.tif", "{d}/m.tif", *UNITS], 1, "text.tif: cannot be opened"),
        (["predict", "{d}/text.txt", "{d}/m.tif"], 1, "unknown kind"),
        (["predict", "{d}/nameless.tif", "{d}/m.tif", *UNITS], 1, "bear no names.*--bands blue,gr"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--bands", "a,b"], 1, "2 names.*4 bands .blue"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--model", "ukis-6ban"], 2, "mean 'ukis-6band"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--scheme", "binray"], 2, "did you mean 'binary'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--sensor", "landsat8x"], 2, "mean 'landsat-8'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--level", "L1C"], 1, "--scale 0.0001 --offset OFFSET, with"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--patch-size", "16"], 1, "--patch-size 16"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--device", "gpus"], 2, "unknown device 'gpus'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--variable", "x"], 2, "--variable is for Zarr"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--date", "2020-01-02"], 2, "--date does not apply"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--sun-elevation", "9"], 2, "-elevation does not"),
        (["info", "{d}/s.tif", *UNITS, "--sensor", "s2", "--sun-elevation", "91"], 2, "up to 90"),
        (["predict", "-x.tif", "{d}/m.tif"], 2, r"-x\.tif: a name that begins with - is written \./-x\.tif"),
        (["predict", "--", "-x.tif", "{d}/m.tif", "--level", "L1C"], 2, "--level: options come before --"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--offset", "-0.1", "--lev", "1"], 2, "mean '--level'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--proba", "--threshold", "0.5"], 2, "leave --proba out"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--uncertainty"], 2, "say --proba too"),
        (["predict", "{d}/s.tif", "{d}/m.tif", *UNITS, "--model", "toy", "--proba", "--uncertainty"], 1,
         "one member.* --tta tells the spread"),
        (["predict", "{d}/s.tif", "{d}/none/m.tif"], 1, "there is no such folder.*mkdir -p"),
        (["predict", "{d}/s.tif", "{d}/m.jpg"], 2, r"'\.jpg'.*\.tif, \.tiff, \.zarr"),
        (["predict", "{d}/s.tif", "{d}/m"], 2, r"\.tif, \.tiff, \.zarr"),
        (["predict", "{d}/s.tif"], 2, "required: OUT.*xcloudmask predict --help"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "more"], 2, "'more' is one word too many"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--ovewrite"], 2, "Did you mean '--overwrite'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--overw"], 2, "Did you mean '--overwrite'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--scale", "abc"], 2, "--scale: invalid float value: 'abc'"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--chunks", "0"], 2, "--chunks.*above 0"),
        (["predict", "{d}/s.tif", "{d}/m.tif", "--working-resolution", "fine"], 2, "auto, native, or metres"),
        (["predcit"], 2, "no command 'predcit'. Did you mean 'predict'"),
        ([], 2, "say a command: predict, info, models"),
        (["models", "shwo", "toy"], 2, "Did you mean 'show'"),
        (["models", "show"], 2, "xcloudmask models show NAME"),
        (["sensors", "show", "landsat", "88"], 2, "mean 'landsat-8'"),
        (["sensors", "list", "proba-v"], 2, "xcloudmask sensors show proba-v"),
    ],
)  # fmt: skip
def test_problems_are_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    raster(tmp_path / "s.tif", (40, 40))
    raster(tmp_path / "nameless.tif", (40, 40), names=())
    for name in ("text.tif", "text.txt"):
        (tmp_path / name).write_text("not a picture")
    before = sorted(tmp_path.iterdir())
    found, line = problem(capsys, *(word.format(d=tmp_path) for word in words))
    assert re.search(says, line), line
    assert found == code
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--model", "toy", "--tta-views", "9"], 2, "from 1 to 8"),
        (["--aux", "one.tif"], 2, "'one.tif' must be NAME=..., such as elevation=dem.tif"),
        (["--aux", "dem={d}/no.tif"], 1, "--aux dem: .*no.tif cannot be opened.*Check the path"),
        (["--aux", "dem={d}/s.tif"], 2, "4 bands.*gdal_translate -b 1"),
        (["--aux", "dem={d}/two.zarr"], 2, "holds a, b: give a file with one variable, or one .*'dem'"),
        (["--aux", "dem=a", "--aux", "dem=b"], 2, "said twice"),
        (["--aux-units", "dem=m"], 2, "there is no --aux dem=FILE"),
        (["--aux", "hight={d}/one.tif"], 2, "mean 'height'"),
        (["--aux", "dem={d}/one.tif", "--aux", "vv={d}/one.tif"], 1, "say --aux-units NAME=dB or"),
        (["--aux", "dem={d}/one.tif", "--aux-units", "dem=feet"], 1, "'feet'.*say --aux-units NAME=m$"),
        ([], 1, "needs the aux input elevation: --aux elevation=FILE$"),
    ],
)
def test_problems_of_aux_are_one_line_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    scene, flat = raster(tmp_path / "s.tif", (40, 40)), xr.DataArray(np.zeros((4, 4)), dims=("y", "x"))
    terrain(tmp_path / "one.tif")
    xr.Dataset({"a": flat, "b": flat}).to_zarr(tmp_path / "two.zarr", zarr_format=2)
    words = [word.format(d=tmp_path) for word in words]
    found, line = problem(capsys, "predict", scene, tmp_path / "m.tif", *DEM, *words)
    assert re.search(says, line), line
    assert found == code


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that even root cannot write in")
def test_a_folder_that_cannot_be_written_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = raster(tmp_path / "s.tif", (40, 40))
    code, line = problem(capsys, "predict", scene, "/proc/self/m.tif", *UNITS, "--model", "toy")
    assert code == 1
    assert "/proc/self: " in line
    assert "Choose another" in line


def test_an_input_that_is_cut_short_leaves_no_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene, out = raster(tmp_path / "s.tif", (400, 400)), tmp_path / "m.tif"
    scene.write_bytes(scene.read_bytes()[:300_000])
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", "--chunks", "64"]) == 1
    assert "xcloudmask: " in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.tif"]


def test_the_librarys_warnings_are_told_once_in_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = raster(tmp_path / "s.tif")
    assert main(["predict", str(scene), str(tmp_path / "m.tif"), "--scale", "1e-4", "--quiet"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = told.err.splitlines()
    assert line.startswith("xcloudmask: warning: the processing level is not told")
    assert "--level L1C or --level L2A" in line


# --- a process of its own ---


def start(*words: object, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xcloudmask", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env},
        # a suite that runs in the background has SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_for_part(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the run has begun to write."""
    for _ in range(1200):
        if list(folder.glob(".*.part/blocks.tif")):
            return
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("the run did not begin to write within a minute")


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 143)],
    ids=lambda v: str(v),
)
def test_a_stopped_run_leaves_no_output(tmp_path: Path, sent: signal.Signals, code: int) -> None:
    scene, out = raster(tmp_path / "s.tif", (2000, 2000)), tmp_path / "m.tif"
    run = start("predict", scene, out, *UNITS, "--chunks", 256)
    wait_for_part(tmp_path, run)
    time.sleep(1)
    run.send_signal(sent)
    stdout, stderr = run.communicate(timeout=60)
    assert run.returncode == code
    assert stdout == ""
    assert not out.exists()
    left = [p for p in tmp_path.iterdir() if p != scene]
    if sent != signal.SIGKILL:
        assert left == []
        assert "nothing is left half-written" in stderr
        assert "Traceback" not in stderr
    else:
        assert [p.suffix for p in left] == [".part"]
        small = raster(tmp_path / "small.tif", (40, 40))
        assert main(["predict", str(small), str(out), *UNITS, "--model", "toy"]) == 0
        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.tif", "m.tif.aux.xml", "s.tif", "small.tif"]


def test_help_and_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for words, says in {
        ("--version",): f"xcloudmask {xcloudmask.__version__}",
        ("--help",): "predict",
        ("predict", "--help"): "examples:",
        ("help", "models"): "usage: xcloudmask models",
    }.items():
        assert main(list(words)) == 0
        told = capsys.readouterr()
        assert says in told.out
        assert told.err == ""
        assert max(map(len, told.out.splitlines())) <= 80


def test_a_closed_pipe_is_no_error() -> None:
    pipe = subprocess.run(
        f"'{sys.executable}' -m xcloudmask sensors | head -1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (pipe.returncode, pipe.stderr) == (0, "")


def test_help_loads_no_network_library() -> None:
    code = (
        "import sys; from xcloudmask.cli import main; main(['--help']); main(['predict', '--help']);"
        "main(['models']); main(['sensors']);"
        "print(sorted({'torch', 'onnxruntime', 'zarr', 'matplotlib', 'pystac_client'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- the other commands ---


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize(
    "words",
    [
        ["models"],
        ["models", "show", "ukis-6band-l1c"],
        ["sensors"],
        ["sensors", "show", "sentinel-2a"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_what_is_printed_fits_the_terminal(
    words: list[str], columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    whole = [line for line in lines if not re.search(r"[0-9a-f]{64}", line)]  # a hash is not broken
    assert max(map(len, whole)) <= columns
    assert all(line == line.rstrip() for line in lines)


def test_models_and_sensors_list_everything(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    told = capsys.readouterr().out
    assert all(name in told for name in models.names())
    main(["sensors"])
    told = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", told, re.M) for name in xcloudmask.sensors.names())
    main(["sensors", "show", "Landsat", "8"])
    told = capsys.readouterr().out
    assert "Landsat 8" in told
    assert all(band.name in told for band in xcloudmask.sensors.get("landsat-8").bands)
    main(["models", "show", "ukis-6band-l2a"])
    assert models.get("ukis-6band-l2a").sha256 in capsys.readouterr().out


def test_info_says_what_predict_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = raster(tmp_path / "s.tif")
    assert main(["info", str(scene), "--level", "L2A"]) == 0
    told = capsys.readouterr().out
    assert "ukis-4band-l2a" in told
    assert "--scale" in told
    assert "describe(" not in told


@pytest.mark.parametrize("sensor", [[], ["--sensor", "sentinel-2"]])
def test_a_mask_given_as_a_scene_is_called_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sensor: list[str]
) -> None:
    scene, out = raster(tmp_path / "s.tif"), tmp_path / "m.tif"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy"]) == 0
    capsys.readouterr()
    found, line = problem(capsys, "predict", out, tmp_path / "again.tif", *sensor)
    assert (found, line) == (
        1, f"xcloudmask: {out} is a mask: predict takes the reflectance it was made from"
    )  # fmt: skip


def test_bytes_are_not_scaled_as_the_sensors_products_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with rasterio.open(tmp_path / "B04.tif", "w", driver="GTiff", height=8, width=8, count=1, dtype="uint8",
                       crs="EPSG:32632", transform=PLACE) as file:  # fmt: skip
        file.write(np.full((1, 8, 8), 90, "u1"))
        file.set_band_description(1, "B04")
    words = ["info", tmp_path / "B04.tif", "--sensor", "sentinel-2", "--level", "L1C"]
    found, line = problem(capsys, *words)
    assert found == 1
    assert re.search("8-bit picture, which is no reflectance.*pass --scale 0.003922 --offset 0$", line), line


def test_info_of_bands_without_names_says_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = raster(tmp_path / "n.tif", names=())
    assert main(["info", str(scene)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in (
        "band: 4, y: 150, x: 170", "EPSG:32632", "30 metre", "uint16; no data: 0",
        "4 bands bear no names", "--bands blue,green,red,nir",
    ):  # fmt: skip
        assert words in told
    assert main(["info", str(scene), "--bands", ",".join(NAMES), "--level", "L1C"]) == 0
    assert "4 of 4 recognised" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["tif", "zarr"])
@pytest.mark.parametrize("proba", [False, True])
def test_info_of_a_mask_says_by_which_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, proba: bool
) -> None:
    scene, out = raster(tmp_path / "s.tif"), tmp_path / f"m.{ending}"
    assert main(["predict", str(scene), str(out), *UNITS, "--model", "toy", *["--proba"] * proba]) == 0
    written = capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert f"m.{ending}: {'probabilities' if proba else 'mask'} " in told
    assert re.search(r"Model +toy 1", told)
    if not proba:
        assert "1 cloud, 3 cloud_shadow, 255 no_data" in told
        assert re.findall(r"(\w+)\s+([\d.]+)\s%", told) == re.findall(r"(\w+)\s+([\d.]+)\s%", written)


def test_a_store_that_holds_a_scene_beside_its_mask_is_a_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = reference(raster(tmp_path / "s.tif"))
    both = xr.Dataset({"mask": scene.cloudmask.predict("toy"), "pixels": scene})
    both.drop_vars("band", errors="ignore").to_zarr(tmp_path / "b.zarr", consolidated=False)
    assert main(["info", str(tmp_path / "b.zarr")]) == 0
    assert ": scene pixels" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "b.zarr"), "--variable", "mask"]) == 0
    assert ": mask (" in capsys.readouterr().out, "and not 'mask mask'"


def test_demo_calls_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where this fails, the real demo runs, and writes a folder
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr("xcloudmask.cli.demo.make", lambda *out: calls.append(out))
    monkeypatch.setattr("xcloudmask.cli.demo.report", str)
    assert main(["demo"]) == 0
    assert main(["demo", "here"]) == 0
    assert calls == [(), ("here",)]


def test_doctor_finds_what_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from xcloudmask.models.sources import ukis

    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    monkeypatch.setattr(doctor, "_declared", lambda: {"plot": ["no-such-plotter"], "odc": ["odc-stac"]})
    monkeypatch.setattr(doctor, "DRIVERS", (("NoSuchDriver", "nothing", True),))
    monkeypatch.setattr(ukis, "carried", lambda *_: (_ for _ in ()).throw(WeightsError("altered")))
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert re.search(r"BROKEN +no-such-package +pip install no-such-package", told)
    assert re.search(
        r"missing +plot +pictures; lacks no-such-plotter: pip install\s+'xcloudmask\[plot\]'", told
    )
    assert re.search(r"BROKEN +NoSuchDriver", told)
    assert re.search(r"BROKEN +model +WeightsError: altered", told)
    assert "3 needed parts are broken" in told


def test_doctor_and_the_page_on_installing_list_every_extra() -> None:
    """Those of pyproject.toml but for those that only developers install."""
    root = Path(__file__).parents[2]
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (root / "docs" / "howto" / "install.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*`) \|", page.partition("## Environment variables")[0], re.M)
    expected = set(declared["optional-dependencies"]) - {"docs", "test", "dev"}
    assert set(re.findall(r"`([\w-]+)`", "".join(rows))) == expected
    assert set(doctor.EXTRAS) == expected


def test_the_extras_of_the_doctor_are_those_declared() -> None:
    assert "odc-stac" in doctor._declared()["odc"]
    assert any(name.startswith("matplotlib") for name in doctor._declared()["plot"])


# --- parts ---


def test_every_command_has_its_module() -> None:
    for name, (module, about) in COMMANDS.items():
        assert module == f"xcloudmask.cli.{name}"
        assert about
    assert source.CHUNKS % 512 == 0


def test_verbose_tells_which_model_and_how_many_chunks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(raster(tmp_path / "s.tif")), str(tmp_path / "m.tif"), *UNITS, "--chunks", "100"]
    assert main([*words, "--model", "toy", "--verbose"]) == 0
    assert "xcloudmask: model toy, 4 chunks\n" in capsys.readouterr().err
    assert main([*words, "--model", "toy", "--overwrite"]) == 0
    assert capsys.readouterr().err == ""


@needs_eopf
def test_a_product_of_eopf_is_opened_as_such(eopf_store, tmp_path: Path) -> None:
    """A Zarr store like others, but its bands lie in groups."""
    assert main(["predict", str(eopf_store(L2A)), str(tmp_path / "mask.tif"), "--model", "toy"]) == 0
    expected = xcloudmask.open(eopf_store(L2A)).cloudmask.predict(TOY)
    with rasterio.open(tmp_path / "mask.tif") as file:
        np.testing.assert_array_equal(file.read(1), expected[0])
    assert main(["predict", str(eopf_store(L2A)), str(tmp_path / "b.tif"), "--variable", "b02"]) != 0
