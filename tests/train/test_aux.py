"""Height and radar in training: read from patches, given as the engine gives them; answers hang on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from tests.train.conftest import BANDS, write_table
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.train import fine_tune, write_patch
from xcloudmask.train.config_tables import Recipe
from xcloudmask.train.evaluate import probabilities, run_model
from xcloudmask.train.files import find, read_patch
from xcloudmask.train.networks import begin, model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.pseudo import ask
from xcloudmask.train.run import train
from xcloudmask.train.samples import to_xarray
from xcloudmask.train.split import check_aux
from xcloudmask.train.stream import Stream
from xcloudmask.types import AuxInput

CLASSES = ["clear", "cloud"]
#: What stands where it is cloud, and elsewhere: metres, decibels, decibels, degrees.
PLANES = {"elevation": (2600.0, 150.0), "vv": (-5.0, -21.0), "vh": (-12.0, -28.0), "angle": (30.0, 45.0)}
UNITS = {"elevation": "m", "vv": "dB", "vh": "dB", "angle": "degrees"}
UNET: dict[str, Any] = {
    "architecture": "cloud-unet", "bands": ["red", "nir"], "classes": CLASSES,
    "settings": {"width": 8, "levels": 1, "dropout": 0.0, "dem": True},
}  # fmt: skip
SENSEI: dict[str, Any] = {
    "architecture": "sensei-v2", "classes": CLASSES, "aux": ["vv", "elevation"],
    "settings": {"channels": 8, "width": 16, "layers": 1, "compact_widths": [8, 8], "compact_depth": 1},
}  # fmt: skip


def cloud_of(seed: int, size: int = 48) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.add.outer(np.zeros(size), np.arange(size)) < rng.integers(size // 3, 2 * size // 3)


def planes_of(cloud: np.ndarray, *names: str) -> dict[str, np.ndarray]:
    return {name: np.where(cloud, *PLANES[name]).astype(np.float32) for name in names}


def write(path: Path, seed: int, *names: str, **parts: Any) -> Path:
    """Write a patch whose reflectance says nothing of cloud: only the planes do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cloud = cloud_of(seed)
    image = np.random.default_rng(seed).uniform(1500, 2500, (6, 48, 48)).astype(np.uint16)
    meta = {"sensor": "landsat-8", "level": "L1 TOA", "gsd_m": 30, "scene": path.stem}
    np.savez(
        path, image=image, bands=BANDS, kinds=["reflectance"] * 6, meta=json.dumps(meta),
        possible=np.where(cloud, 6, 9).astype(np.uint8), **{**planes_of(cloud, *names), **parts},
    )  # fmt: skip
    return path


def plan_of(network: dict[str, Any], **more: Any) -> Plan:
    return Plan.of({
        "name": "high", "data": {"batch": 4, "length": 40, "dev": 0.2}, "network": network,
        "recipe": {"size": 16, "hide_aux": 0.1}, "card": {"patch": 48, "overlap": 0},
        "loop": {"epochs": 2, "rate": 2e-2, "device": "cpu"}, **more,
    })  # fmt: skip


def right(spec: Any, seed: int, cloud: np.ndarray, *names: str) -> float:
    """Return the share of pixels that are masked as the planes say, which need not be those of the patch."""
    folder = write(Path(spec.weights).parent / "new" / f"{seed}.npz", seed)
    da = to_xarray(read_patch(folder))
    aux = {
        name: da.isel(band=0, drop=True).copy(data=plane).assign_attrs(units=UNITS[name])
        for name, plane in planes_of(cloud, *names).items()
    }
    return float(((da.cloudmask.predict(model=spec, aux=aux).values == 1) == cloud).mean())


@pytest.mark.parametrize(("network", "names"), [(UNET, ["elevation"]), (SENSEI, ["vv", "elevation"])])
def test_answers_hang_on_height_and_radar(network: dict[str, Any], names: list[str], tmp_path: Path) -> None:
    """They were learnt from patches, and `predict` gives the network the same numbers for them."""
    for seed in range(6):
        write(tmp_path / "train" / "a" / f"{seed}.npz", seed, *names)
    train(plan_of(network), data=tmp_path, out=tmp_path / "out")
    spec = model_of(tmp_path / "out" / "high.json")
    assert spec.aux == tuple(AuxInput.of(name) for name in names)
    cloud = cloud_of(70)
    assert right(spec, 70, cloud, *names) > 0.95
    assert right(spec, 70, ~cloud, *names) > 0.95  # the same reflectance, other heights
    # what training scores is what users get
    sample = read_patch(write(tmp_path / "held" / "a" / "h.npz", 71, *names))
    if network is UNET:
        sample = sample.select([BANDS.index("red"), BANDS.index("nir08"), 6])
    asked = ask(sample, spec)
    assert asked is not None
    begun = begin({"start": spec, "classes": spec.classes})
    assert np.abs(probabilities(begun.called, sample) - asked[0]).max() < 1e-4
    counts = run_model(spec, find(tmp_path / "held"), bands="all" if network is SENSEI else ("red", "nir"))
    assert counts["a"].scores().get("cloud", "oa") > 0.95
    more = fine_tune(spec, tmp_path / "train", tmp_path / "more", epochs=1, length=1, recipe={"size": 16})
    assert more.aux == spec.aux


