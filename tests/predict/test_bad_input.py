"""Every mistake gets its own message, which names the remedy, before anything is computed."""

import re
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr

from tests.scenes import CountingScheduler, forbidden
from xcloudmask import testing
from xcloudmask.engine import predictor
from xcloudmask.errors import (
    BandError,
    CloudMaskError,
    NoDataWarning,
    OptionError,
    UnitError,
    UnitWarning,
)
from xcloudmask.models import get
from xcloudmask.types import Band

NAMES = ["blue", "green", "red", "nir"]
#: A graph that onnxruntime runs wherever it runs.
GRAPH = replace(get("ukis-4band-l1c"), name="graph", gpu_runtime=None)
SEVERAL = replace(testing.TOY, patch_fixed=True, largest_patch=96)
GOOD = np.random.default_rng(5).random((4, 64, 64), dtype=np.float32)
COUNTS = (GOOD * 1e4).astype("u2")


def scene(pixels, names=NAMES, level="L1C"):
    coords = {"y": -30.0 * np.arange(pixels.shape[-2]), "x": 30.0 * np.arange(pixels.shape[-1])}
    da = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    return da.cloudmask.describe(bands=names, level=level)


def ones(size):
    return xr.DataArray(np.ones((size, size), bool), dims=("y", "x"))


def wavelengths(name, values):
    return scene(GOOD, ["a", "b", "c", "d"]).assign_coords({name: ("band", values)})


NO_CLOUD = replace(testing.TOY, name="no-cloud", classes=("a", "b", "c"))

