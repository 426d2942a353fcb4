"""The map: its pixels, its legend, that nothing is fetched, and that a browser can drag, zoom and read it."""

from __future__ import annotations

import base64
import html
import importlib
import inspect
import io
import json
import re
import shutil
import subprocess

import dask.array as dask_array
import numpy as np
import pytest
import xarray as xr
from PIL import Image

from tests.masks.test_plot import CODES, FLAGS, scene, striped_mask
from xcloudmask.accessor import CloudMask
from xcloudmask.classes import COLOURS, GAP_FACE, GAP_LINES, SCHEMES, class_colours
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.picture import rgb_of
from xcloudmask.masks.thumbnail import data_uri, thumbnail

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
GAP = {rgb_of(GAP_FACE), rgb_of(GAP_LINES)}


def image_in(page: str, name: str) -> np.ndarray:
    found = re.search(rf'id="{name}" src="data:image/png;base64,([^"]+)"', page)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def legend_of(page: str) -> list[tuple[str, str]]:
    return re.findall(r'<span><i class="[a-z]*" style="([^"]*)"></i>([^<]*)</span>', page)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (2, 64)])
def test_a_png_holds_the_pixels(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 4)).astype("u1")
    data = base64.b64decode(data_uri(pixels).partition(",")[2])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)


def test_a_mask_alone_has_each_class_in_its_colour_and_gaps_hatched() -> None:
    page = striped_mask().cloudmask.explore().page
    mask = image_in(page, "mask")
    assert 'id="picture" src=""' in page
    for row, name in enumerate([*CODES][:-1]):
        assert {tuple(pixel) for pixel in mask[row]} == {(*rgb_of(COLOURS[name]), 255)}, name
    assert {tuple(pixel[:3]) for pixel in mask[6]} == GAP


def test_over_a_scene_clear_is_seen_through_and_gaps_of_either_are_hatched() -> None:
    picture = scene(7, 40)
    picture[:, 2, :] = np.nan
    page = picture.cloudmask.explore(striped_mask()).page
    mask = image_in(page, "mask")
    assert (mask[0, :, 3] == 0).all(), "clear"
    assert (mask[1:, :, 3] == 255).all()
    drawn = image_in(page, "picture")
    assert (drawn[..., 3] == 255).all()
    assert {tuple(pixel[:3]) for pixel in drawn[2]} == GAP
    assert not {tuple(pixel[:3]) for pixel in drawn[3]} & GAP


def test_pixels_of_no_class_are_gaps_and_not_clear() -> None:
    mask = striped_mask().copy(data=np.full((7, 40), 77, "u1"))
    assert {tuple(pixel[:3]) for pixel in image_in(mask.cloudmask.explore().page, "mask")[3]} == GAP


@pytest.mark.parametrize("name", SCHEMES)
def test_the_legend_is_that_of_the_scheme(name: str) -> None:
    codes = SCHEMES[name][0]
    values = np.array([[*codes.values(), 255]], "u1")
    flags = {"flag_values": [*codes.values()], "flag_meanings": " ".join(codes)}
    page = xr.DataArray(values, dims=("y", "x"), attrs=flags).cloudmask.explore().page
    shown = legend_of(page)
    assert [words for _, words in shown] == [*(word.replace("_", " ") for word in codes), "no data"]
    drawn = image_in(page, "mask")[0]
    for at, (style, words) in enumerate(shown[:-1]):
        assert rgb_of(style.removeprefix("background:")) == tuple(drawn[at, :3]), words


def test_other_classes_take_no_colour_that_is_taken() -> None:
    names = ["clear", "cloud", "cloud_shadow", "snow", "haze", "smoke", "dust", "ash"]
    assert len(set(class_colours(names).values())) == len(names)


def test_nothing_is_fetched_and_names_are_text() -> None:
    flags = {"flag_values": [0, 1], "flag_meanings": "clear </script><img/src=x>"}
    mask = xr.DataArray([[0, 1]], dims=("y", "x"), attrs=flags)
    shown = mask.cloudmask.explore()
    for text in (shown.page, shown._repr_html_()):
        assert not re.search(r"https?:|\burl\(|@import|fetch\(|<link|src=[\"'](?!data:|\")", text)
        assert "<img/src" not in text
    assert shown.page.count("</script>") == 1
    assert 'sandbox="allow-scripts"' in shown._repr_html_()


