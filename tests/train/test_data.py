"""What is read, what may happen to it on the way, and that held-out data is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.train.conftest import write_patch, write_table
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import augment, clouds
from xcloudmask.train.config_tables import Recipe
from xcloudmask.train.files import LeakError, check_no_leak, find, read_patch, read_pixels, split
from xcloudmask.train.mosaic import mosaic
from xcloudmask.train.samples import Sample, from_xarray
from xcloudmask.train.stream import Stream, collate
from xcloudmask.types import Band

REAL = Path(__file__).parents[2].parent / "shared" / "data"


def test_patches_are_read_as_they_are_described(data: Path) -> None:
    entry = find(data / "train", ["l8"])[0]
    one = entry.read()
    assert one.image.dtype == np.float32
    assert np.isnan(one.image[:, :, -1]).all()
    assert (one.possible[:, -1] == 0).all()
    with np.load(entry.path) as file:
        assert one.image[2, 5, 5] == pytest.approx(file["image"][2, 5, 5] / 10_000)
    assert [b.common_name for b in one.bands] == ["blue", "green", "red", "nir08", "swir16", "swir22"]
    assert one.bands[3].min_nm == pytest.approx(850.5)
    assert (one.scene, one.level, one.gsd) == ("l8/t0", "toa", 30.0)


def test_tables_are_read_and_parted_by_scene(data: Path) -> None:
    entries = find(data / "train", ["pixels/landsat8"])
    table = entries[0].read()
    assert table.image.shape == (4, 60, 1)
    assert set(np.unique(table.possible)) == {6, 9}
    assert not table.spatial
    assert set(split(entries, 0.4, used=0.5)[0][0].groups()) < set(split(entries, 0.4)[0][0].groups())
    (fit,), (dev,) = split(entries, 0.4)
    one, other = set(fit.groups()), set(dev.groups())
    assert one
    assert other
    assert not one & other
    assert fit.read().image.shape[1] + dev.read().image.shape[1] == 60
    assert len(fit.groups()) == fit.read().image.shape[1]


def test_an_array_becomes_a_sample() -> None:
    da = xr.DataArray(
        np.ones((3, 4, 5), "f4"), dims=("band", "y", "x"),
        coords={"band": ["blue", "red", "nir"], "y": np.arange(4) * 10.0, "x": np.arange(5) * 10.0},
    )  # fmt: skip
    labels = xr.DataArray(np.ones((5, 4), "u1"), dims=("x", "y"))
    one = from_xarray(da, labels, scene="a")
    assert one.possible.shape == (4, 5)
    assert one.gsd == 10
    with pytest.raises(CloudMaskError, match="scale"):
        from_xarray(da.astype("u2"))


def test_held_out_data_is_refused(data: Path) -> None:
    training, held = find(data / "train"), find(data / "val")
    check_no_leak(training, held)
    with pytest.raises(LeakError, match="held-out"):
        check_no_leak([*training, held[0]])
    for name in ("reserved", "sealed"):
        path = write_patch(data / "train" / name / "a.npz", 50)
        with pytest.raises(LeakError, match=name):
            check_no_leak(find(data / "train"))
        path.unlink()
    sealed = data / "train" / "l8" / "reserved.npz"
    shutil.copy(training[0].path, sealed)
    with pytest.raises(LeakError, match="reserved"):
        check_no_leak(find(data / "train"))


def test_a_scene_or_a_pixel_on_both_sides_is_refused(data: Path) -> None:
    held = find(data / "val")
    write_patch(data / "train" / "l8" / "other.npz", 60, scene="v0")
    with pytest.raises(LeakError, match="scene l8/v0"):
        check_no_leak(find(data / "train"), held)
    (data / "train" / "l8" / "other.npz").unlink()
    write_patch(data / "train" / "copies" / "renamed.npz", 90, scene="innocent")
    with pytest.raises(LeakError, match="also held out"):
        check_no_leak(find(data / "train"), held)
    shutil.rmtree(data / "train" / "copies")
    rows = (data / "val" / "pixels" / "landsat8.csv").read_text().splitlines()
    with (data / "train" / "pixels" / "landsat8.csv").open("a") as file:
        file.write(rows[5] + "\n")
    with pytest.raises(LeakError, match="also held out"):
        check_no_leak(find(data / "train"), held)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/data")
def test_the_real_training_data_does_not_leak() -> None:
    training, held = find(REAL / "train"), find(REAL / "val")
    check_no_leak(training, held)
    assert all("reserved" not in entry.path.name for entry in training)
    for entry in training:
        sample = entry.read()
        bands, planes = sample.parted()
        assert all(band.min_nm is not None for band in bands.bands)
        assert set(planes) == ({"elevation"} if entry.path.suffix == ".gz" else set())
        assert np.nanmin(sample.select([0]).image) >= 0
        assert np.nanmax(sample.select([0]).image) < 3


def ground(size: int = 64, bands: str = "blue red nir08 swir16 cirrus lwir11") -> Sample:
    from xcloudmask import sensors

    known = [sensors.get("landsat-8").bands, bands.split()]
    chosen = tuple(next(b for b in known[0] if b.common_name == name) for name in known[1])
    values = {"blue": 0.1, "red": 0.1, "nir08": 0.3, "swir16": 0.2, "cirrus": 0.002, "lwir11": 290.0}
    image = np.stack([np.full((size, size), values[str(b.common_name)], np.float32) for b in chosen])
    return Sample(image, chosen, np.full((size, size), 9, np.uint8), 30.0, "ground")


def test_simulated_clouds_have_the_spectrum_of_clouds() -> None:
    base, rng = ground(), np.random.default_rng(0)
    sky = clouds.Sky(cover=0.5, thickest=40, ice=0.1, roughness=3, shift=(0, 300), top=270)
    made = clouds.simulate(base, rng, sky)
    thick = made.possible == 2
    blue, red, nir, swir, cirrus, hot = (made.image[i][thick] for i in range(6))
    assert 0.3 < blue.mean() < 0.9
    assert abs(blue - red).mean() < 0.03  # white
    assert (swir < nir).all()  # droplets absorb
    assert (cirrus < 0.1).all()  # water vapour hides a low cloud
    assert (hot < 290).all()
    high = clouds.simulate(base, np.random.default_rng(0), clouds.Sky(0.5, 3, 1.0, 3, (0, 300), 230))
    thin = high.possible == 4
    assert (high.image[4][thin] > base.image[4][thin] + 0.01).all()
    assert made.image[:4].max() < 1.1
    assert made.image.min() >= 0


def test_simulated_clouds_grow_brighter_with_thickness_and_conserve_light() -> None:
    depth = np.linspace(0, 100, 50)
    for lost in (1e-6, 5e-3, 6e-2):
        up, down = clouds.layer(depth, lost)
        assert (np.diff(up) >= 0).all()
        assert (np.diff(down) <= 0).all()
        assert up[0] == 0
        assert down[0] == 1
        assert (up + down <= 1 + 1e-9).all()
    white = clouds.layer(depth, 1e-9)
    np.testing.assert_allclose(white[0], 0.075 * depth / (1 + 0.075 * depth), atol=1e-3)


def test_simulated_shadows_are_dark_bluish_and_labelled() -> None:
    base = ground()
    sky = clouds.Sky(cover=0.3, thickest=30, ice=0.0, roughness=3.4, shift=(6, 9), top=270)
    made = clouds.simulate(base, np.random.default_rng(3), sky)
    shadow = made.possible == 8
    assert shadow.sum() > 20
    darker = made.image[:4, shadow] / base.image[:4, shadow]
    assert (darker[3] < darker[0]).all()
    assert (darker < 1).all()
    depth = clouds.field(np.random.default_rng(3), (64, 64), 3.4)
    depth = 30 * np.clip((depth - 0.7) / 0.3, 0, 1) ** 2
    moved = np.zeros_like(depth)
    moved[6:, 9:] = depth[:-6, :-9]
    assert (moved[shadow] > clouds.SHADE).all()


def test_simulation_respects_labels() -> None:
    base = ground()
    labels = base.possible.copy()
    labels[:, :20], labels[:, 20:40] = 6, 0
    made = clouds.simulate(
        Sample(base.image, base.bands, labels, 30.0), np.random.default_rng(1),
        clouds.Sky(0.6, 20, 0, 3, (0, 5), 270),
    )  # fmt: skip
    assert set(np.unique(made.possible[:, :20])) <= {2, 6}
    assert set(np.unique(made.possible[:, 20:40])) <= {0, 2, 4}


def test_coarse_pixels_are_means_and_their_labels_what_most_say() -> None:
    base = ground(9, "blue red")
    image, labels = base.image.copy(), np.full((9, 9), 1, np.uint8)
    image[:, :3, :3] = np.arange(9, dtype=np.float32).reshape(3, 3)
    labels[:3, :3], labels[:3, 3:5], labels[3, 3], labels[6:, 6:8] = 6, 6, 8, 0
    made = augment.coarsen(Sample(image, base.bands, labels, 30.0), 3)
    assert made.image.shape == (2, 3, 3)
    assert made.gsd == 90
    assert made.image[0, 0, 0] == 4
    assert made.possible[0, 0] == 6
    assert made.possible[0, 1] == 6  # two thirds cloud; one third clear is not more than a third
    assert made.possible[1, 1] == 1
    assert made.possible[2, 2] == 0  # most of it is not labelled
    half = augment.coarsen(Sample(image[:, :2, :2], base.bands, np.array([[1, 6], [1, 6]], "u1"), 30.0), 2)
    assert half.possible.item() == 7


def test_gaps_take_pixels_from_image_and_label() -> None:
    for seed in range(4):
        made = augment.gaps(ground(), np.random.default_rng(seed))
        assert 0.02 < (~made.valid).mean() < 0.6
        assert (made.possible[~made.valid] == 0).all()
        assert (made.possible[made.valid] == 9).all()


def test_clouds_of_one_sample_lie_over_the_ground_of_another() -> None:
    base = ground(16)
    image = base.image.copy()
    image[:4, :, :8] = 0.6
    labels = np.full((16, 16), 9, np.uint8)
    labels[:, :8] = 2
    mixed = augment.mix_cloud(base, Sample(image, base.bands, labels, 30.0), np.random.default_rng(0))
    np.testing.assert_array_equal(mixed.possible, labels)
    np.testing.assert_allclose(mixed.image[:4, :, :8], 0.6)
    np.testing.assert_array_equal(mixed.image[:4, :, 8:], base.image[:4, :, 8:])


def test_radiometric_changes_leave_other_bands_and_the_original_alone() -> None:
    base = ground()
    before = base.image.copy()
    for change in (augment.noise, augment.radiometry, augment.air, augment.saturate):
        made = change(base, np.random.default_rng(5))
        np.testing.assert_array_equal(made.image[5], before[5])
        np.testing.assert_array_equal(base.image, before)
        assert made.image.dtype == np.float32
    bright = Sample(base.image * 5, base.bands, base.possible, 30.0)
    assert augment.saturate(bright, np.random.default_rng(0)).image[2].max() <= 1.0
    blue, red = (augment.air(base, np.random.default_rng(5)).image[i, 0, 0] - before[i, 0, 0] for i in (0, 1))
    assert abs(blue) > 3 * abs(red) > 0


def test_subsets_are_of_instruments_or_random_and_keep_their_names() -> None:
    base, seen = ground(4, "blue red nir08 swir16 cirrus"), set()
    for seed in range(200):
        made = augment.band_subset(base, np.random.default_rng(seed), least=2, whole=0.2)
        names = tuple(sorted(str(b.common_name) for b in made.bands))
        seen.add(names)
        for band, layer in zip(made.bands, made.image, strict=True):
            assert layer[0, 0] == base.image[base.bands.index(band), 0, 0]
        assert len(set(names)) == len(names) >= 2
    assert ("blue", "nir08", "red", "swir16") in seen
    assert len(seen) > 10


def test_turns_keep_pixels_and_labels_together() -> None:
    base = ground(6, "blue red")
    marked = base.image.copy()
    marked[0, 1, 2] = 0.9
    labels = base.possible.copy()
    labels[1, 2] = 6
    places = set()
    for seed in range(40):
        made = augment.flip_rotate(Sample(marked, base.bands, labels, 30.0), np.random.default_rng(seed))
        assert made.image[0][made.possible == 6].item() == pytest.approx(0.9)
        places.add(tuple(np.argwhere(made.possible == 6)[0].tolist()))
    assert len(places) == 8


ALL = dict.fromkeys(["mix", "simulate", "coarsen", "gaps", "radiometry", "air", "noise", "saturate"], 0.5)


def test_a_stream_is_a_function_of_seed_epoch_and_index(data: Path) -> None:
    entries = tuple(find(data / "train", ["l8"]))
    stream = Stream(entries, Recipe(size=24, seed=5, **ALL), batch=3, length=4)
    again = Stream(entries, Recipe(size=24, seed=5, **ALL), batch=3, length=4, memory=1)
    list(again.batches(7))  # what was made before does not matter
    made = [b.pixels for b in stream.batches(2, workers=2)]
    assert len(made) == 4
    for at, batch in enumerate(again.batches(2, start=1), start=1):
        np.testing.assert_array_equal(batch.pixels, made[at])
    other = Stream(entries, Recipe(size=24, seed=6, **ALL), batch=3, length=4).batch_at(2, 0)
    assert other.pixels.shape != made[0].shape or not np.array_equal(other.pixels, made[0])
    ranks = [Stream(entries, Recipe(size=24), 3, 4, rank=r, world=2).batch_at(0, 0).pixels for r in (0, 1)]
    assert ranks[0].shape != ranks[1].shape or not np.array_equal(*ranks)


@pytest.mark.parametrize("count", [4, 6])
def test_fixed_bands_stay_whatever_is_mixed_in(
    data: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Clouds of a sample with fewer bands would leave only what both have: they are not laid over."""
    entries = tuple(find(data / "train", ["l8"]))
    below, above = entries[0].read(), entries[1].read().select(list(range(count)))
    ground, cloud = (np.full(below.possible.shape, label, "u1") for label in (9, 6))
    drawn = iter([replace(below, possible=ground), replace(above, possible=cloud)])
    monkeypatch.setattr(Stream, "_image", lambda *_: next(drawn))
    bands = ("blue", "red", "nir", "swir16")
    made = Stream(entries, Recipe(size=24, mix=1.0, flip=0.0, bands=bands), 1, 1).sample(0, 0)
    assert len(made.bands) == 4
    assert (made.possible == 9).any() == (count == 4)


