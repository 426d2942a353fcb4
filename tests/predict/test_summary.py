"""What ``da.cloudmask`` shows: complete, true, free of cost, and never an exception."""

from __future__ import annotations

import html.parser
import re

import dask
import dask.array as dask_array
import numpy as np
import pytest
import xarray as xr

import xcloudmask
from xcloudmask import models
from xcloudmask.cli import written
from xcloudmask.errors import ModelWarning
from xcloudmask.predict import summary
from xcloudmask.testing import COUNTING, loads

SIX = ("blue", "green", "red", "nir", "swir16", "swir22")


def scene(bands=SIX, dtype="f4", pixel: float = 10.0, times: int = 0, **attrs) -> xr.DataArray:
    data = dask_array.zeros((len(bands), 600, 900), chunks=(1, 300, 450), dtype=dtype)
    coords = {"band": list(bands), "y": 5e6 - pixel * np.arange(600), "x": 6e5 + pixel * np.arange(900)}
    da = xr.DataArray(data, dims=("band", "y", "x"), coords=coords, attrs=attrs).rio.write_crs("EPSG:32632")
    return da.expand_dims(time=times) if times else da


def rows(data) -> dict[str, summary.Row]:
    return {row.label: row for row in summary.summary(data)[1]}


def test_a_scene_that_is_fit_to_run():
    data = scene(level="toa", sensor="sentinel-2", times=4)
    shown = rows(data)
    assert not [row for row in shown.values() if row.problem]
    assert shown["Sensor"].value.startswith("sentinel-2 (Sentinel-2 MSI")
    assert shown["Bands"].value == "6 of 6 recognised: " + ", ".join(SIX)
    assert shown["Level"].value == "top of atmosphere (L1C)"
    assert (
        shown["Units"].value
        == "float32, taken as reflectance from 0 to 1; no data: NaN, 0 or -0.1 in every band"
    )
    model = shown["Model"].value.splitlines()
    assert model[0].startswith("auto is ukis-any-l1c 2: takes 3 or more of blue")
    assert "not ukis-6band-l2a: is for bottom-of-atmosphere reflectance" in model
    assert "not ukis-4band-l1c: fewer bands" in model
    assert shown["Pixels"].value == "10 m, inferred at 30 m (means of 3 × 3)"
    assert shown["Windows"].value == "8 of 256 × 256 (2 × 4 pictures), overlap 32; 2.16 megapixels"
    assert shown["Data"].value == "lazy (Dask), 51.8 MB in 24 chunks of 4 × 1 × 300 × 450"


def test_the_model_and_windows_told_are_those_of_predict():
    for level, pixel in (("toa", 30.0), ("boa", 10.0), ("boa", 20.0)):
        data = scene(SIX[:4], level=level, pixel=pixel)
        shown, mask = rows(data), data.cloudmask.predict()
        assert f"auto is {mask.attrs['model']} " in shown["Model"].value
        assert f"overlap {mask.attrs['overlap']}" in shown["Windows"].value
        worked = mask.attrs["working_factors"]
        assert ("as they are" in shown["Pixels"].value) == (worked == [1, 1])
        assert "missing for the richest model: swir16, swir22" in shown["Bands"].value


def test_units_of_integers():
    told = scene(dtype="u2", level="toa").cloudmask.describe(scale=1e-4, offset=-0.1, nodata=0)
    assert rows(told)["Units"].value == "uint16 × 0.0001 - 0.1; no data: 0"
    both = scene(dtype="u2", level="toa", _FillValue=0, missing_value=65535).cloudmask.describe(scale=1e-4)
    assert rows(both)["Units"].value.endswith("no data: 0, 65535")
    untold = rows(scene(dtype="u2", level="toa"))["Units"]
    assert untold.problem
    assert "describe(scale=0.0001" in untold.value
    several = scene(dtype="u2", level="toa").cloudmask.describe(scale=[1e-4] * 5 + [2e-4])
    assert "with a scale for each band" in rows(several)["Units"].value


def test_what_is_not_told_is_marked_with_its_remedy():
    bare = xr.DataArray(np.zeros((4, 64, 64), "u2"), dims=("band", "y", "x"))
    shown = rows(bare)
    assert {label for label, row in shown.items() if row.problem} == {
        "Bands", "Level", "Units", "Model", "Pixels",
    }  # fmt: skip
    assert "describe(bands=[...])" in shown["Bands"].value
    assert "describe(level='L1C')" in shown["Level"].value
    assert "none fits" in shown["Model"].value
    assert "not ukis-4band-l1c: needs blue, green, red, nir" in shown["Model"].value
    assert "coordinates in metres" in shown["Pixels"].value
    assert "! Units " in repr(bare.cloudmask)


