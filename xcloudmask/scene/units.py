"""How stored numbers become reflectance: never guessed silently."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xcloudmask.engine.input_checks import COUNTS, FIGURES, OF_PICTURE, PICTURE
from xcloudmask.engine.pixels import CEILING, holds_data
from xcloudmask.errors import (
    BandError,
    CloudMaskError,
    NoDataWarning,
    OptionError,
    Remedy,
    UnitError,
    UnitWarning,
    Use,
    warn_user,
)
from xcloudmask.scene.bands import sensor_of
from xcloudmask.scene.dims import coordinate
from xcloudmask.scene.sentinel2 import check_offset
from xcloudmask.types import Band, Calibration, Sensor

if TYPE_CHECKING:
    import xarray as xr

    from xcloudmask.scene.scene import Scene

#: What says how numbers are stored.
DESCRIBE = "da.cloudmask.describe"

NODATA_ATTRS = ("_FillValue", "nodata", "missing_value")
#: Bands in which clouds saturate, by common name, or below a wavelength in nm.
VISIBLE = ("coastal", "blue", "green", "yellow", "red")
LONGEST_VISIBLE = 700.0
#: From here on one and the same reflectance in all visible bands is that of a full detector, or of a clip.
#: Snow on a slope that faces the sun is as bright, and never so even (benchmarks/README.md has the figures).
SATURATED = 1.2
#: Numbers stored in coarser steps of reflectance come to be alike on bright ground, too: nothing unasked.
COARSE = 1e-3
#: Rows of an array in memory that are looked at in one go.
ROWS = 512


def calibration_of(
    scene: Scene,
    places: tuple[int, ...],
    nodata: Any = "auto",
    saturation: float | Mapping[str, float] | str | None = None,
) -> Calibration:
    """Return how the numbers of some of a scene's bands become reflectance; an error where nothing tells.

    `nodata` means no data beside what the attributes declare. ``"auto"``: the product's fill value, or, where
    the sensor is not known and nothing is declared, 0 in every band. None: nothing. For `saturation` see
    `saturation_of`.
    """
    dtype = scene.da.dtype
    if dtype.kind not in "fiu":
        raise UnitError(
            f"reflectance must be real numbers, got dtype {dtype}: convert with da.astype('float32') "
            "(for complex numbers take da.real)"
        )
    attrs = {str(key): value for key, value in scene.da.attrs.items()}
    scaled = "scale" in scene.da.coords or "offset" in scene.da.coords
    scale, offset = _from_coords(scene, places) if scaled else _from_attrs(attrs, dtype)
    check_figures(scale, offset)
    as_stored = bool((scale == 1).all() and (offset == 0).all())
    check_offset(scene.da, offset, as_stored=as_stored)
    gaps, auto = list(declared_nodata(attrs)), isinstance(nodata, str) and nodata == "auto"
    if nodata is not None and not auto:
        gaps.append(_checked_nodata(nodata, dtype))
    fill: tuple[float, ...] = ()
    assumed = False
    if auto:
        known = _product_fill(scene.sensor, dtype, reflectance=as_stored)
        if known is not None:
            stored, everywhere = known
            gaps += stored
            fill = tuple(number for number in everywhere if number not in gaps)
        elif not gaps and len(places) > 1:  # who declares another number has said what it is
            fill, assumed = (0.0,), True
    coarse = dtype == np.float16 or (dtype.kind in "iu" and (scale > COARSE).any())
    if coarse and saturation == "auto":
        saturation = None
    limits = saturation_of(saturation, [scene.bands[place] for place in places])
    return Calibration(
        None if as_stored else tuple(scale.tolist()),
        None if as_stored else tuple(offset.tolist()),
        _as_stored(gaps, dtype),
        _as_stored(fill, dtype),
        assumed,
        limits,
        limits is not None and saturation == "auto",
    )


def _product_fill(
    sensor: Sensor | None, dtype: Any, *, reflectance: bool
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return what fills a sensor's products, in any band and in every one; None where its table does not say.

    Zero may be the reflectance of a band, never of all. In floats that are `reflectance`, the same holds for
    what scaling made of a fill value.
    """
    table = {} if sensor is None else dict(sensor.metadata)
    if "fill" not in table:
        return None
    stored = tuple(number for number in table["fill"] if number != 0)
    everywhere = tuple(number for number in table["fill"] if number == 0)
    if dtype.kind == "f" and reflectance:
        everywhere += table.get("fill_reflectance", ())
    return stored, everywhere