def test_fine_tuning_takes_other_aux_inputs(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / "train" / "a" / f"{seed}.npz", seed, "elevation", "vv")
    how: dict[str, Any] = {"epochs": 1, "length": 2, "batch": 2, "dev": 0, "recipe": {"size": 16}}
    data = tmp_path / "train"
    tuned = fine_tune("spectral", data, tmp_path / "out", bands=["elevation"], progress=False, **how)
    assert tuned.aux == (AuxInput("elevation"),)
    assert fine_tune("spectral", data, tmp_path / "plain", progress=False, **how).aux == ()
    with pytest.raises(CloudMaskError, match="other bands, and other aux"):
        fine_tune("ukis-4band-l1c", data, tmp_path / "fixed", bands=["vv"], progress=False, **how)


def test_files_without_what_the_network_takes_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "train" / "a" / "flat.npz", 0)
    for seed in (1, 2):
        write(tmp_path / "train" / "a" / f"{seed}.npz", seed, "elevation")
    with pytest.raises(
        CloudMaskError, match=rf"{path} holds no elevation, which .* \(1 of 3 files lack it\)"
    ):
        train(plan_of(UNET, data={"batch": 1, "length": 1}), data=tmp_path, out=tmp_path / "a")
    with pytest.raises(CloudMaskError, match=r"holds no vv, which .* \(3 of 3 files"):
        train(plan_of(SENSEI, data={"batch": 1, "length": 1}), data=tmp_path, out=tmp_path / "b")
    # any bands: one patch with it and another without are fine
    some = {**SENSEI, "aux": ["elevation"]}
    train(
        plan_of(some, data={"batch": 4, "length": 2}, loop={"epochs": 1}), data=tmp_path, out=tmp_path / "c"
    )
    with pytest.raises(BandError, match="wavelength only"):
        begin({**SENSEI, "architecture": "sensei-v1", "settings": {}})
    spec = model_of(tmp_path / "c" / "high.json")
    assert begin({"start": spec, "classes": CLASSES, "aux": ["vv"]}).entries["aux"] == (AuxInput("vv"),)
    with pytest.raises(CloudMaskError, match="this one takes aux inputs"):
        begin({**UNET, "estimate": True})
    with pytest.raises(CloudMaskError, match="other bands, and other aux"):
        begin({"start": "ukis-4band-l1c", "classes": ["clear", "cloud"], "aux": ["vv"]})


def test_planes_are_in_the_order_that_the_engine_has(tmp_path: Path) -> None:
    begun = begin({**UNET, "aux": ["elevation", "vv"]})
    assert [each.name for each in begun.entries["aux"]] == ["vv", "elevation"]
    assert (begun.config["bands"], begun.config["dem"]) == (3, True)
    plain = begin({**UNET, "settings": {"width": 4}, "aux": ["elevation"]})
    assert (plain.config["bands"], plain.config["dem"]) == (2, True)
    other = begin({"architecture": "pixel-mlp", "bands": ["red"], "classes": CLASSES, "aux": ["vv", "vh"]})
    assert other.config["bands"] == 3
    assert begin({**UNET, "settings": {"width": 4}}).entries["aux"] == ()


