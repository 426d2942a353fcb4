"""Ours beside the peers: the same pixels, the same network, the same threads, in turns, a process each.

    python -m benchmarks peers                        # five rounds of each pair: an hour on two idle cores
    python -m benchmarks peers --quick                # small images, one round: that it runs
    python -m benchmarks peers --only monai terratorch --rounds 3
    python -m benchmarks peers --table                # prints the result file, measures nothing

The peers are installed, without what they ask for beside it, into an environment of their own, which sees
the packages of this one. What they import and do not use here is replaced by empty names: torchvision,
whose wheel does not fit every torch, for omnicloudmask, and sentinelhub for s2cloudless. terratorch's tiled
inference is read from its file, as importing terratorch needs a dozen packages more. Of ukis-csmask and
s2cloudless both use the published weights, elsewhere they are random: what is compared is time and memory
and, of omnicloudmask (``--only seam``), how far the answers lie from those of the network on the whole
image at once.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _measure import (
    RESULTS,
    arguments,
    circumstances,
    clocked,
    keep,
    load_average,
    median,
    peak_mib,
    print_runs,
)

HERE = Path(__file__).resolve()
#: Installed without what they ask for (torch and torchvision among it).
PINS = {
    "ukis-csmask": "1.0.0", "omnicloudmask": "1.8.1", "monai": "1.6.1", "terratorch": "1.2.13",
    "segmentation-models-pytorch": "0.6.0", "timm": "1.0.31", "s2cloudless": "1.7.3", "lightgbm": "4.7.0",
    "opencv-python-headless": "5.0.0.93",
}  # fmt: skip
#: What omnicloudmask and its networks import; none of it asks for torch.
BESIDE = ("huggingface-hub", "gdown", "classcounter", "platformdirs")
#: Which of our runs each peer's is beside; side of windows and overlap, or the sides that windows may have.
PAIRS = {
    "ukis-csmask": ("ours, ukis",),
    "omnicloudmask": ("ours, 1000/300", "ours, 768-1000/100"),
    "monai": ("ours, 256/64",),
    "terratorch": ("ours, 256/64",),
    "s2cloudless": ("ours, trees",),
}
SIDES = {
    "ukis-csmask": 2048, "omnicloudmask": 4096, "monai": 2048, "terratorch": 2048, "s2cloudless": 1024,
    "seam": 2048,
}  # fmt: skip
#: How many bands an image has where it is not three.
BANDS = {"ukis-csmask": 6, "ours, ukis": 6, "s2cloudless": 10, "ours, trees": 10}
#: No larger image is masked twice: the first time is on so much of it.
WARM = 2048


def environment(folder: Path) -> Path:
    """Return the Python of an environment with the peers, made in `folder` if it is not there."""
    python = folder / "bin" / "python"
    pins = [f"{name}=={pin}" for name, pin in PINS.items()]
    stamp = folder / "pins.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != pins:
        venv.create(folder, with_pip=True, clear=True)
        here = subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        Path(here, "base.pth").write_text(sysconfig.get_path("purelib") + "\n")
        for packages in (BESIDE, ("--no-deps", *pins)):
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
        stamp.write_text(json.dumps(pins))
    return python


# --- each in a process of its own


def _network(standardise: bool = False) -> Any:
    """Return OmniCloudMask's smaller network, with random weights, which are the same in every process."""
    from xcloudmask.models import arch

    return arch.build(
        "unet", {"encoder": "edgenext-small", "standardise": standardise, "classes": 4}, seed=0
    ).eval()


def _convolutions(standardise: bool = False) -> Any:
    """Return a network that answers alike wherever a window begins, and sees 63 pixels around each."""
    import torch
    from torch import nn

    from xcloudmask.models.arch.unet import z_scores

    class Standardised(nn.Sequential):
        def forward(self, pixels: Any) -> Any:
            return super().forward(z_scores(pixels))

    torch.manual_seed(0)
    layers: list[Any] = []
    for width, step in ((3, 1), (8, 2), (8, 4), (8, 8), (8, 16), (8, 32)):
        layers += [nn.Conv2d(width, 8, 3, padding=step, dilation=step), nn.ReLU()]
    layers.append(nn.Conv2d(8, 4, 1))
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight)
    return (Standardised if standardise else nn.Sequential)(*layers).eval()


