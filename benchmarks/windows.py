"""Which windows suit the ukis networks: agreement, accuracy, seams and cost, by side and by overlap.

    python benchmarks/windows.py --data FOLDER
    python benchmarks/windows.py --table     # measures nothing: prints the result file as tables

FOLDER as for `choices.py`. Labelled patches are smaller than large windows, so they are put together: mosaics
of different patches of one source, and each patch beside its mirror images. Squeeze-and-excitation averages
over the whole window: in a mosaic over scenes that have nothing to do with each other, which is the worst
case, beside mirror images over the same scene. The intervals are those of a bootstrap over patches. What the
others of a section are compared with is its first side, or overlap.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from _cases import described, image
from _measure import Spent, circumstances, clocked, in_words, load_average, median, on_patches, save, table
from choices import SHADOW, Patch, Pixels, patches, scene

from xcloudmask import models
from xcloudmask.engine.classify import decide_classes
from xcloudmask.engine.tiling import AxisPlan
from xcloudmask.models.sources import ukis

SIDES = (256, 384, 512, 768, 1024)
OVERLAP = 48
#: Windows of 256, by what they share with the next.
OVERLAPS = {f"256, overlap {overlap}": (256, overlap) for overlap in (48, 32, 16, 0, 64)}
#: Channels of the networks.
CHANNELS = {"cloud": 1, "shadow": 2}
Counts = npt.NDArray[np.int64]
Window = tuple[int, int]  # side, overlap


@dataclass
class Tally:
    """What one model says with windows of one side, patch by patch."""

    counts: dict[str, Counts] = field(default_factory=dict)  # (truth, answer)
    same: int = 0
    pixels: int = 0
    across: list[float] = field(default_factory=list)  # steps of probability at the borders of windows
    anywhere: list[float] = field(default_factory=list)

    def told(self, first: Tally) -> dict[str, Any]:
        """Figures of this side, and how they differ from those of the first."""
        out: dict[str, Any] = {"agreement": self.same / self.pixels, "pixels": self.pixels}
        if self.across:
            out["step_at_borders"] = float(np.mean(self.across))
            out["step_anywhere"] = float(np.mean(self.anywhere))
        if not self.counts:
            return out
        names = sorted(self.counts)
        mine, theirs = (np.stack([each.counts[name] for name in names]) for each in (self, first))
        random = np.random.default_rng(0)
        for name, score in (("balanced_accuracy", balanced), ("f1", f1)):
            out[name] = score(mine.sum(0))
            drawn = (random.integers(0, len(names), len(names)) for _ in range(2000))
            change = [score(mine[d].sum(0)) - score(theirs[d].sum(0)) for d in drawn]
            out[f"{name}_change"] = out[name] - score(theirs.sum(0))
            out[f"{name}_change_95"] = np.nanpercentile(change, (2.5, 97.5)).tolist()
        return out | {"patches": len(names)}


def balanced(counts: Counts) -> float:
    (kept, false), (missed, found) = counts
    return float((kept / max(kept + false, 1) + found / max(found + missed, 1)) / 2)


def f1(counts: Counts) -> float:
    (_, false), (missed, found) = counts
    return float(2 * found / max(2 * found + missed + false, 1))


@dataclass(frozen=True)
class Picture:
    """Pixels to be masked, and the patches in them: how each was turned, and where it begins."""

    pixels: Pixels
    parts: tuple[tuple[Patch, int, int], ...]


def mosaics(found: Sequence[Patch], across: int, rounds: int) -> Iterator[Picture]:
    """Put patches of one size together at random, each equally often as far as that goes."""
    random = np.random.default_rng(1)
    size, count = found[0].pixels.shape[-1], across**2
    queue: list[int] = []
    for _ in range(max(1, rounds * len(found) // count)):
        while len(queue) < count:
            queue += random.permutation(len(found)).tolist()
        chosen, queue = queue[:count], queue[count:]
        pixels = np.empty((len(found[0].pixels), across * size, across * size), np.float32)
        parts = []
        for place, index in enumerate(chosen):
            row, col = (each * size for each in divmod(place, across))
            pixels[:, row : row + size, col : col + size] = found[index].pixels
            parts.append((found[index], row, col))
        yield Picture(pixels, tuple(parts))


def mirrored(found: Sequence[Patch], side: int | None = None) -> Iterator[Picture]:
    """Put each patch beside and above its mirror images, of which `side` leaves a part out.

    Windows share more than their overlap unless a side is a whole number of steps: with 480 and 704, windows
    of 256 share 32 pixels if they may, else 144 and 107.
    """
    for patch in found:
        wide = np.concatenate([patch.pixels, patch.pixels[:, :, ::-1]], axis=2)
        whole = np.concatenate([wide, wide[:, ::-1]], axis=1)
        yield Picture(whole[:, :side, :side], ((patch, 0, 0),))


def alone(found: Sequence[Patch]) -> Iterator[Picture]:
    for patch in found:
        yield Picture(patch.pixels, ((patch, 0, 0),))


def by_side(*sides: int) -> dict[str, Window]:
    return {str(side): (side, OVERLAP) for side in sides}


def odds_of(pixels: Pixels, model: str, window: Window) -> Pixels:
    spec = replace(models.get(model), largest_patch=max(SIDES))
    da = scene(pixels[: len(spec.bands)], model, 30.0)
    found = da.cloudmask.predict_proba(
        spec, patch_size=window[0], overlap=window[1], working_resolution="native", device="cpu"
    )
    return np.asarray(found.values)


def answers(pixels: Pixels, level: str, window: Window) -> Iterator[tuple[str, Pixels]]:
    """Probabilities of each model that has its bands; ukis-any is the weighted mean of the two networks."""
    four = odds_of(pixels, f"ukis-4band-{level}", window)
    yield f"ukis-4band-{level}", four
    if len(pixels) == 6:
        six = odds_of(pixels, f"ukis-6band-{level}", window)
        yield f"ukis-6band-{level}", six
        yield f"ukis-any-{level}", ukis.SHARES[0] * six + ukis.SHARES[1] * four


def classes_of(odds: Pixels, model: str) -> npt.NDArray[np.intp]:
    from xcloudmask.classes import scheme

    spec = models.get(model)
    return decide_classes(odds, scheme("default", spec.classes), spec.threshold, spec.shadow_threshold)


def steps(odds: Pixels, window: Window, joints: int | None) -> tuple[float, float] | None:
    """Mean step between neighbours where windows begin and end, and everywhere; not where patches meet."""
    cloud, at, elsewhere = odds[CHANNELS["cloud"]], [], []
    side, overlap = window
    for axis in (0, 1):
        size = cloud.shape[axis]
        with warnings.catch_warnings():  # of a line without data there is no mean
            warnings.simplefilter("ignore", RuntimeWarning)
            step = np.nanmean(np.abs(np.diff(cloud, axis=axis)), axis=1 - axis)
        starts = AxisPlan(size, side, overlap).starts
        borders = {int(s) for s in starts[1:]} | {int(s) + side for s in starts[:-1]}
        joined = set(range(joints, size, joints)) if joints else set()
        at += [step[b - 1] for b in borders - joined]
        elsewhere += [step[k - 1] for k in range(1, size) if k not in joined]
    return (float(np.nanmean(at)), float(np.nanmean(elsewhere))) if at else None


def compare(
    pictures: Iterator[Picture],
    level: str,
    windows: Mapping[str, Window],
    what: str = "cloud",
    joints: int | None = None,
) -> dict[str, Any]:
    tallies: dict[str, dict[str, Tally]] = {}
    count = 0
    for count, picture in enumerate(pictures, 1):  # noqa: B007
        first: dict[str, npt.NDArray[np.intp]] = {}
        for name, window in windows.items():
            for model, odds in answers(picture.pixels, level, window):
                classes = classes_of(odds, model)
                valid = np.isfinite(odds[0])
                tally = tallies.setdefault(model, {}).setdefault(name, Tally())
                reference = first.setdefault(model, classes)
                tally.same += int((classes == reference)[valid].sum())
                tally.pixels += int(valid.sum())
                if found := steps(odds, window, joints):
                    tally.across.append(found[0])
                    tally.anywhere.append(found[1])
                for patch, row, col in picture.parts:
                    if patch.cloud is None or patch.decided is None:
                        continue
                    rows, cols = patch.cloud.shape
                    cut = np.s_[row : row + rows, col : col + cols]
                    use = patch.decided & valid[cut]
                    counts = tally.counts.setdefault(patch.name, np.zeros((2, 2), np.int64))
                    said = classes[cut][use] == CHANNELS[what]
                    np.add.at(counts, (patch.cloud[use].astype(int), said.astype(int)), 1)
    return {
        "pictures": count,
        "models": {
            model: {name: tally.told(next(iter(each.values()))) for name, tally in each.items()}
            for model, each in tallies.items()
        },
    }


def cost(sides: Sequence[int]) -> list[dict[str, float]]:
    """Processor time a pixel of the bare network, one window at a time in one thread; and memory."""
    import onnxruntime as ort

    from xcloudmask.models.network import load_network

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    body = load_network(models.get("ukis-6band-l1c")).body
    session = ort.InferenceSession(body, sess_options=options, providers=["CPUExecutionProvider"])
    spent: dict[int, list[float]] = {side: [] for side in sides}
    for _ in range(4):
        for side in sides:
            pixels = np.random.default_rng(0).normal(size=(1, 6, side, side)).astype(np.float32)
            begin = time.process_time()
            session.run(None, {"input": pixels})
            spent[side].append(1e9 * (time.process_time() - begin) / side**2)
    return [
        {
            "side": side, "cpu_ns_a_pixel": median(spent[side][1:]),
            "pixels_computed_2048": (AxisPlan(2048, side, OVERLAP).count * side / 2048) ** 2,
            "pixels_computed_3660": (AxisPlan(3660, side, OVERLAP).count * side / 3660) ** 2,
        }
        for side in sides
    ]  # fmt: skip


def ratio(size: int = 1024, rounds: int = 3) -> dict[str, Any]:
    """Time of `predict` with windows of 256 and with those chosen for the scene up to 384, in turns."""
    spec = replace(models.get("ukis-6band-l1c"), largest_patch=384)
    da = described(image(size, 6), spec)
    ways: dict[str, Callable[[], Any]] = {
        "256": lambda: da.cloudmask.predict(spec, patch_size=256, working_resolution="native", device="cpu"),
        "chosen": lambda: da.cloudmask.predict(spec, working_resolution="native", device="cpu"),
    }
    out: dict[str, Any] = {"size": size, "rounds": rounds, "load_averages": []}
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    masks = {name: way() for name, way in ways.items()}  # loads, and has memory at hand
    for _ in range(rounds):
        out["load_averages"].append(load_average())
        for name, way in ways.items():
            spent[name].append(clocked(way))
    for name, each in spent.items():
        out[name] = {
            "patch": int(masks[name].attrs["patch_size"]),
            "wall_s": median(s.wall for s in each), "wall_all": [s.wall for s in each],
            "cpu_s": median(s.cpu for s in each), "cpu_all": [s.cpu for s in each],
        }  # fmt: skip
    out["ratio_cpu"] = out["256"]["cpu_s"] / out["chosen"]["cpu_s"]
    out["ratio_wall"] = out["256"]["wall_s"] / out["chosen"]["wall_s"]
    return out


def show(found: dict[str, Any]) -> str:
    told = []
    for section in found["sections"].values():
        head = ["model", "side", "same %", "bal. acc.", "change (95 %)", "F1", "change", "seam"]
        rows = []
        for model, sides in section["models"].items():
            first, *_ = sides
            for side, row in sides.items():
                low, high = row.get("balanced_accuracy_change_95", (np.nan, np.nan))
                scored = "f1" in row
                rows.append([
                    model.removeprefix("ukis-"), side, f"{100 * row['agreement']:.2f}",
                    f"{100 * row['balanced_accuracy']:.2f}" if scored else None,
                    f"{100 * row['balanced_accuracy_change']:+.2f} ({100 * low:+.1f} to {100 * high:+.1f})"
                    if scored and side != first else None,
                    f"{100 * row['f1']:.2f}" if scored else None,
                    f"{100 * row['f1_change']:+.2f}" if scored and side != first else None,
                    f"{row['step_at_borders'] / row['step_anywhere']:.2f}"
                    if "step_anywhere" in row else None,
                ])  # fmt: skip
        told.append(
            f"{section['title']} ({section['pictures']} pictures, {section['date']})\n" + table(head, rows)
        )
    if "cost" in found:
        rows = [list(row.values()) for row in found["cost"]]
        told.append(
            "Cost of the bare network, and pixels computed for each of the scene\n"
            + table(["side", "processor ns/px", "2048 a side", "3660 a side"], rows)
        )
    if "ratio" in found:
        turns = found["ratio"]
        head = ["windows", "side", "processor s", "least", "most", "seconds"]
        rows = [
            [name, run["patch"], run["cpu_s"], min(run["cpu_all"]), max(run["cpu_all"]), run["wall_s"]]
            for name, run in ((name, turns[name]) for name in ("256", "chosen"))
        ]
        told.append(
            f"predict, {turns['size']} x {turns['size']} x 6, medians of {turns['rounds']} in turns:\n"
            f"{turns['ratio_cpu']:.2f} times as fast by processor time, "
            f"{turns['ratio_wall']:.2f} by the clock (load {min(turns['load_averages'])} to "
            f"{max(turns['load_averages'])})\n" + table(head, rows)
        )
    return "\n\n".join(told)


def main() -> None:
    only = {"nargs": "+", "default": [], "help": "sections to measure; the rest of OUT is kept"}
    args = on_patches(__doc__, "windows.json", only=only)
    if args.table:
        found = json.loads(args.out.read_text())
        print(in_words(found["circumstances"]) + "\n\n" + show(found))
        return

    def labelled(source: str, level: str, bits: int = 6) -> list[Patch]:
        found = [p for part in ("val", "train") for p in patches(args.data / part, (source,), bits)]
        return [p for p in found if p.model.endswith(level)]

    biome, cloud38 = labelled("l8_biome", "l1c"), labelled("l8_38cloud", "l1c")
    shaded = labelled("s2_shadow_alberta", "l2a", SHADOW)
    whole = [
        p for p in patches(args.data / "unlabelled", ("landsat_l1",))
        if min(p.pixels.shape[1:]) >= 512 and p.gsd == 30
    ]  # fmt: skip
    sections: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
        "alone": ("38-Cloud, 384 x 384", lambda: compare(alone(cloud38), "l1c", by_side(*SIDES[:2]))),
        "mosaic2": (
            "Mosaics of 2 x 2 Biome patches, 512 x 512",
            lambda: compare(mosaics(biome, 2, 2), "l1c", by_side(*SIDES[:3]), joints=256),
        ),
        "shadow": (
            "Shadow or not at one site, 689 x 743",
            lambda: compare(alone(shaded), "l2a", by_side(*SIDES[:4]), "shadow"),
        ),
        "whole": (
            "Whole pictures of Landsat, no labels, 524 to 727 a side",
            lambda: compare(alone(whole), "l1c", by_side(*SIDES[:4])),
        ),
        "mirrored": (
            "Biome patches beside their mirror images, 512 x 512",
            lambda: compare(mirrored(biome), "l1c", by_side(*SIDES[:3]), joints=256),
        ),
        "mosaic4": (
            "Mosaics of 4 x 4 Biome patches, 1024 x 1024",
            lambda: compare(mosaics(biome, 4, 2), "l1c", by_side(*SIDES), joints=256),
        ),
        "mosaic3": (
            "Mosaics of 3 x 3 patches of 38-Cloud, 1152 x 1152",
            lambda: compare(mosaics(cloud38, 3, 2), "l1c", by_side(*SIDES), joints=384),
        ),
    }
    sections |= {
        "overlap-biome": (
            "By overlap: Biome patches beside their mirror images, 480 x 480",
            lambda: compare(mirrored(biome, 480), "l1c", OVERLAPS, joints=256),
        ),
        "overlap-38cloud": (
            "By overlap: 38-Cloud patches beside their mirror images, 704 x 704",
            lambda: compare(mirrored(cloud38, 704), "l1c", OVERLAPS, joints=384),
        ),
        "overlap-mosaic3": (
            "By overlap: mosaics of 3 x 3 patches of 38-Cloud, 1152 x 1152",
            lambda: compare(mosaics(cloud38, 3, 4), "l1c", OVERLAPS, joints=384),
        ),
        "overlap-shadow": (
            "By overlap: shadow or not at one site, 689 x 743",
            lambda: compare(alone(shaded), "l2a", OVERLAPS, "shadow"),
        ),
        "overlap-whole": (
            "By overlap: whole pictures of Landsat, no labels, 524 to 727 a side",
            lambda: compare(alone(whole), "l1c", OVERLAPS),
        ),
    }  # fmt: skip
    found = json.loads(args.out.read_text()) if args.out.exists() else {"sections": {}}
    found["circumstances"] = circumstances()
    for name in args.only or [*sections, "cost", "ratio"]:
        if name in ("cost", "ratio"):
            found[name] = cost(SIDES) if name == "cost" else ratio()
        else:
            title, work = sections[name]
            when = {"title": title, "date": circumstances()["date"]}
            found["sections"][name] = when | work()
        save(args.out, found)
    print(in_words(found["circumstances"]) + "\n\n" + show(found))


if __name__ == "__main__":
    main()
