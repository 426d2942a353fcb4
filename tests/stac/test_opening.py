"""What items may not make this machine open: other formats, other paths, other hosts, endless files."""

from __future__ import annotations

import http.server
import json
import os
import threading
import tracemalloc

import numpy as np
import pytest
import rasterio
from affine import Affine

from tests.stac import scenes
from tests.stac.scenes import Site, landsat1, sentinel2
from xcloudmask.errors import AssetError, CloudMaskError, UnitError
from xcloudmask.stac import load_stac
from xcloudmask.stac.opening import gdal_path, open_raster

RAW = """<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32632</SRS>
<GeoTransform>600000, 10, 0, 4900020, 0, -10</GeoTransform>
<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">
<SourceFilename relativeToVRT="0">{canary}</SourceFilename><ImageOffset>0</ImageOffset>
<PixelOffset>1</PixelOffset><LineOffset>8</LineOffset></VRTRasterBand></VRTDataset>"""


def item_of(href, **links):
    place = {"proj:shape": [8, 8], "proj:transform": [10, 0, scenes.LEFT, 0, -10, scenes.TOP]}
    red = {"href": href, **place, "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}]}
    properties = {"datetime": "2024-05-17T10:10:31Z", "s2:processing_baseline": "05.10", "proj:epsg": 32632}
    item = scenes.item("S2A_x", "sentinel-2-c1-l2a", "1.0.0", properties, {"red": red})
    return item | {"links": [{"rel": rel, "href": address} for rel, address in links.items()]}


def tile(root, name):
    place = Affine(10, 0, scenes.LEFT, 0, -10, scenes.TOP)
    return Site(root, str(root)).write(name, np.full((8, 8), 2000, "uint16"), place, "EPSG:32632", 0)[0]


def refused(href, says="", **links):
    with pytest.raises(AssetError, match=rf"item 'S2A_x', asset 'red'.*{says}"):
        load_stac([item_of(href, **links)], retries=0, timeout=5).compute()


@pytest.fixture
def canary(tmp_path):
    """A file that must not be read, beside files that would have it read."""
    path = tmp_path / "canary"
    path.write_bytes(bytes(range(1, 65)))
    return path


@pytest.fixture
def web(tmp_path):
    """A plain server of the folder."""

    asked = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        server.asked = asked
        yield server
        server.shutdown()


@pytest.mark.parametrize("name", ["a.tif", "a.vrt", "a.jp2"])
@pytest.mark.parametrize("over_http", [False, True])
def test_a_vrt_is_not_opened_whatever_its_name(tmp_path, canary, web, name, over_http):
    (tmp_path / name).write_text(RAW.format(canary=canary))
    with rasterio.open(RAW.format(canary=canary)) as file:  # GDAL itself does read it
        assert file.read(1)[0, 0] == 1
    root = web.url if over_http else str(tmp_path)
    refused(f"{root}/{name}", "not recognized.*GeoTIFF and JPEG 2000")


@pytest.mark.parametrize(
    "address",
    [
        "{vrt}", " {vrt}", "vrt://{tif}", "VRT://{tif}?bands=1", "GTIFF_DIR:1:{tif}", "GTIFF_RAW:{tif}",
        "HDF5:{tif}://a", "NETCDF:{tif}:a", "/vsizip//vsicurl/{url}/a.zip/a.tif",
        "/vsitar/vsicurl/{url}/a.tar/a.tif",
        "/vsizip/{{/vsicurl/{url}/a.zip}}/a.tif", "/vsisubfile/0_100,{tif}",
        "/vsicurl/ftp://127.0.0.1/a.tif",
        "/vsicurl?url={url}/a.tif", "/vsicurl_streaming/{url}/a.tif", "/vsistdin/", "/vsimem/a.tif",
        "/vsigzip//vsicurl/{url}/a.tif.gz", "WMS:{url}", "WCS:{url}", 'STACIT:"{url}/a.json"', "ZARR:{url}",
        "ftp://127.0.0.1/a.tif", "zip+{url}", "zip://a.zip!b.tif", "{folder}", "file://{folder}/",
    ],
)  # fmt: skip
def test_addresses_that_are_more_than_a_file_are_refused(tmp_path, canary, web, address):
    href = tile(tmp_path, "a.tif")
    vrt = RAW.format(canary=canary)
    refused(address.format(vrt=vrt, tif=href, url=web.url, folder=tmp_path), "is not opened")
    assert web.asked == []


def test_names_with_odd_signs_are_names(tmp_path):
    name = 'a "quoted": GTIFF_DIR:1:x.tif'
    href = tile(tmp_path, name)
    assert float(load_stac([item_of(href)]).mean()) == pytest.approx(0.1, abs=1e-6)


def test_a_pipe_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "a.tif")
    refused(str(tmp_path / "a.tif"), "a pipe or a device")


