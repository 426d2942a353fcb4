"""What may happen to an image on its way from the ground to the user, done to samples.

Each function takes a sample and a generator and returns a new sample; none touches what it was given, so a
cached patch stays as it was read. All randomness comes from the generator.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from xcloudmask.engine.tiling import reflect_indices
from xcloudmask.metrics.labels import BITS, CLOUD, certain
from xcloudmask.train.samples import AUX_KINDS, Image, Sample, coarse_labels

#: Bands of whole instruments, by common name, for subsets that exist in orbit.
INSTRUMENTS: dict[str, tuple[str, ...]] = {
    "rgb": ("blue", "green", "red"),
    "rgb-nir": ("blue", "green", "red", "nir"),
    "vgt": ("blue", "red", "nir", "swir16"),
    "hrv": ("green", "red", "nir"),
    "hrvir": ("green", "red", "nir", "swir16"),
    "six": ("blue", "green", "red", "nir", "swir16", "swir22"),
    "no-rgb": ("nir", "swir16", "swir22"),
}
#: Bands that serve for others.
SAME = {"nir": ("nir", "nir08")}


def places(sample: Sample, names: Iterable[str]) -> list[int] | None:
    """Return where the bands with these common names are, or None if one is lacking; nir may be nir08.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> one = Sample(np.zeros((1, 1, 1), "f4"), (Band("B5", "nir08"),), np.ones((1, 1), "u1"), 30.0)
    >>> places(one, ["nir"]), places(one, ["red"])
    ([0], None)
    """
    has = [band.common_name for band in sample.bands]
    out = []
    for wanted in names:
        there = [has.index(name) for name in SAME.get(wanted, (wanted,)) if name in has]
        if not there:
            return None
        out.append(there[0])
    return out


def among(sample: Sample, names: Iterable[str]) -> Sample:
    """Keep only bands with these common names, those that are there.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> bands = tuple(Band(n, n) for n in ("red", "cirrus"))
    >>> one = Sample(np.zeros((2, 1, 1), "f4"), bands, np.ones((1, 1), "u1"), 30.0)
    >>> [band.name for band in among(one, ["red", "nir"]).bands]
    ['red']
    """
    return sample.select([place for name in names for place in places(sample, [name]) or ()])


def count_of(sample: Sample, names: Iterable[str]) -> int:
    """Return how many of the bands with these common names a sample has."""
    return len(among(sample, names).bands)


def band_subset(sample: Sample, rng: np.random.Generator, *, least: int = 3, whole: float = 0.25) -> Sample:
    """Keep all bands (with probability `whole`), one instrument's, or a random few; in random order.

    The rest is halved between instruments and random subsets of `least` bands or more.
    """
    count = len(sample.bands)
    draw = rng.random()
    if draw < whole or count <= least:
        return sample.select(rng.permutation(count).tolist())
    choices = [p for p in (places(sample, names) for names in INSTRUMENTS.values()) if p and len(p) >= least]
    if draw < (1 + whole) / 2 and choices:
        return sample.select(rng.permutation(choices[rng.integers(len(choices))]).tolist())
    size = int(rng.integers(least, count + 1))
    kept = rng.permutation(count)[:size].tolist()
    if all(sample.bands[i].kind != "reflectance" for i in kept):
        return sample.select(rng.permutation(count).tolist())
    return sample.select(kept)


def flip_rotate(sample: Sample, rng: np.random.Generator) -> Sample:
    """Turn by a multiple of 90 degrees and mirror, one of eight ways."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))

    def move(plane: Any) -> Any:
        plane = np.rot90(plane, turns, axes=(-2, -1))
        return plane[..., ::-1] if mirrored else plane

    return sample.moved(move)


def crop(sample: Sample, rng: np.random.Generator, size: int) -> Sample:
    """Cut a square of `size` pixels at random; a smaller image is padded with no data."""
    height, width = sample.possible.shape
    y, x = int(rng.integers(max(height - size, 0) + 1)), int(rng.integers(max(width - size, 0) + 1))
    image, possible = sample.image[:, y : y + size, x : x + size], sample.possible[y : y + size, x : x + size]
    pad = ((0, size - possible.shape[0]), (0, size - possible.shape[1]))
    if any(after for _, after in pad):
        image = np.pad(image, ((0, 0), *pad), constant_values=np.nan)
        possible = np.pad(possible, pad)
    return replace(sample, image=image, possible=possible)


