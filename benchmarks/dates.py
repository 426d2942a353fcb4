"""What many dates say of masks: does smoothness rank masks as their errors do, what do the time rules change,
does the test of continuity raise false alarms, and what can it see?

    python benchmarks/dates.py                 # minutes; simulated series
    python benchmarks/dates.py --data FOLDER   # and the dates of train/s2_shadow_alberta, with real models
    python benchmarks/dates.py --quick         # small: shows that it works
    python benchmarks/dates.py --table         # measures nothing: prints the result file

The simulated site has crops that change with the season, soil that dries and wets, ploughed fields,
water, bright sand and roofs; clouds of all thicknesses with shadows pass over it. It is cloud where a tenth
of the light or more comes from cloud. What is measured there says how the rules work, not how well they do
elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _measure import RESULTS, arguments, circumstances, in_words, save, table

import xcloudmask

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
    """Masks with known errors: by brightness, too wide or narrow, areas missed or lost; one is true."""
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
    """How what smoothness says of masks of a site is ordered beside their true errors; and of pairs."""
    from scipy.stats import spearmanr

    from xcloudmask.metrics import smoothness

    rows, picks, pairs, right = [], [], 0, 0
    for seed in range(seeds):
        site = simulate(seed, dates, side, cloudy=(0.3, 0.45, 0.6)[seed % 3])
        masks = answers(site, seed, many)
        found = smoothness(site["scene"], masks)
        wrong, missed, _ = np.array([true_error(m, site["truth"]) for m in masks.values()]).T
        rows.append({
            "error": spearmanr(found.error, wrong)[0], "noise": spearmanr(found.noise, wrong)[0],
            "noise_with_missed": spearmanr(found.noise, missed)[0],
        })  # fmt: skip
        names = list(masks)
        picks.append({
            "by_error": wrong[int(found.error.values.argmin())],
            "by_noise": wrong[int(found.noise.values.argmin())],
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


def naive(site: dict[str, Any], level: float = 0.2) -> xr.DataArray:
    """A mask by a threshold of blue, which bright ground exceeds on every date and thin cloud does not."""
    cloud, truth = site["scene"].sel(band="blue").values > level, site["truth"]
    return truth.copy(data=np.where(cloud, CLOUD, np.where(truth == SHADOW, SHADOW, CLEAR)).astype(np.uint8))


def rules(dates: int, cloudy: float, seeds: int, side: int) -> dict[str, Any]:
    """What the time rules change in a mask that takes bright ground for cloud and misses thin cloud."""
    counts: dict[str, list[tuple[int, int]]] = {}
    for seed in range(seeds):
        site = simulate(100 + seed, dates, side, cloudy)
        mask = naive(site)
        revised = site["scene"].cloudmask.time_rules(mask)
        old, new, truth = mask.values, revised.cloud_mask.values, site["truth"].values
        ground = np.broadcast_to(site["bright"], truth.shape)
        bright = revised.persistent_bright.values
        for name, hits, among in (
            ("cloudy", truth == CLOUD, truth < 255),
            ("bright_found", bright, site["bright"]), ("bright_right", site["bright"], bright),
            ("ground_called_cloud_before", old == CLOUD, ground & (truth != CLOUD)),
            ("ground_called_cloud_after", new == CLOUD, ground & (truth != CLOUD)),
            ("cloud_over_bright_before", old == CLOUD, ground & (truth == CLOUD)),
            ("cloud_over_bright_after", new == CLOUD, ground & (truth == CLOUD)),
            ("missed_found", new == CLOUD, (old == CLEAR) & (truth == CLOUD)),
            ("to_cloud_right", truth == CLOUD, (old == CLEAR) & (new == CLOUD)),
            ("wrong_before", old != truth, truth < 255), ("wrong_after", new != truth, truth < 255),
        ):  # fmt: skip
            counts.setdefault(name, []).append((int((hits & among).sum()), int(among.sum())))
    shares = {name: float(np.divide(*np.sum(pairs, axis=0))) for name, pairs in counts.items()}
    return {"dates": dates, "sites": seeds, "side": side, **shares}


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


def at_alberta(data: Path, models: tuple[str, ...]) -> dict[str, Any]:
    """Two models ranked on real dates, of which only shadow is labelled; and what the time rules change."""
    from xcloudmask.metrics import smoothness

    da = alberta(data)
    files = sorted((data / "train" / "s2_shadow_alberta").glob("*.npz"))
    shadow = np.stack([np.load(file)["possible"] for file in files]) == 8
    masks = {name: da.cloudmask.predict(name, saturation=0.4) for name in models}
    found = smoothness(da, masks)
    out: dict[str, Any] = {"fits": float(found.fits), "views": int(found.views[0])}
    for name, mask in masks.items():
        said = mask.values == SHADOW
        both = (said & shadow).sum()
        revised = da.cloudmask.time_rules(mask)
        out[name] = {
            **{key: float(found[key].sel(mask=name)) for key in ("noise", "error", "missed", "lost")},
            "shadow_recall": float(both / shadow.sum()), "shadow_precision": float(both / said.sum()),
            "clear_that_is_shadow": float(shadow[mask.values == CLEAR].mean()),
            "pixels": int(mask.size), "rules_to_clear": int(revised.changed.sel(rule="persistent").sum()),
            "rules_to_cloud": int(revised.changed.sel(rule="missed").sum()),
        }  # fmt: skip
    return out


def record(rng: np.random.Generator, regions: int = 5, slow: float = 0.0) -> xr.DataArray:
    """Cloud fraction every ten days, April 1998 to July 2020: seasons, weather, and a slow cycle if asked."""
    days = np.arange("1998-04-05", "2020-07-01", 10, dtype="M8[D]")
    year = (days - np.datetime64("1998-01-01")) / np.timedelta64(1, "D") / 365.25
    out = np.empty((regions, len(days)))
    for region in range(regions):
        season = rng.uniform(0.3, 0.7) + rng.uniform(0, 0.2) * np.sin(2 * np.pi * (year + rng.random()))
        noise, weather = rng.standard_normal(len(days)), np.empty(len(days))
        weather[0] = noise[0]
        for t in range(1, len(days)):
            weather[t] = 0.5 * weather[t - 1] + np.sqrt(0.75) * noise[t]
        cycle = slow * np.sin(2 * np.pi * (year / rng.uniform(3, 6) + rng.random()))
        out[region] = np.clip(season + 0.1 * weather + cycle, 0, 1)
    coords = {"time": days.astype("M8[ns]"), "area": [f"region {k + 1}" for k in range(regions)]}
    return xr.DataArray(out, dims=("area", "time"), coords=coords)


BREAKS = {"VGT1 to VGT2": "2003-02-01", "VGT2 to Proba-V": "2014-01-01"}


def alarms(many: int, seed: int = 0, slow: float = 0.0) -> dict[str, Any]:
    """Of records without a step: how many tests have p <= 0.05, and how many records any step."""
    rng, low, tests, records = np.random.default_rng(seed), np.zeros(2), np.zeros(2), 0
    for _ in range(many):
        found = xcloudmask.continuity(record(rng, slow=slow), BREAKS).tests
        year, months = found.p.sel(month=0), found.p.sel(month=slice(1, None))
        low += [int((p <= 0.05).sum()) for p in (months, year)]
        tests += [int(p.size) for p in (months, year)]
        records += bool(found.step.any())
    return {
        "records": many, "slow": slow, "tests": int(tests.sum()), "p_low_months": low[0] / tests[0],
        "p_low_year": low[1] / tests[1], "records_with_a_step": records / many,
    }  # fmt: skip


def power(many: int, size: float, seed: int = 1) -> dict[str, Any]:
    """Of records whose first two regions change at the first break: how many tests see it, and false ones."""
    rng = np.random.default_rng(seed)
    month, year, region, false, steps, shift = [], [], [], 0, 0, []
    for _ in range(many):
        series = record(rng)
        there = (series.time >= np.datetime64("2003-02-01")) & series.area.isin(series.area[:2])
        found = xcloudmask.continuity((series + size * there).clip(0, 1), BREAKS).tests
        planted = found.isel({"break": 0, "area": slice(2)})
        month.append(float(planted.step.sel(month=slice(1, None)).mean()))
        year.append(float(planted.step.sel(month=0).mean()))
        region.append(float(planted.step.any("month").mean()))
        shift.append(float(planted["shift"].sel(month=0).mean()))
        steps += int(found.step.sum())
        false += int(found.step.sum() - planted.step.sum())
    return {
        "size": size, "records": many, "months_seen": float(np.mean(month)),
        "years_seen": float(np.mean(year)), "regions_seen": float(np.mean(region)),
        "shift": float(np.mean(shift)), "false_steps": false / max(1, steps),
    }  # fmt: skip


def pictures(folder: Path) -> None:
    """Draw the pictures of docs/time.md."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    site = simulate(4, 16, 128, 0.3)
    scene, mask = site["scene"], naive(site)
    revised = scene.cloudmask.time_rules(mask)
    made = scene.cloudmask.composite(revised.cloud_mask, "medoid")
    date = int((mask == CLOUD).mean(("y", "x")).argsort()[9])
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")

    def draw(axis: Any, pixels: xr.DataArray, title: str) -> None:
        rgb = pixels.transpose("y", "x", "band").values[..., [2, 1, 0]]
        axis.set_facecolor("#D9D9D9")
        opaque = np.isfinite(rgb).all(axis=-1, keepdims=True)
        shades = np.nan_to_num(np.clip(rgb / 0.45, 0, 1)) ** 0.7
        axis.imshow(np.concatenate([shades, opaque], axis=-1))
        axis.set_title(title, fontsize=10, loc="left")
        axis.set(xticks=[], yticks=[])

    draw(axes[0], scene[date], "one date of 16")
    draw(axes[1], scene[date], "its mask: blue above 0.2")
    draw(axes[2], scene[date], "after time_rules")
    for axis, codes in ((axes[1], mask), (axes[2], revised.cloud_mask)):
        shown = np.zeros((*codes.shape[1:], 4))
        shown[codes[date].values == CLOUD] = (*mpl.colors.to_rgb("#E69F00"), 0.75)
        shown[codes[date].values == SHADOW] = (*mpl.colors.to_rgb("#CC79A7"), 0.75)
        axis.imshow(shown)
    draw(axes[3], made.isel(time=0), "medoid of all dates")
    figure.savefig(folder / "time.png", dpi=80)
    rng = np.random.default_rng(3)
    series = record(rng)
    late = (series.time >= np.datetime64("2003-02-01")) & series.area.isin(series.area[:2])
    found = xcloudmask.continuity((series + 0.1 * late).clip(0, 1), BREAKS)
    found.plot().savefig(folder / "continuity.png", dpi=75)
    for name in ("time.png", "continuity.png"):
        Image.open(folder / name).convert("RGB").quantize(128).save(folder / name, optimize=True)