@pytest.mark.parametrize("bands", [(), ("red", "nir")])
def test_planes_stay_with_their_pixels_and_may_be_hidden(bands: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a" / "a.npz"
    write(path, 3)
    with np.load(path) as file:
        parts = {name: file[name] for name in file.files}
    red = parts["image"][BANDS.index("red")]
    height = np.where(np.arange(48) == 5, np.nan, 1000 + red / 10)  # a column of it is not known
    np.savez(path, **parts, elevation=height.astype("f4"))
    aux = (AuxInput("vv"), AuxInput("elevation"))
    changes: dict[str, Any] = {"coarsen": 0.5, "gaps": 0.5, "mix": 0.5, "whole": 0.0, "least_bands": 2}
    for hidden in (0.0, 1.0):
        recipe = Recipe(size=16, bands=bands, hide_aux=hidden, **changes)
        stream = Stream(tuple(find(tmp_path)), recipe, 2, 1, aux=aux)
        for index in range(20):
            sample = stream.sample(0, index)
            names = [band.common_name or band.name for band in sample.bands]
            own = names[-1 - bool(bands) :] if not hidden or bands else []
            assert own == ([*["vv"] * bool(bands), "elevation"] if own else [])
            assert not np.isnan(sample.image[len(names) - len(own) :]).any()
            if bands:
                assert names[:2] == ["red", "nir08"]
                assert not sample.image[2].any()  # no radar: zeros, as where the engine is given none
                assert bool(sample.image[3].any()) != bool(hidden)
            if not hidden and "red" in names:
                clear = sample.valid & (sample.possible & 6 == 0) & (sample.possible > 0)
                apart = np.abs(sample.image[-1] - sample.image[names.index("red")])[clear]
                if apart.size:
                    assert np.median(apart) < 1e-3  # but for the column that is not known


def test_patches_and_tables_hold_heights(tmp_path: Path) -> None:
    da = to_xarray(read_patch(write(tmp_path / "a.npz", 1))).drop_vars("spatial_ref")
    da = da.cloudmask.describe(sensor="landsat-8", level="L1TP", bands=BANDS)
    plane = da.isel(band=0, drop=True)
    vv = plane.copy(data=np.full((48, 48), 0.1, "f4")).assign_attrs(units="linear")
    vv[0, 0] = np.nan
    coarse = xr.DataArray(
        [[100.0, 100.0], [300.0, 300.0]],
        dims=("y", "x"),
        coords={"y": [-360.0, -1080.0], "x": [360.0, 1080.0]},
    )
    path = write_patch(tmp_path / "b.npz", da, None, aux={"vv": vv, "dem": coarse}, pixel_size=30)
    with np.load(path) as file:
        assert file["vv"][1, 1] == pytest.approx(-10)
        assert np.isnan(file["vv"][0, 0])
        assert (file["elevation"][0, 0], file["elevation"][-1, -1]) == (100, 300)
    bands, planes = read_patch(path).parted()
    assert [band.common_name for band in bands.bands] == BANDS
    assert planes["vv"][1, 1] == pytest.approx(0.1)
    assert read_patch(path).valid[0, 0]  # a gap in radar is no gap
    table = write_table(tmp_path / "pixels" / "landsat8.csv", 1)
    (entry,) = find(tmp_path / "pixels")
    assert not entry.aux()
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([lines[0] + ",dem", *(f"{line},{100 * i}" for i, line in enumerate(lines[1:]))])
    )
    assert entry.aux() == {"elevation"}
    assert entry.read().parted()[1]["elevation"][3, 0] == 300


def test_thermal_aux_inputs_which_no_patch_holds_are_refused(tmp_path: Path) -> None:
    """A network that asked for them would be given zeros."""
    with pytest.raises(OptionError, match=r"'lwir11'.*elevation, vv, vh, angle"):
        plan_of({**SENSEI, "aux": ["lwir11"]})
    da = to_xarray(read_patch(write(tmp_path / "train" / "a" / "a.npz", 1, lwir11=np.zeros((48, 48), "f4"))))
    kelvin = da.isel(band=0, drop=True).assign_attrs(units="K") * 0 + 290
    da = da.drop_vars("spatial_ref").cloudmask.describe(sensor="landsat-8", level="L1TP", bands=BANDS)
    with pytest.raises(OptionError, match="aux input of a patch 'lwir11'"):
        write_patch(tmp_path / "b.npz", da, None, aux={"lwir11": kelvin}, pixel_size=30)
    (entry,) = find(tmp_path / "train")
    assert not entry.aux()  # what is not read is not held
    with pytest.raises(CloudMaskError, match=r"holds no lwir11.*no aux inputs but elevation, vv"):
        check_aux([entry], [AuxInput("lwir11")], every=False)


@pytest.mark.parametrize(
    ("parts", "match"),
    [
        ({"elevation": np.full((48, 48), -9999, "i2")}, "holds -9999 m.*NaN where it is not known"),
        ({"elevation": np.zeros((4, 4), "f4")}, r"\(4, 4\).*, the image \(48, 48\); it must be float32"),
        ({"vv": np.full((48, 48), "a")}, "'vv' is text"),
    ],
)
def test_planes_of_another_form_are_refused(parts: dict[str, Any], match: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.npz", 1, **parts)
    with pytest.raises(CloudMaskError, match=rf"{path}: not a patch.*{match}"):
        read_patch(path)