@pytest.mark.parametrize("rel", ["self", "root"])
def test_a_catalogue_elsewhere_names_no_path_of_this_machine(tmp_path, rel):
    """Neither as an image nor as an MTL file; whoever put the path there can say so."""
    href = tile(tmp_path, "a.tif")
    link = {rel: "https://example.com/item.json"}
    refused(href, "path of this machine.*modifier=", **link)
    refused(f"file://{href}", "path of this machine", **link)
    refused(f"/vsizip/{href}.zip/a.tif", "path of this machine", **link)
    load_stac([item_of(href, **{rel: f"file://{tmp_path}/item.json"})]).compute()
    load_stac([item_of(href, **link)], modifier=lambda item: item.update(links=[])).compute()
    load_stac([item_of("https://example.com/a.tif", **link)], patch_url=lambda _: href).compute()
    landsat = landsat1(Site(tmp_path, str(tmp_path))).item
    landsat["links"] = [{"rel": rel, "href": "https://example.com/item.json"}]
    with pytest.raises(AssetError, match="path of this machine"):
        load_stac([landsat])


def test_what_a_search_gives_is_from_elsewhere(tmp_path):
    class Search:
        url = "https://example.com/search"

        def items_as_dicts(self):
            return [item_of(str(tmp_path / "a.tif"))]

    with pytest.raises(AssetError, match="path of this machine"):
        load_stac(Search()).compute()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "10.0.0.1", "2130706433"]
)
def test_private_hosts_can_be_forbidden(monkeypatch, host):
    gdal_path(f"http://{host}/a.tif")
    monkeypatch.setenv("XCLOUDMASK_ALLOW_PRIVATE_HOSTS", "no")
    for address in (f"http://{host}:1/a.tif", f"/vsicurl/https://{host}/a.tif"):
        with pytest.raises(AssetError, match="private address, which XCLOUDMASK_ALLOW_PRIVATE_HOSTS"):
            gdal_path(address)
    monkeypatch.delenv("XCLOUDMASK_ALLOW_PRIVATE_HOSTS")
    with pytest.raises(AssetError, match="private address, which allow_private_hosts=False forbids"):
        gdal_path(f"http://{host}/a.tif", private=False)


def test_load_stac_can_forbid_private_hosts(site, web, tmp_path):
    """Pixels and metadata; a public host is none of its business."""
    scene = landsat1(site)
    text = json.dumps(scene.item).replace(str(site.base), web.url)
    options = {"bands": ["red"], "retries": 0, "allow_private_hosts": False}
    with pytest.raises(AssetError, match="private address, which allow_private_hosts=False forbids"):
        load_stac(json.loads(text), **options)  # its MTL file
    text = json.dumps(sentinel2(site, "cdse").item).replace(str(site.base), web.url)
    da = load_stac(json.loads(text), **options)
    with pytest.raises(AssetError, match=r"'B04_10m'.*private address, which allow_private_hosts=False"):
        da.compute()
    assert web.asked == []


