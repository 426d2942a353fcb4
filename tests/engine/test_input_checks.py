"""Numbers that cannot be reflectance are refused, and those that may not be are named."""

import numpy as np
import pytest
import xarray as xr

from tests.scenes import noise, scene, weather
from xcloudmask import testing
from xcloudmask.engine.input_checks import check_units
from xcloudmask.errors import ModelWarning, UnitError, UnitWarning
from xcloudmask.testing import TOY
from xcloudmask.types import Calibration

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


def test_what_a_scale_makes_of_fill_is_no_reflectance() -> None:
    """0 x 0.0001 - 0.1 in single precision lies below -0.1 by a rounding."""
    pixels = weather(64, 64, bands=2)
    pixels[:, :40] = np.float32(-0.1)
    with pytest.raises(UnitError, match=r"half of the values are below -0\.1"):
        scene(pixels, ["red", "nir"]).cloudmask.predict(TOY)
    with pytest.raises(UnitError, match=r"half of the values are above 5\.5"):
        scene(np.full((2, 64, 64), 5.5, np.float32), ["red", "nir"]).cloudmask.predict(TOY)
