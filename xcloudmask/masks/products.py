"""Masks that come with products, in the classes of this library: tables of bits and codes, and their words.

Each bit or code of a product has a word; each word a class. Where several bits are set, the first of `ORDER`
counts. Items of a catalogue and arrays that list their classes need no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import NO_DATA, SCHEMES, SYNONYMS, VOCABULARY, plain_word
from xcloudmask.errors import CloudMaskError, NoDataWarning, OptionError, Remedy, names_checked, warn_user
from xcloudmask.scene.dims import BAND_DIMS
from xcloudmask.scene.mask_classes import numbers_of
from xcloudmask.scene.units import declared_nodata

#: Bits of a layer's numbers that are looked at.
BITS = 16
#: Classes, and what stands for one by an option: what the product is unsure of, its own margin around clouds;
#: where none of its bands is good, nothing else is known either. Of several that hold, the first counts.
ORDER = (
    "no_data", "cloud", "thin_cloud", "cloud_shadow", "margin", "snow", "unobserved", "unsure", "water",
    "clear",
)  # fmt: skip

#: Words of products, by what they mean here.
WORDS: Mapping[str, str] = {
    **dict.fromkeys(("dilated_cloud", "cloud_adjacent", "adjacent_to_cloud_shadow"), "margin"),
    "no_good_band": "unobserved",
    **dict.fromkeys(
        ("unclassified", "uncertain", "undefined", "cloud_low_probability",
         "clouds_low_probability_unclassified"),
        "unsure",
    ),
    **{
        word: SCHEMES["default"][1].get(name, name)
        for word, name in {**SYNONYMS, **dict(zip(VOCABULARY, VOCABULARY, strict=True))}.items()
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """Neighbouring bits, and the word for each number that they may hold; numbers without one say nothing."""

    offset: int
    length: int
    words: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Product:
    """What each number of a product's mask says."""

    fields: tuple[Field, ...]
    otherwise: str = "clear"  # or "no_data": a number of which no field says anything

    def table(self, bits: int) -> npt.NDArray[np.uint8]:
        """Return the place in `ORDER` of each number of so many bits."""
        numbers = np.arange(1 << bits)
        out = np.full(1 << bits, len(ORDER), np.uint8)
        for field in self.fields:
            held = (numbers >> field.offset) & ((1 << field.length) - 1)
            for number, word in field.words.items():
                place = ORDER.index(WORDS[word])
                out[held == number] = np.minimum(out[held == number], place)
        out[out == len(ORDER)] = ORDER.index(self.otherwise)
        return out


def _bits(*words: tuple[int, str]) -> tuple[Field, ...]:
    return tuple(Field(offset, 1, {1: word}) for offset, word in words)


_STATUS = (Field(3, 1, {0: "sea"}), Field(4, 4, {0: "no_good_band"}))
#: Products by name; docs/after.md says where each table is published.
PRODUCTS: Mapping[str, Product] = {
    "scl": Product(
        (
            Field(0, 16, dict(enumerate((
                "no_data", "saturated_or_defective", "dark_area_pixels", "cloud_shadows", "vegetation",
                "not_vegetated", "water", "unclassified", "cloud_medium_probability",
                "cloud_high_probability", "thin_cirrus", "snow",
            )))),
        ),
        otherwise="no_data",
    ),
    "qa_pixel": Product(_bits(
        (0, "fill"), (1, "dilated_cloud"), (2, "cirrus"), (3, "cloud"), (4, "cloud_shadow"), (5, "snow"),
        (7, "water"),
    )),
    "fmask": Product((
        *_bits(
            (1, "cloud"), (2, "adjacent_to_cloud_shadow"), (3, "cloud_shadow"), (4, "snow_ice"), (5, "water")
        ),
        Field(0, 16, {255: "fill"}),
    )),
    "l1c_classification": Product(_bits((0, "opaque"), (1, "cirrus"), (2, "snow_ice"), (7, "no_value"))),
    "probav": Product((
        Field(0, 3, {1: "shadow", 2: "undefined", 3: "cloud", 4: "ice", 5: "undefined", 6: "undefined",
                     7: "undefined"}),
        *_STATUS,
    )),
    "vgt": Product((
        Field(0, 2, {1: "shadow", 2: "uncertain", 3: "cloud"}), *_bits((2, "ice_or_snow")), *_STATUS,
    )),
}  # fmt: skip
#: Other names of the same.
ALIASES = {"msk_classi": "l1c_classification", "cld": "cldprb", "msk_cldprb": "cldprb"}
NAMES = (*PRODUCTS, *ALIASES, "cldprb")


