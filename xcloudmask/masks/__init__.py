"""What is done with a mask: apply, draw and write it; and the masks that products bring (cleaning: tidy)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xcloudmask.masks.products import decode

__all__ = ["decode"]


def __getattr__(name: str) -> Any:
    """Import what is needed only by some."""
    if name == "decode":
        from xcloudmask.masks.products import decode

        return decode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
