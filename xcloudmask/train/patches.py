"""What a patch file holds, checked: a file of another form is refused by name, never trained on."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcloudmask.engine.aux_planes import RADAR, Cleaner
from xcloudmask.engine.cache import PerProcessCache
from xcloudmask.errors import CloudMaskError, UnitError, UnitWarning, warn_user
from xcloudmask.metrics.labels import elementary
from xcloudmask.models.weights.atomic import replace_file
from xcloudmask.train.samples import AUX_NAMES
from xcloudmask.types import KINDS, AuxName

#: What each part of a patch must be; all but `possible` and aux inputs are needed.
FORM: Mapping[str, str] = {
    "image": "uint16 (band, y, x), bands first: numpy.round(reflectance * 10_000), or kelvin * 100; 65535 "
    "for no data",
    "bands": "a list of STAC common names, one a band",
    "kinds": "a list, one a band: 'reflectance' or 'brightness_temperature'",
    "possible": "uint8 (y, x): bit masks of the classes that each pixel may have",
    "meta": "JSON text made by json.dumps({'sensor': ..., 'level': ..., 'gsd_m': ..., 'scene': ...})",
    "elevation": "float32 (y, x): height in metres, NaN where it is not known",
    "vv": "float32 (y, x): backscatter in decibels, NaN where it is not known",
    "vh": "float32 (y, x): backscatter in decibels, NaN where it is not known",
    "angle": "float32 (y, x): the radar's incidence angle in degrees, NaN where it is not known",
}
OPTIONAL = ("possible", *AUX_NAMES)
#: What the entries of `meta` must be; there may be more.
META: Mapping[str, str] = {
    "sensor": "text such as 'landsat-8'",
    "level": "text such as 'L1 TOA' or 'L2A'",
    "gsd_m": "the size of a pixel in metres, above 0",
    "scene": "the name of the scene that the patch is of",
}
#: Names that others give to labels.
OTHER_NAMES = ("label", "labels", "mask")
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error)
_AGAIN = "copy it again, or write it with numpy.savez_compressed"
#: Files of which a warning was given, as they were then.
_warned: PerProcessCache[None] = PerProcessCache()


@dataclass(frozen=True, eq=False, slots=True)
class Patch:
    """What a patch holds, as it is stored (see `FORM`): without `possible` it is not labelled.

    Aux planes have backscatter as a ratio of powers; NaN where not known.

    Examples
    --------
    >>> Patch(np.zeros((1, 2, 2), "u2"), ("red",), ("reflectance",), {"scene": "a"}).possible is None
    True
    """

    image: NDArray[np.uint16]
    bands: tuple[str, ...]
    kinds: tuple[str, ...]
    meta: Mapping[str, Any]
    possible: NDArray[np.uint8] | None = None
    aux: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def read(path: Path) -> Patch:
    """Read a patch and check all that it holds.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.npz")
    >>> np.savez(path, image=np.ones((1, 2, 2)), bands=["red"], kinds=["reflectance"], meta="{}")
    >>> read(path)
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: ...a.npz: not a patch of the form that xcloudmask.train reads: ...
    """
    parts = _load(path, FORM)
    meta = _meta(path, parts["meta"])
    bands, kinds = _names(path, parts, "bands"), _names(path, parts, "kinds")
    if len(kinds) != len(bands):
        raise bad(path, f"{len(kinds)} kinds for {len(bands)} bands; 'kinds' must be {FORM['kinds']}")
    for kind in kinds:
        if kind not in KINDS:
            raise bad(path, f"unknown kind {kind!r}; 'kinds' must be {FORM['kinds']}")
    _check_image(path, parts["image"], len(bands))
    if "possible" in parts:
        _check_labels(path, parts["possible"], parts["image"].shape)
    aux = {str(name): _aux_plane(path, name, parts) for name in AUX_NAMES if name in parts}
    return Patch(parts["image"], bands, kinds, meta, parts.get("possible"), aux)


def units(kinds: Iterable[str]) -> NDArray[np.float64]:
    """Return by what numbers of bands of these kinds are multiplied, (band, 1, 1)."""
    factors = [100.0 if kind == "brightness_temperature" else 10_000.0 for kind in kinds]
    return np.array(factors)[:, None, None]


def aux_of(path: Path) -> set[str]:
    """Return the names of the aux inputs that a patch holds."""
    return set(_load(path, AUX_NAMES))


def _aux_plane(path: Path, name: AuxName, parts: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    stored, shape = parts[name], parts["image"].shape[1:]
    if stored.dtype.kind not in "iuf" or stored.shape != shape:
        raise bad(path, f"{name!r} is {_form(stored)}, the image {shape}; it must be {FORM[name]}")
    try:
        return Cleaner(decibels=name in RADAR, name=name)(stored)
    except UnitError as error:
        raise bad(path, f"{error}. It must be {FORM[name]}") from error


def read_meta(path: Path) -> Mapping[str, Any]:
    """Read a patch's `meta`, and no pixel."""
    return _meta(path, _load(path, ["meta"])["meta"])


def read_image(path: Path) -> NDArray[Any]:
    """Read the pixels as they are stored, unchecked."""
    return _load(path, ["image"])["image"]


