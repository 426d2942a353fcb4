"""The classes of a mask, as its attributes ``flag_values`` and ``flag_meanings`` list them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.errors import CloudMaskError


def codes_of(mask: xr.DataArray) -> dict[str, int]:
    """Return the codes of a mask's classes by name.

    Examples
    --------
    >>> import xarray as xr
    >>> codes_of(xr.DataArray(0, attrs={"flag_values": [0, 1], "flag_meanings": "clear cloud"}))
    {'clear': 0, 'cloud': 1}
    """
    meanings = mask.attrs.get("flag_meanings")
    values: Any = mask.attrs.get("flag_values")
    try:
        numbers = [
            int(v)
            for v in (re.split(r"[\s,]+", values.strip()) if isinstance(values, str) else np.ravel(values))
        ]
        return dict(zip(str(meanings).split(), numbers, strict=True))
    except (TypeError, ValueError):
        raise CloudMaskError(
            f"this is no mask: its attributes are flag_values={values!r} and flag_meanings={meanings!r}. "
            "Make one with scene.cloudmask.predict(), and keep its attributes "
            "(xr.set_options(keep_attrs=True))"
        ) from None
