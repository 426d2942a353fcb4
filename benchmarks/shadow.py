"""How well shadows are found by geometry: on made-up scenes, and where people have drawn them.

    python benchmarks/shadow.py --data FOLDER   # some minutes; FOLDER holds s2_shadow_alberta/*.npz
    python benchmarks/shadow.py --data FOLDER --shadowless FILE  # one without shadows
    python benchmarks/shadow.py --quick         # two made-up scenes: shows that it works
    python benchmarks/shadow.py --table         # measures nothing: prints the result file

Made-up: 400 x 400 pixels of 30 m, clouds between 600 and 4000 m, lakes. The same with the sun 60 to 300
degrees aside is chance. Drawn: Sentinel-2 over one landscape in Alberta on six dates (Layton et al.).
Thresholds were chosen on these dates, so these figures are those of a training set.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from _measure import arguments, circumstances, save, table

sys.path.insert(0, str(Path(__file__).parents[1]))

import xcloudmask
from tests.tidy.simulated import rates, simulated

MODELS = ("ukis-4band-l2a", "sensei", "spectral")
BRIGHT = "blue above 0.15"
FLAGS = {"flag_values": [0, 1, 2, 3, 255], "flag_meanings": "clear cloud thin_cloud cloud_shadow no_data"}


def scene(pixels: Any, bands: list[str]) -> xr.DataArray:
    axes = {"y": -30.0 * np.arange(pixels.shape[-2]), "x": 30.0 * np.arange(pixels.shape[-1])}
    da = xr.DataArray(pixels.astype("f4"), dims=("band", "y", "x"), coords=axes)
    return da.cloudmask.describe(bands=bands, level="L2A")


def mask_of(codes: Any, da: xr.DataArray) -> xr.DataArray:
    return xr.DataArray(codes.astype("u1"), dims=("y", "x"), coords={k: da[k] for k in "yx"}, attrs=FLAGS)


def score(found: xr.DataArray, true: Any) -> dict[str, float]:
    precision, recall = rates(found.values == 3, true)
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(precision + recall, 1e-9),
    }


def made_up(count: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for seed in range(count):
        elevation, azimuth = rng.uniform(25, 60), rng.uniform(0, 360)
        codes, light, true = simulated(100 + seed, elevation=elevation, azimuth=azimuth)
        da = scene(light[None], ["nir"])
        mask, wrong = mask_of(codes, da), azimuth + rng.uniform(60, 300)
        yield {
            "sun": score(mask.cloudmask.cast_shadow(da, sun=(elevation, azimuth)), true),
            "chance": score(mask.cloudmask.cast_shadow(da, sun=(elevation, wrong)), true),
        }


def drawn(folder: Path, models: Sequence[Any] = MODELS) -> Iterator[dict[str, Any]]:
    for path in sorted((folder / "s2_shadow_alberta").glob("*.npz")):
        with np.load(path) as file:
            stored, true = file["image"], file["possible"] == 8
            names = ("sunZenithAngles", "sunAzimuthAngles", "viewZenithMean", "viewAzimuthMean")
            zenith, azimuth, view_zenith, view_azimuth = (float(file[name]) for name in names)
        da = scene(np.where(stored == 65535, np.nan, stored / 1e4), ["blue", "green", "red", "nir"])
        for model in models:
            if model == BRIGHT:
                mask = mask_of(da.values[0] > 0.15, da)
            else:
                mask = da.cloudmask.predict(model, nodata=0, saturation=0.4)
            sun, view = (90 - zenith, azimuth), (view_zenith, view_azimuth)
            has_shadow = "shadow" in mask.attrs["flag_meanings"] and model != BRIGHT
            row = {
                "date": path.stem,
                "model": getattr(model, "name", model),
                "shadow_share": float(true.mean()),
            }
            if has_shadow:
                row["model alone"] = score(mask, true)
            for own in ("replace", "match", "keep") if has_shadow else ("replace",):
                row[own] = score(mask.cloudmask.cast_shadow(da, sun=sun, view=view, own=own), true)
            row["no view"] = score(mask.cloudmask.cast_shadow(da, sun=sun), true)
            row["wrong sun"] = score(
                mask.cloudmask.cast_shadow(da, sun=(sun[0], sun[1] + 90), view=view), true
            )
            yield row


def mean(rows: list[dict[str, Any]], how: str, what: str) -> float | None:
    values = [row[how][what] for row in rows if how in row]
    return float(np.mean(values)) if values else None


def show(found: dict[str, Any]) -> str:
    head = ("", "precision", "recall", "F1")
    rows = [
        (how, *(mean(found["made_up"], how, what) for what in ("precision", "recall", "f1")))
        for how in ("sun", "chance")
    ]
    lines = [f"Made-up scenes: {len(found['made_up'])}, means", table(head, rows)]
    hows = ("model alone", "replace", "match", "keep", "no view", "wrong sun")
    for what in ("f1", "precision", "recall") if found["drawn"] else ():
        rows = []
        for model in dict.fromkeys(row["model"] for row in found["drawn"]):
            these = [row for row in found["drawn"] if row["model"] == model]
            rows.append((f"{model}, {len(these)} dates", *(mean(these, how, what) for how in hows)))
        lines += [f"\nDrawn shadows, mean {what} over dates", table(("", *hows), rows)]
    return "\n".join(lines)


def main() -> None:
    shadowless = {"metavar": "FILE"}
    given = arguments(__doc__, "data", "quick", "table", out="shadow.json", shadowless=shadowless)
    if given.shadowless:
        warnings.simplefilter("ignore")
        found = json.loads(given.out.read_text())
        model = replace(xcloudmask.models.load(given.shadowless), level=None)  # L2A, for want of others
        rest = [row for row in found["drawn"] if row["model"] != model.name]
        save(given.out, found | {"drawn": rest + list(drawn(given.data, [model]))})
    elif not given.table:
        warnings.simplefilter("ignore")
        save(given.out, {
            "circumstances": circumstances(), "made_up": list(made_up(2 if given.quick else 50)),
            "drawn": list(drawn(given.data, (BRIGHT, *MODELS))) if given.data else [],
        })  # fmt: skip
    print(show(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