def test_bands_that_are_not_recognised_are_named():
    shown = rows(scene((*SIX, "quality"), level="toa"))["Bands"]
    assert shown.value.splitlines()[1].startswith("not recognised: quality;")
    assert not shown.problem


def test_a_mask_tells_how_it_was_made():
    mask = scene(level="toa").cloudmask.predict(threshold=0.4)
    head, _ = summary.summary(mask)
    shown = rows(mask)
    assert head == "mask cloud_mask (y: 600, x: 900)"
    assert shown["Model"].value.startswith(f"ukis-any-l1c 2, sha256 {models.get('ukis-any-l1c').sha256[:12]}")
    assert shown["Classes"].value == "0 clear, 1 cloud, 3 cloud_shadow, 255 no_data; scheme default"
    shadow = models.get("ukis-any-l1c").shadow_threshold
    assert shown["Made with"].value.endswith(f"inferred at 30 m; cloud from 0.4, shadow from {shadow:g}")
    one = scene(level="toa").cloudmask.predict("ukis-4band-l1c", threshold=0.45)
    assert rows(one)["Made with"].value.endswith("inferred at 30 m; cloud from 0.45")
    none = scene(level="toa").cloudmask.predict("ukis-4band-l1c")
    assert rows(none)["Made with"].value.endswith("inferred at 30 m")
    proba = scene(level="toa").cloudmask.predict_proba()
    assert summary.summary(proba)[0].startswith("probabilities")
    assert rows(proba)["Classes"].value == "clear, cloud, cloud_shadow; NaN for no data; scheme default"


def test_saturation_is_told_where_it_was_asked_for(tmp_path):
    """Asked or not stands in the attributes, also of a file; nothing is read out of a text."""
    unasked, asked = (scene(level="toa").cloudmask.predict(saturation=each) for each in ("auto", 1.2))
    assert unasked.attrs["saturation"] == asked.attrs["saturation"] == "blue 1.2, green 1.2, red 1.2"
    assert "saturation" not in rows(unasked)["Made with"].value
    assert rows(asked)["Made with"].value.endswith("; saturation blue 1.2, green 1.2, red 1.2")
    file = unasked.isel(y=slice(32), x=slice(32)).copy(data=np.zeros((32, 32), "u1"))
    file.cloudmask.to_geotiff(tmp_path / "mask.tif")
    mask = written.find_mask(tmp_path / "mask.tif")
    assert mask is not None
    assert "saturation" not in rows(mask)["Made with"].value


def test_a_mask_read_back_from_zarr_tells_the_same(tmp_path):
    mask = scene(level="toa").cloudmask.predict()
    mask.to_dataset().to_zarr(tmp_path / "m.zarr", compute=False, consolidated=False, zarr_format=3)
    again = xr.open_zarr(tmp_path / "m.zarr", consolidated=False)["cloud_mask"]
    before, after = (rows(m) for m in (mask, again))
    for label in ("Model", "Classes", "Made with"):
        assert before[label] == after[label]


def test_nothing_is_computed_no_model_is_loaded_and_no_warning_escapes(monkeypatch):
    xcloudmask.models.register(COUNTING, overwrite=True)
    count = len(loads)
    untold = scene()  # level not told: predict would warn
    mask = scene(level="toa").cloudmask.predict()
    asked: list[int] = []  # counted, as what is raised would become a row

    def counting(graph, keys, **_options):
        asked.append(len(keys))
        return dask.get(graph, keys)

    with dask.config.set(scheduler=counting):
        for data in (untold, mask, untold.to_dataset("band")):
            assert repr(data.cloudmask)
            assert data.cloudmask._repr_html_()
    assert not asked, "a repr must compute nothing"
    assert len(loads) == count
    assert not rows(untold)["Windows"].problem, "the warning that predict would give is no failure here"


HOPELESS = {
    "scalar": xr.DataArray(1.0),
    "no band": xr.DataArray(np.zeros((4, 4)), dims=("y", "x")),
    "no rows": xr.DataArray(np.zeros((4, 4)), dims=("band", "time")),
    "empty": xr.DataArray(np.zeros((4, 0, 4)), dims=("band", "y", "x"), coords={"band": list(SIX[:4])}),
    "complex": xr.DataArray(np.zeros((4, 40, 40), complex), dims=("band", "y", "x")),
    "text": xr.DataArray(np.full((4, 4, 4), "a"), dims=("band", "y", "x")),
    "object": xr.DataArray(np.full((4, 4, 4), None), dims=("band", "y", "x")),
    "unknown sensor": scene(sensor="nosuch"),
    "unknown level": scene(level="L9"),
    "level of another type": scene(level=3),
    "nm for µm": scene().assign_coords(center_wavelength=("band", [490.0, 560, 665, 842, 1610, 2190])),
    "two reds": scene(("red", "red", "green", "nir", "blue")),
    "bad flags": xr.DataArray(np.zeros((4, 4), "u1"), dims=("y", "x"), attrs={"flag_values": [0, 1]}),
    "bad scale": scene(dtype="u2", scale_factor="x"),
}


