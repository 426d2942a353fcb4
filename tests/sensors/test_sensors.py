"""Sensors as data: the files themselves, how they are found, and how labels become bands."""

from __future__ import annotations

import csv
import json
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stac.helpers import loaded_by
from xcloudmask import sensors
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.sensors._match import band_key
from xcloudmask.sensors._read import COMMON_NAMES, fold
from xcloudmask.types import Band, Sensor

SHARED = Path(__file__).parents[3] / "shared" / "stac-items"
SHIPPED = sensors.names()
FAMILY_S2 = ("sentinel-2a", "sentinel-2b", "sentinel-2c")


@pytest.fixture(autouse=True)
def _fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "_registered", {})


@pytest.fixture(params=SHIPPED)
def sensor(request: pytest.FixtureRequest) -> Sensor:
    return sensors.get(request.param)


def name_of(band: Band | None) -> str | None:
    return band.name if band else None


def labels_of(sensor: Sensor) -> Iterator[tuple[str, Band]]:
    """Every label that a sensor's file promises, with the band it must mean."""
    for band in sensor.bands:
        for label in (band.name, *band.aliases, *filter(None, [band.common_name])):
            yield label, band


# ---------------------------------------------------------------- the files


def test_every_promised_sensor_is_there() -> None:
    promised = """sentinel-2 sentinel-2a sentinel-2b sentinel-2c landsat-4-tm landsat-5-tm landsat-7 landsat-8
        landsat-9 landsat-1-3-mss landsat-4-5-mss spot-vgt1 spot-vgt2 proba-v spot-1-3-hrv spot-4-hrvir
        spot-5-hrg spot-6-7 sentinel-3-slstr sentinel-3-olci sentinel-3-syn-vgt perusat-1 pleiades planetscope
        hls-l30 hls-s30 gaofen-1-wfv"""
    assert sorted(promised.split()) == SHIPPED == sorted(SHIPPED)


def test_file_is_named_after_its_sensor() -> None:
    files = [f for f in resources.files("xcloudmask.sensors").iterdir() if f.name.endswith(".toml")]
    assert len(files) == len(SHIPPED)
    for file in files:
        assert tomllib.loads(file.read_text())["name"] + ".toml" == file.name


def test_every_name_resolves_to_exactly_one_sensor() -> None:
    names = [(fold(n), s) for s in SHIPPED for n in (sensors.get(s).name, *sensors.get(s).aliases)]
    keys = [key for key, _ in names]
    assert [key for key in keys if keys.count(key) > 1] == []
    for key, owner in names:
        assert sensors.get(key).name == owner


def test_figures_are_complete_and_rise(sensor: Sensor) -> None:
    for band in sensor.bands:
        assert band.min_nm is not None
        assert band.center_nm is not None
        assert band.max_nm is not None
        assert band.min_nm < band.center_nm < band.max_nm
        assert band.common_name is None or band.common_name in COMMON_NAMES
        assert (band.kind == "brightness_temperature") == (band.center_nm > 3000)
        assert (band.gsd is None) == (sensor.name == "proba-v")  # its pixel depends on the product


def test_common_name_stands_for_one_band(sensor: Sensor) -> None:
    common = [band.common_name for band in sensor.bands if band.common_name]
    assert len(common) == len(set(common))


def test_source_is_named(sensor: Sensor) -> None:
    assert len(str(dict(sensor.metadata)["source"])) > 10


def test_scaling_is_told_where_one_rule_holds() -> None:
    scaled = {s: dict(sensors.get(s).metadata).get("scale") for s in SHIPPED}
    assert {s: scale for s, scale in scaled.items() if scale} == {
        **dict.fromkeys(("proba-v", "spot-vgt1", "spot-vgt2"), 0.0005),
        **dict.fromkeys(("hls-l30", "hls-s30"), 0.0001),
    }


def test_centre_lies_in_the_range_of_its_stac_common_name(sensor: Sensor) -> None:
    """Second source for every file: pystac's table of common names (it lacks the newest four)."""
    eo = pytest.importorskip("pystac.extensions.eo")
    for band in sensor.bands:
        span = eo.Band.band_range(band.common_name) if band.common_name else None
        if span is None or (sensor.name, band.name) == ("landsat-7", "B8"):  # ETM+ pan reaches into the nir
            continue
        assert span[0] * 1000 <= band.center_nm <= span[1] * 1000, band


