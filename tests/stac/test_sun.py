"""The sun's place against what USGS computed for real scenes, and against almanac values."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from xcloudmask.stac.sun import descending_pass, sun_position

#: Time, place, elevation and azimuth of Landsat 8 and 9 scenes, from their MTL files (the place is the middle
#: of the four corners, the sun's figures are of the scene's centre, which may be some km apart).
SCENES = [
    ("LC08 008059", "2019-12-01T15:13:51.861", 1.44370, -75.07057, 57.08727, 136.31696),
    ("LC09 010065", "2022-01-29T15:28:34.396", -7.23332, -80.03839, 57.84396, 112.20059),
]


@pytest.mark.parametrize(("scene", "time", "latitude", "longitude", "elevation", "azimuth"), SCENES)
def test_against_landsat_metadata(scene, time, latitude, longitude, elevation, azimuth):
    found = sun_position(datetime.fromisoformat(time), latitude, longitude)
    assert found == pytest.approx((elevation, azimuth), abs=0.1)


@pytest.mark.parametrize(("time", "latitude", "longitude", "elevation", "tolerance"), [
    # At local noon of the solstices and equinoxes the elevation is 90 - |latitude - declination|.
    ("2020-06-20T21:44", 23.4367, -145.6, 90.0, 0.6),
    ("2020-12-21T12:00", 51.5, 0.0, 90 - 51.5 - 23.437, 0.1),
    ("2021-03-20T12:07", 0.0, 0.0, 90.0, 0.3),
    ("2020-12-21T12:00", 80.0, 0.0, 90 - 80 - 23.437, 0.1),  # below the horizon
])  # fmt: skip
def test_against_the_almanac(time, latitude, longitude, elevation, tolerance):
    assert sun_position(datetime.fromisoformat(time), latitude, longitude)[0] == pytest.approx(
        elevation, abs=tolerance
    )


def test_equation_of_time():
    """The sun is in the south 16.4 min before mean noon on 3 November, 14.2 min after it on 11 February."""
    for day, minutes in ((datetime(2021, 11, 3, 12), -16.4), (datetime(2021, 2, 11, 12), 14.2)):
        seconds = range(-1500, 1501, 6)
        south = min(seconds, key=lambda s: abs(sun_position(day + timedelta(seconds=s), 40.0, 0.0)[1] - 180))
        assert south / 60 == pytest.approx(minutes, abs=0.2)


def test_morning_is_east_and_time_zones_count():
    assert sun_position(datetime(2020, 3, 20, 8), 45.0, 0.0)[1] < 180
    assert sun_position(datetime(2020, 3, 20, 16), 45.0, 0.0)[1] > 180
    zone = timezone(timedelta(hours=-6))
    west = sun_position(datetime(2020, 3, 20, 10, tzinfo=zone), 30.7, -87.4)
    assert west == sun_position(datetime(2020, 3, 20, 16, tzinfo=UTC), 30.7, -87.4)
    assert west == sun_position(datetime(2020, 3, 20, 16), 30.7, -87.4)


@pytest.mark.parametrize(("scene", "time", "latitude", "longitude", "elevation", "_azimuth"), SCENES)
def test_time_of_pass_from_the_day_alone(scene, time, latitude, longitude, elevation, _azimuth):
    passed = descending_pass(datetime.fromisoformat(time[:10]), latitude, longitude)
    assert abs((passed - datetime.fromisoformat(time)).total_seconds()) < 600
    assert sun_position(passed, latitude, longitude)[0] == pytest.approx(elevation, abs=2)
