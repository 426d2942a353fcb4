"""Numbers that cannot be reflectance are refused, and those that may not be are named."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.scenes import noise, scene, weather
from xcloudmask import testing
from xcloudmask.engine.input_checks import check_units, name_wrong_order
from xcloudmask.errors import ModelWarning, UnitError, UnitWarning
from xcloudmask.testing import TOY
from xcloudmask.train.files import find
from xcloudmask.types import Calibration, ModelSpec

DATA = Path(__file__).parents[2] / "../shared/data"

REFLECTANCE = 0.02 + 0.5 * noise(2, 64, 64)


@pytest.mark.parametrize("offset", [-0.1, -0.05, 0.0])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_scale_and_an_offset_that_were_applied_already(offset: float, lazy: bool) -> None:
    """The median is just above -0.1: it is the spread that tells."""
    da = scene(REFLECTANCE, ["red", "nir"]).cloudmask.describe(scale=1e-4, offset=offset)
    da = da.chunk(y=30) if lazy else da
    with pytest.raises(UnitError, match="applied already"):
        da.cloudmask.predict(TOY).compute()


def test_dark_water_with_an_offset_is_no_double_offset() -> None:
    stored = (1000 + 30 * noise(2, 64, 64)).astype("u2")
    da = scene(stored, ["red", "nir"]).cloudmask.describe(scale=1e-4, offset=-0.1)
    assert (da.cloudmask.predict(TOY) != 255).all()


def test_no_hint_gives_a_figure_for_the_offset() -> None:
    """It is 0 or -0.1 for Sentinel-2, and the numbers do not tell which."""
    with pytest.raises(
        UnitError, match=r"scale=0\.0001, offset=\.\.\.\).*-0\.1 from processing baseline"
    ) as why:
        check_units(np.full((2, 8, 8), 3000.0, "f4"), Calibration())
    assert "offset=0.0" not in str(why.value)
    with pytest.raises(UnitError, match="nothing tells their scale") as why:
        scene((REFLECTANCE * 1e4).astype("u2"), ["red", "nir"]).cloudmask.predict(TOY)
    assert "offset=0.0" not in str(why.value)


@pytest.mark.parametrize("dtype", ["f4", "u2"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_visible_ceiling_is_named(dtype: str, lazy: bool) -> None:
    pixels = weather(256, 256, bands=4).clip(max=0.4)
    names = ["blue", "green", "red", "nir"]
    da = scene(pixels, names)
    if dtype == "u2":
        da = scene((pixels * 1e4).round().astype("u2"), names).cloudmask.describe(scale=1e-4, offset=0.0)
    da = da.chunk(y=128) if lazy else da
    with pytest.warns(UnitWarning, match=r"many pixels of a band are exactly 0\.4, its brightest"):
        da.cloudmask.predict(TOY).compute()


@pytest.mark.parametrize(
    ("dtype", "top", "percent"), [("u1", 250, False), ("f4", 250, False), ("f4", 90, True)]
)
def test_a_picture_of_8_bits_is_called_one(dtype: str, top: float, percent: bool) -> None:
    pixels = (10 + (top - 10) * noise(2, 64, 64)).astype(dtype)
    da = scene(pixels, ["red", "nir"])
    for one in (da, da.chunk(y=32)):
        with pytest.raises(UnitError, match=r"8-bit picture, which is no reflectance.*scale=0\.00392") as why:
            one.cloudmask.predict(TOY).compute()
        assert "0.0001" not in str(why.value)
        assert ("scale=0.01" in str(why.value)) == percent
    da.cloudmask.describe(scale=1 / 255, offset=0).cloudmask.predict(TOY)
    with pytest.raises(UnitError, match=r"scale=0\.0001"):  # counts, the brightest of which are more
        check_units(np.full((2, 8, 8), 300.0, "f4"), Calibration())


def test_no_ceiling_where_there_is_none() -> None:
    """Warnings are errors: natural brightness, one flat field, and coarse steps are no ceiling."""
    pixels = weather(256, 256, bands=4)[[2, 3]]
    steps = (pixels * 60).round() / 60
    flat = np.full_like(pixels, 0.3)
    half = flat.copy()
    half[:, :100] = 0.6
    for each in (pixels, steps, flat, half):
        scene(each.astype("f4"), ["red", "nir"]).cloudmask.predict(TOY)


def test_a_network_that_answers_nothing_in_a_later_batch_is_reported() -> None:
    """Only the first batch is looked at while it is inferred."""
    pixels = np.full((1, 32 * 20, 64), 0.4, np.float32)
    pixels[0, 600:610, 20:30] = 0.9  # ANSWERS_NAN answers NaN above 0.8
    da = scene(pixels, ["red"])
    with pytest.warns(ModelWarning, match="not finite .*for pixels that hold data") as told:
        mask = da.cloudmask.predict(testing.ANSWERS_NAN, batch_size=2)
    assert len(told) >= 1
    assert int((mask == 255).sum()) == 100


def test_evidence_in_coordinates_counts_for_floats_that_are_scaled() -> None:
    def told(dtype: str, offset: float, **coords: object) -> xr.DataArray:
        stored = (np.maximum(REFLECTANCE - offset, 0.01) * 1e4).astype(dtype)
        da = scene(stored, ["red", "nir"]).cloudmask.describe(scale=1e-4, offset=offset)
        return da.assign_coords({key.replace("__", ":"): value for key, value in coords.items()})

    for dtype in ("u2", "f4"):
        with pytest.warns(UnitWarning, match=r"baseline 05\.10 .*none is declared"):
            told(dtype, 0.0, s2__processing_baseline="05.10").cloudmask.predict(TOY)
        with pytest.warns(UnitWarning, match=r"offset of -0\.1 is declared.*boa_offset_applied"):
            told(
                dtype, -0.1, s2__processing_baseline="05.10", earthsearch__boa_offset_applied=True
            ).cloudmask.predict(TOY)
        with pytest.warns(UnitWarning, match=r"offset of -0\.1 is declared.*baseline 02\.14 .*without one"):
            told(dtype, -0.1, s2__processing_baseline="02.14").cloudmask.predict(TOY)
        told(dtype, -0.1, s2__processing_baseline="05.10").cloudmask.predict(TOY)
        done = told(dtype, 0.0, s2__processing_baseline="05.10", earthsearch__boa_offset_applied=True)
        done.cloudmask.predict(TOY)


def plants_and_sea(bare: float = 0.5) -> np.ndarray:
    """Blue, green, red and near infrared of a coast: plants below, water above."""
    surfaces = np.array([[0.11, 0.08, 0.05, 0.02], [0.05, 0.08, 0.05, 0.40]], "f4")
    inland = np.arange(64)[:, None] >= 64 * bare
    return np.where(inland, surfaces[1][:, None, None], surfaces[0][:, None, None]) + 0.02 * noise(4, 64, 64)


NAMES = ["blue", "green", "red", "nir"]
FOUR = replace(TOY, name="toy-four", bands=tuple(NAMES))


@pytest.mark.parametrize(
    "stored", [NAMES[::-1], ["nir", "red", "blue", "green"], ["blue", "nir", "green", "red"]]
)
@pytest.mark.parametrize("model", [FOUR, testing.ANY_BANDS])
@pytest.mark.parametrize("lazy", [False, True])
def test_near_infrared_in_the_place_of_a_visible_band_is_named(
    stored: list[str], model: ModelSpec, lazy: bool
) -> None:
    pixels = plants_and_sea()[[NAMES.index(name) for name in stored]]
    da = scene((pixels * 1e4 + 1000).astype("u2"), NAMES).cloudmask.describe(scale=1e-4, offset=-0.1)
    place = NAMES[stored.index("nir")]
    with pytest.warns(
        UnitWarning, match=rf"described as {place} .*out of order.*describe\(bands=\[\.\.\.\]\)"
    ):
        (da.chunk(y=40) if lazy else da).cloudmask.predict(model).compute()


def test_bands_in_their_order_and_what_cannot_be_told_pass() -> None:
    """No pixel gives a wrong order away among visible bands, without plants, or without near infrared."""
    for pixels, names in (
        (plants_and_sea(), NAMES),
        (plants_and_sea()[[2, 1, 0, 3]], NAMES),
        (plants_and_sea(bare=0.95)[::-1], NAMES),
        (plants_and_sea(bare=1)[::-1], NAMES),
        (noise(4, 64, 64), NAMES),
        (noise(3, 64, 64), ["blue", "red", "nir"]),
        (plants_and_sea()[::-1], ["blue", "green", "red", "rededge078"]),
    ):
        scene(pixels, names).cloudmask.predict(testing.ANY_BANDS)


@pytest.mark.skipif(not (DATA / "val").exists(), reason="no ../shared/data: real scenes")
def test_no_real_scene_in_its_order_is_named() -> None:
    """Among them sea, snow, cloud and desert; reversed, plants give many of them away."""
    reversed_is_named = 0
    for entry in find(DATA / "val"):
        sample = entry.read() if entry.path.suffix == ".npz" else None
        names = [] if sample is None else [band.common_name for band in sample.bands]
        if sample is None or not {"blue", "green", "red"} < set(names):
            continue
        places = [names.index(name) for name in ("blue", "green", "red")]
        places.append(names.index("nir08" if "nir08" in names else "nir"))
        values = sample.image[places]
        values = values[:, np.isfinite(values).all(axis=0)]
        name_wrong_order(values, NAMES)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            name_wrong_order(values[::-1], NAMES)
        reversed_is_named += bool(caught)
    assert reversed_is_named >= 3
