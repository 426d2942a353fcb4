"""Dates in the names of files and products: taken where a name tells one date, and only one."""

from __future__ import annotations

import re
from datetime import datetime

#: 2020-06-15, 20200615, 20200615T101021, 20200615101021, 2020-06-15T10:10:21; no part of a longer number.
_DATE = re.compile(
    r"(?<!\d)(?P<year>19[7-9]\d|20\d\d)(?P<mark>[-_.]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
    r"(?:T?(?P<hour>\d\d)(?P<colon>[-:]?)(?P<minute>\d\d)(?P=colon)(?P<second>\d\d))?(?!\d)"
)
#: Of names that hold other dates too, or write one in a way of their own: which part counts, for `strptime`.
_PRODUCTS = (
    (re.compile(r"S2[A-D]_MSIL\w\w_(\d{8}T\d{6})_"), "%Y%m%dT%H%M%S"),
    (re.compile(r"S2[A-D]_OPER_\w+_V(\d{8}T\d{6})"), "%Y%m%dT%H%M%S"),
    (re.compile(r"L[CEMOT]0\d_\w{4}_\w{6}_(\d{8})_\d{8}_"), "%Y%m%d"),
    (re.compile(r"L[CEMOT]\d{7}(\d{7})[A-Z]{3}\d\d"), "%Y%j"),
    (re.compile(r"HLS\.[LS]30\.T\w{5}\.(\d{7}T\d{6})"), "%Y%jT%H%M%S"),
    (re.compile(r"PROBAV_L2A_(\d{8}_\d{6})_"), "%Y%m%d_%H%M%S"),
)
#: Of these the only date may be that of processing.
_NO_DATE = re.compile(r"S2[A-D]_OPER_")


def date_in_name(name: str) -> str | None:
    """Return the date that a name tells, ISO 8601 in UTC, with the time of day where it tells that too.

    None where it tells no date, or several: which one counts is not guessed. Of the names of Sentinel-2,
    Landsat, HLS, Proba-V and SPOT-VGT products it is the date of the scene, whatever others they hold.

    Examples
    --------
    >>> date_in_name("field_2020-06-15.tif"), date_in_name("T32TPQ_20200615T101021_B04.jp2")
    ('2020-06-15', '2020-06-15T10:10:21')
    >>> date_in_name("LC08_L1TP_193028_20200615_20200625_02_T1")
    '2020-06-15'
    >>> date_in_name("mean_20200601_20200630.tif"), date_in_name("scene.tif")
    (None, None)
    """
    for pattern, form in _PRODUCTS:
        if match := pattern.search(name):
            try:
                taken = datetime.strptime(match[1], form).isoformat()
            except ValueError:
                return None
            return taken if "%H" in form else taken[:10]
    if _NO_DATE.search(name):
        return None
    moments = {moment for match in _DATE.finditer(name) if (moment := _iso(match))}
    days = {moment[:10] for moment in moments}
    if len(days) != 1:
        return None
    exact = moments - days
    return (exact if len(exact) == 1 else days).pop()


def without_dates(name: str) -> str:
    """Return a name without its dates, the same for scenes of one series.

    Examples
    --------
    >>> without_dates("20200615_B04") == without_dates("20200620_B04")
    True
    """
    return _DATE.sub("", name)


def _iso(match: re.Match[str]) -> str | None:
    day = f"{match['year']}-{match['month']}-{match['day']}"
    text = day if match["hour"] is None else f"{day}T{match['hour']}:{match['minute']}:{match['second']}"
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return None
    return text
