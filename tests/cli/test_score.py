"""What `xcloudmask score` says where a mask, a reference or a patch is not what it was taken for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.transform
import xarray as xr

from xcloudmask.cli import main
from xcloudmask.metrics.cases import Case, Collected
from xcloudmask.metrics.report import write

SIZE = 12
PLAIN = ["--classes", "0=clear,1=cloud", "--reference-classes", "0=clear,1=cloud"]
META = {"sensor": "landsat-8", "level": "L1 TOA", "gsd_m": 30, "scene": "a"}


def raster(path: Path, values: np.ndarray, *, nodata: float | None = None) -> str:
    """Write codes without a word on what they mean."""
    place = rasterio.transform.from_origin(600000, 4900020, 30, 30)
    form: dict[str, Any] = {"crs": "EPSG:32632", "transform": place, "count": 1, "nodata": nodata}
    with rasterio.open(
        path, "w", driver="GTiff", height=SIZE, width=SIZE, dtype=values.dtype, **form
    ) as file:
        file.write(values, 1)
    return str(path)


def columns(*codes: int, dtype: str = "u1") -> np.ndarray:
    """As many equal stripes as there are codes."""
    return np.repeat(np.array(codes, dtype), SIZE // len(codes))[None].repeat(SIZE, axis=0)


@pytest.fixture
def half(tmp_path: Path) -> str:
    """Return a mask, half cloud."""
    return raster(tmp_path / "mask.tif", columns(0, 1))


def score(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["score", *words])
    told = capsys.readouterr()
    assert "not expected" not in told.err
    return code, told.out, told.err


def test_a_reference_of_bit_masks_taken_for_classes(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bits = raster(tmp_path / "bits.tif", columns(0, 1, 2, 4, 8, 8))
    code, _, told = score(capsys, half, bits, *PLAIN)
    assert code == 0
    assert (
        f"warning: {bits} holds codes that --reference-classes does not declare: 2 (24 pixels), 4 (24 "
        "pixels), 8 (48 pixels). 96 of 144 pixels are left out. They look like bit masks" in told
    )
    assert "--partial" in told
    code, out, told = score(capsys, half, bits, "--partial", *PLAIN[:2])
    assert (code, told) == (0, "")
    assert out.splitlines()[1].split()[:2] == ["cloud", "120"]
    plain = raster(tmp_path / "plain.tif", columns(0, 1, 2, 3))
    assert "3 (36 pixels)" in score(capsys, half, plain, *PLAIN)[2]
    assert "--partial" not in score(capsys, half, plain, *PLAIN)[2]


def test_no_data_is_no_undeclared_code(tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]) -> None:
    truth = raster(tmp_path / "truth.tif", columns(0, 1, -9, dtype="i2"), nodata=-9)
    assert score(capsys, half, truth, *PLAIN)[::2] == (0, "")
    mask = raster(tmp_path / "gaps.tif", columns(0, 255, 1))
    assert score(capsys, mask, half, *PLAIN)[::2] == (0, "")


def test_folders_are_warned_of_once_and_the_report_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        raster(tmp_path / "masks" / f"{name}.tif", columns(0, 1, 7, 7))
        raster(tmp_path / "truth" / f"{name}.tif", columns(0, 1))
    places = [str(tmp_path / "masks"), str(tmp_path / "truth")]
    code, out, told = score(capsys, *places, *PLAIN, "--report", str(tmp_path / "r"))
    assert code == 0
    assert told.count("warning") == 1
    assert f"{places[0]} holds codes that --classes does not declare: 7 (144 pixels). 144 of 288" in told
    assert "7 (144 pixels)" in (tmp_path / "r" / "report.html").read_text()
    assert "7 (144" not in out


@pytest.mark.parametrize(
    ("mask", "reference", "why"),
    [
        (columns(7, 8), columns(0, 1), "the mask has no class that is declared, but the codes 7, 8"),
        (columns(0, 1), columns(5, 6), "the reference has no class that is declared, but the codes 5, 6"),
        (columns(255), columns(0, 1), "the mask is no data everywhere"),
        (columns(0, 1), columns(255), "the reference has no label, all is no data"),
        (columns(0, 255), columns(255, 1), "where a label decides, the mask is no data"),
    ],
)
@pytest.mark.parametrize("report", [False, True])
def test_nothing_to_score_is_an_error(
    tmp_path: Path, mask: np.ndarray, reference: np.ndarray, why: str, report: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = [raster(tmp_path / "m.tif", mask), raster(tmp_path / "r.tif", reference), *PLAIN]
    code, out, told = score(capsys, *words, *(["--report", str(tmp_path / "r")] if report else []))
    assert (code, out) == (1, "")
    assert f"nothing can be scored: {why}" in told
    assert not (tmp_path / "r").exists()


def test_labels_that_decide_nothing_are_an_error(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    open_labels = raster(tmp_path / "open.tif", columns(7))
    code, _, told = score(capsys, half, open_labels, "--partial", *PLAIN[:2])
    assert code == 1
    assert "no label decides cloud (each leaves it open)" in told


def test_a_mask_that_holds_no_codes_is_refused_once(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mask = raster(tmp_path / "share.tif", np.linspace(0.1, 0.9, SIZE * SIZE, dtype="f4").reshape(SIZE, SIZE))
    code, _, told = score(capsys, mask, half, *PLAIN)
    assert code == 1
    assert "uint8" in told
    assert "warning" not in told


def test_a_code_twice_is_wrong_usage(half: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = score(capsys, half, half, "--classes", "0=clear,0=cloud")
    assert code == 2
    assert "code 0 twice, as clear and as cloud" in told
    code, _, told = score(capsys, half, half, "--classes", "0=clear,1=thin cloud", *PLAIN[2:])
    assert code == 0


def test_one_scene_shows_no_interval_and_no_nan(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = raster(tmp_path / "truth.tif", columns(0))  # no cloud: balanced accuracy is not defined
    code, out, _ = score(capsys, half, truth, *PLAIN, "--report", str(tmp_path / "r"))
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["pixels", "OA", "balanced", "acc.", "F1", "F2", "IoU", "kappa"]
    assert lines[1].split() == ["cloud", "144", "0.500", "–", "0.000", "0.000", "0.000", "0.000"]
    assert lines[3].startswith("Not scored: invalid, clear.")
    assert "nan" not in out
    assert "%" not in out
    assert max(map(len, lines[:-1])) <= 80
    page = (tmp_path / "r" / "report.html").read_text()
    assert "0.500 – 0.500" not in page
    assert "<br><small>" not in page
    assert "with one there is none" in page  # of the interval
    assert "Not scored: invalid, clear." in page
    numbers = json.loads((tmp_path / "r" / "scores.json").read_text())
    assert numbers["all"].keys() == {"cloud"}
    assert (numbers["all"]["cloud"]["oa"]["pooled"], numbers["all"]["cloud"]["oa"]["low"]) == (0.5, None)


def test_a_question_that_the_mask_leaves_open_is_answered_with_a_note(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bits = raster(tmp_path / "bits.tif", columns(1, 8, 6))
    words = [half, bits, "--partial", *PLAIN[:2], "--questions", "invalid"]
    code, out, _ = score(capsys, *words)
    assert code == 0
    assert out.splitlines()[1].startswith("invalid")
    assert "counts as no" in " ".join(out.split())


def test_probabilities_of_nothing_have_no_reliability(tmp_path: Path) -> None:
    flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    mask = xr.DataArray(columns(0, 1), dims=("y", "x"), attrs=flags)
    nothing = xr.DataArray(np.full((SIZE, SIZE), np.nan, "f4"), dims=("y", "x"))
    write(Collected.of([Case("a", mask, mask, probability=nothing)], worst=4), tmp_path, title="Scores")
    assert json.loads((tmp_path / "scores.json").read_text())["reliability"]["expected_error"] is None
    page = (tmp_path / "report.html").read_text()
    assert "No pixel has both a probability and a label" in page
    assert "calibration error" not in page


def patch(path: Path, **other: Any) -> bytes:
    """Write a patch, some of it replaced; return its bytes."""
    whole: dict[str, Any] = {
        "image": np.full((1, SIZE, SIZE), 5000, "u2"), "bands": ["red"], "kinds": ["reflectance"],
        "possible": columns(1, 6), "meta": json.dumps(META),
    }  # fmt: skip
    np.savez_compressed(path, **(whole | other))
    return path.read_bytes()


def test_a_broken_patch_is_named(tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "some_patch.npz"
    good = patch(path)
    assert score(capsys, half, str(path), *PLAIN[:2])[0] == 0
    broken = {
        "empty": b"", "text": b"hello", "cut": good[: len(good) // 2], "head": b"PK\x03\x04" + b"x" * 99,
        "flipped": good[:70] + bytes(40) + good[110:],
        "pickle": patch(path, image=np.array([{}], dtype=object)),
        "meta": patch(path, meta="{"), "list": patch(path, meta="[1]"), "bare": patch(path, meta="{}"),
        "sensor": patch(path, meta=json.dumps(META | {"sensor": "mars"})),
        "shape": patch(path, possible=columns(1, 6)[:5]), "flat": patch(path, image=np.zeros((3, 3), "u2")),
        "bands": patch(path, bands=["red", "red"]), "kinds": patch(path, kinds=[]),
    }  # fmt: skip
    for what, data in broken.items():
        path.write_bytes(data)
        code, out, told = score(capsys, half, str(path), *PLAIN[:2])
        assert code in (1, 2), what
        assert out == "", what
        assert "some_patch.npz" in told, what


def test_a_patch_that_raises_anything_is_named(
    tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: Path) -> None:
        raise RuntimeError("zip bomb")

    patch(tmp_path / "some_patch.npz")
    monkeypatch.setattr("xcloudmask.train.files.read_patch", fails)
    code, _, told = score(capsys, half, str(tmp_path / "some_patch.npz"), *PLAIN[:2])
    assert code == 1
    assert "some_patch.npz cannot be read as a patch; is it broken? (RuntimeError: zip bomb)" in told


def test_a_broken_store_is_named(tmp_path: Path, half: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.nc").write_text("x")
    (tmp_path / "broken.zarr").mkdir()
    for name in ("broken.nc", "broken.zarr"):
        code, _, told = score(capsys, half, str(tmp_path / name), *PLAIN)
        assert code == 1
        assert f"{name} cannot be read as netCDF or Zarr" in told
