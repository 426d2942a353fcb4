"""Scenes and patches of a dataset, one after the other: the image as reflectance, what each pixel may be."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xcloudmask import sensors
from xcloudmask.datasets import radiometry
from xcloudmask.datasets.declared import Declared, bits_of, get
from xcloudmask.datasets.folder import Tree
from xcloudmask.errors import CloudMaskError, OptionError, UnitError, UnitWarning, warn_user
from xcloudmask.metrics.labels import BITS
from xcloudmask.models.weights.hdf5 import import_h5py
from xcloudmask.scene.describe import describe

Bits = NDArray[np.uint8]
#: Rows and columns of a chunk of a whole scene.
CHUNK = 1024
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False, slots=True)
class Labelled:
    """A labelled scene or patch.

    Parameters
    ----------
    name : str
        Its own.
    scene : str
        That of the scene it is of; patches of one scene share it.
    split : str
        train, val or test; empty where the dataset is published without a split.
    image : DataArray, (band, y, x)
        Described: sensor, bands, level, scale; lazy where it is a whole scene.
    labels : DataArray of uint8, (y, x)
        Bit masks of what each pixel may be, on the image's grid.
    spatial : bool
        False for single pixels, one a row.

    Examples
    --------
    >>> import xarray as xr
    >>> labels = xr.DataArray(np.ones((2, 2), "u1"), dims=("y", "x"))
    >>> Labelled("a_1", "a", "test", labels.expand_dims("band"), labels).spatial
    True
    """

    name: str
    scene: str
    split: str
    image: xr.DataArray
    labels: xr.DataArray
    spatial: bool = True


def read(
    name: str, folder: str | Path, *, split: str | None = None, scale: float | None = None
) -> Iterator[Labelled]:
    """Yield the labelled scenes or patches of a published dataset; one is held at a time.

    Parameters
    ----------
    name : str
        One of `xcloudmask.datasets.names`.
    folder : path
        Where it was unpacked.
    split : {"train", "val", "test"}, optional
        Only this part, of a dataset that is published with a split.
    scale : float, optional
        ``reflectance = number * scale``: needed where a dataset does not tell (GF-1, CloudPeru2), in place of
        its own elsewhere; passed over where each scene brings its figures.

    Examples
    --------
    >>> import tempfile
    >>> next(read("sparcs", tempfile.mkdtemp()))
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: ... holds nothing of sparcs...
    """
    declared = get(name)
    if split is not None and split not in SPLITS:
        raise OptionError("split", split, allowed=SPLITS)
    if split is not None and not declared.splits:
        raise CloudMaskError(
            f"{name} is published without a split, so it has no part {split!r}", "Leave split= out."
        )
    declared = declared if scale is None else replace(declared, scale=scale)
    if declared.scale is None and not declared.figures:
        raise UnitError(
            f"{name} holds numbers of which it does not tell what reflectance they stand for", declared.note
        )
    tree = Tree(folder, declared.more.get("zips", ()))
    count = 0
    for labelled in READERS[declared.reader](declared, tree):
        if split in (None, labelled.split):
            count += 1
            yield labelled
    if not count:
        part = "" if split is None else f"the part {split!r} of "
        raise CloudMaskError(f"{folder} holds nothing of {part}{name}. Expected is\n{declared.layout}")


def _rasters(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read images and labels that GDAL opens."""
    bands = _bands(declared)
    for path, fields in tree.find(declared.labels):
        templates = [declared.images] if isinstance(declared.images, str) else declared.images
        layers = [_open_raster(tree.gdal(tree.one(template, fields))) for template in templates]
        image = _stack(layers).isel(band=declared.more.get("take", slice(None)))
        figures = None
        if declared.figures == "scene":
            figures = radiometry.from_scene(sensors.get(declared.sensor), bands, fields["scene"])
        elif declared.figures:
            mtl = tree.one(declared.mtl, fields)
            read_figures = {"mtl": radiometry.from_mtl, "radiance": radiometry.from_radiance}[
                declared.figures
            ]
            figures = read_figures(sensors.get(declared.sensor), bands, tree.text(mtl), mtl)
        codes = _open_raster(tree.gdal(path)).isel(band=0, drop=True).values
        yield _labelled(declared, path, fields, image, codes, figures=figures)


