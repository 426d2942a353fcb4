"""Fixtures that all tests may ask for."""

from collections.abc import Iterator

import pytest
import rioxarray  # noqa: F401  registers .rio, which `import xcloudmask` leaves to when it is needed

from tests.eopf_stores import eopf_store
from tests.services.fixtures import faults, s3_server, stac_api, web_server

__all__ = ["eopf_store", "faults", "s3_server", "stac_api", "web_server"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: small tensors gain nothing from more, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