@names_checked
def decode(
    da: xr.DataArray,
    product: str | Mapping[str, Any] | None = None,
    *,
    threshold: float = 40,
    unsure: str = "no_data",
    margin: bool = True,
) -> xr.DataArray:
    """Return the mask that came with a product in the classes of this library; lazy if it is.

    Parameters
    ----------
    da : DataArray
        The layer as it is stored.
    product : str or mapping, optional
        ``"scl"``, ``"qa_pixel"`` (Landsat Collection 2), ``"fmask"`` (HLS), ``"l1c_classification"`` or
        ``"msk_classi"`` (Sentinel-2 L1C), ``"probav"``, ``"vgt"`` or ``"cldprb"``; or what lists the classes:
        an item's asset with ``classification:bitfields`` or ``classification:classes``. By default the
        array's own attributes: these, or CF's ``flag_masks`` and ``flag_meanings``.
    threshold : float
        Of ``"cldprb"``: per cent from which it is cloud.
    unsure : {"no_data", "clear", "cloud"}
        What "unclassified" of SCL is, "undefined" of Proba-V, "uncertain" of SPOT-VGT.
    margin : bool
        Whether what a product marks around its clouds is cloud: dilated cloud of Landsat, adjacent to cloud
        or shadow of HLS. Otherwise it is as if it was not marked.

    Returns
    -------
    DataArray
        uint8 with the codes of the default scheme, 255 for no data, on the same pixels.

    Examples
    --------
    >>> layer = xr.DataArray(np.array([[0, 3, 4], [9, 10, 11]], "u1"), dims=("y", "x"))
    >>> decode(layer, "scl").values.tolist()
    [[255, 3, 0], [1, 2, 4]]
    """
    if unsure not in ("no_data", "clear", "cloud"):
        raise OptionError("unsure", unsure, allowed=("no_data", "clear", "cloud"))
    if not isinstance(margin, (bool, np.bool_)):  # "no" is true
        raise OptionError("margin", margin, allowed=(True, False))
    if da.dtype.kind not in "buif":
        raise OptionError("dtype of the layer", str(da.dtype), allowed=("whole numbers, or such as floats",))
    if not (
        isinstance(threshold, int | float | np.number) and threshold is not True and 0 < threshold <= 100
    ):
        raise OptionError("threshold", threshold, allowed=("above 0, up to 100 per cent",))
    if product is None and "flag_meanings" not in da.attrs:
        product = da.attrs.get("product")  # as `load_stac(masks=True)` names it
    name = ALIASES.get(product.lower(), product.lower()) if isinstance(product, str) else ""
    if isinstance(product, str) and name not in NAMES:
        raise OptionError("product", product, allowed=NAMES)
    if name == "l1c_classification":
        da = _one_plane(da)
    if name == "cldprb":
        layer, words = partial(_by_threshold, threshold=threshold), ["cloud", "clear"]
    else:
        known = _declared(product or da.attrs) if not isinstance(product, str) else PRODUCTS[name]
        if not margin:
            known = _without_margin(known)
        places = known.table(BITS)
        codes = _codes(unsure)[places]
        gaps = declared_nodata(da.attrs)
        listed = [field.words for field in known.fields if field.length == BITS]
        gaps += tuple(n for words in listed for n, word in words.items() if WORDS[word] == "no_data")
        for gap in gaps:
            if 0 <= gap < len(codes):
                codes[int(gap)] = NO_DATA
        layer = partial(_by_table, codes=codes, gaps=gaps)
        words = [ORDER[place] for place in np.unique(places)]
    out: xr.DataArray = xr.apply_ufunc(layer, da, dask="parallelized", output_dtypes=[np.uint8])
    scheme = SCHEMES["default"][0]
    held = [word for word in scheme if word in words or (word == unsure and "unsure" in words)]
    out.attrs = {
        "long_name": "cloud mask", "product": name or "by its classification",
        "flag_values": [*(scheme[word] for word in held), NO_DATA],
        "flag_meanings": " ".join([*held, "no_data"]),
        "nodata": NO_DATA,
    }  # fmt: skip
    out.encoding = {"fill_value": NO_DATA}
    return out.rename("cloud_mask")


