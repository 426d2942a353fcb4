"""A training patch from an xarray scene and its labels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xcloudmask import sensors
from xcloudmask.engine.aux_planes import RADAR
from xcloudmask.errors import BandError, CloudMaskError, OptionError, names_checked
from xcloudmask.metrics.labels import elementary, possible_from_classes
from xcloudmask.metrics.xarray_scores import possible_of
from xcloudmask.scene.aux_inputs import AuxLike, add_planes, read_aux
from xcloudmask.scene.dims import spatial_dims
from xcloudmask.scene.scene import read_scene
from xcloudmask.train import patches
from xcloudmask.train.files import NO_DATA, sensor_band
from xcloudmask.train.samples import AUX_NAMES, from_xarray
from xcloudmask.types import AuxInput, parse_level

#: How a level is written in a patch.
LEVELS = {"toa": "L1 TOA", "boa": "L2A"}


@names_checked
def write_patch(
    path: str | Path,
    scene: xr.DataArray,
    labels: xr.DataArray | NDArray[Any] | None,
    *,
    classes: Mapping[int, str] | None = None,
    aux: AuxLike | None = None,
    name: str | None = None,
    sensor: str | None = None,
    level: str | None = None,
    pixel_size: float | None = None,
) -> Path:
    """Write a scene and its labels as a patch that training reads; reads the scene's pixels.

    Parameters
    ----------
    path : path
        ``<data>/train/<source>/<name>.npz``; its folder is made.
    scene : DataArray, (band, y, x)
        As ``load_stac`` or ``open`` gives it, or described by ``scene.cloudmask.describe``. A pixel that has
        no data in one band has none in the patch.
    labels : DataArray or array, (y, x), or None
        Classes with ``flag_values`` and ``flag_meanings``, such as a mask that ``predict`` gave and you
        corrected; class codes, with `classes`; or bit masks of what each pixel may be (uint8, see
        `xcloudmask.metrics.BITS`; as a DataArray with ``flag_masks``). None for a patch without labels.
    classes : mapping of int to str, optional
        The word for each code of `labels`; pixels with other codes are not labelled.
    aux : DataArray, Dataset or mapping, optional
        Height and radar, as ``predict`` takes them; resampled to the scene's grid.
    name : str, optional
        The scene's name, which patches of one scene share so that they stay together; by default the file's.
    sensor, level : str, optional
        Such as ``"landsat-8"`` and ``"L1C"``; by default the scene's own.
    pixel_size : float, optional
        In metres; by default that of the coordinates.

    Returns
    -------
    Path
        The file.

    Examples
    --------
    >>> import tempfile, xcloudmask
    >>> scene = xr.DataArray(np.full((2, 64, 64), 0.1), dims=("band", "y", "x"))
    >>> scene = scene.assign_coords(band=["B4", "B5"]).cloudmask.describe("landsat-8", level="L1TP")
    >>> labels = np.zeros((64, 64), "u1")  # class codes drawn by hand; here all is clear
    >>> path = write_patch(f"{tempfile.mkdtemp()}/mine/a.npz", scene, labels,
    ...                    classes={0: "clear", 1: "cloud"}, pixel_size=30)
    >>> from xcloudmask.train.files import read_patch
    >>> [band.common_name for band in read_patch(path).bands]
    ['red', 'nir08']
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise CloudMaskError(f"{path}: the name of a patch ends in .npz")
    sensor = sensor or scene.attrs.get("sensor")
    if not sensor:
        raise CloudMaskError("the scene does not name its sensor: pass sensor='landsat-8', say")
    known = sensors.get(sensor)
    level = level or scene.attrs.get("level")
    if not level:
        raise CloudMaskError(
            "the scene does not name its level: pass level='L1C' (top of atmosphere) or 'L2A'"
        )
    sample = from_xarray(scene, _bit_masks(scene, labels, classes), gsd=pixel_size, scene=name or path.stem)
    for band in sample.bands:
        if band.common_name is None or band.kind not in ("reflectance", "brightness_temperature"):
            raise BandError(
                f"band {band.name!r} ({band.kind}) has no place in a patch, which holds reflectance and "
                "brightness temperature under STAC common names: leave it out, scene.drop_sel(band=...)"
            )
        sensor_band(known, band.common_name)
    kinds = [band.kind for band in sample.bands]
    stored = np.clip(np.round(sample.image * patches.units(kinds)), 0, NO_DATA - 1)
    meta = {"sensor": sensor, "level": LEVELS[parse_level(level)], "gsd_m": sample.gsd, "scene": sample.scene}
    patches.write(
        path,
        image=np.where(np.isnan(stored), NO_DATA, stored).astype(np.uint16),
        bands=[str(band.common_name) for band in sample.bands],
        kinds=kinds,
        meta=json.dumps(meta),
        **({} if labels is None else {"possible": sample.possible}),
        **_aux_planes(scene, aux),
    )
    return path


def _aux_planes(scene: xr.DataArray, aux: AuxLike | None) -> dict[str, NDArray[np.float32]]:
    """Return aux inputs on the scene's grid in the units of a patch: metres, decibels, degrees."""
    given = {AuxInput(name): array for name, array in read_aux(aux).items()}
    for each in given:
        if each.name not in AUX_NAMES:
            raise OptionError("aux input of a patch", each.name, allowed=AUX_NAMES)
    if not given:
        return {}
    read = read_scene(scene)
    stacked = add_planes(scene.transpose(read.band, read.y, read.x), given, scene).values[-len(given) :]
    return {
        each.name: 10 * np.log10(np.maximum(plane, np.float32(1e-5))) if each.name in RADAR else plane
        for each, plane in zip(given, stacked, strict=True)
    }


def _bit_masks(scene: xr.DataArray, labels: Any, classes: Mapping[int, str] | None) -> xr.DataArray | None:
    """Return labels as bit masks on the scene's grid."""
    if labels is None:
        return None
    rows = spatial_dims(scene)
    shape = tuple(scene.sizes[dim] for dim in rows)
    if not isinstance(labels, xr.DataArray):
        if np.shape(labels) != shape:
            raise CloudMaskError(f"the labels have shape {np.shape(labels)}, the scene's pixels {shape}")
        labels = xr.DataArray(np.asarray(labels), dims=rows)
    elif classes is None:
        labels = possible_of(labels)
    try:
        labels = xr.align(labels, scene.isel({d: 0 for d in scene.dims if d not in rows}), join="exact")[0]
    except ValueError as error:
        raise CloudMaskError(
            f"labels and scene lie on different grids ({error}). Bring the labels to the scene's grid: "
            "labels.rio.reproject_match(scene)"
        ) from error
    codes = np.asarray(labels.transpose(*rows).values)
    if classes is not None:
        codes = possible_from_classes(codes, classes)
    elementary(codes)  # an error, if they are no bit masks
    return xr.DataArray(codes, dims=rows)
