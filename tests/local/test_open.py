"""What every format shares: description, laziness, chunks, and what is said of paths that nobody knows."""

import pickle
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xcloudmask.local
from tests.scenes import calls
from tests.stac.helpers import loaded_by
from xcloudmask.errors import CloudMaskError, OptionError, UnitWarning
from xcloudmask.local import build
from xcloudmask.scene.describe import BAND_COORDS


@pytest.fixture
def scene_file(tmp_path, raster, numbers):
    raw = np.stack([numbers(seed, (40, 50)) for seed in range(3)])
    return raster(tmp_path / "x.tif", raw, descriptions=["B02", "B04", "B08"], nodata=0), raw


GIVEN = {"sensor": "sentinel-2b", "level": "toa", "scale": 1e-4}


def test_coordinates_say_all_that_a_model_needs(scene_file):
    path, _ = scene_file
    scene = xcloudmask.local.open(path, **GIVEN)
    assert scene.name == "reflectance"
    assert scene.sizes["time"] == 1
    along = {name for name, c in scene.coords.items() if c.dims == ("band",)}
    assert along == {"band", *BAND_COORDS}
    red = scene.sel(band="red")
    assert red.center_wavelength.item() == pytest.approx(0.6649)  # µm
    assert red.full_width_half_max.item() == pytest.approx((red.max_nm.item() - red.min_nm.item()) / 1000)
    assert (red.band_name.item(), red.gsd.item(), red.kind.item()) == ("B04", 10.0, "reflectance")
    assert (scene.item_id.item(), scene.sensor.item()) == ("x", "sentinel-2b")
    assert np.isnat(scene.time.values[0])  # nobody told
    for name, coord in scene.coords.items():
        if coord.dtype == object:
            assert all(type(value) is str for value in coord.values.ravel()), name


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_it_can_be_written_and_read_back(scene_file, tmp_path, zarr_format):
    path, _ = scene_file
    scene = xcloudmask.local.open(path, **GIVEN, date="2020-01-02T10:20:30")
    scene.to_dataset().to_zarr(tmp_path / "x.zarr", zarr_format=zarr_format, consolidated=False)
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)["reflectance"]
    np.testing.assert_array_equal(back, scene)
    assert back.band.values.tolist() == ["blue", "red", "nir"]
    assert back.attrs["level"] == "toa"


def test_opening_reads_no_pixel(scene_file, monkeypatch):
    path, raw = scene_file
    calls = []
    real = build.read_layer
    monkeypatch.setattr(build, "read_layer", lambda *args: calls.append(args) or real(*args))
    scene = xcloudmask.local.open(path, **GIVEN, chunks=20)
    repr(scene), scene.rio.crs, scene.nbytes
    assert not calls
    part = scene.sel(band="red")[0, :20, :20].compute()
    assert len(calls) == 1  # one chunk of one band
    np.testing.assert_allclose(part, np.where(raw[1] == 0, np.nan, raw[1] * 1e-4)[:20, :20], atol=1e-6)


def test_names_follow_the_content(scene_file, raster):
    path, raw = scene_file
    one, same = (xcloudmask.local.open(path, **GIVEN).data.name for _ in range(2))
    assert one == same
    assert xcloudmask.local.open(path, **{**GIVEN, "scale": 2e-4}).data.name != one
    raster(path, raw[:, ::-1], descriptions=["B02", "B04", "B08"], nodata=0)
    assert xcloudmask.local.open(path, **GIVEN).data.name != one


@pytest.mark.parametrize(
    "chunks", [7, (40, 10), {"y": 13}, {"x": 9, "y": 40}, "auto", -1, ((30, 10), (25, 25))]
)
def test_chunks(scene_file, chunks):
    path, raw = scene_file
    scene = xcloudmask.local.open(path, **GIVEN, chunks=chunks)
    assert scene.chunks[:2] == ((1,), (1, 1, 1))
    np.testing.assert_allclose(scene[0], np.where(raw == 0, np.nan, raw * 1e-4), atol=1e-6)


@pytest.mark.parametrize("chunks", ["many", {"band": 1}, 0.5, (1, 2, 3), 0, {"y": 0}, (5, 0), -5])
def test_chunks_that_make_no_sense(scene_file, chunks):
    with pytest.raises(OptionError, match="chunks"):
        xcloudmask.local.open(scene_file[0], **GIVEN, chunks=chunks)


def test_averages_do_not_depend_on_chunks(scene_file):
    path, _ = scene_file
    whole = xcloudmask.local.open(path, **GIVEN, resolution=30, chunks=-1).values
    parts = xcloudmask.local.open(path, **GIVEN, resolution=30, chunks=5).values
    assert whole.shape == (1, 3, 14, 17)
    np.testing.assert_allclose(parts, whole, atol=1e-7)


