"""A labelled image as training sees it: reflectance, what its bands are, and what each pixel may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xcloudmask.engine.aux_planes import encode
from xcloudmask.engine.pixels import calibrate, fill_gaps
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import BITS, elementary
from xcloudmask.scene.describe import describe
from xcloudmask.scene.scene import read_scene
from xcloudmask.scene.units import calibration_of
from xcloudmask.types import AuxInput, AuxName, Band

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
#: Aux inputs that a patch holds and a network is trained with; thermal bands are among its other bands.
AUX_NAMES: tuple[AuxName, ...] = ("elevation", "vv", "vh", "angle")
#: Kinds of bands that are aux inputs: gaps in them do not make a pixel no data.
AUX_KINDS = ("elevation", "sar")


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One image with partial labels.

    Parameters
    ----------
    image : array of float32, (band, y, x)
        Reflectance (0 to 1, and kelvin for thermal bands), NaN for no data. Planes of aux inputs are among
        the bands: height in metres, backscatter as a ratio of powers, NaN where it is not known.
    bands : tuple of Band
        What each band is.
    possible : array of uint8, (y, x)
        Bit mask of the classes each pixel may have, 0 for not labelled; see `xcloudmask.metrics.BITS`.
    gsd : float
        Pixel size in metres.
    scene, source, level : str
        Where it comes from; patches of one scene share its name.
    spatial : bool
        False for a list of pixels, whose neighbours in the array are no neighbours on the ground.
    soft_labels : array of float32, (3, y, x), optional
        What a teacher predicts for each pixel; see `xcloudmask.train.pseudo.opinion`.

    Examples
    --------
    >>> one = Sample(np.zeros((1, 2, 2), "f4"), (Band("red", "red"),), np.ones((2, 2), "u1"), 30.0)
    >>> one.select([0]).image.shape
    (1, 2, 2)
    """

    image: Image
    bands: tuple[Band, ...]
    possible: Labels
    gsd: float
    scene: str = ""
    source: str = ""
    level: str = ""
    spatial: bool = True
    soft_labels: Image | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[0] != len(self.bands):
            raise CloudMaskError(
                f"sample {self.scene!r}: the image must be (band, y, x) with {len(self.bands)} bands, got "
                f"{self.image.shape}"
            )
        if self.possible.shape != self.image.shape[1:]:
            raise CloudMaskError(
                f"sample {self.scene!r}: labels {self.possible.shape} do not fit the image {self.image.shape}"
            )
        elementary(self.possible[:0])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Where every band has a value, whatever the aux planes hold."""
        bands = [band.kind not in AUX_KINDS for band in self.bands]
        return np.asarray(~np.isnan(self.image[bands]).any(axis=0))

    def select(self, at: list[int]) -> Sample:
        """Return the sample with only the bands at these positions, in this order."""
        return replace(self, image=self.image[at], bands=tuple(self.bands[i] for i in at))

    def moved(self, move: Callable[[Any], Any]) -> Sample:
        """Return the sample with image, labels and soft labels moved alike, along their last two axes."""
        soft = None if self.soft_labels is None else move(self.soft_labels)
        return replace(self, image=move(self.image), possible=move(self.possible), soft_labels=soft)

    def parted(self) -> tuple[Sample, dict[str, Image]]:
        """Return the sample without aux planes, and these by their names."""
        bands = [i for i, band in enumerate(self.bands) if band.kind not in AUX_KINDS]
        planes = {self.bands[i].name: self.image[i] for i in range(len(self.bands)) if i not in bands}
        return self.select(bands), planes


def with_aux(sample: Sample, planes: Mapping[str, Image], aux: Sequence[AuxInput], *, always: bool) -> Sample:
    """Return a sample with aux planes behind its bands as the engine gives them: scaled, and gaps filled.

    `sample` and `planes` are from `Sample.parted`; planes that the network does not take are left out. With
    `always` it gets a plane of zeros for each that is not given, as networks of fixed bands do.

    Examples
    --------
    >>> one = Sample(np.zeros((1, 2, 2), "f4"), (Band("red", "red"),), np.ones((2, 2), "u1"), 30.0)
    >>> height = np.array([[2000, np.nan], [2000, 2000]], "f4")
    >>> with_aux(one, {"elevation": height}, [AuxInput("elevation")], always=False).image[1].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    layers, bands = [sample.image], [*sample.bands]
    for each in aux:
        if always or each.name in planes:
            plane = planes.get(each.name, np.full(sample.possible.shape, np.nan, np.float32))
            known = np.isfinite(plane)
            filled = fill_gaps(plane[None], known)[0] if known.any() else plane
            layer = encode(filled, known, each)
            layers.append((layer if sample.spatial else np.where(known, layer, np.float32(0)))[None])
            bands.append(each.band)
    return replace(sample, image=np.concatenate(layers), bands=tuple(bands))