def test_only_the_time_that_is_shown_is_computed_and_others_are_offered() -> None:
    data = dask_array.stack(
        [dask_array.full((7, 40), step, chunks=(7, 40), dtype="u1") for step in (0, 1, 3)]
    )
    mask = xr.DataArray(data, dims=("time", "y", "x"), attrs=FLAGS)
    assert {tuple(p) for p in image_in(mask.cloudmask.explore(time=2).page, "mask")[0]} == {
        (*rgb_of(COLOURS["cloud_shadow"]), 255)
    }
    with pytest.warns(UserWarning, match=r"explore\(time=...\): 0 to 2"):
        mask.cloudmask.explore()


def test_large_arrays_are_thinned_and_the_page_is_written(tmp_path) -> None:
    mask = xr.DataArray(np.zeros((300, 90), "u1"), dims=("y", "x"), attrs=FLAGS)
    shown = mask.cloudmask.explore(limit=100)
    assert image_in(shown.page, "mask").shape == (100, 90, 4)
    path = shown.save(tmp_path / "map.html")
    assert path.read_text(encoding="utf-8") == shown.page


def test_what_is_no_map_says_what_to_do() -> None:
    proba = xr.DataArray(np.zeros((1, 4, 4), "f4"), dims=("class", "y", "x"), coords={"class": ["cloud"]})
    with pytest.raises(CloudMaskError, match=r"probabilities\. Make classes with predict\(\), or plot\(\)"):
        proba.cloudmask.explore()
    for option, says in ({"alpha": 2}, "between 0"), ({"limit": 0}, "limit=0 must be 1"):
        with pytest.raises(CloudMaskError, match=says):
            striped_mask().cloudmask.explore(**option)


def test_a_thumbnail_is_of_what_lies_in_memory_only() -> None:
    mask = striped_mask()
    assert image_of(thumbnail(lambda: mask)).shape == (7, 40, 4)
    assert image_of(thumbnail(lambda: scene(300, 20))).shape == (75, 20, 4)
    assert thumbnail(lambda: mask.chunk()) == ""
    assert thumbnail(lambda: xr.DataArray(1.0)) == ""
    assert thumbnail(lambda: 1 / 0) == ""
    assert mask.cloudmask._repr_html_().count("<img src='data:image/png;base64,") == 1
    assert scene().to_dataset("band").cloudmask._repr_html_().count("<img ") == 1
    assert "<img" not in mask.chunk().cloudmask._repr_html_()


def image_of(address: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


#: Zooms with the wheel where the first rows are, drags, presses a key, and tells what became of it.
HAND = """<script>
setTimeout(() => {
  const box = map.getBoundingClientRect(), at = (x, y) => ({clientX: x, clientY: y, bubbles: true})
  const before = images[0].style.transform
  const x = left + scale * facts.width / 2, y = top_ + scale * facts.height * 1.5 / 7
  map.dispatchEvent(new PointerEvent("pointermove", at(x, y)))
  const read = part("here").textContent
  part("in").click()
  map.dispatchEvent(new WheelEvent("wheel", {deltaY: -300, bubbles: true, cancelable: true}))
  const near = images[0].style.transform
  map.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}))
  part("alpha").value = 0.3; part("alpha").dispatchEvent(new Event("input"))
  document.title = JSON.stringify([before, read, near, images[0].style.transform, part("mask").style.opacity,
                                   images.map(i => i.naturalWidth), innerWidth])
}, 300)
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent: apt-get install chromium")
def test_a_browser_drags_zooms_and_reads_it(tmp_path) -> None:
    shown = scene(7, 40).cloudmask.explore(striped_mask())
    path = shown.save(tmp_path / "map.html")
    path.write_text(shown.page + HAND, encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'p'}",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--virtual-time-budget=3000",
         "--window-size=800,600", "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    title = re.search("<title>(.*?)</title>", done.stdout, re.S)[1]
    before, read, near, moved, opacity, widths, window = json.loads(html.unescape(title))
    assert window == 800
    assert widths == [40, 40]
    assert re.fullmatch(r"600\.(19|20), 4999\.99 km: cloud", read), read
    scales = [float(re.search(r"scale\((.*?)\)", text)[1]) for text in (before, near)]
    assert scales[1] == pytest.approx(scales[0] * 1.5 * np.e, rel=1e-3)
    assert moved != near
    assert opacity == "0.3"


@pytest.mark.parametrize("name", ["plot", "explore"])
def test_the_accessor_spells_out_what_the_function_takes(name: str) -> None:
    function = getattr(importlib.import_module(f"xcloudmask.masks.{name}"), name)
    own, theirs = (
        {n: p.default for n, p in list(inspect.signature(f).parameters.items())[1:]}
        for f in (getattr(CloudMask, name), function)
    )
    assert own == theirs