#: sensor -> (tolerance in nm, {band: (min, max)} or {band: centre}); from another source than the file's own.
SECOND_SOURCE: dict[str, tuple[str, float, dict[str, tuple[float, float] | float]]] = {
    "sentinel-2a": (
        "ESA S2 spectral responses v3.0, table of central wavelengths",
        0.2,
        {"B01": 442.7, "B02": 492.4, "B03": 559.8, "B04": 664.6, "B05": 704.1, "B06": 740.5, "B07": 782.8,
         "B08": 832.8, "B8A": 864.7, "B09": 945.1, "B10": 1373.5, "B11": 1613.7, "B12": 2202.4},
    ),
    "sentinel-2b": (
        "ESA S2 spectral responses v3.0, table of central wavelengths",
        0.2,
        {"B01": 442.2, "B02": 492.1, "B03": 559.0, "B04": 664.9, "B05": 703.8, "B06": 739.1, "B07": 779.7,
         "B08": 832.9, "B8A": 864.0, "B09": 943.2, "B10": 1376.9, "B11": 1610.4, "B12": 2185.7},
    ),
    "sentinel-2c": (
        "nominal centres of the MSI, as CDSE's items give them",
        10,
        {"B01": 443, "B02": 493, "B03": 560, "B04": 665, "B05": 704, "B06": 741, "B07": 783, "B08": 833,
         "B8A": 865, "B09": 945, "B10": 1375, "B11": 1614, "B12": 2202},
    ),
    "landsat-4-tm": (
        "Markham and Barker 1985, half-power points",
        85,  # of the thermal band (10420-11660); the others agree to 1 nm
        {"B1": (452, 518), "B2": (529, 610), "B3": (624, 693), "B4": (776, 905), "B5": (1568, 1784),
         "B6": (10420, 11660), "B7": (2097, 2347)},
    ),
    "landsat-5-tm": (
        "Markham and Barker 1985, half-power points",
        9,  # of the thermal band; the others agree to 1 nm
        {"B1": (452, 518), "B2": (528, 609), "B3": (626, 693), "B4": (776, 904), "B5": (1567, 1784),
         "B6": (10450, 12420), "B7": (2097, 2349)},
    ),
    "landsat-7": (
        "Landsat 7 Science Data Users Handbook, half-power points",
        6,  # of the thermal band; the others agree to 1 nm
        {"B1": (441, 514), "B2": (519, 601), "B3": (631, 692), "B4": (772, 898), "B5": (1547, 1749),
         "B6_VCID_1": (10310, 12360), "B7": (2064, 2345), "B8": (515, 896)},
    ),
    "landsat-8": (
        "USGS Landsat 8 Data Users Handbook",
        11,  # of the thermal bands; the others agree to 1 nm
        {"B1": (435, 451), "B2": (452, 512), "B3": (533, 590), "B4": (636, 673), "B5": (851, 879),
         "B6": (1566, 1651), "B7": (2107, 2294), "B8": (503, 676), "B9": (1363, 1384), "B10": (10600, 11190),
         "B11": (11500, 12510)},
    ),
    "spot-vgt2": ("ESA Eduspace page of VEGETATION", 0, {"B0": (430, 470), "B2": (610, 680), "B3": (780, 890),
                                                         "MIR": (1580, 1750)}),
    "sentinel-3-syn-vgt": ("ESA page of the SYN VGP product", 0,
                           {"B0": 450, "B2": 645, "B3": 835, "MIR": 1665}),
    "proba-v": ("Terrascope documentation", 4, {"BLUE": 463, "RED": 655, "NIR": 837, "SWIR": 1603}),
    # Nominal edges; ours are those of the measured response at half its maximum.
    "spot-4-hrvir": ("CNES, spot5.cnes.fr/gb/satellite/42.htm", 14,
                     {"B1": (500, 590), "B2": (610, 680), "B3": (780, 890)}),
    "spot-5-hrg": ("CNES, spot5.cnes.fr/gb/satellite/42.htm", 13,
                   {"B1": (500, 590), "B2": (610, 680), "B3": (780, 890), "PAN": (490, 690)}),
    "sentinel-3-slstr": (
        "Py6S 1.9.2 spectral responses (our file has the agency's page)",
        3,
        {"S1": (545, 562.5), "S2": (650, 667.5), "S3": (860, 877.5), "S4": (1365, 1385), "S5": (1582.5, 1645),
         "S6": (2230, 2280)},
    ),
    "sentinel-3-olci": (
        "ESA OLCI user guide, band centres",
        5,  # Oa21, which the sampled response cuts; the others agree to 2 nm
        {"Oa01": 400, "Oa02": 412.5, "Oa03": 442.5, "Oa04": 490, "Oa06": 560, "Oa08": 665, "Oa11": 708.75,
         "Oa12": 753.75, "Oa16": 778.75, "Oa17": 865, "Oa20": 940, "Oa21": 1020},
    ),
    "pleiades": ("Airbus Pleiades user guide", 11, {"PAN": (480, 830), "MS1": (430, 550), "MS2": (490, 610),
                                                    "MS3": (600, 720), "MS4": (750, 950)}),
}  # fmt: skip


