"""What is damaged is found, never read in silence, and made whole again."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import MemoryStore

import xcloudmask
from tests.streaming.helpers import described, files
from xcloudmask import testing
from xcloudmask.archive.timeseries import timeseries
from xcloudmask.errors import ContractError, StoreError
from xcloudmask.store.safety_copy import PATH
from xcloudmask.store.verify import verify
from xcloudmask.streaming import stream

SMALL: dict[str, Any] = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}


def scene(steps: int = 2) -> xr.DataArray:
    return described(np.random.default_rng(1).random((steps, 2, 150, 130), dtype=np.float32), ["red", "nir"])


def make(store: Any, **options: Any) -> Any:
    return stream(scene(), store, predict={"model": testing.TOY}, **{**SMALL, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("finished") / "a.zarr"
    make(path)
    return path


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "a.zarr")
    return tmp_path / "a.zarr"


def flip(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def read_plainly(path: Path) -> dict[str, Any] | None:
    """What xarray reads without a word; None if it does not."""
    try:
        ds = xr.open_zarr(path).load()
    except Exception:
        return None
    return {str(name): variable.values for name, variable in ds.variables.items()}


def test_two_hundred_flipped_bits_are_all_found_and_none_is_read_in_silence(
    finished: Path, store: Path
) -> None:
    chance, whole, plain = random.Random(26), files(finished), read_plainly(finished)
    assert plain is not None
    names = list(whole)
    chosen = chance.choices(names, weights=[len(data) for data in whole.values()], k=160)
    chosen += chance.choices([name for name in names if not name.startswith("cloud_mask/c")], k=40)
    remade = 0
    for name in chosen:
        flip(store / name, chance.randrange(8 * len(whole[name])))
        found = verify(store)
        assert name in [damage.path for damage in found.damaged], name
        if "zarr.json" not in name:  # documents have no checksum that xarray looks at: `open_masks` has
            read = read_plainly(store)
            for variable, values in (read or {}).items():
                np.testing.assert_array_equal(values, plain[variable], err_msg=name)
        if not name.startswith("cloud_mask/c"):
            with pytest.raises(StoreError, match=r"is damaged.*verify STORE --repair"):
                xcloudmask.open_masks(store)
        repaired = verify(store, repair=True)
        assert repaired.repaired
        assert repaired.pending == (9 if name.startswith("cloud_mask/c") else 0)
        if repaired.pending and remade < 8:
            remade += 1
            assert make(store).written == 9  # the scene's: the strips of the others are gone
        elif repaired.pending:
            for changed in ("stream/status/c/0/0/0", "stream/sizes/c/0/0/0", "/".join(PATH), name):
                (store / changed).write_bytes(whole[changed])
        assert files(store) == whole, name
    assert remade == 8
    assert verify(store).ok


@pytest.mark.parametrize("how", ["cut", "emptied", "zeroed", "lost"])
def test_files_that_are_cut_emptied_zeroed_or_lost(how: str, finished: Path, store: Path) -> None:
    whole = files(finished)
    shards = [name for name in whole if name.startswith("cloud_mask/c")]
    for name, data in whole.items():
        if name in shards[2:]:
            continue
        path = store / name
        if how == "lost":
            path.unlink()
        else:
            path.write_bytes({"cut": data[: len(data) // 2], "emptied": b"", "zeroed": bytes(len(data))}[how])
        assert name in [damage.path for damage in verify(store).damaged], name
        if verify(store, repair=True).pending:
            assert (xr.open_zarr(store).cloud_mask.values == 255).any()  # no data, until it is made again
            make(store)
        assert files(store) == whole, name


def test_a_resumed_run_makes_regions_anew_whose_size_is_wrong(
    finished: Path, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shard = store / "cloud_mask/c/1/2/0"
    shard.write_bytes(shard.read_bytes()[:-7])
    (store / "cloud_mask/c/1/0/1").unlink()
    report = make(store)
    assert (report.written, report.skipped) == (9, 9)
    assert "region (1, 2, 0)" in caplog.text
    assert "is damaged, and made anew" in caplog.text
    assert files(store) == files(finished)


def test_several_files_at_once(finished: Path, store: Path) -> None:
    for name in (
        "zarr.json",
        "stream/zarr.json",
        "stream/status/c/0/0/0",
        "time/c/0",
        "cloud_mask/zarr.json",
    ):
        flip(store / name, 77)
    flip(store / "cloud_mask/c/0/1/1", 1000)
    report = verify(store, repair=True)
    assert len(report.damaged) == 6
    assert "6 damaged" in repr(report)  # what a notebook shows
    assert "9 regions are to be made: run the call that made the store again" in str(report)
    assert "time/c/0: it is not what was written" in str(report)
    make(store)
    assert files(store) == files(finished)


def test_what_cannot_be_repaired_is_named(store: Path) -> None:
    (store / Path(*PATH)).unlink()
    flip(store / "stream/zarr.json", 5)  # no JSON any more
    for call in (verify, make, xcloudmask.open_masks):
        with pytest.raises(StoreError, match=r"cannot read stream/zarr.json of .*it is damaged \("):
            call(store)
    with pytest.raises(StoreError, match="make it anew with overwrite=True"):
        verify(store, repair=True)
    assert make(store, overwrite=True).complete
    assert verify(store).ok


@pytest.mark.parametrize(
    "name", ["stream/status/zarr.json", "stream/status/c/0/0/0", "cloud_mask/zarr.json", "time/c/0"]
)
def test_damage_in_an_unfinished_store_is_a_store_error(name: str, store: Path) -> None:
    (store / Path(*PATH)).unlink()  # as after a kill
    (store / name).write_bytes(b"\xff\x00{" + (store / name).read_bytes())
    with pytest.raises(StoreError, match=r"it is damaged \(.*verify STORE --repair"):
        make(store)


def test_damage_that_timeseries_meets_is_named(store: Path) -> None:
    flip(store / "cloud_mask/c/0/1/1", 1000)
    with pytest.raises(StoreError, match=r"cannot read cloud_mask of .*it is damaged"):
        timeseries(store).compute(scheduler="sync")


def test_chunks_as_files_and_probabilities(tmp_path: Path) -> None:
    options: dict[str, Any] = {"output": "probabilities", "shards": False}
    make(tmp_path / "a", **options)
    whole = files(tmp_path / "a")
    chance = random.Random(3)
    chunks = [name for name in whole if name.startswith("cloud_probability/c")]
    for name in chance.sample(chunks, 6):
        flip(tmp_path / "a" / name, chance.randrange(8 * len(whole[name])))
        assert read_plainly(tmp_path / "a") is None
        assert verify(tmp_path / "a", repair=True).pending > 0
        make(tmp_path / "a", **options)
        assert files(tmp_path / "a") == whole


def test_a_mask_that_was_not_inferred_is_made_anew_region_by_region(tmp_path: Path) -> None:
    mask = scene().cloudmask.predict(testing.TOY).compute()
    mask.cloudmask.to_zarr(tmp_path, **SMALL)
    whole = files(tmp_path)
    flip(tmp_path / "cloud_mask/c/0/1/1", 1000)
    assert verify(tmp_path, repair=True).pending == 1
    assert mask.cloudmask.to_zarr(tmp_path, **SMALL).written == 1
    assert files(tmp_path) == whole


def test_other_stores_and_groups(tmp_path: Path) -> None:
    memory = MemoryStore()
    make(memory, group="a/b")
    assert verify(memory, "a/b").ok
    with pytest.raises(ContractError, match="holds no finished mask"):
        verify(memory)
    key = "a/b/cloud_mask/c/0/0/0"
    memory._store_dict[key] = type(memory._store_dict[key]).from_bytes(b"x")
    assert [damage.path for damage in verify(memory, "a/b").damaged] == ["cloud_mask/c/0/0/0"]
    icechunk = pytest.importorskip("icechunk")
    repo = icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(tmp_path / "ice")))
    make(repo, shards={"y": 160, "x": 160})  # smaller chunks lie in Icechunk's own documents
    report = verify(repo.readonly_session("main").store)
    assert report.ok
    assert report.regions == 2
    for chunk in (tmp_path / "ice" / "chunks").iterdir():
        flip(chunk, 4 * chunk.stat().st_size)
    expected = scene().cloudmask.predict(testing.TOY).values
    assert [damage.path for damage in verify(repo).damaged] == ["cloud_mask/c/0/0/0", "cloud_mask/c/1/0/0"]
    assert verify(repo, repair=True).pending == 2
    assert make(repo, shards={"y": 160, "x": 160}).written == 2
    assert verify(repo).ok
    masks = xcloudmask.open_masks(repo.readonly_session("main").store)
    np.testing.assert_array_equal(masks.values, expected)


def test_a_store_that_is_being_written_is_not_called_damaged(store: Path) -> None:
    """A look at the copy, and one at the files, with a writer in between."""
    from xcloudmask.store import safety_copy
    from xcloudmask.store.store import Target, open_store

    target, seen = Target(open_store(store)), []
    original = safety_copy.find_damage

    def late(*args: Any) -> dict[str, str]:
        safety_copy.drop_copy(target)
        flip(store / "zarr.json", 77)
        seen.append(original(*args))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safety_copy, "find_damage", late)
        safety_copy.check_copy(target)
    assert seen[0]


def test_attributes_are_such_as_netcdf_holds(store: Path) -> None:
    for name, variable in xr.open_zarr(store).variables.items():
        for key, value in variable.attrs.items():
            assert isinstance(value, (str, int, float, list)), (name, key)
    assert xr.open_zarr(store, decode_coords="all").cloud_mask.rio.crs.to_epsg() == 32632
