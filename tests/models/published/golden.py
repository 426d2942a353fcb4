"""The reference answers of ../shared/published: its rules for weights and images, and where its files lie."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from math import prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

PUBLISHED = Path(__file__).parents[4] / "shared" / "published"

#: For modules: ``pytestmark = golden.needed``.
needed = pytest.mark.skipif(
    not PUBLISHED.is_dir(), reason="the reference answers (../shared/published) are not in a user's clone"
)


def numbers(name: str, shape: Sequence[int], prefix: str = "") -> np.ndarray:
    """Return what the rule of section 0 gives for the tensor `name`, in float64."""
    generator = np.random.default_rng(zlib.crc32((prefix + name).encode()))
    shape = tuple(shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return 0.5 + generator.random(shape)
    if name.endswith("running_mean"):
        return 0.1 * generator.standard_normal(shape)
    if len(shape) >= 2:
        return generator.standard_normal(shape) / sqrt(prod(shape[1:]))
    if name.endswith("weight"):
        return 1 + 0.1 * generator.standard_normal(shape)
    return 0.1 * generator.standard_normal(shape)


def weights(shapes: Mapping[str, Sequence[int]], prefix: str = "") -> dict[str, torch.Tensor]:
    """Return a state dict by the rule: float32 under the published names ("shapes" of ``golden.json``)."""
    values = {name: numbers(name, shape, prefix) for name, shape in shapes.items()}
    return {
        name: torch.tensor(value, dtype=torch.int64 if value.dtype == np.int64 else torch.float32)
        for name, value in values.items()
    }


def image(name: str, shape: Sequence[int]) -> np.ndarray:
    """Return the image of a case: bands x rows x columns, float32 in 0-1."""
    return np.random.default_rng(zlib.crc32(name.encode())).random(tuple(shape)).astype(np.float32)


def facts(folder: str, name: str = "golden.json") -> dict[str, Any]:
    """Return names, shapes and cases."""
    with open(PUBLISHED / folder / name, encoding="utf-8") as file:
        return dict(json.load(file))


def answers(folder: str, name: str = "golden.npz") -> dict[str, np.ndarray]:
    """Return the reference answers, as ``case/what``."""
    with np.load(PUBLISHED / folder / name) as file:
        return dict(file)