def _ours(name: str, pixels: Any, network: Callable[..., Any] = _network) -> Callable[[], Any]:
    import xarray as xr

    from xcloudmask import models

    scene = xr.DataArray(pixels, dims=("band", "y", "x"))
    if name == "ours, ukis":
        from xcloudmask.models.sources import ukis

        scene = scene.cloudmask.describe(bands=list(ukis.BANDS), level="L1C")
        return lambda: scene.cloudmask.predict("ukis-6band-l1c", working_resolution="native").values
    if name == "ours, trees":
        scene = scene.cloudmask.describe(bands=list(models.get("s2cloudless").bands), level="L1C")
        ask = functools.partial(scene.cloudmask.predict, "s2cloudless", threshold=0.4)
        return lambda: ask().cloudmask.clean(buffer="2 px").values
    sides, _, overlap = name.partition(", ")[2].partition("/")
    patch, _, largest = sides.partition("-")
    bands = ("red", "green", "nir")
    models.register(
        network(standardise=patch != "256"), name="beside-peers", bands=bands, patch=int(patch),
        largest_patch=int(largest or patch), overlap=int(overlap), activation="softmax", overwrite=True,
        classes=("clear", "thick_cloud", "thin_cloud", "cloud_shadow"),
    )  # fmt: skip
    scene = scene.cloudmask.describe(bands=list(bands), level="L1C")
    ask = scene.cloudmask.predict_proba if name.startswith("odds") else scene.cloudmask.predict
    return lambda: ask("beside-peers", working_resolution="native", device="cpu").values


def _ukis(pixels: Any, threads: int) -> Callable[[], Any]:
    import numpy as np
    from ukis_csmask.mask import CSmask

    from xcloudmask.models.sources import ukis

    last = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
    options = {"providers": ["CPUExecutionProvider"], "intra_op_num_threads": threads}
    return lambda: CSmask(last, list(ukis.BANDS), product_level="l1c", **options).csm


def _s2cloudless(pixels: Any, threads: int) -> Callable[[], Any]:
    import numpy as np

    _without("sentinelhub")
    from s2cloudless import S2PixelCloudDetector

    last = np.ascontiguousarray(np.moveaxis(pixels, 0, -1))[None]
    detector = S2PixelCloudDetector(threshold=0.4, average_over=4, dilation_size=2)
    return lambda: detector.get_cloud_masks(last)


def _omnicloudmask(pixels: Any, threads: int) -> Callable[[], Any]:
    _without("torchvision")
    from omnicloudmask import predict_from_array

    network = _network()
    return lambda: predict_from_array(pixels, custom_models=network, inference_device="cpu")


def _monai(pixels: Any, threads: int) -> Callable[[], Any]:
    import torch
    from monai.inferers import sliding_window_inference

    network, image = _network(), torch.from_numpy(pixels)[None]

    def work() -> Any:
        with torch.inference_mode():
            return sliding_window_inference(image, 256, 4, network, overlap=0.25, mode="gaussian").argmax(1)

    return work


