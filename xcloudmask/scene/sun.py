"""Where the sun stands: for scenes whose metadata lost the sun's elevation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import acos, asin, cos, degrees, radians, sin, tan

J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
#: Mean solar time at which Landsat 8 and 9 cross the equator southwards, in hours.
CROSSING = 10.2


def sun_position(when: datetime, latitude: float, longitude: float) -> tuple[float, float]:
    """Return the sun's elevation and azimuth in degrees, seen from a place at a time.

    The NOAA solar calculator's formulas (Meeus, *Astronomical Algorithms*, ch. 25), without refraction, as
    satellite products state the geometric elevation. Within 0.02 degrees of almanacs for 1950-2050.

    Parameters
    ----------
    when : datetime
        Naive times are taken as UTC.
    latitude, longitude : float
        Degrees, north and east positive.

    Returns
    -------
    elevation, azimuth : float
        Degrees above the horizon, and clockwise from north (0 to 360).

    Examples
    --------
    >>> elevation, azimuth = sun_position(datetime(2020, 6, 21, 12), 51.5, 0.0)
    >>> round(elevation, 1), round(azimuth)
    (61.9, 179)
    """
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    century = (when - J2000).total_seconds() / 86400 / 36525

    mean_longitude = radians((280.46646 + 36000.76983 * century) % 360)
    anomaly = radians(357.52911 + 35999.05029 * century)
    eccentricity = 0.016708634 - 0.000042037 * century
    centre = (
        (1.914602 - 0.004817 * century) * sin(anomaly)
        + 0.019993 * sin(2 * anomaly)
        + 0.000289 * sin(3 * anomaly)
    )
    node = radians(125.04 - 1934.136 * century)
    ecliptic_longitude = mean_longitude + radians(centre - 0.00569 - 0.00478 * sin(node))
    obliquity = radians(23.439291 - 0.0130042 * century + 0.00256 * cos(node))
    declination = asin(sin(obliquity) * sin(ecliptic_longitude))

    y = tan(obliquity / 2) ** 2
    equation_of_time = degrees(  # in degrees of rotation: apparent minus mean sun
        y * sin(2 * mean_longitude)
        - 2 * eccentricity * sin(anomaly)
        + 4 * eccentricity * y * sin(anomaly) * cos(2 * mean_longitude)
        - 0.5 * y**2 * sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * sin(2 * anomaly)
    )
    hours = when.hour + when.minute / 60 + (when.second + when.microsecond / 1e6) / 3600
    hour_angle = radians((15 * (hours - 12) + longitude + equation_of_time + 180) % 360 - 180)

    phi = radians(latitude)
    sine = sin(phi) * sin(declination) + cos(phi) * cos(declination) * cos(hour_angle)
    elevation = asin(max(-1.0, min(1.0, sine)))
    cosine = (sin(declination) - sin(elevation) * sin(phi)) / max(cos(elevation) * cos(phi), 1e-12)
    azimuth = degrees(acos(max(-1.0, min(1.0, cosine))))
    return degrees(elevation), 360 - azimuth if hour_angle > 0 else azimuth


def descending_pass(day: datetime, latitude: float, longitude: float) -> datetime:
    """Return about when Landsat 8 and 9 pass over a place, up to 80 degrees north or south, on a day (UTC).

    Good to some ten minutes (the place may lie at the swath's edge), so to 2 degrees of the sun's elevation.

    Examples
    --------
    >>> descending_pass(datetime(2019, 12, 1), 1.44, -75.07).strftime("%H:%M")
    '15:13'
    """
    inclination = radians(98.2)
    ratio = tan(radians(latitude)) / -tan(inclination)
    east_of_node = degrees(asin(max(-1.0, min(1.0, ratio))))
    hours = CROSSING + (east_of_node - longitude) / 15
    return day.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(hours=hours % 24)
