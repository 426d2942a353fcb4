"""Every model there is gives the same whatever the chunks, and sees each window of the one grid once.

Networks of each architecture (small, with random weights), models of this package and of ukis-csmask,
modules and functions of a user's own, and each form of file.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import dask
import numpy as np
import pytest
import torch

from tests.models.helpers import as_onnx, as_pt2, wide
from tests.scenes import NAMES, noise, same_odds, scene
from xcloudmask import models
from xcloudmask.engine import predictor
from xcloudmask.models import arch, loading
from xcloudmask.models.arch import sensei_v2
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.arch.setnet import Bound
from xcloudmask.models.own import modules
from xcloudmask.models.sources import adapters, plugins, shipped, ukis
from xcloudmask.models.weights import fetch
from xcloudmask.types import ModelSpec

SHAPE, PATCH, OVERLAP = (75, 58), 32, 8
CLASSES = ("clear", "thick_cloud", "cloud_shadow")

CHUNKS = {
    "ragged": {"time": 2, "band": -1, "y": (1, 50, 24), "x": 17},
    "tiny, by band": {"time": 1, "band": 1, "y": 9, "x": 29},
    "rows, by date": {"time": 1, "band": 2, "y": (40, 35), "x": -1},
}
#: For networks that take windows of their own size only, and long.
LARGE_CHUNKS = {"ragged, by band": {"time": 1, "band": 1, "y": (1, 200, 85), "x": 101}}

FOUR = {"bands": 4, "classes": 3}
ARCHITECTURES = {
    "cloud-unet": {**FOUR, "width": 8, "levels": 3},
    "dynamic-unet": {**FOUR, "stem": 8, "widths": [8, 16], "depths": [1, 1], "group": 4, "act": "mish"},
    "deeplabv3plus": {**FOUR, "encoder": "mobilenet-v2-320", "output_stride": 8, "decoder": "pooled"},
    "ipl-uv": {},
    "pixel-mlp": FOUR,
    "pw-dl3plus": {},
    "segformer": {**FOUR, "width": 32},
    "sensei-v1": {"classes": 3},
    "sensei-v2": {"classes": 3, "compact_widths": [8, 16, 24]},
    "sensei-v2, published": {"classes": 3, "variant": "published", "head": "segformer-b0"},
    "spectral": {"classes": 3},
    "unet": {**FOUR, "encoder": "mobilenet-v2"},
    "unet, regnety-004": {**FOUR, "standardise": True},
    "unet, edgenext-small": {**FOUR, "encoder": "edgenext-small", "standardise": True},
}


def settled(module: torch.nn.Module, any_bands: bool) -> torch.nn.Module:
    """Let batch norms see some pixels: with their initial figures a deep network answers the same to all."""
    norms = [each for each in module.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    bands = [BandInput("optical", low, low + 60) for low in (450, 530, 640, 800)]
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(2)
        (Bound(module, bands) if any_bands else module).train()(torch.rand(4, 4, PATCH, PATCH) * 0.6)
    return module.eval()


def of_architecture(case: str) -> ModelSpec:
    """A card as `load` writes it, but in no registry."""
    from safetensors.torch import save

    name, config = case.partition(",")[0], ARCHITECTURES[case]
    any_bands = name in loading.SETS
    module = settled(arch.build(name, config, seed=11), any_bands)
    one_logit = name in ("pw-dl3plus", "ipl-uv")
    classes = ("clear", "cloud") if one_logit else CLASSES
    sha256 = fetch.hold(save(module.state_dict()))
    return ModelSpec(
        name=case.replace(", ", "-"), version="test", loader=loading.LOADER, classes=classes,
        bands=() if any_bands else tuple(NAMES[:4]), any_bands=any_bands, patch=PATCH, overlap=OVERLAP,
        architecture=name, config=config, sha256=sha256, weights=f"{fetch.HELD}{sha256}",
        gaps="nan" if config.get("standardise") else "nearest",
        activation="sigmoid" if one_logit else "softmax",
    )  # fmt: skip


def of_object(model: object, name: str) -> ModelSpec:
    """A card as `register` writes it, but in no registry."""
    spec = ModelSpec(
        name,
        "",
        ("red", "nir"),
        CLASSES,
        modules.LOADER,
        patch=PATCH,
        overlap=OVERLAP,
        mean=(0.3,),
        std=(0.2,),
    )
    return modules._filled(spec, model)


def of_file(form: str, folder) -> ModelSpec:
    path = folder / f"net.{form}"
    path.write_bytes({"onnx": as_onnx, "pt2": as_pt2}[form](wide(3)))
    given = {"bands": ("red", "nir"), "classes": CLASSES, "activation": "softmax"}
    return loading.make(str(path), {**given, "patch": PATCH, "overlap": OVERLAP})


def contrast(pixels: torch.Tensor) -> torch.Tensor:
    """A user's function whose answer depends on all of a window."""
    level = pixels.mean(dim=(2, 3), keepdim=True)
    return torch.cat([pixels - level, (pixels * pixels).sum(dim=1, keepdim=True)], dim=1) * 5


