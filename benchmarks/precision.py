"""How far the ukis networks in 16 bits are from themselves in float32: pixels of the same class, by patch.

    python benchmarks/precision.py --data FOLDER
    python benchmarks/precision.py --table     # measures nothing: prints the result file as a table

FOLDER as for `choices.py`. Computed on the CPU, by the rules of torch's autocast, with one part of the
network left in float32 at a time: where that part causes the difference, it goes. `dtype="auto"` takes a
16-bit precision on a GPU only where this table allows it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _measure import circumstances, in_words, on_patches, save, table
from choices import Patch, patches
from torch import nn

from xcloudmask import models
from xcloudmask.engine.pixels import fill_gaps
from xcloudmask.models.arch.regnet import SqueezeExcite
from xcloudmask.models.network import Network, load_network

SOURCES = {
    "val": ("l8_biome", "l8_38cloud", "s2_oncloudn"),
    "train": ("s2_shadow_alberta",),
    "unlabelled": ("landsat_l1", "s2_l1c", "s2_l2a"),
}
MOST = 8  # patches a source
#: What stays in float32.
PARTS: dict[str, Callable[[str, nn.Module], bool]] = {
    "nothing": lambda name, module: False,
    "the first layer": lambda name, module: name == "encoder.stem",
    "squeeze and excite": lambda name, module: isinstance(module, SqueezeExcite),
    "the encoder": lambda name, module: name == "encoder",
}


@contextmanager
def in_float32(network: nn.Module, part: Callable[[str, nn.Module], bool]) -> Iterator[None]:
    chosen = [module for name, module in network.named_modules() if part(name, module)]
    for module in chosen:

        def plain(*given: Any, forward: Callable[..., Any] = module.forward) -> Any:
            with torch.autocast("cpu", enabled=False):
                return forward(*(each.float() for each in given))

        module.forward = plain
    try:
        yield
    finally:
        for module in chosen:
            del module.forward


def logits(network: Network, pixels: torch.Tensor, dtype: torch.dtype | None) -> Any:
    with torch.inference_mode(), torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        return network.body(pixels).float().argmax(1).numpy()


def measure(folder: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    found = [
        patch
        for kind, sources in SOURCES.items()
        for source in sources
        for patch in list(patches(folder / kind, (source,)))[:MOST]
    ]
    networks = {
        name: load_network(replace(models.get(name), runtime="torch", gpu_runtime=None))
        for name in {patch.model for patch in found}
    }

    def prepared(patch: Patch) -> torch.Tensor:
        network, pixels = networks[patch.model], patch.pixels[:, :256, :256]
        filled = fill_gaps(pixels, np.isfinite(pixels).all(axis=0))
        mean, std = (np.reshape(np.asarray(v, np.float32), (-1, 1, 1)) for v in (network.mean, network.std))
        return torch.from_numpy(((filled - mean) / std).astype(np.float32))[None]

    pixels = [prepared(patch) for patch in found]
    exact = [logits(networks[p.model], x, None) for p, x in zip(found, pixels, strict=True)]
    rows = []
    for dtype in (torch.float16, torch.bfloat16):
        for kept, part in PARTS.items():
            if dtype == torch.float16 and kept != "nothing":
                continue
            same = []
            for patch, x, codes in zip(found, pixels, exact, strict=True):
                with in_float32(networks[patch.model].body, part):
                    same.append(float((logits(networks[patch.model], x, dtype) == codes).mean()))
            worst = found[int(np.argmin(same))]
            rows.append({
                "dtype": str(dtype).removeprefix("torch."), "in_float32": kept, "same": float(np.mean(same)),
                "worst": min(same), "worst_patch": f"{worst.source}/{worst.name}",
            })  # fmt: skip
            print(rows[-1], flush=True)
    return {"circumstances": circumstances(), "patches": len(found), "rows": rows, "bars": [0.998, 0.98]}


def show(found: dict[str, Any]) -> str:
    rows = [
        [row["dtype"], row["in_float32"], f"{row['same']:.2%}", f"{row['worst']:.2%}", row["worst_patch"]]
        for row in found["rows"]
    ]
    head = ["dtype", "in float32", "same class", "worst patch", ""]
    return f"{in_words(found['circumstances'])}\n{found['patches']} patches\n{table(head, rows)}"


def main() -> None:
    args = on_patches(__doc__, "precision.json")
    if not args.table:
        save(args.out, measure(args.data))
    print(show(json.loads(args.out.read_text())))


if __name__ == "__main__":
    main()