def test_tables_become_mosaics_of_one_scene(data: Path) -> None:
    entry = find(data / "train", ["pixels/landsat8"])[0]
    table, scenes = entry.read(), np.array(entry.groups())
    spectra = np.random.default_rng(0).uniform(0.1, 1, table.image.shape).astype(np.float32)
    table = replace(table, image=spectra)
    shares = table.image[:, :, 0].T / table.image[:, :, 0].sum(axis=0)[:, None]
    seen = set()
    for seed in range(20):
        made = mosaic(table, list(scenes), np.random.default_rng(seed), 24)
        assert made.possible.shape == (24, 24)
        assert made.spatial
        pixels = made.image.reshape(len(made.bands), -1).T
        of = np.abs((pixels / pixels.sum(axis=1)[:, None])[:, None] - shares).sum(axis=2).argmin(axis=1)
        assert len(set(scenes[of])) == 1  # light changes, spectra and their labels do not
        np.testing.assert_array_equal(table.possible[of, 0], made.possible.ravel())
        seen.add(len(set(of)))
    assert max(seen) > 2
    stream = Stream(tuple(find(data / "train")), Recipe(size=24, mosaic=True, seed=3), batch=4, length=2)
    batch = stream.batch_at(0, 0)
    assert batch.pixels.shape[2:] == (24, 24)
    np.testing.assert_array_equal(stream.batch_at(0, 0).pixels, batch.pixels)
    with pytest.raises(CloudMaskError, match="mosaic = true"):
        list(Stream((entry,), Recipe(size=24), batch=1, length=1).batches(0))