OBJECTS = {
    "module": lambda: wide(5),
    "function": lambda: contrast,
    "in multiples": lambda: adapters._in_multiples(wide(1)),
}
CARRIED = [*shipped.names(), *(spec.name for spec in ukis.SPECS), *plugins.names()]


def spec_of(case: str, folder) -> ModelSpec:
    kind, _, name = case.partition(": ")
    if kind == "architecture":
        return of_architecture(name)
    if kind == "object":
        return of_object(OBJECTS[name](), name.replace(" ", "-"))
    if kind == "file":
        return of_file(name, folder)
    return models.get(name)


CASES = [
    *(f"architecture: {name}" for name in ARCHITECTURES),
    *(f"object: {name}" for name in OBJECTS),
    "file: onnx",
    "file: pt2",
    *(f"carried: {name}" for name in CARRIED),
]


@pytest.fixture
def windows(monkeypatch, one_thread):
    """Count what networks are given: how often each window's pixels.

    Dask gets threads of its own: torch gives a thread the number of threads that is set when it first asks,
    for good, so those of a pool that another test began may add in another order.
    """
    seen: Counter[str] = Counter()
    lock = threading.Lock()
    ask = predictor.Predictor._probabilities

    def counted(self, backend, pixels):
        found = [hashlib.md5(np.ascontiguousarray(each).tobytes()).hexdigest() for each in np.asarray(pixels)]
        with lock:
            seen.update(found)
        return ask(self, backend, pixels)

    monkeypatch.setattr(predictor.Predictor, "_probabilities", counted)
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "1")
    with ThreadPoolExecutor(2) as pool, dask.config.set(pool=pool):
        yield seen
    predictor.unload()