def _products(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read labels of whole products, which `xcloudmask.local.open` opens."""
    absent = []
    for path, fields in tree.find(declared.labels):
        labels = _open_raster(tree.gdal(path)).isel(band=0, drop=True)
        try:
            product = tree.root / tree.one(declared.product, fields)
        except CloudMaskError:
            absent.append(fields["scene"])
            continue
        image = _open_product(declared, product, abs(float(labels.x[1] - labels.x[0])))
        if not (_same(labels.x, image.x) and _same(labels.y, image.y)):
            labels = labels.rio.reproject_match(image, nodata=0)
        yield _labelled(declared, path, fields, image, labels.values)
    _warn_of_absent(declared, tree, absent)


def _warn_of_absent(declared: Declared, tree: Tree, absent: list[str]) -> None:
    if absent:
        first = ", ".join(absent[:3]) + (" and more" if absent[3:] else "")
        warn_user(
            f"{declared.name}: {len(absent)} labelled products are not in {tree.root}: {first}. They come "
            f"apart from the labels; see {declared.url}",
            UnitWarning,
        )


def _arrays(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read arrays of NumPy, rows by columns by bands, with labels as one plane a class and tags of scenes."""
    files = tree.find(declared.labels)
    tags = {row["scene"]: row for row in _rows(tree, declared.more["tags"])} if files else {}
    for path, fields in files:
        marked = tags[fields["scene"]]
        with tree.open(tree.one(str(declared.images), fields)) as file:
            image = _array(np.moveaxis(np.load(file, allow_pickle=False), -1, 0))
        with tree.open(path) as file:
            planes = np.load(file, allow_pickle=False)
        codes = np.where(planes.any(axis=-1), planes.argmax(axis=-1), 255)
        classes = {code: _narrowed(declared, bits, marked) for code, bits in declared.classes.items()}
        yield _labelled(declared, path, fields, image, codes, classes=classes)


def _narrowed(declared: Declared, bits: int, tags: Mapping[str, str]) -> int:
    """Return what a label leaves open given the tags of its scene, as in Table I."""
    kinds = {word: columns for word, columns in declared.more["tagged"].items() if bits & BITS[word]}
    there = [word for word, columns in kinds.items() if any(float(tags[column]) for column in columns)]
    if kinds and there:
        bits = (bits & ~sum(BITS[word] for word in kinds)) | bits_of(there)
    if bits & BITS["clear"] and not float(tags["shadows_marked"]):
        bits |= BITS["cloud_shadow"]
    return bits


def _netcdf(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read netCDF 4 with one variable a band, rows from the bottom up."""
    h5py = import_h5py(declared.name)
    for path, fields in tree.find(declared.labels):
        with h5py.File(tree.root / path) as file:
            held = {name.casefold(): file[name] for name in file}
            missing = [name for name in (*declared.bands, "label") if name.casefold() not in held]
            if missing:
                raise CloudMaskError(f"{path}: no variable {missing[0]}; it has {', '.join(file)}")
            image = np.stack([held[name.casefold()][:][::-1] for name in declared.bands])
            codes = held["label"][:][::-1]
        yield _labelled(declared, path, fields, _array(image), codes)


def _memmaps(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read raw arrays, one file a band for all patches of a split, and a table with a row a patch."""
    side = declared.more["side"]
    for path, fields in tree.find(declared.labels):
        rows = _rows(tree, tree.one(declared.more["table"], fields))
        shape = (len(rows), side, side)

        def mapped(name: str, kind: str, shape: tuple[int, ...] = shape) -> Any:
            file = tree.root / name
            if file.stat().st_size != np.prod(shape) * np.dtype(kind).itemsize:
                raise CloudMaskError(
                    f"{file}: its size is not that of {shape[0]} patches of {side} by {side}"
                )
            return np.memmap(file, kind, "r", shape=shape)

        labels = mapped(path, "i1")
        bands = [
            mapped(tree.one(str(declared.images), {**fields, "band": band}), "<i2") for band in declared.bands
        ]
        for at, row in enumerate(rows):
            image = _array(np.stack([band[at] for band in bands]))
            own = {"scene": row[declared.more["scene"]], **fields}
            yield _labelled(declared, f"{fields['split']}/{at:05}", own, image, np.array(labels[at]))


def _taco(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read TACO of the first version with tacoreader, the patches that experts labelled whole."""
    parts = [str(tree.root / path) for path, _ in tree.find(declared.labels)]
    if not parts:
        return
    try:
        from tacoreader import v1
    except ImportError as error:
        raise CloudMaskError(
            f"{declared.name} needs tacoreader", "pip install 'xcloudmask[datasets]'"
        ) from error
    table = v1.load(parts)
    table = table[table[declared.more["which"]["column"]] == declared.more["which"]["value"]]
    for at, (_, row) in enumerate(table.iterrows()):
        image, labels = (_open_raster(table.read(at).read(i)) for i in (0, 1))
        fields = {"scene": row["roi_id"], "split": row["tortilla:data_split"]}
        codes = labels.isel(band=0, drop=True).values
        yield _labelled(declared, row["tortilla:id"], fields, image, codes)


def _spectra(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read labelled single pixels from HDF5, those of a product together."""
    h5py, sensor = import_h5py(declared.name), sensors.get(declared.sensor)
    for path, _ in tree.find(declared.labels):
        with h5py.File(tree.root / path) as file:
            spectra, codes = file["spectra"], np.asarray(file["classes"])
            products = np.asarray(file["product_id"]).astype(str)
            order = [sensor.band(f"B{band.decode().removeprefix('B')}") for band in file["band"][:]]
            at = [order.index(band) for band in _bands(declared)]
            for product in np.unique(products):
                rows = np.flatnonzero(products == product)
                image = _array(np.asarray(spectra[rows])[:, at].T[:, :, None])
                yield _labelled(
                    declared, product, {"scene": product}, image, codes[rows][:, None], spatial=False
                )


def _points(declared: Declared, tree: Tree) -> Iterator[Labelled]:
    """Read a table of labelled places in products; pixels between them are not labelled."""
    from rasterio.warp import transform

    shadow = declared.more["shadow"]
    absent = []
    for path, _ in tree.find(declared.labels):
        rows = _rows(tree, path)
        for number, product in declared.more["products"].items():
            mine = [row for row in rows if row["PRODUCT_ID"] == number]
            if not mine:
                continue
            try:
                place = tree.root / tree.one(declared.product, {"scene": product})
            except CloudMaskError:
                absent.append(product)
                continue
            image = _open_product(declared, place, declared.gsd)
            x, y = transform(
                "EPSG:4326", image.rio.crs, [float(row["LONGITUDE"]) for row in mine],
                [float(row["LATITUDE"]) for row in mine],
            )  # fmt: skip
            columns, lines = (
                np.round((np.asarray(values) - float(axis[0])) / float(axis[1] - axis[0])).astype(int)
                for values, axis in ((x, image.x), (y, image.y))
            )
            bits = np.zeros((image.sizes["y"], image.sizes["x"]), np.uint8)
            for row, line, column in zip(mine, lines, columns, strict=True):
                if 0 <= line < bits.shape[0] and 0 <= column < bits.shape[1]:
                    label = declared.classes.get(int(row[declared.more["column"]]), 0)
                    if label and int(row[shadow["column"]]) == shadow["code"]:
                        # a place may be cloud and shadow at once; a clear one in shadow is shadow
                        label = (label & ~bits_of(["clear"])) | BITS["cloud_shadow"]
                    bits[line, column] = label
            every = {int(code): int(code) for code in np.unique(bits)}
            yield _labelled(declared, product, {"scene": product}, image, bits, classes=every)
    _warn_of_absent(declared, tree, absent)


Reader = Callable[[Declared, Tree], Iterator[Labelled]]
READERS: Mapping[str, Reader] = {
    "rasters": _rasters, "products": _products, "arrays": _arrays, "netcdf": _netcdf, "memmaps": _memmaps,
    "taco": _taco, "spectra": _spectra, "points": _points,
}  # fmt: skip


def _labelled(
    declared: Declared,
    path: str,
    fields: Mapping[str, str],
    image: xr.DataArray,
    codes: NDArray[Any],
    *,
    classes: Mapping[int, int] | None = None,
    figures: radiometry.Figures | None = None,
    spatial: bool = True,
) -> Labelled:
    """Return an image with its description, and codes as bit masks on its grid."""
    if codes.shape != image.shape[1:]:
        raise CloudMaskError(f"{path}: labels {codes.shape} do not fit the image {image.shape[1:]}")
    if "level" not in image.attrs:
        if image.sizes["band"] != len(declared.bands):
            raise CloudMaskError(
                f"{path}: the image has {image.sizes['band']} bands, expected are {', '.join(declared.bands)}"
            )
        scale, offset = (declared.scale, declared.offset) if figures is None else figures
        image = describe(
            _placed(image, declared.gsd), declared.sensor, bands=list(_bands(declared)),
            level=declared.level, scale=scale, offset=offset, nodata=declared.nodata,
        )  # fmt: skip
    bits = _bit_masks(codes, declared.classes if classes is None else classes)
    for word, hiding in declared.open_where_unused.items():
        if not (bits == BITS[word]).any():
            for other in hiding:
                bits[bits == BITS[other]] |= BITS[word]
    labels = image.isel(band=0, drop=True).copy(data=bits)
    labels.attrs = {"flag_masks": list(BITS.values()), "flag_meanings": " ".join(BITS)}
    part = declared.splits.get(fields.get("split", ""), "")
    name = path.rsplit(".", 1)[0].replace("/", "_") if spatial else path
    return Labelled(name, fields["scene"], part, image, labels, spatial)


def _bit_masks(codes: NDArray[Any], classes: Mapping[int, int]) -> Bits:
    bits = np.zeros(codes.shape, np.uint8)
    for code, mask in classes.items():
        bits[codes == code] = mask
    return bits


def _bands(declared: Declared) -> tuple[Any, ...]:
    sensor = sensors.get(declared.sensor)
    return tuple(sensor.band(name) for name in declared.bands)


def _open_raster(path: str) -> xr.DataArray:
    """Return a raster, lazy in chunks."""
    import rioxarray
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        da: Any = rioxarray.open_rasterio(path, chunks={"y": CHUNK, "x": CHUNK})
    return da.drop_attrs(deep=False)  # type: ignore[no-any-return]


def _open_product(declared: Declared, path: Path, resolution: float) -> xr.DataArray:
    from xcloudmask.local import open as open_product

    scene = open_product(path, bands=list(declared.bands), resolution=resolution, level=declared.level)
    return scene.isel(time=0)


def _stack(layers: list[xr.DataArray]) -> xr.DataArray:
    if len({layer.shape[1:] for layer in layers}) > 1:
        raise CloudMaskError(f"bands differ in rows and columns: {[layer.shape[1:] for layer in layers]}")
    if len(layers) == 1:
        return layers[0]
    bare = [layer.drop_vars("band") for layer in layers]
    return xr.concat(bare, dim="band", join="override", coords="minimal", compat="override")


def _array(values: NDArray[Any]) -> xr.DataArray:
    return xr.DataArray(values, dims=("band", "y", "x"))


def _placed(image: xr.DataArray, gsd: float) -> xr.DataArray:
    """Return an image with a pixel size: that of its file, or metres from a corner where it has no place."""
    import rioxarray  # noqa: F401  registers .rio

    if "spatial_ref" in image.coords and image.rio.crs is not None:
        return image
    image = image.drop_vars([name for name in ("x", "y", "spatial_ref") if name in image.coords])
    y, x = ((np.arange(image.sizes[dim]) + 0.5) * gsd for dim in ("y", "x"))
    placed: xr.DataArray = image.assign_coords(y=-y, x=x).rio.write_crs("EPSG:32631")
    return placed


def _same(one: xr.DataArray, other: xr.DataArray) -> bool:
    return one.size == other.size and bool(np.allclose(one, other, atol=0.1))


def _rows(tree: Tree, name: str) -> list[dict[str, str]]:
    if name not in tree.names:
        raise CloudMaskError(f"{tree.root} has no {name}, which tells of each of its scenes")
    return list(csv.DictReader(io.StringIO(tree.text(name))))
