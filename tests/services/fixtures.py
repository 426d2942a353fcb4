"""Fixtures for the real servers; each starts when a test first asks for it, and stops with the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.catalogue import Catalogue, pgstac
from tests.services.s3 import S3, seaweedfs
from tests.services.web import FaultProxy, Web, fault_proxy, nginx


@pytest.fixture(scope="session")
def web_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """nginx; write files under ``web_server.root``."""
    home = tmp_path_factory.mktemp("nginx")
    root = home / "root"
    root.mkdir()
    with nginx(home, root) as web:
        yield web


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """SeaweedFS with one key."""
    with seaweedfs(tmp_path_factory.mktemp("weed")) as s3:
        yield s3


@pytest.fixture(scope="session")
def stac_api() -> Iterator[Catalogue]:
    """stac-fastapi-pgstac over an empty database."""
    with pgstac() as catalogue:
        yield catalogue


@pytest.fixture(scope="session")
def faults(web_server: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultProxy]:
    """A proxy before nginx that fails where it is told to."""
    with fault_proxy(web_server.port, tmp_path_factory.mktemp("proxy")) as proxy:
        yield proxy
