"""The caller's own networks: registered, packed, and sent to workers."""

from xcloudmask.models.own.modules import send

__all__ = ["send"]
