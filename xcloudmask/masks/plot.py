"""Pictures of a scene, of a mask, and of both: ``scene.cloudmask.plot(mask)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from xcloudmask.classes import GAP_FACE, GAP_LINES, class_colours
from xcloudmask.errors import CloudMaskError
from xcloudmask.masks.picture import (
    TRUE_COLOUR,
    UNTINTED,
    Frame,
    check_pair,
    class_codes,
    frame_of,
    kind_of,
    name_of,
    one_time,
    paint,
    picture_of,
    stretch_colours,
    thin,
    times_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: How opaque the outlines of the classes are over a scene.
SEAM = 0.95

Rgba = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Panel:
    """One map: what is drawn over what, and its title."""

    title: str
    picture: Rgba | None = None
    classes: Rgba | None = None
    probability: npt.NDArray[np.float32] | None = None


def plot(
    scene_or_mask: xr.DataArray,
    mask: xr.DataArray | None = None,
    *,
    rgb: str | Sequence[str] = TRUE_COLOUR,
    time: Any = None,
    columns: int = 4,
    ax: Axes | Sequence[Axes] | None = None,
    stretch: tuple[float, float] = (2, 98),
    alpha: float | None = None,
    size: float = 5.0,
    legend: bool = True,
) -> Axes:
    """Draw a scene, a mask, or a scene beside itself with the mask over it.

    Large arrays are drawn with every n-th pixel, no more than 1,500 along a side, and only the bands and the
    time that are shown are computed.

    Parameters
    ----------
    scene_or_mask : DataArray
        A scene with bands; or a mask or probabilities from `predict` and `predict_proba`.
    mask : DataArray, optional
        Mask or probabilities of the scene, on the same grid.
    rgb : sequence of str, or str
        Three bands for red, green and blue, or one for grey. Without a true colour, a false one is taken.
    time : int, str or datetime, list, slice or "all", optional
        Which time to draw, by position or label. The first by default. Several, up to 36, are drawn side by
        side, a scene with its mask over it.
    columns : int
        Maps side by side, where there are several times.
    ax : matplotlib Axes, or one for each map, optional
        Where to draw. One shows one map; the mask then lies over the scene.
    stretch : (float, float)
        Percentiles of each band that become black and full colour.
    alpha : float, optional
        How opaque the classes are: 0 to 1. By default 0.5 over a scene and 1 without one.
    size : float
        Width of a map in inches.
    legend : bool
        Whether to draw the legend.

    Returns
    -------
    matplotlib Axes
        Of the last map; ``.figure`` is the whole and has ``.savefig``.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> import xarray as xr, xcloudmask
    >>> mask = xr.DataArray([[0, 1], [3, 255]], dims=("y", "x"), attrs={"flag_values": [0, 1, 3, 255],
    ...                     "flag_meanings": "clear cloud cloud_shadow no_data"})
    >>> ax = mask.cloudmask.plot()
    >>> [text.get_text() for text in ax.figure.legends[0].get_texts()]
    ['clear', 'cloud', 'cloud shadow', 'no data']
    >>> import matplotlib.pyplot as plt; plt.close(ax.figure)
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'xcloudmask[plot]'") from error
    if alpha is not None and not 0 <= alpha <= 1:
        raise CloudMaskError(f"alpha={alpha!r} must lie between 0 (unseen) and 1 (opaque)")
    scene, mask = check_pair(scene_or_mask, mask)
    arrays = [da for da in (scene, mask) if da is not None]
    frame = frame_of(arrays[0])
    axes: list[Axes] = [] if ax is None else list(np.ravel(np.asarray(ax, dtype=object)))
    several, when = times_of(arrays, time), ""
    panels: list[_Panel] = []
    key: dict[str, str] = {}
    for index in [time] if several is None else several:
        shown, when = one_time(arrays, index)
        single = several is not None or len(axes) == 1
        maps, classes = _panels(shown, scene is not None, mask is not None, rgb, stretch, alpha, single)
        panels += maps if several is None else [replace(panel, title=when) for panel in maps]
        key |= classes
    key = {name: key[name] for name in sorted(key, key="no_data".__eq__)}  # which comes last
    when = "" if several is not None else when
    if axes and len(axes) != len(panels):
        raise CloudMaskError(
            f"ax holds {len(axes)} axes, and there are {len(panels)} maps to draw: give one for each, or "
            "plot one map an axes in a loop: array.cloudmask.plot(ax=axes[0])"
        )
    across = len(panels) if several is None else max(1, min(columns, len(panels)))
    return _draw(panels, key if legend else {}, frame, when, axes, size, across)


