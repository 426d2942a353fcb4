"""Fixtures of the loader's tests."""

from __future__ import annotations

import pytest

from tests.stac.helpers import ENGINES
from tests.stac.scenes import Site


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path, str(tmp_path))


@pytest.fixture(params=ENGINES)
def engine(request):
    return request.param
