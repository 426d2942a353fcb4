"""What ``da.cloudmask`` shows of itself: what it recognised, and what `predict` would do. Reads no pixel."""

from __future__ import annotations

import html as escaping
import math
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.classes import CLEAR, NO_DATA
from xcloudmask.errors import Remedy, Use, Worded
from xcloudmask.models.card import pixels
from xcloudmask.predict.choose_model import Candidate, candidates, made_for
from xcloudmask.predict.job import Job
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import prepare
from xcloudmask.scene.bands import lacking, sensor_of
from xcloudmask.scene.dims import BAND_DIMS, coordinate, pixel_size, spatial_dims
from xcloudmask.scene.mask_classes import as_mask, codes_of, numbers_of
from xcloudmask.scene.scene import Scene, read_scene
from xcloudmask.scene.units import calibration_of
from xcloudmask.types import Band, ModelSpec, parse_level

WIDTH = 88
#: So many lines after the first are folded in HTML.
FOLD = 3
PICTURE = "float:right;width:112px;margin:4px 0 4px 12px;image-rendering:pixelated"
LEVELS = {"toa": "top of atmosphere (L1C)", "boa": "bottom of atmosphere (L2A)"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what it is about, what there is, and whether the user should do something about it."""

    label: str
    content: str | Remedy | Worded  # a remedy is worded by who shows it
    problem: bool = False

    @property
    def value(self) -> str:
        """The content in Python's words."""
        return str(self.content)


def text(data: xr.DataArray | xr.Dataset) -> str:
    """Return the summary as text; never raises, computes nothing.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> da = xr.DataArray(np.zeros((4, 64, 64), "f4"), dims=("band", "y", "x"))
    >>> da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")
    >>> for line in text(da).splitlines():
    ...     if "Bands" in line or "Level" in line:
    ...         print(line)
      Bands    4 of 4 recognised: blue, green, red, nir
      Level    top of atmosphere (L1C)
    """
    head, rows = summary(data)
    label = max((len(row.label) for row in rows), default=0)
    lines = [f"<cloudmask> {head}"]
    for row in rows:
        mark = "!" if row.problem else " "
        margin = " " * (label + 4)
        start = f"{mark} {row.label:<{label}}  "
        for paragraph in row.value.splitlines() or [""]:
            lines.append(
                textwrap.fill(paragraph, WIDTH, initial_indent=start, subsequent_indent=margin,
                              break_long_words=False, break_on_hyphens=False)
            )  # fmt: skip
            start = margin
    return "\n".join(lines)


def html(data: xr.DataArray | xr.Dataset, picture: str = "") -> str:
    """Return the summary as a table for Jupyter: colours of the page, nothing loaded from elsewhere.

    Parameters
    ----------
    data : DataArray or Dataset
        A scene or a mask.
    picture : str
        The address of a small picture to show beside it, with the pixels within.

    Examples
    --------
    >>> import xarray as xr
    >>> "&lt;b&gt;" in html(xr.DataArray(0, name="<b>"))
    True
    """
    head, rows = summary(data)
    cell = "padding:2px 10px 2px 0;text-align:left;vertical-align:top;"
    name, value = (
        f"{cell}font-weight:600;white-space:nowrap",
        f"{cell}white-space:pre-wrap;overflow-wrap:anywhere",
    )
    body = "".join(
        f"<tr><th style='{name}'>{'⚠ ' * row.problem}{escaping.escape(row.label)}</th>"
        f"<td style='{value}{';font-weight:600' * row.problem}'>{_folded(row.value)}</td></tr>"
        for row in rows
    )
    beside = f"<img src='{picture}' alt='{head.split()[0]}' style='{PICTURE}'>" if picture else ""
    return (
        f"<div style='color:inherit;background:transparent;overflow:auto'>{beside}"
        f"<div style='padding:2px 0;border-bottom:1px solid currentColor'><b>cloudmask</b> "
        f"{escaping.escape(head)}</div>"
        f"<table style='border-collapse:collapse;background:transparent;color:inherit;margin:2px 0'>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _folded(value: str) -> str:
    """Return text as HTML; of many lines, such as the models that were not taken, the first and a fold."""
    first, *others = escaping.escape(value).split("\n")
    if len(others) < FOLD:
        return "\n".join([first, *others])
    return f"{first}<details><summary>{len(others)} more lines</summary>" + "\n".join(others) + "</details>"


def summary(data: xr.DataArray | xr.Dataset) -> tuple[str, list[Row]]:
    """Return a heading and the rows; what cannot be told says why, and what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the rows say it
        if isinstance(data, xr.Dataset):
            from xcloudmask.scene.dataset import stack

            try:
                data = stack(data)
            except Exception as error:
                return "dataset", [_failed("Bands", error)]
        data = as_mask(data)
        kind = _kind(data)
        sizes = ", ".join(f"{dim}: {size}" for dim, size in data.sizes.items())
        name = f"{data.name} " if data.name not in (None, kind) else ""
        rows = _mask_rows(data) if kind != "scene" else _scene_rows(data)
    return f"{kind} {name}({sizes})", rows


def _kind(da: xr.DataArray) -> str:
    if not any(dim in da.dims for dim in BAND_DIMS):
        if "flag_values" in da.attrs:
            return "mask"
        if "class" in da.coords and da.dtype.kind == "f":
            return "probabilities"
    return "scene"


def _guarded(label: str, value: Callable[[], str | Remedy | Row]) -> Row:
    """Return the row or, where it cannot be had, the message that names the remedy: a repr must not fail."""
    try:
        content = value()
    except Exception as error:
        return _failed(label, error)
    return content if isinstance(content, Row) else Row(label, content)


def _failed(label: str, error: Exception) -> Row:
    return Row(label, error if isinstance(error, Worded) else str(error) or type(error).__name__, True)


def _scene_rows(da: xr.DataArray) -> list[Row]:
    sensor, data = _guarded("Sensor", lambda: _sensor(da)), _guarded("Data", lambda: _chunks(da))
    try:
        scene = read_scene(da, measured=False)
    except Exception as error:
        return [*([sensor] if sensor.value != str(error) else []), _failed("Bands", error), data]
    rows = [
        sensor,
        _guarded("Bands", lambda: _band_row(scene.bands)),
        _guarded("Level", lambda: _level(scene)),
        _guarded("Units", lambda: _units(scene)),
        _guarded("Model", lambda: _model(da)),
    ]
    try:
        job = prepare(da, PredictOptions())
    except Exception as error:
        explained = any(row.problem and row.label in ("Units", "Model") for row in rows)
        rows += [_guarded("Pixels", lambda: _pixels(da)), *([] if explained else [_failed("Windows", error)])]
    else:
        rows += [_guarded("Pixels", lambda: _pixels(da, job)), _guarded("Windows", lambda: _windows(job))]
    return [*rows, data]


def _sensor(da: xr.DataArray) -> str | Remedy:
    sensor = sensor_of(da)
    if sensor is not None:
        return f"{sensor.name} ({sensor.title})"
    if "sensor" in da.coords:
        names = sorted({str(name) for name in coordinate(da["sensor"]).reshape(-1)})
        return ", ".join(names)
    return Remedy("not told; {} names bands and wavelengths at once", Use("describe", sensor=...))


def _band_row(bands: tuple[Band, ...]) -> Row:
    known = [band for band in bands if band.common_name or band.center_nm is not None]
    others = [band.name for band in bands if band not in known]
    value = f"{len(known)} of {len(bands)} recognised"
    if known:
        value += ": " + ", ".join(_band_name(band) for band in known)
    missing = _missing_for_richest(bands)
    end = f"\nmissing for the richest model: {', '.join(missing)}" if missing else ""
    if not others:
        return Row("Bands", value + end)
    value += f"\nnot recognised: {', '.join(others)}; "
    value, end = (text.replace("{", "{{").replace("}", "}}") for text in (value, end))  # names may have them
    remedy = Remedy(f"{value}{{}} or {{}}{end}", Use("describe", sensor=...), Use("describe", bands=[...]))
    return Row("Bands", remedy, problem=not known)


def _band_name(band: Band) -> str:
    if band.common_name:
        return band.common_name
    return f"{band.name} ({band.center_nm:.0f} nm)"


def _missing_for_richest(bands: tuple[Band, ...]) -> tuple[str, ...]:
    return max(candidates(bands, None), key=lambda c: len(c.spec.bands) * (not c.spec.fills)).missing


def _level(scene: Scene) -> str | Row:
    if scene.level is None:
        return Row(
            "Level",
            Remedy(
                "not told, taken as top of atmosphere; {} or {}",
                Use("describe", level="L1C"),
                Use("describe", level="L2A"),
            ),
            True,
        )
    return LEVELS[parse_level(scene.level)]


def _units(scene: Scene) -> str:
    """Say how stored numbers become reflectance; raises what `predict` would."""
    da = scene.da
    calibration = calibration_of(scene, tuple(range(len(scene.bands))))
    gaps = ["NaN"] if da.dtype.kind == "f" else []
    gaps += [f"{gap:g}" for gap in calibration.nodata]
    if calibration.fill:
        fills = " or ".join(f"{number:g}" for number in calibration.fill)
        gaps.append(f"{fills} in every band" + " (assumed)" * calibration.assumed)
    end = f"; no data: {', '.join(gaps) if gaps else 'none declared'}"
    if calibration.scale is None or calibration.offset is None:
        return f"{da.dtype}, taken as reflectance from 0 to 1{end}"
    pairs = dict.fromkeys(zip(calibration.scale, calibration.offset, strict=True))
    ways = [f"× {scale:g} {'-' if offset < 0 else '+'} {abs(offset):g}" for scale, offset in pairs]
    return f"{da.dtype} {ways[0] if len(ways) == 1 else 'with a scale for each band'}{end}"


def _model(da: xr.DataArray) -> Row:
    scene = read_scene(da)
    bands, level = scene.bands, scene.level
    known = candidates(bands, None if level is None else parse_level(level), scene.pixel and max(scene.pixel))
    chosen = next((c.spec for c in known if c.fits), None)
    lines = [f"not {c.spec.name}: {c.reason}" for c in known if not c.fits]
    if chosen is None:
        return Row("Model", "\n".join(["none fits", *lines]), True)
    lines += [
        f"not {c.spec.name}: {_less(c, chosen, bands)}"
        for c in known
        if c.fits and c.spec is not chosen and (made_for(c.spec, bands) or not made_for(chosen, bands))
    ]
    why = f"takes {chosen.needs}"
    if absent := lacking(bands, chosen):
        why += f"; estimates {', '.join(absent)}"
    if level is not None and chosen.level is not None:
        why += f" at {LEVELS[chosen.level].split(' (')[0]}"
    return Row("Model", "\n".join([f"auto is {chosen.name} {chosen.version}: {why}", *lines]))


def _less(other: Candidate, chosen: ModelSpec, bands: tuple[Band, ...]) -> str:
    """Say why another model that fits was not taken."""
    if other.too_coarse or other.too_fine:
        return f"for pixels of {pixels(other.spec).partition(';')[0]}"
    fewer = made_for(other.spec, bands) and len(other.spec.bands) < len(chosen.bands)
    return "fewer bands" if fewer else "comes after it, see docs/scores.md"


def _pixels(da: xr.DataArray, job: Job | None = None) -> str | Row:
    y, x = spatial_dims(da)
    size = pixel_size(da, y, x)
    if size is None:
        return Row("Pixels", "size not known: give y and x coordinates in metres or degrees", True)
    if job is None:
        return _metres(size)
    rows, columns = job.options.factors
    if (rows, columns) == (1, 1):
        return f"{_metres(size)}, inferred as they are"
    worked = _metres((size[0] * rows, size[1] * columns))
    return f"{_metres(size)}, inferred at {worked} (means of {rows} × {columns})"


def _metres(size: tuple[float, float]) -> str:
    rows, columns = (f"{value:.4g}" for value in size)
    return f"{rows} m" if rows == columns else f"{rows} × {columns} m"


def _windows(job: Job) -> str:
    pictures = math.prod(job.pixels.shape[:-3])
    tiles, (rows, columns) = job.plan.tiles.count, job.pixels.shape[-2:]
    total = f"{tiles * pictures:,} of {job.options.patch} × {job.options.patch}"
    if pictures > 1:
        total += f" ({tiles:,} × {pictures:,} pictures)"
    return f"{total}, overlap {job.options.overlap}; {rows * columns * pictures / 1e6:,.3g} megapixels"


def _chunks(da: xr.DataArray) -> str:
    size = _bytes(da.nbytes)
    if da.chunks is None:
        return f"in memory, {size}"
    largest = " × ".join(str(max(sizes)) for sizes in da.chunks)
    return f"lazy (Dask), {size} in {math.prod(map(len, da.chunks)):,} chunks of {largest}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _mask_rows(da: xr.DataArray) -> list[Row]:
    try:
        classes = _class_rows(da)
    except Exception as error:
        classes = [_failed("Classes", error)]
    return [
        _guarded("Model", lambda: _made_by(da)),
        *classes,
        _guarded("Made with", lambda: _made_with(da)),
        _guarded("Pixels", lambda: _pixels(da)),
        _guarded("Data", lambda: _chunks(da)),
    ]


def _made_by(da: xr.DataArray) -> str:
    attrs: dict[Any, Any] = da.attrs
    if not attrs.get("model"):
        return "not told"
    sha = str(attrs.get("model_sha256", ""))
    return f"{attrs['model']} {attrs.get('model_version', '')}" + (f", sha256 {sha[:12]}…" if sha else "")


def _class_rows(da: xr.DataArray) -> list[Row]:
    """Return the classes and, of a mask that lies in memory, their shares and that of clear."""
    scheme = f"; scheme {da.attrs['scheme']}" if da.attrs.get("scheme") else ""
    if "flag_values" not in da.attrs:
        labels = map(str, np.atleast_1d(coordinate(da["class"])).tolist())
        names = [label for label in labels if label != "uncertainty"]  # which comes with them and is none
        return [Row("Classes", f"{', '.join(names)}; NaN for no data{scheme}")]
    codes = codes_of(da)
    if NO_DATA not in codes.values():
        codes["no_data"] = NO_DATA
    counts = _counts(da, codes)
    shares = {name: f" {100 * count / da.size:.3g} %" for name, count in counts.items()}
    words = [f"{code} {name}{shares.get(name, '')}" for name, code in codes.items()]
    rows = [Row("Classes", ", ".join(words) + scheme)]
    if seen := sum(count for name, count in counts.items() if codes[name] != NO_DATA):
        clear = sum(count for name, count in counts.items() if name in CLEAR)
        rows.append(Row("Clear", f"{100 * clear / seen:.3g} % of {seen:,} pixels that hold data"))
    return rows


def _counts(da: xr.DataArray, codes: dict[str, int]) -> dict[str, int]:
    """Return the pixels of each class, of a mask that lies in memory: a repr computes nothing."""
    if not isinstance(da.variable._data, np.ndarray) or not da.size or da.dtype.kind not in "iuf":
        return {}
    values = np.nan_to_num(da.values, nan=NO_DATA) if da.dtype.kind == "f" else da.values
    return {name: int((values == code).sum()) for name, code in codes.items()}


def _made_with(da: xr.DataArray, options: type[PredictOptions] = PredictOptions) -> str:
    attrs = {str(name): value for name, value in da.attrs.items()}
    parts = [f"xcloudmask {attrs['xcloudmask_version']}"] if "xcloudmask_version" in attrs else []
    if "patch_size" in attrs:
        parts.append(f"windows of {attrs['patch_size']}, overlap {attrs.get('overlap', '?')}")
    if "working_resolution_m" in attrs:
        rows, columns = np.broadcast_to(numbers_of(attrs["working_resolution_m"]), (2,)).tolist()
        parts.append(f"inferred at {_metres((rows, columns))}")
    named = (("cloud", "threshold"), ("shadow", "shadow_threshold"))
    limits = [f"{name} from {float(attrs[key]):g}" for name, key in named if key in attrs]
    if limits:
        parts.append(", ".join(limits))
    elsewhere = {"model", "model_version", "model_sha256", "scheme", "uncertainty"}  # rows of their own
    worded = {"patch_size", "overlap", "working_factors", "threshold", "shadow_threshold"} | elsewhere
    if attrs.get("saturation_alike"):  # as it is unasked
        worded |= {"saturation", "saturation_alike"}
    if attrs.get("cleaned"):
        parts.append(f"cleaned: {attrs['cleaned']}")
    if attrs.get("bands_estimated"):
        parts.append(f"{attrs['bands_estimated']} estimated")
    parts += [f"{name} {attrs[name]}" for name in options.recorded() if name in attrs and name not in worded]
    return "; ".join(parts) or "not told"
