"""Sync computes what is missing, appends what comes late, and survives being stopped anywhere."""

import copy
import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore, MemoryStore, ObjectStore

from tests.streaming.helpers import files
from tests.streaming.items import BOX, LEFT, SIZE, make_item
from xcloudmask import open_masks, testing
from xcloudmask.archive.index import UPDATED, Stored
from xcloudmask.archive.sync import SyncReport, sync
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.predict.options import PredictOptions
from xcloudmask.stac import load_stac
from xcloudmask.store.options import WriteOptions
from xcloudmask.store.store import Target, open_store
from xcloudmask.streaming import ContractError, StreamWarning, stream

CUT = {"chunks": {"y": 16, "x": 16}, "shards": {"y": 48, "x": 48}, "progress": False}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    root = tmp_path_factory.mktemp("items")
    return [make_item(root, f"S2A_{i:03d}", f"2026-05-{2 * i + 1:02d}") for i in range(6)]


def run(given: Any, store: Any, model: Any = testing.TOY, **options: Any) -> SyncReport:
    """Sync; an option of predict or write goes there, the others are of load."""
    asked = {**CUT, "bands": ["red", "nir"], "working_resolution": "native", "retries": 0, **options}
    output = asked.pop("output", "classes")
    write = {name: asked.pop(name) for name in WriteOptions.names() if name in asked}
    predict = {name: asked.pop(name) for name in PredictOptions.names() if name in asked}
    return sync(given, store, load=asked, predict={"model": model, **predict}, output=output, write=write)


def expected(items: Any, model: Any = testing.TOY) -> xr.DataArray:
    mask: xr.DataArray = load_stac(items, bands=["red", "nir"]).cloudmask.predict(
        model, working_resolution="native"
    )
    return mask.compute()


def ids(items: Any) -> tuple[str, ...]:
    return tuple(item["id"] for item in items)


def check(store: Any, items: Any, model: Any = testing.TOY) -> None:
    """Opened and sorted, the store holds these items, and the masks that they have in memory."""
    mask = expected(items, model)
    for stored in (open_masks(store), xr.open_zarr(store).sortby("time").cloud_mask):
        assert (np.diff(stored.time.values) >= np.timedelta64(0)).all()
        assert list(stored.item_id.values) == list(mask.item_id.values)
        np.testing.assert_array_equal(stored.time.values, mask.time.values)
        np.testing.assert_array_equal(stored.values, mask.values)
        assert stored.attrs["model"] == mask.attrs["model"]


def stores(kind: str, folder: Path) -> Any:
    if kind == "obstore":
        from obstore.store import LocalStore as Disk

        folder.mkdir()
        return ObjectStore(Disk(str(folder)))
    if kind == "fsspec":
        return f"memory://{folder.name}"
    return MemoryStore() if kind == "memory" else folder


@pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")
@pytest.mark.parametrize("kind", ["local", "memory", "obstore", "fsspec"])
def test_only_what_is_missing_is_computed_and_late_items_are_appended(
    kind: str, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    store = stores(kind, tmp_path / "a")
    model = testing.COUNTING
    first = run([items[1], items[4], items[2]], store, model)
    assert first.added == ids([items[1], items[2], items[4]])
    testing.seen.clear()
    report = run(items, store, model)
    assert (report.added, report.skipped) == (
        ids([items[0], items[3], items[5]]),
        ids(items[1:3] + items[4:5]),
    )
    assert report.complete
    late = [items[1], items[2], items[4], items[0], items[3], items[5]]
    assert tuple(xr.open_zarr(store).item_id.values) == ids(late)  # what is stored stays where it is
    windows = len(range(0, SIZE - 32 + 24, 24)) ** 2
    assert len(testing.seen) == 3 * windows
    check(store, items, model)
    before = files(tmp_path) if kind == "local" else None
    testing.seen.clear()
    again = run(items, store, model)
    assert (again.added, again.replaced, again.skipped) == ((), (), ids(items))
    assert not testing.seen
    if before:
        assert files(tmp_path) == before


@pytest.mark.parametrize("told", [[0], [1], [0, 2]])
def test_some_items_tell_where_the_sun_stood(
    told: list[int], items: list[dict[str, Any]], tmp_path: Path
) -> None:
    items = copy.deepcopy(items[:3])
    for one in told:
        items[one]["properties"] |= {"view:sun_elevation": 50.0, "view:sun_azimuth": 150.0}
    for some in (items[:1], items[:2], items[2:]):
        run(some, tmp_path / "a")
    mask = xr.open_zarr(tmp_path / "a").cloud_mask
    np.testing.assert_array_equal(mask.sun_elevation, [50 if i in told else np.nan for i in range(3)])
    np.testing.assert_array_equal(mask.sun_azimuth, [150 if i in told else np.nan for i in range(3)])
    for item in items:
        item["properties"]["updated"] = "2026-06-02T00:00:00.5Z"
    assert len(run(items, tmp_path / "a").replaced) == 3
    assert not run(items, tmp_path / "a").replaced


def test_what_the_catalogue_changed_is_made_again(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run(items[:3], tmp_path / "a", testing.COUNTING)
    later = make_item(tmp_path, items[1]["id"], "2026-05-03", seed=99, updated="2026-06-02T00:00:00.5Z")
    older = {**items[2], "properties": {**items[2]["properties"], "updated": "2026-05-30T00:00:00Z"}}
    testing.seen.clear()
    report = run([items[0], later, older], tmp_path / "a", testing.COUNTING)
    assert (report.replaced, report.added) == ((later["id"],), ())
    assert len(testing.seen) == 16
    check(tmp_path / "a", [items[0], later, items[2]], testing.COUNTING)
    assert xr.open_zarr(tmp_path / "a").item_updated.values[1] == "2026-06-02T00:00:00.5Z"
    assert run([items[0], later, items[2]], tmp_path / "a", testing.COUNTING).replaced == ()


def test_a_later_baseline_takes_the_place_of_the_older(items: list[dict[str, Any]], tmp_path: Path) -> None:
    old = make_item(tmp_path, "S2A_N0400", "2026-05-02", baseline="04.00")
    new = make_item(tmp_path, "S2A_N0511", "2026-05-02", baseline="05.11")
    run([items[0], old, items[1]], tmp_path / "a")
    with pytest.warns(UserWarning, match="an older processing"):
        report = run([items[0], old, new, items[1]], tmp_path / "a")
    assert (report.replaced, report.added) == (("S2A_N0511",), ())
    check(tmp_path / "a", [items[0], new, items[1]])
    with pytest.warns(UserWarning, match="an older processing"):
        report = run([items[0], old, new, items[1]], tmp_path / "a")
    assert (report.left_out, report.added, report.replaced) == (("S2A_N0400",), (), ())


def test_scenes_of_one_moment_are_steps_of_their_own(tmp_path: Path) -> None:
    """Neighbours of one datatake: each keeps its step, whichever comes first, and can be made again alone."""
    here, there = (
        make_item(tmp_path, "T32TPQ", "2026-05-02"),
        make_item(tmp_path, "T32TQQ", "2026-05-02", left=LEFT + 480),
    )
    after = make_item(tmp_path, "T32TPQ-later", "2026-05-07")
    box = [BOX[0], BOX[1], BOX[2] + 0.006, BOX[3]]
    run([there, after], tmp_path / "a", bbox=box)
    report = run([here, there, after], tmp_path / "a", bbox=box)
    assert (report.added, report.skipped) == (("T32TPQ",), ("T32TQQ", "T32TPQ-later"))
    found = xr.open_zarr(tmp_path / "a").sortby("time").load()
    assert list(found.item_id.values) == ["T32TQQ", "T32TPQ", "T32TPQ-later"]
    assert found.time.values[0] == found.time.values[1] < found.time.values[2]
    run([here, there, after], tmp_path / "b", bbox=box)
    fresh = xr.open_zarr(tmp_path / "b").set_index(time="item_id").cloud_mask
    np.testing.assert_array_equal(found.cloud_mask.values, fresh.sel(time=found.item_id.values).values)
    again = make_item(tmp_path, "T32TPQ", "2026-05-02", seed=5, updated="2026-06-02T00:00:00Z")
    assert run([again, there, after], tmp_path / "a", bbox=box).replaced == ("T32TPQ",)
    changed = open_masks(tmp_path / "a").values != found.cloud_mask.values
    assert changed.any(axis=(1, 2)).tolist() == [False, True, False]


def test_probabilities_and_every_option_of_the_model(items: list[dict[str, Any]], tmp_path: Path) -> None:
    options: dict[str, Any] = {"output": "probabilities", "tta": True, "patch_size": 64, "overlap": 16}
    how = {**options, "dtype": "float32", "scheme": "native"}
    run([items[0], items[2]], tmp_path / "a", encoding={"dtype": "float32"}, **how)
    report = run(items[:3], tmp_path / "a", encoding={"dtype": "float32"}, **how)
    assert report.added == ("S2A_001",)
    da = load_stac(items[:3], bands=["red", "nir"])
    del how["output"]
    expected = da.cloudmask.predict_proba(testing.TOY, working_resolution="native", **how)
    found = open_masks(tmp_path / "a")
    assert found.dims == expected.dims
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    with pytest.raises(ContractError, match=r"tta: \w+ in the store, \w+ in this call"):
        run(
            items[:4],
            tmp_path / "a",
            encoding={"dtype": "float32"},
            **{**options, "tta": False, "scheme": "native"},
        )
    with pytest.raises(ContractError, match="cloud_probability"):
        run(items[:4], tmp_path / "a")


def test_aux_and_uncertainty_are_those_of_predict_and_kept_to(
    items: list[dict[str, Any]], tmp_path: Path
) -> None:
    model = replace(testing.TOY, name="toy-dem", aux=("elevation",))
    da = load_stac(items[:3], bands=["red", "nir"])
    steps = 30.0 * np.arange(40)
    ground = np.hypot(*np.meshgrid(steps, steps)).astype("f4")
    place = {"y": float(da.y.max()) + 60 - steps, "x": float(da.x.min()) - 60 + steps}
    dem = xr.DataArray(ground, dims=("y", "x"), coords=place).rio.write_crs(32632)
    how: dict[str, Any] = {"aux": {"dem": dem}, "tta": 4, "uncertainty": True}
    expected = da.cloudmask.predict_proba(model, working_resolution="native", **how)
    without = da.cloudmask.predict_proba(model, working_resolution="native", tta=4, uncertainty=True)
    assert float(abs(expected - without).max()) > 0.01  # else the case shows nothing
    stored: dict[str, Any] = {"output": "probabilities", "encoding": {"dtype": "float32"}}
    run([items[0], items[2]], tmp_path / "a", model, **how, **stored)
    report = run(items[:3], tmp_path / "a", model, **how, **stored)
    assert report.added == ("S2A_001",)
    found = open_masks(tmp_path / "a")
    assert found["class"].values.tolist() == expected["class"].values.tolist()
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    for left_out, says in {
        "aux": "aux: 'elevation' in the store, None",
        "uncertainty": "uncertainty: True",
    }.items():
        other = {name: value for name, value in how.items() if name != left_out}
        with pytest.raises(ContractError, match=says):
            run(items[:4], tmp_path / "a", model, **other, **stored)
    with pytest.raises(CloudMaskError, match=r"has 2 times.*aux\.median\('time'\)"):
        run(items, tmp_path / "b", model, aux={"dem": dem.expand_dims(time=2)})
    assert not (tmp_path / "b").exists()


def test_late_items_in_an_icechunk_repository(items: list[dict[str, Any]], tmp_path: Path) -> None:
    icechunk = pytest.importorskip("icechunk")
    repo = icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(tmp_path)))
    run([items[0], items[3]], repo, group="masks")
    before = repo.lookup_branch("main")
    report = run(items[:4], repo, group="masks")
    assert (report.added, report.skipped) == (ids(items[1:3]), ids([items[0], items[3]]))
    found = open_masks(repo.readonly_session("main").store, "masks")
    assert list(found.item_id.values) == list(ids(items[:4]))
    np.testing.assert_array_equal(found.values, expected(items[:4]).values)
    newest = next(iter(repo.ancestry(branch="main")))
    assert "S2A_001" in newest.message
    assert "S2A_002" in newest.message
    old = xr.open_zarr(repo.readonly_session(snapshot_id=before).store, group="masks", consolidated=False)
    np.testing.assert_array_equal(old.cloud_mask.values, expected([items[0], items[3]]).values)
    tip = repo.lookup_branch("main")
    assert run(items[:4], repo, group="masks").skipped == ids(items[:4])
    assert repo.lookup_branch("main") == tip  # nothing to do is no commit


