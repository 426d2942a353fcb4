"""Servers that fail, files that are broken: the right pixels at last, or a message that names the item."""

from __future__ import annotations

import gc
import itertools
import json
import shutil
import time
import uuid
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from tests.services.process import unavailable
from tests.stac.helpers import equal, warns
from tests.stac.scenes import Site, landsat1, sentinel2
from xcloudmask.errors import AssetError, CloudMaskError, NoDataWarning
from xcloudmask.stac import load_stac
from xcloudmask.stac.opening import gdal_path
from xcloudmask.stac.transport import Transport, explain
from xcloudmask.store.retry import classify, repeat

pytestmark = pytest.mark.services


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch):
    monkeypatch.setattr("xcloudmask.store.retry.FIRST_DELAY", 0.05)


@pytest.fixture
def scene(web_server, faults):
    """A scene behind the proxy, under addresses that GDAL has not cached."""
    name = uuid.uuid4().hex
    made = sentinel2(Site(web_server.root / name, f"{faults.url}/{name}"), "earth-search-c1")
    made.path = {
        band: f"/{name}/{made.item['id']}/{own}.tif" for band, own in (("red", "B04"), ("nir", "B08"))
    }
    yield made
    shutil.rmtree(web_server.root / name)


@pytest.mark.parametrize("fault", [429, 500, 502, 503, 504, "drop", "cut"], ids=str)
def test_a_fault_that_passes_is_not_seen(scene, faults, engine, fault):
    faults.queue(scene.path["red"], fault, "pass", fault)
    da = load_stac([scene.item], bands=["red"], engine=engine, chunks=100)
    equal(da[0, 0], scene.expected["red"])
    assert scene.path["red"] not in faults.state()["left"]


def test_a_slow_answer_is_given_up_and_asked_for_again(scene, faults):
    faults.queue(scene.path["red"], 30.0)
    start = time.monotonic()
    da = load_stac([scene.item], bands=["red"], timeout=1)
    equal(da[0, 0], scene.expected["red"])
    assert time.monotonic() - start < 29  # that answer was not waited for


def test_pauses_grow(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    calls = []

    def fail():
        calls.append(1)
        raise OSError("HTTP response code: 503")

    with pytest.raises(OSError, match="503"):
        repeat(fail, 4, "it")
    assert len(calls) == 5
    assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(slept))


def test_a_server_that_keeps_failing_is_told(scene, faults, engine):
    faults.always(scene.path["red"], 503)
    da = load_stac([scene.item], bands=["red", "nir"], engine=engine, retries=1)
    with pytest.raises(
        AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*503.*after 1 retries.*retries="
    ):
        da.compute()
    da = load_stac([scene.item], bands=["red", "nir"], engine=engine, retries=1, on_error="skip")
    with warns(NoDataWarning, rf"item '{scene.item['id']}', asset 'red'.*Taken as no data"):
        values = da.compute()
    assert np.isnan(values.sel(band="red")).all()
    equal(values.sel(band="nir")[0], scene.expected["nir"])


def test_a_missing_file_is_told_at_once(scene, faults, engine):
    faults.always(scene.path["red"], 404)
    da = load_stac([scene.item], bands=["red"], engine=engine)
    with pytest.raises(
        AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*404.*not there.*patch_url"
    ):
        da.compute()
    assert faults.state()["seen"][scene.path["red"]] <= 2  # no retries
    da = load_stac([scene.item], bands=["red"], engine=engine, on_error="skip")
    with warns(NoDataWarning, rf"{scene.item['id']}.*404"):
        assert np.isnan(da.values).all()


def test_refused_credentials_are_told(scene, faults, engine):
    faults.always(scene.path["red"], 403)
    da = load_stac([scene.item], bands=["red"], engine=engine)
    with pytest.raises(
        AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*403.*credentials.*patch_url="
    ):
        da.compute()


