"""Overviews: right by a slow reference, made with the mask or later, and whole after any kill."""

import os
import random
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore, MemoryStore, WrapperStore

import xcloudmask
from tests.streaming.helpers import Child, described, files
from tests.streaming.test_kill import done_regions
from xcloudmask import testing
from xcloudmask.cli import main
from xcloudmask.errors import CloudMaskError, ContractError, OptionError
from xcloudmask.store.ledger import BARE, DONE
from xcloudmask.store.overviews import choose_factors, coarsen
from xcloudmask.store.regions import Layout
from xcloudmask.streaming import stream

SMALL: dict[str, Any] = {"chunks": {"y": 16, "x": 16}, "shards": {"y": 32, "x": 32}, "progress": False}
FACTORS = (2, 4, 8)


def naive(values: np.ndarray, factor: int, average: bool = False) -> np.ndarray:
    """Square by square, pixel by pixel."""
    rows, cols = (-(-n // factor) for n in values.shape)
    out = np.empty((rows, cols), values.dtype)
    for i in range(rows):
        for j in range(cols):
            square = values[i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].ravel().tolist()
            if average:
                held = [value for value in square if value != 255]
                out[i, j] = int(np.floor(sum(held) / len(held) + 0.5)) if held else 255
            else:
                counts = Counter(square)
                out[i, j] = max(value for value in counts if counts[value] == max(counts.values()))
    return out


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    codes=st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 255]), min_size=1, max_size=4),
    seed=st.integers(0, 999),
    average=st.booleans(),
)
def test_they_are_what_a_slow_reference_makes_of_it(
    shape: tuple[int, int], codes: list[int], seed: int, average: bool
) -> None:
    values = np.random.default_rng(seed).choice(np.array(codes, "u1"), shape)
    made = coarsen(values, (2, 8), "average" if average else "mode", 255)
    for factor, got in zip((2, 8), made, strict=True):
        np.testing.assert_array_equal(got, naive(values, factor, average))


def test_many_pixels_of_one_class_do_not_overflow_and_steps_are_apart() -> None:
    steps = np.stack([np.full((64, 64), 1, "u1"), np.full((64, 64), 255, "u1")])
    assert coarsen(steps, (64,), "mode", 255)[0].ravel().tolist() == [1, 255]
    odds = np.array([[[0.25, np.nan], [0.75, np.nan]], [[np.nan] * 2] * 2], "f4")
    np.testing.assert_array_equal(coarsen(odds, (2,), "average", np.nan)[0].ravel(), [0.5, np.nan])


def mask(steps: int = 2, seed: int = 5) -> xr.DataArray:
    values = np.random.default_rng(seed).choice(np.array([0, 0, 1, 3, 255], "u1"), (steps, 70, 60))
    flags = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
    times = np.datetime64("2026-05-01", "ns") + np.arange(steps) * np.timedelta64(5, "D")
    da = xr.DataArray(
        values,
        dims=("time", "y", "x"),
        coords={"time": times, "y": -10.0 * np.arange(70), "x": 10.0 * np.arange(60)},
        name="cloud_mask",
        attrs=flags,
    )
    return da.rio.write_crs(32632)


def check(store: Any, expected: xr.DataArray, factors: tuple[int, ...] = FACTORS) -> None:
    np.testing.assert_array_equal(xr.open_zarr(store, consolidated=False).cloud_mask, expected)
    for factor in factors:
        made = xr.open_zarr(store, group=f"overviews/{factor}", consolidated=False).cloud_mask
        assert made.dims == expected.dims
        for step in range(expected.sizes["time"]):
            np.testing.assert_array_equal(made[step], naive(expected.values[step], factor))


@pytest.mark.parametrize("cut", [SMALL, {**SMALL, "shards": False}, {"progress": False}])
def test_they_are_those_of_the_whole_image_however_it_is_cut(cut: dict[str, Any], tmp_path: Path) -> None:
    mask().cloudmask.to_zarr(tmp_path, **cut, overviews=FACTORS)
    check(tmp_path, mask())
    assert xcloudmask.verify(tmp_path).ok


def test_a_stream_makes_them_of_what_it_infers(tmp_path: Path) -> None:
    da = described(np.random.default_rng(1).random((2, 2, 90, 75), dtype=np.float32), ["red", "nir"])
    stream(da, tmp_path, predict={"model": testing.TOY}, **SMALL, overviews=FACTORS)
    check(tmp_path, da.cloudmask.predict(testing.TOY))