def test_items_beside_the_grid_are_left_out(items: list[dict[str, Any]], tmp_path: Path) -> None:
    far = make_item(tmp_path, "S2A_far", "2026-05-04", left=650000.0)
    run(items[:2], tmp_path / "a")
    report = run([*items[:2], far], tmp_path / "a")
    assert (report.left_out, report.added) == (("S2A_far",), ())
    check(tmp_path / "a", items[:2])


def test_finding_nothing_is_an_error_only_at_first(items: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match="there are no items"):
        run([], tmp_path / "a")
    run(items[:1], tmp_path / "a")
    assert run([], tmp_path / "a") == SyncReport(str(open_store(tmp_path / "a")))


def test_other_settings_are_refused_and_nothing_changes(items: list[dict[str, Any]], tmp_path: Path) -> None:
    run([items[0], items[2]], tmp_path / "a")
    before = files(tmp_path / "a")
    with pytest.raises(ContractError, match="resampling: 'nearest' in the store, 'bilinear' in this call"):
        run(items, tmp_path / "a", resampling="bilinear")
    with pytest.raises(ContractError, match=r"bbox: None in the store, \[10\.25"):
        run(items, tmp_path / "a", bbox=(10.25, 44.24, 10.255, 44.25))
    with pytest.raises(ContractError, match=r"threshold: None in the store, 0\.3 in this call"):
        run(items, tmp_path / "a", threshold=0.3)
    with pytest.raises(ContractError, match="model: 'toy' in the store, 'counting' in this call"):
        run(items, tmp_path / "a", testing.COUNTING)
    complete = [items[0], items[2]]  # nothing is missing: the contract is checked all the same
    for options, words in {
        "threshold": ({"threshold": 0.3}, "threshold: None in the store, 0.3"),
        "tta": ({"tta": True}, "tta: 0 in the store, 8 in this call"),
        "scheme": ({"scheme": "binary"}, "scheme: 'default' in the store, 'binary'"),
        "model": ({"model": testing.COUNTING}, "model: 'toy' in the store"),
    }.values():
        with pytest.raises(ContractError, match=words):
            run(complete, tmp_path / "a", **options)
    assert run(complete, tmp_path / "a").skipped == ids(complete)
    assert files(tmp_path / "a") == before
    report = run(items[:2], tmp_path / "a", overwrite=True, threshold=0.3)
    assert report.added == ids(items[:2])
    assert list(xr.open_zarr(tmp_path / "a", consolidated=False).item_id.values) == list(ids(items[:2]))


