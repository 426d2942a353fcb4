"""The card of a model: as text to read, and as the JSON file that lies beside weights."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.types import ModelSpec

#: The version of the file's form; another one is refused, not guessed at.
FORMAT = 1

_LEVELS = {"toa": "top of atmosphere (L1C)", "boa": "surface (L2A)", None: "either"}
_PAIRS = ("bands", "classes", "gsd", "mean", "std", "aux", "spare")


def text(spec: ModelSpec, width: int = 100) -> str:
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
    return "\n".join(lines)


def rows_of(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return what there is to say of a model, label and value.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> dict(rows_of(TOY))["pixel"]
    '20-40 m; finer input is averaged to it, and the mask brought back'
    """
    fixed = ", fixed" if spec.patch_fixed else ""
    rows = [
        ("bands", spec.needs),
        ("aux", ", ".join(each.name + " (needed)" * each.required for each in spec.aux)),
        ("units", "reflectance, 0 to 1" + _normalisation(spec)),
        ("classes", ", ".join(spec.classes)),
        ("uncertainty", "the spread between its members" if spec.uncertainty else ""),
        ("level", _LEVELS[spec.level]),
        ("pixel", pixels(spec)),
        ("window", f"{spec.patch} x {spec.patch}{fixed}; overlap {spec.overlap}"),
        ("threshold", _thresholds(spec)),
        ("network", f"{spec.architecture} {spec.config}".strip()),
        ("runs on", {"onnx": "onnxruntime", "torch": "torch"}[spec.runtime] + _elsewhere(spec)),
        ("weights", spec.weights or "-"),
        ("sha256", spec.sha256 or "-"),
        ("trained on", spec.training_data),
        ("scores", spec.scores),
        ("limits", spec.limits),
        ("licence", spec.licence or "not told"),
        ("cite", spec.citation or "-"),
    ]
    return [(label, value) for label, value in rows if value]


def pixels(spec: ModelSpec) -> str:
    """Return the pixel sizes that a model takes, in words.

    Examples
    --------
    >>> from xcloudmask.testing import COUNTING
    >>> pixels(COUNTING)
    'any'
    """
    if spec.gsd is None:
        return "any"
    low, high = spec.gsd
    size = f"{low:g} m" if low == high else f"{low:g}-{high:g} m"
    return f"{size}; finer input is averaged to it, and the mask brought back"


def _elsewhere(spec: ModelSpec) -> str:
    return f"; {spec.gpu_runtime} on a GPU, and in half precision" if spec.gpu_runtime else ""


def _thresholds(spec: ModelSpec) -> str:
    named = (("cloud", spec.threshold), ("cloud shadow", spec.shadow_threshold))
    told = [f"{name} at a probability of {value:g} or more" for name, value in named if value is not None]
    return "; ".join(told)


def _normalisation(spec: ModelSpec) -> str:
    if spec.mean is None and spec.std is None:
        return ""
    mean, std = (", ".join(f"{value:.4g}" for value in numbers or ()) for numbers in (spec.mean, spec.std))
    return f"; then less {mean or 0}, divided by {std or 1}"


def to_json(spec: ModelSpec) -> str:
    """Return a card as the text of a JSON file; settings that were left alone are left out.

    Examples
    --------
    >>> from xcloudmask.testing import TOY
    >>> from_json(to_json(TOY), "toy.json") == TOY
    True
    """
    plain = {field.name: field.default for field in fields(ModelSpec)}
    card = {name: value for name, value in asdict(spec).items() if value != plain[name]}
    if spec.config:
        card["config"] = json.loads(spec.config)
    return json.dumps({"format": FORMAT, **card}, indent=2) + "\n"


def is_card(data: bytes) -> bool:
    """Whether a JSON file is a card, and no STAC item; one that is neither is none.

    Examples
    --------
    >>> is_card(b'{"format": 1, "name": "a"}'), is_card(b'{"type": "Feature"}'), is_card(b"[")
    (True, False, False)
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, Mapping) and "format" in found and "type" not in found


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
    known = [field.name for field in fields(ModelSpec)]
    for name, value in entries.items():
        if name not in known:
            raise OptionError(f"entry of the card {origin}", name, allowed=known)
        if name in _PAIRS and isinstance(value, list):
            entries[name] = tuple(value)
        elif name == "config" and isinstance(value, Mapping):
            entries[name] = settings(value)
    try:
        return ModelSpec(**entries)
    except (TypeError, ValueError) as error:
        if isinstance(error, CloudMaskError):
            raise
        raise WeightsError(f"the card {origin} cannot be used: {error}") from error


def settings(config: Mapping[str, object]) -> str:
    """Return an architecture's settings as the text that a `ModelSpec` carries.

    Examples
    --------
    >>> settings({"classes": 2, "bands": 4})
    '{"bands": 4, "classes": 2}'
    """
    return json.dumps(dict(config), sort_keys=True) if config else ""
