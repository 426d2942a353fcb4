"""``stream/zarr.json``: what a store says of its mask, before the arrays are made and when they are ready."""

from __future__ import annotations

from typing import Any

from xcloudmask.errors import ContractError
from xcloudmask.store.lock import FOLDER
from xcloudmask.store.safety_copy import check_copy
from xcloudmask.store.store import Target, group_document


def read_any_header(target: Target) -> dict[str, Any] | None:
    """Return what the store says of its mask, also while that is being made; None if there is none.

    Raises `StoreError` if that, or anything else of the store that is small, is damaged.
    """
    check_copy(target)
    return read_raw_header(target)


def read_raw_header(target: Target) -> dict[str, Any] | None:
    """Return what the store says of its mask, unchecked."""
    document = target.get_json(FOLDER, "zarr.json")
    return None if document is None else dict(document.get("attributes", {})) or None


def read_header(target: Target) -> dict[str, Any] | None:
    """Return what the store says of its mask; None if there is none, or none that was ever ready."""
    header = read_any_header(target)
    return header if header is not None and header.get("state") == "ready" else None


def header_of(target: Target) -> dict[str, Any]:
    """Return what the store says of its mask, where one is needed."""
    header = read_header(target)
    if header is None:
        raise ContractError(f"{target.label} holds no masks that stream wrote. Check the path and group=")
    return header


def write_header(target: Target, **attributes: Any) -> None:
    """Write it."""
    put_group(target, attributes, FOLDER)


def put_group(target: Target, attributes: dict[str, Any], *names: str) -> None:
    """Write attributes as a Zarr group without members, so that the store stays a valid hierarchy."""
    target.put_json(group_document(attributes), *names, "zarr.json")