def test_what_stream_would_refuse_is_refused_before_any_label_changes(
    items: list[dict[str, Any]], tmp_path: Path
) -> None:
    run(items[:2], tmp_path / "a")
    before = files(tmp_path / "a")
    later = make_item(tmp_path, items[1]["id"], "2026-05-03", seed=99, updated="2026-06-02T00:00:00Z")
    with pytest.raises(ContractError, match="holds a mask already: pass resume=True"):
        run([items[0], later], tmp_path / "a", resume=False)
    with pytest.raises(OptionError, match=r"append_dim 'y'\. Allowed: time"):
        run(items[:2], tmp_path / "b", append_dim="y")
    assert not (tmp_path / "b").exists()
    assert files(tmp_path / "a") == before


def test_an_item_that_fails_is_tried_again(items: list[dict[str, Any]], tmp_path: Path) -> None:
    broken = make_item(tmp_path, "S2A_broken", "2026-05-02")
    path = Path(broken["assets"]["nir"]["href"])
    path.rename(tmp_path / "away")
    with pytest.warns(StreamWarning, match="S2A_broken"):
        report = run([items[0], broken, items[1]], tmp_path / "a")
    assert report.failed == ("S2A_broken",)
    assert not report.complete
    with pytest.raises(CloudMaskError, match=r"(?s)1 failed.*S2A_broken"):
        report.raise_if_failed()
    (tmp_path / "away").rename(path)
    early = make_item(tmp_path, "S2A_early", "2026-04-20")
    report = run([early, items[0], broken, items[1]], tmp_path / "a")
    assert set(report.added) == {"S2A_early", "S2A_broken"}
    check(tmp_path / "a", [early, items[0], broken, items[1]])


def test_a_store_that_stream_made_is_continued(items: list[dict[str, Any]], tmp_path: Path) -> None:
    da = load_stac([items[0], items[2]], bands=["red", "nir"])
    stream(da, tmp_path / "a", predict={"model": testing.TOY, "working_resolution": "native"}, **CUT)
    with pytest.raises(ContractError, match="leave out resolution"):
        run(items, tmp_path / "a", resolution=20)
    with pytest.warns(StreamWarning, match="does not record when items were updated"):
        report = run(items, tmp_path / "a")
    assert len(report.added) == 4
    check(tmp_path / "a", items)


