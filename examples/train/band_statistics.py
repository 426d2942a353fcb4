"""Means and covariances of top-of-atmosphere reflectance, by which bands that an array lacks are estimated.

    python examples/train/band_statistics.py --data DATA

Writes ``xcloudmask/models/data/bands.json``. Counted are the patches of ``train`` and ``unlabelled``
that have all the bands, so many pixels of each, and the tables of labelled pixels, whose labels play no part;
as a whole, patches and tables weigh the same. Nothing held out is read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.fetch import digest
from xcloudmask.train.augment import places
from xcloudmask.train.files import Entry, check_no_leak, find

BANDS = ("blue", "green", "red", "nir", "swir16", "swir22")
OUT = Path(fetch.__file__).parent / "weights" / "bands.json"
PIXELS_A_PATCH = 3000


def pixels_of(entries: list[Entry]) -> Iterator[NDArray[np.float64]]:
    """Yield (pixel, band) of each sample that has all bands at the top of the atmosphere."""
    draw = np.random.default_rng(0)
    for entry in entries:
        sample = entry.read()
        at = places(sample, BANDS)
        if at is None or sample.level != "toa":
            continue
        image = sample.image[list(at)].reshape(len(BANDS), -1).T.astype(np.float64)
        image = image[np.isfinite(image).all(axis=1) & (image > -0.05).all(axis=1) & (image < 2).all(axis=1)]
        if sample.spatial:
            image = draw.choice(image, min(PIXELS_A_PATCH, len(image)), replace=False)
        yield image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="the folder with train/ and unlabelled/")
    told = parser.parse_args()
    entries = [*find(told.data / "train"), *find(told.data / "unlabelled")]
    check_no_leak(entries, find(told.data / "val"))
    kinds = [[e for e in entries if (e.path.suffix == ".npz") == spatial] for spatial in (True, False)]
    groups = [list(pixels_of(kind)) for kind in kinds]
    whole = [np.concatenate(group) for group in groups]
    mean = sum(pixels.mean(axis=0) for pixels in whole) / len(whole)
    covariance = sum((pixels - mean).T @ (pixels - mean) / len(pixels) for pixels in whole) / len(whole)
    OUT.write_text(
        json.dumps(
            {
                "bands": BANDS,
                "level": "toa",
                "of": {
                    "patches": len(groups[0]),
                    "of each": PIXELS_A_PATCH,
                    "labelled pixels": len(whole[1]),
                },
                "mean": np.round(mean, 6).tolist(),
                "covariance": np.round(covariance, 8).tolist(),
            },
            indent=1,
        )
        + "\n"
    )
    print(f"SHA-256, which belongs into xcloudmask/models/imputation.py: {digest(OUT.read_bytes())}")
    print(f"{OUT.name}: {len(groups[0])} patches, {len(whole[1])} labelled pixels")


if __name__ == "__main__":
    main()