@pytest.mark.parametrize("name", SECOND_SOURCE)
def test_figures_agree_with_a_second_source(name: str) -> None:
    _, tolerance, figures = SECOND_SOURCE[name]
    bands = {band.name: band for band in sensors.get(name).bands}
    for label, expected in figures.items():
        band = bands[label]
        got = (band.min_nm, band.max_nm) if isinstance(expected, tuple) else band.center_nm
        narrow = 1 if name.startswith("landsat") and band.kind == "reflectance" else tolerance
        assert got == pytest.approx(expected, abs=narrow, rel=0), band


@pytest.mark.parametrize(
    ("mean", "of"),
    [("sentinel-2", FAMILY_S2), ("hls-s30", FAMILY_S2), ("hls-l30", ("landsat-8", "landsat-9"))],
)
def test_family_is_the_mean_of_its_members(mean: str, of: tuple[str, ...]) -> None:
    for band in sensors.get(mean).bands:
        members = [sensors.match([band.name], sensors.get(m))[0] for m in of]
        for field in ("min_nm", "center_nm", "max_nm"):
            expected = statistics.mean(getattr(m, field) for m in members)
            assert getattr(band, field) == pytest.approx(expected, abs=0.06)
        assert {m.common_name for m in members if m} == {band.common_name}


#: our sensor -> the rows of bands.csv that it is the mean of
CSV_ROWS = {
    **{f"sentinel-2{x}": [f"Sentinel-2{x.upper()} MSI"] for x in "abc"},
    **{f"landsat-{n}-tm": [f"Landsat {n} TM"] for n in (4, 5)},
    **{f"landsat-{n}": [f"Landsat {n} OLI/TIRS"] for n in (8, 9)},
    "landsat-7": ["Landsat 7 ETM+"],
    "landsat-1-3-mss": ["Landsat 1 MSS", "Landsat 2 MSS", "Landsat 3 MSS"],
    "landsat-4-5-mss": ["Landsat 4 MSS", "Landsat 5 MSS"],
    "spot-vgt1": ["SPOT-4 VGT1"],
    "spot-vgt2": ["SPOT-5 VGT2"],
    "proba-v": [f"Proba-V camera {n}" for n in (1, 2, 3)],
    "spot-1-3-hrv": [f"SPOT-{n} HRV{c}" for n in (1, 2, 3) for c in (1, 2)],
    "spot-4-hrvir": ["SPOT-4 HRVIR1", "SPOT-4 HRVIR2"],
    "spot-5-hrg": ["SPOT-5 HRG1", "SPOT-5 HRG2"],
    "spot-6-7": ["SPOT-6 NAOMI", "SPOT-7 NAOMI"],
    "perusat-1": ["PeruSat-1 NAOMI"],
    "pleiades": ["Pleiades-1A", "Pleiades-1B"],
    "planetscope": ["PlanetScope PSB.SD (SuperDove)"],
    "sentinel-3-olci": ["Sentinel-3A OLCI"],
    "sentinel-3-slstr": ["Sentinel-3A SLSTR"],
}


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/stac-items, which is not here")
@pytest.mark.parametrize("name", CSV_ROWS)
def test_figures_equal_the_collected_ones(name: str) -> None:
    with (SHARED / "bands.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["sensor"] in CSV_ROWS[name]]
    bands = {band.name: band for band in sensors.get(name).bands}
    assert {row["band"] for row in rows} == set(bands)
    for label, band in bands.items():
        same = [row for row in rows if row["band"] == label]
        assert len(same) == len(CSV_ROWS[name])
        for field in ("min_nm", "center_nm", "max_nm"):
            mean = statistics.mean(float(row[field]) for row in same)
            assert getattr(band, field) == pytest.approx(mean, abs=0.06, rel=0)
        if band.gsd is not None:
            assert band.gsd == float(same[0]["gsd_m"])
        twin = (name, label) in {("landsat-7", "B6_VCID_2"), ("sentinel-3-slstr", "F2")}
        assert (band.common_name or "") == ("" if twin else same[0]["common_name"])
        assert (band.kind == "brightness_temperature") == (same[0]["kind"] == "thermal")


# ---------------------------------------------------------------- get


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("S2", "sentinel-2"), ("Sentinel 2", "sentinel-2"), ("sentinel2", "sentinel-2"),
        ("S2A", "sentinel-2a"),
        ("sentinel-2-l2a", "sentinel-2"), ("SENTINEL_2C", "sentinel-2c"), ("landsat8", "landsat-8"),
        ("Landsat 8 OLI/TIRS", "landsat-8"), ("L9", "landsat-9"), ("landsat-5", "landsat-5-tm"),
        ("LANDSAT_4", "landsat-4-tm"), ("landsat-7-etm+", "landsat-7"), ("landsat-5-mss", "landsat-4-5-mss"),
        ("landsat-2", "landsat-1-3-mss"), ("probav", "proba-v"), ("PROBA-V", "proba-v"), ("vgt", "spot-vgt2"),
        ("SPOT_VGT", "spot-vgt2"), ("vgt-1", "spot-vgt1"), ("hls_l30", "hls-l30"), ("HLSS30", "hls-s30"),
        ("SuperDove", "planetscope"), ("slstr", "sentinel-3-slstr"), ("PHR1B", "pleiades"),
        ("spot-4", "spot-4-hrvir"), ("SPOT7", "spot-6-7"), ("perusat", "perusat-1"),
    ],
)  # fmt: skip
def test_get_by_the_names_people_use(said: str, meant: str) -> None:
    assert sensors.get(said).name == meant


