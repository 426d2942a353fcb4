"""Instruments as data: one TOML file a sensor, beside this module, read when first asked for.

To add a sensor, add a file; nothing else names it. `register` takes a user's own file of the same form, and
a package brings one by an entry point of the group ``xcloudmask.sensors``, which leads to the file's path or
to a `Sensor`:

.. code-block:: toml

    name = "my-camera"                  # how users call it
    title = "My camera"
    aliases = ["mycam"]                 # other names; may not belong to another sensor
    source = "maker's data sheet, 2024" # where the figures come from
    platforms = ["my-sat-1"]            # what STAC items say in `platform`, ...
    instruments = ["mycam"]             # ... `instruments` (one entry: the whole list, joined by blanks)
    constellations = []                 # ... and `constellation`, where `platform` is absent or unknown
    fill = [0]                          # stored numbers that mean no data: 0 in every band, others in any
    fill_reflectance = [-0.1]           # what they are in every band once scale and offset were applied
    edges = 15                          # where its products' pixels have an edge, in metres

    [[bands]]
    name = "B1"
    common_name = "red"
    aliases = ["MY_B1"]
    min_nm = 620
    center_nm = 655
    max_nm = 690
    gsd = 10
    kind = "reflectance"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from os import PathLike
from pathlib import Path

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.sensors._match import is_counter, match
from xcloudmask.sensors._plugins import installed, warn_of
from xcloudmask.sensors._read import COMMON_NAMES, Entry, fold, fold_instruments, read
from xcloudmask.types import Sensor

__all__ = ["COMMON_NAMES", "get", "identify", "is_counter", "match", "names", "register", "table"]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)


#: Of the entry points by which other packages bring sensors.
GROUP = "xcloudmask.sensors"

#: What `register` was given, by canonical name; wins over a shipped sensor of the same name.
_registered: dict[str, Entry] = {}


@cache
def _shipped() -> Mapping[str, Entry]:
    """Read the TOML files of the package, once."""
    files = (f for f in resources.files(__name__).iterdir() if f.name.endswith(".toml"))
    entries = [read(file.read_text(encoding="utf-8"), file.name) for file in files]
    return {entry.sensor.name: entry for entry in sorted(entries, key=lambda e: e.sensor.name)}


@cache
def _installed() -> Mapping[str, Entry]:
    """Read the sensors of other packages, once; a name or alias of ours stays with us."""
    entries: dict[str, Entry] = {}
    for origin, value in installed(GROUP):
        try:
            entry = Entry.of(value) if isinstance(value, Sensor) else read(value, origin)
            _check_free(entry, {**_shipped(), **entries}, origin)
        except (CloudMaskError, AttributeError, TypeError) as error:
            warn_of(GROUP, origin, error)
            continue
        entries[entry.sensor.name] = entry
    return entries


def _entries() -> dict[str, Entry]:
    """Return every sensor known now, the registered ones on top."""
    return {**_installed(), **_shipped(), **_registered}


def _check_free(entry: Entry, others: Mapping[str, Entry], origin: str) -> None:
    """Raise where a name or alias of a sensor belongs to another."""
    sensor = entry.sensor
    owners = _owners(other for other in others.values() if other.sensor.name != sensor.name)
    for name in (sensor.name, *sensor.aliases):
        owner = owners.get(fold(name))
        if owner is not None:
            field = "name" if name == sensor.name else "aliases"
            raise CloudMaskError(
                f"{origin}: {field}: {name!r} already belongs to sensor {owner!r}. Choose another, or set "
                f"name = {owner!r} to take that sensor's place."
            )


def _owners(entries: Iterable[Entry]) -> dict[str, str]:
    """Map every folded name and alias to the canonical name of the sensor that bears it."""
    return {fold(name): e.sensor.name for e in entries for name in (e.sensor.name, *e.sensor.aliases)}


def names() -> list[str]:
    """Return the canonical names of all sensors, sorted.

    Examples
    --------
    >>> import xcloudmask.sensors
    >>> "sentinel-2a" in xcloudmask.sensors.names()
    True
    """
    return sorted(_entries())


def get(name: str) -> Sensor:
    """Return the sensor known by `name` or by one of its aliases.

    Parameters
    ----------
    name : str
        Case does not matter, nor do ``-``, ``_``, ``/``, ``.`` and blanks.

    Raises
    ------
    OptionError
        Where no sensor bears the name.

    Examples
    --------
    >>> import xcloudmask.sensors
    >>> xcloudmask.sensors.get("Landsat 8").band("red").name
    'B4'
    """
    entries = _entries()
    owner = _owners(entries.values()).get(fold(str(name)))
    if owner is None:
        raise OptionError(
            "sensor", name, allowed=entries, hint="Add your own with xcloudmask.sensors.register('my.toml')."
        )
    return entries[owner].sensor


def register(path: str | PathLike[str]) -> Sensor:
    r"""Add a sensor described by a TOML file, for this process.

    A sensor whose canonical name is known already takes its place; a name or alias that belongs to
    another sensor is refused.

    Parameters
    ----------
    path : str or path-like
        The file; the module's documentation shows its form.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import xcloudmask.sensors
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "toy.toml")
    ...     text = "name = 'toy-1'\ntitle = 'A toy'\nsource = 'none'\n[[bands]]\nname = 'B1'\n"
    ...     _ = file.write_text(text)
    ...     xcloudmask.sensors.register(file).title
    'A toy'
    >>> xcloudmask.sensors.get("toy 1").name
    'toy-1'
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CloudMaskError(f"{file}: the sensor's TOML file cannot be read: {error}") from error
    entry = read(text, str(file))
    _check_free(entry, _entries(), str(file))
    _registered[entry.sensor.name] = entry
    return entry.sensor


