"""The accessors: ``da.cloudmask`` and ``ds.cloudmask``. They only forward."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from xcloudmask.errors import CloudMaskError
from xcloudmask.masks import apply
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import predict
from xcloudmask.scene.aux_inputs import AuxLike
from xcloudmask.scene.bands import read_bands, sensor_of
from xcloudmask.scene.dataset import band_names, mask_of
from xcloudmask.scene.dataset import stack as stack_bands
from xcloudmask.scene.describe import describe
from xcloudmask.scene.dims import band_dim
from xcloudmask.scene.eopf import describe_dataset
from xcloudmask.types import Band, ModelLike, Sensor

if TYPE_CHECKING:
    from xcloudmask.masks.geotiff import Written
    from xcloudmask.store.options import Progress
    from xcloudmask.store.sizes import Sizes
    from xcloudmask.streaming.report import StreamReport


class CloudMask:
    """What an array and a dataset of bands have in common."""

    def _array(self) -> xr.DataArray:
        """Return the data as an array with a band dimension."""
        raise NotImplementedError

    def _array_for(self, asked: PredictOptions) -> xr.DataArray:
        """Return the array that a call is about."""
        return self._array()

    def _mask(self) -> xr.DataArray:
        """Return the data as the mask that it is."""
        raise NotImplementedError

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each band."""
        da = self._array()
        return read_bands(da, band_dim(da))

    @property
    def sensor(self) -> Sensor | None:
        """The sensor that the data names, if it names one."""
        return sensor_of(self._array())

    def _shown(self) -> xr.DataArray | xr.Dataset:
        """Return what the repr describes."""
        raise NotImplementedError

    def __repr__(self) -> str:
        from xcloudmask.predict import summary

        return summary.text(self._shown())

    def _repr_html_(self) -> str:
        from xcloudmask.predict import summary

        return summary.html(self._shown())

    def describe(
        self,
        sensor: str | None = None,
        *,
        bands: Sequence[str | Band] | None = None,
        level: str | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        nodata: float | None = None,
    ) -> xr.DataArray:
        """Return the data with its sensor, bands, level and units written on it.

        Parameters
        ----------
        sensor : str, optional
            A name from `xcloudmask.sensors.names`. Bands are then looked up by their labels.
        bands : sequence of str or Band, optional
            What each band is, in order: common names, the sensor's own names, or `Band` objects.
        level : str, optional
            Processing level, in any usual word: L1C, TOA, L2A, BOA, SR.
        scale, offset : float or sequence of float, optional
            ``reflectance = stored * scale + offset``, one figure or one a band.
        nodata : float, optional
            The stored number that means no data.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> da = xr.DataArray(np.zeros((4, 32, 32), "u2"), dims=("band", "y", "x"))
        >>> da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L2A", scale=1e-4)
        >>> da.attrs["level"], da.band.values.tolist()
        ('boa', ['blue', 'green', 'red', 'nir'])
        """
        return describe(
            self._array(), sensor, bands=bands, level=level, scale=scale, offset=offset, nodata=nodata
        )

    def predict(
        self,
        model: ModelLike = "auto",
        *,
        threshold: float | None = None,
        scheme: str = "default",
        patch_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        working_resolution: str | float = "auto",
        nodata: float | str | None = "auto",
        saturation: float | Mapping[str, float] | None = None,
        valid: xr.DataArray | None = None,
        aux: AuxLike | None = None,
        tta: bool | int = False,
    ) -> xr.DataArray:
        """Return classes as uint8, 255 for no data; lazy if the scene or an aux input is.

        Parameters
        ----------
        model : str, ModelSpec, module or function
            A name from `xcloudmask.models.names`, or ``"auto"``: the one that scored best with such bands. A
            module or function must have been registered with `xcloudmask.models.register`.
        threshold : float, optional
            Cloud where the probability of cloud reaches it; without it the model's own, if its card has one,
            else the most probable class. A card may have one of shadow, too, which this leaves alone; for
            the most probable class always, take the card without: ``dataclasses.replace(models.get(NAME),
            threshold=None, shadow_threshold=None)``.
        scheme : {"default", "binary", "cloudsen12", "senseiv2", "native"}
            Codes of the answer. Default: 0 clear, 1 cloud, 2 thin_cloud, 3 cloud_shadow, 4 snow, 5 water.
        patch_size, overlap : int, optional
            Side of a window and what it shares with the next, in pixels of the working resolution. By default
            the side is that of the model's card or, where the card states a range, the one in it with which
            fewest pixels are computed for a scene of this size, however it is chunked.
        batch_size : int or "auto"
            Windows inferred at a time.
        device : {"auto", "cpu", "gpu", "cuda", "cuda:0", "mps", "openvino"}
            Where to infer; ``gpu`` is ``cuda``, or ``mps`` where there is that. ``openvino``, or
            ``openvino:GPU``, runs ONNX models through Intel's OpenVINO if it is installed.
        dtype : {"auto", "float32", "bfloat16", "float16"}
            What to infer in. The blend is float32 always.
        working_resolution : "auto", "native" or float
            Pixel size to infer at, in metres; auto brings fine pixels to what the model was trained on. The
            mask has the pixels of the data in any case.
        nodata : float, None or "auto"
            Stored number that means no data, beside NaN and what the attributes declare. Auto is the fill
            value of the sensor's products: 0 in every band (Sentinel-2, Landsat), which no surface reflects.
            Where the sensor is not known and nothing is declared, 0 in every band is no data with a warning.
            None: no number but those that the attributes declare.
        saturation : float or mapping, optional
            Reflectance from which on a band is saturated, or was clipped: one figure for all visible bands,
            or one for each band that is to be looked at, ``{"blue": 0.4, "red": 0.4}``. A pixel is cloud
            where every such band reaches it, whatever the model says, unless that is snow: flat tops of
            clouds look like nothing that models have seen. Pixels around it are inferred as they would be.
        valid : DataArray, optional
            True where pixels are to be used; the others become no data.
        aux : DataArray, Dataset or mapping of DataArray, optional
            Height, radar or thermal bands, for models whose card has them: ``{"elevation": dem, "vv": vv,
            "vh": vh, "angle": angle, "lwir11": b10}``, metres, dB or linear (their attribute ``units`` says
            which), degrees and kelvin. Of any grid and CRS, with or without the leading dimensions; brought
            to the scene's pixels (bilinear, the mean where theirs are finer) when these are inferred. A gap
            in them makes no pixel no data.
        tta : bool or int
            How many views of each window to average, and how many times slower it is: 1 to 4 are the window
            turned by none to three quarters, 5 to 8 add its mirror image, turned so. True is 8, False the
            window alone. What CloudS2Mask calls depth is one less.

        Returns
        -------
        DataArray
            uint8, same pixels, chunks and coordinates, without the band dimension. The attributes name the
            classes (``flag_values``, ``flag_meanings``) and the model with its hash and options.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> da = xr.DataArray(np.full((4, 64, 64), 0.1, "f4"), dims=("band", "y", "x"))
        >>> da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")
        >>> mask = da.cloudmask.predict(working_resolution="native")
        >>> mask.dtype, mask.attrs["model"]
        (dtype('uint8'), 'ukis-any-l1c')
        """
        options = dict(locals())  # exactly what the signature spells out
        del options["self"]
        asked = PredictOptions(**options)
        return predict(self._array_for(asked), asked)

    def predict_proba(
        self,
        model: ModelLike = "auto",
        *,
        scheme: str = "default",
        patch_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        working_resolution: str | float = "auto",
        nodata: float | str | None = "auto",
        saturation: float | Mapping[str, float] | None = None,
        valid: xr.DataArray | None = None,
        aux: AuxLike | None = None,
        tta: bool | int = False,
        uncertainty: bool = False,
    ) -> xr.DataArray:
        """Return probabilities as float32 along a ``class`` dimension, NaN for no data; lazy as `predict`.

        The parameters are those of `predict`, and:

        Parameters
        ----------
        uncertainty : bool
            Whether a last label of ``class``, ``"uncertainty"``, is added: how far the members of an ensemble
            disagree, the standard deviation of the probability of cloud, from 0 to 0.5, blended as
            probabilities are. With ``tta``, for any model: between turns and mirrors of the window. It is no
            class: drop it before argmax or sum, ``p.drop_sel({"class": "uncertainty"})``.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> da = xr.DataArray(np.full((4, 64, 64), 0.1, "f4"), dims=("band", "y", "x"))
        >>> da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")
        >>> da.cloudmask.predict_proba(working_resolution="native")["class"].values.tolist()
        ['clear', 'cloud', 'cloud_shadow']
        >>> odds = da.cloudmask.predict_proba(working_resolution="native", tta=True, uncertainty=True)
        >>> bool((odds.sel({"class": "uncertainty"}) <= 0.5).all())
        True
        """
        options = dict(locals())
        del options["self"]
        asked = PredictOptions(output="probabilities", **options)
        return predict(self._array_for(asked), asked)

    def clear_fraction(
        self, clear: Sequence[str] = apply.CLEAR, dim: Hashable | Sequence[Hashable] | None = None
    ) -> xr.DataArray:
        """Return the clear share of the pixels that hold data, of a mask.

        Parameters
        ----------
        clear : sequence of str
            Classes that count as clear.
        dim : hashable or sequence of hashable, optional
            Dimensions to count over; rows and columns by default.

        Returns
        -------
        DataArray
            0 to 1; NaN where no pixel holds data.

        Examples
        --------
        >>> import xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[0, 1, 255]], dims=("y", "x"), attrs={"flag_values": [0, 1, 255],
        ...                     "flag_meanings": "clear cloud no_data"})
        >>> mask.cloudmask.clear_fraction().item()
        0.5
        """
        return apply.clear_fraction(self._mask(), clear, dim)

    def clean(self, **steps: Any) -> xr.DataArray:
        """Return a mask with its clouds and shadows tidied, step by step in the order written; lazy if it is.

        A size is a length such as ``"150 m"``, an area such as ``"1 ha"``, or a number of pixels. Lengths are
        right on latitude and longitude, too. A step takes all classes of cloud and shadow as one; with a
        mapping of classes to sizes, ``buffer={"cloud": "150 m", "cloud_shadow": 3}``, each by itself. Only
        clear, land, snow and water become cloud or shadow, and no data stays no data.

        Parameters
        ----------
        close : length
            Close gaps narrower than twice the length.
        open : length
            Take out what is narrower than twice the length.
        buffer : length
            Widen by the length.
        sieve : area
            Take out what is smaller; pixels that meet at corners hang together. What touches no data or the
            scene's edge stays.
        fill : area
            Fill holes that are smaller. What touches no data or the scene's edge is no hole.

        Returns
        -------
        DataArray
            uint8 with the classes of the mask. The attribute ``cleaned`` lists the steps.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray(np.pad(np.ones((1, 1), "u1"), 2), dims=("y", "x"), attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> mask.cloudmask.clean(buffer=1).values.tolist()[1:4]
        [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
        >>> bool(mask.cloudmask.clean(sieve=2, buffer=1).any())
        False
        """
        from xcloudmask.masks.clean import clean

        return clean(self._mask(), steps)

    def compare(self, other: xr.DataArray) -> xr.Dataset:
        """Return how far a mask agrees with another, such as a product's; lazy if either is.

        Parameters
        ----------
        other : DataArray
            A mask on the same grid: of another model, or from `xcloudmask.masks.decode`.

        Returns
        -------
        Dataset
            ``table``: pixels by the class ``here`` and ``there``, where both hold data. ``agreement`` and
            Cohen's ``kappa``, in classes that both know: thin cloud is cloud, shadow, snow and water are
            clear to a mask without them. ``difference``: a map that plots as a mask does.

        Examples
        --------
        >>> import xarray as xr, xcloudmask
        >>> flags = {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
        >>> mask = xr.DataArray([[0, 1, 1, 255]], dims=("y", "x"), attrs=flags)
        >>> other = mask.copy(data=[[0, 1, 0, 0]])
        >>> both = mask.cloudmask.compare(other)
        >>> both.table.values.tolist(), both.difference.values.tolist()
        ([[1, 0], [1, 1]], [[0, 0, 1, 255]])
        """
        from xcloudmask.metrics.compare import compare

        return compare(self._mask(), other)

    def score(
        self,
        reference: xr.DataArray,
        *,
        questions: Sequence[str] | None = None,
        scene_dims: Sequence[str] | None = None,
        samples: int = 1000,
        seed: int = 0,
    ) -> Any:
        """Score a mask against a reference; see `xcloudmask.metrics.xarray_scores.score_mask`.

        Parameters
        ----------
        reference : DataArray
            Classes or partial labels on the same grid; lazy ones are counted chunk by chunk.
        questions : sequence of str, optional
            What to score: ``"cloud"``, ``"invalid"``, ``"cloud_shadow"`` and so on.
        scene_dims : sequence of str, optional
            Dimensions that tell scenes apart; ``"time"`` if there is one.
        samples, seed : int
            Of the bootstrap over scenes.
        """
        from xcloudmask.metrics.xarray_scores import score_mask

        return score_mask(
            self._mask(), reference, questions=questions, scene_dims=scene_dims, samples=samples, seed=seed
        )

    def to_zarr(
        self,
        store: Any,
        *,
        group: str | None = None,
        append_dim: str = "time",
        resume: bool = True,
        overwrite: bool = False,
        chunks: Sizes | None = None,
        shards: Sizes | Literal[False] | None = None,
        encoding: Mapping[str, Any] | None = None,
        progress: Progress = "auto",
        regions_in_flight: int | None = None,
        retries: int = 2,
        storage_options: dict[str, Any] | None = None,
    ) -> StreamReport:
        """Write a mask or probabilities to Zarr region by region; the same call resumes a stopped one.

        Parameters
        ----------
        store : path, URL, zarr Store, obstore store, Icechunk repository or session
            Where to write; see `xcloudmask.streaming.to_zarr`.
        group : str, optional
            Group within the store; one mask lives in one group.
        append_dim : str
            Dimension along which later calls may add steps. Without it nothing can be appended.
        resume : bool
            Go on with a store that exists: only what is not recorded as done is made. False: refuse it.
        overwrite : bool
            Replace a mask that was made otherwise.
        chunks, shards : mapping or sequence of int, optional
            Zarr chunk and shard sizes; by default 512 and 2048 pixels of one step. ``shards=False``: none.
        encoding : mapping, optional
            ``dtype``: for probabilities ``"uint8"`` (scaled, the default), ``"float16"`` or ``"float32"``;
            ``compressors``: Zarr codecs.
        progress : bool, "auto" or callable
            A bar, auto where there is a terminal or a notebook; or a function that is called with each
            `xcloudmask.streaming.ProgressEvent`.
        regions_in_flight : int, optional
            How many regions are held at once; memory is in proportion. In threads one is read at a time,
            whatever their number. By default 2, or two for each thread of a cluster, as it grows and shrinks.
        retries : int
            How often a region that fails (its source, or too many workers died of it) is tried again before
            it is recorded as failed.
        storage_options : dict, optional
            For fsspec URLs; for an Icechunk repository ``{"branch": ...}``, by default ``"main"``, and for
            one on an object store what `icechunk.s3_storage` takes.

        Returns
        -------
        StreamReport
            What was written, skipped and failed; `xcloudmask.stream` lists the errors.
        """
        from xcloudmask.streaming import to_zarr

        options = {
            name: value for name, value in locals().items() if name not in ("self", "store", "to_zarr")
        }
        return to_zarr(self._mask(), store, **options)

    def to_geotiff(self, path: str | PathLike[str], *, overwrite: bool = False) -> Written:
        """Write a mask or probabilities to a Cloud Optimized GeoTIFF, whole or not at all.

        Beside a mask lies ``PATH.aux.xml``, from which GDAL and QGIS take the names of its classes.

        Parameters
        ----------
        path : path
            Ends in ``.tif``. Chunks are computed one after another.
        overwrite : bool
            Whether a file that is there may be replaced.

        Returns
        -------
        Written
            The path, and how many pixels each class has.

        Examples
        --------
        >>> import tempfile, numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray(np.zeros((2, 2), "u1"), dims=("y", "x"),
        ...                     coords={"y": [9.0, 8.0], "x": [1.0, 2.0]},
        ...                     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mask.cloudmask.to_geotiff(f"{folder}/mask.tif").counts
        {'clear': 4, 'cloud': 0, 'no_data': 0}
        """
        from xcloudmask.masks.geotiff import write_geotiff

        return write_geotiff(self._mask(), path, overwrite=overwrite)

    def plot(
        self,
        mask: xr.DataArray | None = None,
        *,
        rgb: str | Sequence[str] = ("red", "green", "blue"),
        time: Any = None,
        ax: Any = None,
        stretch: tuple[float, float] = (2, 98),
        alpha: float | None = None,
        size: float = 5.0,
        legend: bool = True,
    ) -> Any:
        """Draw the picture, with the mask beside and over it; of a mask, the mask alone.

        The parameters are those of `xcloudmask.masks.plot.plot`, which returns matplotlib's Axes.
        """
        from xcloudmask.masks.plot import plot

        return plot(
            self._array(), mask, rgb=rgb, time=time, ax=ax, stretch=stretch, alpha=alpha, size=size,
            legend=legend,
        )  # fmt: skip


