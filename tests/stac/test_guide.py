"""The guide's code runs as it is printed: only the catalogues are replaced, by scenes written here."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import types
from pathlib import Path

import numpy as np
import pystac
import pystac_client
import pytest

import xcloudmask
from tests.stac.cases import PROFILES
from tests.stac.scenes import Site

GUIDE = Path(__file__).parents[2] / "docs" / "stac.md"
BLOCKS = re.findall(r"^```python(.*?)\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.M | re.S)
#: What answers the guide's searches, by address and collection.
ANSWERS = {
    ("earth-search", "sentinel-2-l2a"): "earth-search-v1 L2A, shifted",
    ("earth-search", "sentinel-2-c1-l2a"): "earth-search C1 L2A",
    ("earth-search", "landsat-c2-l2"): "earth-search-v1 Landsat L2",
    ("planetarycomputer", "sentinel-2-l2a"): "planetary-computer L2A",
    ("dataspace", "sentinel-2-l1c"): "CDSE L1C",
    ("landsatlook", "landsat-c2l1"): "USGS Landsat L1",
    ("terrascope", "terrascope-probav-s1-toc-333m-cog-v2"): "Terrascope Proba-V TOC",
}


class Client:
    def __init__(self, url, site):
        self.url, self.site = url, site

    def search(self, collections, bbox=None, datetime=None):
        names = [ANSWERS[key] for key in ANSWERS if key[0] in self.url and key[1] in collections]
        assert len(names) == len(collections), (self.url, collections)
        items = [pystac.Item.from_dict(PROFILES[name](self.site).item) for name in names]

        class Search(list):
            def item_collection(self):
                return pystac.ItemCollection(self)

        return Search(items)


def test_the_guide_runs(tmp_path, monkeypatch):
    site = Site(tmp_path, str(tmp_path))
    monkeypatch.setattr(pystac_client.Client, "open", lambda url: Client(url, site))
    signed = []
    signer = types.SimpleNamespace(sign=lambda url: (signed.append(url), url)[1])
    monkeypatch.setitem(sys.modules, "planetary_computer", signer)
    names = {}
    ran = 0
    for mark, code in BLOCKS:
        compile(code, "guide", "exec")
        if "no-run" in mark:
            continue
        exec(code, names)
        ran += 1
        scene = names["scene"]
        assert float(scene.isel(band=0).mean().compute()) > 0, code
    assert ran == 8
    assert signed
    assert set(np.unique(names["mask"])) <= {0, 1, 2, 3, 4, 5, 255}
    assert set(names["series"].sensor.values) == {"sentinel-2a", "landsat-8"}
    assert names["again"].x.equals(names["series"].x)


@pytest.mark.parametrize("function", ["load_stac", "open"])
def test_every_argument_in_the_guide_exists(function):
    known = inspect.signature(getattr(xcloudmask, function)).parameters
    used = {
        keyword.arg
        for _, code in BLOCKS
        for call in ast.walk(ast.parse(code))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == f"xcloudmask.{function}"
        for keyword in call.keywords
    }
    assert used
    assert used <= set(known)


def test_the_guide_is_short():
    assert len(GUIDE.read_text(encoding="utf-8").splitlines()) < 200
