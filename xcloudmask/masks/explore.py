"""A map of a scene and its mask to drag and zoom: one page that holds all it shows and fetches nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from string import Template
from typing import Any

import xarray as xr
from dask.base import compute

from xcloudmask.classes import GAP_FACE, GAP_LINES, class_colours
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.picture import (
    TRUE_COLOUR,
    UNTINTED,
    check_pair,
    class_codes,
    frame_of,
    kind_of,
    one_time,
    over_gaps,
    paint,
    picture_of,
    rgb_of,
    thin,
)
from xcloudmask.masks.thumbnail import data_uri


@dataclass(frozen=True, slots=True, repr=False)
class Map:
    """A page; a notebook shows it, `save` writes it to a file.

    Parameters
    ----------
    page : str
        HTML with pictures and script within.
    height : int
        Of the frame in a notebook, in pixels.
    """

    page: str
    height: int

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the page, and return its path."""
        out = Path(path)
        out.write_text(self.page, encoding="utf-8")
        return out

    def __repr__(self) -> str:
        return f"<map of {len(self.page) / 1e6:.1f} MB; a notebook shows it, .save('map.html') writes it>"

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe srcdoc="{escape(self.page)}" style="{style}" sandbox="allow-scripts"></iframe>'


def explore(
    scene_or_mask: xr.DataArray,
    mask: xr.DataArray | None = None,
    *,
    rgb: str | Sequence[str] = TRUE_COLOUR,
    time: Any = None,
    stretch: tuple[float, float] = (2, 98),
    alpha: float = 0.6,
    limit: int = 1000,
    height: int = 480,
) -> Map:
    """Do what `xcloudmask.accessor.CloudMask.explore` documents.

    Examples
    --------
    >>> import xarray as xr, xcloudmask
    >>> mask = xr.DataArray([[0, 1], [3, 255]], dims=("y", "x"), attrs={"flag_values": [0, 1, 3, 255],
    ...                     "flag_meanings": "clear cloud cloud_shadow no_data"})
    >>> mask.cloudmask.explore()
    <map of 0.0 MB; a notebook shows it, .save('map.html') writes it>
    """
    if not 0 <= alpha <= 1:
        raise CloudMaskError(f"alpha={alpha!r} must lie between 0 (unseen) and 1 (opaque)")
    if limit < 1:
        raise CloudMaskError(f"limit={limit!r} must be 1 pixel a side at least; 1000 is a map of some MB")
    scene, mask = check_pair(scene_or_mask, mask)
    if mask is not None and kind_of(mask) == "probabilities":
        raise CloudMaskError(
            "a map shows classes, and these are probabilities", "Make classes with predict(), or plot()"
        )
    arrays, when = one_time([da for da in (scene, mask) if da is not None], time, "explore")
    lazy = [] if scene is None else [thin(picture_of(arrays[0], rgb)[0], limit)]
    lazy += [] if mask is None else [thin(arrays[-1], limit)]
    pixels: tuple[xr.DataArray, ...] = compute(*lazy)  # type: ignore[no-untyped-call]
    picture, over, names, legend = "", "", {}, []
    if scene is not None:
        picture = data_uri(over_gaps(pixels[0].values, stretch))
    if mask is not None:
        codes = class_codes(arrays[-1])
        untinted = UNTINTED if scene is not None else frozenset()
        over = data_uri(paint(pixels[-1].values, codes, untinted, gaps=True))
        for name, colour in class_colours(codes).items():
            words = name.replace("_", " ")
            kind = "none" if name in untinted else "gap" if name == "no_data" else ""
            style = "" if kind else f"background:{colour}"
            legend.append(f'<span><i class="{kind}" style="{style}"></i>{escape(words)}</span>')
            names["" if name in untinted else ",".join(map(str, rgb_of(colour)))] = words
        names[",".join(map(str, rgb_of(GAP_LINES)))] = "no data"
    frame = frame_of(arrays[0])
    rows, columns = pixels[-1].shape[-2:]
    facts = {
        "rows": rows, "columns": columns, "width": 1000, "height": round(1000 * frame.shape),
        "extent": frame.extent, "names": names,
        "digits": 5 if frame.xlabel.startswith("Longitude") else 2, "unit": frame.unit,
    }  # fmt: skip
    page = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8")).substitute(
        title=escape(" ".join(["cloud mask", when]).strip() if mask is not None else f"scene {when}".strip()),
        picture=picture, mask=over, alpha=alpha if scene is not None else 1, legend="\n".join(legend),
        face=GAP_FACE, lines=GAP_LINES, facts=json.dumps(facts).replace("<", "\\u003c"),
    )  # fmt: skip
    return Map(page, height)
