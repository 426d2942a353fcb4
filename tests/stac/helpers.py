"""What several tests of the loader use."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager

import numpy as np

ENGINES = ("stackstac", "odc")


def equal(loaded, expected, atol=1e-6):
    np.testing.assert_allclose(loaded, expected, rtol=0, atol=atol)


def occur_in(loaded, expected):
    """Tell if all loaded values are among the expected ones (of 1e-4 steps)."""
    found, known = (np.round(v[~np.isnan(v)] * 1e4).astype(int) for v in (loaded, expected))
    return found.size > 0 and bool(np.isin(found, known).all())


@contextmanager
def warns(category, match):
    """Do what pytest.warns does, without passing on the deprecations of libraries that pyproject ignores."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [str(w.message) for w in caught if issubclass(w.category, category)
            and not issubclass(w.category, PendingDeprecationWarning)]  # fmt: skip
    assert any(re.search(match, text) for text in ours), ours
