"""HDF5 files of others: what a reader asks before it follows a link or reads numbers."""

from __future__ import annotations

from typing import Any

from xcloudmask.errors import CloudMaskError


def import_h5py(what: str) -> Any:
    """Return the module h5py, or say that `what` needs it."""
    try:
        import h5py
    except ImportError as error:
        raise CloudMaskError(
            f"{what} needs the package h5py: pip install 'xcloudmask[local]' (or pip install h5py)."
        ) from error
    return h5py


def is_hard_link(group: Any, name: str) -> bool:
    """Tell if a name in a group stands for an object of this very file; soft and external links do not.

    Examples
    --------
    >>> import io, h5py
    >>> file = h5py.File(io.BytesIO(), "w")
    >>> file["a"], file["b"] = [1.0], h5py.ExternalLink("other.h5", "/a")
    >>> is_hard_link(file, "a"), is_hard_link(file, "b")
    (True, False)
    """
    import h5py

    return bool(group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD)


def is_kept_elsewhere(dataset: Any) -> bool:
    """Tell if the numbers of a dataset lie in other files.

    Examples
    --------
    >>> import io, h5py
    >>> file = h5py.File(io.BytesIO(), "w")
    >>> is_kept_elsewhere(file.create_dataset("a", (4,), "f4", external=[("a.bin", 0, 16)]))
    True
    """
    return bool(dataset.external) or bool(dataset.is_virtual)
