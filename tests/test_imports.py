"""What an import brings with it, and which way imports may point."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import xcloudmask

ROOT = Path(xcloudmask.__file__).parent
HEAVY = ("torch", "onnxruntime", "zarr", "pystac", "matplotlib", "distributed", "stackstac", "odc")


def fresh(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_brings_nothing_heavy() -> None:
    assert fresh(f"import sys, xcloudmask; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


def test_building_a_lazy_mask_brings_neither_torch_nor_onnxruntime() -> None:
    code = """
import sys, dask.array, xarray, xcloudmask
da = xarray.DataArray(dask.array.zeros((4, 600, 600), chunks=300), dims=("band", "y", "x"))
da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level="L1C")
da.cloudmask.predict(resolution="native").data.dask.to_dict
da.cloudmask.predict(resolution="native", device="cuda")
print([m for m in ("torch", "onnxruntime", "zarr") if m in sys.modules])
"""
    assert fresh(code) == "[]"


def test_the_import_adds_little_to_that_of_xarray_and_rioxarray() -> None:
    """In modules: seconds are the machine's."""
    code = """
import sys, xarray, rioxarray
theirs = set(sys.modules)
import xcloudmask
added = set(sys.modules) - theirs
print(sum(name.partition(".")[0] == "xcloudmask" for name in added))
print(*sorted({name.partition(".")[0] for name in added} - sys.stdlib_module_names - {"xcloudmask"}))
"""
    ours, *others = fresh(code).splitlines()
    assert int(ours) < 100  # 63
    assert others == []


@cache
def sources() -> list[tuple[str, ast.Module]]:
    paths = sorted(ROOT.rglob("*.py"))
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def imported(node: ast.AST, file: str) -> list[str]:
    """Modules that a statement imports; `from a import b` gives both a and a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    module = node.module or ""
    if node.level:
        package = ["xcloudmask", *Path(file).parts[:-1]]
        module = ".".join([*package[: len(package) - node.level + 1], *filter(None, [module])])
    return [module, *(f"{module}.{alias.name}" for alias in node.names)]


def importers(*modules: str) -> set[str]:
    """Files that import any of `modules`, at their top or within a function, but for type checking only."""
    found = set()
    for file, tree in sources():
        skipped = {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            names = [] if node in skipped else imported(node, file)
            if any(name == module or name.startswith(f"{module}.") for name in names for module in modules):
                found.add(file)
    return found


def outside(files: set[str], *allowed: str) -> set[str]:
    return {file for file in files if not file.startswith(allowed)}


def test_the_reader_of_imports_reads() -> None:
    assert "backends.py" in importers("torch")
    assert "tasks.py" in importers("xcloudmask.engine")
    assert "lazy.py" in importers("dask.highlevelgraph")
    node = ast.parse("from ..models import ukis").body[0]
    assert imported(node, "stac/load.py") == ["xcloudmask.models", "xcloudmask.models.ukis"]


@pytest.mark.parametrize("module", ["torch", "onnxruntime"])
def test_runtimes_are_imported_where_inference_and_training_are(module: str) -> None:
    allowed = (
        "models/",
        "engine.py",
        "backends.py",
        "machine.py",
        "train/",
        "testing.py",
        "cli/doctor.py",
    )  # it lists them
    assert outside(importers(module), *allowed) == set()


def test_dask_internals_are_imported_by_the_lazy_executor_alone() -> None:
    inner = importers(
        "dask._task_spec", "dask.highlevelgraph", "dask.blockwise", "dask.core", "dask.optimization"
    )
    assert inner == {"lazy.py"}


EXECUTION = ("machine", "backends", "engine", "tasks", "direct")
CORE = ("types", "errors", "classes", "tiling", "blend", "chunking", *EXECUTION)


def test_xarray_stays_out_of_the_core() -> None:
    core = {f"{name}.py" for name in (*CORE, "lazy")}
    assert importers("xarray", "rioxarray") & core == set()
    assert {file for file in importers("xarray") if file.startswith("models/")} == set()


def test_dask_stays_out_of_what_works_on_arrays() -> None:
    core = {f"{name}.py" for name in CORE}
    assert importers("dask") & core == set()


#: Each of these may import those before it, and the models, the classes and the errors; never one after it.
ORDER = ("tiling", "blend", "models", "machine", "backends", "engine", "tasks", "lazy", "predict", "accessor")


@pytest.mark.parametrize("lower", ORDER)
def test_imports_point_one_way(lower: str) -> None:
    later = [f"xcloudmask.{name}" for name in ORDER[ORDER.index(lower) + 1 :]]
    files = (f"{lower}/", f"{lower}.py")
    # models.register and the like may be spoken of anywhere; what is held here is what the code needs
    assert {file for file in importers(*later) if file.startswith(files)} == set()


def test_stac_and_sensors_do_not_know_the_executors() -> None:
    upper = importers(*(f"xcloudmask.{name}" for name in ("engine", "backends", "tasks", "lazy", "direct")))
    assert {file for file in upper if file.startswith(("stac/", "sensors/", "local/"))} == set()


def test_heavy_modules_are_never_imported_at_the_top_of_a_file() -> None:
    at_top = set()
    for file, tree in sources():
        for node in tree.body:
            roots = {name.partition(".")[0] for name in imported(node, file)}
            if roots & {"torch", "onnxruntime"} and not file.startswith(("train/", "models/")):
                at_top.add(file)
    assert at_top == set()
