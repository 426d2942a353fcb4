"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from xcloudmask.errors import CloudMaskError


def replace_file(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader, or a kill, finds the old one or the new one whole.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "a.bin")
    >>> replace_file(path, b"weights")
    >>> path.read_bytes()
    b'weights'
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise CloudMaskError(
            f"{path} cannot be written ({error.strerror}). What was saved before is whole: once that is "
            "mended, the same call goes on from there"
        ) from error
