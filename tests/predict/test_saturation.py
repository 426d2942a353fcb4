"""Pixels at a declared ceiling are cloud, and unasked those that no ground can be; nothing else changes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask
from tests.scenes import chunks, same_answer, scene, weather
from xcloudmask.errors import BandError, CloudMaskError, OptionError, UnitError
from xcloudmask.models import registry
from xcloudmask.testing import ANY_BANDS, TOY

NAMES = ["blue", "green", "red", "nir"]
SNOW = "val/l8_38cloud/54_3_by_10_LC08_L1TP_064017_20160420_20170223_01_T1.npz"
VISIBLE = "blue 1.2, green 1.2, red 1.2"
PUBLISHED = Path(__file__).parents[2] / "../shared/published"
SHADOWS = Path(__file__).parents[2] / "../shared/data/train/s2_shadow_alberta"
#: Visible bands that end at 0.4, and one that does not.
PIXELS = weather(96, 120, bands=4)
PIXELS[:3] = PIXELS[:3].clip(max=0.4)
FULL = (PIXELS[:3] == np.float32(0.4)).all(axis=0)
assert 0.02 < FULL.mean() < 0.5
FOUR = replace(TOY, name="toy-four", bands=tuple(NAMES))

pytestmark = pytest.mark.filterwarnings("ignore:many pixels")


def clipped(dtype: str = "f4") -> xr.DataArray:
    if dtype == "f4":
        return scene(PIXELS, NAMES)
    stored = (PIXELS * 1e4 + 1000).round().astype(dtype)
    return scene(stored, NAMES).cloudmask.describe(scale=1e-4, offset=-0.1)


def code_of(mask: xr.DataArray, name: str) -> int:
    return dict(zip(mask.flag_meanings.split(), mask.flag_values, strict=True))[name]


@pytest.mark.parametrize("dtype", ["f4", "u2"])
@pytest.mark.parametrize("how", [{}, {"scheme": "binary"}, {"scheme": "native"}, {"threshold": 0.9}])
def test_saturated_pixels_are_cloud_and_no_other_pixel_changes(dtype: str, how: dict[str, Any]) -> None:
    da = clipped(dtype)
    as_it_was = da.cloudmask.predict(FOUR, **how)
    mask = da.cloudmask.predict(FOUR, saturation=0.4, **how)
    cloud = code_of(mask, "cloud")
    assert (mask.values[FULL] == cloud).all()
    assert (as_it_was.values[FULL] != cloud).any(), "the toy sees cloud there anyway: this shows nothing"
    np.testing.assert_array_equal(mask.values[~FULL], as_it_was.values[~FULL])
    assert mask.attrs["saturation"] == "blue 0.4, green 0.4, red 0.4"
    assert as_it_was.attrs["saturation"] == VISIBLE
    assert as_it_was.attrs["saturation_alike"] == 1
    assert "saturation_alike" not in mask.attrs


def test_probabilities_move_to_thick_cloud_but_snow_stays_snow() -> None:
    da = clipped()
    before = da.cloudmask.predict_proba(ANY_BANDS, scheme="native")
    after = da.cloudmask.predict_proba(ANY_BANDS, scheme="native", saturation=0.4)
    inside = after.transpose("class", ...).values[:, FULL]
    snow = before.sel({"class": "snow"}).values[FULL]
    names = after["class"].values.tolist()
    np.testing.assert_array_equal(inside[names.index("snow")], snow)
    np.testing.assert_allclose(inside[names.index("thick_cloud")], 1 - snow, atol=1e-6)
    np.testing.assert_array_equal(after.values[:, ~FULL], before.values[:, ~FULL])


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_chunks_do_not_matter(data: st.DataObject) -> None:
    da = clipped()
    lazy = da.chunk(y=data.draw(chunks(96)), x=data.draw(chunks(120)))
    same_answer(
        lazy.cloudmask.predict(FOUR, saturation=0.4).compute(), da.cloudmask.predict(FOUR, saturation=0.4)
    )


def test_a_store_holds_the_same_mask_and_refuses_another_ceiling(tmp_path: Path) -> None:
    da = clipped().chunk(y=50, x=60)
    mask = da.cloudmask.predict(FOUR, saturation=0.4)
    xcloudmask.stream(da, tmp_path / "a.zarr", predict={"model": FOUR, "saturation": 0.4}, progress=False)
    same_answer(xr.open_zarr(tmp_path / "a.zarr").cloud_mask.compute(), mask.compute())
    with pytest.raises(
        xcloudmask.errors.ContractError, match=r"saturation: 'blue 0\.4, .* 'blue 1\.2, .* in this call"
    ):
        xcloudmask.stream(da, tmp_path / "a.zarr", predict={"model": FOUR}, progress=False)


def test_a_gap_is_no_cloud() -> None:
    """Though its number, as reflectance, would be above the ceiling."""
    da = clipped("u2").copy()
    da[:, :5] = 65_535
    mask = da.cloudmask.predict(FOUR, nodata=65_535, saturation={"blue": 0.4, "nir": 0.2})
    assert (mask[:5] == 255).all()
    both = (PIXELS[0] == np.float32(0.4)) & (PIXELS[3] >= 0.2)
    assert (mask.values[5:][both[5:]] == code_of(mask, "cloud")).all()
    assert mask.attrs["saturation"] == "blue 0.4, nir 0.2"


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ({"saturation": 4000}, UnitError, "saturation=4000 must be a reflectance"),
        ({"saturation": 0}, UnitError, "above 0"),
        ({"saturation": True}, UnitError, "above 0"),
        ({"saturation": "0.4"}, UnitError, "mapping such as"),
        ({"saturation": {"blue": float("nan")}}, UnitError, "above 0"),
        ({"saturation": {"bleu": 0.4}}, OptionError, "did you mean 'blue'"),
        (
            {"saturation": 0.4, "model": replace(TOY, name="no-cloud", classes=("a", "b", "c")),
             "scheme": "native"},
            CloudMaskError, "leave saturation out",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(how: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        clipped().chunk().cloudmask.predict(**{"model": FOUR, **how})


def test_a_model_without_visible_bands_is_refused() -> None:
    infrared = replace(TOY, name="toy-infrared", bands=("nir", "swir16"))
    da = scene(PIXELS[:2], ["nir", "swir16"])
    with pytest.raises(BandError, match="visible bands, and the model is given nir, swir16"):
        da.cloudmask.predict(infrared, saturation=0.4)


def test_a_declared_ceiling_is_not_warned_of(recwarn: pytest.WarningsRecorder) -> None:
    clipped().cloudmask.predict(FOUR, saturation=0.4)
    assert not [w for w in recwarn if "many pixels of a band" in str(w.message)]
    with pytest.warns(UserWarning, match=r"its brightest.* saturation=0\.4: where every visible band"):
        clipped().cloudmask.predict(FOUR)


def flat(dtype: str = "f4") -> tuple[xr.DataArray, np.ndarray]:
    """A scene of which one corner is full, and another is as bright but not even; and the full pixels."""
    pixels = weather(96, 120, bands=4).clip(0.01, 1.1)
    pixels[:, :30, :40] = 1.3
    pixels[:, 60:, 80:] = 1.3 + 0.001 * np.arange(4)[:, None, None]
    full = np.zeros((96, 120), bool)
    full[:30, :40] = True
    if dtype == "f4":
        return scene(pixels, NAMES), full
    stored = (pixels * 1e4 + 1000).round().astype(dtype)
    return scene(stored, NAMES).cloudmask.describe(scale=1e-4, offset=-0.1), full


@pytest.mark.parametrize("dtype", ["f4", "u2", "f8"])
def test_unasked_only_what_is_alike_in_all_visible_bands_is_cloud(dtype: str) -> None:
    da, full = flat(dtype)
    alone = da.cloudmask.predict(FOUR, saturation=None)
    mask = da.cloudmask.predict(FOUR)
    assert (alone.attrs.get("saturation"), mask.attrs["saturation"]) == (None, VISIBLE)
    assert mask.attrs["saturation_alike"] == 1
    assert (alone.values[full] != 1).any(), "the toy sees cloud there anyway: this shows nothing"
    assert (mask.values[full] == 1).all()
    np.testing.assert_array_equal(mask.values[~full], alone.values[~full])
    assert (da.cloudmask.predict(FOUR, saturation=1.2).values[60:, 80:] == 1).all()


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_unasked_chunks_do_not_matter_either(data: st.DataObject) -> None:
    da, _ = flat("u2")
    lazy = da.chunk(y=data.draw(chunks(96)), x=data.draw(chunks(120)))
    same_answer(lazy.cloudmask.predict(FOUR).compute(), da.cloudmask.predict(FOUR))


def test_who_is_not_asked_unasked() -> None:
    """A published system, a model without cloud, one visible band alone: they answer as they would."""
    da, full = flat()
    for model in (
        replace(FOUR, name="published", family="somebody's"),
        replace(FOUR, name="no-cloud", classes=("a", "b", "c")),
        replace(FOUR, name="toy-two", bands=("red", "nir")),
    ):
        how = {"model": model, "scheme": "native"}
        mask = da.cloudmask.predict(**how)
        assert "saturation" not in mask.attrs
        np.testing.assert_array_equal(mask, da.cloudmask.predict(saturation=None, **how))
    published = da.cloudmask.predict(replace(FOUR, name="published", family="x"), saturation=1.2)
    assert (published.values[full] == 1).all()


@pytest.mark.parametrize("place", ["fdr4vgt/single_new.json", "exported"])
def test_a_model_that_came_as_a_file_answers_as_it_is(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an item or a card nothing tells whose system it is."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))
    path = PUBLISHED / place
    if place == "exported":
        path = xcloudmask.models.export("sensei", tmp_path)[-1]
    elif not path.exists():
        pytest.skip("no ../shared/published: the item of a published system")
    spec = xcloudmask.models.load(path, name="a-file")
    da, _ = flat()
    da = da.cloudmask.describe(bands=list(spec.bands or NAMES))
    assert "saturation" not in da.cloudmask.predict(spec).attrs
    assert "saturation" not in da.cloudmask.predict(str(path)).attrs
    assert da.cloudmask.predict(spec, saturation=1.2).attrs["saturation"].startswith("blue 1.2")
    if place == "exported":
        assert da.cloudmask.predict("sensei").attrs["saturation_alike"] == 1


@pytest.mark.parametrize("number", [32_767, 65_535])
@pytest.mark.parametrize("scale", [1e-4, 2.75e-5])
def test_a_fill_value_that_nobody_declared_is_no_cloud_unasked(
    number: int, scale: float, recwarn: pytest.WarningsRecorder
) -> None:
    """It is named, and the model answers; what is full beside it stays cloud."""
    da, full = flat("u2")
    stored = np.rint((da.values.astype(float) * 1e-4 - 0.1 + 0.2) / scale).clip(0, 60_000).astype("u2")
    stored[:, 48:60, :12] = number
    da = scene(stored, NAMES).cloudmask.describe(scale=scale, offset=-0.2)
    mask, alone = (da.cloudmask.predict(FOUR, saturation=each).values for each in ("auto", None))
    reaches = number * scale - 0.2 >= 1.2
    assert reaches == (da.cloudmask.predict(FOUR, saturation=1.2).values[48:60, :12] == 1).all()
    np.testing.assert_array_equal(mask[~full], alone[~full])
    assert (mask[full] == 1).all()
    assert any(f"{number} in every band are taken as reflectance" in str(w.message) for w in recwarn)


@pytest.mark.parametrize("dtype", ["f2", "u1"])
def test_in_coarse_steps_bright_ground_is_no_cloud_unasked(dtype: str) -> None:
    """There, bands of uneven ground come to hold one number by chance."""
    pixels = weather(96, 120, bands=4).clip(0.01, 1.1)
    ground = np.random.default_rng(3)
    pixels[:, :48] = ground.uniform(1.2, 1.6, (48, 120)) + ground.normal(0, 0.003, (4, 48, 120))
    da = scene(pixels.astype(dtype), NAMES)
    if dtype == "u1":
        da = scene(np.rint(pixels * 100).astype(dtype), NAMES).cloudmask.describe(scale=0.01, offset=0)
    held = da.values[:3, :48]
    assert ((held == held[:1]).all(axis=0) & (pixels[0, :48] > 1.25)).any(), (
        "none is alike: this shows nothing"
    )
    mask = da.cloudmask.predict(FOUR)
    assert "saturation" not in mask.attrs
    np.testing.assert_array_equal(mask, da.cloudmask.predict(FOUR, saturation=None))
    assert da.cloudmask.predict(FOUR, saturation=1.2).attrs["saturation"] == "blue 1.2, green 1.2, red 1.2"


def test_what_is_cloud_unasked_is_told(recwarn: pytest.WarningsRecorder) -> None:
    da, _ = flat()
    da.cloudmask.predict(FOUR)
    (said,) = [str(warning.message) for warning in recwarn if "many pixels" in str(warning.message)]
    assert "taken as saturated cloud" in said
    assert "saturation=None" in said
    # each band full at another number: not known for saturation unasked, and warned of as ever
    uneven = scene(PIXELS * np.array([3.25, 3.25, 3.4, 3], "f4")[:, None, None], NAMES)
    with pytest.warns(UserWarning, match=r"exactly 1\.3, its brightest"):
        uneven.cloudmask.predict(FOUR)


@pytest.mark.skipif(not SHADOWS.exists(), reason="no ../shared/data: real snow on slopes")
def test_bright_snow_is_no_cloud_unasked() -> None:
    """Snow on slopes that face the sun (Alaska, April) is as bright as saturated cloud, and never so even."""
    with np.load(SHADOWS.parents[1] / SNOW) as file:
        stored, possible = file["image"], file["possible"]
    da = scene((stored / 1e4).astype("f4"), NAMES)
    bright = (stored[:3] >= 12_000).all(axis=0)
    assert bright.sum() > 400
    assert not (possible[bright] & 6).any()
    alone, mask, declared = (
        da.cloudmask.predict("ukis-4band-l1c", nodata=65535, saturation=each).values
        for each in (None, "auto", 1.2)
    )
    np.testing.assert_array_equal(mask, alone)
    assert (declared[bright] == 1).all()


@pytest.mark.skipif(not SHADOWS.exists(), reason="no ../shared/data: real Sentinel-2 clipped at 0.4")
def test_clouds_of_a_clipped_series_are_no_rings() -> None:
    """Layton et al.'s series: of the saturated pixels of 15 June, the model alone calls two thirds clear."""
    stored = np.load(SHADOWS / "2020-06-15.npz")["image"]
    da = scene(np.where(stored == 65535, np.nan, stored / 1e4).astype("f4"), NAMES, level="L2A")
    full = (stored[:3] == 4000).all(axis=0)
    before = da.cloudmask.predict("ukis-4band-l2a", nodata=0).values
    mask = da.cloudmask.predict("ukis-4band-l2a", nodata=0, saturation=0.4).values
    assert full.sum() > 10_000
    assert (before[full] == 0).mean() > 0.5
    assert (mask[full] == 1).all()
    np.testing.assert_array_equal(mask[~full], before[~full])
