"""From an item's metadata to the scale and offset that turn its numbers into reflectance or kelvin.

`calibrate` is the one entry: it takes the assets chosen and gives an `Source` for each. What the item
states wins; what its catalogue is known to mean fills the gaps; what neither tells is an error, no guess.

Landsat level 1 needs the scene's MTL file, since its items state radiance or nothing: reflectance at the top
of the atmosphere is ``(M * DN + A) / sin(sun elevation)``, folded here into scale and offset; thermal bands
get their radiance coefficients and K1, K2. The same holds for the Multispectral Scanner, whose Collection 2
MTL files carry reflectance coefficients too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xcloudmask.errors import AssetError, UnitError
from xcloudmask.stac import mtl
from xcloudmask.stac.assumptions import Assumption
from xcloudmask.stac.figures import check_sun, figure
from xcloudmask.stac.item_plan import Source
from xcloudmask.stac.match_assets import Choice
from xcloudmask.stac.offset import (
    SETTLE_OFFSET,
    OffsetDecision,
    OffsetEvidence,
    OffsetMode,
    decide,
    gather,
)
from xcloudmask.stac.profiles import Numbers, Profile
from xcloudmask.stac.view import ItemView

ReadText = Callable[[str], str]

#: Reflectance of one number of ESA's.
_DIGITAL_STEP = 1e-4
_MTL_FORMS = (".json", ".xml", ".txt", "")
_BAND_IN_NAME = re.compile(r"(?:^|_)B(\d{1,2}(?:_VCID_\d)?)\.", re.I)
SUN_REMEDY = "Give it in degrees: sun_elevation=..."
_STATE_SCALE = (
    "State them in the item before loading it, as 'raster:scale', 'raster:offset' and 'nodata' of the asset."
)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The plan of each asset, and how the numbers came about."""

    assets: tuple[Source, ...]
    rule: str = "none"
    evidence: tuple[str, ...] = ()
    sun_elevation: float | None = None
    assumptions: tuple[Assumption, ...] = ()


def calibrate(
    view: ItemView,
    choices: Sequence[Choice],
    profile: Profile,
    *,
    offset: OffsetMode = "auto",
    sun_elevation: float | None = None,
    read_text: ReadText | None = None,
    every: bool = False,
) -> Calibrated:
    """Return the plan of each chosen asset; an error where what its numbers mean is not known.

    `read_text` fetches the MTL file of a Landsat level-1 scene. If the bands are `every` one that the item
    has, and were not asked for by name, those that this file says were not recorded are left out.
    """
    if profile.calibration == "landsat-mtl":
        key, groups = _read_mtl(view, choices, read_text)
        if every:
            named = ((choice, f"{_quantity(choice)}_MULT_BAND_{_band_number(choice)}") for choice in choices)
            choices = [choice for choice, key in named if not mtl.is_null(groups, mtl.RESCALING, key)]
        return _from_mtl(view, choices, profile, sun_elevation, key, groups)
    plans = tuple(_stated(view, choice, profile) for choice in choices)
    if profile.calibration == "sentinel-2":
        return replace(_sentinel_2(view, choices, plans, profile, offset), sun_elevation=sun_elevation)
    is_stated = any(choice.entry.scale is not None for choice in choices)
    source = "the item" if is_stated else f"the product's definition ({profile.catalogue})"
    return Calibrated(plans, f"scale and offset from {source}", (), sun_elevation)