def mirrored(sample: Sample, size: int) -> Sample:
    """Return a square of `size` pixels, a smaller sample mirrored at its edges as often as needed.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> one = Sample(np.array([[[1, 2]]], "f4"), (Band("red"),), np.array([[1, 6]], "u1"), 300.0)
    >>> mirrored(one, 3).possible.tolist()
    [[1, 6, 1], [1, 6, 1], [1, 6, 1]]
    """
    y, x = np.ix_(*(reflect_indices(length, max(size, length))[:size] for length in sample.possible.shape))
    return sample.moved(lambda plane: plane[..., y, x])


def scale_of(sample: Sample) -> Image:
    """Return how large an error of each band is beside those of the others.

    In the cirrus band 0.005 is a cloud: its instruments are that good, and errors as large as elsewhere
    would bury it.
    """
    dark = [1340 < (band.center_nm or 0) < 1420 for band in sample.bands]
    return np.where(dark, 0.05, 1.0).astype(np.float32)


def noise(sample: Sample, rng: np.random.Generator, *, most: float = 0.006) -> Sample:
    """Add noise, independent in each pixel and band, of up to `most` reflectance and 2 % of the signal."""
    level, share = rng.uniform(0, most), rng.uniform(0, 0.02)
    shake = rng.standard_normal(sample.image.shape, np.float32)
    spread = np.float32(level) * scale_of(sample)[:, None, None] + np.float32(share) * np.abs(sample.image)
    shaken = (sample.image + shake * spread).astype(np.float32)
    return replace(sample, image=_only_reflectance(sample, shaken))


def salt_pepper(sample: Sample, rng: np.random.Generator, *, most: float = 0.01) -> Sample:
    """Turn up to `most` of the pixels of each band black (0) or white (1), as broken detectors do."""
    draw, share = rng.random(sample.image.shape, np.float32), np.float32(rng.uniform(0, most))
    spotted = np.where(draw < share / 2, np.float32(0), np.where(draw < share, np.float32(1), sample.image))
    spotted[np.isnan(sample.image)] = np.nan
    return replace(sample, image=_only_reflectance(sample, spotted))


def radiometry(
    sample: Sample, rng: np.random.Generator, *, gain: float = 0.08, offset: float = 0.006
) -> Sample:
    """Scale and shift reflectance: once for all bands (sun, calibration), and a little for each band."""
    count = len(sample.bands)
    scale = np.exp(rng.normal(0, gain / 2) + rng.normal(0, gain / 4, count)).astype(np.float32)
    shift = (rng.normal(0, offset / 2) + rng.normal(0, offset / 2, count)).astype(np.float32)
    changed = sample.image * scale[:, None, None] + (shift * scale_of(sample))[:, None, None]
    return replace(sample, image=_only_reflectance(sample, changed))


def air(sample: Sample, rng: np.random.Generator) -> Sample:
    """Take away (toward surface reflectance) or add light scattered by the air, strong in the blue."""
    amount = rng.uniform(-1.0, 0.4)
    nm = np.array([band.center_nm or np.inf for band in sample.bands])
    path = (0.11 * (450.0 / nm) ** 4 * amount).astype(np.float32)
    return replace(sample, image=_only_reflectance(sample, sample.image + path[:, None, None]))


def saturate(sample: Sample, rng: np.random.Generator) -> Sample:
    """Clip at a level, as the high gain of Landsat 7 does over clouds: visible bands lowest."""
    limits = []
    for band in sample.bands:
        nm = band.center_nm or 0
        lowest = 0.35 if nm < 700 else 0.6
        limits.append(rng.uniform(lowest, 1.0) if band.kind == "reflectance" else np.inf)
    return replace(sample, image=np.minimum(sample.image, np.array(limits, np.float32)[:, None, None]))