def _panels(
    arrays: Sequence[xr.DataArray],
    has_scene: bool,
    has_mask: bool,
    rgb: str | Sequence[str],
    stretch: tuple[float, float],
    alpha: float | None,
    single: bool,
) -> tuple[list[_Panel], dict[str, str]]:
    """Compute the pixels, all in one go, and return the maps and the legend's names and colours."""
    from dask.base import compute

    lazy: list[xr.DataArray] = []
    title = ""
    if has_scene:
        shown, title = picture_of(arrays[0], rgb)
        lazy.append(thin(shown))
    if has_mask:
        lazy.append(thin(arrays[-1]))
    # One graph for both, so pixels that both need are read once.
    pixels: tuple[xr.DataArray, ...] = compute(*lazy)  # type: ignore[no-untyped-call]
    picture = stretch_colours(pixels[0].values, stretch) if has_scene else None
    panels, key = [], {}
    if picture is not None and not (has_mask and single):
        panels.append(_Panel(", ".join(t for t in (name_of(arrays[0]), title) if t), picture))
    if has_mask and kind_of(arrays[-1]) == "probabilities":
        panels += _probability_panels(pixels[-1])
        if single and len(panels) > 1:
            raise CloudMaskError("one ax shows one class: select it with .sel({'class': 'cloud'})")
    elif has_mask:
        codes, values = class_codes(arrays[-1]), pixels[-1].values
        opacity = (0.5 if has_scene else 1.0) if alpha is None else alpha
        if picture is not None:
            picture = picture.copy()
            picture[..., 3] *= values != codes.get("no_data", -1)
        model = arrays[-1].attrs.get("model")
        panels.append(
            _Panel("cloud mask" + (f", {model}" if model else ""), picture,
                   tint(values, codes, opacity, has_scene))
        )  # fmt: skip
        present = "no_data" in codes and bool((values == codes["no_data"]).any())
        key = {n: c for n, c in class_colours(codes).items() if n != "no_data" or present}
        if has_scene:
            key.update(dict.fromkeys(UNTINTED & set(key), "none"))
    if picture is not None and not bool(picture[..., 3].all()):
        key["no_data"] = GAP_FACE
    return panels, key


def tint(values: npt.NDArray[Any], codes: Mapping[str, int], alpha: float, over_scene: bool) -> Rgba:
    """Return (y, x, 4) colours of class codes; no data is transparent, and so is clear over a scene."""
    out: Rgba = (paint(values, codes, UNTINTED if over_scene else ()) / 255).astype(np.float32)
    out[..., 3] *= alpha
    for name in codes.keys() - UNTINTED - {"no_data"} if over_scene and alpha else ():
        here = values == codes[name]  # a seam in the full colour: it can be told over dark land, bright cloud
        out[here & _at_edge(here), 3] = max(alpha, SEAM)
    return out


