"""A window that is cloud all over stays cloud, saturated or not; a pixel of garbage harms none beside it."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.scenes import NAMES, scene, weather
from xcloudmask.testing import LOCAL

BIOME = Path(__file__).parents[2] / "../shared/data/train/l8_biome"
#: Wholly cloud by the labels of USGS's analysts; the share of it that a model must see.
CLOUDY = {"Barren_10_0206": 0.99, "GrassCrops_00_1014": 0.99, "Urban_01_0609": 0.9}

here = pytest.mark.skipif(not BIOME.exists(), reason="no ../shared/data: cloudy patches of L8 Biome")


def patch(name: str) -> np.ndarray:
    with np.load(BIOME / f"{name}.npz") as file:
        bands = list(file["bands"])
        places = [bands.index("nir08" if wanted == "nir" else wanted) for wanted in NAMES]
        return file["image"][places].astype("f4") / 1e4


def cloudy(mask: xr.DataArray) -> float:
    return float(mask.isin([1, 2]).mean())


@here
@pytest.mark.parametrize("name", CLOUDY)
def test_real_windows_that_are_all_cloud_stay_so(name: str) -> None:
    assert cloudy(scene(patch(name), NAMES).cloudmask.predict("ukis-any-l1c")) >= CLOUDY[name]


def mosaic() -> np.ndarray:
    """Pieces of thick cloud: no ground anywhere, and edges that no cloud has."""
    pieces = [patch(name)[:, y : y + 64, x : x + 64] for name in CLOUDY for y in (0, 96) for x in (40, 150)]
    rows = [
        np.concatenate([pieces[(4 * row + column) % 12] for column in range(4)], axis=2) for row in range(4)
    ]
    return np.concatenate(rows, axis=1)


@here
def test_a_mosaic_of_pieces_of_thick_cloud_is_cloud() -> None:
    """A quarter, of pieces that are darker than those beside them, passes for their shadow or for ground."""
    assert cloudy(scene(mosaic(), NAMES).cloudmask.predict("ukis-any-l1c")) > 0.7


@here
@pytest.mark.filterwarnings("ignore:many pixels")
@pytest.mark.parametrize("name", ["GrassCrops_00_1014", "mosaic"])
def test_saturated_cloud_is_cloud_unasked(name: str) -> None:
    """Flat tops look like nothing that a network has seen: alone it calls nearly all of the patch clear."""
    pixels = mosaic() if name == "mosaic" else patch(name)
    bright = np.minimum(2 * pixels, np.float32(1.2))
    full = (bright[:3] == np.float32(1.2)).all(axis=0)
    assert full.mean() > 0.5
    alone = scene(bright, NAMES).cloudmask.predict("ukis-any-l1c", saturation=None)
    mask = scene(bright, NAMES).cloudmask.predict("ukis-any-l1c")
    assert name == "mosaic" or np.isin(alone.values[full], (1, 2)).mean() < 0.1
    assert (mask.values[full] == 1).all()
    np.testing.assert_array_equal(mask.values[~full], alone.values[~full])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("garbage", [1e4, 1e30, -1e4, 7.0])
def test_garbage_in_a_pixel_is_as_bright_as_it_gets_or_no_data(garbage: float) -> None:
    """Bit by bit the answer to the scene with a gap, or with the brightest reflectance, in its place."""
    pixels = weather(70, 80, 1).clip(0, 1)
    spoilt, stands_for = pixels.copy(), pixels.copy()
    spoilt[0, 33, 44], stands_for[0, 33, 44] = garbage, 3.0 if garbage == 7 else np.nan
    found, wanted = (scene(each, ["red"]).cloudmask.predict_proba(LOCAL) for each in (spoilt, stands_for))
    np.testing.assert_array_equal(found.values, wanted.values)
    sane = scene(pixels, ["red"]).cloudmask.predict_proba(LOCAL)
    assert np.isfinite(sane.values).all()
    far = np.abs(np.arange(80) - 44) > 30
    np.testing.assert_array_equal(found.values[..., far], sane.values[..., far])
