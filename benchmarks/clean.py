"""What cleaning a mask costs beside scipy on the whole array, and what memory a large lazy one takes.

    python benchmarks/clean.py            # minutes; scipy's distances need 4 GiB
    python benchmarks/clean.py --quick    # small masks: shows that it works
    python benchmarks/clean.py --data FOLDER   # saturated clouds alone: labelled patches, minutes
    python benchmarks/clean.py --table    # measures nothing: prints the result file

Close 60 m, buffer 150 m, sieve 1 ha on pixels of 10 m. In scipy: what lies within a distance by
`distance_transform_edt`, its quickest way for a disc of such a size, and `label` for the specks. Both in one
process, one after the other; the answers are compared. Memory is that of a process of its own, which counts
classes of a lazy mask on two threads, with the steps and without.

Saturated: of the pixels of patches whose visible bands all reach 1.2, how many are alike in all of them (what
`predict` takes for saturated unasked), and what the labels say. Then the same patches as a sensor would have
recorded them that is full at 1.2, and one that is full at half of that: of the pixels that are full, what the
model says with and without that rule.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from _measure import arguments, circumstances, clocked, in_child, in_words, peak_mib, save, table

STEPS = {"close": "60 m", "buffer": "150 m", "sieve": "1 ha"}
TILE = 2048


def clouds(seed: int = 0, side: int = TILE) -> np.ndarray[Any, Any]:
    """A tile of clouds from specks to fronts, a third of it covered; its own mirror image at each edge."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    field = sum(
        gaussian_filter(rng.standard_normal((side // k, side // k)), 4, mode="reflect")
        .repeat(k, 0)
        .repeat(k, 1)
        * w
        for k, w in ((16, 2.0), (4, 1.0), (1, 0.7))
    )
    return (field > np.quantile(field, 0.67)).astype(np.uint8)


def turned(tile: np.ndarray[Any, Any], i: int, j: int) -> np.ndarray[Any, Any]:
    return tile[:: -1 if i % 2 else 1, :: -1 if j % 2 else 1]


def lazy_mask(side: int) -> Any:
    """A mask of which each chunk is made when it is asked for."""
    import dask.array as da
    import xarray as xr

    import xcloudmask  # noqa: F401

    tile = clouds()

    def block(block_info: Any = None) -> np.ndarray[Any, Any]:
        (i, j), (height, width) = block_info[None]["chunk-location"], block_info[None]["chunk-shape"]
        return turned(tile, i, j)[:height, :width].copy()

    sizes = da.core.normalize_chunks((TILE, TILE), (side, side))
    data = da.map_blocks(block, chunks=sizes, dtype=np.uint8, meta=np.empty((0, 0), np.uint8))
    return xr.DataArray(
        data, dims=("y", "x"), coords={"y": -10.0 * np.arange(side), "x": 10.0 * np.arange(side)},
        attrs={"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"},
    )  # fmt: skip


def by_scipy(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    from scipy.ndimage import distance_transform_edt, label

    grown = distance_transform_edt(codes == 0) <= 6
    closed = distance_transform_edt(grown) > 6
    hidden = distance_transform_edt(~closed) <= 15
    labels, count = label(hidden, np.ones((3, 3)))
    large = np.bincount(labels.ravel(), minlength=count + 1) >= 100
    large[0] = False
    return large[labels]


def throughput(side: int) -> dict[str, Any]:
    import dask

    mask = lazy_mask(side).compute()
    out: dict[str, Any] = {}
    with dask.config.set(num_workers=2):
        mask[:100, :100].cloudmask.clean(**STEPS)
        ours = clocked(lambda: out.update(ours=mask.cloudmask.clean(**STEPS).values))
    scipy = clocked(lambda: out.update(scipy=by_scipy(mask.values)))
    return {
        "side": side,
        "steps": STEPS,
        "ours": {"wall_s": ours.wall, "cpu_s": ours.cpu},
        "scipy": {"wall_s": scipy.wall, "cpu_s": scipy.cpu},
        "ratio_cpu": ours.cpu / scipy.cpu,
        "ratio_wall": ours.wall / scipy.wall,
        "share_that_differs": float(((out["ours"] == 1) != out["scipy"]).mean()),
    }


def counted(side: int, steps: bool) -> dict[str, Any]:
    """Count the cloud of a lazy mask chunk by chunk: what a writer holds, too."""
    import dask

    mask = lazy_mask(side)
    with dask.config.set(scheduler="threads", num_workers=2):
        found = (mask.cloudmask.clean(**STEPS) if steps else mask).astype(bool).sum()
        spent = clocked(found.compute)
    return {"side": side, "steps": steps, "peak_mib": peak_mib(), "wall_s": spent.wall, "cpu_s": spent.cpu}


def saturated(folder: Path) -> list[dict[str, Any]]:
    import warnings

    import xarray as xr

    import xcloudmask  # noqa: F401

    warnings.simplefilter("ignore")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*/*/*.npz")):
        split, source = path.parts[-3:-1]
        with np.load(path) as file:
            bands, stored = [str(name) for name in file["bands"]], file["image"]
            meta = json.loads(str(file["meta"]))
            possible = file["possible"] if "possible" in file else np.zeros(stored.shape[1:], "u1")
        places = [bands.index(name if name in bands else "nir08") for name in ("blue", "green", "red", "nir")]
        valid = (stored != 65535).all(axis=0)
        bright = valid & (stored[places[:3]] >= 12_000).all(axis=0)
        labels = {
            "cloud": np.isin(possible, (2, 4, 6)), "no cloud": (possible > 0) & (possible & 6 == 0),
        }  # fmt: skip
        row = rows.setdefault((split, source), {
            "split": split, "source": source, "patches": 0, "pixels": 0, "from 1.2": 0, "alike": 0,
            "labels": dict.fromkeys(labels, 0), "full": {},
        })  # fmt: skip
        row["patches"] += 1
        row["pixels"] += int(valid.sum())
        row["from 1.2"] += int(bright.sum())
        row["alike"] += int((bright & (np.ptp(stored[places[:3]].astype(int), axis=0) == 0)).sum())
        for name, where in labels.items():
            row["labels"][name] += int((bright & where).sum())
        if not possible.any():
            continue
        level = "L2A" if "2A" in str(meta.get("level")) or "oncloudn" in source else "L1C"
        axes = {"y": -30.0 * np.arange(stored.shape[1]), "x": 30.0 * np.arange(stored.shape[2])}
        for gain in (1, 2):
            values = np.where(valid, np.minimum(stored[places] * (gain * 1e-4), 1.2), np.nan).astype("f4")
            full = (values[:3] == np.float32(1.2)).all(axis=0)
            if not full.any():
                continue
            da = xr.DataArray(values, dims=("band", "y", "x"), coords=axes)
            da = da.cloudmask.describe(bands=["blue", "green", "red", "nir"], level=level)
            for how in (None, "auto"):
                mask = da.cloudmask.predict(saturation=how).values
                for name, where in labels.items():
                    counts = row["full"].setdefault(f"x{gain} {name}", {"pixels": 0, "None": 0, "auto": 0})
                    counts["pixels"] += int((full & where).sum()) * (how is None)
                    counts[str(how)] += int(np.isin(mask[full & where], (1, 2)).sum())
    return list(rows.values())


CASES = {"throughput": throughput, "memory": counted}


def show(found: dict[str, Any]) -> str:
    lines = [in_words(found["circumstances"])]
    for rate in found["throughput"]:
        pixels = rate["side"] ** 2 / 1e6
        rows = [
            (name, rate[name]["wall_s"], rate[name]["cpu_s"], pixels / rate[name]["cpu_s"])
            for name in ("ours", "scipy")
        ]
        lines += [
            f"\nThroughput: {rate['side']} x {rate['side']}, in memory, two threads",
            table(("", "seconds", "processor s", "Mpx/processor s"), rows),
            f"ours over scipy: {rate['ratio_cpu']:.2f} by processor time, {rate['ratio_wall']:.2f} by the "
            f"clock; {rate['share_that_differs']:.1e} of pixels differ",
        ]
    rows = [
        (run["side"], "yes" if run["steps"] else "no", run["peak_mib"], run["wall_s"], run["cpu_s"])
        for run in found["memory"]
    ]
    head = ("side", "steps", "peak MiB", "seconds", "processor s")
    lines += ["\nMemory: a lazy mask, counted by two threads", table(head, rows)]
    head = ("", "patches", "pixels", "from 1.2", "alike", "labelled cloud", "labelled no cloud")
    rows = [
        (f"{row['split']}/{row['source']}", *(row[name] for name in head[1:5]), *row["labels"].values())
        for row in found.get("saturated", [])
    ]
    lines += ["\nAs bright as saturated clouds, as recorded", table(head, rows)]
    head = ("", "full at", "labelled", "pixels", "called cloud", "with the rule")
    rows = [
        (f"{row['split']}/{row['source']}", {"1": 1.2, "2": 0.6}[name[1]], name[3:], *counts.values())
        for row in found.get("saturated", []) for name, counts in row["full"].items() if counts["pixels"]
    ]  # fmt: skip
    return "\n".join([*lines, "\nFull where a detector would be", table(head, rows)])


def main() -> None:
    given = arguments(__doc__, "data", "quick", "table", "child", out="clean.json")
    if given.child:
        print(json.dumps(CASES[given.child[0]](**json.loads(given.child[1]))))
        return
    if given.data:
        found = json.loads(given.out.read_text()) | {"saturated": saturated(given.data)}
        save(given.out, found)
    elif not given.table:
        sides = (1000, 3000) if given.quick else (10_000, 20_000)
        found = {
            "circumstances": circumstances(),
            "throughput": [
                in_child(__file__, "throughput", {"side": side}, limit=3600)
                for side in ((1500,) if given.quick else (5490, 10_980))
            ],
            "memory": [
                in_child(__file__, "memory", {"side": side, "steps": steps}, limit=3600)
                for side in sides
                for steps in (False, True)
            ],
            "saturated": json.loads(given.out.read_text()).get("saturated", []) if given.out.exists() else [],
        }
        save(given.out, found)
    print(show(json.loads(given.out.read_text())))


if __name__ == "__main__":
    main()