def _terratorch(pixels: Any, threads: int) -> Callable[[], Any]:
    import types
    from importlib.util import find_spec, module_from_spec, spec_from_file_location

    import torch

    # The one name that it takes from the package; with padding=False it is not called.
    sys.modules["terratorch.models.utils"] = types.ModuleType("terratorch.models.utils")
    sys.modules["terratorch.models.utils"].pad_images = lambda images, *_: images  # type: ignore[attr-defined]
    (package,) = find_spec("terratorch").submodule_search_locations  # type: ignore[union-attr, misc]
    file = Path(package) / "tasks" / "tiled_inference.py"
    sys.modules["terratorch"] = sys.modules["terratorch.models"] = types.ModuleType("terratorch")
    spec: Any = spec_from_file_location("tiled_inference", file)
    tiled = sys.modules["tiled_inference"] = module_from_spec(spec)
    spec.loader.exec_module(tiled)
    network, image = _network(), torch.from_numpy(pixels)[None]

    def work() -> Any:
        with torch.inference_mode():
            return tiled.tiled_inference(
                network, image, out_channels=4, crop=256, stride=192, delta=0, batch_size=4, padding=False
            ).argmax(1)

    return work


PEERS = {
    "ukis-csmask": _ukis, "omnicloudmask": _omnicloudmask, "monai": _monai, "terratorch": _terratorch,
    "s2cloudless": _s2cloudless,
}  # fmt: skip


