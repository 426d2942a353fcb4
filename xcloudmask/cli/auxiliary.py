"""``--aux NAME=FILE``: heights and radar beside the bands, each one band of a file, lazy."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from xcloudmask.cli import source
from xcloudmask.cli.parse import UsageError
from xcloudmask.errors import CloudMaskError
from xcloudmask.scene.aux_inputs import known


def add_arguments(group: Any) -> None:
    """Declare them in a group of a parser."""
    group.add_argument(
        "--aux", metavar="NAME=FILE", type=_pair, action="append", default=[],
        help="elevation, vv, vh, angle, lwir11 or lwir12, for models that take it; GeoTIFF, Zarr, netCDF",
    )  # fmt: skip
    group.add_argument(
        "--aux-units", metavar="NAME=U", type=_pair, action="append", default=[],
        help="in place of what its file says: m, dB, linear, degrees",
    )  # fmt: skip


def open_aux(args: Namespace) -> dict[str, xr.DataArray] | None:
    """Return what ``aux=`` takes; None if nothing is given."""
    files = _once("--aux", args.aux)
    units = _once("--aux-units", args.aux_units)
    for name in units.keys() - files.keys():
        raise UsageError(f"--aux-units {name}={units[name]}: there is no --aux {name}=FILE")
    opened = {name: _open(name, path) for name, path in files.items()}
    for name, unit in units.items():
        opened[name] = opened[name].assign_attrs(units=unit)
    return opened or None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ArgumentTypeError(f"{text!r} must be NAME=..., such as elevation=dem.tif")
    return name, value


def _once(option: str, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    values = dict(pairs)
    for name in values:
        if sum(name == other for other, _ in pairs) > 1:
            raise UsageError(f"{option} {name}=... is said twice: leave one out")
    return values


def _open(name: str, path: str) -> xr.DataArray:
    local = None if "://" in path or path.startswith("/vsi") else Path(path).expanduser()
    if local is not None and source.is_store(local):
        return _in_store(name, local)
    from rasterio.errors import RasterioIOError

    try:
        da = source.open_image(path if local is None else local)
    except RasterioIOError as error:
        raise CloudMaskError(f"--aux {name}: {path} cannot be opened: {error}. Check the path") from error
    if da.sizes["band"] > 1:
        raise UsageError(
            f"--aux {name}: {path} has {da.sizes['band']} bands, and an aux input is one: take it out first, "
            f"gdal_translate -b 1 {path} one.tif"
        )
    out: xr.DataArray = da.squeeze("band", drop=True)
    return out


def _in_store(name: str, path: Path) -> xr.DataArray:
    """Return the variable of that name, or the only one."""
    ds = source.open_dataset(path)
    arrays = {str(label): array for label, array in ds.data_vars.items() if array.ndim > 1}
    named = [array for label, array in arrays.items() if known(label) == known(name)]
    candidates = named if named else list(arrays.values())
    if len(candidates) != 1:
        raise UsageError(
            f"--aux {name}: {path} holds {', '.join(arrays) or 'no pictures'}: give a file with one "
            f"variable, or one that is called {name!r}"
        )
    return candidates[0]
