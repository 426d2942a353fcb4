"""The accessors: ``da.cloudmask`` and ``ds.cloudmask``. They only forward."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, cast

import xarray as xr

from xcloudmask.classes import CLEAR, DROP
from xcloudmask.engine.progress import Progress, progress_bar
from xcloudmask.errors import CloudMaskError, names_checked
from xcloudmask.masks import apply
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import predict
from xcloudmask.scene.aux_inputs import AuxLike
from xcloudmask.scene.bands import read_bands, sensor_of
from xcloudmask.scene.dataset import band_names, mask_of
from xcloudmask.scene.dataset import stack as stack_bands
from xcloudmask.scene.describe import describe
from xcloudmask.scene.dims import band_dim
from xcloudmask.scene.eopf import describe_dataset, on_one_grid, quality
from xcloudmask.tidy.steps import Steps
from xcloudmask.types import Band, ModelLike, Sensor

if TYPE_CHECKING:
    from xcloudmask.masks.explore import Map
    from xcloudmask.masks.geotiff import Written
    from xcloudmask.store.options import Overviews
    from xcloudmask.store.sizes import Sizes
    from xcloudmask.streaming.report import StreamReport

    class DataArray(xr.DataArray):  # type: ignore[no-untyped-call]
        """An array whose ``.cloudmask`` type checkers know; to others it is xarray's own."""

        @property
        def cloudmask(self) -> DataArrayAccessor: ...  # noqa: D102

    class Dataset(xr.Dataset):  # type: ignore[no-untyped-call]
        """A dataset whose ``.cloudmask`` type checkers know."""

        @property
        def cloudmask(self) -> DatasetAccessor: ...  # noqa: D102


P = ParamSpec("P")


def typed(function: Callable[P, xr.DataArray]) -> Callable[P, DataArray]:
    """Have type checkers see ``.cloudmask`` on what a function returns."""
    return cast("Callable[P, DataArray]", function)