@pytest.mark.parametrize("private", [True, False])
def test_a_redirection_to_a_private_host_is_not_followed(tmp_path, web, monkeypatch, private):
    """Where we fetch ourselves: the first host is taken for a public one here."""
    from xcloudmask.stac import opening, transport

    class Redirect(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302)
            self.send_header("Location", f"{web.url}/secret")
            self.end_headers()

        def log_message(self, *args):
            pass

    (tmp_path / "secret").write_text("END")
    if private:
        monkeypatch.setenv("XCLOUDMASK_ALLOW_PRIVATE_HOSTS", "no")
    with http.server.HTTPServer(("127.0.0.1", 0), Redirect) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(AssetError, match="private address"):
            transport._read_http(f"http://127.0.0.1:{server.server_port}/a", 5.0, private)
    assert web.asked == []
    monkeypatch.delenv("XCLOUDMASK_ALLOW_PRIVATE_HOSTS", raising=False)
    assert transport._read_http(f"{web.url}/secret", 5.0, True) == b"END"
    assert opening.MOST_BYTES < 20e6


def _landsat(tmp_path, text, base=None):
    scene = landsat1(Site(tmp_path, base or str(tmp_path)))
    (tmp_path / scene.item["id"] / "MTL.json").write_text(text)
    return [scene.item]


@pytest.mark.parametrize("over_http", [False, True])
def test_an_mtl_file_without_end_is_not_read_to_its_end(tmp_path, web, over_http):
    text = '{"LANDSAT_METADATA_FILE": {"IMAGE_ATTRIBUTES": {"A": "' + "x" * 60_000_000 + '"}}}'
    items = _landsat(tmp_path, text, web.url if over_http else None)
    del text
    tracemalloc.start()
    with pytest.raises(CloudMaskError, match="larger than 8 MiB"):
        load_stac(items, retries=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"a": {"b": ' + "[" * 100_000, "\n" * 5_000_000, "= " * 2_000_000],
    ids=["list", "mapping", "group", "lines", "signs"],
)
def test_odd_mtl_files_are_told(tmp_path, text):
    with pytest.raises(AssetError, match="not a Landsat MTL file"):
        load_stac(_landsat(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("REFLECTANCE_MULT_BAND_4", text) for text in ("0", "nan", "-2e-5", "1e-320")),
        ("REFLECTANCE_ADD_BAND_4", "inf"), ("REFLECTANCE_ADD_BAND_4", "abc"),
        ("SUN_ELEVATION", "1e-300"), ("SUN_ELEVATION", "nan"), ("SUN_ELEVATION", "400"),
    ],
)  # fmt: skip
def test_numbers_of_an_mtl_file_that_cannot_be_meant_are_told(tmp_path, key, value):
    scene = landsat1(Site(tmp_path, str(tmp_path)))
    path = tmp_path / scene.item["id"] / "MTL.json"
    document = json.loads(path.read_text())
    for group in document["LANDSAT_METADATA_FILE"].values():
        group.update({key: value} if key in group else {})
    path.write_text(json.dumps(document))
    with pytest.raises(UnitError, match=scene.item["id"]):
        load_stac([scene.item], bands=["red"])


@pytest.mark.parametrize(
    ("field", "value"), [("scale", 1e-320), ("scale", -1e-4), ("offset", 1e9), ("scale", 0)]
)
def test_numbers_of_an_item_that_cannot_be_meant_are_told(field, value):
    item = item_of("https://example.com/a.tif")
    item["assets"]["red"]["raster:bands"][0][field] = value
    with pytest.raises(UnitError, match=r"item 'S2A_x', asset 'red'.*raster:scale"):
        load_stac([item])


def test_only_images_are_opened_with_a_file_system(tmp_path, canary):
    import fsspec

    (tmp_path / "a.tif").write_text(RAW.format(canary=canary))
    with pytest.raises(rasterio.errors.RasterioIOError):
        open_raster(str(tmp_path / "a.tif"), filesystem=fsspec.filesystem("file"))
