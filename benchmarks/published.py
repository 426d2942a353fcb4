"""Published systems against the reference answers of ../shared/published: a row a network and container.

Files are loaded by `xcloudmask.models.load` in one call, as a user would; where the weights may not be passed
on, the file is written here in the published container, with weights that a rule generates. Prints a table
and writes results/published.json.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors.torch import save_file

from tests.models.published import golden
from xcloudmask import models
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.convert import convert
from xcloudmask.models.network import load_network

RESULTS = Path(__file__).parent / "results" / "published.json"
SIGNALS = {
    "TOA Reflectance": "optical", "TOA Normalised Brightness Temperature": "thermal", "SAR VV": "sar_vv",
    "SAR VH": "sar_vh", "SAR Angle": "sar_angle", "DEM": "elevation",
}  # fmt: skip


def loaded(path: Path, **more: Any) -> tuple[Any, dict[str, Any]]:
    """Return a card and what a row says of loading it: seconds to the first network, and parameters."""
    begun = time.perf_counter()
    spec = models.load(path, overwrite=True, **more)
    networks = [load_network(each) for each in spec.members or (spec,)]
    seconds = time.perf_counter() - begun
    count = 0
    for body in (network.body for network in networks):
        # Keras counts the moments of batch norm, too; a program keeps its weights as it was exported
        keras = spec.architecture == "ipl-uv"
        numbers = body.state_dict().items() if keras else body.named_parameters()
        count += sum(each.numel() for name, each in numbers if not name.endswith("num_batches_tracked"))
    return spec, {"name": spec.name, "seconds": round(seconds, 2), "parameters": count}


def answered(spec: Any, image: np.ndarray) -> np.ndarray:
    """Return what a network answers to one image, before its activation."""
    with torch.inference_mode():
        answer: np.ndarray = load_network(spec).body(torch.from_numpy(image)[None])[0].numpy()
    return answer


def largest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """Return the largest difference in probability, and how many pixels have another class."""
    worst, other = 0.0, 0
    for ours, theirs in pairs:
        worst = max(worst, float(np.nanmax(np.abs(ours - theirs))))
        classes = [x.argmax(0) if x.shape[0] > 1 else x[0] >= 0.5 for x in (ours, theirs)]
        other += int((classes[0] != classes[1]).sum())
    return worst, other


def scored(
    row: dict[str, Any],
    system: str,
    container: str,
    pairs: Iterable[tuple[np.ndarray, np.ndarray]],
    **more: Any,
) -> dict[str, Any]:
    """Complete a row by what was compared: ours and theirs, the classes first."""
    worst, other = largest(pairs)
    return row | {"system": system, "container": container, "difference": worst, "other": other, **more}


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return the probability of one logit."""
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softmax(x: np.ndarray) -> np.ndarray:
    """Return the probabilities of logits, the classes first."""
    odds = np.exp(x - x.max(axis=0))
    answer: np.ndarray = odds / odds.sum(axis=0)
    return answer


def fdr4vgt() -> Iterator[dict[str, Any]]:
    """Yield rows of exported programs and of the items that describe them."""
    folder, answers = golden.PUBLISHED / "fdr4vgt", golden.answers("fdr4vgt")
    windows = np.round(10000 * golden.image("toy", (2, 4, 512, 512)))
    scene = xr.DataArray(
        windows, dims=("time", "band", "y", "x"), coords={"band": ["blue", "red", "nir", "swir16"]}
    )
    scene = scene.cloudmask.describe(scale=1e-4, offset=0)
    rows = (
        ("single", "model_a"),
        ("ensemble", "ensemble/max"),
        ("flexible", "ensemble/max"),
        ("fused", "fused/probability"),
    )
    for item, key in rows:
        for layout, container in (("old", ".pt2 of torch 2.5.1"), ("new", ".pt2 of torch 2.13")):
            spec, row = loaded(folder / f"{item}_{layout}.json")
            cloud = scene.cloudmask.predict_proba(spec).values[:, 1, ::8, ::8]
            pairs = [(ours[None], theirs[None]) for ours, theirs in zip(cloud, answers[key], strict=True)]
            yield scored(row, f"FDR4VGT-CLOUD, {item}", f"item, {container}", pairs)