TABLE = {
    "integers without scale": (lambda: scene(COUNTS), {}, UnitError, r"describe\(scale=0.0001"),
    "wrong band names": (
        lambda: scene(GOOD, list("abcd")), {}, BandError, r"(?s)missing: blue, green.*describe\(sensor"
    ),
    "no band dimension": (lambda: xr.DataArray(GOOD, dims=("k", "y", "x")), {}, BandError, "rename"),
    "a mask": (lambda: scene(GOOD)[0].assign_attrs(flag_values=[0]), {}, BandError, "looks like a mask"),
    "no rows and columns": (lambda: xr.DataArray(GOOD, dims=("band", "i", "j")), {}, OptionError, "y/x"),
    "empty": (lambda: scene(GOOD)[:, :0], {}, CloudMaskError, "empty.*selection"),
    "complex": (lambda: scene(GOOD).astype("c8"), {}, UnitError, r"da\.real"),
    "booleans": (lambda: scene(GOOD) > 0.5, {}, UnitError, "astype"),
    "one band": (lambda: scene(GOOD[:1], ["red"]), {}, BandError, "missing: blue, green, nir"),
    "two bands of a name": (
        lambda: scene(GOOD).assign_coords(common_name=("band", ["red", "red", "green", "nir"])),
        {}, BandError, "select",
    ),
    "wavelengths in nm": (
        lambda: wavelengths("center_wavelength", [490.0, 560, 665, 842]), {}, UnitError, "expected µm"
    ),
    "edges in µm": (lambda: wavelengths("min_nm", [0.45, 0.54, 0.63, 0.76]), {}, UnitError, "expected nm"),
    "patch below 32": (lambda: scene(GOOD), {"patch_size": 16}, CloudMaskError, "patch_size=16.*exactly 256"),
    "patch between two that are taken": (
        lambda: scene(GOOD), {"patch_size": 60, "model": SEVERAL}, CloudMaskError,
        "patch_size=60.*multiples of 32 from 32 to 96",
    ),
    "patch beyond all that are taken": (
        lambda: scene(GOOD), {"patch_size": 128, "model": SEVERAL}, CloudMaskError, "patch_size=128.*32 to 96"
    ),
    "patch of a toy": (
        lambda: scene(GOOD), {"patch_size": 16, "model": testing.TOY}, CloudMaskError, "at least 32"
    ),
    "patch of another type": (lambda: scene(GOOD), {"patch_size": "256"}, CloudMaskError, "whole number"),
    "overlap as large as the patch": (lambda: scene(GOOD), {"overlap": 256}, CloudMaskError, "less than"),
    "negative overlap": (lambda: scene(GOOD), {"overlap": -1}, CloudMaskError, "at least 0"),
    "unknown model": (lambda: scene(GOOD), {"model": "ukis-4bnd-l1c"}, OptionError, "did you mean 'ukis"),
    "unknown device": (lambda: scene(GOOD), {"device": "gpus"}, OptionError, "did you mean 'gpu'"),
    "double precision": (lambda: scene(GOOD), {"dtype": "float64"}, OptionError, "unknown dtype 'float64'"),
    "unknown dtype": (lambda: scene(GOOD), {"dtype": "half"}, OptionError, "float16"),
    "a precision ONNX cannot change to": (
        lambda: scene(GOOD), {"dtype": "float16", "model": GRAPH}, CloudMaskError, "auto"
    ),
    "unknown scheme": (lambda: scene(GOOD), {"scheme": "binray"}, OptionError, "did you mean 'binary'"),
    "unknown resolution": (lambda: scene(GOOD), {"working_resolution": "30m"}, OptionError, "such as 30"),
    "negative batch": (lambda: scene(GOOD), {"batch_size": -1}, CloudMaskError, "above 0"),
    "threshold in percent": (lambda: scene(GOOD), {"threshold": 50}, CloudMaskError, "between 0 and 1"),
    "nodata of another dtype": (
        lambda: scene(COUNTS).cloudmask.describe(scale=1e-4), {"nodata": -9999}, UnitError, "uint16"
    ),
    "nodata as text": (lambda: scene(GOOD), {"nodata": "none"}, CloudMaskError, "must be a number"),
    "a mask of other size": (lambda: scene(GOOD), {"valid": ones(3)}, CloudMaskError, "reindex_like"),
    "a mask elsewhere": (
        lambda: scene(GOOD), {"valid": ones(64).assign_coords(x=np.arange(64.0))}, CloudMaskError, "'x'"
    ),
    "a mask in NumPy": (lambda: scene(GOOD), {"valid": np.ones((64, 64))}, CloudMaskError, "DataArray"),
    "scale of nothing": (
        lambda: scene(COUNTS).assign_coords(scale=0.0), {}, UnitError, "must be above 0"
    ),
    "nodata in the attributes that is text": (
        lambda: scene(GOOD).assign_attrs(nodata="none", level="toa"), {}, UnitError, "delete it"
    ),
    "a quality layer as valid": (
        lambda: scene(GOOD), {"valid": ones(64).astype("u1")}, CloudMaskError, r"quality == 0"
    ),
    "a threshold where nothing is cloud": (
        lambda: scene(GOOD), {"threshold": 0.5, "scheme": "native", "model": NO_CLOUD},
        CloudMaskError, "leave threshold",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", TABLE)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_message_names_the_remedy_and_nothing_is_computed(mistake, chunked, monkeypatch):
    make, options, error, words = TABLE[mistake]
    da = make()
    if chunked:  # coordinates stay as they are: they are told of pixels, and may be read
        da = da.copy(data=da.chunk().data.map_blocks(forbidden, dtype=da.dtype, meta=da.data.flat[:0]))
    monkeypatch.setattr(
        predictor.Predictor, "blend", lambda *args, **kwargs: pytest.fail("a window was inferred")
    )
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler), pytest.raises(error, match=words) as caught:
        da.cloudmask.predict(**options)
    assert isinstance(caught.value, ValueError)
    assert scheduler.computes == 0


def test_a_typo_in_an_argument_fails():
    with pytest.raises(OptionError, match="'treshold'; did you mean 'threshold'"):
        scene(GOOD).cloudmask.predict(treshold=0.5)


def test_all_nan_is_told_and_no_model_is_loaded(monkeypatch):
    monkeypatch.setattr(predictor.Predictor, "_load", lambda self: pytest.fail("loaded"))
    with pytest.warns(NoDataWarning, match="no pixel holds data.*nodata="):
        mask = scene(np.full_like(GOOD, np.nan)).cloudmask.predict()
    assert (mask == 255).all()
    with pytest.warns(NoDataWarning, match="no pixel holds data"):
        mask = scene(np.zeros_like(COUNTS)).cloudmask.describe(scale=1e-4).cloudmask.predict(nodata=0)
    assert (mask == 255).all()


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities_are_told_and_are_no_data(value):
    pixels = GOOD.copy()
    pixels[2, 5, 7] = value
    with pytest.warns(NoDataWarning, match="1 values are infinite"):
        mask = scene(pixels).cloudmask.predict(testing.TOY)
    assert (mask.values == 255).sum() == 1
    assert mask.values[5, 7] == 255
    lazy = scene(pixels).chunk(y=20).cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(lazy.values, mask.values)


def test_a_level_that_is_not_told_is_warned_of_at_the_users_line():
    with pytest.warns(UnitWarning, match="level is not told") as caught:
        scene(GOOD, level=None).chunk().cloudmask.predict()
    assert caught[0].filename == __file__


def test_a_pixel_size_that_is_not_known_is_warned_of():
    da = scene(GOOD).drop_vars(["y", "x"])
    with pytest.warns(UnitWarning, match="working_resolution='native'"):
        da.chunk().cloudmask.predict()


def test_floats_with_a_scale_that_was_not_applied_are_warned_of():
    da = scene(GOOD).assign_attrs(scale_factor=1e-4, level="toa")
    with pytest.warns(UnitWarning, match="delete the attributes"):
        da.chunk().cloudmask.predict()
    scaled = (da * 1e4).assign_attrs(da.attrs).cloudmask.describe(scale=1e-4).cloudmask.predict(testing.TOY)
    plain = scene(GOOD).cloudmask.predict(testing.TOY)
    assert (scaled == plain).mean() > 0.999


def test_a_sentinel2_baseline_without_its_offset_is_warned_of():
    da = scene(COUNTS).cloudmask.describe(scale=1e-4).assign_coords({"s2:processing_baseline": "05.09"})
    with pytest.warns(UnitWarning, match="offset=-0.1"):
        da.chunk().cloudmask.predict()
    for settled in (
        da.cloudmask.describe(scale=1e-4, offset=-0.1),
        da.assign_coords({"s2:processing_baseline": "03.01"}),
        da.assign_coords({"earthsearch:boa_offset_applied": True}),
    ):
        settled.chunk().cloudmask.predict()  # a warning would be an error


@pytest.mark.parametrize("chunks", [{"y": 64}, {"y": 7, "x": 11}, None])
def test_scaled_numbers_held_as_floats_are_refused_whatever_the_chunks(chunks):
    pixels = GOOD.copy()
    pixels[:, 10:60, 10:60] *= 1e4
    da = scene(pixels)
    with pytest.raises(UnitError, match=r"describe\(scale=0"):
        (da if chunks is None else da.chunk(chunks)).cloudmask.predict(testing.TOY).compute()


def test_bands_are_found_by_wavelength_and_by_the_sensors_names():
    by_name = scene(GOOD).cloudmask.predict()
    by_wavelength = wavelengths("center_wavelength", [0.49, 0.56, 0.665, 0.842])
    xr.testing.assert_equal(by_wavelength.cloudmask.predict().drop_attrs(), by_name.drop_attrs())
    own = xr.DataArray(GOOD, dims=("band", "y", "x"), coords={"band": ["B02", "B03", "B04", "B08"]})
    own = own.assign_coords(y=by_name.y, x=by_name.x).cloudmask.describe("sentinel-2", level="L1C")
    assert own.band.values.tolist() == ["B02", "B03", "B04", "B08"]
    np.testing.assert_array_equal(own.cloudmask.predict().values, by_name.values)
    with pytest.raises(BandError, match="none of the labels"):
        scene(GOOD, list("klmn")).cloudmask.describe("sentinel-2")
    with pytest.raises(CloudMaskError, match="the array has 4"):
        scene(GOOD).cloudmask.describe(bands=["red"])


@pytest.mark.parametrize(
    "bands",
    [
        ["red", "red", "green", "nir"],
        ["Red", "red", "green", "nir"],
        [Band("b"), "red", "RED", "red"],
        [Band("red"), "b", "c", "red"],
    ],
)
def test_bands_that_are_named_twice_are_refused(bands) -> None:
    bare = xr.DataArray(GOOD, dims=("band", "y", "x"))
    with pytest.raises(
        BandError,
        match=r"^bands=\[.*\] names '[Rr]ed' (twice|several times): give each band a name of its own",
    ):
        bare.cloudmask.describe(bands=bands)
    reddish = [Band("5", "rededge"), Band("6", "rededge"), "red", "nir"]  # two of a colour, not of a name
    assert bare.cloudmask.describe(bands=reddish).band.values.tolist() == ["5", "6", "red", "nir"]


def test_what_describe_says_of_nodata_replaces_the_attributes():
    da = (
        scene(COUNTS)
        .assign_attrs(_FillValue=5, level="toa")
        .cloudmask.describe(scale=1e-4, nodata=COUNTS[0, 3, 4])
    )
    mask = da.cloudmask.predict()
    assert mask.values[3, 4] == 255
    assert "_FillValue" not in da.attrs


def test_all_declared_numbers_and_the_named_one_mean_no_data():
    stored = COUNTS.copy()
    stored[:, 1, 1], stored[:, 2, 2], stored[:, 3, 3] = 11, 12, 13
    da = scene(stored).cloudmask.describe(scale=1e-4).assign_attrs(_FillValue=11, nodata=[12], level="toa")
    mask = da.cloudmask.predict(testing.TOY, nodata=13).values
    assert mask[1, 1] == mask[2, 2] == mask[3, 3] == 255
    assert (mask == 255).sum() == np.isin(stored[2:], [11, 12, 13]).any(axis=0).sum()


def test_gdals_lowest_double_beside_float32_is_no_data():
    pixels = GOOD.copy()
    pixels[:, 4, 4] = -np.inf
    da = scene(np.where(np.isinf(pixels), np.finfo("f4").min, pixels)).assign_attrs(
        _FillValue=np.finfo("f4").min, nodata=-1.797693e308, level="toa"
    )
    mask = da.cloudmask.predict(testing.TOY)
    assert np.argwhere(mask.values == 255).tolist() == [[4, 4]]


def test_one_band_without_data_is_told():
    pixels = GOOD.copy()
    pixels[0] = np.nan
    with pytest.warns(NoDataWarning, match="no pixel holds data in every band"):
        assert (scene(pixels).cloudmask.predict() == 255).all()


def test_valid_may_have_bands_and_other_chunks():
    keep = GOOD[0] > 0.2
    da = scene(GOOD).chunk(y=40)
    by_pixel = xr.DataArray(keep, dims=("y", "x")).chunk(y=33)
    mask = da.cloudmask.predict(testing.TOY, valid=by_pixel)
    assert mask.chunks == ((40, 24), (64,))
    np.testing.assert_array_equal(mask.values == 255, ~keep)
    by_band = scene(GOOD) > 0.05
    mask = da.cloudmask.predict(testing.TOY, valid=by_band.drop_vars(by_band.coords))
    np.testing.assert_array_equal(mask.values == 255, (GOOD <= 0.05).any(axis=0))


def test_units_are_not_applied_twice():
    counts = scene(COUNTS).cloudmask.describe(scale=1e-4)
    already = (counts * 1e-4).assign_attrs(level="toa")
    with pytest.raises(UnitError, match="applied already"):
        already.cloudmask.predict(testing.TOY)
    with pytest.raises(UnitError, match="applied already"):
        scene(COUNTS).cloudmask.describe(scale=1e-8).cloudmask.predict(testing.TOY)
    shifted = scene(COUNTS // 10).cloudmask.describe(scale=1e-4, offset=-0.2)
    with pytest.raises(UnitError, match="below -0"):
        (shifted * 1e-4 - 0.2).assign_attrs(level="toa").cloudmask.predict(testing.TOY)
    with pytest.raises(UnitError, match=r"scale=0\.01"):
        scene(GOOD * 100).cloudmask.predict(testing.TOY)
    held_as_floats = counts.astype("f4").cloudmask.predict(testing.TOY)
    np.testing.assert_array_equal(held_as_floats.values, counts.cloudmask.predict(testing.TOY).values)


def test_describe_keeps_the_figure_that_is_not_said():
    da = scene(COUNTS).cloudmask.describe(scale=1e-4).cloudmask.describe(offset=-0.1)
    assert (da["scale"].values == 1e-4).all()
    assert (da["offset"].values == -0.1).all()
    da = scene(COUNTS).assign_attrs(scale_factor=2e-4).cloudmask.describe(offset=-0.1)
    assert (da["scale"].values == 2e-4).all()


def test_feet_are_not_metres():
    feet = scene(GOOD).assign_coords(y=-32.808 * np.arange(64), x=32.808 * np.arange(64)).rio.write_crs(2263)
    mask = feet.chunk().cloudmask.predict(testing.TOY)
    assert mask.attrs["working_factors"] == [3, 3]
    assert mask.attrs["working_resolution_m"][0] == pytest.approx(30, abs=0.1)


def test_pixels_that_the_model_never_saw_are_told_of():
    coarse = scene(GOOD).assign_coords(y=-1000.0 * np.arange(64), x=1000.0 * np.arange(64)).chunk()
    with pytest.warns(UnitWarning, match="pixels are 1000 m and model 'toy' was trained on 20 to 40 m"):
        coarse.cloudmask.predict(testing.TOY)
    with pytest.warns(UnitWarning, match="finer than the pixels"):
        coarse.cloudmask.predict(testing.TOY, working_resolution=30)
    with pytest.warns(UnitWarning, match="bottom-of-atmosphere.*level='toa'"):
        scene(GOOD).chunk().cloudmask.predict("ukis-4band-l2a")


def test_a_threshold_may_be_a_numpy_number():
    scene(GOOD).chunk().cloudmask.predict(testing.TOY, threshold=np.float32(0.5))


def test_a_huge_working_cell_is_the_mean_of_all():
    assert len(np.unique(scene(GOOD).cloudmask.predict_proba(testing.TOY, working_resolution=90_000))) == 3


def test_a_band_that_is_nearly_a_known_one_is_told_of():
    with pytest.warns(UnitWarning, match="'nirr'.*did you mean 'nir'"):
        scene(GOOD, ["blue", "green", "red", "nirr"])


def test_other_writers_keep_no_data(tmp_path):
    import rasterio

    mask = scene(GOOD).cloudmask.predict(testing.TOY).rio.write_crs(32632)
    mask.rio.to_raster(tmp_path / "m.tif")
    with rasterio.open(tmp_path / "m.tif") as file:
        assert file.nodata == 255
    mask.to_zarr(tmp_path / "m.zarr", zarr_format=3, consolidated=False)
    back = xr.open_zarr(tmp_path / "m.zarr", consolidated=False).cloud_mask
    assert back.dtype == np.uint8
    import zarr

    assert zarr.open_array(tmp_path / "m.zarr" / "cloud_mask", mode="r").fill_value == 255


# --- fill values that nobody declared ---

FILLS: dict[str, tuple[str, float, dict[str, float]]] = {
    "float": ("f4", -9999.0, {}),
    "netCDF": ("f4", 9.96921e36, {}),
    "GDAL": ("f4", -3.4028234663852886e38, {}),
    "int16": ("i2", -9999, {"scale": 1e-4}),
    "int32": ("i4", -(2**31), {"scale": 1e-4}),
}


def with_gap(name: str, value: float, gap: np.ndarray) -> xr.DataArray:
    dtype, _, how = FILLS[name]
    da = scene(np.where(gap, value, GOOD / how.get("scale", 1.0)).astype(dtype))
    return da.cloudmask.describe(offset=0.0, **how) if how else da


@pytest.mark.parametrize("name", FILLS)
def test_an_undeclared_fill_value_is_no_data_and_is_named(name: str) -> None:
    """It would be cloud or clear by chance, and spoil what lies around it."""
    gap = np.zeros((64, 64), bool)
    gap[10:30, 5:50] = True
    dtype, fill, _ = FILLS[name]
    da = with_gap(name, fill, gap)
    declared = da.cloudmask.predict(testing.TOY, nodata=fill).values
    for one in (da, da.chunk(y=24, x=40)):
        with pytest.warns(NoDataWarning, match="are no reflectance") as told:
            mask = one.cloudmask.predict(testing.TOY).compute()
        np.testing.assert_array_equal(mask.values == 255, gap)
        np.testing.assert_array_equal(mask.values, declared)
    remedy = re.search(r"with nodata=(\S+);", str(told[0].message))
    assert remedy is not None
    said = float(remedy[1]) if dtype == "f4" else int(remedy[1])
    np.testing.assert_array_equal(da.cloudmask.predict(testing.TOY, nodata=said).values, declared)


def test_counts_without_a_scale_are_not_taken_for_fill_values() -> None:
    for count in (12_000, 40_000, 65_535):
        bright = scene(np.full((4, 64, 64), count, "f4"))
        for one in (bright, bright.chunk(y=32)):
            with pytest.raises(UnitError, match="half of the values are above"):
                one.cloudmask.predict(testing.TOY).compute()
