"""Landsat's MTL file, in its three forms, as ``{group: {key: value}}``.

A level-2 MTL holds the same key twice, ``REFLECTANCE_MULT_BAND_4`` for level 2 and for the level 1 it was
made of, so values are asked for by group. All values are text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from xcloudmask.errors import UnitError
from xcloudmask.stac.figures import figure

Groups = Mapping[str, Mapping[str, str]]

#: Groups of a Collection 2 file, with the names the same figures had in Collection 1.
RESCALING = ("LEVEL1_RADIOMETRIC_RESCALING", "RADIOMETRIC_RESCALING")
THERMAL = ("LEVEL1_THERMAL_CONSTANTS", "TIRS_THERMAL_CONSTANTS", "THERMAL_CONSTANTS")
IMAGE = ("IMAGE_ATTRIBUTES",)
_NULL = "NULL"


def parse_mtl(text: str, *, where: str = "MTL") -> Groups:
    r"""Return the groups of an MTL file, which messages call `where`, given as JSON, XML or ODL text.

    Examples
    --------
    >>> parse_mtl("GROUP = IMAGE_ATTRIBUTES\n SUN_ELEVATION = 40.0\nEND_GROUP = IMAGE_ATTRIBUTES\nEND")
    {'IMAGE_ATTRIBUTES': {'SUN_ELEVATION': '40.0'}}
    """
    start = text.lstrip("\ufeff \t\r\n")
    try:
        if start.startswith("{"):
            groups = _from_json(json.loads(start))
        elif start.startswith("<"):
            root = ElementTree.fromstring(start.encode("utf-8"))
            groups = {group.tag: {pair.tag: (pair.text or "").strip() for pair in group} for group in root}
        else:
            groups = _from_odl(start)
    except (ValueError, ElementTree.ParseError, AttributeError, RecursionError) as error:
        raise UnitError(f"{where}: not a Landsat MTL file in JSON, XML or text form: {error}") from error
    if not any(groups.values()):
        raise UnitError(f"{where}: not a Landsat MTL file in JSON, XML or text form: it holds no group")
    return groups


def mtl_number(groups: Groups, names: tuple[str, ...], key: str, where: str = "MTL") -> float | None:
    """Return `key` of the first of the named groups that has it; None where none does, or where it is NULL.

    Examples
    --------
    >>> mtl_number({"IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "40.0"}}, IMAGE, "SUN_ELEVATION")
    40.0
    """
    value = _find(groups, names, key)
    if value is None or value == _NULL:
        return None
    return figure(value, key, where, "Give the MTL file of this scene, or pass the figure yourself.")


def coefficient(groups: Groups, names: tuple[str, ...], key: str, where: str, remedy: str) -> float:
    """Return what `mtl_number` does, or say that the file does not have it."""
    value = mtl_number(groups, names, key, where)
    if value is None:
        raise UnitError(f"{where} has no {key} in {' or '.join(names)}. {remedy}")
    return value


def is_null(groups: Groups, names: tuple[str, ...], key: str) -> bool:
    """Tell whether the file has `key` but no value for it: a band that was not recorded in that scene.

    Examples
    --------
    >>> is_null({"IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "NULL"}}, IMAGE, "SUN_ELEVATION")
    True
    """
    return _find(groups, names, key) == _NULL


def _find(groups: Groups, names: tuple[str, ...], key: str) -> str | None:
    return next((groups[name][key] for name in names if key in groups.get(name, {})), None)


def _from_json(document: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    (groups,) = document.values()  # LANDSAT_METADATA_FILE, or L1_METADATA_FILE before Collection 2
    return {
        group: {key: str(value) for key, value in pairs.items() if not isinstance(value, dict)}
        for group, pairs in groups.items()
    }


def _from_odl(text: str) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = (part.strip() for part in line.partition("="))
        if not separator:
            continue
        if name == "GROUP":
            current = groups.setdefault(value, {})
        elif name != "END_GROUP":
            current[name] = value.strip('"')
    return groups