@pytest.mark.parametrize("case", HOPELESS)
def test_no_array_makes_it_fail(case):
    text, page = repr(HOPELESS[case].cloudmask), HOPELESS[case].cloudmask._repr_html_()
    assert "! " in text or case == "scalar", text
    assert "Traceback" not in text
    assert page.startswith("<div")
    assert max(map(len, text.splitlines())) <= max(summary.WIDTH, 100)


def test_each_failure_says_what_to_do():
    def text(case):
        return " ".join(repr(HOPELESS[case].cloudmask).split())

    assert "da.rename" in text("no band")
    assert "the array is empty" in text("empty")
    assert "astype('float32')" in text("complex")
    assert "unknown sensor 'nosuch'" in text("unknown sensor")
    assert "unknown level 'L9'" in text("unknown level")
    assert "divide by 1000" in text("nm for µm") or "µm" in text("nm for µm")
    assert "all called 'red'" in text("two reds")


def test_a_dataset_without_bands_says_so():
    for data in (xr.Dataset(), xr.Dataset({"a": ("t", [1])})):
        assert "! Bands" in summary.text(data)
        assert summary.html(data).startswith("<div")


class Tags(html.parser.HTMLParser):
    """Collects tags and attributes, and checks that each that opens also closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen |= {tag, *(name for name, _ in attrs)}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_html_is_a_table_that_loads_nothing_and_escapes_text():
    evil = scene(("<script>alert(1)</script>", *SIX), level="toa").rename("<img src=x>")
    page = evil.cloudmask._repr_html_()
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.seen == {"div", "style", "b", "table", "tbody", "tr", "th", "td", "details", "summary"}
    assert any("<script>alert(1)</script>" in word for word in tags.words), "it is shown as text"
    assert "http" not in page
    assert "url(" not in page
    assert len(page) < 4000


def test_html_takes_its_colours_from_the_page():
    page = scene().cloudmask._repr_html_()
    assert "color:inherit" in page
    assert "background:transparent" in page
    styles = " ".join(re.findall("style='([^']*)'", page))
    assert styles
    assert not re.search("#|rgb|white|black|gr[ae]y", styles.replace("white-space", "")), (
        "a fixed colour is unreadable in either light or dark mode"
    )


def test_html_and_text_tell_the_same():
    data = scene(level="toa")
    page, text = data.cloudmask._repr_html_(), repr(data.cloudmask)
    for row in rows(data).values():
        assert row.value.split("\n")[0][:30] in page
        assert row.value.split("\n")[0][:30] in text


def test_html_wraps_long_words_but_not_after_the_sign_and_folds_what_was_refused():
    page = summary.html(scene(level=None, sensor="sentinel-2"))
    assert "white-space:nowrap'>⚠ Level</th>" in page
    assert "overflow-wrap:anywhere" in page
    row = next(
        row for row in summary.summary(scene(level="toa", sensor="sentinel-2"))[1] if row.label == "Model"
    )
    count = len(row.value.splitlines()) - 1
    assert count >= summary.FOLD
    assert f"<details><summary>{count} more lines</summary>" in summary.html(
        scene(level="toa", sensor="sentinel-2")
    )


def test_bands_that_are_estimated_are_said_to_be():
    """`ukis-any` makes blue and swir22 up from the rest: of the scene it will, of the mask it did."""
    data = scene(("green", "red", "nir08", "swir16"), level="toa")
    assert "; estimates blue, swir22 at" in rows(data)["Model"].value
    assert "; estimates" not in rows(scene(level="toa"))["Model"].value
    with pytest.warns(ModelWarning, match="estimates blue, swir22"):
        mask = data.cloudmask.predict()
    assert "; blue swir22 estimated" in rows(mask)["Made with"].value


def test_the_clear_share_is_of_what_holds_data_and_steps_of_cleaning_are_told():
    flags = {"flag_values": [0, 1, 3, 4, 255], "flag_meanings": "clear cloud cloud_shadow snow no_data"}
    mask = xr.DataArray(np.array([[0, 1, 3, 4, 255, 255, 0, 0]], "u1"), dims=("y", "x"), attrs=flags)
    assert rows(mask)["Clear"].value == "66.7 % of 6 pixels that hold data"
    assert "Clear" not in rows(mask.chunk())
    assert "Clear" not in rows(mask.copy(data=np.full((1, 8), 255, "u1")))
    assert rows(mask.assign_attrs(cleaned="buffer=1 px"))["Made with"].value == "cleaned: buffer=1 px"