def show(found: dict[str, Any]) -> str:
    one, lines = found["ranks"], [in_words(found["circumstances"])]
    lines += [
        f"\nSmoothness: {one['sites']} simulated sites, {one['masks']} masks each, {one['dates']} dates",
        table(("rank correlation", "mean", "worst"), [
            ("error said, true error", one["mean"]["error"], one["worst"]["error"]),
            ("noise, true error", one["mean"]["noise"], one["worst"]["noise"]),
            ("noise, cloud missed", one["mean"]["noise_with_missed"], one["worst"]["noise_with_missed"]),
        ]),
        f"of two masks alone, the better is said to be in {one['pairs_right']} of {one['pairs']} pairs",
        "wrong in the mask chosen: " + ", ".join(f"{k} {v:.3f}" for k, v in one["chosen"].items()),
    ]  # fmt: skip
    keys = [key for key in found["rules"][0] if key not in ("dates", "sites", "side")]
    head = ("dates", *(str(run["dates"]) for run in found["rules"]))
    lines += [
        "\nTime rules: shares, simulated sites",
        table(head, [(key, *(run[key] for run in found["rules"])) for key in keys]),
        "\nContinuity: records without a step, VGT1, VGT2, Proba-V, five regions",
        table(("records", "slow cycle", "p <= 0.05, months", "years", "any step"), [
            (str(run["records"]),
             *(run[k] for k in ("slow", "p_low_months", "p_low_year", "records_with_a_step")))
            for run in found["alarms"]
        ]),
        "\nContinuity: a step in two regions at the first break",
        table(("step", "months seen", "years seen", "regions", "false steps"), [
            (f"{run['size']:.2f}",
             *(run[k] for k in ("months_seen", "years_seen", "regions_seen", "false_steps")))
            for run in found["power"]
        ]),
    ]  # fmt: skip
    if "alberta" in found:
        models = {name: run for name, run in found["alberta"].items() if isinstance(run, dict)}
        rows = [(key, *(run[key] for run in models.values())) for key in next(iter(models.values()))]
        lines += ["\nAlberta, six dates: real models", table(("", *models), rows)]
    return "\n".join(lines)


def main() -> None:
    given = arguments(
        __doc__, "quick", "table", "data", "out",
        pictures={"type": Path, "help": "folder: draw those of docs/time.md, measure nothing"},
    )  # fmt: skip
    few, out = given.quick, given.out or RESULTS / "dates.json"
    if given.pictures:
        pictures(given.pictures)
        return
    if given.table:
        print(show(json.loads(out.read_text())))
        return
    found: dict[str, Any] = {"circumstances": circumstances()}
    found["ranks"] = ranks(1, 8, 32, 12) if few else ranks(9, 40, 96, 24)
    found["rules"] = [
        rules(n, 0.3, 1 if few else 5, 32 if few else 96) for n in ((12,) if few else (6, 12, 24, 48))
    ]
    found["alarms"] = [alarms(2 if few else 1000), alarms(2 if few else 200, slow=0.05)]
    sizes = (0.1,) if few else (0.02, 0.04, 0.06, 0.1, 0.15)
    found["power"] = [power(2 if few else 200, size) for size in sizes]
    if given.data:
        found["alberta"] = at_alberta(given.data, ("ukis-any-l2a", "spectral"))
    if given.out or not few:
        save(out, found)
    print(show(found))


if __name__ == "__main__":
    main()