def fill_of(da: xr.DataArray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what means no data in any band, and in all at once, of pixels that need not be reflectance.

    It is what the attributes declare, and what fills the products of the sensor that they name.
    """
    stored, everywhere = _product_fill(sensor_of(da), da.dtype, reflectance=True) or ((), ())
    return (_as_stored((*declared_nodata(da.attrs), *stored), da.dtype), _as_stored(everywhere, da.dtype))


def declared_nodata(attrs: Mapping[Any, Any]) -> tuple[float, ...]:
    """Return every number that the attributes call no data, but NaN, which is that anyway.

    Examples
    --------
    >>> declared_nodata({"_FillValue": 0, "nodata": -9999, "units": "1"})
    (0.0, -9999.0)
    """
    numbers: dict[float, None] = {}
    for name in NODATA_ATTRS:
        for value in np.atleast_1d(attrs.get(name, [])):
            try:
                number = float(value)
            except (TypeError, ValueError):
                raise UnitError(
                    f"the attribute {name}={attrs[name]!r} is no number:",
                    Remedy("delete it, or say what means no data with {}", Use(DESCRIBE, nodata=...)),
                ) from None
            if number == number:
                numbers[number] = None
    return tuple(numbers)


def _checked_nodata(nodata: Any, dtype: Any) -> float:
    """Return the number that the caller says means no data; an error where it cannot occur."""
    if isinstance(nodata, bool) or not isinstance(nodata, (int, float, np.number)):
        raise CloudMaskError(
            " must be a number, as it is stored in the array; or None for no such number",
            option=Use(nodata=nodata),
        )
    if dtype.kind in "iu" and not _occurs(nodata, dtype):
        limits = np.iinfo(dtype)
        raise UnitError(
            f" cannot occur in {dtype} ({limits.min} to {limits.max});",
            "name the number that is stored there",
            option=Use(nodata=nodata),
        )
    return float(nodata)


def _occurs(number: Any, dtype: Any) -> bool:
    """Whether an array of this type can hold a number, other than NaN."""
    if number != number:
        return False
    return bool(
        dtype.kind == "f" or (np.iinfo(dtype).min <= number <= np.iinfo(dtype).max and number == int(number))
    )


def _as_stored(numbers: Iterable[float], dtype: Any) -> tuple[float, ...]:
    """Return those numbers that can occur, each once, as the array's type rounds them."""
    with np.errstate(over="ignore"):  # GDAL writes -1.8e308 beside float32
        return tuple(dict.fromkeys(float(dtype.type(n)) for n in numbers if _occurs(n, dtype)))


def _from_coords(scene: Scene, places: tuple[int, ...]) -> tuple[Any, Any]:
    pair = []
    for name, none in (("scale", 1.0), ("offset", 0.0)):
        coord = scene.da.coords.get(name)
        if coord is None:
            pair.append(np.array([none]))
            continue
        if coord.dims not in ((), (scene.band,)) or coord.dtype.kind not in "fiu":
            raise UnitError(
                f"the coordinate {name!r} ({coord.dtype} along {coord.dims}) would scale the pixels and must "
                f"hold one number, or one a band: rename or drop it, da.drop_vars({name!r}),",
                Remedy("or say {}", Use("describe", **{name: ...})),
            )
        figures = coordinate(coord).astype(float)
        pair.append(figures[list(places)] if figures.ndim else figures[None])
    scale, offset = np.broadcast_arrays(*pair)
    return scale, offset


def _from_attrs(attrs: Mapping[str, Any], dtype: Any) -> tuple[Any, Any]:
    try:
        factor, addend = (
            float(np.ravel(none if attrs.get(name) is None else attrs[name])[0])
            for name, none in (("scale_factor", 1.0), ("add_offset", 0.0))
        )
    except (TypeError, ValueError, IndexError):
        raise UnitError(
            f"the attributes scale_factor={attrs.get('scale_factor')!r} and "
            f"add_offset={attrs.get('add_offset')!r} are no numbers:",
            Remedy("delete them and say {}", Use(DESCRIBE, scale=..., offset=...)),
        ) from None
    if dtype.kind == "f":
        if factor != 1 or addend != 0:
            warn_user(
                f"the values are {dtype}, the attributes say scale_factor={factor:g}, add_offset={addend:g}"
                ": taking the values as they are",
                UnitWarning,
                Remedy(
                    "If they still need scaling, say {}; if not, delete the attributes",
                    Use(DESCRIBE, scale=float(f"{factor:g}"), offset=float(f"{addend:g}")),
                ),
            )
        return np.array([1.0]), np.array([0.0])
    if factor == 1 and dtype == np.uint8:
        raise UnitError(
            f"the values are {dtype} and nothing tells their scale: this {PICTURE}.",
            Remedy("If it is reflectance times 255, try {}", OF_PICTURE),
        )
    if factor == 1:
        raise UnitError(
            f"the values are integers ({dtype}) and nothing tells their scale. Reflectance must be 0 to 1:",
            Remedy(f"{{}}, {FIGURES}", Use(DESCRIBE, scale=0.0001, offset=...)),
        )
    return np.array([factor]), np.array([addend])


def check_figures(scale: Any, offset: Any) -> None:
    """Refuse figures that cannot make reflectance of anything."""
    if not (np.isfinite(scale).all() and np.isfinite(offset).all() and (scale > 0).all()):
        raise UnitError(f"scale {scale.tolist()} must be above 0, and offset {offset.tolist()} finite")
    if (np.abs(offset) > 5).any():
        raise UnitError(
            f"offset {offset.tolist()} is added after scaling, in reflectance: for Sentinel-2's -1000 that "
            "is -0.1 (reflectance = stored * 0.0001 - 0.1)"
        )


def check_numbers(values: Any, calibration: Calibration) -> None:
    """Warn of an array in memory (..., band, y, x) that holds infinities, or no usable pixel at all."""
    # In bands of rows: a scene in memory may leave little room beside it.
    blocks = [values[..., first : first + ROWS, :] for first in range(0, values.shape[-2], ROWS)]
    infinite = sum(int(np.isinf(block).sum()) for block in blocks) if values.dtype.kind == "f" else 0
    if infinite:
        warn_user(
            f"{infinite} values are infinite: they are taken as no data (255). Look for a division by "
            "zero, or replace them with NaN: da.where(np.isfinite(da))",
            NoDataWarning,
        )
    # Counts that were not scaled are no gap: `check_units` says what they are.
    if not any(holds_data(block, calibration, COUNTS).any() for block in blocks):
        warn_user(
            "no pixel holds data in every band (the others are NaN, infinite or a nodata value), so the mask "
            "is 255 everywhere:",
            NoDataWarning,
            Remedy("check the area, the date and {}", Use(nodata=...)),
        )


def check_saturation(saturation: Any) -> None:
    """Refuse what is no reflectance, or no mapping of bands to it."""
    figures = saturation.values() if isinstance(saturation, Mapping) else [saturation]
    for figure in () if saturation is None or saturation == "auto" else figures:
        if isinstance(figure, bool) or not isinstance(figure, (int, float)) or not 0 < figure <= CEILING:
            raise UnitError(
                f" must be a reflectance above 0 and up to {CEILING:g}, as it is after scale and offset: one "
                "for all visible bands, or a mapping such as {'blue': 0.4, 'red': 0.4}; 'auto'; or None",
                option=Use(saturation=saturation),
            )


def saturation_of(saturation: float | Mapping[str, float] | str | None, bands: Sequence[Band]) -> Any:
    """Return from which reflectance on each band is saturated, infinite where it is not looked at; or None.

    It is given of all visible bands, or of each band by its name. Auto is `SATURATED` of all visible bands,
    where there are two or more: how alike they are is what tells then.

    Examples
    --------
    >>> saturation_of(0.4, [Band("B04", "red"), Band("B08", "nir")])
    (0.4, inf)
    """
    if not saturation:
        return None
    if saturation == "auto":
        seen = [_visible(band) for band in bands]
        return tuple(SATURATED if each else math.inf for each in seen) if sum(seen) > 1 else None
    names = [band.common_name or band.name for band in bands]
    if isinstance(saturation, Mapping):
        figures: dict[str, float] = {}
        for name, figure in saturation.items():
            band = next((band for band in bands if name in (band.common_name, band.name)), None)
            if band is None:
                raise OptionError("band of saturation", name, allowed=names)
            figures[band.name] = float(figure)
    else:
        figures = {band.name: float(saturation) for band in bands if _visible(band)}
    if not figures:
        raise BandError(
            f" speaks of visible bands, and the model is given {', '.join(names)}:",
            "name its bands, saturation={'nir': 0.6}, or leave it out",
            option=Use(saturation=saturation),
        )
    return tuple(figures.get(band.name, math.inf) for band in bands)


def _visible(band: Band) -> bool:
    if band.common_name is not None:
        return band.common_name in VISIBLE
    return band.center_nm is not None and band.center_nm < LONGEST_VISIBLE