def test_a_stream_keeps_no_more_than_it_may(data: Path) -> None:
    size = read_patch(data / "train" / "l8" / "t0.npz").image.nbytes
    stream = Stream(tuple(find(data / "train", ["l8"])), Recipe(size=16), 4, 5, memory=2 * size)
    for _ in stream.batches(0):
        assert stream._kept.size <= 2 * size


def test_mixed_sensors_share_a_batch(data: Path) -> None:
    stream = Stream(tuple(find(data / "train")), Recipe(pixels=32, size=24, least_bands=2, **ALL), 24, 1)
    batch = stream.batch_at(0, 0)
    assert batch.pixels.shape[2:] == (32, 1)
    counts = [len(b) for b in batch.bands]
    assert min(counts) < max(counts) == batch.pixels.shape[1]
    assert batch.present.sum(axis=1).tolist() == counts
    assert not batch.pixels[~batch.present].any()
    assert np.isfinite(batch.pixels).all()


def test_no_data_is_no_input_and_no_label() -> None:
    base = ground(4, "blue red")
    image = base.image.copy()
    image[0, 0, 0] = np.nan
    batch = collate([Sample(image, base.bands, base.possible, 30.0)])
    assert batch.possible[0, 0, 0] == 0
    assert not batch.pixels[0, :, 0, 0].any()
    assert batch.possible[0, 1, 1] == 9


def test_errors_say_what_to_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="did you mean 'l8'"):
        find(data / "train", ["l9"])
    with pytest.raises(OptionError, match="noise"):
        Recipe(nois=0.5)
    with pytest.raises(CloudMaskError, match=r"noise = 2 in \[recipe\] must be less than or equal to 1"):
        Recipe(noise=2)
    with pytest.raises(CloudMaskError, match="pixels in"):
        Stream(tuple(find(data / "train", ["pixels/landsat8"])), Recipe(), 1, 1).batch_at(0, 0)
    with pytest.raises(CloudMaskError, match="landsat-8"):
        read_pixels(write_table(tmp_path / "modis.csv", 0))
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(CloudMaskError, match="not a patch"):
        read_patch(tmp_path / "bad.npz")
    with pytest.raises(CloudMaskError, match="do not fit"):
        Sample(np.zeros((1, 2, 2), "f4"), (Band("a"),), np.zeros((3, 3), "u1"), 30.0)