@given(data=st.data())
def test_get_cares_for_neither_case_nor_separators(data: st.DataObject) -> None:
    owner = sensors.get(data.draw(st.sampled_from(SHIPPED)))
    name = data.draw(st.sampled_from([owner.name, *owner.aliases]))
    pieces = [data.draw(st.sampled_from(["-", "_", " ", "", "."])) if c == "-" else c for c in name]
    said = "".join(data.draw(st.sampled_from([c.lower(), c.upper()])) for c in pieces)
    assert sensors.get(said) is owner


@pytest.mark.parametrize(
    ("said", "near"), [("sentinel-2x", "sentinel-2"), ("prova-b", "proba-v"), ("landsat-mss", "mss")]
)
def test_unknown_name_offers_the_nearest_and_the_remedy(said: str, near: str) -> None:
    with pytest.raises(OptionError) as caught:
        sensors.get(said)
    message = str(caught.value)
    assert repr(said) in message
    assert near in message.split("did you mean")[1].split("?")[0]
    assert "landsat-9" in message
    assert "register" in message


# ---------------------------------------------------------------- identify


@pytest.mark.parametrize(
    ("platform", "instruments", "constellation", "expected"),
    [
        ("sentinel-2a", ["msi"], "sentinel-2", "sentinel-2a"),
        ("Sentinel-2B", ["msi"], "Sentinel 2", "sentinel-2b"),
        ("sentinel-2c", None, None, "sentinel-2c"),
        ("sentinel-2d", ["msi"], "sentinel-2", "sentinel-2"),  # not launched yet: the family serves
        (None, ["msi"], "sentinel-2", "sentinel-2"),
        (None, None, "sentinel-2", "sentinel-2"),
        (None, ["msi"], None, None),
        ("LANDSAT_8", ["OLI", "TIRS"], None, "landsat-8"),
        ("landsat-8", ["OLI_TIRS"], None, "landsat-8"),
        ("landsat-9", ["tirs", "oli"], None, "landsat-9"),
        ("LANDSAT_8", None, "Landsat", "landsat-8"),
        ("LANDSAT_7", ["ETM"], None, "landsat-7"),
        ("landsat-7", ["etm+"], None, "landsat-7"),
        ("landsat-7", "ETM+", None, "landsat-7"),
        ("LANDSAT_5", ["TM"], None, "landsat-5-tm"),
        ("LANDSAT_5", ["MSS"], None, "landsat-4-5-mss"),
        ("landsat-4", ["mss"], None, "landsat-4-5-mss"),
        ("landsat-3", ["mss"], None, "landsat-1-3-mss"),
        ("landsat-5", None, None, None),  # TM or MSS?
        ("landsat-8", ["mss"], None, None),  # contradicts itself
        ("landsat-8", ["mss"], "sentinel-2", None),  # and no constellation mends it
        ("landsat-5,landsat-7,landsat-8", ["tm,etm+,oli"], None, None),
        ("PROBA-V", ["VEGETATION"], None, "proba-v"),
        ("proba-v", None, None, "proba-v"),
        ("SPOT-5", ["VGT2"], None, "spot-vgt2"),
        ("spot-4", ["VGT"], None, "spot-vgt1"),
        ("spot-4", ["hrvir"], "spot", "spot-4-hrvir"),
        ("spot-4", None, "spot", None),  # HRVIR or VEGETATION?
        ("spot-6", ["naomi"], "spot", "spot-6-7"),
        ("pleiades-1a", ["hr"], None, "pleiades"),
        ("sentinel-3a", ["slstr"], "sentinel-3", "sentinel-3-slstr"),
        ("sentinel-3b", ["olci"], "sentinel-3", "sentinel-3-olci"),
        ("sentinel-3a", ["olci", "slstr"], "sentinel-3", "sentinel-3-syn-vgt"),
        ("2451", ["PSB.SD"], "planetscope", "planetscope"),
        ("0f31", ["PS2"], "planetscope", None),  # other bands
        ("formosat2", ["rsi"], "formosat", None),
        (None, None, None, None),
        ("", [], "", None),
    ],
)
def test_identify(
    platform: str | None, instruments: list[str] | None, constellation: str | None, expected: str | None
) -> None:
    found = sensors.identify(platform, instruments, constellation)
    assert (found.name if found else None) == expected


