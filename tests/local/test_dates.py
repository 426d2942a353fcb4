"""Dates in names: one date or none, never a guess."""

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xcloudmask
from tests.local.conftest import write_raster as raster
from xcloudmask.errors import CloudMaskError
from xcloudmask.local.dates import date_in_name


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("2020-06-15.tif", "2020-06-15"),
        ("field_7_2020_06_15_v2.tif", "2020-06-15"),
        ("20200615.zarr", "2020-06-15"),
        ("LC08_193028_20200615.tif", "2020-06-15"),
        ("T32TPQ_20200615T101021_B04.jp2", "2020-06-15T10:10:21"),
        ("2020-06-15T10:10:21Z.tif", "2020-06-15T10:10:21"),
        ("2020-06-15/T32TPQ_20200615T101021.tif", "2020-06-15T10:10:21"),
        ("20200615T101021_20200615T101025_T32TPQ", "2020-06-15"),  # which time of day is not said
        ("20200615_193028.tif", "2020-06-15"),  # a path and row look like a time of day
        ("S2B_MSIL1C_20200615T101021_N0209_R022_T32TPQ_20200616T121212.SAFE", "2020-06-15T10:10:21"),
        ("S2A_OPER_PRD_MSIL1C_PDMC_20160616T021010_R022_V20160614T101021_20160614T101021",
         "2016-06-14T10:10:21"),
        ("S2A_OPER_MSI_L1C_TL_EPA__20160616T021010_A000634_T32TPQ", None),  # of processing
        ("LC08_L1TP_193028_20200615_20200625_02_T1_B4.TIF", "2020-06-15"),
        ("LE07_L2SP_193028_20030101_20200911_02_T1", "2003-01-01"),
        ("LC81930282020167LGN00_B4.TIF", "2020-06-15"),
        ("HLS.S30.T32TPQ.2020167T101021.v2.0.B04.tif", "2020-06-15T10:10:21"),
        ("PROBAV_L2A_20200615_101021_1_1KM_V101.HDF5", "2020-06-15T10:10:21"),
        ("PROBAV_S10_TOC_X18Y02_20200611_1KM_V101.HDF5", "2020-06-11"),
        ("V2KRNS10__20060701_NDVI__Europe.ZIP", "2006-07-01"),
        ("V2KRNP____20060720F146_Europe", "2006-07-20"),
        ("scene.tif", None),
        ("mean_20200601_20200630.tif", None),
        ("field_20200615_made_2021-01-02.tif", None),
        ("20201350.tif", None),
        ("2021-02-29.tif", None),
        ("120200615.tif", None),
        ("202006151.tif", None),
        ("LC81930282020367LGN00", None),
    ],
)  # fmt: skip
def test_a_name_tells_one_date_or_none(name: str, date: str | None) -> None:
    assert date_in_name(name) == date


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2099, 12, 31)), st.sampled_from(["a_{}_b", "{}", "x{}.tif"])
)
def test_every_form_of_a_date_is_read(moment: datetime, name: str) -> None:
    exact = moment.replace(microsecond=0)
    for form in ("%Y%m%dT%H%M%S", "%Y%m%d%H%M%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H-%M-%S"):
        assert date_in_name(name.format(exact.strftime(form))) == exact.isoformat()
    for form in ("%Y-%m-%d", "%Y%m%d", "%Y.%m.%d"):
        assert date_in_name(name.format(exact.strftime(form))) == exact.date().isoformat()


NUMBERS = np.full((2, 4, 4), 2000, "u2")
FORM = {"descriptions": ["B04", "B08"], "scales": [1e-4] * 2}
GIVEN = {"sensor": "sentinel-2", "level": "toa"}


def test_the_name_of_a_raster_or_of_its_band_files_dates_the_scene(tmp_path: Path) -> None:
    scene = xcloudmask.open(raster(tmp_path / "2020-06-15.tif", NUMBERS, **FORM), **GIVEN)
    assert scene.time.values == np.datetime64("2020-06-15")
    folder = tmp_path / "2019-01-01"  # what the files say counts
    for name in ("T32TPQ_20200615T101021_B04.tif", "T32TPQ_20200615T101021_B08.tif", "dem_20110203.tif"):
        raster(folder / name, NUMBERS[:1], scales=[1e-4])
    assert np.isnat(xcloudmask.open(folder, **GIVEN).time.values).all()
    (folder / "dem_20110203.tif").unlink()
    assert xcloudmask.open(folder, **GIVEN).time.values == np.datetime64("2020-06-15T10:10:21")
    assert xcloudmask.open(folder, **GIVEN, date="2020-06-14").time.values == np.datetime64("2020-06-14")
    for path in folder.iterdir():
        path.rename(folder / path.name[-7:])
    assert xcloudmask.open(folder, **GIVEN).time.values == np.datetime64("2019-01-01")


def test_the_sun_over_raw_landsat_numbers_follows_from_the_name(tmp_path: Path) -> None:
    form = {"descriptions": ["B4", "B5"]}
    dated = raster(tmp_path / "2020-06-15.tif", NUMBERS, **form)
    plain = raster(tmp_path / "x.tif", NUMBERS, **form)
    found = xcloudmask.open(dated, sensor="landsat-8").sun_elevation.item()
    assert found == xcloudmask.open(plain, sensor="landsat-8", date="2020-06-15").sun_elevation.item()
    assert found == pytest.approx(62, abs=3)


def test_a_file_made_before_the_date_in_its_name_is_refused(tmp_path: Path) -> None:
    def tagged(when: str) -> Path:
        return raster(tmp_path / "2020-06-15.tif", NUMBERS, **FORM, tags={"TIFFTAG_DATETIME": when})

    made_later = xcloudmask.open(tagged("2021:02:03 10:11:12"), **GIVEN)
    assert made_later.time.values == np.datetime64("2020-06-15")
    path = tagged("2020:06:10 10:11:12")
    with pytest.raises(
        CloudMaskError, match=r"says 2020-06-15, its tag .* 2020-06-10T10:11:12.*date='2020-06-15'"
    ):
        xcloudmask.open(path, **GIVEN)
    assert xcloudmask.open(path, **GIVEN, date="2020-06-15").time.values == np.datetime64("2020-06-15")


@pytest.mark.parametrize(
    "names",
    [
        ["2020-06-15.tif", "2020-06-20.tif"],
        ["north.tif", "south.tif"],
        ["a/2020-06-15.tif", "b/2020-06-20.tif"],
    ],
)
def test_a_folder_of_scenes_is_not_taken_for_one(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        raster(tmp_path / "in" / name, NUMBERS, **FORM)
    with pytest.raises(CloudMaskError, match=rf"holds 2 scenes \({names[0]}, .*predict SCENE... --out-dir"):
        xcloudmask.open(tmp_path / "in", **GIVEN)


def test_band_files_of_several_dates_are_not_taken_for_one_scene(tmp_path: Path) -> None:
    for day in ("20200615", "20200620"):
        for band in ("B04", "B08"):
            raster(tmp_path / "in" / f"{day}_{band}.tif", NUMBERS[:1], scales=[1e-4])
    with pytest.raises(CloudMaskError, match=r"holds 2 scenes \(20200615_B04.tif, .*a folder of its own"):
        xcloudmask.open(tmp_path / "in", **GIVEN)
