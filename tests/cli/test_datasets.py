"""`xcloudmask datasets` and `score --dataset`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.samples import MAKERS, stripes
from xcloudmask import datasets
from xcloudmask.cli import main
from xcloudmask.train.files import find, read_patch, read_pixels


def called(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([str(word) for word in words])
    said = capsys.readouterr()
    assert "not expected" not in said.err
    return code, said.out, said.err


def test_all_are_listed_and_each_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = called(capsys, "datasets")
    assert code == 0
    assert all(name in out for name in datasets.names())
    assert max(map(len, out.splitlines())) <= 80
    for name in datasets.names():
        code, out, _ = called(capsys, "datasets", "show", name)
        assert code == 0
        assert " ".join(datasets.get(name).layout.split()) in " ".join(out.split())
        assert not [line for line in out.splitlines() if len(line) > 80 and len(line.split()) > 1]
        assert "doi" in out
    assert "6: land or water" in called(capsys, "datasets", "show", "sparcs")[1]


@pytest.mark.parametrize(("words", "why"), [
    (["datasets", "shw"], "Did you mean 'show'?"), (["datasets", "convert", "sparcs"], "convert NAME FOLDER"),
    (["datasets", "show", "sparc"], "did you mean 'sparcs'?"),
    (["score", "--dataset", "sparc", "."], "'sparcs'"),
    (["score", "."], "xcloudmask score MASK REFERENCE"),
])  # fmt: skip
def test_wrong_usage_is_told(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = called(capsys, *words)
    assert code == 2
    assert why in err


def test_a_wrong_folder_shows_the_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = called(capsys, "datasets", "convert", "kappaset", tmp_path)
    assert code == 1
    assert "holds nothing of kappaset" in err
    assert "variables B01 ... B12, B8A and Label" in err


def test_patches_that_training_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["sparcs"](tmp_path / "copy")
    code, out, _ = called(
        capsys, "datasets", "convert", "sparcs", tmp_path / "copy", "--out", tmp_path / "data", "--size", 16
    )
    assert code == 0
    assert "1 of 80 published" in out
    assert "Please cite: Hughes" in out
    entries = find(tmp_path / "data" / "train")
    assert [entry.source for entry in entries] == ["sparcs"] * 4  # 28 pixels in windows of 16
    assert {entry.scene for entry in entries} == {"sparcs/LC80010812013365LGN00_18"}
    whole = np.zeros((28, 28), "u1")
    for entry in entries:
        patch = read_patch(entry.path)
        top, left = (int(word) for word in entry.path.stem.rsplit("_", 2)[1:])
        whole[top : top + 16, left : left + 16] = patch.possible
        assert [band.common_name for band in patch.bands][:3] == ["coastal", "blue", "green"]
    expected = stripes(8, 8, 33, 65, 17, 6, 49)
    expected[0, 0] = 0  # no data in the image
    np.testing.assert_array_equal(whole, expected)


def test_parts_go_where_training_looks_for_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["cloudperu2"](tmp_path / "copy")
    words = ["datasets", "convert", "cloudperu2", tmp_path / "copy", "--out", tmp_path / "data"]
    assert called(capsys, *words)[0] == 1
    assert called(capsys, *words, "--scale", "1e-3")[0] == 0
    made = {path.parent.relative_to(tmp_path / "data").as_posix() for path in tmp_path.rglob("*.npz")}
    assert made == {"train/cloudperu2", "val/cloudperu2"}


def test_single_pixels_become_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    MAKERS["hollstein"](tmp_path / "copy")
    words = ["datasets", "convert", "hollstein", tmp_path / "copy", "--out", tmp_path / "data"]
    assert called(capsys, *words)[0] == 0
    (entry,) = find(tmp_path / "data" / "train")
    sample = read_pixels(entry.path)
    # product A: cloud, snow, land; product B: land, water, shadow, cirrus
    assert sample.possible[:, 0].tolist() == [6, 9, 9, 9, 9, 9, 6]
    spectra = np.linspace(0.01, 0.9, 7 * 13).reshape(7, 13)
    names = [band.common_name for band in sample.bands]
    np.testing.assert_allclose(
        sample.image[names.index("blue"), :, 0], spectra[[4, 5, 6, 0, 1, 2, 3], 1], rtol=1e-4
    )
    assert entry.groups() == ["1"] * 3 + ["2"] * 4


def test_models_are_scored_as_papers_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    MAKERS["l8-biome"](tmp_path / "copy")
    code, out, err = called(
        capsys, "score", "--dataset", "l8-biome", tmp_path / "copy", "--model", "spectral", "sensei",
        "--report", tmp_path / "r",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if len(line) > 80 and "/" not in line] == []
    heads = [line.split() for line in out.splitlines() if "BOA" in line]
    assert heads == [["pixels", "BOA", "UA", "PA", "IoU", "F1", "F2", "kappa"]] * 2
    for word in (
        "spectral on l8-biome: scenes 2, images 2",
        "mean of scenes",
        "95 % from",
        "Please cite",
        "trained on",
    ):
        assert word in out
    numbers = json.loads((tmp_path / "r" / "sensei" / "scores.json").read_text())
    # all pixels of a scene are alike, so the model says one thing of them all; 448 are labelled
    counts = np.array(numbers["confusion"]["pixels"])
    assert counts.sum() == 448
    assert numbers["confusion"]["labels"] == [
        "clear",
        "thick_cloud",
        "thin_cloud",
        "cloud_shadow",
        "not_cloud",
    ]
    assert counts.sum(axis=1).tolist() == [64, 64, 128, 64, 128]
    assert "data:image/png" in (tmp_path / "r" / "sensei" / "report.html").read_text()


def test_every_class_of_a_label_has_its_row_and_its_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Land, water and snow are classes of their own in the table of answers, as a count by hand has it."""
    MAKERS["sparcs"](tmp_path / "copy")
    words = ["score", "--dataset", "sparcs", tmp_path / "copy", "--model", "spectral", "--report", tmp_path]
    code, out, _ = called(capsys, *words)
    assert code == 0
    (one,) = datasets.read("sparcs", tmp_path / "copy")
    mask = one.image.cloudmask.predict("spectral")
    bits = {"land": [17], "water": [33], "snow": [65], "clear": [49], "cloud": [6], "cloud_shadow": [8]}
    codes = [*mask.attrs["flag_values"]]
    table = json.loads((tmp_path / "spectral" / "scores.json").read_text())["confusion"]
    assert table["labels"] == list(bits)
    assert table["answers"] == mask.attrs["flag_meanings"].split()
    by_hand = [
        [int((np.isin(one.labels, of) & (mask.values == code)).sum()) for code in codes]
        for of in bits.values()
    ]
    assert table["pixels"] == by_hand
    cloudy = np.isin(mask, [1, 2])
    found = cloudy[(one.labels.values == 6) & (mask.values != 255)].mean()
    row = next(line.split() for line in out.splitlines() if line.split()[:1] == ["cloud"])
    heads = next(line.split() for line in out.splitlines() if "BOA" in line)
    assert float(row[1 + heads.index("PA")]) == pytest.approx(found, abs=0.0051)


def test_single_pixels_are_scored_by_models_of_single_pixels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    MAKERS["hollstein"](tmp_path / "copy")
    words = ["score", "--dataset", "hollstein", tmp_path / "copy", "--model"]
    code, out, _ = called(capsys, *words, "spectral")
    assert code == 0
    assert "scenes 2" in out
    code, _, err = called(capsys, *words, "ukis-any-l2a")
    assert code == 1
    assert "single pixels" in err


def test_json_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(called(capsys, "datasets", "--json")[1])
    assert [each["name"] for each in listed] == list(datasets.names())
    shown = json.loads(called(capsys, "datasets", "show", "sparcs", "--json")[1])
    assert (shown["name"], shown["bands"]) == ("sparcs", list(datasets.get("sparcs").bands))
    MAKERS["sparcs"](tmp_path / "copy")
    made = called(
        capsys, "datasets", "convert", "sparcs", tmp_path / "copy", "--out", tmp_path / "data", "--json"
    )
    facts = json.loads(made[1])
    assert (facts["scenes"], facts["patches"]) == (1, 1)
    assert sum(facts["labels"].values()) == facts["pixels"] > 0
