"""Fixtures that all tests may ask for."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import rioxarray  # noqa: F401  registers .rio, which `import xcloudmask` leaves to when it is needed
from hypothesis import HealthCheck, settings

from tests.eopf_stores import eopf_store
from tests.services.fixtures import faults, s3_server, stac_api, web_server

__all__ = ["eopf_store", "faults", "s3_server", "stac_api", "web_server"]

# A test does not fail because the machine is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keep torch to one thread: small tensors gain nothing from more, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dates() -> Iterator[ModuleType]:
    """The simulated sites and records of benchmarks/dates.py."""
    folder = Path(__file__).parents[1] / "benchmarks"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        spec = importlib.util.spec_from_file_location("benchmark_dates", folder / "dates.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "benchmark_dates", module)
        spec.loader.exec_module(module)
        yield module
