"""What an import brings with it, and which way imports may point."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import xcloudmask

ROOT = Path(xcloudmask.__file__).parent
HEAVY = (
    "torch", "onnxruntime", "zarr", "pystac", "matplotlib", "distributed", "stackstac", "odc", "rioxarray",
    "dask.array", "scipy",
)  # fmt: skip


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
da.cloudmask.predict(working_resolution="native").data.dask.to_dict
da.cloudmask.predict(working_resolution="native", device="cuda")
print([m for m in ("torch", "onnxruntime", "zarr") if m in sys.modules])
"""
    assert fresh(code) == "[]"


def test_the_import_adds_little_to_that_of_xarray() -> None:
    """In modules: seconds are the machine's."""
    code = """
import sys, xarray
theirs = set(sys.modules)
import xcloudmask
added = set(sys.modules) - theirs
print(sum(name.partition(".")[0] == "xcloudmask" for name in added))
print(*sorted({name.partition(".")[0] for name in added} - sys.stdlib_module_names - {"xcloudmask"}))
"""
    ours, *others = fresh(code).splitlines()
    assert int(ours) < 90  # 82
    assert others == []


def test_rio_is_there_after_the_first_call_that_needs_it() -> None:
    code = """
import numpy, xarray, xcloudmask
da = xarray.DataArray(numpy.full((2, 40, 40), 0.1, "f4"), dims=("band", "y", "x"),
                      coords={"y": -30.0 * numpy.arange(40), "x": 30.0 * numpy.arange(40)})
from xcloudmask.testing import TOY
mask = da.cloudmask.describe(bands=["red", "nir"], level="L1C").cloudmask.predict(TOY)
print(mask.rio.crs)
"""
    assert fresh(code) == "None"


def test_the_public_face_is_reachable_and_replaces_no_builtin() -> None:
    code = """
import builtins, sys, xcloudmask
print("torch" in sys.modules, "zarr" in sys.modules, set(xcloudmask.__all__) <= set(dir(xcloudmask)))
for name in dir(xcloudmask):
    getattr(xcloudmask, name)
names = {}
exec("from xcloudmask import *", names)
print([name for name in names if hasattr(builtins, name) and not name.startswith("__")])
print(xcloudmask.open.__name__, xcloudmask.errors.OptionError.__name__, xcloudmask.metrics.score.__name__)
"""
    assert fresh(code).splitlines() == ["False False True", "[]", "open OptionError score"]


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


def needed(tree: ast.Module) -> list[ast.AST]:
    """All nodes but those that are there for type checking only."""
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return [node for node in ast.walk(tree) if node not in skipped]


def importers(*modules: str) -> set[str]:
    """Files that import any of `modules`, at their top or within a function, but for type checking only."""
    found = set()
    for file, tree in sources():
        for node in needed(tree):
            names = imported(node, file)
            if any(name == module or name.startswith(f"{module}.") for name in names for module in modules):
                found.add(file)
    return found


def outside(files: set[str], *allowed: str) -> set[str]:
    return {file for file in files if not file.startswith(allowed)}


def test_the_reader_of_imports_reads() -> None:
    assert "engine/torch.py" in importers("torch")
    assert "engine/kernel.py" in importers("xcloudmask.engine.predictor")
    assert "engine/run_dask.py" in importers("dask.highlevelgraph")
    node = ast.parse("from ..models import ukis").body[0]
    assert imported(node, "stac/load.py") == ["xcloudmask.models", "xcloudmask.models.ukis"]


@pytest.mark.parametrize("module", ["torch", "onnxruntime"])
def test_runtimes_are_imported_where_inference_and_training_are(module: str) -> None:
    names_devices = ("cli/doctor.py", "cli/bench.py")
    allowed = ("models/", "engine/", "train/", "testing.py", *names_devices)
    assert outside(importers(module), *allowed) == set()


def test_dask_internals_are_imported_where_graphs_are_written_by_hand_alone() -> None:
    """For windows, and for areas that reach over chunks: delayed calls would merge graphs chunk by chunk."""
    inner = importers(
        "dask._task_spec", "dask.highlevelgraph", "dask.blockwise", "dask.core", "dask.optimization"
    )
    assert inner == {"engine/run_dask.py", "tidy/graph.py"}


def in_room(room: str) -> set[str]:
    return {file for file, _ in sources() if room_of(file) == room}


def test_xarray_stays_out_of_the_engine_and_the_models() -> None:
    core = in_room("engine") | in_room("models") | {"types.py", "errors.py", "classes.py"}
    assert importers("xarray", "rioxarray") & core == set()


def test_dask_and_zarr_stay_out_of_what_works_on_arrays() -> None:
    core = in_room("engine") | {"types.py", "errors.py", "classes.py"}
    count_of_cores = "engine/devices.py"  # dask.system knows of a container's limit
    assert importers("dask") & core == {"engine/run_dask.py", count_of_cores}
    assert importers("zarr") & core == set()


def test_heavy_modules_are_never_imported_at_the_top_of_a_file() -> None:
    at_top = set()
    for file, tree in sources():
        for node in tree.body:
            roots = {name.partition(".")[0] for name in imported(node, file)}
            if roots & {"torch", "onnxruntime"} and not file.startswith(("train/", "models/")):
                at_top.add(file)
    assert at_top == set()


#: The rooms, and the files beside them: each may import those before it, never one after it.
ORDER = (
    "_version", "errors", "types", "classes", "sensors", "models", "engine", "scene", "tidy", "predict",
    "store", "stac", "local", "streaming", "masks", "archive", "metrics", "datasets", "train", "testing",
    "accessor", "__init__", "cli", "__main__",
)  # fmt: skip


def room_of(file: str) -> str:
    """The room that a file is in, or the file itself if it lies at the top."""
    return file.partition("/")[0].removesuffix(".py")


def test_every_room_has_its_place() -> None:
    assert {room_of(file) for file, _ in sources()} == set(ORDER)


def test_the_top_holds_eight_files_and_the_rooms() -> None:
    top = {path.name for path in ROOT.iterdir() if path.suffix == ".py"}
    assert top == {f"{name}.py" for name in TOP}


TOP = ("__init__", "__main__", "_version", "accessor", "errors", "types", "classes", "testing")


def module_of(name: str) -> str | None:
    """The file of a module of ours, ``xcloudmask.engine.blend``; None for anything else."""
    if name != "xcloudmask" and not name.startswith("xcloudmask."):
        return None
    path = ROOT.joinpath(*name.split(".")[1:])
    for file in (path / "__init__.py", path.with_suffix(".py")):
        if file.is_file():
            return file.relative_to(ROOT).as_posix()
    return None


@cache
def graph() -> dict[str, set[str]]:
    """Which files each file imports, at its top or within a function."""
    out: dict[str, set[str]] = {}
    for file, tree in sources():
        found: set[str] = set()
        for node in needed(tree):
            names = imported(node, file)
            # `from a.b import c`: a.b is what is imported, unless c is a module
            modules = [module for name in names[1:] if (module := module_of(name))]
            found |= set(modules) or {module for name in names[:1] if (module := module_of(name))}
        out[file] = found - {file}
    return out


@pytest.mark.parametrize("room", ORDER)
def test_imports_point_one_way(room: str) -> None:
    later = set(ORDER[ORDER.index(room) + 1 :])
    up = {
        f"{file} -> {other}"
        for file, others in graph().items()
        if room_of(file) == room
        for other in others
        if room_of(other) in later
    }
    assert up == set()


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Late imports count: a circle that is hidden within functions is one all the same."""
    from graphlib import CycleError, TopologicalSorter

    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
