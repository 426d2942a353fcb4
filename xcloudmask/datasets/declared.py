"""What is declared of each dataset, as data: one TOML file each beside this module."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from xcloudmask.errors import OptionError
from xcloudmask.metrics.labels import BITS, GROUND

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Declared:
    """One dataset.

    Parameters
    ----------
    name, title, url, licence, citation : str
        What it is, where it is to be had, on which terms, and whom to cite.
    source : str
        Where the facts of its layout are from.
    layout : str
        The files as they are published, for people.
    reader : str
        How its containers are read: a key of `xcloudmask.datasets.read.READERS`.
    sensor, level, gsd
        Of its images; `gsd` in metres.
    bands : tuple of str
        Names of the sensor's bands, in the order of the files.
    labels, images, product, mtl : str or mapping
        Templates of paths below the folder (see `xcloudmask.datasets.folder.Tree`); `images` one a band,
        or one for all of them.
    classes : mapping of int to int
        Bit mask of the classes that each code leaves open; see `xcloudmask.metrics.BITS`.
    open_where_unused : mapping of str to list of str
        Classes that only some scenes mark, and those that may hide them elsewhere.
    scale, offset : float, optional
        ``reflectance = number * scale + offset``; None where the files do not tell.
    figures : str
        Where scale and offset are from, if they differ from scene to scene.
    nodata : float, optional
        The number of no data.
    splits : mapping of str to str
        Words of the dataset for train, val and test; empty if it is published without a split.
    published : mapping of str to int
        Counts that a whole copy has.
    more : mapping
        What only its own reader uses.

    Examples
    --------
    >>> get("l8-biome").classes
    {64: 8, 128: 1, 192: 4, 255: 2}
    """

    name: str
    title: str
    url: str
    licence: str
    citation: str
    source: str
    layout: str
    reader: str
    sensor: str
    level: str
    gsd: float
    bands: tuple[str, ...]
    classes: Mapping[int, int]
    labels: str = ""
    images: str | Sequence[str] = ""
    product: str = ""
    mtl: str = ""
    open_where_unused: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scale: float | None = None
    offset: float = 0.0
    figures: str = ""
    nodata: float | None = None
    splits: Mapping[str, str] = field(default_factory=dict)
    published: Mapping[str, int] = field(default_factory=dict)
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    """Return the names of all datasets.

    Examples
    --------
    >>> names()[:3]
    ('38-cloud', '95-cloud', 'alcd')
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


@cache
def get(name: str) -> Declared:
    """Return the dataset called `name`.

    Examples
    --------
    >>> get("sparc")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown dataset 'sparc'; did you mean 'sparcs'? ...
    """
    if name not in names():
        raise OptionError("dataset", name, allowed=names())
    held = tomllib.loads((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    classes = {int(code): bits_of(words) for code, words in held.pop("classes").items()}
    return Declared(name=name, classes=classes, bands=tuple(held.pop("bands")), **held)


def bits_of(words: Sequence[str]) -> int:
    """Return the bit mask of classes that a label leaves open; a kind of ground goes with the bit of clear.

    Examples
    --------
    >>> bits_of(["thick_cloud", "thin_cloud"]), bits_of(["water"]), bits_of(["clear", "cloud_shadow"])
    (6, 33, 9)
    """
    bits = 0
    for word in words:
        if word not in BITS:
            raise OptionError("class", word, allowed=BITS)
        bits |= BITS[word]
    return bits | (BITS["clear"] if bits & GROUND else 0)
