"""Which band of a sensor does a label mean? Labels come from asset keys, file names and variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from xcloudmask.errors import BandError
from xcloudmask.types import Band, Sensor

#: Words that may stand beside a band's name and say nothing of which band it is.
_BESIDE = frozenset(
    "sr st toa toc boa rho refl reflectance radiometry oli tirs tm etm mss msi hls probav "  # noqa: SIM905
    "tif tiff jp2 img hdf5 band".split()
)
_RESOLUTION_OR_VERSION = re.compile(r"\d+k?m|v\d+")
_DATE = re.compile(r"\d{7,8}(t\d{6})?z?")
#: Common names that older catalogues use for any band of the family.
_FAMILIES = ("rededge", "nir", "swir", "lwir")

_Index = Mapping[str, tuple[Band, ...]]


def band_key(name: str) -> str:
    """Reduce a band's name to what must agree: lower-case letters and digits, no zero padding.

    Examples
    --------
    >>> band_key("B04") == band_key("b4") == band_key("Band 4")
    True
    """
    key = re.sub(r"[\W_]", "", name.casefold())
    key = re.sub(r"^band(?=\d)", "b", key)
    return re.sub(r"(?<!\d)0+(?=\d)", "", key)


def match(labels: Sequence[str], sensor: Sensor) -> tuple[Band | None, ...]:
    """Return the band of `sensor` that each label means, None where it means none of them.

    A label is a band's name, alias or common name. Case, separators and zero padding do not matter, nor
    do the level or instrument before it, the pixel size after it, or the product's id and a file's
    ending around it. A bare number is no label, nor is ``band_1`` (it may count the file's bands as well
    as the sensor's), except where the sensor's own names are like that.

    Parameters
    ----------
    labels : sequence of str
        One for each band of an array.
    sensor : Sensor
        Whose bands they may be.

    Returns
    -------
    tuple of Band or None
        One for each label.

    Raises
    ------
    BandError
        Where a label may mean several bands (``"rededge"`` for Sentinel-2), or two labels the same band.

    Examples
    --------
    >>> from xcloudmask.sensors import get, match
    >>> [band and band.name for band in match(["b4", "B8A_20m", "swir22", "SCL"], get("sentinel-2"))]
    ['B04', 'B8A', 'B12', None]
    >>> match(["LC08_L2SP_194023_20200101_20200110_02_T1_SR_B4.TIF"], get("landsat-8"))[0].name
    'B4'
    """
    if isinstance(labels, str):
        labels = [labels]
    indexes = _index(sensor)
    counted = {name for band in sensor.bands for name in (band.name, *band.aliases) if is_counter(name)}
    found = tuple(
        None if is_counter(str(label)) and not counted else _find(str(label), indexes, sensor)
        for label in labels
    )
    claimed: dict[str, str] = {}
    for label, band in zip(labels, found, strict=True):
        if band is None:
            continue
        if band.name in claimed:
            raise BandError(
                f"labels {claimed[band.name]!r} and {str(label)!r} both mean band {band.name} of "
                f"{sensor.name}. Drop one of them, or rename it."
            )
        claimed[band.name] = str(label)
    return found


def is_counter(label: str) -> bool:
    """Whether a label does no more than count bands: ``3``, ``band_3``, ``Band 3``.

    Examples
    --------
    >>> is_counter("band_1"), is_counter("B1"), is_counter("band_8A"), is_counter("sr_band4")
    (True, False, False, False)
    """
    return re.fullmatch(r"(band)?[\W_]*\d+", label.strip().casefold()) is not None


def _index(sensor: Sensor) -> tuple[_Index, ...]:
    """Return the places to look a label up in, the most telling first."""
    own: dict[str, tuple[Band, ...]] = {}
    common: dict[str, tuple[Band, ...]] = {}
    family: dict[str, tuple[Band, ...]] = {}
    for band in sensor.bands:
        for key in {band_key(name) for name in (band.name, *band.aliases)}:
            own[key] = (*own.get(key, ()), band)
        if band.common_name:
            key = band_key(band.common_name)
            common[key] = (*common.get(key, ()), band)
            for name in _FAMILIES:
                if key.startswith(name):
                    family[name] = (*family.get(name, ()), band)
    return own, common, family


def _find(label: str, indexes: Sequence[_Index], sensor: Sensor) -> Band | None:
    """Look for the longest end of the label that names a band, with nothing telling before it."""
    words = [word for word in re.split(r"[\W_]+", label.casefold()) if word]
    bare = list(words)
    while len(bare) > 1 and (bare[-1] in _BESIDE or _RESOLUTION_OR_VERSION.fullmatch(bare[-1])):
        bare.pop()
    for tail in (words, bare):
        for start in range(len(tail)):
            bands = _look_up("".join(tail[start:]), indexes)
            if not bands or not _says_nothing(tail[:start]):
                continue
            beside = [_look_up(word, indexes) for word in tail[:start]]
            meant = dict.fromkeys(band.name for some in (*beside, bands) for band in some)
            if len(meant) > 1:
                raise BandError(
                    f"label {label!r} may mean any of the bands {', '.join(meant)} of {sensor.name}; "
                    "use the name of the one that is meant."
                )
            return bands[0]
    return None


def _look_up(name: str, indexes: Sequence[_Index]) -> tuple[Band, ...]:
    key = band_key(name)
    return next((index[key] for index in indexes if key in index), ())


def _says_nothing(words: Sequence[str]) -> bool:
    """Tell whether the words before a band's name are a product's id or other known ballast.

    ``qa`` in ``qa_B4`` or ``cloud`` in ``cloud_B4`` do say something: that is not the band.
    """
    dates = [i for i, word in enumerate(words) if _DATE.fullmatch(word)]
    after_id = words[dates[-1] + 1 :] if dates else words
    return all(word in _BESIDE or any(c.isdigit() for c in word) for word in after_id)
