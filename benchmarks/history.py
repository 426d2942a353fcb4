"""Draw what was measured by date: a panel for each section of the result files, a line for each figure.

python -m benchmarks history               # results/history.svg
python -m benchmarks history --out FILE    # .svg or .png
"""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from _measure import RESULTS, arguments, runs_in

#: The result files that hold runs by date and machine.
FILES = ("peers", "overhead", "engine")
MARKERS = "osD^vP*X"


def draw(out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "xcloudmask", "font.size": 7}
    import matplotlib.pyplot as plt

    runs = [run for name in FILES for run in runs_in(RESULTS / f"{name}.json")]
    dates = sorted({run["circumstances"]["date"][:10] for run in runs})
    machines = dict(zip(dict.fromkeys(run["circumstances"]["cpu"] for run in runs), MARKERS, strict=False))
    panels: dict[str, dict[tuple[str, str], list[Any]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: run["circumstances"]["date"]):
        told = run["circumstances"]
        day, hour, minute = told["date"][:10], int(told["date"][11:13]), int(told["date"][14:16])
        place = dates.index(day) + (hour + minute / 60) / 24 - 0.5  # a day is one wide
        for name, value in run["figures"].items():
            panels[run["section"]][name, told["cpu"]].append((place, value))
    figure, axes = plt.subplots(
        math.ceil(len(panels) / 2), 2, figsize=(11, 1.2 * len(panels)), squeeze=False, layout="constrained"
    )
    for axis, (title, lines) in zip(axes.flat, panels.items(), strict=False):
        colours: dict[str, Any] = {}
        for (name, machine), points in lines.items():
            label = None if name in colours else name
            colour = colours.setdefault(name, mpl.colormaps["tab20"](len(colours) % 20))
            axis.plot(
                *zip(*points, strict=True), f"{machines[machine]}-", color=colour, ms=4, lw=1, label=label
            )
        heights = [height for points in lines.values() for _, height in points]
        if min(heights) > 0 and max(heights) > 20 * min(heights):
            axis.set_yscale("log")
        axis.set(title=title, xlim=(-0.5, len(dates) - 0.5))
        axis.set_xticks(range(len(dates)), dates)
        for midnight in range(len(dates) - 1):
            axis.axvline(midnight + 0.5, color="0.9", lw=0.5, zorder=0)
        axis.legend(fontsize=5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    for axis in list(axes.flat)[len(panels) :]:
        axis.remove()
    figure.suptitle(", ".join(f"{mark} {name}" for name, mark in machines.items()), fontsize=7)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    args = arguments(__doc__, out="history.svg")
    draw(args.out)
    print(args.out.name)


if __name__ == "__main__":
    main()