def identify(
    platform: str | None = None, instruments: Sequence[str] | None = None, constellation: str | None = None
) -> Sensor | None:
    """Return the sensor that a STAC item's properties name, or None where they leave it open.

    The rules are in the TOML files (`platforms`, `instruments`, `constellations`). A platform that is
    known decides; only where it is absent or unknown is the constellation asked. Landsat 5 with no
    instruments is left open (TM or MSS?), since the two name their bands differently.

    Parameters
    ----------
    platform : str, optional
        ``"sentinel-2a"``, ``"LANDSAT_8"``.
    instruments : sequence of str, optional
        ``["OLI", "TIRS"]``, ``["OLI_TIRS"]``; case and punctuation do not matter.
    constellation : str, optional
        ``"sentinel-2"``.

    Returns
    -------
    Sensor or None

    Examples
    --------
    >>> import xcloudmask.sensors
    >>> xcloudmask.sensors.identify("LANDSAT_8", ["OLI", "TIRS"]).name
    'landsat-8'
    >>> xcloudmask.sensors.identify("landsat-5") is None
    True
    """
    entries = _entries().values()
    found = [e for e in entries if platform and fold(platform) in e.platforms]
    if not found and constellation:
        found = [e for e in entries if fold(constellation) in e.constellations]
    on_board = fold_instruments([instruments] if isinstance(instruments, str) else instruments or ())
    if on_board:
        found = [e for e in found if on_board in e.instruments]
    return found[0].sensor if len(found) == 1 else None


def table(sensor: Sensor) -> str:
    """Return a plain-text table of a sensor's bands, as the command line prints it.

    Examples
    --------
    >>> import xcloudmask.sensors
    >>> print(xcloudmask.sensors.table(xcloudmask.sensors.get("spot-vgt1")).splitlines()[2])
    B0        blue         430 - 450 - 470 nm       1000 m reflectance
    """
    lines = [f"{sensor.name}: {sensor.title}", "band      common name  min - centre - max       pixel  kind"]
    for band in sensor.bands:
        edges = (band.min_nm, band.center_nm, band.max_nm)
        nm = " - ".join("?" if edge is None else f"{edge:.0f}" for edge in edges) + " nm"
        gsd = f"{band.gsd:g} m" if band.gsd is not None else "varies"
        lines.append(f"{band.name:<9} {band.common_name or '-':<12} {nm:<24} {gsd:<6} {band.kind}")
    return "\n".join(lines)
