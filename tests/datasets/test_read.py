"""Published datasets, each in a small copy of its layout: images, labels bit by bit, wrong folders."""

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.samples import MAKERS, Expected
from tests.local.conftest import write_raster
from xcloudmask import datasets
from xcloudmask.datasets.radiometry import from_scene, wrs2_centre
from xcloudmask.errors import CloudMaskError, OptionError, UnitError, UnitWarning
from xcloudmask.train.samples import from_xarray

#: Datasets that do not tell what reflectance a number stands for.
SCALE = {"gf1-whu": 1e-3, "cloudperu2": 1e-3}


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[Expected]]]:
    root = tmp_path_factory.mktemp("datasets")
    return {name: (root / name, maker(root / name / "copy")) for name, maker in MAKERS.items()}


def test_every_dataset_has_its_sample() -> None:
    assert set(MAKERS) == set(datasets.names())


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_bands_level_scale_and_labels_bit_by_bit(name: str, copies: dict) -> None:
    folder, expected = copies[name]
    declared = datasets.get(name)
    found = list(datasets.read(name, folder / "copy", scale=SCALE.get(name)))
    found.sort(key=lambda each: each.split)  # the order of parts is that of their files
    expected = sorted(expected, key=lambda each: each.split)
    assert [(one.scene, one.split) for one in found] == [(each.scene, each.split) for each in expected]
    assert len({one.name for one in found}) == len(found)
    for one, each in zip(found, expected, strict=True):
        assert one.image.dims == ("band", "y", "x")
        assert one.image.attrs["level"] == "toa"
        assert one.image.attrs["sensor"].startswith(declared.sensor)
        np.testing.assert_array_equal(one.labels.values, each.bits)
        assert one.labels.dtype == np.uint8
        sample = from_xarray(one.image, one.labels)
        assert len(sample.bands) == len(declared.bands)
        assert sample.gsd == pytest.approx(declared.gsd)
        at = (1, 1) if one.spatial else (1, 0)
        pixel = {band.common_name: float(sample.image[(i, *at)]) for i, band in enumerate(sample.bands)}
        tolerance = 0.01 if declared.figures == "scene" else 1e-3
        for band, value in each.pixel.items():
            assert pixel[band] == pytest.approx(value, rel=tolerance), band
        gone = np.isnan(sample.image).all(axis=0)
        np.testing.assert_array_equal(gone, np.zeros(gone.shape) if each.empty is None else each.empty)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_wrong_folder_is_refused_with_the_layout_expected(name: str, tmp_path: Path, copies: dict) -> None:
    other = "sparcs" if name != "sparcs" else "l8-biome"
    for folder in (tmp_path, copies[other][0] / "copy"):
        with pytest.raises(CloudMaskError, match=f"holds nothing of {name}. Expected is") as error:
            list(datasets.read(name, folder, scale=1.0))
        assert datasets.get(name).layout in str(error.value)
    with pytest.raises(CloudMaskError, match="there is no folder"):
        list(datasets.read(name, tmp_path / "none", scale=1.0))


def test_a_split_is_part_of_it(copies: dict) -> None:
    folder = copies["cloudsen12"][0] / "copy"
    assert [one.scene for one in datasets.read("cloudsen12", folder, split="test")] == ["ROI_test_0"]
    with pytest.raises(OptionError, match="Allowed: train, val, test"):
        list(datasets.read("cloudsen12", folder, split="validation"))
    with pytest.raises(CloudMaskError, match="sparcs is published without a split"):
        list(datasets.read("sparcs", folder, split="test"))
    with pytest.raises(CloudMaskError, match="holds nothing of the part 'val' of cloudsen12plus"):
        list(datasets.read("cloudsen12plus", copies["cloudsen12plus"][0] / "copy", split="val"))


def test_numbers_of_unknown_meaning_are_refused(copies: dict) -> None:
    with pytest.raises(UnitError, match="pass scale="):
        list(datasets.read("gf1-whu", copies["gf1-whu"][0] / "copy"))