def coarse_labels(labels: Labels, area: Callable[[NDArray[np.bool_]], NDArray[Any]], whole: float) -> Labels:
    """Return labels of larger pixels; `area` gives how much of each is true, out of `whole`.

    A class stays possible where a third of the labelled area leaves it open; what is less than half labelled
    is not labelled.
    """
    labelled = area(labels > 0)
    possible = np.zeros(labelled.shape, np.uint8)
    for bit in BITS.values():
        possible[area((labels & bit) > 0) * 3 > labelled] |= bit
    possible[labelled * 2 < whole] = 0
    return possible


def to_xarray(sample: Sample) -> xr.DataArray:
    """Return a sample's image as a described DataArray with its pixel size, as `predict` takes it.

    Where it lies on the ground is not known: its coordinates are metres from a corner.

    Examples
    --------
    >>> red = Band("red", "red", 640, 660, 680)
    >>> one = Sample(np.zeros((1, 2, 2), "f4"), (red,), np.ones((2, 2), "u1"), 30.0, level="toa")
    >>> da = to_xarray(one)
    >>> da.x.values.tolist(), da.attrs["level"]
    ([15.0, 45.0], 'toa')
    """
    import rioxarray  # noqa: F401  registers .rio

    y, x = ((np.arange(size) + 0.5) * sample.gsd for size in sample.possible.shape)
    da = xr.DataArray(sample.image, dims=("band", "y", "x"), coords={"y": -y, "x": x})
    da = describe(da, bands=list(sample.bands), level=sample.level or None)
    out: xr.DataArray = da.rio.write_crs("EPSG:32631")  # of any place where coordinates are metres
    return out


def from_xarray(
    da: xr.DataArray, possible: xr.DataArray | None = None, *, gsd: float | None = None, scene: str = ""
) -> Sample:
    """Return a described DataArray and its labels as a sample; reads its pixels, and scales them if need be.

    `possible` holds bit masks; without it nothing is labelled. The pixel size is that of the coordinates if
    not given.

    Examples
    --------
    >>> import xcloudmask
    >>> da = xr.DataArray(np.zeros((2, 4, 4), "f4"), dims=("band", "y", "x"), coords={"band": ["red", "nir"]})
    >>> [band.common_name for band in from_xarray(da, gsd=10).bands]
    ['red', 'nir']
    """
    read = read_scene(da)
    if gsd is None:
        if read.pixel is None:
            raise CloudMaskError("the pixel size is not known: pass it, in metres")
        gsd = read.pixel[0]
    calibration = calibration_of(read, tuple(range(len(read.bands))))
    values, valid = calibrate(da.transpose(read.band, read.y, read.x).values, calibration)
    image = np.where(valid, values, np.float32(np.nan))
    if possible is None:
        labels = np.zeros(image.shape[1:], np.uint8)
    else:
        labels = np.asarray(possible.transpose(read.y, read.x).values)
    return Sample(image, read.bands, labels, float(gsd), scene=scene, source="xarray")