def coarsen(sample: Sample, factor: int) -> Sample:
    """Average to pixels `factor` times as large; rows and columns left over are cut off.

    A class stays possible where a third of the block's labelled pixels leave it open; a block that is half
    cloud, half clear is then open, and one that is all but clear is clear.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> labels = np.array([[1, 1], [1, 6]], "u1")
    >>> one = Sample(np.array([[[0, 0], [0, 1]]], "f4"), (Band("red"),), labels, 30.0)
    >>> half = coarsen(one, 2)
    >>> half.image.item(), half.possible.item(), half.gsd
    (0.25, 1, 60.0)
    """
    if factor <= 1:
        return sample
    rows, columns = (n // factor for n in sample.possible.shape)
    if rows == 0 or columns == 0:
        return sample
    cut = (slice(rows * factor), slice(columns * factor))
    blocks = sample.image[(slice(None), *cut)].reshape(-1, rows, factor, columns, factor)
    image = blocks.mean(axis=(2, 4), dtype=np.float64).astype(np.float32)
    labels = sample.possible[cut].reshape(rows, factor, columns, factor)
    possible = coarse_labels(labels, lambda where: where.sum(axis=(1, 3)), factor * factor)
    return replace(sample, image=image, possible=possible, gsd=sample.gsd * factor)


def gaps(sample: Sample, rng: np.random.Generator) -> Sample:
    """Punch gaps of no data: slanted stripes as of Landsat 7, or a half plane as at a swath's edge."""
    height, width = sample.possible.shape
    angle = rng.uniform(0, np.pi)
    along = np.arange(height)[:, None] * np.sin(angle) + np.arange(width)[None] * np.cos(angle)
    if rng.random() < 0.5:
        period = rng.uniform(12, 60)
        gone = (along + rng.uniform(0, period)) % period < period * rng.uniform(0.05, 0.35)
    else:
        gone = along > np.quantile(along, rng.uniform(0.5, 0.95))
    own = np.array([band.kind not in AUX_KINDS for band in sample.bands])  # not what others saw
    image = np.where(gone & own[:, None, None], np.float32(np.nan), sample.image)
    return replace(sample, image=image, possible=np.where(gone, np.uint8(0), sample.possible))


def mix_cloud(ground: Sample, cloud: Sample, rng: np.random.Generator) -> Sample:
    """Lay the clouds of one sample over the ground of another of the same size; bands both have are kept.

    So are the aux planes of the ground.

    Thick cloud hides the ground; cloud called thin, or of unspecified thickness, is let through in part where
    it is dark against the brightest cloud of its image.
    """
    mine, theirs = _shared_bands(ground, cloud)
    aux = [i for i, band in enumerate(ground.bands) if band.kind in AUX_KINDS]
    if len(mine) < 2 or ground.possible.shape != cloud.possible.shape:
        return ground
    below, above = ground.select(mine), cloud.select(theirs)
    is_cloud = certain(above.possible, CLOUD) & above.valid
    if not is_cloud.any():
        return ground
    light = above.image.mean(axis=0)  # NaN where a band is; no cloud is taken from there
    bright = max(float(np.quantile(light[is_cloud], 0.9)), 0.05)
    cover = np.clip(light / bright, 0, 1) if rng.random() < 0.5 else np.ones_like(light)
    cover = np.where(above.possible == BITS["thick_cloud"], 1, cover) * is_cloud
    cover = np.nan_to_num(cover).astype(np.float32)
    over = np.where(is_cloud, above.image, 0)
    mixed = below.image * (1 - cover) + over * cover
    return replace(
        ground.select([*mine, *aux]),
        image=np.concatenate([mixed, ground.image[aux]]),
        possible=np.where(is_cloud, above.possible, below.possible),
    )


def _shared_bands(one: Sample, other: Sample) -> tuple[list[int], list[int]]:
    """Return the positions of the bands that both have, in the order of the first, each with the nearest.

    Two bands are the same if their kinds are, and their centres lie within 25 nm (of thermal bands, 700).
    """
    mine: list[int] = []
    theirs: list[int] = []
    for i, band in enumerate(one.bands):
        if band.kind in AUX_KINDS:
            continue
        far = 25 if band.kind == "reflectance" else 700
        apart = {
            j: abs((band.center_nm or np.inf) - (twin.center_nm or -np.inf))
            for j, twin in enumerate(other.bands)
            if twin.kind == band.kind and j not in theirs
        }
        nearest = min(apart, key=lambda j: apart[j], default=None)
        if nearest is not None and apart[nearest] <= far:
            mine.append(i)
            theirs.append(nearest)
    return mine, theirs


def _only_reflectance(sample: Sample, changed: Image) -> Image:
    """Take the change in bands of reflectance alone."""
    keep = np.array([band.kind == "reflectance" for band in sample.bands])
    return np.where(keep[:, None, None], changed, sample.image).astype(np.float32)