@xr.register_dataset_accessor("cloudmask")  # type: ignore[no-untyped-call]
class DatasetAccessor(CloudMask):
    """Cloud masks of a Dataset whose variables are bands, as odc-stac gives it."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def _array(self) -> xr.DataArray:
        return stack_bands(self._ds)

    def _shown(self) -> xr.Dataset:
        return describe_dataset(self._ds)

    def _mask(self) -> xr.DataArray:
        mask = mask_of(self._ds)
        if mask is None:
            raise CloudMaskError(
                f"the dataset holds {', '.join(map(str, self._ds.data_vars)) or 'nothing'}: none, or more "
                "than one, is a mask (with flag_values and flag_meanings); take it by name: ds['cloud_mask']"
            )
        return mask

    def apply(
        self,
        mask: xr.DataArray,
        drop: Sequence[str] = apply.DROP,
        buffer: str | float | None = None,
    ) -> xr.Dataset:
        """Return the dataset with NaN in its bands where `mask` says so; see `DataArrayAccessor.apply`."""
        return self._ds.assign(
            {name: apply.apply(self._ds[name], mask, drop, buffer) for name in band_names(self._ds)}
        )


@xr.register_datatree_accessor("cloudmask")  # type: ignore[no-untyped-call]
class DataTreeAccessor(CloudMask):
    """Cloud masks of a Sentinel-2 product of ESA's EOPF: ``xr.open_datatree(store, engine="zarr")``.

    Sensor, level, offset and date are the store's own, and the bands of its pixel sizes come to one lazy
    grid, that of the finest. With ``predict(working_resolution=30)`` each band is read from the group that
    comes nearest to 30 m and is no coarser, so that less is read; else from its finest.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def _array(self) -> xr.DataArray:
        return self.to_array()

    def _mask(self) -> xr.DataArray:
        raise CloudMaskError("the tree is a scene and no mask: tree.cloudmask.predict() gives its mask")

    def _array_for(self, asked: PredictOptions) -> xr.DataArray:
        size = asked.working_resolution
        return self.to_array(None if isinstance(size, str) else size)

    def _shown(self) -> xr.DataArray | xr.Dataset:
        try:
            return self._array()
        except CloudMaskError:  # a repr never raises: of another tree, what its root holds
            return self._tree.to_dataset()

    def to_array(self, read_at: float | None = None) -> xr.DataArray:
        """Return the bands as one described, lazy array of reflectance on the finest group's grid.

        Parameters
        ----------
        read_at : float, optional
            Metres: each band is taken from its group that comes nearest and is no coarser, and its pixels are
            repeated; by default from its finest.

        Returns
        -------
        DataArray
            ``(band, y, x)``.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> blue = {"long_name": "TOA reflectance from MSI acquisition at spectral band b02 492.3 nm"}
        >>> far = {"long_name": "TOA reflectance from MSI acquisition at spectral band b11 1610.4 nm"}
        >>> fine, coarse = (np.arange(10, 120, 20), np.arange(20, 120, 40))
        >>> tree = xr.DataTree.from_dict({
        ...     "/measurements/reflectance/r10m": xr.Dataset(
        ...         {"b02": (("y", "x"), np.full((6, 6), 0.1, "f4"), blue)}, {"y": -fine, "x": fine}),
        ...     "/measurements/reflectance/r20m": xr.Dataset(
        ...         {"b11": (("y", "x"), np.full((3, 3), 0.2, "f4"), far)}, {"y": -coarse, "x": coarse}),
        ... })
        >>> da = tree.cloudmask.to_array()
        >>> dict(da.sizes), da.attrs["sensor"], da.attrs["level"]
        ({'band': 2, 'y': 6, 'x': 6}, 'sentinel-2b', 'toa')
        """
        from xcloudmask.scene.eopf import on_one_grid

        return stack_bands(on_one_grid(self._tree, read_at))

    def quality(self, like: xr.DataArray | None = None) -> xr.Dataset:
        """Return what the product's quality masks tell: ``valid`` and, for each band, ``saturated``; lazy.

        Parameters
        ----------
        like : DataArray, optional
            On whose grid; by default that of `to_array`.

        Returns
        -------
        Dataset
            ``valid`` is False where any band was lost or its detector is defective: give it to
            ``predict(valid=...)``. ``saturated`` is True where a band's detector was saturated.
        """
        from xcloudmask.scene.eopf import quality

        return quality(self._tree, self._array() if like is None else like)

    def apply(
        self,
        mask: xr.DataArray,
        drop: Sequence[str] = apply.DROP,
        buffer: str | float | None = None,
    ) -> xr.DataArray:
        """Return the bands with NaN where `mask` says so; see `DataArrayAccessor.apply`."""
        return apply.apply(self.to_array(), mask, drop, buffer)


