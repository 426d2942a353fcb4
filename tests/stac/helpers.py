"""What several tests of the loader use."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np

ENGINES = ("stackstac", "odc")


def plan_item(item, **how):
    """Plan one item as `load_stac` does, with its warnings."""
    from xcloudmask.stac.assumptions import warn_about
    from xcloudmask.stac.match_assets import match_item
    from xcloudmask.stac.plan import make_plan

    plan = make_plan(match_item(item), **how)
    warn_about((plan.item_id, assumption) for assumption in plan.assumptions)
    return plan


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


#: Makes an empty package, so that a module of it can be imported without xcloudmask/__init__.py.
_ALONE = (
    "import sys, types; package = types.ModuleType('xcloudmask'); package.__path__ = [{!r}];"
    " sys.modules['xcloudmask'] = package;"
)
_PACKAGE = str(Path(__file__).parents[2] / "xcloudmask")


def loaded_by(code, *, alone=False):
    """Return the top-level packages in memory after `code` in a new process.

    `alone`: without ``xcloudmask/__init__.py``, which registers the accessor and so needs xarray.
    """
    start = _ALONE.format(_PACKAGE) if alone else ""
    show = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code + show], capture_output=True, text=True, check=True
    )
    return {name for name in done.stdout.split() if name not in sys.stdlib_module_names}
