"""How an MLM item scales its input, of either generation, as one mean and deviation a band."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xcloudmask.errors import WeightsError


def mapping(value: object) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one.

    Examples
    --------
    >>> mapping("text")
    {}
    """
    return value if isinstance(value, Mapping) else {}


def scaling(
    source: Mapping[str, Any], bands: int, href: str
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return mean and deviation in the network's units, from the item's scaling of either generation."""
    steps: Any = source.get("value_scaling")
    if steps is None and source.get("norm_type"):
        kind, numbers = source["norm_type"], source.get("statistics") or ()
        steps = [{"type": kind, **mapping(one)} for one in numbers]
        if not steps:
            raise WeightsError(f"{href}: its norm_type is {kind!r} without statistics: pass mean= and std=")
    if source.get("norm_clip"):
        raise WeightsError(f"{href} clips its input (norm_clip): export the network with that step inside")
    if not steps:
        return None, None
    if not isinstance(steps, list) or len(steps) not in (1, bands):
        raise WeightsError(f"{href}: its scaling is not one for all of its {bands} bands, nor one for each")
    pairs = [_affine(mapping(step), href) for step in steps]
    return tuple(mean for mean, _ in pairs), tuple(std for _, std in pairs)


def _affine(step: Mapping[str, Any], href: str) -> tuple[float, float]:
    """Return (a, b) of the scaling (value - a) / b."""
    kind = step.get("type")
    kind = str(kind) if kind is not None else None
    wanted = {
        "min-max": ("minimum", "maximum"), "z-score": ("mean", "stddev"), "offset": ("value",),
        "scale": ("value",), None: (),
    }.get(kind)  # fmt: skip
    if wanted is None:
        raise WeightsError(
            f"{href}: its scaling {kind!r} is not min-max, z-score, offset or scale: export the network with "
            "that step inside"
        )
    numbers = [step.get(name) for name in wanted]
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise WeightsError(f"{href}: its scaling {kind!r} lacks {' or '.join(wanted)}")
    values = [float(str(number)) for number in numbers]
    first, second = {"offset": (*values, 1.0), "scale": (0.0, *values), None: (0.0, 1.0)}.get(kind, values)
    if kind == "min-max":
        second -= first
    if not second > 0:
        raise WeightsError(f"{href}: its scaling {kind!r} divides by {second:g}")
    return first, second
