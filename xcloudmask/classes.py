"""Class schemes and the matrices that map a model's classes into them, as data."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.types import ModelSpec, Scheme

NO_DATA = 255

#: Words that a model may use for its output channels.
VOCABULARY: tuple[str, ...] = (
    "clear", "land", "water", "snow", "cloud", "thick_cloud", "thin_cloud", "cloud_shadow", "no_data",
)  # fmt: skip

#: What products and catalogues call the same, in lower case with underscores.
SYNONYMS: Mapping[str, str] = {
    word: name
    for name, words in {
        "no_data": "nodata fill no_value novalue missing saturated_or_defective saturated_defective",
        "clear": "clear_sky no_cloud not_cloud vegetation not_vegetated bare_soils "
        "dark_area_pixels dark_features topographic_casted_shadows",
        "water": "sea",
        "snow": "ice snow_ice snow_or_ice ice_or_snow",
        "cloud": "clouds cloudy opaque opaque_cloud opaque_clouds cloud_medium_probability "
        "cloud_high_probability clouds_medium_probability clouds_high_probability",
        "thin_cloud": "thin_cirrus cirrus cirrus_cloud cirrus_clouds",
        "cloud_shadow": "shadow shadows cloud_shadows",
    }.items()
    for word in words.split()
}

SHADOW, SNOW = "cloud_shadow", "snow"
#: What a network may say of a pixel that holds nothing; every scheme has the code `NO_DATA` for it.
EMPTY = "no_data"
#: Kinds of cloud, the surest first.
SURER = ("cloud", "thick_cloud", "thin_cloud")
CLOUDY = frozenset(SURER)
#: Classes taken out of a scene, and classes that count as clear, unless the caller says otherwise.
DROP = (*SURER, "cloud_shadow")
CLEAR = ("clear", "not_cloud", "land", "snow", "water")

#: For each scheme: code and name of its classes, and the scheme's word for each of the vocabulary's.
SCHEMES: Mapping[str, tuple[Mapping[str, int], Mapping[str, str]]] = {
    "default": (
        {"clear": 0, "cloud": 1, "thin_cloud": 2, "cloud_shadow": 3, "snow": 4, "water": 5},
        {"land": "clear", "thick_cloud": "cloud"},
    ),
    "binary": (
        {"not_cloud": 0, "cloud": 1},
        {"clear": "not_cloud", "land": "not_cloud", "water": "not_cloud", "snow": "not_cloud",
         "cloud_shadow": "not_cloud", "thick_cloud": "cloud", "thin_cloud": "cloud"},
    ),
    "cloudsen12": (
        {"clear": 0, "thick_cloud": 1, "thin_cloud": 2, "cloud_shadow": 3},
        {"land": "clear", "water": "clear", "snow": "clear", "cloud": "thick_cloud"},
    ),
    "senseiv2": (
        {"land": 0, "water": 1, "snow": 2, "thin_cloud": 3, "thick_cloud": 4, "cloud_shadow": 5},
        {"cloud": "thick_cloud"},
    ),
}  # fmt: skip

#: Colours of Okabe and Ito (2008), which colour-blind people tell apart; light ones, because shadow is dark,
#: and none of them white, because cloud is.
COLOURS: Mapping[str, str] = {
    "clear": "#EDF3E4", "not_cloud": "#EDF3E4", "land": "#EDF3E4",
    "cloud": "#E69F00", "thick_cloud": "#E69F00", "thin_cloud": "#F0E442",
    "cloud_shadow": "#CC79A7", "snow": "#56B4E9", "water": "#0072B2", "masked": "#E69F00", "same": "#EDF3E4",
}  # fmt: skip
#: For classes with other names, in turn.
OTHER_COLOURS = ("#D55E00", "#009E73", "#000000", "#56B4E9", "#CC79A7", "#0072B2", "#F0E442")
#: No data, and the lines that it is hatched with.
GAP_FACE, GAP_LINES = "#D9D9D9", "#8C8C8C"

SCHEME_NAMES: tuple[str, ...] = (*SCHEMES, "native")


def plain_word(text: str) -> str:
    """Return a class's name in lower case with underscores.

    Examples
    --------
    >>> plain_word("Snow/Ice"), SYNONYMS[plain_word("Snow/Ice")]
    ('snow_ice', 'snow')
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def cloud_channels(spec: ModelSpec) -> tuple[int, ...]:
    """Return which of a model's channels are of cloud.

    Examples
    --------
    >>> from xcloudmask import models
    >>> models.get("spectral").classes, cloud_channels(models.get("spectral"))
    (('clear', 'thick_cloud', 'thin_cloud', 'cloud_shadow'), (1, 2))
    """
    return tuple(place for place, name in enumerate(spec.classes) if name in CLOUDY)


def surest_cloud_channel(spec: ModelSpec) -> int:
    """Return which channel of a model a pixel belongs to that is cloud for sure, if it has one.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> TOY.classes[surest_cloud_channel(TOY)]
    'cloud'
    """
    return next(spec.classes.index(name) for name in SURER if name in spec.classes)


def scheme(name: str, classes: tuple[str, ...]) -> Scheme:
    """Return how a model with these `classes` answers in the scheme called `name`.

    Examples
    --------
    >>> s = scheme("default", ("clear", "thick_cloud", "cloud_shadow"))
    >>> s.codes, s.names
    ((0, 1, 3), ('clear', 'cloud', 'cloud_shadow'))
    >>> scheme("binary", ("land", "thin_cloud", "no_data")).codes
    (0, 1, 255)
    """
    if name not in SCHEME_NAMES:
        raise OptionError("scheme", name, allowed=SCHEME_NAMES)
    unknown = set(classes) - set(VOCABULARY)
    if unknown and name != "native":
        raise CloudMaskError(
            f"classes {sorted(unknown)} are none of {', '.join(VOCABULARY)}; use scheme='native'"
        )
    if name == "native":
        codes: Mapping[str, int] = {word: code for code, word in enumerate(classes)}
        words: Mapping[str, str] = {}
    else:
        codes, words = SCHEMES[name]
    if EMPTY in classes:
        codes = {**codes, EMPTY: NO_DATA}
    target = [words.get(word, word) for word in classes]
    lost = [word for word, to in zip(classes, target, strict=True) if to not in codes]
    if lost:
        raise CloudMaskError(
            f"scheme {name!r} has the classes {', '.join(codes)}: the model's {', '.join(lost)} is none of "
            "them and cannot be split; use scheme='default' or 'native'"
        )
    names = tuple(word for word in codes if word in target)
    return Scheme(
        name=name,
        codes=tuple(codes[word] for word in names),
        names=names,
        matrix=tuple(tuple(float(to == word) for to in target) for word in names),
        cloudy=tuple(word in CLOUDY for word in names),
    )


def class_colours(names: Sequence[str] | Mapping[str, int]) -> dict[str, str]:
    """Return the colour of each class.

    Examples
    --------
    >>> class_colours(["clear", "cloud", "haze"])
    {'clear': '#EDF3E4', 'cloud': '#E69F00', 'haze': '#D55E00'}
    """
    taken = {COLOURS[name] for name in names if name in COLOURS}
    free = [colour for colour in OTHER_COLOURS if colour not in taken]
    others = iter(free * (1 + len(names) // len(free)))
    return {
        name: GAP_FACE if name == "no_data" else COLOURS[name] if name in COLOURS else next(others)
        for name in names
    }
