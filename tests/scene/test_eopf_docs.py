"""The page's code runs as it is printed, on stores made from the real metadata."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import xcloudmask
from tests.eopf_stores import L2A, needs_eopf
from xcloudmask.stac.eopf import product_item
from xcloudmask.stac.transport import Transport

PAGE = Path(__file__).parents[2] / "docs" / "eopf.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


@needs_eopf
def test_the_code_of_the_page_runs(eopf_store):
    path = str(eopf_store(L2A))
    catalogue = SimpleNamespace(get_item=lambda name: {**product_item(path, Transport()), "id": name})
    names = {"STORE": path, "xcloudmask": xcloudmask, "catalogue": catalogue}
    assert len(BLOCKS) == 5
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), names)
    assert dict(names["mask"].sizes) == {"time": 1, "y": 90, "x": 90}
    assert names["series"].sizes["x"] == 60
    assert bool(names["quality"].valid.all())
