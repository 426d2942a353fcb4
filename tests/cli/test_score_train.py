"""`xcloudmask score` and its report: the numbers of the metrics, from files, on one page."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio.transform
import xarray as xr

import xcloudmask  # noqa: F401  registers the accessor
from tests.train.conftest import patch, write_patch
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.write import write
from xcloudmask.metrics import Tally, score
from xcloudmask.metrics.cases import Case, Collected
from xcloudmask.metrics.report import display, draw
from xcloudmask.metrics.report import write as write_report

FLAGS = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
LEGEND = {0: "clear", 1: "cloud", 3: "cloud_shadow", 255: "no_data"}
PLACE = rasterio.transform.from_origin(600000, 4900020, 30, 30)


def mask_of(seed: int, size: int = 48, *, wrong: float = 0.1) -> np.ndarray:
    """What a patch's labels say, wrong in some pixels."""
    rng = np.random.default_rng(seed)
    _, possible = patch(seed, size)
    right = (possible == 6).astype(np.uint8)
    codes = np.where(rng.random(right.shape) < wrong, 1 - right, right).astype(np.uint8)
    codes[:3] = 255
    return codes


def placed(values: np.ndarray, flags: dict[str, Any] | None = None) -> xr.DataArray:
    size = values.shape
    y, x = 4900005.0 - 30 * np.arange(size[0]), 600015.0 + 30 * np.arange(size[1])
    da = xr.DataArray(values, dims=("y", "x"), coords={"y": y, "x": x}, attrs=flags or FLAGS)
    out: xr.DataArray = da.rio.write_crs("EPSG:32632")
    return out


def plain_raster(path: Path, values: np.ndarray) -> Path:
    form = {"crs": "EPSG:32632", "transform": PLACE, "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", height=48, width=48, **form) as file:
        file.write(values, 1)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """masks/ and patches/ of three scenes, ever more wrong."""
    (tmp_path / "masks").mkdir()
    for seed, wrong in ((0, 0.02), (1, 0.1), (2, 0.3)):
        write_patch(tmp_path / "patches" / f"s{seed}.npz", seed)
        write(placed(mask_of(seed, wrong=wrong)), tmp_path / "masks" / f"s{seed}.tif")
    return tmp_path


def expected(folders: Path) -> Any:
    tallies = {}
    for seed, wrong in ((0, 0.02), (1, 0.1), (2, 0.3)):
        possible = patch(seed)[1]
        possible[:, -1] = 0  # there the image has no data
        tallies[f"s{seed}"] = Tally.of(possible, mask_of(seed, wrong=wrong), LEGEND)
    return score(tallies)


