"""A small data set on disk, in the form that training reads, with a rule that can be learnt."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest

BANDS = ["blue", "green", "red", "nir08", "swir16", "swir22"]
CLEAR = np.array([0.09, 0.09, 0.08, 0.28, 0.2, 0.1])
CLOUD = np.array([0.5, 0.5, 0.5, 0.55, 0.4, 0.3])


def patch(seed: int, size: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Half cloud, half ground, with texture; the last column has no data."""
    rng = np.random.default_rng(seed)
    cloud = np.zeros((size, size), bool)
    cut = int(rng.integers(size // 4, 3 * size // 4))
    cloud[:, :cut] = True
    image = np.where(cloud, CLOUD[:, None, None], CLEAR[:, None, None])
    image = image * rng.uniform(0.7, 1.3, (1, size, size))
    stored = (image * 10_000).astype(np.uint16)
    stored[:, :, -1] = 65535
    return stored, np.where(cloud, 6, 9).astype(np.uint8)


def write_patch(path: Path, seed: int, *, scene: str | None = None, size: int = 48) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, possible = patch(seed, size)
    meta = {"sensor": "landsat-8", "level": "L1 TOA", "gsd_m": 30, "scene": scene or path.stem}
    np.savez(
        path, image=image, bands=BANDS, kinds=["reflectance"] * 6, possible=possible, meta=json.dumps(meta)
    )
    return path


def write_table(path: Path, seed: int, rows: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = ["image_col,blue,red,nir,swir1,label,cloud_scene_percent"]
    for i in range(rows):
        cloud = int(rng.integers(2))
        values = (CLOUD if cloud else CLEAR)[[0, 2, 3, 4]] * rng.uniform(0.7, 1.3)
        lines.append(",".join(map(str, [i, *values.round(5), float(cloud), (i % 12) / 10])))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def quiet(one_thread: None) -> None:
    """Every test here trains or infers something small, for a few steps: what is said of that is expected."""
    for message in (".* was trained for .* steps only", "the threshold chosen, .* is extreme"):
        warnings.filterwarnings("ignore", message)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with train/ and val/."""
    root = tmp_path / "data"
    for number in range(4):
        write_patch(root / "train" / "l8" / f"t{number}.npz", number)
    write_table(root / "train" / "pixels" / "landsat8.csv", 7)
    write_patch(root / "val" / "l8" / "v0.npz", 90)
    write_table(root / "val" / "pixels" / "landsat8.csv", 91)
    return root
