"""The files of a product, be it a folder or an archive that was never unpacked."""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from xcloudmask.errors import CloudMaskError
from xcloudmask.stac.opening import read_bounded

#: A product of one scene has a few hundred; a whole archive is not to be searched.
MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Files:
    """What lies in a folder, a zip or a tar, or one single file.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = pathlib.Path(folder.name, "a_MTL.txt").write_text("END")
    >>> files = list_files(folder.name)
    >>> files.ending("_MTL.txt"), files.read_text("a_MTL.txt")
    (['a_MTL.txt'], 'END')
    >>> folder.cleanup()
    """

    path: Path  # what the user gave
    names: tuple[str, ...]  # paths below it, with ``/``, sorted; empty for a single file
    prefix: str  # what GDAL needs before a name

    @property
    def is_single(self) -> bool:
        """Whether this is one file and no container."""
        return not self.names and self.path.is_file()

    @property
    def name(self) -> str:
        """Name of the product: that of the folder or file."""
        return self.path.name

    def ending(self, *ends: str) -> list[str]:
        """Return the names that end in one of `ends`; case does not matter."""
        folded = tuple(end.casefold() for end in ends)
        return [name for name in self.names if name.casefold().endswith(folded)]

    def only(self, pattern: re.Pattern[str], products: str) -> str:
        """Return the one name that fits `pattern`, which each product has once."""
        named = [name for name in self.names if pattern.search(name)]
        if len(named) != 1:
            raise CloudMaskError(
                f"{self.path}: holds {len(named)} {products}: {', '.join(named[:4])}. Open the folder of one."
            )
        return named[0]

    def href(self, name: str) -> str:
        """Return what rasterio opens."""
        return f"{self.prefix}/{name}"

    def read_text(self, name: str) -> str:
        """Return the text of a file, most likely metadata."""
        return self.read_bytes(name).decode("utf-8", errors="replace")

    def read_bytes(self, name: str) -> bytes:
        """Return what is in a file of metadata."""
        what = f"{self.path}/{name}"
        if self.path.is_dir():
            with (self.path / name).open("rb") as file:
                return read_bounded(file, what)
        if self.path.suffix.lower() == ".zip":
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as packed:
                return read_bounded(packed, what)
        with tarfile.open(self.path, "r:") as tar:
            member = tar.extractfile(name)
            if member is None:
                raise CloudMaskError(f"{what} is no file")
            return read_bounded(member, what)


def list_files(path: str | Path) -> Files:
    """Return the files at a path (folder, .zip, .tar or single file); only names are read."""
    path = Path(path).expanduser().absolute()
    if not path.exists():
        near = path.parent if path.parent.is_dir() else None
        hint = f" {near} holds: {', '.join(sorted(p.name for p in near.iterdir())[:8])}." if near else ""
        raise CloudMaskError(f"{path}: there is no such file or folder.{hint} Check the path.")
    if path.is_dir():
        paths = (p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        return Files(path, _few(path, paths), str(path))
    if path.suffix.lower() in (".gz", ".tgz", ".bz2", ".z"):
        raise CloudMaskError(
            f"{path}: a compressed archive cannot be read in parts. Unpack it (tar -xf) and open the folder."
        )
    if path.suffix.lower() == ".zip":
        return Files(path, _few(path, _zip_names(path)), f"/vsizip/{{{path}}}")
    if path.suffix.lower() == ".tar":
        return Files(path, _few(path, _tar_names(path)), f"/vsitar/{{{path}}}")
    return Files(path, (), str(path.parent))


def _few(path: Path, paths: Iterable[str]) -> tuple[str, ...]:
    names = tuple(islice(paths, MOST_FILES + 1))
    if len(names) > MOST_FILES:
        raise CloudMaskError(
            f"{path}: holds more than {MOST_FILES} files, which no product does. Open the product's own"
            " folder."
        )
    return tuple(sorted(names))


def _zip_names(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [name for name in archive.namelist() if not name.endswith("/")]
    except zipfile.BadZipFile as error:
        raise CloudMaskError(f"{path}: not a zip archive, or cut short: {error}. Fetch it again.") from error


def _tar_names(path: Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as archive:
            return [member.name for member in archive.getmembers() if member.isfile()]
    except tarfile.TarError as error:
        raise CloudMaskError(f"{path}: not a tar archive, or cut short: {error}. Fetch it again.") from error