class CloudMask:
    """What an array and a dataset of bands have in common."""

    _array: Callable[[], xr.DataArray]  # the data as an array with a band dimension
    _mask: Callable[[], xr.DataArray]  # as the mask that it is
    _scene: Callable[[], xr.DataArray | xr.Dataset]  # as what it is, described as far as its product tells

    def _array_for(self, asked: PredictOptions) -> xr.DataArray:
        """Return the array that a call is about."""
        return self._array()

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each band."""
        da = self._array()
        return read_bands(da, band_dim(da))

    @property
    def sensor(self) -> Sensor | None:
        """The sensor that the data names, if it names one."""
        return sensor_of(self._array())

    def __repr__(self) -> str:
        from xcloudmask.predict import summary

        return summary.text(self._scene())

    def _repr_html_(self) -> str:
        from xcloudmask.masks.thumbnail import thumbnail
        from xcloudmask.predict import summary

        return summary.html(self._scene(), thumbnail(self._array))

    def describe(
        self,
        sensor: str | None = None,
        *,
        bands: Sequence[str | Band] | None = None,
        level: str | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
        nodata: float | None = None,
    ) -> DataArray:
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
        return typed(describe)(
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
        saturation: float | Mapping[str, float] | str | None = "auto",
        valid: xr.DataArray | None = None,
        aux: AuxLike | None = None,
        tta: bool | int = False,
        post: Steps | None = None,
        progress: Progress = "auto",
    ) -> DataArray:
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
        saturation : "auto", float, mapping or None
            Reflectance from which on a band is saturated, or was clipped: one figure for all visible bands,
            or one for each band that is to be looked at, ``{"blue": 0.4, "red": 0.4}``. A pixel is cloud
            where every such band reaches it, whatever the model says, unless that is snow: flat tops of
            clouds look like nothing that models have seen. Pixels around it are inferred as they would be.
            Auto: where all visible bands hold one and the same reflectance of 1.2 or more, which no ground
            does; not for published systems, which answer as published. None: nowhere.
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
        post : mapping, sequence of pairs, or str, optional
            Steps that clean the mask, as `clean` has them, in this order: ``[("close", "60 m"), ("buffer",
            {"cloud": "150 m"}), ("sieve", "1 ha")]``, or ``"close=60 m; buffer(cloud)=150 m; sieve=1 ha"``.
        progress : bool, "auto" or callable
            A bar, auto where there is a terminal or a notebook and it takes a second; or a function that is
            called with each `xcloudmask.streaming.ProgressEvent`: how many windows are done, and of how many.
            Of a lazy scene nothing is done here: ``with tqdm.dask.TqdmCallback(): mask.compute()``.

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
        (dtype('uint8'), 'ukis-4band-l1c')
        """
        return self._predict("classes", progress, locals())

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
        saturation: float | Mapping[str, float] | str | None = "auto",
        valid: xr.DataArray | None = None,
        aux: AuxLike | None = None,
        tta: bool | int = False,
        uncertainty: bool = False,
        progress: Progress = "auto",
    ) -> DataArray:
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
        return self._predict("probabilities", progress, locals())

    def _predict(self, output: Any, progress: Progress, spelled_out: dict[str, Any]) -> DataArray:
        """Predict with the options that a signature spells out."""
        options = {name: spelled_out[name] for name in PredictOptions.names() if name in spelled_out}
        asked = PredictOptions(output=output, **options)
        return typed(predict)(self._array_for(asked), asked, progress)

    def clear_fraction(
        self,
        clear: Sequence[str] = CLEAR,
        dim: Hashable | Sequence[Hashable] | None = None,
        areas: Any = None,
    ) -> xr.DataArray:
        """Return the clear share of the pixels that hold data, of a mask.

        Parameters
        ----------
        clear : sequence of str
            Classes that count as clear.
        dim : hashable or sequence of hashable, optional
            Dimensions to count over; rows and columns by default.
        areas : GeoDataFrame or GeoSeries, optional
            Parcels, say, in any CRS: the share of each is returned along ``area``, by their index. A pixel
            counts by how much of it an area covers, so parcels of a few pixels come out right.

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
        if areas is None:
            return apply.clear_fraction(self._mask(), clear, dim)
        if dim is not None:
            raise CloudMaskError("areas= counts over rows and columns: give dim= or areas=, not both")
        from xcloudmask.masks.areas import clear_fraction_of

        return clear_fraction_of(self._mask(), areas, clear)

    def gaps(self, clear: Sequence[str] = CLEAR) -> xr.Dataset:
        """Return maps of how long each pixel of a mask over time went without a clear view; lazy.

        Parameters
        ----------
        clear : sequence of str
            Classes that count as clear.

        Returns
        -------
        Dataset
            ``clear_count``, ``first_clear``, ``last_clear`` and ``longest_gap``, as `xcloudmask.timeseries`
            gives them beside the fractions; that reads stores, too.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[[0]], [[1]], [[0]]], dims=("time", "y", "x"), coords={
        ...     "time": np.array(["2026-05-01", "2026-05-06", "2026-05-11"], "M8[ns]")}, attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> mask.cloudmask.gaps().longest_gap.dt.days.values.tolist()
        [[10]]
        """
        from xcloudmask.archive.timeseries import timeseries

        names = ["clear_count", "first_clear", "last_clear", "longest_gap"]
        return timeseries(self._mask(), clear=clear)[names]

    def rank(self, by: str = "clear_fraction", area: Any = None, clear: Sequence[str] = CLEAR) -> xr.Dataset:
        """Return the dates of a mask, the clearest first; computed here.

        Parameters
        ----------
        by : {"clear_fraction", "usable_fraction", "valid_fraction"}
            The clear share of the pixels that hold data; that of all pixels, which puts a date of which only
            a corner was seen last; or the share of the pixels that hold data.
        area : GeoDataFrame, GeoSeries, GeoJSON or shapely geometry, optional
            What counts, by the pixels whose centre lies within. Without a CRS of its own, in degrees.
        clear : sequence of str
            Classes that count as clear.

        Returns
        -------
        Dataset
            The three along ``time``, sorted, and ``step``, the place of each date in the mask:
            ``scene.isel(time=ranked.step[:3])``. Dates without a pixel that holds data come last.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[[0, 1]], [[0, 0]], [[0, 255]]], dims=("time", "y", "x"), coords={
        ...     "time": np.array(["2026-05-01", "2026-05-06", "2026-05-11"], "M8[ns]")}, attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> [mask.cloudmask.rank(by).step.values.tolist() for by in ("clear_fraction", "usable_fraction")]
        [[1, 2, 0], [1, 0, 2]]
        """
        from xcloudmask.archive.timeseries import rank

        return rank(self._mask(), by, area, clear)

    def clean(self, *, progress: Progress = "auto", **steps: Any) -> DataArray:
        """Return a mask with its clouds and shadows tidied, step by step in the order written; lazy if it is.

        A size is a length such as ``"150 m"``, an area such as ``"1 ha"``, or a number of pixels. Lengths are
        right on latitude and longitude, too. A step takes all classes of cloud and shadow as one; with a
        mapping of classes to sizes, ``buffer={"cloud": "150 m", "cloud_shadow": 3}``, each by itself. Only
        clear, land, snow and water become cloud or shadow, and no data stays no data.

        Parameters
        ----------
        hysteresis : (float, float)
            Of probabilities, `predict_proba`, and before all other steps: cloud is what reaches the first
            where it hangs together, at corners too, with what reaches the second.
        close : length
            Close gaps narrower than twice the length.
        open : length
            Take out what is narrower than twice the length.
        buffer : length
            Widen by the length.
        sieve : area
            Take out what is smaller; pixels that meet at corners are connected. What touches no data or the
            scene's edge stays.
        fill : area
            Fill holes that are smaller. What touches no data or the scene's edge is no hole.
        progress : bool, "auto" or callable
            As of `predict`; of a mask in memory.

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
        from xcloudmask.tidy.clean import clean

        return typed(clean)(self._mask(), steps, progress)

    def cast_shadow(
        self,
        scene: xr.DataArray | xr.Dataset,
        *,
        sun: tuple[Any, Any] | None = None,
        view: tuple[float, float] | None = None,
        heights: tuple[float, float] = (200.0, 6000.0),
        own: Literal["replace", "match", "keep"] = "replace",
        progress: Progress = "auto",
    ) -> DataArray:
        """Return a mask with the shadows of its clouds, found by geometry; lazy if it is.

        Each cloud is moved along the sun's rays, and its shadow put where it fits the dark ground best, in
        near infrared or, without that, short-wave infrared. Gives shadow to models without that class.

        Parameters
        ----------
        scene : DataArray or Dataset
            What the mask was made from.
        sun : (elevation, azimuth), optional
            Degrees, each one number or one for each date. By default coordinates ``sun_elevation`` and
            ``sun_azimuth``, or as computed from date, time and place. A contradiction is refused.
        view : (zenith, azimuth), optional
            Degrees; where the satellite stood. A cloud at 2 km is seen 350 m aside from 10 degrees.
        heights : (float, float)
            Metres over the ground that clouds may have.
        own : {"replace", "match", "keep"}
            What becomes of the mask's own shadows: they count for nothing; or as dark ground, and those on
            which no shadow falls become clear; or as dark ground, and all of them stay. Where the scene
            holds no data, they stay always.
        progress : bool, "auto" or callable
            As of `predict`; of a mask in memory.

        Returns
        -------
        DataArray
            uint8; the class cloud_shadow is added to a mask without it.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> axis = 30.0 * np.arange(60)
        >>> nir = np.full((1, 60, 60), 0.3, "f4")
        >>> nir[0, 20:26, 20:26] = 0.1
        >>> scene = xr.DataArray(nir, dims=("band", "y", "x"), coords={"y": -axis, "x": axis})
        >>> scene = scene.cloudmask.describe(bands=["nir"], level="L2A")
        >>> mask = xr.zeros_like(scene[0], "u1").assign_attrs(flag_values=[0, 1, 255],
        ...                                                   flag_meanings="clear cloud no_data")
        >>> mask[40:46, 20:26] = 1  # the sun in the south, as high as it is far
        >>> shadow = mask.cloudmask.cast_shadow(scene, sun=(45, 180))
        >>> int((shadow == 3).sum()), shadow.flag_meanings
        (36, 'clear cloud cloud_shadow no_data')
        """
        from xcloudmask.tidy.shadow import cast_shadow

        bands = stack_bands(scene) if isinstance(scene, xr.Dataset) else scene
        return typed(cast_shadow)(self._mask(), bands, sun, view, heights, own, progress)

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

    def select_clear(self, mask: xr.DataArray, min_clear: float = 0.3, clear: Sequence[str] = CLEAR) -> Any:
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
        DataArray or Dataset
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

        return select_clear(self._scene(), mask, min_clear, clear)

    def composite(
        self,
        mask: xr.DataArray,
        method: str = "median",
        *,
        by: Any = None,
        min_clear: float | None = None,
        clear: Sequence[str] = CLEAR,
        quality: xr.DataArray | None = None,
        sources: bool = False,
    ) -> Any:
        """Return one picture of the clear views of many dates, or one for each period; lazy if either is.

        A view counts where the mask is clear and every band holds data.

        Parameters
        ----------
        mask : DataArray
            On the same grid, with a dimension that holds dates.
        method : {"median", "medoid", "best", "latest"}
            Of each pixel: the median of each band; the view that lies nearest to all others, the distances
            over bands added (Flood, 2013), which keeps bands of one date together; the view of the clearest
            date; or the last.
        by : "day", "week", "month", "season", "year", str or DataArray, optional
            Periods, each labelled by its first day: ``"month"`` is each month of the record. Or a length of
            time as pandas writes it, ``"10D"``; or labels of the dates, ``scene.time.dt.month``. By default
            one picture of all dates.
        min_clear : float, optional
            Clear share of its pixels that hold data which a date must have. The masks are then computed here,
            and nothing is read of the other dates, nor of a chunk without a clear pixel. A period without
            such a date is NaN.
        clear : sequence of str
            Classes that count as clear.
        quality : DataArray, optional
            For ``"best"``, in the place of the dates' clear share: numbers by date, or by date and pixel (the
            probability of clear, say), the highest of which wins.
        sources : bool
            Whether a Dataset is returned that has ``views``, how many clear views each pixel had, and
            ``date``, of which date it is (not of the median), beside ``composite`` or the bands.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[[0, 1]], [[0, 0]], [[0, 1]]], dims=("time", "y", "x"), coords={
        ...     "time": np.array(["2026-05-01", "2026-05-06", "2026-05-11"], "M8[ns]")}, attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> red = mask.copy(data=[[[0.1, 0.9]], [[0.3, 0.2]], [[0.2, 0.9]]]).drop_attrs()
        >>> red.cloudmask.composite(mask).values.tolist()
        [[[0.2, 0.2]]]
        >>> red.cloudmask.composite(mask, "latest", by="month", sources=True).date.dt.day.values.tolist()
        [[[11, 6]]]
        """
        from xcloudmask.masks.composite import composite

        return composite(self._scene(), mask, method, by, min_clear, clear, quality, sources)

    def time_rules(
        self,
        mask: xr.DataArray,
        *,
        rules: Sequence[str] = ("persistent", "missed"),
        least: int = 5,
        rise: float = 0.05,
        spread: float = 0.02,
    ) -> xr.Dataset:
        """Return a mask of many dates as the other dates correct it, and what was changed; lazy if either is.

        Ground that looks alike on most dates and is called cloud on most of these (sand, roofs, salt) becomes
        clear on them; a clear view that is brighter in blue than the others of its pixel, and than those
        before and after, becomes cloud. Snow that comes and goes looks like missed cloud.

        Parameters
        ----------
        mask : DataArray
            On the same grid, with a dimension that holds dates.
        rules : sequence of {"persistent", "missed"}
            What to correct: bright ground, cloud that a date missed.
        least : int
            Dates that a pixel must have of each kind, so that there is something to go by.
        rise : float
            By how much blue reflectance must exceed its median at least.
        spread : float
            How far reflectance of ground may spread in each band; or a tenth of it, if that is more.

        Returns
        -------
        Dataset
            ``cloud_mask``; ``persistent_bright``, where ground is called cloud as a rule; and ``changed``,
            how many pixels each rule changed, by date.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> time = np.datetime64("2026-05-01", "ns") + np.arange(6) * np.timedelta64(5, "D")
        >>> mask = xr.DataArray(np.repeat([[[1, 0]]], 6, 0), dims=("time", "y", "x"), coords={"time": time},
        ...     attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"})
        >>> sand_and_field = np.repeat([[[[0.3, 0.05]], [[0.4, 0.08]]]], 6, axis=0)
        >>> sand_and_field[3, :, 0, 1] += 0.2
        >>> scene = xr.DataArray(sand_and_field, dims=("time", "band", "y", "x"), coords={"time": time})
        >>> scene = scene.cloudmask.describe(bands=["blue", "red"], level="L2A")
        >>> revised = scene.cloudmask.time_rules(mask)
        >>> revised.cloud_mask.values[2:4, 0].tolist(), revised.changed.sum("time").values.tolist()
        ([[0, 0], [0, 1]], [6, 1])
        """
        from xcloudmask.masks.time_rules import time_rules

        return time_rules(self._array(), mask, rules, least, rise, spread)

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
        overviews: Overviews = False,
        stac: str | PathLike[str] | None = None,
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
        overviews : bool or sequence of int
            Write coarser copies of the mask beside it, as each region is written, for viewers that draw it
            from afar: the most frequent class, or the mean probability, of each square of pixels. ``(2, 4)``:
            of 2 x 2 and 4 x 4; True: so many that the last has at most 256 pixels along a side. They lie in
            ``overviews/2``, ...; a store that has them keeps them up in later calls.
        stac : path or URL, optional
            A catalogue of STAC documents in which the store is listed when it is whole: as an Item of one
            scene, a Collection of several dates; see `xcloudmask.stac_of`.
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
        options = dict(locals())
        del options["self"], options["store"]
        from xcloudmask.streaming import to_zarr

        return to_zarr(self._mask(), store, **options)

    def to_stac(
        self, href: str | PathLike[str], *, id: str | None = None, items: Any = None, cloud_cover: bool = True
    ) -> Any:
        """Return what STAC says of this mask, which lies at an address, a GeoTIFF or a Zarr group.

        Parameters
        ----------
        href : str or path
            Where it was written to.
        id, items
            As of `xcloudmask.stac_of`.
        cloud_cover : bool
            Whether ``eo:cloud_cover`` is counted; a lazy mask is computed for that, so open the one that was
            written.

        Returns
        -------
        pystac.Item or pystac.Collection
            A Collection where there are several times.

        Examples
        --------
        >>> import numpy as np, rioxarray, xarray as xr, xcloudmask
        >>> mask = xr.DataArray([[0, 1], [1, 1]], dims=("y", "x"), name="cloud_mask", coords={
        ...     "y": [45.5, 45.4], "x": [9.0, 9.1], "time": np.datetime64("2026-05-01", "ns")}, attrs={
        ...     "flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}).rio.write_crs(4326)
        >>> item = mask.cloudmask.to_stac("https://example.com/mask.tif")
        >>> item.id, item.properties["eo:cloud_cover"]
        ('mask', 75.0)
        """
        from xcloudmask.stac.opening import is_zarr
        from xcloudmask.stac.write import describe_mask
        from xcloudmask.stac.zarr_store import split

        href = fspath(href)
        store = split(href)[0] if is_zarr(href) else None
        return describe_mask(self._mask(), href, store=store, id=id, items=items, cloud_cover=cloud_cover)

    def to_geotiff(
        self, path: str | PathLike[str], *, overwrite: bool = False, progress: Progress = "auto"
    ) -> Written:
        """Write a mask or probabilities to a Cloud Optimized GeoTIFF, whole or not at all.

        Beside a mask lies ``PATH.aux.xml``, from which GDAL and QGIS take the names of its classes.

        Parameters
        ----------
        path : path
            Ends in ``.tif``. Chunks are computed one after another.
        overwrite : bool
            Whether a file that is there may be replaced.
        progress : bool, "auto" or callable
            A bar, auto where there is a terminal or a notebook and it takes a second; or a function that is
            called with pixels done and pixels in all.

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

        with progress_bar(progress, "GeoTIFF", "px") as tell:
            return write_geotiff(self._mask(), path, overwrite=overwrite, progress=tell)

    def plot(
        self,
        mask: xr.DataArray | None = None,
        *,
        rgb: str | Sequence[str] = ("red", "green", "blue"),
        time: Any = None,
        columns: int = 4,
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
            self._array(), mask, rgb=rgb, time=time, columns=columns, ax=ax, stretch=stretch, alpha=alpha,
            size=size, legend=legend,
        )  # fmt: skip

    def explore(
        self,
        mask: xr.DataArray | None = None,
        *,
        rgb: str | Sequence[str] = ("red", "green", "blue"),
        time: Any = None,
        stretch: tuple[float, float] = (2, 98),
        alpha: float = 0.6,
        limit: int = 1000,
        height: int = 480,
    ) -> Map:
        """Return a map to drag and zoom, of the picture with the mask over it; of a mask, the mask alone.

        Everything is in the page, also without a network: no tiles, no library is fetched.

        Parameters
        ----------
        mask, rgb, time, stretch
            As of `xcloudmask.masks.plot.plot`, for one time; of probabilities there is no map.
        alpha : float
            How opaque the classes are at first: 0 to 1.
        limit : int
            Pixels a side; of larger arrays every n-th is taken.
        height : int
            Of the frame in a notebook.

        Returns
        -------
        Map
            A notebook shows it; ``.save("map.html")`` writes the page.
        """
        from xcloudmask.masks.explore import explore

        return explore(
            self._array(), mask, rgb=rgb, time=time, stretch=stretch, alpha=alpha, limit=limit, height=height
        )


@xr.register_dataset_accessor("cloudmask")  # type: ignore[no-untyped-call]
class DatasetAccessor(CloudMask):
    """Cloud masks of a Dataset whose variables are bands, as odc-stac gives it."""

    def __init__(self, ds: xr.Dataset) -> None:
        self._ds = ds

    def _array(self) -> xr.DataArray:
        return stack_bands(self._ds)

    def _scene(self) -> xr.Dataset:
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
        self, mask: xr.DataArray, drop: Sequence[str] = DROP, buffer: str | float | None = None
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

    def _mask(self) -> xr.DataArray:
        raise CloudMaskError("the tree is a scene and no mask: tree.cloudmask.predict() gives its mask")

    def _array_for(self, asked: PredictOptions) -> xr.DataArray:
        size = asked.working_resolution
        return self.to_array(None if isinstance(size, str) else size)

    def _scene(self) -> xr.DataArray | xr.Dataset:
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
        return stack_bands(on_one_grid(self._tree, read_at))

    _array = to_array

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
        return quality(self._tree, self._array() if like is None else like)

    def apply(
        self, mask: xr.DataArray, drop: Sequence[str] = DROP, buffer: str | float | None = None
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

    _mask = _scene = _array

    def apply(
        self, mask: xr.DataArray, drop: Sequence[str] = DROP, buffer: str | float | None = None
    ) -> DataArray:
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
        return typed(apply.apply)(self._da, mask, drop, buffer)


for _kind in (CloudMask, DatasetAccessor, DataTreeAccessor, DataArrayAccessor):
    for _name, _method in list(vars(_kind).items()):
        if _name[0] != "_" and callable(_method):
            setattr(_kind, _name, names_checked(_method))
