"""The card of a model: as text to read, and as the JSON file that lies beside weights."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from xcloudmask import types
from xcloudmask.errors import OptionError, WeightsError
from xcloudmask.types import ModelSpec

#: The version of the file's form; another one is refused, not guessed at.
FORMAT = 1


class Card(str):
    """The card of a model as text, which a notebook shows as it is printed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def text(spec: ModelSpec, width: int = 100) -> Card:
    """Return the card of a model as text.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> print(text(TOY).splitlines()[0])
    toy 1: random weights, for tests
    """
    title = f"{spec.name} {spec.version}: {spec.description or 'no description'}"
    rows = rows_of(spec)
    margin = max(len(label) for label, _ in rows) + 4
    lines = textwrap.wrap(title, width)
    for label, value in rows:
        body = textwrap.wrap(value, max(width - margin, 20), break_long_words=False, break_on_hyphens=False)
        lines.append(f"  {label:<{margin - 2}}{body[0]}")
        lines += [" " * margin + more for more in body[1:]]
    return Card("\n".join(lines))


def rows_of(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the rows of a model's card, label and value: one for each field that is not empty.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> dict(rows_of(TOY))["pixel"]
    '20-40 m; finer input is averaged to it, and the mask brought back'
    """
    rows = []
    for entry in fields(spec):
        label = entry.metadata.get("label", entry.name.replace("_", " "))
        words = _WORDS.get(entry.name)
        value = words(spec) if words else _plain(getattr(spec, entry.name))
        if label and value:
            rows.append((label, value))
    return rows


def pixels(spec: ModelSpec) -> str:
    """Return the pixel sizes that a model takes, in words.

    Examples
    --------
    >>> from xcloudmask.testing import COUNTING
    >>> pixels(COUNTING)
    'any'
    """
    if spec.gsd is None:
        return "any" if spec.finest_pixel is None else f"{spec.finest_pixel:g} m or more"
    low, high = spec.gsd
    size = f"{low:g} m" if low == high else f"{low:g}-{high:g} m"
    return f"{size}; finer input is averaged to it, and the mask brought back"


def _thresholds(spec: ModelSpec) -> str:
    named = (("cloud", spec.threshold), ("cloud shadow", spec.shadow_threshold))
    return "; ".join(
        f"{name} at a probability of {value:g} or more" for name, value in named if value is not None
    )


def _units(spec: ModelSpec) -> str:
    mean, std = (", ".join(f"{value:.4g}" for value in numbers or ()) for numbers in (spec.mean, spec.std))
    normalised = f"; normalised as (x - {mean or 0}) / {std or 1}" if mean or std else ""
    return "reflectance, 0 to 1" + normalised


def _members(spec: ModelSpec) -> str:
    weights = spec.member_weights or ("",) * len(spec.members)
    names = [f"{weight} {each.name}".strip() for weight, each in zip(weights, spec.members, strict=True)]
    return f"{spec.reduce} of {', '.join(names)}" if names else ""


def _plain(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None or value is False else "yes" if value is True else str(value)


#: Fields whose row is more than their value.
_WORDS: Mapping[str, Callable[[ModelSpec], str]] = {
    "bands": lambda spec: spec.needs,
    "aux": lambda spec: ", ".join(each.name + " (needed)" * each.required for each in spec.aux),
    "mean": _units,
    "uncertainty": lambda spec: "the spread between its members" if spec.uncertainty else "",
    "level": lambda spec: {"toa": "top of atmosphere (L1C)", "boa": "surface (L2A)"}.get(
        spec.level or "", "either"
    ),
    "gsd": pixels,
    "patch": lambda spec: (
        f"{spec.patch} x {spec.patch}"
        + (f" to {spec.largest_patch} x {spec.largest_patch}" if spec.largest_patch else "")
        + f"{', fixed' if spec.patch_fixed and not spec.largest_patch else ''}; overlap {spec.overlap}"
    ),
    "gaps": lambda spec: {"nearest": "", "zero": "given to it as 0", "nan": "given to it as NaN"}[spec.gaps],
    "threshold": _thresholds,
    "architecture": lambda spec: f"{spec.architecture} {spec.config}".strip(),
    "runtime": lambda spec: (
        {"onnx": "onnxruntime", "torch": "torch"}[spec.runtime]
        + f"; {spec.gpu_runtime} on a GPU, and in half precision" * (spec.gpu_runtime is not None)
    ),
    "weights": lambda spec: spec.weights or "-",
    "sha256": lambda spec: spec.sha256 or "-",
    "citation": lambda spec: spec.citation or "-",
    "members": _members,
    "licence": lambda spec: spec.licence or "unknown",
}


def to_json(spec: ModelSpec) -> str:
    """Return a card as the text of a JSON file; settings that were left alone are left out.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> from_json(to_json(TOY), "toy.json") == TOY
    True
    """
    return json.dumps({"format": FORMAT, **changed(spec)}, indent=2) + "\n"


def changed(spec: ModelSpec) -> dict[str, Any]:
    """Return the fields of a card that are not as they are by default, as JSON holds them."""
    entries: dict[str, Any] = {}
    for entry in fields(spec):
        value = getattr(spec, entry.name)
        if value == entry.default:
            continue
        if entry.name == "config":
            value = json.loads(value)
        elif entry.name == "members":
            value = [changed(member) for member in value]
        elif isinstance(value, tuple):
            value = [asdict(each) if isinstance(each, types.AuxInput) else each for each in value]
        entries[entry.name] = value
    return entries


def is_card(data: bytes) -> bool:
    """Whether a JSON file is a card, and no STAC item; one that is neither is none.

    Examples
    --------
    >>> is_card(b'{"format": 1, "name": "a"}'), is_card(b'{"type": "Feature"}'), is_card(b"[")
    (True, False, False)
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, Mapping) and "format" in body and "type" not in body


def from_json(data: str | bytes, origin: str, **instead: Any) -> ModelSpec:
    """Return the card in a JSON file; `instead` replaces entries of it.

    Examples
    --------
    >>> from_json('{"format": 1, "name": "a", "bandz": []}', "a.json")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown entry of the card a.json 'bandz'; did you mean 'bands'?...
    """
    try:
        card = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"the card {origin} is no JSON: {error}") from error
    if not isinstance(card, Mapping) or card.get("format") != FORMAT:
        raise WeightsError(f"{origin} is no model card of format {FORMAT}: another version wrote it")
    entries: dict[str, Any] = {name: value for name, value in card.items() if name != "format"} | instead
    known = [entry.name for entry in fields(types.ModelSpec)]
    for name in entries:
        if name not in known:
            raise OptionError(f"entry of the card {origin}", name, allowed=known)
    try:
        return types.ModelSpec(**entries)
    except OptionError:
        raise
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the card {origin} cannot be used: {error}") from error