# ---------------------------------------------------------------- match


def test_every_promised_label_means_its_band(sensor: Sensor) -> None:
    for label, band in labels_of(sensor):
        assert sensors.match([label], sensor) == (band,), label


def test_a_sensors_bands_are_told_apart_together(sensor: Sensor) -> None:
    assert sensors.match([band.name for band in sensor.bands], sensor) == sensor.bands


@given(data=st.data())
def test_what_stands_around_a_label_does_not_matter(data: st.DataObject) -> None:
    sensor = sensors.get(data.draw(st.sampled_from(SHIPPED)))
    label, band = data.draw(st.sampled_from(list(labels_of(sensor))))
    if data.draw(st.booleans()):
        label = label.upper() if data.draw(st.booleans()) else label.lower()
    before = data.draw(st.sampled_from(["", "SR_", "toa_", "TOC-", "T32TQM_20200101T101331_", "x_20200101_"]))
    after = data.draw(st.sampled_from(["", "_10m", "_1km", "-jp2", ".TIF", "_20M_V210.tif"]))
    assert sensors.match([before + label + after], sensor) == (band,)


@pytest.mark.parametrize(
    ("sensor", "label", "band"),
    [
        ("sentinel-2", "B4", "B04"), ("sentinel-2", "b04", "B04"), ("sentinel-2", "B04_10m", "B04"),
        ("sentinel-2", "blue-jp2", "B02"), ("sentinel-2", "nir08_60m", "B8A"),
        ("sentinel-2", "rededge2", "B06"),
        ("sentinel-2", "red_20m", "B04"), ("sentinel-2", "Band 8A", "B8A"), ("sentinel-2", "nir", "B08"),
        ("sentinel-2", "T32TQM_20200101T101331_B8A_20m.jp2", "B8A"),
        ("sentinel-2", "S2A_OPER_MSI_L1C_TL_SGS__20151201T120000_A002345_T32TQM_B04.jp2", "B04"),
        ("sentinel-2", "S2A_20230220T074941_38SKG_TOC-B04_10M_V210.tif", "B04"),
        ("landsat-8", "SR_B4", "B4"), ("landsat-8", "SR_B4.TIF", "B4"), ("landsat-8", "OLI_B4", "B4"),
        ("landsat-8", "ST_B10", "B10"), ("landsat-8", "lwir2", "B11"), ("landsat-8", "nir", "B5"),
        ("landsat-8", "LC08_L2SP_194023_20200101_20200110_02_T1_SR_B4", "B4"),
        ("landsat-5-tm", "TM_B6", "B6"), ("landsat-5-tm", "sr_nir08", "B4"),
        ("landsat-5-tm", "st_lwir", "B6"),
        ("landsat-7", "ETM_B6", "B6_VCID_1"), ("landsat-7", "lwir", "B6_VCID_1"),
        ("landsat-7", "LE07_L1TP_194023_20000101_20200110_02_T1_B6_VCID_2.TIF", "B6_VCID_2"),
        ("hls-l30", "HLS.L30.T10TEM.2020123T184010.v2.0.B05.tif", "B05"), ("hls-l30", "B5", "B05"),
        ("landsat-1-3-mss", "B4", "B4"), ("landsat-4-5-mss", "green", "B1"),
        ("proba-v", "red", "RED"), ("proba-v", "LEVEL3/RADIOMETRY/SWIR/TOC", "SWIR"),
        ("proba-v", "swir", "SWIR"),
        ("spot-vgt1", "b0", "B0"), ("spot-vgt1", "V1KRNP____20020101F001_V003_MIR", "MIR"),
        ("planetscope", "green_i", "green_i"), ("planetscope", "rededge", "rededge"),
        ("sentinel-3-slstr", "nir", "S3"), ("sentinel-3-slstr", "S2_radiance_an", "S2"),
    ],
)  # fmt: skip
def test_labels_seen_in_the_wild(sensor: str, label: str, band: str) -> None:
    assert name_of(sensors.match([label], sensors.get(sensor))[0]) == band


