"""How many windows a swath's edge costs: one grid whose empty windows are skipped, or windows shifted to it.

    python benchmarks/swath.py

Counts only, on drawn tiles: a straight edge, inclined as Sentinel-2's ground track is (8 to 17 degrees), on
either side, that leaves 10 to 90 % of a tile. Three ways to lay windows of the same size and overlap:

- grid: from the tile's corner; those without a valid pixel are left out. What the library does.
- box: the same, from the corner of the box around the valid pixels.
- rows: each row of windows from its own first valid column to its last, the fewest there can be.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from xcloudmask.engine.tiling import AxisPlan

#: What, cells a side of the tile, of a window and of the overlap: Sentinel-2 tiles, ten pixels a cell.
CASES = {
    "20 m, 512, 128": (549, 51, 13),
    "30 m, 256, 48 (ukis)": (366, 26, 5),
    "10 m, 1000, 300 (omnicloudmask)": (1098, 100, 30),
}
ANGLES, SHARES = (8, 12, 17), np.linspace(0.1, 0.9, 9)

Bool = npt.NDArray[np.bool_]


def tile(size: int, angle: float, share: float, left: bool) -> Bool:
    """Return the valid cells of a tile that an inclined edge cuts."""
    y, x = np.mgrid[:size, :size]
    across = x - np.tan(np.radians(angle)) * (size / 2 - y)
    across = across if left else -across
    return np.asarray(across <= np.quantile(across, share))


def on_grid(valid: Bool, patch: int, overlap: int) -> int:
    """Windows of one grid that hold a valid cell."""
    rows, cols = (AxisPlan(size, patch, overlap).starts for size in valid.shape)
    seen = [valid[row : row + patch].any(axis=0) for row in rows]
    return sum(bool(line[col : col + patch].any()) for line in seen for col in cols)


def in_box(valid: Bool, patch: int, overlap: int) -> int:
    """Windows of one grid over the box around the valid cells."""
    rows, cols = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    return on_grid(valid[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1], patch, overlap)


def by_row(valid: Bool, patch: int, overlap: int) -> int:
    """Windows that each row of windows needs for what it holds."""
    count = 0
    for row in AxisPlan(valid.shape[0], patch, overlap).starts:
        cols = np.flatnonzero(valid[row : row + patch].any(axis=0))
        count += AxisPlan(int(np.ptp(cols)) + 1, patch, overlap).count if cols.size else 0
    return count


def main() -> None:
    """Print how many windows each way needs, of all, and against the grid."""
    print(f"{'windows':34} {'all':>7} {'grid':>7} {'box':>7} {'rows':>7}   rows against grid: all, the best")
    for name, (size, patch, overlap) in CASES.items():
        tiles = [tile(size, a, s, left) for a in ANGLES for s in SHARES for left in (True, False)]
        counts = np.array([[way(t, patch, overlap) for way in (on_grid, in_box, by_row)] for t in tiles])
        every = AxisPlan(size, patch, overlap).count ** 2 * len(tiles)
        grid, box, rows = counts.sum(axis=0)
        best = (counts[:, 2] / counts[:, 0]).min()
        print(
            f"{name:34} {every:7} {grid:7} {box:7} {rows:7}   {rows / grid - 1:+.1%}, {best - 1:+.1%}"
            f"; skipped already: {1 - grid / every:.0%}"
        )


if __name__ == "__main__":
    main()
