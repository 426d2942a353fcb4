"""Figures behind two defaults of the ukis networks: the filling of gaps, and the working pixel.

    python benchmarks/choices.py --data FOLDER
    python benchmarks/choices.py --table     # measures nothing: prints the result file as tables

FOLDER holds `val/SOURCE/*.npz` and, for scripts that read it as this one does, `train/SOURCE/*.npz` and
`unlabelled/SOURCE/*.npz`: `image` (uint16, reflectance x 10,000, 65535 for none), `bands`, and `possible`, a
bit mask of the classes a pixel may have. Scored is cloud or not, where those bits decide it. These are few
patches: they serve to choose, not to say how good the masks are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from _measure import circumstances, in_words, on_patches, save, table
from scipy import ndimage

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask import models
from xcloudmask.engine.pixels import fill_gaps
from xcloudmask.models.sources import ukis

#: Bits of `possible`.
CLOUD, SHADOW = 2 | 4, 8
SECTIONS = ("fill", "gsd")
#: Patches that may have trained the networks (dlr) are never scored with them.
SCORED = ("l8_biome", "l8_38cloud", "s2_oncloudn")
Pixels = npt.NDArray[np.float32]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Patch:
    source: str
    name: str
    model: str
    gsd: float
    pixels: Pixels  # (band, y, x), in the model's order, NaN for none
    cloud: npt.NDArray[np.bool_] | None = None
    decided: npt.NDArray[np.bool_] | None = None
    possible: Codes | None = None
    scene: str = ""


def read(path: Path, wanted_bits: int = CLOUD) -> Patch | None:
    """Read a patch for the network that fits it; None if none does."""
    with np.load(path, allow_pickle=False) as file:
        image, names = file["image"], [str(name) for name in file["bands"]]
        meta = json.loads(str(file["meta"]))
        possible = file.get("possible")
    names = ["nir" if name == "nir08" and "nir" not in names else name for name in names]
    level = "l2a" if "L2A" in meta["level"] else "l1c"
    for count in (6, 4):
        wanted = ukis.BANDS[:count]
        if set(wanted) <= set(names):
            break
    else:
        return None
    raw = image[[names.index(name) for name in wanted]]
    pixels = np.where(raw == 65535, np.float32(np.nan), raw.astype(np.float32) / 10_000)
    patch = Patch(
        path.parent.name, path.stem, f"ukis-{count}band-{level}", float(meta["gsd_m"]), pixels,
        possible=possible, scene=meta["scene"],
    )  # fmt: skip
    if possible is None:
        return patch
    cloud, not_cloud = (possible & wanted_bits) > 0, (possible & (15 - wanted_bits)) > 0
    return replace(patch, cloud=cloud, decided=(cloud != not_cloud) & np.isfinite(pixels).all(axis=0))


def patches(folder: Path, sources: tuple[str, ...], wanted_bits: int = CLOUD) -> Iterator[Patch]:
    for source in sources:
        for path in sorted((folder / source).glob("*.npz")):
            patch = read(path, wanted_bits)
            if patch is not None:
                yield patch


def mask(pixels: Pixels, model: str, gsd: float, **options: Any) -> Codes:
    return np.asarray(scene(pixels, model, gsd).cloudmask.predict(model, **options).values)


def scene(pixels: Pixels, model: str, gsd: float) -> xr.DataArray:
    _, height, width = pixels.shape
    coords = {"y": -gsd * np.arange(height), "x": gsd * np.arange(width)}
    plain = xr.DataArray(pixels, dims=("band", "y", "x"), coords=coords)
    return plain.cloudmask.describe(bands=list(models.get(model).bands), level=model[-3:])


class Score:
    """Counts of cloud or not, added up over patches."""

    def __init__(self) -> None:
        self.counts = np.zeros((2, 2), int)  # truth, answer

    def add(self, patch: Patch, codes: Codes, where: npt.NDArray[np.bool_] | None = None) -> None:
        assert patch.cloud is not None
        assert patch.decided is not None
        use = patch.decided & (codes != 255)
        use = use if where is None else use & where
        np.add.at(self.counts, (patch.cloud[use].astype(int), (codes[use] == 1).astype(int)), 1)

    def told(self) -> dict[str, float]:
        (right_clear, false_cloud), (missed, found) = self.counts
        total = self.counts.sum()
        share = lambda part, whole: float(part / whole) if whole else float("nan")  # noqa: E731
        return {
            "pixels": int(total), "accuracy": share(right_clear + found, total),
            "found": share(found, found + missed), "kept": share(right_clear, right_clear + false_cloud),
        }  # fmt: skip


def _mirrored(pixels: Pixels, valid: npt.NDArray[np.bool_]) -> Pixels:
    """Fill each invalid cell by the one as far behind the gap's edge as it is before it."""
    nearest = ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
    here = np.indices(valid.shape)
    size = np.array(valid.shape)[:, None, None]
    beyond = np.clip(2 * nearest - here, 0, size - 1)
    use = np.where(valid[tuple(beyond)], beyond, nearest)
    return np.where(valid, pixels, pixels[:, use[0], use[1]])