def test_stores_that_cannot_be_synced_are_named(items: list[dict[str, Any]], tmp_path: Path) -> None:
    da = load_stac(items[:2], bands=["red", "nir"])
    cut = {"chunks": {"time": 2}, "progress": False}
    stream(da, tmp_path / "a", predict={"model": testing.TOY, "working_resolution": "native"}, **cut)
    with pytest.raises(ContractError, match="2 steps in a shard"):
        run(items, tmp_path / "a")
    stream(
        da.isel(time=0),
        tmp_path / "b",
        predict={"model": testing.TOY, "working_resolution": "native"},
        progress=False,
    )
    with pytest.raises(ContractError, match=r"sync needs \(time, y, x\)"):
        run(items, tmp_path / "b")
    with pytest.raises(CloudMaskError, match="two collections"):
        run([items[0], {**items[0], "collection": "other"}], tmp_path / "c")


class CrashError(Exception):
    """Stands for a kill."""


def crash_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the n-th thing that is written be the last."""
    left = itertools.count(count, -1)

    def spend() -> None:
        if next(left) <= 0:
            raise CrashError

    for kind in (LocalStore, MemoryStore):
        for name in ("set", "delete"):
            original = getattr(kind, name)

            async def write(self: Any, *args: Any, original: Any = original, **kwargs: Any) -> Any:
                spend()
                return await original(self, *args, **kwargs)

            monkeypatch.setattr(kind, name, write)
    rename = os.rename

    def renamed(*args: Any) -> None:
        spend()
        rename(*args)

    monkeypatch.setattr("os.rename", renamed)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_crash_at_any_write_of_a_replacement_takes_no_old_pixels_for_new_ones(
    kind: str, items: list[dict[str, Any]], tmp_path: Path
) -> None:
    old = make_item(tmp_path, "S2A_N0400", "2026-05-02", baseline="04.00")
    new = make_item(tmp_path, "S2A_N0511", "2026-05-02", baseline="05.11", seed=7)
    base: Any = tmp_path / "base" if kind == "local" else MemoryStore()
    run([items[1], old], base)
    truth = {item["id"]: expected([item]).values[0] for item in (old, new, items[1])}
    assert (truth["S2A_N0400"] != truth["S2A_N0511"]).any()  # else the case shows nothing
    for count in itertools.count():
        if kind == "local":
            store: Any = tmp_path / f"{count}"
            shutil.copytree(base, store)
        else:
            store = MemoryStore(dict(base._store_dict))
        stored = Stored.read(Target(open_store(store)))
        assert stored is not None
        change = {0: {**stored.labels_of(0), "item_id": "S2A_N0511", UPDATED: new["properties"]["updated"]}}
        with pytest.MonkeyPatch.context() as patch:
            crash_after(count, patch)
            try:
                stored.relabel(change)
                survived = True
            except CrashError:
                survived = False
        now = Stored.read(Target(open_store(store)))
        assert now is not None
        for label, mask, done in zip(now.labels["item_id"], now.open().values, now.done, strict=True):
            assert not done or (mask == truth[label]).all(), (count, label)
        for lock in (tmp_path / f"{count}" / "stream").glob("lock.*") if kind == "local" else ():
            shutil.rmtree(lock)
        if kind == "memory":
            for key in [key for key in store._store_dict if "lock." in key]:
                del store._store_dict[key]
        with pytest.warns(UserWarning, match="an older processing"):
            assert run([items[1], old, new], store).replaced in ((), ("S2A_N0511",))
        check(store, [items[1], new])
        if survived:
            break
    assert count > 4


@pytest.mark.services
def test_late_items_on_s3(items: list[dict[str, Any]], s3_server: Any) -> None:
    s3_server.filesystem().makedirs("sync", exist_ok=True)
    options = s3_server.storage_options()
    run([items[0], items[3]], "s3://sync/a.zarr", storage_options=options)
    report = run(items[:4], "s3://sync/a.zarr", storage_options=options)
    assert len(report.added) == 2
    found = open_masks("s3://sync/a.zarr", storage_options=options)
    np.testing.assert_array_equal(found.values, expected(items[:4]).values)
    assert list(found.item_id.values) == list(ids(items[:4]))
