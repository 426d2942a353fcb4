"""Where the sun stood: given, by metadata, by date and place; and what contradicts is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene.sun import sun_position
from xcloudmask.scene.sun_angles import NEAR, grid_north, middle, sun_angles

ITEMS = Path(__file__).parents[2] / "../shared/stac-items"
NOON = np.datetime64("2020-06-21T12:00", "ns")


def scene(times=(NOON,), **coords):
    axes = {"time": list(times), "lat": [51.6, 51.4], "lon": [-0.1, 0.1]}
    return xr.DataArray(np.zeros((len(times), 2, 2)), dims=("time", "lat", "lon"), coords=axes).assign_coords(
        coords
    )


def test_each_date_has_its_own_and_metadata_goes_before_the_almanac():
    winter = np.datetime64("2020-12-21T12:00", "ns")
    summer, low = sun_angles(scene((NOON, winter)))
    assert summer == pytest.approx((61.9, 179.2), abs=0.2)
    assert low == pytest.approx((15.0, 180.5), abs=0.2)
    told = scene(
        (NOON, winter), sun_elevation=("time", [60.0, np.nan]), sun_azimuth=("time", [170.0, -175.0])
    )
    assert sun_angles(told)[0] == (60.0, 170.0)
    assert sun_angles(told)[1] == pytest.approx((15.0, 185.0), abs=0.2)
    named = scene().assign_coords({"view:sun_elevation": 61.0, "view:sun_azimuth": 181.0})
    assert sun_angles(named) == [(61.0, 181.0)]
    assert sun_angles(named, (59.0, 150)) == [(59.0, 150.0)]
    assert sun_angles(scene((NOON, winter)), ([60, 14], 170)) == [(60.0, 170.0), (14.0, 170.0)]
    assert len(sun_angles(scene().isel(time=0))) == 1


@pytest.mark.parametrize("given", [{"sun_elevation": 28.1}, {"view:sun_elevation": 28.1}])
def test_a_zenith_angle_in_the_place_of_the_elevation_is_refused(given):
    with pytest.raises(
        CloudMaskError,
        match=r"stated as 28\.1 degrees.*it was 61\.9: it may be the zenith angle; set sun=\(61\.9, 179",
    ):
        sun_angles(scene().assign_coords(given))
    with pytest.raises(
        CloudMaskError, match=r"stated as 40\.0 degrees, and by date and place it was 61\.9; check its time"
    ):
        sun_angles(scene(), (40, 180))


def test_a_date_without_a_time_of_day_contradicts_nothing_and_tells_nothing():
    day = scene((np.datetime64("2020-06-21", "ns"),))
    assert sun_angles(day, (28.1, 100)) == [(28.1, 100.0)]
    for bare in (
        day,
        scene((np.datetime64("NaT", "ns"),)),
        scene().drop_vars("time"),
        scene().drop_vars("lat"),
    ):
        with pytest.raises(CloudMaskError, match="nothing tells where the sun stood"):
            sun_angles(bare)


@pytest.mark.parametrize("given", [45, (45,), ("x", 3), ([1, 2, 3], 4)])
def test_angles_of_another_kind_are_refused(given):
    with pytest.raises(OptionError, match="Give elevation and azimuth"):
        sun_angles(scene(), given)


def test_the_place_is_that_of_the_projection_and_north_is_not_up_everywhere():
    import rioxarray  # noqa: F401

    axes = {"y": [6.66e6, 6.64e6], "x": [6.9e5, 7.1e5], "time": NOON}
    da = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), coords=axes).rio.write_crs("EPSG:32632")
    ((elevation, azimuth),) = sun_angles(da)
    assert (elevation, azimuth) == pytest.approx(
        sun_position(NOON.astype("datetime64[s]").item(), 59.95, 12.58), abs=0.05
    )
    assert grid_north(da) == pytest.approx(3.1, abs=0.1)  # 3.6 degrees east of the meridian, times sin(60)
    west = da.assign_coords(x=[2.9e5, 3.1e5])
    assert grid_north(west) == pytest.approx(-3.1, abs=0.1)
    assert grid_north(da.drop_vars("spatial_ref")) == 0


def test_the_crs_may_be_that_of_an_index_of_xproj():
    import rioxarray  # noqa: F401

    pytest.importorskip("xproj")
    axes = {"y": [6.66e6, 6.64e6], "x": [6.9e5, 7.1e5]}
    da = xr.DataArray(np.zeros((2, 2)), dims=("y", "x"), coords=axes)
    other = da.proj.assign_crs(place="EPSG:32632")
    assert grid_north(other) == grid_north(da.rio.write_crs("EPSG:32632")) != 0
    assert middle(other) == middle(da.rio.write_crs("EPSG:32632"))


def real_items():
    for path in sorted(ITEMS.rglob("*.json")):
        item = json.loads(path.read_text(encoding="utf-8"))
        told = item.get("properties", {}) if isinstance(item, dict) else {}
        stated = told.get("view:sun_elevation"), told.get("view:sun_azimuth"), told.get("datetime")
        box = item.get("bbox") if isinstance(item, dict) else None
        if None in stated or not box or "ccm-optical" in str(path):  # these state the time of publication
            continue
        if not 0 < box[len(box) // 2] - box[0] < 20:
            continue  # across the antimeridian: its middle is elsewhere
        yield path, box, stated


@pytest.mark.skipif(not ITEMS.exists(), reason="no ../shared/stac-items: items as catalogues list them")
def test_real_items_agree_with_the_almanac_and_their_zenith_does_not():
    count = 0
    for path, box, (elevation, azimuth, when) in real_items():
        half = len(box) // 2
        axes = {
            "lat": [box[half + 1], box[1]],
            "lon": [box[0], box[half]],
            "time": np.datetime64(when.rstrip("Z"), "ns"),
        }
        da = xr.DataArray(np.zeros((2, 2)), dims=("lat", "lon"), coords=axes)
        found = sun_angles(da.assign_coords({"view:sun_elevation": elevation, "view:sun_azimuth": azimuth}))
        assert found == [(elevation, azimuth % 360)], path
        if abs(90 - 2 * elevation) > 2 * NEAR:
            with pytest.raises(CloudMaskError, match="it may be the zenith angle"):
                sun_angles(da.assign_coords({"view:sun_elevation": 90 - elevation}))
            count += 1
    assert count > 25
