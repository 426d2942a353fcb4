"""From IN and its options to one lazy, described array.

A product or a raster of a known sensor goes through `xcloudmask.open`; a raster whose bands bear names that
models know needs no sensor; a Zarr store or netCDF file holds an array that was described in Python.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xcloudmask.cli.parse import Parser, UsageError, nearest
from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.dims import BAND_DIMS, spatial_dims

if TYPE_CHECKING:
    from xcloudmask.local.geotiff import Layer

_STORES = ("zarr.json", ".zgroup", ".zmetadata")
_NETCDF = (".nc", ".nc4", ".cdf")
#: A multiple of the blocks that the output is written in.
CHUNKS = 2048


def add_arguments(parser: Parser, *, several: bool = False) -> None:
    """Declare what tells how IN is read; several of them are ``args.paths``."""
    kinds = "GeoTIFF, .SAFE, Landsat folder or tar, HDF5, Zarr, netCDF"
    if several:
        parser.add_argument("paths", metavar="IN", nargs="+", help=kinds)
    else:
        parser.add_argument("path", metavar="IN", help=kinds)
    what = parser.add_argument_group("what IN holds, where it does not tell itself")
    what.add_argument("--sensor", metavar="S", help="see: xcloudmask sensors")
    what.add_argument("--bands", metavar="A,B,..", type=_names, help="names of the bands, in order")
    what.add_argument("--level", metavar="L", help="L1C (top of atmosphere) or L2A (surface)")
    what.add_argument("--scale", metavar="X", type=float, help="reflectance = number * scale + offset")
    what.add_argument("--offset", metavar="X", type=float, help="see --scale")
    what.add_argument("--nodata", metavar="X", type=float, help="the number that stands for no data")
    what.add_argument("--sun-elevation", metavar="DEG", type=float, help="for raw Landsat numbers")
    what.add_argument("--date", metavar="DATE", help="UTC, to work the sun's elevation out")
    what.add_argument("--variable", metavar="NAME", help="of a Zarr store or netCDF file")
    what.add_argument(
        "--chunks", metavar="N", type=positive, default=CHUNKS,
        help=f"pixels a side worked on at a time ({CHUNKS}); fewer need less memory",
    )  # fmt: skip


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ArgumentTypeError(f"{text!r} must be names with commas between: blue,green,red,nir")
    return names


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ArgumentTypeError(f"{text!r} must be a whole number above 0")
    return value


def check_date(args: Namespace, paths: Sequence[str]) -> None:
    """Refuse one date for several scenes."""
    if args.date is not None and len(paths) > 1:
        raise UsageError(
            f"--date {args.date} would be the date of {len(paths)} scenes. Leave it out, as dates are read "
            "from names (2020-06-15.tif, or a product's name), or mask each scene in a run of its own"
        )


def open_scene(args: Namespace, path: str | Path | None = None) -> xr.DataArray:
    """Return the input, ``args.path`` or one of several, as a lazy array with a band dimension, described."""
    path = Path(args.path if path is None else path).expanduser()
    scene = _open(args, path)
    _check_name(scene, path, args.date)
    return scene


def _check_name(scene: xr.DataArray, path: Path, date: str | None) -> None:
    """Refuse a date in the name that --date or the time coordinate of a store contradicts."""
    from xcloudmask.local.dates import date_in_name

    named = date_in_name(path.name)
    if named is None or "time" not in scene.coords or not (date or is_store(path)):
        return
    time = scene.time.values
    if time.size != 1 or time.dtype.kind != "M" or np.isnat(time).any():
        return
    day = str(time.astype("M8[D]").item())
    if day != named[:10]:
        cause, remedy = (
            ("--date", "leave --date out") if date else ("its time coordinate", "correct the time")
        )
        raise CloudMaskError(f"{path}: its name says {named}, {cause} says {day}. Rename it, or {remedy}")


def _open(args: Namespace, path: Path) -> xr.DataArray:
    if is_store(path):
        _check_sun_unsaid(path, args)
        return _open_store(path, args)
    if args.variable is not None:
        raise UsageError(f"--variable is for Zarr stores and netCDF files, and {path} is neither")
    if args.sensor is None and (layers := _without_sensor(path)) is not None:
        _check_sun_unsaid(path, args)
        return _open_raster(path, layers, args)
    import xcloudmask

    scene = xcloudmask.open(
        path, bands=args.bands or "auto", sensor=args.sensor, level=args.level, scale=args.scale,
        offset=args.offset, nodata=args.nodata, chunks=args.chunks, sun_elevation=args.sun_elevation,
        date=args.date,
    )  # fmt: skip
    return _with_transform(scene, path)


def is_store(path: Path) -> bool:
    """Whether this is a netCDF file or a Zarr store, other than a product of EOPF."""
    zarr = path.is_dir() and any((path / name).exists() for name in _STORES)
    zarr = zarr and not (path / "measurements" / "reflectance").is_dir()
    return zarr or path.suffix.lower() in _NETCDF


def _describe(data: Any, args: Namespace, **figures: Any) -> xr.DataArray:
    """Write on a DataArray or Dataset what the options say."""
    options = {"bands": args.bands, "scale": args.scale, "offset": args.offset, **figures}
    out: xr.DataArray = data.cloudmask.describe(args.sensor, level=args.level, nodata=args.nodata, **options)
    return out


# --- rasters of no sensor in particular ---


def _check_sun_unsaid(path: Path, args: Namespace) -> None:
    """Refuse what would be ignored: without a sensor the numbers are taken as the file and --scale say."""
    for option in ("date", "sun_elevation"):
        if getattr(args, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} does not apply to {path}: it counts only where --sensor "
                "is said, or IN is a product that tells its sensor. Say --sensor S, or leave the option out"
            )


def _without_sensor(path: Path) -> list[Layer] | None:
    """Return the layers of one raster file whose name tells no sensor; None of anything else."""
    from xcloudmask.local import geotiff
    from xcloudmask.local.files import list_files

    files = list_files(path)
    if not (files.is_single and geotiff.recognises(files)):
        return None
    layers = geotiff.read_layers(files)
    return None if geotiff.told_by_names(layers) else layers


def _nameless(path: Path, names: Sequence[str]) -> bool:
    return all(name in (path.stem, f"{path.stem} band {at}") for at, name in enumerate(names, start=1))


def bands_unnamed(path: Path) -> bool:
    """Whether this is a raster file, of no sensor in particular, whose bands bear no names."""
    layers = None if not path.is_file() or is_store(path) else _without_sensor(path)
    return layers is not None and _nameless(path, [layer.label for layer in layers])


def open_image(path: str | Path, chunk: int = CHUNKS) -> Any:
    """Return a GeoTIFF or JPEG 2000 as a lazy array, in bands; other formats could name any file to be read.

    Where the file is neither, whatever its name says, that is a RasterioIOError.
    """
    import rioxarray

    from xcloudmask.stac.opening import gdal_path, open_raster

    address = gdal_path(str(path))
    with open_raster(address) as file:
        driver = file.driver
    return rioxarray.open_rasterio(
        address, driver=driver, chunks={"band": -1, "y": chunk, "x": chunk}, lock=False
    )


def _open_raster(path: Path, layers: list[Layer], args: Namespace) -> xr.DataArray:
    da = open_image(path, args.chunks)
    names = [layer.label for layer in layers]
    if args.bands is None and _nameless(path, names):
        raise CloudMaskError(
            f"{path}: its {len(names)} bands bear no names. Say what they are: "
            "--bands blue,green,red,nir (in order), or --sensor S with --bands in its own names"
        )
    if args.bands and len(args.bands) != len(names):
        if not set(args.bands) <= set(names):
            raise CloudMaskError(
                f"{path}: --bands gives {len(args.bands)} names, the file has {len(names)} bands"
                f" ({', '.join(names)}). Name every one, in order, or some of these"
            )
        places = [names.index(name) for name in args.bands]
        layers, names, da = [layers[at] for at in places], args.bands, da.isel(band=places)
    figures: dict[str, Any] = {"bands": args.bands or names}
    if any((layer.scale, layer.offset) != (1.0, 0.0) for layer in layers):
        stated = {"scale": [la.scale for la in layers], "offset": [la.offset for la in layers]}
        figures |= {name: values for name, values in stated.items() if getattr(args, name) is None}
    return _describe(da, args, **figures)


def _with_transform(scene: xr.DataArray, path: Path) -> xr.DataArray:
    """Carry a raster file's own transform: taken from coordinates it would differ in the last digit."""
    if not path.is_file():
        return scene
    from rasterio.errors import RasterioIOError

    from xcloudmask.stac.opening import gdal_path, open_raster

    try:
        with open_raster(gdal_path(str(path))) as file:
            if file.shape == (scene.sizes["y"], scene.sizes["x"]):
                scene = scene.rio.write_transform(file.transform)
    except RasterioIOError:  # an archive
        pass
    return scene