def write(path: Path, **parts: Any) -> None:
    """Write the parts of a patch, atomically, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.BytesIO()
    np.savez_compressed(stream, **parts)
    replace_file(path, stream.getvalue())


def bad(path: Path, problem: str) -> CloudMaskError:
    """Return the error that names a file and what is wrong with it."""
    return CloudMaskError(f"{path}: not a patch of the form that xcloudmask.train reads: {problem}")


def _load(path: Path, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Read some parts of a file; all must be there, but for the labels."""
    out: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as raw:
            if not zipfile.is_zipfile(raw):
                raise bad(path, f"no .npz archive, or one cut short; {_AGAIN}")
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                names = list(file.files)
                for name in wanted:
                    if name in names:
                        out[name] = _part(path, file, name)
    except CloudMaskError:
        raise
    except _DAMAGED as error:
        raise bad(path, f"it cannot be read ({error}); {_AGAIN}") from error
    for name in wanted:
        if name not in out and name not in OPTIONAL:
            raise bad(path, f"it holds {_list(names)}, but no {name!r}, which must be {FORM[name]}")
    others = [name for name in names if name.casefold() in OTHER_NAMES]
    if "possible" in wanted and "possible" not in out and others:
        raise bad(
            path,
            f"it holds {others[0]!r}, but no 'possible', which labels are read from: {FORM['possible']}. Turn"
            " class codes into bit masks with xcloudmask.metrics.possible_from_classes; of a patch that is "
            f"not labelled, leave {others[0]!r} out",
        )
    return out


def _part(path: Path, file: Mapping[str, Any], name: str) -> NDArray[Any]:
    """Read one part."""
    try:
        value = file[name]
    except _DAMAGED as error:
        hint = "" if "Object arrays" in str(error) else f"; if it is, {_AGAIN}"
        raise bad(path, f"{name!r} cannot be read ({error}); it must be {FORM[name]}{hint}") from error
    if not isinstance(value, np.ndarray):
        raise bad(path, f"{name!r} is no array; it must be {FORM[name]}; {_AGAIN}")
    return value


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _names(path: Path, parts: Mapping[str, NDArray[Any]], name: str) -> tuple[str, ...]:
    stored = parts[name]
    if stored.ndim != 1 or stored.dtype.kind != "U":
        raise bad(path, f"{name!r} is {_form(stored)}; it must be {FORM[name]}")
    return tuple(stored.tolist())


def _meta(path: Path, stored: NDArray[Any]) -> Mapping[str, Any]:
    if stored.size != 1 or stored.dtype.kind != "U":
        raise bad(path, f"'meta' is {_form(stored)}; it must be {FORM['meta']}")
    try:
        meta = json.loads(stored.item())
    except ValueError as error:
        raise bad(path, f"'meta' is no JSON ({error}); it must be {FORM['meta']}") from error
    if not isinstance(meta, dict):
        raise bad(path, f"'meta' holds {meta!r}, no mapping; it must be {FORM['meta']}")
    for key, form in META.items():
        if key not in meta:
            raise bad(path, f"'meta' holds {_list(meta)}, but no {key!r}, which must be {form}")
        if not _fits(key, meta[key]):
            raise bad(path, f"'meta' has {key} = {meta[key]!r}; it must be {form}")
    return meta


def _fits(key: str, value: Any) -> bool:
    if key == "gsd_m" and not isinstance(value, bool):
        try:
            return 0 < float(value) < math.inf
        except (TypeError, ValueError, OverflowError):
            return False
    return bool(isinstance(value, str) and value) or (key == "scene" and type(value) is int)


def _check_image(path: Path, image: NDArray[Any], count: int) -> None:
    if image.ndim != 3 or 0 in image.shape or (image.dtype.kind, image.dtype.itemsize) != ("u", 2):
        raise bad(path, f"'image' is {_form(image)}; it must be {FORM['image']}")
    if len(image) != count:
        raise bad(path, f"'image' is {_form(image)}, and 'bands' names {count}; it must be {FORM['image']}")


def _check_labels(path: Path, labels: NDArray[Any], shape: tuple[int, ...]) -> None:
    if labels.shape != shape[1:]:
        raise bad(
            path, f"'possible' is {_form(labels)}, the image {shape}; labels must be (y, x) = {shape[1:]}"
        )
    try:
        elementary(labels if labels.dtype.kind in "uib" else labels[:0])
    except CloudMaskError as error:
        raise bad(path, str(error)) from error
    if labels.max() == 3:  # nothing but 0 to 3, and 3 is an odd label: clear or thick cloud
        _warned.get_or_create((str(path), path.stat().st_mtime_ns), lambda: _warn_of_codes(path))


def _warn_of_codes(path: Path) -> None:
    warn_user(
        f"{path}: 'possible' holds no value but 0 to 3, which looks like class codes; it is read as bit "
        "masks (1 clear, 2 thick cloud, 3 clear or thick cloud). If they are codes, turn them into bit masks "
        "with xcloudmask.metrics.possible_from_classes",
        UnitWarning,
    )


def _form(array: NDArray[Any]) -> str:
    """Return type, shape and range of an array, for a message."""
    if array.dtype.kind == "U":
        return f"text {array.shape}"
    text = f"{array.dtype} {array.shape}"
    known = array[np.isfinite(array)] if array.dtype.kind in "iuf" else np.array([])
    return f"{text} from {known.min():.5g} to {known.max():.5g}" if known.size else text
