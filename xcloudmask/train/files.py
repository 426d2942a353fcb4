"""Labelled patches and pixels from a folder, and the guard that keeps held-out data out of training.

A patch is a ``.npz`` with ``image`` (uint16, band, y, x; reflectance x 10,000, kelvin x 100, 65535 for no
data), ``bands`` (STAC common names), ``kinds``, ``possible`` (bit masks, if it is labelled), ``meta`` (JSON
with sensor, level, gsd_m, scene; a level with L2A in it is bottom of atmosphere), and perhaps aux inputs (see
`xcloudmask.train.patches.FORM`). A table of pixels is a ``.csv`` or ``.csv.gz`` with a column a band,
``label`` (1 cloud, 0 not), and perhaps ``dem``, height in metres.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.labels import BITS, CLOUD
from xcloudmask.train import patches
from xcloudmask.train.samples import Sample
from xcloudmask.types import AuxInput, Band, Sensor

NO_DATA = 65535
#: Words in a path that mark data that no training may read.
HELD_OUT = ("val", "validation", "test", "reserved", "sealed", "holdout", "held_out")
#: Columns of pixel tables, and the band each is.
COLUMNS = {
    "landsat-8": {
        "coastal": "B1", "blue": "B2", "green": "B3", "red": "B4", "nir": "B5", "swir1": "B6",
        "swir2": "B7", "cirrus": "B9",
    },
    "sentinel-2": {
        "coastal": "B01", "blue": "B02", "green": "B03", "red": "B04", "vre1": "B05", "vre2": "B06",
        "vre3": "B07", "wnir": "B08", "nir": "B8A", "wv": "B09", "cirrus": "B10", "swir1": "B11",
        "swir2": "B12",
    },
}  # fmt: skip
#: The column of a table that distinguishes scenes, as far as any does.
GROUP = "cloud_scene_percent"
#: The column of a table that holds height, in metres.
HEIGHT = "dem"
#: Sensors of patches whose name in the library differs.
SENSORS = {"landsat-5": "landsat-5-tm", "landsat8": "landsat-8", "sentinel2": "sentinel-2"}


class LeakError(CloudMaskError):
    """Held-out data among the training input."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that holds one sample, and enough about it to choose without reading its pixels."""

    path: Path
    source: str
    scene: str
    part: tuple[float, float] = (0.0, 1.0)
    sensor: str = ""

    def read(self) -> Sample:
        """Read it; of a table, the rows of the scenes in `part`."""
        if self.path.suffix == ".npz":
            return replace(read_patch(self.path), source=self.source, scene=self.scene)
        return replace(read_pixels(self.path, self.part), source=self.source, scene=self.scene)

    def aux(self) -> set[str]:
        """Return the names of the aux inputs that it holds."""
        if self.path.suffix == ".npz":
            return patches.aux_of(self.path)
        return {"elevation"} if HEIGHT in _rows(self.path)[0] else set()

    def groups(self) -> list[str]:
        """Return the scene of each row of a table as `read` gives them."""
        header, rows = _rows(self.path)
        names = [row[header.index(GROUP)] if GROUP in header else "" for row in rows]
        return [name for name in names if _in(name, self.part)]


def split(entries: Iterable[Entry], share: float, *, used: float = 1.0) -> tuple[list[Entry], list[Entry]]:
    """Part scenes into two, by a hash of their name: those to fit, and a `share` to choose settings by.

    Tables of pixels are parted by rows, those of one scene together. Of the scenes to fit only the share
    `used` is taken, for learning curves; the scenes to choose by stay the same.

    Examples
    --------
    >>> fit, dev = split([Entry(Path(f"{i}.npz"), "a", str(i)) for i in range(100)], 0.2)
    >>> len(fit) + len(dev), 10 < len(dev) < 30
    (100, True)
    """
    fit, dev = [], []
    to_fit = (share, share + used * (1 - share))
    for entry in entries:
        if entry.path.suffix != ".npz":
            fit.append(replace(entry, part=to_fit))
            dev.append(replace(entry, part=(0.0, share)))
        elif _in(entry.scene, (0.0, share)):
            dev.append(entry)
        elif _in(entry.scene, to_fit):
            fit.append(entry)
    return fit, dev


