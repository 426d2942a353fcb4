"""Check this installation: versions, devices, memory, optional parts, and the default model at work."""

from __future__ import annotations

import os
import platform
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import metadata
from importlib.util import find_spec
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

from xcloudmask._version import __version__
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import print_facts, show, table
from xcloudmask.engine.devices import cpu_threads
from xcloudmask.engine.predictor import get_predictor
from xcloudmask.models.network import load_network
from xcloudmask.predict.choose_model import default_model

#: Distributions that the core cannot do without, in the order in which they are shown.
NEEDED = (
    "numpy", "xarray", "dask", "torch", "onnxruntime", "ukis-csmask", "rioxarray", "rasterio", "zarr",
    "pystac-client", "stackstac",
)  # fmt: skip
#: What the extras of pyproject.toml are for, as in docs/howto/install.md; those for developers are left out.
EXTRAS = {
    "odc": "load_stac(engine='odc')",
    "s3": "stores and items on S3",
    "local": "Proba-V and SPOT-VGT products, Keras weights",
    "plot": "pictures",
    "eopf": "EOPF's Zarr stores over http and S3",
    "geoparquet": "files of STAC items in stac-geoparquet",
    "areas": "clear_fraction(areas=), rank(area=)",
    "datasets": "published labelled datasets",
    "icechunk": "stores in Icechunk",
    "gateway": "Dask Gateway",
    "openvino": "device='openvino', on Intel's hardware",
    "train": "training, fine-tuning, ONNX export",
    "omnicloudmask": "that model, under its own licence",
    "s2cloudless": "that model, under its own licence",
    "cloudsen12": "those models, under their own licence",
    "demo": "xcloudmask demo",
}
#: GDAL drivers, what they are for, and whether the command line cannot do without them.
DRIVERS = (
    ("GTiff", "GeoTIFF, Landsat", True),
    ("COG", "the masks that predict writes", True),
    ("JP2OpenJPEG", "Sentinel-2 .SAFE", False),
)


class Finding(NamedTuple):
    """One line of the report."""

    state: Literal["ok", "missing", "BROKEN"]
    what: str
    detail: str


def add_arguments(parser: Parser) -> None:
    """Declare them: none."""


def run(args: Namespace) -> int:
    """Print the report; 1 if something needed is broken."""
    sections: dict[str, list[Finding]] = {}
    for title, check in SECTIONS.items():
        sections[title] = list(_guarded(check))
        if not args.json:
            rows = [(f"  {each.state:<7}", *each[1:]) for each in sections[title]]
            show(f"{title}\n{table(rows)}", head=True)
    broken = sum(each.state == "BROKEN" for section in sections.values() for each in section)
    facts = {title: [each._asdict() for each in section] for title, section in sections.items()}
    verdict = (
        f"{broken} needed {'part is' if broken == 1 else 'parts are'} broken." if broken else "All is well."
    )
    print_facts(args, {**facts, "broken": broken}, f"\n{verdict}")
    return 1 if broken else 0


def _guarded(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Turn an exception, which here is news like any other, into a finding."""
    try:
        yield from check()
    except Exception as error:
        text = " ".join(str(error).split())
        yield Finding("BROKEN", check.__name__.strip("_"), f"{type(error).__name__}: {text}")


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "xcloudmask", __version__)
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in NEEDED:
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding("BROKEN", name, f"pip install {name}")


def _machine() -> Iterator[Finding]:
    import psutil  # type: ignore[import-untyped,unused-ignore]

    memory = psutil.virtual_memory()
    yield Finding("ok", "cpu", f"{os.cpu_count()} cores, {cpu_threads()} threads an inference")
    yield Finding("ok", "memory", f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free")
    import torch

    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"cuda:{index}", f"{card.name}, {card.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        yield Finding("ok", "mps", "Apple GPU")
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    yield Finding("ok", "onnxruntime runs on", ", ".join(providers))
    if find_spec("openvino"):
        import openvino

        yield Finding("ok", "openvino runs on", ", ".join(openvino.Core().available_devices))
    if torch.cuda.device_count() and "CUDA" not in providers:
        yield Finding(
            "missing", "onnxruntime on cuda",
            "ONNX files run on the CPU, all but ukis. pip uninstall onnxruntime; pip install onnxruntime-gpu",
        )  # fmt: skip


def _drivers() -> Iterator[Finding]:
    import rasterio

    with rasterio.Env() as env:
        there = env.drivers()
    for name, purpose, needed in DRIVERS:
        if name in there:
            yield Finding("ok", name, f"{purpose} (GDAL {rasterio.__gdal_version__})")
        else:
            remedy = "install rasterio's own wheel: pip install --force-reinstall rasterio"
            yield Finding("BROKEN" if needed else "missing", name, f"{purpose}. GDAL lacks it; {remedy}")


def _extras() -> Iterator[Finding]:
    declared = _declared()
    for extra, purpose in EXTRAS.items():
        absent = [name for name in declared.get(extra, []) if not _installed(name)]
        if extra not in declared:
            continue
        if absent:
            remedy = f"{purpose}; lacks {', '.join(absent)}: pip install 'xcloudmask[{extra}]'"
            yield Finding("missing", extra, remedy)
        else:
            yield Finding("ok", extra, purpose)


def _declared() -> dict[str, list[str]]:
    """Return the distributions of each extra, as the installed package declares them."""
    from packaging.requirements import Requirement

    out: dict[str, list[str]] = {}
    nested: list[tuple[str, str]] = []
    wanted = [Requirement(text) for text in metadata.requires("xcloudmask") or []]
    for extra in metadata.metadata("xcloudmask").get_all("Provides-Extra") or []:
        for need in wanted:
            if need.marker is None or not need.marker.evaluate({"extra": extra}):
                continue
            if need.marker.evaluate({"extra": ""}):
                continue
            if need.name == "xcloudmask":
                nested += [(extra, other) for other in need.extras]
            else:
                out.setdefault(extra, []).append(need.name)
    for extra, other in nested:
        out.setdefault(extra, []).extend(out.get(other, []))
    return out


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _model() -> Iterator[Finding]:
    spec = default_model()
    load_network(spec)  # raises unless the SHA-256 is right
    yield Finding("ok", spec.name, f"weights are there, SHA-256 {spec.sha256[:12]}... is right")
    # One window through the whole way, bright as a cloud.
    pixels = np.full((len(spec.bands), spec.patch, spec.patch), 0.6, np.float32)
    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    scene = scene.cloudmask.describe(bands=list(spec.bands), level=spec.level)
    get_predictor(spec)
    start = time.monotonic()
    odds = scene.cloudmask.predict_proba(spec.name, working_resolution="native")
    total = float(abs(odds.sum("class") - 1).max())
    if not total < 1e-3:
        yield Finding("BROKEN", "one window", f"probabilities do not add up to 1 (off by {total:g})")
    else:
        yield Finding("ok", "one window", f"inferred in {time.monotonic() - start:.1f} s, loading included")


#: Headings and checks, in order.
SECTIONS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": _versions,
    "machine": _machine,
    "GDAL drivers": _drivers,
    "optional parts": _extras,
    "default model": _model,
}
