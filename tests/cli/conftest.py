"""The fixtures of what the commands call."""

from tests.models.conftest import cache, canary, web

__all__ = ["cache", "canary", "web"]
