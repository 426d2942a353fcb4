"""What many dates say of masks: does smoothness rank masks as their errors do, what do the time rules change,
does the test of continuity raise false alarms, and what can it see?

    python benchmarks/dates.py                 # minutes; simulated series
    python benchmarks/dates.py --data FOLDER   # and the dates of train/s2_shadow_alberta, with real models
    python benchmarks/dates.py --quick         # small: shows that it works
    python benchmarks/dates.py --table         # measures nothing: prints the result file

The simulated site has crops, soil, water, and bright sand and roofs, of which crops change with the season, fields
are ploughed, soil dries and wets; clouds of all thicknesses with shadows pass over it. Where a tenth of the
light or more comes from cloud is cloud. What is measured on it says how the rules work, not how they do elsewhere.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _measure import RESULTS, circumstances, in_words, save, table

import xcloudmask  # noqa: F401

BANDS = ["blue", "green", "red", "nir"]
CLEAR, CLOUD, SHADOW = 0, 1, 3
FLAGS = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
#: Reflectance of crops (bare and full), soil, water, sand and roofs.
COVER = np.array(
    [[0.05, 0.07, 0.07, 0.20], [0.10, 0.14, 0.18, 0.25], [0.05, 0.04, 0.03, 0.02], [0.28, 0.32, 0.36, 0.42]]
)
GREEN = np.array([-0.015, 0.0, -0.03, 0.25])


def field(rng: np.random.Generator, side: int, scale: float) -> np.ndarray:
    """A smooth random field with mean 0 and deviation 1."""
    from scipy.ndimage import gaussian_filter

    made = gaussian_filter(rng.standard_normal((side, side)), scale, mode="wrap")
    return (made - made.mean()) / made.std()


def simulate(seed: int, dates: int = 24, side: int = 96, cloudy: float = 0.45) -> dict[str, Any]:
    """A scene (time, band, y, x), the true classes, and where the ground is bright."""
    rng = np.random.default_rng(seed)
    time = np.datetime64("2025-01-03", "ns") + np.sort(rng.choice(73, dates, replace=False)) * np.timedelta64(
        5, "D"
    )
    doy = (time - np.datetime64("2025-01-01")) / np.timedelta64(1, "D")
    kind = np.digitize(field(rng, side, 6), [-0.3, 0.6])  # crops, soil, water
    bright = field(rng, side, 1.5) > 1.7
    kind[bright] = 3
    texture = 1 + 0.1 * field(rng, side, 1)
    ploughed = (field(rng, side, 5) > 1.4) & (kind == 0)
    when = rng.integers(dates // 3, 2 * dates // 3)
    scene = np.empty((dates, 4, side, side), np.float32)
    truth = np.zeros((dates, side, side), np.uint8)
    for t in range(dates):
        ground = COVER[kind].transpose(2, 0, 1) * texture
        season = max(0.0, np.sin((doy[t] - 80) / 365 * 2 * np.pi)) + 0.1
        ground += np.where(kind == 0, season, 0) * GREEN[:, None, None]
        if t >= when:
            ground = np.where(ploughed, COVER[1][:, None, None] * texture, ground)
        wet = 1 - 0.25 * rng.random() * (kind == 1)  # of one date
        ground = ground * wet * (1 + 0.03 * rng.standard_normal())
        level = rng.beta(1, 1 / cloudy - 0.5)
        thick = field(rng, side, rng.choice([4, 8, 16])) + 0.3 * field(rng, side, 2)
        alpha = np.clip((thick - np.quantile(thick, 1 - level)) * rng.uniform(0.3, 1.5), 0, 1)
        shade = np.roll(alpha, (rng.integers(3, 9), rng.integers(-5, 6)), (0, 1))
        top = rng.uniform(0.5, 0.8) * np.array([1, 0.97, 0.96, 0.98])[:, None, None]
        pixels = ground * (1 - 0.55 * shade * (shade >= 0.1)) * (1 - alpha) + top * alpha
        truth[t][shade >= 0.1] = SHADOW
        truth[t][alpha >= 0.1] = CLOUD
        scene[t] = pixels + 0.004 * rng.standard_normal(pixels.shape)
    axes = {"time": time, "y": -10.0 * np.arange(side), "x": 10.0 * np.arange(side)}
    da = xr.DataArray(scene, dims=("time", "band", "y", "x"), coords=axes)
    return {
        "scene": da.cloudmask.describe(bands=BANDS, level="L2A"),
        "truth": xr.DataArray(truth, dims=("time", "y", "x"), coords=axes, attrs=FLAGS),
        "bright": bright, "ploughed": ploughed,
    }  # fmt: skip


def answers(site: dict[str, Any], seed: int, many: int) -> dict[str, xr.DataArray]:
    """Masks with known errors: clouds missed, lost ground, too narrow or wide, by object and by brightness."""
    from scipy.ndimage import binary_dilation, binary_erosion

    rng, out = np.random.default_rng(seed), {}
    truth, blue = site["truth"].values, site["scene"].sel(band="blue").values
    for number in range(many):
        made = truth.copy()
        how = number % 4
        for t in range(len(truth)):
            cloud, shadow = truth[t] == CLOUD, truth[t] == SHADOW
            if how == 0:  # a threshold of brightness
                cloud = blue[t] > (level := 0.08 + 0.4 * ((number // 4) / max(1, many // 4 - 1)) ** 1.5)
                shadow = shadow & (level < 0.3)
            elif how == 1:  # too wide or too narrow
                by = number // 4 - many // 8
                cloud = binary_dilation(cloud, iterations=by) if by > 0 else (
                    binary_erosion(cloud, iterations=-by) if by < 0 else cloud)  # fmt: skip
            elif how == 2:  # whole areas missed
                cloud = cloud & ~(field(rng, len(cloud), 5) > 2.5 - 3 * number / many)
                shadow = shadow & (rng.random() > number / many)
            else:  # whole areas lost
                cloud = cloud | (field(rng, len(cloud), 5) > 2.5 - 3 * number / many)
            made[t] = np.where(cloud, CLOUD, np.where(shadow, SHADOW, CLEAR))
        out[f"{('threshold', 'width', 'missed', 'lost')[how]}-{number // 4}"] = site["truth"].copy(data=made)
    return out


def true_error(mask: xr.DataArray, truth: xr.DataArray) -> tuple[float, float, float]:
    """Shares of views: wrong, clear though it is not, masked though it is clear."""
    masked, cloud = mask.values != CLEAR, truth.values != CLEAR
    return float((masked != cloud).mean()), float((~masked & cloud).mean()), float((masked & ~cloud).mean())


def ranks(seeds: int, many: int, side: int, dates: int) -> dict[str, Any]:
    """Rank correlations of what smoothness says with the true errors, over masks of a site; pairs of masks."""
    from scipy.stats import spearmanr

    from xcloudmask.metrics import smoothness

    rows, picks, pairs, right = [], [], 0, 0
    for seed in range(seeds):
        site = simulate(seed, dates, side, cloudy=(0.3, 0.45, 0.6)[seed % 3])
        masks = answers(site, seed, many)
        found = smoothness(site["scene"], masks)
        wrong, missed, lost = np.array([true_error(m, site["truth"]) for m in masks.values()]).T
        rows.append({
            "error": spearmanr(found.error, wrong)[0], "noise": spearmanr(found.noise, wrong)[0],
            "noise_with_missed": spearmanr(found.noise, missed)[0],
        })  # fmt: skip
        names = list(masks)
        picks.append({
            "by_error": wrong[int(found.error.values.argmin())], "by_noise": wrong[int(found.noise.values.argmin())],
            "best": wrong.min(), "median": float(np.median(wrong)),
        })  # fmt: skip
        for k in range(many // 2):  # as a user asks: two masks alone
            one, other = names[k], names[-1 - k]
            if abs(wrong[k] - wrong[-1 - k]) < 0.01:
                continue
            two = smoothness(site["scene"], {one: masks[one], other: masks[other]})
            pairs += 1
            right += bool((two.error[0] < two.error[1]) == (wrong[k] < wrong[-1 - k]))
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    worst = {key: float(np.min([row[key] for row in rows])) for key in rows[0]}
    return {
        "sites": seeds, "masks": many, "dates": dates, "side": side, "mean": mean, "worst": worst,
        "pairs": pairs, "pairs_right": right,
        "chosen": {key: float(np.mean([pick[key] for pick in picks])) for key in picks[0]},
    }  # fmt: skip


def alberta(data: Path) -> xr.DataArray:
    """Six dates of one site in summer 2020, Sentinel-2 L2A at 30 m; the visible bands end at 0.4."""
    files = sorted((data / "train" / "s2_shadow_alberta").glob("*.npz"))
    patches = [np.load(file) for file in files]
    pixels = np.stack([p["image"] for p in patches]).astype(np.float32)
    pixels[pixels == 65535] = np.nan
    side = pixels.shape[-2:]
    da = xr.DataArray(pixels / 1e4, dims=("time", "band", "y", "x"), coords={
        "time": np.array([file.stem for file in files], "M8[ns]"),
        "y": -30.0 * np.arange(side[0]), "x": 30.0 * np.arange(side[1])})  # fmt: skip
    return da.cloudmask.describe(bands=patches[0]["bands"].tolist(), level="L2A")