def a_scene(spec: ModelSpec):
    """Two dates with gaps: a corner larger than a window, a speck, one band alone, a fill value's worth."""
    names = [name for name in spec.bands if not spec.fills or name != "green"] or NAMES[:4]
    height, width = SHAPE if spec.patch == PATCH else (spec.patch + 30, spec.patch - 20)
    pixels = noise(2, len(names), height, width, seed=5) * 0.6
    pixels *= np.linspace(0.3, 1.5, width, dtype=np.float32)  # so that statistics differ from place to place
    pixels[0, :, : height - 35, : width // 2 + 18] = np.nan
    pixels[1, 0, 20:29, 3:40] = np.nan
    pixels[1, :, 60, 50] = np.nan
    if spec.patch != PATCH:
        pixels = pixels[1:]
    level = {"toa": "L1C", "boa": "L2A", None: "L1C"}[spec.level]
    return scene(pixels, names, level=level)


def expected_windows(da, spec: ModelSpec) -> int:
    """Windows of the grid that hold a valid pixel, counted here without the library's plan."""
    valid = np.isfinite(da.values).all(axis=1)
    step = spec.patch - spec.overlap

    def starts(size: int) -> list[int]:
        return [0] if size <= spec.patch else [*range(0, size - spec.patch, step), size - spec.patch]

    rows, cols = starts(valid.shape[1]), starts(valid.shape[2])
    cut = [valid[:, r : r + spec.patch, c : c + spec.patch].any(axis=(1, 2)) for r in rows for c in cols]
    return int(np.sum(cut))


@pytest.mark.network
@pytest.mark.parametrize("case", CASES)
def test_the_same_whatever_the_chunks_and_each_window_once(case, windows, tmp_path):
    spec = spec_of(case, tmp_path)
    if case.removeprefix("carried: ") in plugins.names():
        remedy = plugins.missing(spec)
        if remedy:
            pytest.skip(f"its package is not installed: {remedy}")
    da = a_scene(spec)
    call = {"model": spec, "working_resolution": "native", "patch_size": spec.patch, "overlap": spec.overlap}
    whole = da.cloudmask.predict_proba(**call).transpose("time", "class", "y", "x").values
    gap = ~np.isfinite(da.values).all(axis=1)
    assert (np.isnan(whole).any(axis=1) == gap).all()
    assert np.nanstd(whole, axis=(0, 2, 3)).max() > 1e-4, "the network answers the same everywhere"

    once = Counter(windows)
    assert set(once.values()) == {1}
    assert len(once) == expected_windows(da, spec)

    chunkings = CHUNKS if spec.patch == PATCH else LARGE_CHUNKS
    for name, chunk in chunkings.items():
        windows.clear()
        found = da.chunk(chunk).cloudmask.predict_proba(**call).transpose("time", "class", "y", "x")
        same_odds(found.values, whole, err_msg=name)
        assert windows == once, name

    mask = da.chunk(chunk).cloudmask.predict(
        **call, scheme="native", threshold=0.5 if spec.threshold else None
    )
    if spec.threshold is None:
        native = (
            da.cloudmask.predict_proba(**call, scheme="native").transpose("time", "class", "y", "x").values
        )
        decided = np.where(gap, 255, np.argmax(np.nan_to_num(native), axis=1))
        np.testing.assert_array_equal(mask.values, decided)
    else:
        np.testing.assert_array_equal(
            mask.values, da.cloudmask.predict(**call, scheme="native", threshold=0.5).values
        )


def test_every_architecture_is_here():
    assert {name.partition(",")[0] for name in ARCHITECTURES} == set(arch.NAMES)


def test_the_percentiles_of_sensei_are_those_of_windows_of_the_one_grid(monkeypatch, windows):
    """Taken per chunk, they would differ: each is compared with NumPy's of the window it belongs to."""
    spec = of_architecture("sensei-v2")
    da = a_scene(spec).isel(time=[1]).fillna(0.1)
    seen = []
    ask = sensei_v2.percentiles

    def noted(pixels, step=1):
        out = ask(pixels, step)
        seen.extend(out.numpy())
        return out

    monkeypatch.setattr(sensei_v2, "percentiles", noted)
    da.chunk(y=(30, 45), x=(7, 51), band=1).cloudmask.predict(spec, working_resolution="native").compute()
    pixels = da.isel(time=0).values
    grid = [(row, col) for row in (0, 24, SHAPE[0] - PATCH) for col in (0, 24, SHAPE[1] - PATCH)]
    wanted = [
        np.quantile(pixels[:, r : r + PATCH, c : c + PATCH], sensei_v2.PERCENTILES, axis=(1, 2)).T
        for r, c in grid
    ]
    assert len(seen) == len(grid)
    for window in wanted:  # they come in any order
        assert min(np.abs(found - window).max() for found in seen) < 1e-5


def test_sensei_answers_other_percentiles_with_another_mask(monkeypatch, windows):
    """So the comparison above, and that of chunkings, would see percentiles of anything but the window."""
    spec = of_architecture("sensei-v2")
    da = a_scene(spec)
    first = da.cloudmask.predict_proba(spec, working_resolution="native").values
    ask = sensei_v2.percentiles
    monkeypatch.setattr(sensei_v2, "percentiles", lambda pixels, step=1: ask(pixels[:, :, :16, :16], step))
    assert (
        np.nanmax(np.abs(da.cloudmask.predict_proba(spec, working_resolution="native").values - first)) > 1e-4
    )