def _window_mean(pixels: Pixels, valid: npt.NDArray[np.bool_]) -> Pixels:
    """Fill with the mean of each band's valid pixels."""
    mean = pixels[:, valid].mean(axis=1)
    return np.where(valid, pixels, mean[:, None, None])


FILLS: dict[str, Callable[[Pixels, npt.NDArray[np.bool_]], Pixels]] = {
    "nearest valid (ours)": fill_gaps,
    "mean of the window's valid": _window_mean,
    "zero": lambda pixels, valid: np.where(valid, pixels, np.float32(0)),
    "mirrored at the edge": _mirrored,
}


def gaps(size: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Return masks of valid pixels: a swath's slanted edge, missing lines that widen, and a hole."""
    rows, cols = np.indices((size, size))
    stripes = (cols + rows // 4) % 64 >= 2 + rows // 24
    return {"swath edge": cols > 0.25 * size + 0.3 * rows, "stripes": stripes,
            "hole": (abs(rows - size / 2) > size / 5) | (abs(cols - size / 2) > size / 5)}  # fmt: skip


def fills(labelled: list[Patch]) -> list[dict[str, Any]]:
    """What a filling does to valid pixels: against the whole picture's mask, and accuracy near the gap."""
    out = []
    squares = [p for p in labelled if np.isfinite(p.pixels[:, :256, :256]).all() and p.gsd == 30]
    whole = {id(p): mask(p.pixels[:, :256, :256], p.model, p.gsd) for p in squares}
    for kind, valid in gaps(256).items():
        near = valid & (ndimage.distance_transform_edt(valid) <= 32)
        for name, fill in FILLS.items():
            score, same, same_near = Score(), [], []
            for patch in squares:
                filled = fill(np.where(valid, patch.pixels[:, :256, :256], np.float32(np.nan)), valid)
                codes = mask(filled.astype(np.float32), patch.model, patch.gsd)
                same.append((codes == whole[id(patch)])[valid].mean())
                same_near.append((codes == whole[id(patch)])[near].mean())
                cut = replace(
                    patch,
                    cloud=patch.cloud[:256, :256],
                    decided=patch.decided[:256, :256],  # type: ignore[index]
                )
                score.add(cut, codes, near)
            told = score.told()
            out.append({
                "gap": kind, "fill": name, "patches": len(squares), "pixels": told["pixels"],
                "same_as_whole": float(np.mean(same)), "same_within_32_px": float(np.mean(same_near)),
                "accuracy_within_32_px": told["accuracy"],
            })  # fmt: skip
    return out


def gsds(labelled: list[Patch]) -> list[dict[str, Any]]:
    """Accuracy by the pixel size a patch is brought to before the network, and its answer brought back."""
    out = []
    for kind in ("landsat 30 m", "sentinel-2 10 m"):
        chosen = [p for p in labelled if (p.gsd == 10) == kind.startswith("sentinel")]
        for gsd in (10, 20, 30, 40, 60):
            score = Score()
            for patch in chosen:
                if not np.isfinite(patch.pixels).all():
                    continue
                factor = patch.gsd / gsd
                scaled = _resize(patch.pixels, tuple(round(n * factor) for n in patch.pixels.shape[1:]))
                lazy = scene(scaled, patch.model, gsd)
                found = lazy.cloudmask.predict_proba(patch.model, working_resolution="native")
                back = _resize(found.values, patch.pixels.shape[1:])
                score.add(patch, np.array([0, 1, 3], np.uint8)[back.argmax(axis=0)])
            out.append({"data": kind, "gsd": gsd, "patches": len(chosen), **score.told()})
    return out


def _resize(values: Pixels, shape: tuple[int, ...]) -> Pixels:
    """Bilinear, after a mean over the larger pixel where pixels grow."""
    ratio = values.shape[1] / shape[0]
    if ratio > 1:
        values = ndimage.uniform_filter(values, (0, round(ratio), round(ratio)), mode="nearest")
    zoom = (1, shape[0] / values.shape[1], shape[1] / values.shape[2])
    out: Pixels = ndimage.zoom(values, zoom, order=1, mode="nearest", grid_mode=True).astype(np.float32)
    return out


def show(found: dict[str, Any]) -> str:
    def rows(section: str, plain: tuple[str, ...], shares: tuple[str, ...]) -> list[list[Any]]:
        return [
            [row[name] for name in plain] + [f"{100 * row[name]:.2f}" for name in shares]
            for row in found.get(section, [])
        ]

    told = []
    if "fill" in found:
        head = ["gap", "fill", "same %", "near %", "right near %"]
        told.append(
            f"Filling of gaps: {found['fill'][0]['patches']} patches of 256 x 256 with an artificial gap;\n"
            "the same class as without the gap, everywhere and within 32 px of it\n"
            + table(head, rows("fill", ("gap", "fill"),
                               ("same_as_whole", "same_within_32_px", "accuracy_within_32_px")))
        )  # fmt: skip
    if "gsd" in found:
        counts = {row["data"]: f"{row['patches']} patches, {row['pixels']:,} px" for row in found["gsd"]}
        told.append(
            "Working pixel: " + "; ".join(f"{name}: {count}" for name, count in counts.items()) + "\n"
            + table(["data", "m", "right %", "cloud %", "rest %"],
                    rows("gsd", ("data", "gsd"), ("accuracy", "found", "kept")))
        )  # fmt: skip
    for name, when in found["measured"].items():
        told.append(f"{name}: measured {when['date']} at commit {when['commit']}")
    return "\n\n".join(told)


def main() -> None:
    args = on_patches(
        __doc__, "choices.json",
        only={"nargs": "+", "choices": SECTIONS, "default": SECTIONS, "help": "keep the rest of OUT"},
    )  # fmt: skip
    if args.table:
        found = json.loads(args.out.read_text())
        print(in_words(found["circumstances"]) + "\n\n" + show(found))
        return
    labelled = list(patches(args.data / "val", SCORED))
    found = json.loads(args.out.read_text()) if args.out.exists() else {}
    found |= {
        "circumstances": circumstances(),
        "labelled": len(labelled),
        "labelled_by_source": {s: sum(p.source == s for p in labelled) for s in SCORED},
    }  # fmt: skip
    work = {
        "fill": lambda: fills(labelled),
        "gsd": lambda: gsds(labelled),
    }
    for name in args.only:
        found[name] = work[name]()
        found.setdefault("measured", {})[name] = {k: found["circumstances"][k] for k in ("date", "commit")}
    print(in_words(found["circumstances"]) + "\n\n" + show(found))
    save(args.out, found)


if __name__ == "__main__":
    main()