def test_whole_scenes_are_lazy(copies: dict) -> None:
    for name in ("gf1-whu", "alcd", "l8-biome", "pixbox-s2"):
        one = next(iter(datasets.read(name, copies[name][0] / "copy", scale=SCALE.get(name))))
        assert one.image.chunks is not None, name
        assert one.image.rio.crs.to_epsg() == 32632
        assert float(one.image.x[0]) > 600000


def test_a_mask_of_a_part_of_its_product_lies_where_it_should(tmp_path: Path) -> None:
    MAKERS["alcd"](tmp_path)
    path = next(tmp_path.rglob("classification_map.tif"))
    write_raster(path, np.array([[5, 6], [7, 4]], "u1"), size=60.0, left=600060.0, top=4899960.0)
    (one,) = datasets.read("alcd", tmp_path)
    assert one.labels.values.tolist() == [[0, 0, 0, 0], [0, 17, 33, 0], [0, 65, 8, 0], [0, 0, 0, 0]]


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_products_that_are_not_there_are_named(tmp_path: Path) -> None:
    MAKERS["alcd"](tmp_path)
    name = "S2A_MSIL1C_20171002T094031_N0205_R036_T34RGS_20171002T094035"
    (tmp_path / "products" / f"{name}.SAFE").rename(tmp_path / "products" / "elsewhere")
    with (
        pytest.warns(UnitWarning, match=f"1 labelled products are not in .*{name}"),
        pytest.raises(CloudMaskError),
    ):
        list(datasets.read("alcd", tmp_path))


def test_damaged_copies_say_what_is_wrong(tmp_path: Path) -> None:
    MAKERS["cloudsen12"](tmp_path / "a")
    with (tmp_path / "a" / "val" / "L1C_B4.dat").open("ab") as file:
        file.write(b"xx")
    with pytest.raises(CloudMaskError, match=r"L1C_B4.dat: its size is not that of 1 patches of 512 by 512"):
        list(datasets.read("cloudsen12", tmp_path / "a", split="val"))
    MAKERS["38-cloud"](tmp_path / "b")
    next((tmp_path / "b").rglob("red_patch_1_*")).unlink()
    with pytest.raises(CloudMaskError, match=r"holds 0 files .*red_patch_1_1_by_1"):
        list(datasets.read("38-cloud", tmp_path / "b"))
    MAKERS["s2-cmc"](tmp_path / "c")
    (tmp_path / "c" / "classification_tags.csv").unlink()
    with pytest.raises(CloudMaskError, match=r"has no classification_tags.csv"):
        list(datasets.read("s2-cmc", tmp_path / "c"))


@pytest.mark.parametrize(("path", "row", "day", "sun"), [  # view:sun_elevation of real items
    (28, 30, "20200114", 22.58), (5, 9, "20150710", 40.0), (47, 27, "20201204", 18.81),
    (10, 65, "20220129", 57.84), (197, 23, "20220324", 36.38), (66, 91, "20211228", 54.12),
    (202, 33, "20220327", 48.75), (84, 69, "20250722", 45.35), (84, 82, "20250722", 28.96),
    (84, 68, "20250722", 46.55),
])  # fmt: skip
def test_the_sun_from_path_row_and_date_is_that_of_real_products(
    path: int, row: int, day: str, sun: float
) -> None:
    from xcloudmask import sensors

    landsat = sensors.get("landsat-8")
    scale = from_scene(landsat, [landsat.band("red")], f"LC08_L1TP_{path:03}{row:03}_{day}_20201231_01_T1")[
        0
    ][0]
    assert np.degrees(np.arcsin(2e-5 / scale)) == pytest.approx(sun, abs=0.2)


def test_centres_of_scenes() -> None:
    assert wrs2_centre(28, 30) == pytest.approx((43.2, -95.7), abs=0.3)
    assert wrs2_centre(84, 82)[0] == pytest.approx(-31.7, abs=0.3)