def test_graph_is_small(tmp_path, raster):
    path = raster(
        tmp_path / "x.tif", np.ones((6, 2000, 2000), "uint8"), descriptions=list("123456"), nodata=0
    )
    names = ["B02", "B03", "B04", "B08", "B11", "B12"]
    scene = xcloudmask.local.open(path, **GIVEN, bands=names, chunks=50)
    assert scene.data.npartitions == 9600
    assert len(pickle.dumps(scene.data)) / scene.data.npartitions < 1000
    few, many = (
        calls(lambda n=n: xcloudmask.local.open(path, **GIVEN, bands=names, chunks=n)) for n in (500, 50)
    )
    assert (many - few) / (9600 - 96) < 2  # 0.3


def test_workers_read_too(scene_file):
    from dask.distributed import Client

    path, raw = scene_file
    scene = xcloudmask.local.open(path, **GIVEN, chunks=20)
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address="127.0.0.1:0"):
        np.testing.assert_allclose(scene.compute()[0], np.where(raw == 0, np.nan, raw * 1e-4), atol=1e-6)


@pytest.mark.parametrize(
    "when", ["2020-01-02", date(2020, 1, 2), datetime(2020, 1, 2), "2020-01-02T01:00+01:00"]
)
def test_dates(scene_file, when):
    scene = xcloudmask.local.open(scene_file[0], **GIVEN, date=when)
    assert scene.time.values[0] == np.datetime64("2020-01-02T00:00", "ns")


@pytest.mark.parametrize(("option", "value", "says"), [
    ("date", "yesterday", "Give ISO 8601"), ("scale", "1e-4", "Give a number"), ("scale", 0, "above 0"),
    ("sun_elevation", True, "Give a number"), ("sun_elevation", 0, "up to 90"),
    ("sun_elevation", 91, "above 0"), ("sun_elevation", float("nan"), "above 0"), ("level", "L9", "'L9'"),
    ("sensor", "sentinel2z", "did you mean"), ("resolution", 0, "above 0"), ("bands", ["rot"], "Allowed"),
    ("bands", "rot", "Allowed"), ("bands", ["red", "B04"], "more than once"),
])  # fmt: skip
def test_options_that_make_no_sense(scene_file, option, value, says):
    with pytest.raises(CloudMaskError, match=says):
        xcloudmask.local.open(scene_file[0], **{**GIVEN, option: value})


def test_options_that_do_not_exist(scene_file):
    with pytest.raises(OptionError, match="'resolutoin'; did you mean 'resolution'"):
        xcloudmask.local.open(scene_file[0], **GIVEN, resolutoin=10)


def test_paths_that_nobody_knows(tmp_path):
    with pytest.raises(CloudMaskError, match=r"nowhere: there is no such file or folder.*Check the path"):
        xcloudmask.local.open(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    found = r"notes.txt: found a single file of an unknown kind, which is none of: a Sentinel-2 .SAFE"
    with pytest.raises(CloudMaskError, match=found):
        xcloudmask.local.open(tmp_path / "notes.txt")
    with pytest.raises(CloudMaskError, match=r"found 1 files \(notes.txt\), which is none of.*GeoTIFF"):
        xcloudmask.local.open(tmp_path)
    for name in ("x.zip", "x.tar"):
        (tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(CloudMaskError, match=f"{name}: not a (zip|tar) archive.*Fetch it again"):
            xcloudmask.local.open(tmp_path / name)


def test_whole_archives_are_not_searched(tmp_path, monkeypatch):
    monkeypatch.setattr("xcloudmask.local.files.MOST_FILES", 3)
    for number in range(4):
        (tmp_path / f"{number}.tif").touch()
    with pytest.raises(CloudMaskError, match=r"more than 3 files.*Open the product's own folder"):
        xcloudmask.local.open(tmp_path)


MODULES = "import xcloudmask.local, xcloudmask.stac, xcloudmask.sensors, xcloudmask.scene.describe"


def test_importing_is_light():
    """`import xcloudmask` registers an accessor, which needs xarray and rioxarray; nothing else comes."""
    assert loaded_by(MODULES) - loaded_by("import rioxarray, xarray") == {"xcloudmask"}


def test_opening_alone_brings_no_reader():
    assert loaded_by("import xcloudmask.local", alone=True) - loaded_by("pass") == {"xcloudmask"}


def test_warnings_name_no_line_of_ours(scene_file):
    with pytest.warns(UnitWarning, match="nothing tells") as told:
        xcloudmask.local.open(scene_file[0], sensor="sentinel-2", scale=1e-4)
    assert [one.filename for one in told] == [__file__]


def test_no_module_warns_with_a_line_of_its_own():
    """Counting frames by hand goes wrong as soon as a function moves."""
    package = Path(xcloudmask.local.__file__).parents[1]
    told = [path.name for path in package.rglob("*.py") if "warnings.warn(" in path.read_text()]
    assert told == ["errors.py"]


@pytest.mark.parametrize(("path", "says"), [
    ("https://example.com/x.tif", "is a URL.*load_stac"), ("s3://bucket/x.SAFE", "is a URL.*load_stac"),
    (None, "unknown path of open None.*as text or a Path"), (5, "unknown path of open 5"),
    ("", "unknown path ''"), (["a.tif"], "unknown path"),
])  # fmt: skip
def test_what_is_no_path_of_this_machine(path, says):
    with pytest.raises(CloudMaskError, match=says):
        xcloudmask.local.open(path)
