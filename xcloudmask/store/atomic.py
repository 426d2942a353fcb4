"""An output is whole or not there: made in a hidden folder beside it, and renamed into place."""

from __future__ import annotations

import os
import platform
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xcloudmask.errors import CloudMaskError

_live: set[Path] = set()


class SinkError(Exception):
    """A write failed; the cause says why."""


@contextmanager
def writing() -> Iterator[None]:
    """Turn what a writer raises into a `SinkError`."""
    # GDAL's own errors, such as that of a full disk, are a family of their own and may come unwrapped.
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    except (OSError, RasterioError, CPLE_BaseError) as error:
        raise SinkError(str(error) or type(error).__name__) from error


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Give a hidden folder beside the output, on its file system, that is gone afterwards."""
    prefix = f".{out.name}.{platform.node()}-"
    try:
        _sweep(out.parent, prefix)
        work = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", suffix=".part", dir=out.parent))
    except OSError as error:
        raise CloudMaskError(
            f"{out.parent}: cannot be written in: {error.strerror or error}. Choose another folder."
        ) from error
    _live.add(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        _live.discard(work)


def _sweep(folder: Path, prefix: str) -> None:
    """Remove what runs to the same output left that were killed on this machine."""
    import psutil  # type: ignore[import-untyped,unused-ignore]

    for path in folder.iterdir():
        match = re.fullmatch(re.escape(prefix) + r"(\d+)-\w+\.part", path.name)
        if match and path not in _live:
            pid = int(match[1])
            if pid == os.getpid() or not psutil.pid_exists(pid):
                shutil.rmtree(path, ignore_errors=True)


def install(work: Path, out: Path) -> None:
    """Put the finished output in its place."""
    with writing():
        if out.is_dir():  # a folder cannot be replaced in one step: the old one stands until the new is whole
            os.replace(out, work / "old")
        else:
            for end in (".aux.xml", ".ovr", ".msk"):  # these speak of the old pixels
                out.with_name(out.name + end).unlink(missing_ok=True)
        os.replace(work / out.name, out)
        sidecar = work / f"{out.name}.aux.xml"
        if sidecar.exists():
            os.replace(sidecar, out.with_name(sidecar.name))