def test_of_probabilities_they_are_the_mean(tmp_path: Path) -> None:
    da = described(np.random.default_rng(1).random((1, 2, 64, 64), dtype=np.float32), ["red", "nir"])
    odds = da.cloudmask.predict_proba(testing.TOY)
    odds.cloudmask.to_zarr(tmp_path, **SMALL, overviews=(4,))
    ds = xr.open_zarr(tmp_path)
    assert ds.attrs["multiscales"]["resampling_method"] == "average"
    coarse = xr.open_zarr(tmp_path, group="overviews/4")[str(odds.name)]
    np.testing.assert_allclose(coarse, odds.coarsen(y=4, x=4).mean(), atol=1 / 254)


class Deadly(WrapperStore[Any]):
    """A local store whose process is killed in the middle of its n-th write."""

    def __init__(self, store: Any, moment: int = 10**9) -> None:
        super().__init__(store)
        self.left = moment

    async def set(self, key: str, value: Any) -> None:
        self.left -= 1
        if self.left == 0:
            half = Path(self._store.root, f"{key}.half.partial")  # as zarr leaves it
            half.parent.mkdir(parents=True, exist_ok=True)
            half.write_bytes(value.to_bytes()[: len(value) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        await self._store.set(key, value)


def write(path: str, moment: int) -> None:
    mask().cloudmask.to_zarr(Deadly(LocalStore(path), moment), **SMALL, overviews=FACTORS)


def add(path: str, moment: int) -> None:
    xcloudmask.add_overviews(Deadly(LocalStore(path), moment), factors=FACTORS)


@pytest.mark.parametrize("job", [write, add], ids=["with the mask", "later"])
def test_killed_in_any_write_it_ends_byte_identical(job: Any, tmp_path: Path) -> None:
    bare, whole = tmp_path / "bare.zarr", tmp_path / "whole.zarr"
    mask().cloudmask.to_zarr(bare, **SMALL)
    if job is add:
        shutil.copytree(bare, whole)
    counting = Deadly(LocalStore(whole), 10**9)
    if job is add:
        xcloudmask.add_overviews(counting, factors=FACTORS)
    else:
        mask().cloudmask.to_zarr(counting, **SMALL, overviews=FACTORS)
    total = 10**9 - counting.left
    check(whole, mask())
    chance = random.Random(2)
    for moment in sorted(chance.sample(range(1, total), 4)):
        store = tmp_path / f"{moment}.zarr"
        if job is add:
            shutil.copytree(bare, store)
        child = Child(job, str(store), moment)
        child.process.join(60)
        assert child.process.exitcode == -signal.SIGKILL
        assert files(store) != files(whole)
        done = len(done_regions(store))
        report = mask().cloudmask.to_zarr(store, **SMALL, overviews=FACTORS)
        assert report.skipped >= done
        assert job is write or report.written == 0
        assert files(store) == files(whole), moment


def test_a_call_that_does_not_ask_for_them_finishes_what_was_begun(tmp_path: Path) -> None:
    mask().cloudmask.to_zarr(tmp_path / "a", **SMALL)
    counting = Deadly(LocalStore(shutil.copytree(tmp_path / "a", tmp_path / "b")))
    xcloudmask.add_overviews(counting, factors=FACTORS)
    child = Child(add, str(tmp_path / "a"), (10**9 - counting.left) * 2 // 3)
    child.process.join(60)
    states = xr.open_zarr(tmp_path / "a" / "stream", consolidated=False).status.values
    assert set(states.ravel()) == {BARE, DONE}
    mask(3).cloudmask.to_zarr(tmp_path / "a", **SMALL)
    check(tmp_path / "a", mask(3))
    assert xcloudmask.verify(tmp_path / "a").ok


def test_factors_that_are_none_are_told_before_the_store_is_opened(tmp_path: Path) -> None:
    for factors in (2, [3], "x"):
        with pytest.raises(OptionError, match=r"unknown factors .*ascending powers of two"):
            xcloudmask.add_overviews(tmp_path / "none.zarr", factors=factors)  # type: ignore[arg-type]


def test_steps_that_are_appended_have_them_too(tmp_path: Path) -> None:
    mask(3)[:1].cloudmask.to_zarr(tmp_path, **SMALL, overviews=FACTORS)
    mask(3)[1:].cloudmask.to_zarr(tmp_path, **SMALL)
    check(tmp_path, mask(3))
    with pytest.raises(ContractError, match=r"has overviews of \[2, 4, 8\].*asks for \[2\]"):
        mask(3).cloudmask.to_zarr(tmp_path, **SMALL, overviews=(2,))
    assert mask(3).cloudmask.to_zarr(tmp_path, **SMALL, overviews=True).skipped == 18


def test_verify_finds_overviews_that_are_damaged_missing_or_others_and_makes_them_anew(
    tmp_path: Path,
) -> None:
    mask().cloudmask.to_zarr(tmp_path, **SMALL, overviews=FACTORS)
    whole = files(tmp_path)
    names = [name for name in whole if name.startswith("overviews/") and "cloud_mask/c/" in name]
    half, gone, other, twin = random.Random(4).sample(names, 4)
    (tmp_path / half).write_bytes(whole[half][:-3])
    (tmp_path / gone).unlink()
    (tmp_path / other).write_bytes(whole[twin])
    (tmp_path / "overviews/2/y/c/0").write_bytes(b"")
    found = xcloudmask.verify(tmp_path, repair=True)
    assert {damage.path for damage in found.damaged} == {half, gone, other, "overviews/2/y/c/0"}
    assert not found.pending
    assert files(tmp_path) == whole


def test_a_damaged_region_is_made_anew_with_its_overviews(tmp_path: Path) -> None:
    mask().cloudmask.to_zarr(tmp_path, **SMALL, overviews=FACTORS)
    whole = files(tmp_path)
    (tmp_path / "cloud_mask/c/1/0/0").write_bytes(b"nothing")
    (tmp_path / "overviews/2/cloud_mask/c/1/0/0").unlink()
    assert xcloudmask.verify(tmp_path, repair=True).pending == 1
    mask().cloudmask.to_zarr(tmp_path, **SMALL)
    assert files(tmp_path) == whole


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for wrong in ((3,), (4, 2), (), "2", 2, (2, 2), (1,)):
        with pytest.raises(OptionError, match="overviews"):
            mask().cloudmask.to_zarr(tmp_path, overviews=wrong, progress=False)
    odd = {"chunks": {"y": 15, "x": 15}, "shards": False, "progress": False}
    with pytest.raises(CloudMaskError, match="powers of two"):
        mask().cloudmask.to_zarr(tmp_path / "odd", **{**odd, "shards": {"y": 45, "x": 45}}, overviews=True)
    with pytest.raises(ContractError, match="does not exist"):
        xcloudmask.add_overviews(tmp_path / "nothing")
    mask().cloudmask.to_zarr(tmp_path / "b", **SMALL)
    xr.Dataset({"mine": 1}).to_zarr(tmp_path / "b", group="overviews", mode="a", consolidated=False)
    with pytest.raises(ContractError, match="'overviews' that is not of this library"):
        xcloudmask.add_overviews(tmp_path / "b")
    assert xr.open_zarr(tmp_path / "b", group="overviews", consolidated=False).mine == 1


def test_as_many_as_bring_it_to_256_pixels_and_no_more_than_the_regions_allow() -> None:
    assert choose_factors(True, Layout((), (512, 300), (), (512, 512))) == (2,)
    assert choose_factors(True, Layout((), (90, 90), (), (90, 90))) == (2,)
    assert choose_factors(True, Layout((), (40320, 15680), (), (2048, 2048)))[-1] == 256
    assert choose_factors(True, Layout((), (10000, 10000), (), (1000, 1000))) == (2, 4, 8)


def test_in_memory_in_a_group_and_replaced_by_write(tmp_path: Path) -> None:
    store = MemoryStore()
    mask().cloudmask.to_zarr(store, group="32TQM", **SMALL, overviews=(2,))
    made = xr.open_zarr(store, group="32TQM/overviews/2", consolidated=False).cloud_mask
    np.testing.assert_array_equal(made[0], naive(mask().values[0], 2))
    from xcloudmask.masks.write import write as write_whole

    mask().cloudmask.to_zarr(tmp_path / "m.zarr", **SMALL, overviews=(2,))
    write_whole(mask(), tmp_path / "m.zarr", overwrite=True)
    assert not (tmp_path / "m.zarr" / "overviews").exists()


def test_into_icechunk(tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    mask(3)[:1].cloudmask.to_zarr(repository, **SMALL, overviews=FACTORS)
    mask(3).cloudmask.to_zarr(repository, **SMALL)
    check(repository.readonly_session("main").store, mask(3))
    other = icechunk.Repository.create(icechunk.in_memory_storage())
    mask().cloudmask.to_zarr(other, **SMALL)
    assert xcloudmask.add_overviews(other, factors=FACTORS) == FACTORS
    check(other.readonly_session("main").store, mask())


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def note(scene: Any, store: Any, **options: Any) -> Any:
        seen.update(options)
        raise CloudMaskError("enough")

    monkeypatch.setattr("xcloudmask.streaming.stream", note)
    testing_scene = tmp_path / "scene.tif"
    described(np.full((1, 2, 40, 40), 0.2, "f4"), ["red", "nir"])[0].rio.to_raster(testing_scene)
    command = ["stream", str(testing_scene), str(tmp_path / "m.zarr"), "--bands", "red,nir", "--level", "L1C"]
    assert main([*command, "--overviews"]) != 0
    assert seen["overviews"] is True