def _in(name: str, part: tuple[float, float]) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return part[0] <= int.from_bytes(digest[:4], "big") / 2**32 < part[1]


def find(folder: str | Path, sources: Sequence[str] | None = None) -> list[Entry]:
    """List the samples under a folder, sorted by path; the subfolder's name is the source.

    The folder holds ``<source>/<name>.npz`` and ``pixels/<name>.csv.gz``, whose source is ``pixels/<name>``.

    Examples
    --------
    >>> import tempfile
    >>> find(tempfile.mkdtemp())
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: ... holds no patch (.npz) and no table of pixels (.csv, .csv.gz)...
    """
    root = Path(folder)
    if not root.is_dir():
        raise CloudMaskError(
            f"there is no folder {root}: name the folder that holds {root.name} with --data FOLDER, or with "
            f'folder = "..." in [data]'
        )
    entries = []
    for path in sorted(root.rglob("*")):
        parent = path.parent.relative_to(root).as_posix()
        if path.suffix == ".npz":
            meta = patches.read_meta(path)
            sensor = SENSORS.get(meta["sensor"], meta["sensor"])
            entries.append(Entry(path, parent, f"{parent}/{meta['scene']}", sensor=sensor))
        elif path.name.endswith((".csv", ".csv.gz")):
            name = path.name.split(".")[0]
            sensor = SENSORS.get(name, name)
            entries.append(Entry(path, f"{parent}/{name}", f"{parent}/{name}", sensor=sensor))
    if not entries:
        raise CloudMaskError(
            f"{root} holds no patch (.npz) and no table of pixels (.csv, .csv.gz): put them there, a "
            "folder a source; if it is the held-out folder, leave out held_out if there is none"
        )
    if sources is None:
        return entries
    known = {entry.source for entry in entries}
    for source in sources:
        if source not in known:
            raise OptionError("source", source, allowed=sorted(known))
    return [entry for entry in entries if entry.source in sources]


def check_no_leak(training: Iterable[Entry], held_out: Iterable[Entry] = ()) -> None:
    """Raise LeakError if training input lies in a held-out place, or shares a scene or pixels with one.

    Examples
    --------
    >>> check_no_leak([Entry(Path("data/val/l8/a.npz"), "l8", "l8/a")])
    Traceback (most recent call last):
    ...
    xcloudmask.train.files.LeakError: ...
    """
    training, kept = list(training), list(held_out)
    for entry in training:
        # split/source/name and one folder more: a home directory called test is no reason to refuse
        words = {word for part in entry.path.parts[-4:] for word in part.lower().replace("-", "_").split(".")}
        bad = sorted(words & set(HELD_OUT))
        if bad:
            raise LeakError(
                f"{entry.path} is held-out data (its path holds {bad[0]!r}): it must not be trained on. Let "
                '--data FOLDER, or folder = "..." in [data], name the folder with the training data'
            )
    scenes = {entry.scene: entry for entry in kept}
    for entry in training:
        twin = scenes.get(entry.scene)
        if twin is not None and entry.path.suffix == ".npz":
            raise LeakError(
                f"scene {entry.scene} is held out ({twin.path}) and among the training input "
                f"({entry.path}): all patches of a scene belong to one side"
            )
    rows = _hashes(entry for entry in kept)
    for entry in training:
        for digest in _hashes([entry]):
            if digest in rows:
                raise LeakError(
                    f"{entry.path} holds pixels that are also held out in {rows[digest]}: leave one of them "
                    "out"
                )


def _hashes(entries: Iterable[Entry]) -> dict[bytes, Path]:
    """Return the fingerprint of every patch's image and of every row of pixels, and where its file is."""
    out: dict[bytes, Path] = {}
    for entry in entries:
        if entry.path.suffix == ".npz":
            out[hashlib.sha256(patches.read_image(entry.path).tobytes()).digest()] = entry.path
        else:
            for row in _rows(entry.path)[1]:
                out[hashlib.sha256(",".join(row).encode()).digest()] = entry.path
    return out