def _at_edge(here: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels whose four neighbours are not all alike."""
    padded = np.pad(here, 1, mode="edge")
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge: npt.NDArray[np.bool_] = np.logical_or.reduce([here != other for other in neighbours])
    return edge


def _probability_panels(proba: xr.DataArray) -> list[_Panel]:
    if "class" not in proba.dims:
        proba = proba.expand_dims("class")
    return [
        _Panel(
            ("" if name == "uncertainty" else "probability of ") + _words(str(name)),
            probability=proba.sel({"class": name}).values,
        )
        for name in proba["class"].values
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _draw(
    panels: Sequence[_Panel],
    key: Mapping[str, str],
    frame: Frame,
    when: str,
    axes: list[Axes],
    size: float,
    across: int,
) -> Axes:
    import matplotlib.pyplot as plt

    own, lines, below = not axes, 1, []
    drawn = [panel for panel in panels if panel.probability is not None]
    if own:
        down = -(-len(panels) // across)
        size = min(size, 16 / across)  # inches
        height = size * min(max(frame.shape, 0.2), 3)
        width = size * across + 0.6 + (0.8 if drawn else 0)
        lines = _legend_lines(key, width)
        _, grid = plt.subplots(
            down, across, squeeze=False, sharex=True, sharey=True, layout="constrained",
            figsize=(
                width,
                down * (height + 0.35) + 0.2 + (0.25 if when else 0) + (0.14 + 0.25 * lines if key else 0),
            ),
        )  # fmt: skip
        for spare in grid.ravel()[len(panels) :]:
            spare.remove()
        axes = list(grid.ravel()[: len(panels)])
        below = axes[:-across]
    for panel, target in zip(panels, axes, strict=True):
        _draw_panel(panel, target, frame, first=target in axes[::across])
        target.tick_params(labelbottom=True) if target not in below else target.set_xlabel("")
    last: Axes = axes[-1]
    if when and own:
        last.figure.suptitle(when, fontsize=10)
    elif when:
        axes[0].set_title(f"{axes[0].get_title(loc='left')}\n{when}", loc="left", fontsize=10)
    if drawn:
        last.figure.colorbar(
            last.images[-1], ax=axes[-len(drawn) :], shrink=0.9, pad=0.02, aspect=30, label="probability"
        )
    if key:
        _legend(last, key, -(-len(key) // lines) if own else None)
    return last


def _draw_panel(panel: _Panel, ax: Axes, frame: Frame, first: bool) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.ticker import MaxNLocator

    left, right, bottom, top = frame.extent
    ax.add_patch(
        Rectangle(
            (left, min(bottom, top)), right - left, abs(top - bottom),
            facecolor=GAP_FACE, edgecolor=GAP_LINES, hatch="////", linewidth=0, zorder=-1,
        )
    )  # fmt: skip
    how: dict[str, Any] = {"extent": frame.extent, "origin": "upper", "interpolation": "nearest"}
    if panel.picture is not None:
        ax.imshow(panel.picture, **how)
    if panel.classes is not None:
        ax.imshow(panel.classes, **how)
    if panel.probability is not None:
        ax.imshow(np.ma.masked_invalid(panel.probability), vmin=0, vmax=1, cmap="cividis", **how)
    ax.set_aspect(frame.aspect)
    ax.set_title(panel.title, loc="left", fontsize=10)
    ax.set_xlabel(frame.xlabel)
    if first:
        ax.set_ylabel(frame.ylabel)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    ax.ticklabel_format(useOffset=False, style="plain")
    ax.tick_params(labelsize=8)


def _legend_lines(key: Mapping[str, str], width: float) -> int:
    """Return how many lines the legend needs in a figure of `width` inches."""
    inches = max((0.095 * len(_label(name, colour)) + 0.7 for name, colour in key.items()), default=1.0)
    return max(1, -(-len(key) // max(1, int(width / inches))))


def _label(name: str, colour: str) -> str:
    return _words(name) + (" (not tinted)" if colour == "none" else "")


def _legend(ax: Axes, key: Mapping[str, str], columns: int | None) -> None:
    """Draw the legend below the figure in `columns`, or within a user's own axes."""
    from matplotlib.patches import Patch

    patches = [
        Patch(facecolor=colour, edgecolor=GAP_LINES, hatch="////" if name == "no_data" else None,
              linewidth=0.6, label=_label(name, colour))
        for name, colour in key.items()
    ]  # fmt: skip
    if columns is not None:
        ax.figure.legend(
            handles=patches, loc="outside lower center", ncols=columns, frameon=False, fontsize=10
        )
    else:
        ax.legend(handles=patches, loc="lower right", fontsize=8, framealpha=0.9)