def test_a_truncated_file_is_told(scene, engine):
    path = next(path for path in scene.files if path.name == "B04.tif")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    da = load_stac([scene.item], bands=["red"], engine=engine, retries=1)
    with pytest.raises(AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*truncated"):
        da.compute()
    da = load_stac([scene.item], bands=["red"], engine=engine, retries=1, on_error="skip", chunks=128)
    with warns(NoDataWarning, rf"{scene.item['id']}.*'red'"):
        values = da[0, 0].compute()
    # What is left of the file is right, the rest is no data.
    equal(values.values[~np.isnan(values)], scene.expected["red"][~np.isnan(values)])
    assert 0.2 < np.isnan(values).mean() < 1


def test_a_file_that_is_no_image_is_told(scene, engine):
    next(path for path in scene.files if path.name == "B04.tif").write_text("<html>please log in</html>")
    da = load_stac([scene.item], bands=["red"], engine=engine)
    with pytest.raises(AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*not recognized"):
        da.compute()


@pytest.mark.parametrize("content", [b"", b"<html>please log in</html>"], ids=["empty", "login page"])
def test_an_answer_of_200_that_is_no_image_is_told(scene, content):
    next(path for path in scene.files if path.name == "B04.tif").write_bytes(content)
    da = load_stac([scene.item], bands=["red"], retries=0)
    with pytest.raises(
        AssetError, match=rf"item '{scene.item['id']}', asset 'red'.*a login page.*patch_url="
    ):
        da.compute()


def test_urls_are_signed_when_they_are_opened_and_not_shown(scene, faults, engine):
    asked = []

    def sign(url):
        asked.append(url)
        return f"{url}?sig=SECRET"

    da = load_stac([scene.item], bands=["red"], engine=engine, patch_url=sign)
    assert not asked
    equal(da[0, 0], scene.expected["red"])
    assert asked
    assert all("SECRET" in path for path in faults.state()["seen"] if path.startswith(scene.path["red"]))
    next(path for path in scene.files if path.name == "B08.tif").write_text("no image")
    da = load_stac([scene.item], bands=["nir"], engine=engine, patch_url=sign)
    with pytest.raises(AssetError, match="nir") as caught:
        da.compute()
    assert "SECRET" not in str(caught.value)


def test_the_coefficients_of_landsat_level_1_are_fetched_with_retries(web_server, faults, engine):
    name = uuid.uuid4().hex
    scene = landsat1(Site(web_server.root / name, f"{faults.url}/{name}"))
    path = f"/{name}/{scene.item['id']}/MTL.json"
    faults.queue(path, 503, "drop")
    da = load_stac([scene.item], bands=["red", "lwir11"], engine=engine)
    equal(da.sel(band="red")[0], scene.expected["red"])
    equal(da.sel(band="lwir11")[0], scene.expected["lwir11"], 1e-4)
    faults.always(path, 404)
    with pytest.raises(AssetError, match=rf"{scene.item['id']}.*MTL.json.*404"):
        load_stac([scene.item], engine=engine)
    with (
        warns(NoDataWarning, rf"{scene.item['id']}.*left out"),
        pytest.raises(CloudMaskError, match="no item is left"),
    ):
        load_stac([scene.item], engine=engine, on_error="skip")


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_the_time_that_it_asks_for(web_server, faults, monkeypatch, status):
    name = uuid.uuid4().hex
    scene = landsat1(Site(web_server.root / name, f"{faults.url}/{name}"))
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    path = f"/{name}/{scene.item['id']}/MTL.json"
    later = datetime.now(UTC) + timedelta(seconds=70)
    asked = ["7", format_datetime(later, usegmt=True), "86400", "soon"]
    faults.queue(path, *((status, said) for said in asked))
    da = load_stac([scene.item], bands=["red"])
    assert "red" in da.band.values
    assert slept[0] == 7
    assert 10 < slept[1] <= 70
    assert slept[2] == 120  # there is an end to patience
    assert slept[3] < 1
    assert len(slept) == 4


# ----------------------------------------------------------------------------------------------------- S3


@pytest.fixture(scope="module")
def s3_scene(s3_server, tmp_path_factory):
    root = tmp_path_factory.mktemp("s3")
    made = sentinel2(Site(root, "s3://scenes"), "cdse")
    fs = s3_server.filesystem()
    fs.makedirs("scenes", exist_ok=True)
    for path in made.files:
        fs.put_file(str(path), f"scenes/{path.relative_to(root)}")
    return made


def test_s3_with_gdals_settings(s3_scene, s3_server, engine):
    da = load_stac([s3_scene.item], bands=["red"], engine=engine, gdal_env=s3_server.gdal_env())
    equal(da[0, 0], s3_scene.expected["red"])


def test_the_coefficients_of_landsat_level_1_on_s3(s3_server, tmp_path, engine):
    """The MTL file is no image, so s3fs reads it, with the keys that GDAL is given."""
    made = landsat1(Site(tmp_path, "s3://scenes/landsat"))
    fs = s3_server.filesystem()
    for path in tmp_path.rglob("*.*"):
        fs.put_file(str(path), f"scenes/landsat/{path.relative_to(tmp_path)}")
    da = load_stac([made.item], bands=["red"], engine=engine, gdal_env=s3_server.gdal_env())
    equal(da[0, 0], made.expected["red"])
    with pytest.raises(AssetError, match=rf"{made.item['id']}.*MTL.json"):
        load_stac([made.item], engine=engine, gdal_env=s3_server.gdal_env("wrong"), retries=0)


def test_s3_refuses_a_wrong_key(s3_scene, s3_server, engine):
    item = json.loads(
        json.dumps(s3_scene.item).replace("s3://scenes", "s3://scenes/.")
    )  # GDAL caches by name
    env = s3_server.gdal_env("wrong")
    da = load_stac([item], bands=["red"], engine=engine, gdal_env=env)
    with pytest.raises(AssetError, match=rf"item '{item['id']}', asset 'B04_10m'.*credentials.*gdal_env="):
        da.compute()


def test_s3_with_a_file_system(s3_scene, s3_server, engine):
    da = load_stac([s3_scene.item], bands=["red"], engine=engine, filesystem=s3_server.filesystem())
    equal(da[0, 0], s3_scene.expected["red"])


def _obstore(s3_server, secret=None):
    try:
        from obstore.fsspec import FsspecStore
    except ImportError:
        unavailable("obstore is not installed (the extra 'test' installs it)")
    return FsspecStore(
        "s3", access_key_id=s3_server.key, secret_access_key=secret or s3_server.secret, region="us-east-1",
        endpoint=s3_server.url, client_options={"allow_http": True}, virtual_hosted_style_request=False,
    )  # fmt: skip


def test_s3_with_obstore(s3_scene, s3_server, engine):
    da = load_stac([s3_scene.item], bands=["red"], engine=engine, filesystem=_obstore(s3_server))
    equal(da[0, 0], s3_scene.expected["red"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # obstore's half-opened file
@pytest.mark.parametrize("through", ["s3fs", "obstore"])
def test_a_file_system_with_a_wrong_key_is_told(s3_scene, s3_server, through):
    fs = _obstore(s3_server, "wrong") if through == "obstore" else s3_server.filesystem("wrong", attempts=1)
    da = load_stac([s3_scene.item], bands=["red"], filesystem=fs, retries=0)
    name = s3_scene.item["id"]
    with pytest.raises(AssetError, match=rf"item '{name}', asset 'B04_10m'.*credentials") as caught:
        da.compute()
    assert "wrong" not in str(caught.value)
    del caught
    gc.collect()


# ------------------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://a.org/b.tif?x=1", "/vsicurl/https://a.org/b.tif?x=1"),
        ("s3://bucket/key.tif", "/vsis3/bucket/key.tif"),
        ("gs://bucket/key.tif", "/vsigs/bucket/key.tif"),
        ("/vsis3/bucket/key.tif", "/vsis3/bucket/key.tif"),
        ("file:///data/a.tif", "/data/a.tif"),
        ("/data/a.tif", "/data/a.tif"),
    ],
)
def test_gdal_path(url, path):
    assert gdal_path(url) == path


@pytest.mark.parametrize(
    ("message", "fault", "remedy"),
    [
        ("HTTP response code: 503", "busy", "retries="),
        ("CURL error: Connection reset by peer", "broken", "retries="),
        ("HTTP response code: 404", "absent", "not there"),
        ("HTTP response code: 403", "refused", "credentials"),
        ("InvalidAccessKeyId: The access key ID does not exist", "refused", "credentials"),
        ("TIFFFillTile:Read error at row 4294967295; got 5030 bytes, expected 27428", "short", "truncated"),
        ("'/vsicurl/x' does not exist in the file system", "unclear", "not there"),
        ("HTTP Error 503: Fault", "busy", "retries="),
        ("404, message='Not Found', url='http://a/500/b.tif'", "absent", "not there"),
        (
            "'/vsicurl/http://a/2020/404/503/b.tif' not recognized as being in a supported",
            "unclear",
            "no image",
        ),
        ("something else of 403", "other", "damaged"),
    ],
)
def test_what_is_made_of_an_error(message, fault, remedy):
    error = OSError(message)
    assert classify(error).name == fault
    assert remedy in str(explain("a", "b", "http://c/d?sig=x", error, Transport()))


def test_a_fault_of_no_remedy_of_its_own_is_not_taken_for_one_of_credentials():
    text = str(explain("a", "b", "/data/d.tif", PermissionError(13, "Permission denied"), Transport()))
    assert "damaged" in text
    assert "patch_url" not in text