def sensei_v2(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield rows of state dicts with the YAML beside them."""
    for name, config in (
        ("senseiv2_segformer", "config-segformer.yaml"),
        ("senseiv2_deeplab", "config-deeplab.yaml"),
    ):
        facts, answers, place = golden.facts(name), golden.answers(name), folder / name
        place.mkdir()
        torch.save(golden.weights(facts["shapes"]), place / "weights.pt")
        shutil.copy(golden.PUBLISHED / "senseiv2_yaml" / config, place / "config.yaml")
        spec, row = loaded(place)
        network, pairs = load_network(spec).body, []
        for case, bands in facts["cases"].items():
            inputs = [
                BandInput(SIGNALS[b["band_type"]], b.get("min_wavelength", 0), b.get("max_wavelength", 0))
                for b in bands
            ]
            image = torch.from_numpy(golden.image(case, (len(inputs), 64, 64)))[None]
            with torch.inference_mode():
                odds = network(image, torch.from_numpy(network.describe(inputs))).softmax(1)[0].numpy()
            pairs.append((odds, answers[f"{case}/answer"]))
        yield scored(
            row,
            f"SEnSeI-v2, {name[9:]}",
            "folder: weights.pt, config.yaml",
            pairs,
            stated={"senseiv2_segformer": 27_815_365, "senseiv2_deeplab": 27_141_714}[name],
        )


def clouds2mask() -> Iterator[dict[str, Any]]:
    """Yield the row of the pickled module."""
    path = golden.PUBLISHED / "clouds2mask" / "sample_whole_module.pkl"
    spec, row = loaded(path)
    ours = answered(spec, golden.image("sample", (13, 64, 64)))
    theirs = golden.answers("clouds2mask", "sample_whole_module.npz")["logits"]
    yield scored(
        row, "CloudS2Mask, narrow sample", ".pkl, a whole module", [(softmax(ours), softmax(theirs))]
    )


def of_case(case: str, bands: int) -> np.ndarray:
    """Return the image of a case of IPL-UV: noise, or blocks of 8 x 8 pixels."""
    if case.endswith("noise"):
        return golden.image(case, (bands, 64, 64))
    return golden.image(case, (bands, 8, 8)).repeat(8, axis=1).repeat(8, axis=2)


def ipl_uv(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield rows of the Keras files, with real weights."""
    facts, answers, place = (
        golden.facts("ipl_uv")["cases"],
        golden.answers("ipl_uv"),
        golden.PUBLISHED / "ipl_uv",
    )
    for net, system in (
        ("rgbi", "DL-L8S2-UV, 4 bands"),
        ("rgbiswir", "DL-L8S2-UV, 6 bands"),
        ("probav", "pvl8dagans"),
    ):
        cases = [f"{net}_noise", f"{net}_blocks"]
        spec, row = loaded(place / facts[cases[0]]["file"])
        bands, pairs = facts[cases[0]]["bands"], []
        for case in cases:
            image = of_case(case, bands)
            pairs.append((sigmoid(answered(spec, image)), answers[f"{case}/probability"][None]))
        yield scored(row, system, ".hdf5 of Keras, real weights", pairs, stated=facts[cases[0]]["parameters"])
    convert([place / "full.hdf5", place / "cloud_detection_l8.hdf5"], folder / "adapted.safetensors")
    spec, row = loaded(folder / "adapted.json")
    pairs = []
    for case in ("adapter_noise", "adapter_blocks"):
        image = of_case(case, 4)
        with torch.inference_mode():
            pairs.append(
                (
                    load_network(spec).body.adapter(torch.from_numpy(image)[None])[0].numpy(),
                    answers[f"{case}/adapted"],
                )
            )
    # what the adapter makes are bands: there are no classes to compare
    yield scored(row, "pvl8dagans with adapter", "two .hdf5, converted", pairs, other="-")


def omnicloudmask(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield rows of the two files; their answers are for inputs that count as normalised."""
    facts, answers = golden.facts("omnicloudmask")["networks"], golden.answers("omnicloudmask")
    for encoder, fact in facts.items():
        save_file(golden.weights(fact["shapes"]), folder / f"{encoder}.safetensors")
        spec, row = loaded(folder / f"{encoder}.safetensors")
        network, pairs = load_network(spec).body, []
        network.standardise = False
        for name, shape, what in (("", (3, 64, 64), "logits"), ("/odd", (3, 61, 75), "odd_logits")):
            with torch.inference_mode():
                ours = network(torch.from_numpy(golden.image(encoder + name, shape))[None])[0].numpy()
            pairs.append((softmax(ours), softmax(answers[f"{encoder}/{what}"])))
        yield scored(row, f"OmniCloudMask, {encoder}", ".safetensors", pairs, stated=fact["parameters"])


def main() -> None:
    """Print the table and write the results."""
    folder = Path(tempfile.mkdtemp())
    rows = [*fdr4vgt(), *sensei_v2(folder), *clouds2mask(), *omnicloudmask(folder), *ipl_uv(folder)]
    print("| system | container | largest difference | other classes | parameters | seconds to load |")
    print("| --- | --- | --- | --- | --- | --- |")
    for row in rows:
        stated = f" (stated: {row['stated']:,})" if "stated" in row else ""
        cells = (row["system"], row["container"], f"{row['difference']:.1e}", row["other"])
        print("|", " | ".join(map(str, (*cells, f"{row['parameters']:,}{stated}", row["seconds"]))), "|")
    about = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    RESULTS.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