def _stated(view: ItemView, choice: Choice, profile: Profile) -> Source:
    """Return what the item states of one asset, the profile filling the gaps."""
    entry, band, key = choice.entry, choice.band, choice.asset.key
    default = profile.numbers.get(band.kind, Numbers())
    where = f"item {view.id!r}, asset {key!r}"
    if entry.unit and entry.unit.lower().startswith("w"):  # watt/steradian/square_meter/micrometer
        raise UnitError(f"{where}: its scale gives radiance ({entry.unit}), not reflectance. {_STATE_SCALE}")
    if band.kind == "reflectance" and entry.offset is not None:
        figure(entry.offset, "raster:offset", where, _STATE_SCALE, range_of="offset")
    if not all(math.isfinite(number) for number in (entry.scale or 0.0, entry.offset or 0.0)):
        stated = f"a scale of {entry.scale} and an offset of {entry.offset}"
        raise UnitError(f"{where}: {stated} are no numbers to calibrate with. {_STATE_SCALE}")
    scale = entry.scale if entry.scale is not None else default.scale
    if _is_float(choice):
        scale = 1.0  # the product's scale is for its whole numbers
    if scale is None:
        raise UnitError(
            f"{where}: scale and offset are neither stated nor known for this catalogue (collection "
            f"{view.collection!r}). {_STATE_SCALE}"
        )
    if band.kind == "reflectance" and (scale > 1 or (scale == 1 and entry.is_integer) or scale <= 0):
        raise UnitError(
            f"{where}: a scale of {scale:g} does not give reflectance from 0 to 1 (STAC multiplies: "
            f"value = number * scale + offset). {_STATE_SCALE}"
        )
    if band.kind == "reflectance":
        figure(scale, "raster:scale", where, _STATE_SCALE, range_of="scale")
    offset = entry.offset
    if offset is None:  # STAC's own default is 0; but a scale that is the product's comes with its offset
        offset = (default.offset or 0.0) if scale == default.scale else 0.0
    return Source(
        key=key,
        href=choice.asset.href,
        band=band,
        scale=scale,
        offset=offset,
        nodata=entry.nodata if entry.nodata is not None else default.nodata,
        index=choice.index,
        dtype=entry.data_type or ("int" if profile.is_listed else None),  # no listed product is of floats
    )


def _is_float(choice: Choice) -> bool:
    """Tell if an item says that its pixels are floating point, and no scale: they are values already."""
    entry = choice.entry
    return entry.scale is None and bool(entry.data_type) and not entry.is_integer


def _sentinel_2(
    view: ItemView, choices: Sequence[Choice], plans: tuple[Source, ...], profile: Profile, mode: OffsetMode
) -> Calibrated:
    """Decide the offset once for all assets that say the same, and see that they do."""
    decided: dict[tuple[object, ...], tuple[OffsetEvidence, float, str]] = {}
    assets: list[Source] = []
    assumptions: list[Assumption] = []
    for choice, plan in zip(choices, plans, strict=True):
        if choice.asset.is_from_store and mode == "auto":  # the store itself was read: it cannot be wrong
            assets.append(plan)
            continue
        kind = (choice.entry.offset, choice.asset.is_jp2, plan.scale, _is_float(choice))
        if kind not in decided:
            scale = _DIGITAL_STEP if _is_float(choice) else plan.scale
            evidence = gather(view, choice.asset, profile, scale=scale, stated=choice.entry.offset)
            decision = decide(evidence, mode)
            if _is_float(choice) and mode == "auto" and evidence.stated is None and decision.offset:
                decision = OffsetDecision(
                    0.0,
                    "floating point: reflectance already",
                    "its pixels are floating point and state no scale, so they are taken as reflectance from"
                    " which the offset was taken already",
                )
            if decision.warning:
                remedy = 'sentinel2_offset="apply" or sentinel2_offset="skip" settles it.'
                assumptions.append(Assumption(decision.warning, "; ".join(evidence.facts), remedy))
            decided[kind] = (evidence, decision.offset, decision.rule)
        assets.append(replace(plan, offset=decided[kind][1]))
    differ = len({bool(evidence.stated) for evidence, _, _ in decided.values()}) > 1
    if mode == "auto" and differ and len({taken for _, taken, _ in decided.values()}) > 1:
        stated = ", ".join(
            f"{c.asset.key} {'none' if c.entry.offset is None else format(c.entry.offset, 'g')}"
            for c in choices
        )
        raise UnitError(
            f"item {view.id!r}: the Sentinel-2 offset is contradictory: its bands state different ones:"
            f" {stated}. Settle it {SETTLE_OFFSET}"
        )
    rules = dict.fromkeys(rule for _, _, rule in decided.values()) or ("what the store's arrays state",)
    facts = dict.fromkeys(fact for evidence, _, _ in decided.values() for fact in evidence.facts)
    return Calibrated(tuple(assets), "; ".join(rules), tuple(facts), assumptions=tuple(assumptions))