@pytest.mark.parametrize(
    ("sensor", "label"),
    [
        ("sentinel-2", "SCL_20m"), ("sentinel-2", "visual-10m"), ("sentinel-2", "AOT"), ("sentinel-2", "B13"),
        ("sentinel-2", "B04_preview"), ("sentinel-2", "cloud_B04"), ("sentinel-2", "1"), ("sentinel-2", "04"),
        ("landsat-8", "qa_pixel"), ("landsat-8", "SR_QA_AEROSOL.TIF"), ("landsat-8", "ST_CDIST"),
        ("landsat-8", "qa_B4"), ("landsat-1-3-mss", "B1"), ("planetscope", "B4"), ("proba-v", "NDVI"),
        ("landsat-8", ""), ("landsat-8", "___"),
    ],
)  # fmt: skip
def test_what_is_no_band_is_none(sensor: str, label: str) -> None:
    assert sensors.match([label], sensors.get(sensor)) == (None,)


@pytest.mark.parametrize(
    ("sensor", "label", "named"),
    [
        ("sentinel-2", "rededge", "B05, B06, B07"),
        ("sentinel-2", "swir", "B11, B12"),
        ("landsat-8", "lwir", "B10, B11"),
        ("landsat-1-3-mss", "nir", "B6, B7"),
        ("sentinel-2", "B8A_B04", "B8A, B04"),
    ],
)
def test_ambiguous_label_is_refused(sensor: str, label: str, named: str) -> None:
    with pytest.raises(
        BandError, match=re.escape(f"{label!r} may mean any of the bands {named} of {sensor}")
    ):
        sensors.match([label], sensors.get(sensor))


@pytest.mark.parametrize("labels", [["red", "B04"], ["B04_10m", "SCL", "B04_20m"], ["B04", "B04"]])
def test_two_labels_for_one_band_are_refused(labels: list[str]) -> None:
    with pytest.raises(BandError, match=re.escape(f"{labels[0]!r} and {labels[-1]!r} both mean band B04")):
        sensors.match(labels, sensors.get("sentinel-2"))


def test_numbers_are_labels_where_they_are_the_names() -> None:
    modis = Sensor("m", "M", (Band("1", "red"), Band("2", "nir")))
    assert sensors.match(["1", "02"], modis) == modis.bands
    assert sensors.match(["Band 2"], modis) == (modis.bands[1],)


def test_own_names_win_over_tolerance() -> None:
    """Names that end like ballast, and a name that is also the common name of a neighbour."""
    odd = Sensor(
        "o", "O", (Band("B1_10m", "red"), Band("B1_20m"), Band("nir", "nir"), Band("nir wide", "nir"))
    )
    assert sensors.match([band.name for band in odd.bands], odd) == odd.bands
    assert sensors.match(["B1"], odd) == (None,)


def test_one_text_is_one_label() -> None:
    assert [name_of(band) for band in sensors.match("B04", sensors.get("s2"))] == ["B04"]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/stac-items, which is not here")