@xr.register_dataarray_accessor("cloudmask")  # type: ignore[no-untyped-call]
class DataArrayAccessor(CloudMask):
    """Cloud masks of a DataArray with a band dimension, and what is done with a mask."""

    def __init__(self, da: xr.DataArray) -> None:
        self._da = da

    def _array(self) -> xr.DataArray:
        return self._da

    def _shown(self) -> xr.DataArray:
        return self._da

    def _mask(self) -> xr.DataArray:
        return self._da

    def select_clear(
        self, mask: xr.DataArray, min_clear: float = 0.3, clear: Sequence[str] = apply.CLEAR
    ) -> xr.DataArray:
        """Return the dates that are clear enough; of the others, and of chunks that are not, nothing is read.

        The mask is computed here, once. Pixels that are not clear stay: take them out with `apply`.

        Parameters
        ----------
        mask : DataArray
            On the same grid; its dimension beside rows and columns tells the dates.
        min_clear : float
            Clear share of the pixels that hold data which a date must have, and a chunk of it.
        clear : sequence of str
            Classes that count as clear.

        Returns
        -------
        DataArray
            The scene, with fewer dates, and NaN in chunks that are not clear enough. A chunk of several dates
            is read if it is clear enough on one of them. A scene in memory loses dates only.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[[0, 0]], [[1, 1]]], dims=("time", "y", "x"), attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> dict(xr.ones_like(mask).cloudmask.select_clear(mask).sizes)
        {'time': 1, 'y': 1, 'x': 2}
        """
        from xcloudmask.masks.select import select_clear

        return select_clear(self._da, mask, min_clear, clear)

    def apply(
        self,
        mask: xr.DataArray,
        drop: Sequence[str] = apply.DROP,
        buffer: str | float | None = None,
    ) -> xr.DataArray:
        """Return the data with NaN where `mask` has one of the classes `drop`, or no data.

        Parameters
        ----------
        mask : DataArray
            From `predict`, on the same grid.
        drop : sequence of str
            Classes to take out; those that the mask does not have are passed over.
        buffer : str or float, optional
            Take out what lies this near to them, too: ``"150 m"``, or a number of pixels.

        Examples
        --------
        >>> import xarray as xr, xcloudmask
        >>> mask = xr.DataArray([0, 1], dims="x", attrs={"flag_values": [0, 1, 255],
        ...                     "flag_meanings": "clear cloud no_data"})
        >>> xr.DataArray([0.2, 0.9], dims="x").cloudmask.apply(mask).values
        array([0.2, nan])
        """
        return apply.apply(self._da, mask, drop, buffer)
