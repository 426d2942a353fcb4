"""The offset of Sentinel-2: -1000 counts from processing baseline 04.00 on, if no catalogue took it away."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import UnitWarning, warn_user
from xcloudmask.scene.dims import coordinate

#: Where catalogues' item properties end up as coordinates, the baseline of Sentinel-2 is called so.
BASELINE = "s2:processing_baseline"
OFFSET_DONE = "earthsearch:boa_offset_applied"
#: The first day of baseline 04.00.
FIRST_DAY = np.datetime64("2022-01-25")
STORED = "stores reflectance with an offset of -1000"
SAY = "say da.cloudmask.describe(scale=0.0001, offset=-0.1), or offset=0"


def check_offset(da: xr.DataArray, offset: Any, *, as_stored: bool) -> None:
    """Warn where what catalogues noted in coordinates of a scene contradicts the offset that is declared.

    If numbers are taken `as_stored`, floats are reflectance, as their loader made it.
    """
    if BASELINE not in da.coords or (as_stored and da.dtype.kind == "f"):
        return
    done, late, early = _done(da), *_baselines(da)
    if (offset != 0).any():
        declared = f"an offset of {float(np.ravel(offset)[0]):g} is declared"
        if done:
            warn_user(
                f"{declared}, and {OFFSET_DONE} says that the catalogue has applied Sentinel-2's already: "
                "say da.cloudmask.describe(offset=0)",
                UnitWarning,
            )
        elif early and not late:
            warn_user(
                f"{declared}, and Sentinel-2 processing baseline {', '.join(early)} "
                "stores reflectance without one: say da.cloudmask.describe(offset=0)",
                UnitWarning,
            )
    elif late and not done:
        warn_user(
            f"Sentinel-2 processing baseline {', '.join(late)} {STORED}, and none is declared here: {SAY} "
            "after checking that the catalogue took it away; xcloudmask.load_stac decides it from the items",
            UnitWarning,
        )


def warn_of_no_offset(da: xr.DataArray) -> None:
    """Warn where a scale of Sentinel-2 was declared, no offset, and nothing says that there is none."""
    if BASELINE in da.coords:
        return  # `check_offset` holds the two against each other
    times = da.coords.get("time")
    days = None if times is None or times.dtype.kind != "M" else coordinate(times).reshape(-1)
    if days is None or not days.size or np.isnat(days).all():
        reason = (
            "whether these numbers have one depends on the processing baseline, which the array does not say"
        )
    elif (days[~np.isnat(days)] >= FIRST_DAY).any():
        reason = f"dates from {FIRST_DAY} on, as here, have it unless the catalogue took it away"
    else:
        reason = f"dates before {FIRST_DAY}, as here, have it only if reprocessed (Collection 1)"
    warn_user(
        "a scale of Sentinel-2 is declared without an offset, which is taken as 0. Processing baseline 04.00 "
        f"and later {STORED}; {reason}: {SAY} to say that there is none",
        UnitWarning,
    )


def _done(da: xr.DataArray) -> bool:
    """Whether the coordinates say that the catalogue applied the offset, for every time."""
    done = da.coords.get(OFFSET_DONE)
    return done is not None and all(
        str(value).casefold() in ("true", "1", "1.0") for value in coordinate(done).reshape(-1)
    )


def _baselines(da: xr.DataArray) -> tuple[list[str], list[str]]:
    """Return the baselines from 04.00 on, and those before it; both empty where none can be read."""
    late: set[str] = set()
    early: set[str] = set()
    for value in coordinate(da[BASELINE]).reshape(-1):
        digits = re.fullmatch(r"N?(\d{1,2})\.?(\d{0,2})", str(value).strip())  # 05.10, 5.1 or N0510
        if digits is not None:
            (late if int(digits[1]) >= 4 else early).add(str(value))
    return sorted(late), sorted(early)
