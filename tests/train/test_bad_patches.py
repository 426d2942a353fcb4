"""Files and settings of another form than training reads are refused by name; class codes are told of."""

from __future__ import annotations

import importlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from pydantic import Field

from tests.train.conftest import write_patch
from xcloudmask.errors import CloudMaskError, OptionError, UnitWarning
from xcloudmask.train.config_base import Table, one_of
from xcloudmask.train.config_tables import Recipe
from xcloudmask.train.files import LeakError, check_no_leak, find, read_patch

REAL = Path(__file__).parents[2].parent / "shared" / "data"
SIZE = 48
Change = Callable[[dict[str, Any]], Mapping[str, Any]]


def changed(path: Path, change: Change) -> Path:
    """Write a good patch again with some parts other than they were; None leaves a part out."""
    write_patch(path, 1)
    with np.load(path) as file:
        parts = {key: file[key] for key in file.files}
    parts |= change(parts)
    np.savez(path, **{key: part for key, part in parts.items() if part is not None})
    return path


def meta(**entries: object) -> str:
    told = {"sensor": "landsat-8", "level": "L1 TOA", "gsd_m": 30, "scene": "a", **entries}
    return json.dumps({key: value for key, value in told.items() if value is not None})


#: What is wrong, and what the message must say of it: what was found, and what to do.
BAD: dict[str, tuple[Change, list[str]]] = {
    "two-dimensional": (lambda p: {"image": p["image"][0]}, [r"uint16 \(48, 48\)", "band, y, x"]),
    "no pixel": (lambda p: {"image": p["image"][:, :0]}, [r"\(6, 0, 48\)", "band, y, x"]),
    "reflectance from 0 to 1": (
        lambda p: {"image": np.where(p["image"] == 65535, np.nan, p["image"] / 1e4).astype("f4")},
        ["float32", "from 0.0", "uint16", r"reflectance \* 10_000"],
    ),
    "float": (lambda p: {"image": p["image"].astype("f4")}, ["float32", "uint16"]),
    "signed": (lambda p: {"image": p["image"].astype("i4")}, ["int32", "uint16"]),
    "bands last": (
        lambda p: {"image": np.moveaxis(p["image"], 0, -1)}, [r"\(48, 48, 6\)", "names 6", "bands first"],
    ),
    "bands last, as many rows": (
        lambda p: {"image": np.moveaxis(p["image"][:, :6], 0, -1), "possible": p["possible"][:6]},
        [r"\(6, 48, 6\)", r"labels must be \(y, x\) = \(48, 6\)"],
    ),
    "too few names": (lambda p: {"bands": p["bands"][:5], "kinds": p["kinds"][:5]}, ["names 5", r"\(6, 48"]),
    "names in one text": (lambda p: {"bands": "blue,green"}, ["'bands' is text", "one a band"]),
    "names pickled": (
        lambda p: {"bands": np.array(["blue", None])}, ["'bands'", "Object arrays", "one a band"],
    ),
    "too few kinds": (lambda p: {"kinds": p["kinds"][:4]}, ["4 kinds for 6 bands"]),
    "unknown kind": (lambda p: {"kinds": ["radiance"] * 6}, ["unknown kind 'radiance'", "reflectance"]),
    "no kinds": (lambda p: {"kinds": None}, ["no 'kinds'", "bands, image, meta", "one a band"]),
    "no image": (lambda p: {"image": None}, ["no 'image'", "uint16"]),
    "labels of other rows": (
        lambda p: {"possible": p["possible"][:40]}, [r"\(40, 48\)", r"\(y, x\) = \(48, 48\)"],
    ),
    "labels with a band": (lambda p: {"possible": p["possible"][None]}, [r"\(1, 48, 48\)", r"\(48, 48\)"]),
    "labels of int": (
        lambda p: {"possible": p["possible"].astype("i8")}, ["int64 up to 9", "possible_from_classes"],
    ),
    "labels of float": (
        lambda p: {"possible": np.full((SIZE, SIZE), np.nan)}, ["float64", "possible_from_classes"],
    ),
    "labels above 127": (
        lambda p: {"possible": np.full((SIZE, SIZE), 255, "u1")},
        ["uint8 up to 255", "possible_from_classes"],
    ),
    "labels of another name": (
        lambda p: {"possible": None, "labels": p["possible"]},
        ["'labels', but no 'possible'", "possible_from_classes"],
    ),
    "a mask": (lambda p: {"possible": None, "Mask": p["possible"]}, ["'Mask', but no 'possible'", "leave"]),
    "no meta": (lambda p: {"meta": None}, ["no 'meta'", "json.dumps"]),
    "meta pickled": (lambda p: {"meta": {"scene": "a"}}, ["'meta'", "Object arrays", "json.dumps"]),
    "meta no JSON": (lambda p: {"meta": "{'scene': 'a'}"}, ["no JSON", "json.dumps"]),
    "meta a list": (lambda p: {"meta": "[1]"}, [r"\[1\]", "json.dumps"]),
    "meta a number": (lambda p: {"meta": 3}, ["'meta' is int64", "json.dumps"]),
    "pixel size of 0": (lambda p: {"meta": meta(gsd_m=0)}, ["gsd_m = 0", "metres"]),
    "pixel size in words": (lambda p: {"meta": meta(gsd_m="30 m")}, ["gsd_m = '30 m'", "metres"]),
    "pixel size unknown": (lambda p: {"meta": meta(gsd_m=float("nan"))}, ["gsd_m = nan", "metres"]),
    "level a number": (lambda p: {"meta": meta(level=1)}, ["level = 1", "L1 TOA"]),
    "scene without a name": (lambda p: {"meta": meta(scene="")}, ["scene = ''", "name of the scene"]),
    "unknown sensor": (lambda p: {"meta": meta(sensor="landsat-88")}, ["'landsat-88'", "mean 'landsat-8'"]),
    "unknown band": (lambda p: {"bands": [*p["bands"][:5], "swirl"]}, ["'swirl'", "Allowed: .*B7"]),
    **{
        f"no {key}": (lambda p, key=key: {"meta": meta(**{key: None})}, [f"no '{key}', which must be"])  # type: ignore[misc]
        for key in ("sensor", "level", "gsd_m", "scene")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_patch_of_another_form_is_refused(tmp_path: Path, name: str) -> None:
    change, says = BAD[name]
    changed(tmp_path / "mine" / "odd.npz", change)
    with pytest.raises(CloudMaskError, match=r"odd\.npz") as caught:
        find(tmp_path)[0].read()
    for words in says:
        caught.match(words)


def test_what_looks_odd_and_is_right_is_read(tmp_path: Path) -> None:
    square = changed(
        tmp_path / "square.npz", lambda p: {"image": p["image"][:, :6, :6], "possible": p["possible"][:6, :6]}
    )
    assert read_patch(square).image.shape == (6, 6, 6)
    other = changed(
        tmp_path / "other.npz", lambda p: {"image": p["image"].astype(">u2"), "mask": p["possible"]}
    )
    np.testing.assert_array_equal(
        read_patch(other).image, read_patch(write_patch(tmp_path / "a.npz", 1)).image
    )
    bare = changed(tmp_path / "bare.npz", lambda p: {"possible": None, "meta": meta(scene=7, gsd_m="30")})
    assert not read_patch(bare).possible.any()
    assert (read_patch(bare).scene, read_patch(bare).gsd) == ("7", 30.0)


def damaged(whole: bytes, how: str) -> bytes:
    middle = len(whole) // 2
    return {
        "empty": b"",
        "text": b"hello",
        "cut short": whole[:middle],
        "flipped": whole[:middle]
        + bytes(255 - b for b in whole[middle : middle + 64])
        + whole[middle + 64 :],
        "no directory": whole[: len(whole) - 400] + bytes(378) + whole[-22:],
    }[how]


@pytest.mark.parametrize("how", ["empty", "text", "cut short", "flipped", "no directory"])
def test_a_damaged_file_is_named(tmp_path: Path, how: str) -> None:
    path = write_patch(tmp_path / "l8" / "odd.npz", 1)
    path.write_bytes(damaged(path.read_bytes(), how))
    with pytest.raises(CloudMaskError, match=r"odd\.npz: not a patch .* copy it again"):
        read_patch(path)
    with pytest.raises(CloudMaskError, match=r"odd\.npz: not a patch"):
        check_no_leak(find(tmp_path))


def test_an_array_by_itself_and_no_file_are_named(tmp_path: Path) -> None:
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros((2, 2), "u2"))
    with pytest.raises(CloudMaskError, match=r"one\.npz.*no \.npz archive.*savez_compressed"):
        read_patch(tmp_path / "one.npz")
    with pytest.raises(CloudMaskError, match=r"gone\.npz.*No such file"):
        read_patch(tmp_path / "gone.npz")


def test_class_codes_in_place_of_bit_masks_are_told_of_once_a_file(tmp_path: Path) -> None:
    codes = np.arange(SIZE * SIZE).reshape(SIZE, SIZE) % 4
    path = changed(tmp_path / "l8" / "codes.npz", lambda _: {"possible": codes.astype("u1")})
    with pytest.warns(UnitWarning, match=r"codes\.npz.*xcloudmask\.metrics\.possible_from_classes") as told:
        read_patch(path)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_patch(path)
    other = changed(tmp_path / "l8" / "more.npz", lambda _: {"possible": codes.astype("u1")})
    with pytest.warns(UnitWarning, match=r"more\.npz"):
        find(tmp_path)[1].read()
    assert other.exists()


@pytest.mark.parametrize("values", [[0, 1, 2], [2], [0], [3, 6, 9], [1, 2, 3, 8], [3, 17]])
def test_bit_masks_are_not_taken_for_class_codes(tmp_path: Path, values: list[int]) -> None:
    labels = np.resize(np.array(values, "u1"), (SIZE, SIZE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = read_patch(changed(tmp_path / "a.npz", lambda _: {"possible": labels})).possible
    np.testing.assert_array_equal(made[:, :-1], labels[:, :-1])


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("part", ["train", "val", "unlabelled"])
def test_the_real_patches_pass_without_a_word(part: str) -> None:
    entries = [entry for entry in find(REAL / part) if entry.path.suffix == ".npz"]
    assert len(entries) > 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for entry in entries:
            entry.read()


# --- folders ---


def test_a_folder_that_is_not_there_is_told_with_both_ways_to_name_it(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match=r'nodata/train.*--data FOLDER.*folder = "\.\.\." in \[data\]$'):
        find(tmp_path / "nodata" / "train")
    (tmp_path / "bare").mkdir()
    with pytest.raises(CloudMaskError, match=r"in \[data\]$"):
        find(tmp_path / "bare" / "train")


def test_an_empty_folder_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="leave out held_out if there is none"):
        find(tmp_path)


def test_a_leak_names_both_folders(data: Path) -> None:
    held = find(data / "val")
    train, val = data / "train" / "l8" / "v0.npz", data / "val" / "l8" / "v0.npz"
    write_patch(train, 60)
    with pytest.raises(LeakError, match=f"{re.escape(str(val))}.*{re.escape(str(train))}"):
        check_no_leak(find(data / "train"), held)
    write_patch(train, 90, scene="innocent")
    with pytest.raises(LeakError) as caught:
        check_no_leak(find(data / "train"), held)
    assert f"{train} holds pixels that are also held out in {val}:" in str(caught.value)


# --- settings ---


class Told(Table):
    section = "loop"
    count: int
    rate: float = 1.0
    on: bool = False
    name: str = ""
    kind: Annotated[str, one_of(["a", "b", "c"])] = "a"
    bands: tuple[str, ...] = ()
    weights: dict[str, float] = Field(default_factory=dict)
    best: float | None = None


@pytest.mark.parametrize(
    ("key", "value", "must"),
    [
        ("count", "64", "a whole number, without quotes"),
        ("count", 6.0, "a whole number"),
        ("count", True, "a whole number"),
        ("count", None, "a whole number"),
        ("rate", "0.5", "a number, without quotes"),
        ("rate", False, "a number"),
        ("rate", float("nan"), "a finite number"),
        ("rate", float("inf"), "a finite number"),
        ("rate", float("-inf"), "a finite number"),
        ("rate", [1.0], "a number"),
        ("on", 1, "true or false"),
        ("on", "true", "true or false, without quotes"),
        ("name", 3, "a text in quotes"),
        ("kind", ["a"], "a text in quotes"),
        ("bands", "red", "a list: ['red']"),
        ("weights", [1], "a table"),
        ("weights", "l8", "a table, without quotes"),
        ("best", "x", "a number, without quotes"),
    ],
)
def test_settings_of_another_type_are_refused(key: str, value: object, must: str) -> None:
    with pytest.raises(CloudMaskError) as caught:
        Told(**{"count": 1, key: value})
    assert str(caught.value) == f"{key} = {value!r} in [loop] must be {must}"


def test_what_is_wrong_inside_a_list_or_a_table_is_named() -> None:
    with pytest.raises(CloudMaskError, match=r"^bands\[1\] = 1 in \[loop\] must be a text in quotes$"):
        Told(count=1, bands=["red", 1])
    with pytest.raises(
        CloudMaskError, match=r"^weights\.l8 = '2' in \[loop\] must be a number, without quotes$"
    ):
        Told(count=1, weights={"l8": "2"})
    with pytest.raises(CloudMaskError, match=r"^weights = \{1: 2.0\} in \[loop\] must be a text in quotes$"):
        Told(count=1, weights={1: 2.0})
    with pytest.raises(OptionError, match=r"^unknown kind in \[loop\] 'd'"):
        Told(count=1, kind="d")


def test_settings_of_the_right_type_are_taken() -> None:
    table = {
        "count": np.int64(3), "rate": 2, "on": True, "name": Path("x"), "kind": "c", "bands": ["red", "nir"],
        "weights": {"l8": 2.0}, "best": np.float32(0.5),
    }  # fmt: skip
    made = Told(**table)
    assert made.model_dump() == {**table, "name": "x", "bands": ("red", "nir")}
    assert type(made.count) is int
    assert Told(count=10**400).count == 10**400


def test_settings_unknown_or_missing_are_refused() -> None:
    with pytest.raises(OptionError, match=r"unknown setting of \[loop\] 'cont'; did you mean 'count'"):
        Told(cont=1)
    with pytest.raises(CloudMaskError, match=r"^\[loop\] needs count$"):
        Told()


def test_a_recipe_checks_its_types() -> None:
    with pytest.raises(CloudMaskError, match=r"^size = '64' in \[recipe\] must be a whole number"):
        Recipe(size="64")
    with pytest.raises(CloudMaskError, match=r"^noise = nan in \[recipe\] must be a finite number$"):
        Recipe(noise=float("nan"))
    assert Recipe(coarsest=500, bands=["red"]) == Recipe(coarsest=500.0, bands=("red",))


def test_training_without_pydantic_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == "pydantic" or name.startswith("xcloudmask.train.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(CloudMaskError, match=r"pip install 'xcloudmask\[train\]'"):
        importlib.import_module("xcloudmask.train.config_base")
