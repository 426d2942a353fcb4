"""A model of the zoo, trained on with labels of one's own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, names_checked
from xcloudmask.train.loggers import print_epoch
from xcloudmask.train.networks import model_of
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train
from xcloudmask.train.samples import AUX_NAMES
from xcloudmask.types import ModelSpec


@names_checked
def fine_tune(
    model: str | Path | ModelSpec,
    data: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    bands: Sequence[str] | None = None,
    epochs: int = 10,
    length: int = 50,
    batch: int = 8,
    rate: float = 3e-4,
    dev: float = 0.2,
    only: str | Sequence[str] = (),
    estimate: bool = False,
    recipe: Mapping[str, object] | None = None,
    progress: bool = True,
) -> ModelSpec:
    """Train a model on with labels of your own, and return it, ready for ``predict(model=...)``.

    Parameters
    ----------
    model : str, path or ModelSpec
        A name from `xcloudmask.models.names`, weights that a training wrote, or a card. Not several networks
        at once, nor ONNX graphs other than those of ukis: `label_folder` learns from them.
    data : path
        Labelled patches, ``<source>/<name>.npz``; see `xcloudmask.train.files`.
    out : path
        Where weights, card and log go. The same call resumes a training that was stopped there.
    name : str, optional
        Of the new model; that of `out` if not given.
    classes : sequence of str, optional
        Other classes than the model's; its last layer is then replaced.
    bands : sequence of str, optional
        Other bands than the model's, if its bands are fixed: weights of those that it took stay, and those of
        new ones are zero at first. If it takes any, the aux inputs that it is to take beside them,
        ``["elevation", "vv"]``: the patches hold them (``write_patch(..., aux={...})``).
    epochs, length, batch : int
        Rounds, batches a round, samples a batch.
    rate : float
        The learning rate.
    dev : float
        Share of the scenes kept for choosing the best round and the threshold.
    only : str or sequence of str
        What is trained, if not all: ``"head"``, the last layer, or beginnings of weights' names,
        ``["up", "logits"]``.
    estimate : bool
        For a network of fixed bands, whether it learns to answer for some of them: random ones are left out
        and estimated from the others, in training and ever after (`ModelSpec.fills`).
    recipe : mapping, optional
        How samples are changed; settings of `xcloudmask.train.config_tables.Recipe`. By default crops of 128
        pixels turned and mirrored; of a network that takes one size of window, that size.
    progress : bool
        Whether to print a line an epoch.

    Returns
    -------
    ModelSpec
        With the threshold chosen on the scenes kept. A warning says where none could be chosen, where it is
        extreme, and where the training was a handful of steps.

    Examples
    --------
    >>> fine_tune("ukis-any-l1c", "my_patches", "runs/mine")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: there is no folder my_patches...
    """
    spec = model_of(model)
    if not Path(data).is_dir():
        raise CloudMaskError(f"there is no folder {data}: it must hold <source>/<name>.npz with your labels")
    name = name or re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(out).resolve().name).strip("-_.") or "mine"
    size = spec.patch if spec.patch_fixed else 128
    least = 3 if estimate and not spec.fills else spec.min_bands
    changes: dict[str, object] = {"size": size, "least_bands": least, **(recipe or {})}
    if spec.architecture in ("spectral", "pixel-mlp"):
        changes = {"pixels": 128, **changes}
    config: dict[str, Any] = {
        "name": name,
        "description": f"{spec.name} trained on",
        "licence": spec.licence,
        "data": {"train": ".", "dev": dev, "batch": batch, "length": length},
        "recipe": changes,
        "network": {
            "start": spec, "classes": list(classes or spec.classes),
            "only": [only] if isinstance(only, str) else list(only),
            **({"estimate": True} if estimate else {}),
            "bands": [band for band in bands or () if band not in AUX_NAMES],
            "aux": [band for band in bands or () if band in AUX_NAMES],
        },
        "loop": {"epochs": epochs, "rate": rate, "warmup": min(20, length), "clip": 1.0},
        "card": {
            "training_data": f"{spec.training_data}; then {Path(data).name}".lstrip("; "),
            "citation": spec.citation, "limits": f"Of {spec.name}: {spec.limits}" if spec.limits else "",
        },
    }  # fmt: skip
    if dev:
        config["loop"]["watch"] = "score"
    train(Plan.of(config), data=data, out=out, loggers=[print_epoch] if progress else ())
    return model_of(Path(out) / f"{name}.json")