def read_patch(path: str | Path) -> Sample:
    """Read one patch, a ``.npz`` in the form that the module's documentation gives.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.npz")
    >>> image = np.full((1, 2, 2), 5000, "u2")
    >>> np.savez(path, image=image, bands=["red"], kinds=["reflectance"],
    ...          meta='{"sensor": "landsat-8", "level": "L1 TOA", "gsd_m": 30, "scene": "a"}')
    >>> float(read_patch(path).image[0, 0, 0])
    0.5
    """
    path = Path(path)
    held = patches.read(path)
    no_data = held.image == NO_DATA
    unit = patches.units(held.kinds).astype(np.float32)
    image = np.where(no_data, np.nan, held.image / unit).astype(np.float32)
    labels = np.zeros(image.shape[1:], np.uint8) if held.possible is None else held.possible
    possible = np.where(no_data.any(axis=0), np.uint8(0), labels)
    name = held.meta["sensor"]
    try:
        sensor = sensors.get(SENSORS.get(name, name))
        bands = tuple(sensor_band(sensor, band) for band in held.bands)
    except OptionError as error:
        raise OptionError(
            f"{error.what} in {path}:", error.value, allowed=error.allowed, hint=error.hint
        ) from error
    level = "boa" if "L2A" in held.meta["level"] else "toa"
    gsd, scene = float(held.meta["gsd_m"]), str(held.meta["scene"])
    image = np.concatenate([image, *(plane[None] for plane in held.aux.values())])
    bands += tuple(AuxInput.of(name).band for name in held.aux)
    return Sample(image, bands, possible, gsd, scene, path.parent.name, level)


def read_pixels(path: str | Path, part: tuple[float, float] = (0.0, 1.0)) -> Sample:
    """Read a table of labelled pixels as an image of one column; the file's name is the sensor.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "landsat8.csv")
    >>> _ = path.write_text("blue,red,label" + chr(10) + "0.1,0.2,1" + chr(10))
    >>> one = read_pixels(path)
    >>> one.image.shape, one.possible.tolist()
    ((2, 1, 1), [[6]])
    """
    path = Path(path)
    name = path.name.split(".")[0]
    sensor = SENSORS.get(name, name)
    if sensor not in COLUMNS:
        raise CloudMaskError(f"{path}: a table of pixels is named after its sensor: {', '.join(COLUMNS)}")
    header, rows = _rows(path)
    columns = {column: band for column, band in COLUMNS[sensor].items() if column in header}
    if not columns or "label" not in header:
        raise CloudMaskError(f"{path}: needs a column 'label' and some of {', '.join(COLUMNS[sensor])}")
    if GROUP in header:
        rows = [row for row in rows if _in(row[header.index(GROUP)], part)]
    known = sensors.get(sensor)
    bands = {column: known.band(band) for column, band in columns.items()}
    if HEIGHT in header:
        bands[HEIGHT] = AuxInput("elevation").band
    at = [header.index(column) for column in (*bands, "label")]
    values = np.array([[row[i] for i in at] for row in rows], np.float32)
    cloud = values[:, -1] == 1
    labels = np.where(cloud, CLOUD, BITS["clear"] | BITS["cloud_shadow"]).astype(np.uint8)
    return Sample(
        np.ascontiguousarray(values[:, :-1].T)[:, :, None],
        tuple(bands.values()),
        labels[:, None], 30.0 if sensor == "landsat-8" else 20.0, name, "pixels", "toa", spatial=False,
    )  # fmt: skip


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    rows = list(csv.reader(text.splitlines()))
    return rows[0], rows[1:]


def sensor_band(sensor: Sensor, common_name: str) -> Band:
    """Return the band of a sensor with this common name; near names serve (nir for nir08)."""
    names = {"nir": ("nir", "nir08"), "nir08": ("nir08", "nir"), "lwir": ("lwir", "lwir11")}
    for name in names.get(common_name, (common_name,)):
        for band in sensor.bands:
            if band.common_name == name:
                return replace(band, common_name=common_name)
    return sensor.band(common_name)