def _from_mtl(
    view: ItemView,
    choices: Sequence[Choice],
    profile: Profile,
    sun_elevation: float | None,
    key: str,
    groups: mtl.Groups,
) -> Calibrated:
    elevation = sun_elevation
    if elevation is None:
        elevation = mtl.mtl_number(groups, mtl.IMAGE, "SUN_ELEVATION", f"item {view.id!r}, asset {key!r}")
    assets = tuple(_mtl_plan(view, choice, profile, groups, key, elevation) for choice in choices)
    rule = "coefficients of the MTL file over the sine of the sun's elevation"
    return Calibrated(assets, rule, (f"asset {key!r}", f"sun elevation = {elevation}"), elevation)


def _quantity(choice: Choice) -> str:
    return "RADIANCE" if choice.band.kind == "brightness_temperature" else "REFLECTANCE"


def _mtl_plan(
    view: ItemView,
    choice: Choice,
    profile: Profile,
    groups: mtl.Groups,
    mtl_key: str,
    elevation: float | None,
) -> Source:
    band, number, quantity = choice.band, _band_number(choice), _quantity(choice)
    thermal = quantity == "RADIANCE"

    def coefficient(name: str, places: tuple[str, ...] = mtl.RESCALING) -> float:
        where = f"item {view.id!r}, asset {choice.asset.key!r}: the MTL file {mtl_key!r}"
        remedy = f"Leave band {band.name} out, or give the MTL file of this scene."
        return mtl.coefficient(groups, places, f"{name}_BAND_{number}", where, remedy)

    scale, offset = coefficient(f"{quantity}_MULT"), coefficient(f"{quantity}_ADD")
    if not thermal:
        sine = math.sin(math.radians(check_sun(elevation, f"item {view.id!r}", SUN_REMEDY)))
        scale, offset = scale / sine, offset / sine
    default = profile.numbers.get(band.kind, Numbers())
    return Source(
        key=choice.asset.key,
        href=choice.asset.href,
        band=band,
        scale=scale,
        offset=offset,
        nodata=choice.entry.nodata if choice.entry.nodata is not None else default.nodata,
        k1=coefficient("K1_CONSTANT", mtl.THERMAL) if thermal else None,
        k2=coefficient("K2_CONSTANT", mtl.THERMAL) if thermal else None,
        index=choice.index,
    )


def _band_number(choice: Choice) -> str:
    """Return ``"4"`` or ``"6_VCID_1"``: from the file's name, else from the band's."""
    in_name = _BAND_IN_NAME.search(choice.asset.href.rsplit("/", 1)[-1].split("?", 1)[0])
    return (in_name[1] if in_name else choice.band.name.removeprefix("B").lstrip("0")).upper()


def _read_mtl(
    view: ItemView, choices: Sequence[Choice], read_text: ReadText | None
) -> tuple[str, mtl.Groups]:
    keys = [key for key in view.assets if key.lower().partition(".")[0] == "mtl"]
    if not keys:
        raise UnitError(
            f"item {view.id!r}: Landsat level 1 needs the coefficients of its MTL file, and no asset is "
            f"one; assets: {', '.join(view.assets)}. Add it to the item as asset 'MTL.json'."
        )
    key = min(keys, key=lambda k: _MTL_FORMS.index(next(f for f in _MTL_FORMS if k.lower().endswith(f))))
    radiance = next((c for c in choices if (c.entry.unit or "").startswith("watt")), None)
    if read_text is None:
        why = f"asset {radiance.asset.key!r} states radiance only" if radiance else "the item states no scale"
        raise UnitError(
            f"item {view.id!r}: Landsat level 1 needs the coefficients of its MTL file (asset {key!r}; "
            f"{why}). Give read_text=, a function that returns the text of an href."
        )
    text = read_text(view.assets[key].href)
    try:
        return key, mtl.parse_mtl(text, where=f"item {view.id!r}, asset {key!r}")
    except UnitError as error:
        raise AssetError(f"{error}. The file is truncated, or a page that asks for a login.") from error
