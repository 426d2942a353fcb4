"""The files of a dataset's copy, zips among them, found by templates of their paths."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from xcloudmask.errors import CloudMaskError


class Tree:
    """A folder, with the contents of some zips in it, by their names, as if they were unpacked there.

    A template is a path below the folder: ``{scene}`` stands for a name without a slash, ``{folder}`` for any
    folders or none, ``{scene:LC08_.*}`` for what a regular expression takes, ``*`` for anything without a
    slash, ``**/`` for any folders. Case does not matter.

    Examples
    --------
    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "d").mkdir(), (root / "d" / "a_mask.tif").write_text("")
    (None, 0)
    >>> Tree(root).find("{folder}/{scene}_mask.tif")
    [('d/a_mask.tif', {'folder': 'd', 'scene': 'a'})]
    """

    def __init__(self, root: str | Path, zips: Sequence[str] = ()) -> None:
        self.root = Path(root)
        self.zips = zips
        if not self.root.is_dir():
            raise CloudMaskError(f"there is no folder {self.root}")

    @cached_property
    def names(self) -> dict[str, str]:
        """Paths below the folder, sorted, and the zip that each lies in; an empty text for none."""
        found = {path.relative_to(self.root).as_posix(): "" for path in self.root.rglob("*")}
        for name in self.zips:
            if name in found:
                with zipfile.ZipFile(self.root / name) as archive:
                    found |= {member: name for member in archive.namelist() if member not in found}
        return dict(sorted(found.items()))

    def find(self, template: str) -> list[tuple[str, dict[str, str]]]:
        """Return each path that a template fits, with its fields."""
        pattern = re.compile(_regex(template), re.I)
        return [(name, found.groupdict("")) for name in self.names if (found := pattern.fullmatch(name))]

    def one(self, template: str, fields: Mapping[str, str]) -> str:
        """Return the one path that a template with these fields fits."""
        filled = re.sub(r"\{(\w+)[^}]*\}", lambda m: fields[m[1]], template).removeprefix("/")
        if filled in self.names or not filled:  # nothing: the folder itself
            return filled
        pattern = re.compile(_regex(filled), re.I)
        found = [name for name in self.names if pattern.fullmatch(name)]
        if len(found) != 1:
            raise CloudMaskError(
                f"{self.root} holds {len(found)} files {filled}{_listed(found)}, where one is expected"
            )
        return found[0]

    def gdal(self, name: str) -> str:
        """Return what rasterio opens."""
        inside = self.names.get(name)
        return f"/vsizip/{self.root / inside}/{name}" if inside else str(self.root / name)

    def open(self, name: str) -> BinaryIO:
        """Open a file for reading; one within a zip is read whole."""
        inside = self.names.get(name)
        if not inside:
            return (self.root / name).open("rb")
        with zipfile.ZipFile(self.root / inside) as archive:
            return io.BytesIO(archive.read(name))

    def text(self, name: str) -> str:
        """Return the text of a file."""
        with self.open(name) as file:
            return file.read().decode("utf-8-sig", errors="replace")


def _regex(template: str) -> str:
    def parts() -> Iterator[str]:
        for text, name, own in re.findall(r"([^{}]*)(?:\{(\w+):?((?:[^{}]|\{\d+\})*)\})?", template):
            yield re.escape(text).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
            if name:
                yield f"(?P<{name}>{own or ('.*' if name == 'folder' else '[^/]+')})"

    return "".join(parts()).replace("(?P<folder>.*)/", "(?:(?P<folder>.*)/)?")


def _listed(found: Sequence[str]) -> str:
    return f" ({', '.join(found[:3])})" if found else ""
