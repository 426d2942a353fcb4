"""The package: one version, what its files promise, what type checkers see of it, and that it installs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import xcloudmask
from tests.services.process import find_program

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
#: Bytes, with room to grow: 0.2.0 has 1.8 and 2.9 MB.
LARGEST = {".whl": 2_500_000, ".gz": 9_000_000}


def run(*words: object, **how: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=250, **how)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


def test_there_is_one_version() -> None:
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text())
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert heading is not None
    assert {recipe["context"]["version"], citation["version"], heading[1]} == {xcloudmask.__version__}


def test_classifiers_are_pypis_and_pythons_are_those_that_are_tested() -> None:
    trove = pytest.importorskip("trove_classifiers")
    assert set(PROJECT["classifiers"]) <= trove.classifiers
    pythons = {c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    tests = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    assert set(tests["jobs"]["newest"]["strategy"]["matrix"]["python"]) == pythons
    assert min(pythons, key=lambda text: int(text[2:])) == PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", WORKFLOWS), ("dependabot", [ROOT / ".github/dependabot.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
)  # fmt: skip
def test_files_for_other_machines_fit_their_schema(schema: str, files: list[Path]) -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is absent: pip install it")
    kind = ["--default-filetype", "yaml"] if schema == "citation-file-format" else []
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *kind, *files)


def test_a_linter_finds_nothing_in_the_workflows() -> None:
    zizmor = find_program("zizmor")
    told = run(zizmor, "--offline", "--no-progress", "--format", "plain", ROOT / ".github")
    assert "No findings" in told, told


def test_workflows_call_what_there_is_with_no_more_rights_than_needed() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for path in WORKFLOWS:
        text, flow = path.read_text(), yaml.safe_load(path.read_text())
        assert flow["permissions"] == {"contents": "read"}, path.name
        assert set(re.findall(r"run: make ([\w-]+)", text)) <= targets | {"docs"}, path.name
        assert "secrets." not in text
        for job in flow["jobs"].values():
            for step in job["steps"]:
                assert "${{ github" not in step.get("run", ""), "what others wrote must not become a command"


# --- what type checkers see ---

SCRIPT = """import xarray as xr

import xcloudmask

scene = xcloudmask.open("scene.SAFE", chunks=2048)
mask = scene.cloudmask.predict(threshold=0.4)
reveal_type(mask.isel(y=0).cloudmask.clear_fraction())
reveal_type(xcloudmask.load_stac([]).cloudmask.bands)
scene.cloudmask.predict(thresold=0.4)  # wrong
xcloudmask.open(1.5)  # wrong


def share(da: xcloudmask.DataArray, ds: xcloudmask.Dataset) -> float:
    ds.cloudmask.predict().cloudmask.to_zarr("a.zarr").complet  # wrong
    return float(da.cloudmask.clear_fraction())


mine: xcloudmask.DataArray = xr.DataArray([1]).cloudmask.describe(bands=["red"])
mine.cloudmask.nosuch()  # wrong
"""
#: What a user's mypy reads, too, and the script does not touch: it takes a minute.
QUICKLY = [f"{name}.*" for name in (
    "torch", "dask", "distributed", "pandas", "onnxruntime", "scipy", "matplotlib", "zarr", "rasterio",
    "fsspec", "rioxarray", "packaging", "IPython", "PIL", "sympy", "yaml",
)]  # fmt: skip
WRONG = [at for at, line in enumerate(SCRIPT.splitlines(), start=1) if "# wrong" in line]


@pytest.mark.slow
@pytest.mark.parametrize("checker", ["mypy", "basedpyright"])
def test_type_checkers_see_the_accessor_in_a_users_script(checker: str, tmp_path: Path) -> None:
    pytest.importorskip(checker, reason=f"{checker} is absent: pip install {checker}")
    (tmp_path / "user.py").write_text(SCRIPT)
    words = {
        "mypy": [f"--cache-dir={tmp_path}", "--no-error-summary"],
        "basedpyright": ["--pythonpath", sys.executable],
    }[checker]
    (tmp_path / "pyproject.toml").write_text(
        "[tool.basedpyright]\ntypeCheckingMode = 'standard'\n[tool.mypy]\nstrict = true\n"
        f"[[tool.mypy.overrides]]\nmodule = {QUICKLY}\nfollow_imports = 'skip'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", checker, *words, "user.py"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    found = {int(at) for at in re.findall(r"user\.py:(\d+):.* error", done.stdout)}
    assert sorted(found) == WRONG, done.stdout + done.stderr
    assert "xarray.core.dataarray.DataArray" in done.stdout or 'is "DataArray"' in done.stdout
    assert re.search(r"tuple\[(xcloudmask\.types\.)?Band, \.\.\.\]", done.stdout)


def test_to_others_these_types_are_xarrays() -> None:
    import xarray as xr

    assert (xcloudmask.DataArray, xcloudmask.Dataset) == (xr.DataArray, xr.Dataset)


# --- built and installed ---


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A wheel and an sdist."""
    pytest.importorskip("hatchling", reason="hatchling is absent: pip install hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def python(built: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone; what it depends on is this environment's."""
    home = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", built[".whl"])
    site = next((home / "lib").glob("python*/site-packages"))
    theirs = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "others.pth").write_text(theirs + "\n")
    return python


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_they_should_and_no_more(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = wheel.namelist()
    tracked = set(run("git", "-C", ROOT, "ls-files", "xcloudmask").split())
    assert {name for name in names if ".dist-info/" not in name} == tracked
    assert {"xcloudmask/py.typed", "xcloudmask/masks/explore.html"} <= tracked
    with tarfile.open(built[".gz"]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "tests/test_package.py", "CITATION.cff", "conda/recipe.yaml"} <= inside
    for ending, path in built.items():
        assert path.stat().st_size < LARGEST[ending], f"{path.name}: {path.stat().st_size:,} bytes"


@pytest.mark.slow
def test_the_wheel_runs_in_an_empty_environment_with_warnings_as_errors(python: Path, tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = (
        "import numpy as np, xarray as xr, xcloudmask\n"
        "from importlib.metadata import entry_points\n"
        "da = xr.DataArray(np.full((4, 64, 64), 0.1, 'f4'), dims=('band', 'y', 'x'))\n"
        "da = da.cloudmask.describe(bands=['blue', 'green', 'red', 'nir'], level='L1C')\n"
        "mask = da.cloudmask.predict(working_resolution='native')\n"
        "mask.cloudmask.explore(), mask.cloudmask.plot(), repr(da.cloudmask), mask.cloudmask._repr_html_()\n"
        "mask.cloudmask.to_zarr('m.zarr', progress=False)\n"
        "(rio,) = entry_points(group='rasterio.rio_plugins', name='cloudmask')\n"
        "print(xcloudmask.__version__, xcloudmask.__file__, rio.load().name, int(mask.max()))\n"
    )
    told = run(python, "-W", "error", "-c", code, cwd=tmp_path, env={**environment, "MPLBACKEND": "agg"})
    version, place, command, most = told.split()
    assert (version, command, most) == (xcloudmask.__version__, "cloudmask", "0")
    assert Path(place).is_relative_to(python.parent.parent)
    shown = run(python.parent / "xcloudmask", "--version", cwd=tmp_path, env=environment)
    assert shown == f"xcloudmask {xcloudmask.__version__}\n"
    run(python, "-W", "error", "-m", "xcloudmask", "sensors", cwd=tmp_path, env=environment)
