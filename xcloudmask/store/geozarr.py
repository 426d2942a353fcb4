"""The GeoZarr conventions spatial, proj and multiscales: the one place that knows how they are written.

They are drafts. What readers and published schemas agree on is the UUID of each. Names and addresses differ:
version 0.1 calls two of them ``spatial`` and ``proj``, while rioxarray 0.23 looks for ``spatial:`` and
``proj:``, and no schema takes the addresses of another version. So each convention is registered twice, as
version 0.1 has it and by UUID and name alone, which is right for readers and schemas of all versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

VERSION = "0.1"
#: UUID, older name and sentence of each convention, by its name.
CONVENTIONS: Mapping[str, tuple[str, str, str]] = {
    "spatial": ("689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "spatial:", "Spatial coordinate information"),
    "proj": (
        "f17cb550-5864-4468-aeb7-f3180cfb622f", "proj:",
        "Coordinate reference system information for geospatial data",
    ),
    "multiscales": (
        "d35379db-88df-4056-af3a-620245f8e347", "multiscales", "Multiscale layout of zarr datasets",
    ),
}  # fmt: skip
#: How far a coordinate may be from its place in an even grid, in pixels: those in single precision are.
UNEVEN = 0.05

Transform = tuple[float, float, float, float, float, float]


def registrations(*names: str) -> list[dict[str, str]]:
    """Return the value of ``zarr_conventions``.

    Examples
    --------
    >>> [entry["name"] for entry in registrations("spatial")]
    ['spatial', 'spatial:']
    """
    out = []
    for name in names:
        uuid, older, sentence = CONVENTIONS[name]
        out.append(
            {
                "uuid": uuid,
                "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v{VERSION}/schema.json",
                "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v{VERSION}/README.md",
                "name": name,
                "description": sentence,
            }
        )
        out.append({"uuid": uuid, "name": older})
    return out


@dataclass(frozen=True, slots=True)
class ImageGrid:
    """Where the pixels of an image lie."""

    dims: tuple[str, str]
    shape: tuple[int, int]
    transform: Transform | None  # from column and row to x and y of a pixel's corner; None: not an even grid
    crs: Any = None

    @classmethod
    def of(cls, coords: xr.Dataset, dims: tuple[str, str], shape: tuple[int, int]) -> ImageGrid:
        """Read the grid from coordinates, which are pixel centres."""
        axes = [_axis(coords, dim) for dim in dims]
        transform = None
        if axes[0] is not None and axes[1] is not None:
            (top, height), (left, width) = axes[0], axes[1]
            transform = (width, 0.0, left - width / 2, 0.0, height, top - height / 2)
        return cls(dims, shape, transform, coords.rio.crs)

    @property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north in the CRS."""
        if self.transform is None:
            return None
        (rows, cols), (a, _, c, _, e, f) = self.shape, self.transform
        xs, ys = sorted((c, c + a * cols)), sorted((f, f + e * rows))
        return xs[0], ys[0], xs[1], ys[1]

    def coarser(self, factor: int) -> ImageGrid:
        """Return the grid of an overview: its last row and column may reach beyond the image."""
        rows, cols = (-(-n // factor) for n in self.shape)
        transform = None
        if self.transform is not None:
            a, b, c, d, e, f = self.transform
            transform = (a * factor, b, c, d, e * factor, f)
        return ImageGrid(self.dims, (rows, cols), transform, self.crs)

    def centres(self) -> dict[str, Any]:
        """Return the coordinates of rows and columns, if they are known."""
        if self.transform is None:
            return {}
        (rows, cols), (a, _, c, _, e, f) = self.shape, self.transform
        return {self.dims[0]: f + e * (np.arange(rows) + 0.5), self.dims[1]: c + a * (np.arange(cols) + 0.5)}


def _axis(coords: xr.Dataset, dim: str) -> tuple[float, float] | None:
    """Return the first coordinate and the step, if all steps are the same."""
    if dim not in coords.coords or coords.sizes[dim] < 2:
        return None
    values = np.asarray(coords[dim].values)
    if values.dtype.kind not in "uif":
        return None
    values = values.astype(np.float64)
    step = (values[-1] - values[0]) / (values.size - 1)
    places = values[0] + step * np.arange(values.size)
    even = step != 0 and np.abs(values - places).max() <= UNEVEN * abs(step)
    return (float(values[0]), float(step)) if even else None


def attributes(grid: ImageGrid) -> dict[str, Any]:
    """Return what a group says of the grid of its arrays.

    Examples
    --------
    >>> said = attributes(ImageGrid(("y", "x"), (2, 3), (10.0, 0.0, 0.0, 0.0, -10.0, 20.0)))
    >>> said["spatial:bbox"], "proj:code" in said
    ([0.0, 0.0, 30.0, 20.0], False)
    """
    if grid.transform is None or grid.bounds is None:
        return {}
    out: dict[str, Any] = {"zarr_conventions": registrations("spatial")}
    out["spatial:dimensions"] = list(grid.dims)
    out |= _extent(grid)
    out["spatial:bbox"] = list(grid.bounds)
    out["spatial:registration"] = "pixel"
    if grid.crs is not None:
        out["zarr_conventions"] = registrations("spatial", "proj")
        authority = grid.crs.to_authority()
        if authority is not None and authority[0].isupper() and authority[1].isdecimal():
            out["proj:code"] = ":".join(authority)
        else:
            out["proj:wkt2"] = grid.crs.to_wkt(version="WKT2_2019")
    return out


def multiscales(
    name: str, ndim: int, grid: ImageGrid, levels: Mapping[int, str], method: str, said: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a group says of an array and its overviews, beside what it says already.

    `levels` are their paths, by how many times coarser each is, made from the array itself by a `method`.
    Of the dimensions GDAL expects a figure for each.
    """
    layout: list[dict[str, Any]] = [{"asset": name, **_extent(grid)}]
    for factor, path in levels.items():
        scale = [1.0] * (ndim - 2) + [float(factor)] * 2
        layout.append(
            {
                "asset": path,
                "derived_from": name,
                "transform": {"scale": scale, "translation": [0.0] * ndim},
                **_extent(grid.coarser(factor)),
                "resampling_method": method,
            }
        )
    entries: Sequence[Any] = said.get("zarr_conventions", ())
    ours = registrations("multiscales")
    return {
        "zarr_conventions": [*(entry for entry in entries if entry not in ours), *ours],
        "multiscales": {"layout": layout, "resampling_method": method},
    }


def _extent(grid: ImageGrid) -> dict[str, Any]:
    shape = {"spatial:shape": list(grid.shape)}
    return shape if grid.transform is None else {**shape, "spatial:transform": list(grid.transform)}
