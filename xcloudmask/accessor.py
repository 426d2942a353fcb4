"""The accessor: ``da.cloudmask``. It only forwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError
from xcloudmask.predict import band_dim, predict
from xcloudmask.types import Band, ModelSpec, Sensor, parse_level


@xr.register_dataarray_accessor("cloudmask")
class CloudMaskAccessor:
    """Cloud masks of a DataArray with a band dimension."""

    def __init__(self, da: xr.DataArray) -> None:
        self._da = da

    @property
    def bands(self) -> tuple[Band, ...]:
        """What is known of each band."""
        from xcloudmask.bands import read_bands

        return read_bands(self._da, band_dim(self._da))

    @property
    def sensor(self) -> Sensor | None:
        """The sensor that the array names, if it names one."""
        name = self._da.attrs.get("sensor")
        return sensors.get(name) if name else None

    def describe(
        self,
        sensor: str | None = None,
        *,
        bands: Sequence[str] | None = None,
        level: str | None = None,
        scale: float | Sequence[float] | None = None,
        offset: float | Sequence[float] | None = None,
    ) -> xr.DataArray:
        """Return the array with its sensor, band names, level and scale written on it.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xcloudmask
        >>> da = xr.DataArray(np.zeros((4, 32, 32), "f4"), dims=("band", "y", "x"))
        >>> da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L2A").attrs["level"]
        'boa'
        """
        da, dim = self._da.copy(deep=False), band_dim(self._da)
        count = da.sizes[dim]
        if bands is not None:
            if len(bands) != count:
                raise CloudMaskError(f"bands names {len(bands)} bands, the array has {count}")
            da = da.assign_coords({dim: list(bands)})
        if sensor is not None:
            da.attrs["sensor"] = sensors.get(sensor).name
        if level is not None:
            da.attrs["level"] = parse_level(level)
        if scale is not None or offset is not None:
            pairs = {"scale": 1.0 if scale is None else scale, "offset": 0.0 if offset is None else offset}
            full = {name: np.broadcast_to(np.asarray(v, float), (count,)) for name, v in pairs.items()}
            da = da.assign_coords({name: (dim, v) for name, v in full.items()})
        return da

    def predict(
        self,
        model: str | ModelSpec = "auto",
        *,
        threshold: float | None = None,
        scheme: str = "default",
        patch_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        resolution: str | float = "auto",
        nodata: float | None = None,
        valid: xr.DataArray | None = None,
        tta: bool = False,
    ) -> xr.DataArray:
        """Return classes as uint8, 255 for no data; lazy if the array is.

        Parameters
        ----------
        model : str or ModelSpec
            A name from `xcloudmask.models.list`, or ``"auto"``: the richest that bands and level allow.
        threshold : float, optional
            Cloud where the probability of cloud reaches it; without it, the most probable class.
        scheme : str
            Classes of the answer: default, binary, cloudsen12, senseiv2 or native.
        patch_size, overlap, batch_size, device, dtype, resolution, nodata, valid, tta
            Window, hardware and data choices; the defaults suit the model and the machine.
        """
        return predict(
            self._da, output="classes", model=model, threshold=threshold, scheme_name=scheme,
            patch_size=patch_size, overlap=overlap, batch_size=batch_size, device=device, dtype=dtype,
            resolution=resolution, nodata=nodata, valid=valid, tta=tta,
        )  # fmt: skip

    def predict_proba(
        self,
        model: str | ModelSpec = "auto",
        *,
        scheme: str = "default",
        patch_size: int | None = None,
        overlap: int | None = None,
        batch_size: int | str = "auto",
        device: str = "auto",
        dtype: str = "auto",
        resolution: str | float = "auto",
        nodata: float | None = None,
        valid: xr.DataArray | None = None,
        tta: bool = False,
    ) -> xr.DataArray:
        """Return probabilities as float32 along a ``class`` dimension, NaN for no data."""
        return predict(
            self._da, output="probabilities", model=model, scheme_name=scheme,
            patch_size=patch_size, overlap=overlap, batch_size=batch_size, device=device, dtype=dtype,
            resolution=resolution, nodata=nodata, valid=valid, tta=tta,
        )  # fmt: skip
