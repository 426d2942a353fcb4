"""Fixtures that all tests may ask for."""

from tests.services.fixtures import faults, s3_server, stac_api, web_server

__all__ = ["faults", "s3_server", "stac_api", "web_server"]