def _declared(attrs: Any) -> Product:
    """Return what `declared` does; a list that is damaged is named."""
    if not isinstance(attrs, Mapping):
        raise OptionError("product", attrs, allowed=(*NAMES, "an asset as a mapping"))
    try:
        return declared(attrs)
    except CloudMaskError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CloudMaskError(
            f"the list of the classes of this layer is damaged: {error!r}",
            f"Correct it, or name the product ({', '.join(NAMES)})",
        ) from error


def _codes(unsure: str) -> npt.NDArray[np.uint8]:
    """Return the code of each place in `ORDER`."""
    scheme = {**SCHEMES["default"][0], "no_data": NO_DATA, "unobserved": NO_DATA}
    scheme |= {"margin": scheme["cloud"], "unsure": scheme[unsure]}
    return np.array([scheme[word] for word in ORDER], np.uint8)


def _without_margin(product: Product) -> Product:
    fields = [
        Field(field.offset, field.length, {n: w for n, w in field.words.items() if WORDS[w] != "margin"})
        for field in product.fields
    ]
    return Product(tuple(fields), product.otherwise)


def _by_table(
    values: npt.NDArray[Any], codes: npt.NDArray[np.uint8], gaps: tuple[float, ...]
) -> npt.NDArray[np.uint8]:
    """Look numbers up; NaN, fractions and what the table does not hold is no data."""
    if values.dtype in (np.uint8, np.uint16):
        classes: npt.NDArray[np.uint8] = codes[values]
        return classes
    inside = (values >= 0) & (values < len(codes)) & (values == np.floor(values))
    if values.dtype.kind == "f":  # as they are in its precision
        with np.errstate(over="ignore"):
            gaps = tuple(np.asarray(gaps, values.dtype))
    beyond = np.setdiff1d(values[np.isfinite(values) & ((values < 0) | (values >= len(codes)))], gaps)
    if beyond.size:
        warn_user(
            f"numbers such as {beyond[0]:.15g} are below 0 or have more than {BITS} bits, and are taken as "
            "no data (255): no product's mask has such",
            NoDataWarning,
            Remedy("Check which layer it is; if they stand for no data, say so in its attribute nodata"),
        )
    return np.where(inside, codes[np.where(inside, values, 0).astype(np.intp)], np.uint8(NO_DATA))


def _by_threshold(values: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.uint8]:
    scheme = SCHEMES["default"][0]
    out = np.where(values >= threshold, np.uint8(scheme["cloud"]), np.uint8(scheme["clear"]))
    return np.where((values >= 0) & (values <= 100), out, np.uint8(NO_DATA))


def _one_plane(da: xr.DataArray) -> xr.DataArray:
    """Return the three bands of MSK_CLASSI as bits: opaque cloud, cirrus, snow."""
    dim = next((dim for dim in BAND_DIMS if da.sizes.get(dim) == 3), None)
    if dim is None:
        return da
    return sum((da.isel({dim: k}, drop=True) > 0).astype(np.uint8) << k for k in range(3))  # type: ignore[return-value]


