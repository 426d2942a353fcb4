"""A scene is read once, and each module of planning is asked once."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from tests.scenes import NAMES, noise, scene
from xcloudmask.errors import BandError, CloudMaskError
from xcloudmask.predict import prepare as planning
from xcloudmask.predict.options import PredictOptions
from xcloudmask.scene.scene import Scene, read_scene

ROOT = Path(xcloudmask.__file__).parent


def module_of(frame: FrameType) -> str | None:
    """The module of the package that a frame runs in."""
    path = Path(frame.f_code.co_filename)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else None


def holds_scene(frame: FrameType) -> bool:
    """Whether a function was given the array with its pixels, or the scene that was read of it."""
    code = frame.f_code
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    given = [frame.f_locals.get(name) for name in names]
    return any(
        isinstance(value, Scene) or (isinstance(value, xr.DataArray) and value.ndim >= 3) for value in given
    )


def walk(da: xr.DataArray, asked: PredictOptions) -> tuple[list[str], list[str]]:
    """Return the modules that planning calls, and those given the array; each run of calls counts as one.

    The first list has the modules whose functions predict/prepare.py calls itself, in order. The second has
    every module, however deep, one of whose functions is given the array with its pixels, or the scene; what
    such a function asks a module below it about a coordinate or a list of bands is no visit of the array.
    """
    called: list[str] = []
    visited: list[str] = []

    def note(frame: FrameType, event: str, arg: object) -> None:
        module = module_of(frame) if event == "call" else None
        if module in (None, "errors.py", "predict/prepare.py"):
            return
        caller: Any = frame.f_back
        if module_of(caller) == "predict/prepare.py":
            called.append(module)
        if holds_scene(frame):
            visited.append(module)

    sys.setprofile(note)
    try:
        planning.prepare(da, asked)
    finally:
        sys.setprofile(None)

    def runs(modules: list[str]) -> list[str]:
        return [m for at, m in enumerate(modules) if at == 0 or m != modules[at - 1]]

    return runs(called), runs(visited)


@pytest.mark.parametrize("lazy", [False, True])
def test_planning_enters_each_module_once_and_no_more_than_eight(lazy: bool) -> None:
    da = scene(noise(6, 96, 96), NAMES, step=10.0)
    asked = PredictOptions(nodata=-1.0, valid=da[0] < 0.9)
    planning.prepare(da, asked)  # what is imported and cached
    called, visited = walk(da.chunk(y=40) if lazy else da, asked)
    assert called == [
        "scene/scene.py", "predict/choose_model.py", "scene/bands.py", "scene/units.py",
        "scene/same_grid.py", "scene/aux_inputs.py", "predict/settle.py", "engine/plan.py",
    ]  # fmt: skip
    assert visited == [
        "scene/scene.py", "scene/mask_classes.py", "scene/dims.py", "scene/bands.py", "scene/units.py",
        "scene/sentinel2.py", "scene/same_grid.py",
    ]  # fmt: skip


def test_a_scene_holds_what_the_array_says() -> None:
    da = scene(noise(2, 4, 6)[None], ["red", "nir"], step=10.0)
    read = read_scene(da)
    assert (read.y, read.x, read.band, read.lead) == ("y", "x", "band", ("time",))
    assert read.pixel == (10.0, 10.0)
    assert read.level == "toa"
    assert read.sensor is None
    uneven = da.assign_coords(y=[0.0, 1.0, 9.0, 10.0])
    assert read_scene(uneven, measured=False).pixel is None
    with pytest.raises(CloudMaskError, match="evenly spaced"):
        read_scene(uneven)


def test_a_band_whose_label_and_common_name_differ_is_refused() -> None:
    da = xr.DataArray(noise(2, 8, 8), dims=("band", "y", "x"), coords={"band": ["B4", "B5"]})
    da = da.assign_attrs(sensor="landsat-8", level="toa")
    same = da.assign_coords(common_name=("band", ["red", "nir"]))  # nir08, by another of its names
    assert [band.common_name for band in same.cloudmask.bands] == ["red", "nir"]
    other = da.assign_coords(common_name=("band", ["green", "nir08"]))
    with pytest.raises(BandError, match=r"'B4' is called 'green'.*B4, red"):
        _ = other.cloudmask.bands


def test_a_platform_that_nobody_knows_takes_described_bands() -> None:
    """`load_stac` writes 'unknown' for it."""
    from xcloudmask.testing import TOY

    da = xr.DataArray(noise(1, 2, 40, 40), dims=("time", "band", "y", "x"))
    da = da.assign_coords(sensor=("time", ["unknown"]), band=["red", "nir"]).assign_attrs(level="toa")
    for named in (da, da.assign_attrs(sensor="unknown")):
        assert named.cloudmask.sensor is None
        assert named.cloudmask.predict(TOY, working_resolution="native").shape == (1, 40, 40)


BLUE_FIRST = ("blue", "green", "red", "nir08", "swir16", "swir22")


def test_a_counter_is_never_a_band_and_descriptions_are() -> None:
    oli = xcloudmask.sensors.get("landsat-8")
    centres = [round(oli.band(name).center_nm or 0) for name in BLUE_FIRST]
    counted = xr.DataArray(noise(6, 8, 8), dims=("band", "y", "x"), coords={"band": np.arange(1, 7)})
    layers = list(counted.drop_vars("band"))
    described = counted.assign_attrs(long_name=BLUE_FIRST)
    assert [band.common_name for band in described.cloudmask.bands] == list(BLUE_FIRST)
    bands = described.cloudmask.describe("landsat-8", level="L2A").cloudmask.bands
    assert [round(band.center_nm or 0) for band in bands] == centres
    as_variables = xr.Dataset(
        {f"band_{i + 1}": layers[i].assign_attrs(long_name=name) for i, name in enumerate(BLUE_FIRST)}
    )
    bands = as_variables.cloudmask.describe("landsat-8", level="L2A").cloudmask.bands
    assert [round(band.center_nm or 0) for band in bands] == centres
    bare = as_variables.drop_attrs()
    for silent in (counted, bare):
        with pytest.raises(BandError, match="none of the labels"):
            silent.cloudmask.describe("landsat-8")