def test_folders_are_scored_as_the_metrics_score_them(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", str(folders / "masks"), str(folders / "patches")]) == 0
    told = capsys.readouterr().out.splitlines()
    found = expected(folders)
    rows = {"cloud": "pooled", "95 % from": "low", "95 % to": "high", "mean of scenes": "mean",
            "median scene": "median", "worst scene": "worst"}  # fmt: skip
    names = ("oa", "balanced_accuracy", "f1", "f2", "iou", "kappa")
    for line, (label, statistic) in zip(told[1:7], rows.items(), strict=True):
        assert line.strip().startswith(label)
        assert line.split()[-6:] == [f"{found.get('cloud', name, statistic):.3f}" for name in names]
    assert told[1].split()[1] == str(sum(found.confusions[0].as_tuple()[:4]))
    assert found.worst_scenes == ("s2", "s2", "s2", "s0", "s2")
    assert told[-1] == "Worst scene by OA: s2 (cloud, invalid, clear, classes), s0 (cloud_shadow)"
    assert max(map(len, told)) <= 80
    assert "nan" not in "".join(told)
    (folders / "masks" / "lone.tif").write_bytes((folders / "masks" / "s0.tif").read_bytes())
    assert main(["score", str(folders / "masks"), str(folders / "patches"), "--questions", "cloud"]) == 0
    found = capsys.readouterr()
    assert "lone" in found.err
    assert [line.split()[0] for line in found.out.splitlines() if line[:1].strip()] == ["cloud", "Worst"]


def test_the_report_is_one_page_with_all_of_it(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folders / "report"
    words = ["score", str(folders / "masks"), str(folders / "patches"), "--report", str(out), "--worst", "2"]
    assert main(words) == 0
    page = (out / "report.html").read_text()
    assert "http" not in page  # it loads nothing
    assert "<script" not in page
    opened: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            opened.append(tag)

    Reader().feed(page)
    assert opened.count("table") == 2
    assert opened.count("img") == 2
    assert re.findall(r"<h3>(.*?)</h3>", page) == ["s2", "s1"]  # worst first
    for data in re.findall(r"base64,([^']+)'", page):
        assert base64.b64decode(data, validate=True)[1:4] == b"PNG"
    found, numbers = expected(folders), json.loads((out / "scores.json").read_text())
    assert numbers["all"] == found.to_dict()
    for statistic in ("pooled", "low", "high", "mean", "median", "worst"):
        assert f"{found.get('cloud', 'f1', statistic):.3f}" in page
    each = [one["cloud"]["oa"] for _, one in sorted(numbers["scenes"].items())]
    assert each == sorted(each, reverse=True)
    assert "nan" not in page.replace("base64", "").split("<h2>The worst")[0]
    assert str(out / "report.html") in capsys.readouterr().out


def test_class_maps_and_bit_masks_in_rasters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    possible = patch(5)[1]
    write(placed(mask_of(5)), tmp_path / "mask.tif")
    bits = plain_raster(tmp_path / "bits.tif", possible)
    classes = plain_raster(tmp_path / "classes.tif", np.where(possible == 6, 7, 4).astype("u1"))
    plain = plain_raster(tmp_path / "plain.tif", mask_of(5))
    mask = str(tmp_path / "mask.tif")
    shown = []
    for words in (
        [mask, str(bits), "--partial"],
        [mask, str(classes), "--reference-classes", "4=not_cloud,7=cloud"],
        [str(plain), str(bits), "--partial", "--classes", "0=clear,1=cloud,3=cloud_shadow,255=no_data"],
    ):
        assert main(["score", *words, "--questions", "cloud"]) == 0
        shown.append(capsys.readouterr().out.splitlines()[1].split())
    assert len(shown[0]) == 8
    assert shown[0] == shown[1] == shown[2]
    for words, hint in (
        ([mask, str(classes)], "--reference-classes"),
        ([str(plain), str(bits), "--partial"], "--classes"),
        ([mask, str(tmp_path)], "both"),
        ([mask, str(tmp_path / "no.tif")], "no such"),
        ([str(tmp_path), str(tmp_path), "--classes", "0:clear"], "0=clear"),
    ):
        assert main(["score", *words]) in (1, 2)
        assert hint in capsys.readouterr().err


def test_a_store_holds_many_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = xr.concat([placed(mask_of(s, wrong=w)) for s, w in ((0, 0.0), (1, 0.2))], "time")
    masks = masks.assign_coords(time=np.array(["2020-01-01", "2020-02-01"], "M8[ns]"))
    truth = xr.concat([placed(mask_of(s, wrong=0.0)) for s in (0, 1)], "time").assign_coords(time=masks.time)
    for name, da in (("mask", masks), ("truth", truth)):
        da.attrs = dict(FLAGS)
        da.drop_vars("spatial_ref").to_dataset(name="m").to_zarr(
            tmp_path / f"{name}.zarr", consolidated=False
        )
    words = [str(tmp_path / "mask.zarr"), str(tmp_path / "truth.zarr"), "--report", str(tmp_path / "r")]
    assert main(["score", *words]) == 0
    assert "mask, time 2020-02-01" in (tmp_path / "r" / "report.html").read_text()
    numbers = json.loads((tmp_path / "r" / "scores.json").read_text())
    assert numbers["all"]["cloud"]["oa"]["worst"] == pytest.approx(0.8, abs=0.03)
    assert numbers["scenes"]["mask, time 2020-01-01T00:00:00"]["cloud"]["oa"] == 1.0
    capsys.readouterr()


def test_grids_that_differ_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(placed(mask_of(5)), tmp_path / "mask.tif")
    moved = placed(mask_of(5)).assign_coords(x=placed(mask_of(5)).x + 30)
    write(moved.rio.write_transform(), tmp_path / "moved.tif")
    assert main(["score", str(tmp_path / "mask.tif"), str(tmp_path / "moved.tif")]) == 1
    assert "reproject_match" in capsys.readouterr().err
    write_patch(tmp_path / "small.npz", 1, size=20)
    assert main(["score", str(tmp_path / "mask.tif"), str(tmp_path / "small.npz")]) == 1
    assert "(20, 20)" in capsys.readouterr().err


def test_names_are_text_and_not_markup(tmp_path: Path) -> None:
    mask = placed(mask_of(1))
    write_report(Collected.of([Case("<b>banana & nan</b>", mask, mask)], worst=4), tmp_path, title="<i>")
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;banana &amp; nan&lt;/b&gt;" in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_pictures_show_what_was_missed_and_what_was_no_cloud() -> None:
    from matplotlib.image import imread

    possible = np.array([[6, 6, 1, 1, 0, 8]], "u1").repeat(6, axis=0)
    codes = np.array([[1, 0, 1, 0, 0, 3]], "u1").repeat(6, axis=0)
    truth = xr.DataArray(possible, dims=("y", "x"), attrs={"flag_masks": [1, 2, 4, 8, 16, 32, 64]})
    mask = xr.DataArray(codes, dims=("y", "x"), attrs=FLAGS)
    import io

    picture = (imread(io.BytesIO(draw(Case("a", mask, truth))))[..., :3] * 255).round().astype(int)
    middle = picture[picture.shape[0] // 3]
    colours = {tuple(colour) for colour in middle[2 * len(middle) // 3 :].tolist()}
    assert {(0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2), (255, 255, 255), (0xD9, 0xD9, 0xD9)} <= colours
    assert display(possible)[0][0].tolist() == [1, 1, 0, 0, 255, 3]


def test_scenes_of_one_name_are_one_and_none_is_an_error() -> None:
    mask = placed(mask_of(1))
    cases = [Case("a", mask, mask), Case("a", mask, mask), Case("b", mask, mask)]
    tallies = Collected.of(cases).tallies
    assert tallies["a"].table.sum() == 2 * tallies["b"].table.sum()
    with pytest.raises(CloudMaskError, match="no scene"):
        write_report(Collected.of([], worst=4), "unused", title="Scores")


def test_probabilities_give_a_reliability_curve(
    folders: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from xcloudmask.metrics import QUESTIONS, Histogram, reliability

    (folders / "p").mkdir()
    whole = None
    for seed in range(3):
        possible = patch(seed)[1]
        rng = np.random.default_rng(seed)
        cloud = np.where(
            possible == 6, rng.uniform(0.4, 1, possible.shape), rng.uniform(0, 0.7, possible.shape)
        )
        cloud = cloud.astype(np.float32)
        cloud[:3] = np.nan
        said = placed(np.stack([1 - cloud, cloud * 0, cloud])[0]).expand_dims({"class": 3}).copy()
        said = said.assign_coords({"class": ["clear", "cloud_shadow", "cloud"]})
        said.values[:] = np.stack([1 - cloud, cloud * 0, cloud])
        said.attrs = {"model": "any"}
        write(said, folders / "p" / f"s{seed}.tif")
        possible[:, -1] = 0
        part = Histogram.of(cloud, QUESTIONS["cloud"].truth(possible))
        whole = part if whole is None else whole + part
    told = ["score", str(folders / "masks"), str(folders / "patches"), "--report", str(folders / "r")]
    assert main([*told, "--probability", str(folders / "p")]) == 0
    numbers = json.loads((folders / "r" / "scores.json").read_text())
    assert whole is not None
    assert numbers["reliability"]["expected_error"] == round(reliability(whole).expected_error, 4) > 0.05
    assert sum(numbers["reliability"]["pixels"]) == whole.counts.sum()
    page = (folders / "r" / "report.html").read_text()
    assert "Reliability" in page
    assert page.count("<polyline") == 1
    assert len(re.search(r"points=\"(.*?)\"", page)[1].split()) == len(numbers["reliability"]["predicted"])  # type: ignore[index]
    assert main(told) == 0
    assert "Reliability" not in (folders / "r" / "report.html").read_text()
    capsys.readouterr()
    assert main([*told, "--probability", str(folders / "masks")]) == 1
    assert "predict --proba" in capsys.readouterr().err
