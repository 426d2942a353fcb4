"""What is done with a mask: apply, clean, draw and write it; and the masks that products bring."""

from xcloudmask.masks.products import decode

__all__ = ["decode"]