def test_real_items_say_what_we_say() -> None:
    """In every stored item of a known platform, key, name and common name of a band agree with ours."""
    older = {
        "rededge": {"rededge071", "rededge075", "rededge078", "nir08"},
        "nir": {"nir", "nir08"},
        "lwir2": {"lwir12"},
    }
    no_bands = re.compile("AOT|WVP|SCL|SNW|CLD|ST_[A-Z]+")
    compared = 0
    for path in sorted(SHARED.rglob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        items = document.get("features", [document]) if isinstance(document, dict) else []
        for item in items:
            said = item.get("properties") or {}
            sensor = sensors.identify(
                said.get("platform"), said.get("instruments"), said.get("constellation")
            )
            if sensor is None:
                continue
            for key, asset in item.get("assets", {}).items():
                bands = asset.get("eo:bands") or asset.get("bands") or []
                if len(bands) != 1 or no_bands.fullmatch(bands[0]["name"]):
                    continue
                (ours,) = sensors.match([bands[0]["name"]], sensor)
                assert ours is not None, (path.name, bands[0])
                assert sensors.match([key], sensor) == (ours,), path.name
                common = bands[0].get("common_name") or bands[0].get("eo:common_name")
                assert common is None or ours.common_name in older.get(common, {common}), (path.name, key)
                compared += 1
    assert compared > 1000


# ---------------------------------------------------------------- register

TOY = """
name = "my-toy"
title = "A toy"
source = "made up for this test"
aliases = ["toy one"]
platforms = ["toysat"]
instruments = ["cam thermal"]

[[bands]]
name = "T01"
common_name = "red"
aliases = ["TOY_RED"]
min_nm = 620
center_nm = 655
max_nm = 690
gsd = 10
"""


def written(folder: Path, text: str) -> Path:
    file = folder / "toy.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_register_adds_a_sensor(tmp_path: Path) -> None:
    toy = sensors.register(written(tmp_path, TOY))
    assert toy == Sensor(
        "my-toy", "A toy", (Band("T01", "red", 620, 655, 690, 10, aliases=("TOY_RED",)),), ("toy one",)
    )
    assert sensors.get("TOY ONE") is sensors.get("MY_TOY") is toy
    assert sensors.names() == sorted([*SHIPPED, "my-toy"])
    assert sensors.identify("ToySat", ["thermal", "cam"]) is toy
    assert sensors.match(["t1"], toy) == toy.bands


def test_register_again_takes_its_own_place(tmp_path: Path) -> None:
    sensors.register(written(tmp_path, TOY))
    sensors.register(str(written(tmp_path, TOY.replace("A toy", "A better toy"))))
    assert sensors.get("my-toy").title == "A better toy"


def test_register_overrides_a_shipped_sensor(tmp_path: Path) -> None:
    sensors.register(written(tmp_path, TOY.replace("my-toy", "landsat-8").replace("toy one", "l8")))
    assert sensors.get("L8").title == "A toy"
    assert sensors.names() == SHIPPED
    with pytest.raises(OptionError):
        sensors.get("lc08")  # an alias of the sensor that was replaced


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"toy one"', '"S2"', "aliases: 'S2' already belongs to sensor 'sentinel-2'"),
        ('"my-toy"', '"ProbaV"', "name: 'ProbaV' already belongs to sensor 'proba-v'"),
        ('title = "A toy"', "", "title: missing"),
        ('title = "A toy"', 'titel = "A toy"', "unknown field 'titel'; did you mean 'title'?"),
        ('"toy one"', "1", "aliases: expected a list of texts, got [1]"),
        ("gsd = 10", "gsd = '10'", "band 'T01': gsd: expected a number, got '10'"),
        ("gsd = 10", "gsd = true", "band 'T01': gsd: expected a number, got True"),
        ("gsd = 10", "gsd = 0", "band 'T01': gsd: expected metres above 0, got 0"),
        ("gsd = 10", "gds = 10", "band 'T01': unknown field 'gds'; did you mean 'gsd'?"),
        ('"red"', '"rot"', "band 'T01': unknown common_name 'rot'"),
        ("min_nm = 620", "min_nm = 0.62", "band 'T01': min_nm: 0.62 is no wavelength in nanometres"),
        ("min_nm = 620", "min_nm = 670", "band 'T01': wavelengths must rise from min to centre to max"),
        ("gsd = 10", "kind = 'heat'", "band 'T01': unknown kind 'heat'"),
        ("gsd = 10", "[[bands]]\nname = 't1'", "band 't1': name: 't1' already stands for band 'T01'"),
        ("gsd = 10", "[[bands]]\nname = 'X'\naliases = ['red']", "band 'X': aliases: 'red' already stands"),
        ("gsd = 10", "[[bands]]\ncommon_name = 'nir'", "band 2: name: missing"),
        ('name = "T01"', 'name = ""', "band '': name: expected text"),
        ("[[bands]]", "[bands]", "bands: expected a list of [[bands]] tables"),
        ("[[bands]]", "bands = 3\n[other]", "bands: expected a list of [[bands]] tables, got 3"),
        ("gsd = 10", "gsd = ", "not valid TOML"),
    ],
)  # fmt: skip
def test_malformed_file_is_refused_with_file_band_and_field(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    assert old in TOY
    file = written(tmp_path, TOY.replace(old, new))
    with pytest.raises(CloudMaskError) as caught:
        sensors.register(file)
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert sensors.names() == SHIPPED


def test_no_bands_is_refused(tmp_path: Path) -> None:
    text = TOY[: TOY.index("[[bands]]")]
    with pytest.raises(CloudMaskError, match="bands: missing"):
        sensors.register(written(tmp_path, text))
    with pytest.raises(CloudMaskError, match="bands: expected a list"):
        sensors.register(written(tmp_path, text + "bands = []\n"))


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloudMaskError, match=r"absent\.toml: .*cannot be read"):
        sensors.register(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes("title = 'Pléiades'".encode("latin-1"))
    with pytest.raises(CloudMaskError, match=r"latin\.toml: .*cannot be read"):
        sensors.register(tmp_path / "latin.toml")


words = st.text(st.sampled_from("abcdefghxyz"), min_size=3, max_size=8)
edges = st.lists(st.integers(300, 14000), min_size=3, max_size=3, unique=True).map(sorted)


@st.composite
def toy_sensors(draw: st.DrawFn) -> Sensor:
    names = draw(st.lists(words, min_size=1, max_size=8, unique_by=band_key))
    bands = []
    for name in names:
        low, middle, high = draw(edges)
        gsd = draw(st.none() | st.floats(0.1, 5000))
        kind = draw(st.sampled_from(["reflectance", "brightness_temperature"]))
        bands.append(Band(name, None, low, middle, high, gsd, kind))
    return Sensor(f"toy-{draw(words)}", draw(words), tuple(bands), (f"alias toy {draw(words)}",))


def as_toml(sensor: Sensor) -> str:
    def table(values: dict[str, object]) -> str:
        return "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None)

    head = table(
        {"name": sensor.name, "title": sensor.title, "aliases": list(sensor.aliases), "source": "drawn"}
    )
    fields = ("name", "min_nm", "center_nm", "max_nm", "gsd", "kind")
    return head + "".join("[[bands]]\n" + table({f: getattr(b, f) for f in fields}) for b in sensor.bands)


@given(toy=toy_sensors())
def test_register_gives_back_what_was_written(toy: Sensor, tmp_path_factory: pytest.TempPathFactory) -> None:
    sensors._registered.clear()
    file = written(tmp_path_factory.mktemp("toy"), as_toml(toy))
    assert sensors.register(file) == toy
    assert sensors.get(toy.aliases[0].upper()) == toy
    assert sensors.match([band.name for band in toy.bands], toy) == toy.bands


# ---------------------------------------------------------------- the rest


def test_table_shows_every_band(sensor: Sensor) -> None:
    lines = sensors.table(sensor).splitlines()
    assert lines[0] == f"{sensor.name}: {sensor.title}"
    assert [line.split()[0] for line in lines[2:]] == [band.name for band in sensor.bands]
    assert max(map(len, lines)) <= 100


def test_import_reads_no_file() -> None:
    code = """
import xcloudmask.sensors as s
assert s._shipped.cache_info().currsize == 0
assert s.get("s2").name == "sentinel-2"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_sensors_need_nothing_but_python() -> None:
    """Not even NumPy: they are data."""
    idle = loaded_by("pass")
    code = "import xcloudmask.sensors as s; s.get('s2'); s.match(['B04'], s.get('s2'))"
    assert loaded_by(code, alone=True) - idle == {"xcloudmask"}
