"""Sentinel-2's additive offset, decided once for an item from everything the item says.

Since processing baseline 04.00 (25 January 2022) ESA stores ``DN = 10000 * reflectance + 1000``, so that
reflectance is ``DN * 0.0001 - 0.1``; before it, there is no offset. Whether the pixels of an asset carry the
1000 follows from the baseline unless somebody changed them since. What items say of it, and what is decided:

====================  ==============  =================  ==========================================
flag [1]_             era [2]_        offset stated      decision
====================  ==============  =================  ==========================================
Terrascope TOC V2     any             none or 0          0: BOA already, whatever the baseline
Terrascope TOC V2     any             other              error
true, COG             any             any                0: shifted already (earth-search's band
                                                         offset -0.1 would be taken twice)
any, ESA's JPEG 2000  any             any                as with no flag: the flag is about the COG
false                 04.00 or later  other than 0       the stated one, with a warning [3]_
false                 04.00 or later  none               -0.1, with a warning [3]_
none, Earth Search's  04.00 or later, any                error: pixels of both kinds are served; the flag was
level-2A items        or by date                         left out of the search
none                  04.00 or later  other than 0       the stated one (-0.7 occurs: read, not assumed)
none                  04.00 or later  none               -0.1; with a warning if the catalogue is unknown
any but true          04.00 or later  0                  error: ESA's pixels or harmonised ones?
any but true          before 04.00    none or 0          0
any but true          before 04.00    other than 0       error; but 0 for the Copernicus Data Space,
                                                         whose generator writes -0.1 always
any but true          disputed        any                error: two baselines, on both sides of 04.00
any but true          before 04.00,   none or other      error: no such product was made; 0 is taken
                      sensed later    than 0             where 0 is stated
any but true          by date only,   other than 0       the stated one
                      since 2022
any but true          by date only,   none               -0.1, with a warning
                      since 2022
any but true          by date only,   0                  error
                      since 2022
any but true          unknown [4]_    other than 0       the stated one, with a warning
any but true          unknown [4]_    0                  0
any but true          unknown [4]_    none               0, with a warning
====================  ==============  =================  ==========================================

.. [1] ``earthsearch:boa_offset_applied`` or ``sentinel:boa_offset_applied``.
.. [2] From the processing baseline (properties, else the product's name). Collection 1 (baseline 05.00 and
   later, for acquisitions since 2015) is "04.00 or later" whatever its date. Baseline 99.99 tells nothing.
   With no baseline, a date of sensing since 2022-01-25 means "by date only, since 2022", and a product that
   was generated before that day is "before 04.00".
.. [3] Such items exist with shifted pixels and with ESA's (Element84/earth-search issues 66 and 71).
.. [4] Sensed before 2022-01-25, generated nobody knows when: a reprocessing cannot be excluded.

``sentinel2_offset="apply"`` takes the stated offset, or -0.1 where none other than 0 is stated;
``sentinel2_offset="skip"`` takes 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NoReturn

from xcloudmask.errors import UnitError
from xcloudmask.stac.profiles import Profile
from xcloudmask.stac.view import AssetView, ItemView

OffsetMode = Literal["auto", "apply", "skip"]
#: What the caller can do, in an error.
SETTLE_OFFSET = 'with sentinel2_offset="apply" (add the offset) or sentinel2_offset="skip" (add none).'

#: ESA's first products with an offset, by the day of sensing.
SWITCH_DATE = "2022-01-25"
#: Products of the switch's own day come in both forms; from here on an older baseline is a contradiction.
_SURELY_NEW = "2022-01-26"
_DIGITAL_OFFSET = -1000
_BASELINE_PROPERTIES = (
    "s2:processing_baseline",
    "sentinel:processing_baseline",
    "sentinel2:processing_baseline",
    "processing:version",
)
_NAME_PROPERTIES = ("s2:product_uri", "sentinel:product_id", "s2:datatake_id", "eopf:datatake_id")
_GENERATED_PROPERTIES = ("s2:generation_time", "sentinel2:generation_time", "processing:datetime")
_IN_NAME = re.compile(r"_N(\d{2})\.?(\d{2})(?!\d)")
_BASELINE = re.compile(r"N?(\d{2})\.?(\d{2})")


@dataclass(frozen=True, slots=True)
class OffsetEvidence:
    """Everything an item says that bears on its offset."""

    item_id: str
    scale: float
    stated: float | None = None
    flag: bool | None = None
    original: bool = False  # the asset is ESA's own JPEG 2000, which no flag concerns
    baseline: tuple[int, int] | None = None
    disputed: bool = False  # two baselines are given, one on each side of 04.00
    sensed: str | None = None
    generated: str | None = None
    listed: bool = False  # the catalogue is known to serve ESA's pixels, or to set the flag
    flagged: bool = False  # the catalogue sets the flag on every item since 04.00
    harmonised: bool = False  # the catalogue is known to serve reflectance with no offset
    constant: bool = False  # the catalogue states -0.1 whatever the baseline
    facts: tuple[str, ...] = ()  # the same for people


@dataclass(frozen=True, slots=True)
class OffsetDecision:
    """The offset in reflectance, the rule that gave it, and what a user should be warned of."""

    offset: float
    rule: str
    warning: str | None = None


def gather(
    view: ItemView, asset: AssetView, profile: Profile, *, scale: float, stated: float | None
) -> OffsetEvidence:
    """Collect what an item, and what is known of its catalogue, say of the offset of an asset."""
    flag_name, flag = _flag(view)
    facts = [] if flag is None else [f"{flag_name} = {flag}"]
    if stated is None:
        facts.append(f"asset {asset.key!r} states none")
    else:
        facts.append(f"offset of asset {asset.key!r} = {stated:g}")
    readings = _baselines(view)
    baseline = next(iter(readings.values()), None)
    facts += [f"{name}: processing baseline {a:02d}.{b:02d}" for name, (a, b) in readings.items()]
    if not readings:
        facts.append("no processing baseline")
    sensed = view.text("datetime", "start_datetime")
    generated = view.text(*_GENERATED_PROPERTIES)
    facts.append(f"sensed {sensed[:10]}" if sensed else "no date of sensing")
    if generated and baseline is None:
        facts.append(f"generated {generated[:10]}")
    if view.collection:
        facts.append(f"collection = {view.collection}")
    return OffsetEvidence(
        item_id=view.id,
        scale=scale,
        stated=stated,
        flag=flag,
        original=asset.is_jp2,
        baseline=baseline,
        disputed=len({value >= (4, 0) for value in readings.values()}) > 1,
        sensed=sensed,
        generated=generated,
        listed=profile.is_listed,
        flagged=profile.flagged,
        harmonised=profile.harmonised,
        constant=profile.constant_offset,
        facts=tuple(facts),
    )


def decide(evidence: OffsetEvidence, mode: OffsetMode = "auto") -> OffsetDecision:
    """Return the offset for `evidence`, by the table in this module's documentation.

    Examples
    --------
    >>> decide(OffsetEvidence("a", 1e-4, stated=-0.1, flag=True, baseline=(5, 9))).offset
    0.0
    >>> decide(OffsetEvidence("b", 1e-4, baseline=(5, 9), listed=True)).offset
    -0.1
    """
    default = _DIGITAL_OFFSET * evidence.scale
    if mode == "skip":
        return OffsetDecision(0.0, "asked for: skip")
    if mode == "apply":
        return OffsetDecision(evidence.stated or default, "asked for: apply")
    if evidence.harmonised:
        if evidence.stated:
            _contradiction(evidence, "the catalogue's pixels are known to carry no offset")
        return OffsetDecision(0.0, "this catalogue's pixels carry no offset, whatever the baseline")
    if evidence.original:
        evidence = replace(evidence, flag=None)
    if evidence.flag:
        return OffsetDecision(0.0, "flag: the catalogue shifted these pixels already")
    if evidence.disputed:
        _contradiction(evidence, "it gives two processing baselines, one before and one since 04.00")
    era = _era(evidence)
    if era == "old":
        return _before_0400(evidence)
    if era == "unknown":
        return _unknown_era(evidence)
    if evidence.flagged and evidence.flag is None and not evidence.original:
        raise UnitError(
            f"item {evidence.item_id!r}: whether its pixels still carry the Sentinel-2 offset is told by"
            " boa_offset_applied, which Earth Search sets and this item lacks. The item says:"
            f" {'; '.join(evidence.facts)}. Search without fields=, or settle it {SETTLE_OFFSET}"
        )
    return _since_0400(evidence, default, by_date=era == "new by date")


def _before_0400(evidence: OffsetEvidence) -> OffsetDecision:
    late = evidence.baseline is not None and (evidence.sensed or "") >= _SURELY_NEW
    if late and evidence.stated != 0:
        _contradiction(
            evidence, f"no product sensed after {SWITCH_DATE} was made with a baseline before 04.00"
        )
    rule = "processing baseline before 04.00: no offset"
    if evidence.stated and evidence.constant:
        rule += "; this catalogue states one for every product"
    elif evidence.stated:
        _contradiction(evidence, "products before baseline 04.00 carry no offset, but one is stated")
    return OffsetDecision(0.0, rule)


def _since_0400(evidence: OffsetEvidence, default: float, *, by_date: bool) -> OffsetDecision:
    if evidence.stated == 0:
        _contradiction(
            evidence, "products since baseline 04.00 carry an offset, but 0 is stated: are they harmonised?"
        )
    offset = evidence.stated or default
    rule = "the offset stated by the item" if evidence.stated else "processing baseline 04.00 or later"
    if evidence.flag is False:
        return OffsetDecision(
            offset,
            f"{rule}; flag: not applied yet",
            f"boa_offset_applied is false, so {offset:g} is added; some such items hold pixels that "
            "were shifted already (Element84/earth-search issues 66 and 71): if reflectance comes out low, "
            'give sentinel2_offset="skip"',
        )
    if evidence.stated is None and by_date:
        return OffsetDecision(
            offset,
            f"sensed since {SWITCH_DATE}",
            f"no processing baseline is given; sensed since {SWITCH_DATE}, so {offset:g} is added",
        )
    if evidence.stated is None and not evidence.listed:
        return OffsetDecision(
            offset,
            rule,
            f"no offset is stated; by its processing baseline {offset:g} is added, which is wrong if this "
            "catalogue serves harmonised pixels",
        )
    return OffsetDecision(offset, rule)


def _unknown_era(evidence: OffsetEvidence) -> OffsetDecision:
    if evidence.stated == 0:
        return OffsetDecision(0.0, "the offset stated by the item")
    doubt = f"no processing baseline is given, and products sensed before {SWITCH_DATE} exist in both forms"
    if evidence.stated:
        return OffsetDecision(
            evidence.stated,
            "the offset stated by the item",
            f"{doubt}; {evidence.stated:g} is added as stated",
        )
    return OffsetDecision(0.0, f"sensed before {SWITCH_DATE}", f"{doubt}; no offset is added")


def _era(evidence: OffsetEvidence) -> Literal["old", "new", "new by date", "unknown"]:
    if evidence.baseline is not None:
        return "new" if evidence.baseline >= (4, 0) else "old"
    if (evidence.sensed or "") >= SWITCH_DATE:
        return "new by date"
    if evidence.generated and evidence.generated < SWITCH_DATE:
        return "old"
    return "unknown"


def _contradiction(evidence: OffsetEvidence, why: str) -> NoReturn:
    raise UnitError(
        f"item {evidence.item_id!r}: the Sentinel-2 offset is contradictory: {why}. "
        f"The item says: {'; '.join(evidence.facts)}. Settle it {SETTLE_OFFSET}"
    )


def _flag(view: ItemView) -> tuple[str, bool | None]:
    for name in ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied"):
        value = view.properties.get(name)
        if value is not None:
            return name, value if isinstance(value, bool) else str(value).lower() == "true"
    return "", None


def baseline_text(view: ItemView) -> str | None:
    """Return a Sentinel-2 item's processing baseline as ``"05.09"``, None where it does not tell."""
    baseline = next(iter(_baselines(view).values()), None)
    return f"{baseline[0]:02d}.{baseline[1]:02d}" if baseline else None


def _baselines(view: ItemView) -> dict[str, tuple[int, int]]:
    """Return every processing baseline the item tells, by where; the properties come first."""
    readings: dict[str, tuple[int, int]] = {}
    for name in _BASELINE_PROPERTIES:
        match = _BASELINE.fullmatch(view.text(name) or "")
        if match:
            readings[name] = (int(match[1]), int(match[2]))
    for name, text in (*((n, view.text(n)) for n in _NAME_PROPERTIES), ("id", view.id)):
        in_name = _IN_NAME.search(text or "")
        if in_name:
            readings[name] = (int(in_name[1]), int(in_name[2]))
    return {name: value for name, value in readings.items() if value < (99, 0)}  # 99.99: made by hand