# --- Zarr and netCDF ---


def open_dataset(path: Path) -> xr.Dataset:
    """Open a Zarr store or netCDF file."""
    engine = "zarr" if path.is_dir() else None
    if not path.exists():
        raise CloudMaskError(f"{path}: there is no such file or folder. Check the path.")
    try:
        return xr.open_dataset(path, engine=engine, chunks={}, decode_coords="all")
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        hint = " For netCDF 4: pip install h5netcdf" if engine is None else ""
        raise CloudMaskError(f"{path}: cannot be opened: {reason}.{hint}") from error


def _open_store(path: Path, args: Namespace) -> xr.DataArray:
    ds = open_dataset(path)
    arrays = [str(name) for name, v in ds.data_vars.items() if set(BAND_DIMS) & set(v.dims)]
    if args.variable is not None:
        if args.variable not in ds.data_vars:
            there = [str(name) for name in ds.data_vars]
            raise UsageError(
                f"{path} has no variable {args.variable!r}.{nearest(args.variable, there)}"
                f" There are: {', '.join(there)}"
            )
        data: Any = ds[args.variable]
    elif len(arrays) > 1:
        raise UsageError(f"{path} holds several arrays with bands: say --variable {' or '.join(arrays)}")
    else:  # else its variables may be the bands
        data = ds[arrays[0]] if arrays else ds
    y, x = spatial_dims(data)
    return _describe(data.chunk({y: args.chunks, x: args.chunks}), args)