def declared(attrs: Mapping[str, Any]) -> Product:
    """Return what attributes, or an item's asset, list of their classes.

    Examples
    --------
    >>> declared({"flag_masks": [1, 2, 4], "flag_meanings": "OPAQUE CIRRUS SNOW_ICE"}).fields[0]
    Field(offset=0, length=1, words={1: 'opaque'})
    """
    places = [attrs, *(band for key in ("raster:bands", "bands") for band in attrs.get(key) or ())]
    for place in places:
        if "classification:bitfields" in place:
            return _telling(Product(tuple(_field(f) for f in place["classification:bitfields"])))
        if "classification:classes" in place:
            return _enumerated(_listed(place["classification:classes"]))
    meanings = attrs.get("flag_meanings", "")
    words = meanings.split() if isinstance(meanings, str) else list(meanings)
    if words and "flag_masks" in attrs:
        masks = [int(mask) for mask in numbers_of(attrs["flag_masks"])]
        values = [int(value) for value in numbers_of(attrs.get("flag_values", masks))]
        return _telling(Product(tuple(
            Field(low := (mask & -mask).bit_length() - 1, (mask >> low).bit_length(),
                  _known({value >> low: word}))
            for mask, value, word in zip(masks, values, words, strict=True)
        )))  # fmt: skip
    if words and "flag_values" in attrs:
        return _enumerated(dict(zip(map(int, numbers_of(attrs["flag_values"])), words, strict=True)))
    raise CloudMaskError(
        "nothing tells what the numbers of this layer mean: its attributes have no classification:bitfields, "
        "classification:classes or flag_meanings",
        f"Name the product ({', '.join(NAMES)}), or pass the item's asset",
    )


def _field(field: Mapping[str, Any]) -> Field:
    """Read a bit field. Of a single bit its own name counts: those of its classes are at times another's."""
    word = plain_word(field.get("name", ""))
    offset, length = (int(_entry(field, key, "a bit field")) for key in ("offset", "length"))
    if word.endswith("confidence"):
        classes = {}
    elif length == 1 and word in WORDS:
        classes = {1: word}
    else:
        classes = _listed(_entry(field, "classes", "a bit field"))
    return Field(offset, length, _known(classes))


def _listed(entries: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Return the name of each value in a list of classes."""
    return {int(_entry(each, "value", "a class")): _entry(each, "name", "a class") for each in entries}


def _entry(part: Mapping[str, Any], key: str, what: str) -> Any:
    """Return an entry of an item's classification; an error names the one that is missing."""
    if key not in part:
        raise CloudMaskError(
            f"{what} of the layer's classification has no {key!r}, only {', '.join(part) or 'nothing'}: "
            f"{dict(part)!r}",
            "Correct the item, or name the product",
        )
    return part[key]


def _known(words: Mapping[int, str]) -> dict[int, str]:
    return {number: plain_word(word) for number, word in words.items() if plain_word(word) in WORDS}


def _enumerated(words: Mapping[int, str]) -> Product:
    """Read codes that exclude each other."""
    named = {value: plain_word(word) for value, word in words.items()}
    unknown = [word for word in named.values() if word not in WORDS]
    if unknown:
        raise OptionError("class", unknown[0], allowed=WORDS, hint="Rename it in the list of classes.")
    return _telling(Product((Field(0, BITS, named),), otherwise="no_data"))


def _telling(product: Product) -> Product:
    """Refuse layers of something else, such as aerosols, and those of more bits than are looked at."""
    for field in product.fields:
        codes = [n for n, word in field.words.items() if WORDS[word] != "no_data"]  # others are no data, too
        if field.offset + field.length > BITS or any(not 0 <= n < 1 << field.length for n in codes):
            raise CloudMaskError(
                f"bits {field.offset} to {field.offset + field.length - 1} of this layer cannot be read as "
                f"{dict(field.words)}: decode reads numbers from 0 to {(1 << BITS) - 1}",
                "Turn the layer into such numbers, and list their classes",
            )
    meanings = {WORDS[word] for field in product.fields for word in field.words.values()}
    if not meanings & {"cloud", "thin_cloud"}:
        raise CloudMaskError(
            f"this layer tells nothing of clouds, but {', '.join(sorted(meanings)) or 'what is no class'}",
            "Pass the layer that does, such as SCL, QA_PIXEL or Fmask",
        )
    return product