def _without(package: str) -> None:
    """Let a package that is not there be imported, as one of empty names."""
    import importlib.abc
    import importlib.machinery
    import types

    class Anything(type):
        def __getattr__(cls, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return name

    class Empty(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return Anything(name, (), {})

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
            ours = name.partition(".")[0] == package
            return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

        def create_module(self, spec: Any) -> Any:
            return Empty(spec.name)

        def exec_module(self, module: Any) -> None:
            pass

    sys.meta_path.insert(0, Finder())


def seam(side: int, threads: int) -> dict[str, Any]:
    """Return how far probabilities by windows lie from those of the whole image in one, by who cut it."""
    import _cases as cases
    import numpy as np
    import torch

    torch.set_num_threads(threads)
    _without("torchvision")
    from omnicloudmask import predict_from_array

    found = {}
    noise = np.random.default_rng(0).normal(0.3, 0.05, (3, side, side)).clip(0.01).astype(np.float32)
    images = {"clouds": cases.image(side, 3), "noise": noise}
    networks = {"U-Net": _network, "convolutions": _convolutions}
    for (kind, network), (name, pixels) in itertools.product(networks.items(), images.items()):
        with torch.inference_mode():
            whole = network(standardise=True)(torch.from_numpy(pixels)[None]).softmax(1)[0].numpy()
        answers = {
            "theirs": predict_from_array(
                pixels, custom_models=network(), inference_device="cpu", export_confidence=True
            ),
            "ours": _ours("odds, 1000/300", pixels, network)(),
            "ours, fewer windows": _ours("odds, 768-1000/100", pixels, network)(),
        }
        for who, answer in answers.items():
            apart = np.abs(answer - whole).max(axis=0)
            far = (apart.max(), np.quantile(apart, 0.99), apart.mean())
            same = (answer.argmax(0) == whole.argmax(0)).mean()
            found[f"{kind}, {name}, {who}"] = [*map(float, (*far, same))]
    return found


def child(name: str, side: int, threads: int) -> dict[str, Any]:
    """Do the work once to warm up, on less of a large image, and once more; return what both took."""
    import _cases as cases
    import numpy as np

    if "ukis" not in name and name != "s2cloudless":  # torch's 200 MiB are nobody's need there
        import torch

        torch.set_num_threads(threads)
    pixels = cases.image(side, BANDS.get(name, 3))
    before = peak_mib()
    make = (
        functools.partial(PEERS[name], threads=threads) if name in PEERS else functools.partial(_ours, name)
    )
    start = time.perf_counter()
    work = make(pixels)
    (work if side <= WARM else make(pixels[:, :WARM, :WARM].copy()))()
    first = time.perf_counter() - start
    answers: list[Any] = []
    spent = clocked(lambda: answers.append(work()))
    codes = np.asarray(answers[0]).reshape(-1)
    return {
        "first_s": first, "again_s": spent.wall, "cpu_s": spent.cpu, "peak_mib": peak_mib(),
        "before_mib": before, "shares": np.bincount(codes.astype(np.uint8), minlength=4)[:4].tolist(),
    }  # fmt: skip


# --- the pairs, in turns


def asked(python: Path, name: str, side: int, threads: int) -> dict[str, Any]:
    """Run a child in the peers' environment, return its answer."""
    done = subprocess.run(
        [python, HERE, "--child", name, str(side), str(threads)], capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(HERE.parent.parent)},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def seams(python: Path, side: int, threads: int) -> dict[str, Any]:
    """How far masks made window by window lie from the whole image in one window."""
    found = asked(python, "seam", side, threads)
    return {
        "title": f"Beside the whole image in one window: {side} x {side}, the same network, probabilities",
        "head": ["", "furthest", "99 %", "mean", "same class"], "rows": [[k, *v] for k, v in found.items()],
        "figures": {f"furthest, {name}": values[0] for name, values in found.items()},
    }  # fmt: skip


def beside(peer: str, python: Path, side: int, rounds: int, threads: int) -> dict[str, Any]:
    """Return medians of a peer and of ours, run in turns."""
    names = (peer, *PAIRS[peer])
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    loads = []
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            loads.append(load_average())
            runs[name].append(asked(python, name, side, threads))
    fields = ("first_s", "again_s", "cpu_s", "peak_mib")
    rows, figures = [], {}
    for name, each in runs.items():
        row: list[object] = [name, *(median(run[field] for run in each) for field in fields)]
        for field in ("again_s", "cpu_s"):
            ratios = [a[field] / b[field] for a, b in zip(runs[peer], each, strict=True)]
            told = f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            row.append(None if name == peer else told)
            if name != peer:
                figures[f"{peer} / {name}, {field}"] = median(ratios)
        if name != peer:
            sizes = zip(each, runs[peer], strict=True)
            figures[f"{name} / {peer}, memory"] = median(a["peak_mib"] / b["peak_mib"] for a, b in sizes)
        rows.append(row)
    return {
        "title": f"{peer} {PINS[peer]}: {side} x {side}, {rounds} rounds, {threads} threads",
        "head": ["", "first s", "again s", "cpu s", "MiB", "x faster", "x cpu"], "rows": rows,
        "figures": figures,
        "shares": {name: each[0]["shares"] for name, each in runs.items()}, "loads": loads,
        "again_s_all": {name: [round(run["again_s"], 2) for run in each] for name, each in runs.items()},
    }  # fmt: skip


def main() -> None:
    usual = Path.home() / ".cache" / "xcloudmask-benchmarks" / "peers"
    args = arguments(
        __doc__, "quick", "table",
        only={"nargs": "+", "choices": list(SIDES), "default": list(SIDES), "metavar": "PEER"},
        rounds={"type": int, "default": 5}, threads={"type": int, "default": 2},
        side={"type": int, "help": "pixels a side, other than the usual"},
        env={"type": Path, "default": usual, "help": "where the peers are installed"},
        install={"action": "store_true", "help": "install the peers, measure nothing"},
        child={"nargs": 3, "help": argparse.SUPPRESS},
    )  # fmt: skip
    if args.child:
        name, side, threads = args.child
        work = seam if name == "seam" else functools.partial(child, name)
        print(json.dumps(work(int(side), int(threads))))
        return
    out = RESULTS / "peers.json"
    if args.table:
        print_runs(out, args.table)
        return
    python = environment(args.env.absolute())
    if args.install:
        return
    for peer in args.only:
        when = circumstances() | {"peers": PINS}
        side = args.side or SIDES[peer]
        if args.quick:
            side = {"omnicloudmask": 512, "seam": 512}.get(peer, 320)
        run = (
            seams(python, side, args.threads)
            if peer == "seam"
            else beside(peer, python, side, 1 if args.quick else args.rounds, args.threads)
        )
        keep(None if args.quick else out, {"section": peer, "circumstances": when} | run)


if __name__ == "__main__":
    main()
