"""Drawings of the explanation as SVG; windows, weights and owners are those of the library's own plan."""

from __future__ import annotations

import html

from xcloudmask.engine.tiling import AxisPlan

BLUE, ORANGE, GREEN, PINK, GREY = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#888888"
OWNERS = (BLUE, ORANGE, GREEN, PINK)


class Svg:
    """A drawing that is added to, piece by piece."""

    def __init__(self, width: int, height: int, about: str) -> None:
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
            f'height="{height}" font-family="sans-serif" font-size="13" role="img"><title>{about}</title>'
            f'<rect width="{width}" height="{height}" fill="white"/><defs><marker id="tip" viewBox="0 0 8 8" '
            'refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z"/>'
            "</marker></defs>"
        ]

    def text(
        self, x: float, y: float, words: str, *, size: int = 13, at: str = "start", colour: str = "#222"
    ) -> None:
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{at}" fill="{colour}">'
            f"{html.escape(words)}</text>"
        )

    def box(
        self, x: float, y: float, width: float, height: float, colour: str = "none", *, line: str = "#222",
        opacity: float = 1, dash: str = "", thick: float = 1,
    ) -> None:  # fmt: skip
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity}" stroke="{line}" stroke-width="{thick}" stroke-dasharray="{dash}"/>'
        )

    def line(
        self,
        points: list[tuple[float, float]],
        colour: str = "#222",
        *,
        thick: float = 1.5,
        tip: bool = False,
    ) -> None:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        end = ' marker-end="url(#tip)"' if tip else ""
        self.parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{thick}"{end}/>'
        )

    def __str__(self) -> str:
        return "".join([*self.parts, "</svg>"])


def windows() -> Svg:
    """Return windows along one axis, and their weights."""
    plan = AxisPlan(size=190, patch=64, overlap=16)
    svg, scale, left = Svg(720, 250, "Windows along an axis, and their weights, which sum to 1"), 3.4, 40

    def at(cell: float) -> float:
        return left + scale * cell

    for index, start in enumerate(plan.starts):
        colour = OWNERS[index % 4]
        svg.box(at(start), 40 + 14 * (index % 2), scale * plan.patch, 12, colour, opacity=0.5)
        values = plan.weights(index)
        svg.line([(at(start + k + 0.5), 190 - 90 * float(v)) for k, v in enumerate(values)], colour, thick=2)
    svg.text(
        left,
        28,
        f"windows of {plan.patch} cells, {plan.overlap} shared; the last one moved inward",
    )
    svg.line([(at(0), 190), (at(plan.size), 190)])
    svg.line([(at(0), 100), (at(plan.size), 100)], GREY, thick=0.7)
    svg.text(left - 8, 104, "1", at="end")
    svg.text(left - 8, 194, "0", at="end")
    svg.text(left, 212, f"cell 0 to {plan.size - 1} of the scene", colour=GREY)
    svg.text(
        left,
        236,
        "Weights rise and fall as cosines and sum to 1 in every cell: no seam, no cell counted twice.",
    )
    return svg


def chunks() -> Svg:
    """Return windows over four chunks, coloured by the chunk that infers them."""
    plan, half, scale, left, top = AxisPlan(size=120, patch=40, overlap=8), 60, 2.6, 30, 46
    svg = Svg(720, 400, "Each window is inferred by the chunk in which it starts, and reaches into others")
    bounds = [(0, half), (half, plan.size)]
    owner = {
        (i, j): 2 * row + column
        for row, rows in enumerate(bounds)
        for column, columns in enumerate(bounds)
        for i in range(*plan.owned(*rows))
        for j in range(*plan.owned(*columns))
    }
    svg.text(
        left,
        28,
        "a scene of 2 x 2 chunks (thick lines); windows in the colour of the chunk in which they start",
    )
    for (i, j), chunk in owner.items():
        y, x = top + scale * plan.start(i), left + scale * plan.start(j)
        svg.box(
            x + 2,
            y + 2,
            scale * plan.patch - 4,
            scale * plan.patch - 4,
            OWNERS[chunk],
            line=OWNERS[chunk],
            opacity=0.13,
            thick=1.6,
        )
    for row in (0, 1):
        for column in (0, 1):
            side = scale * half
            svg.box(left + column * side, top + row * side, side, side, thick=2.6)
    x = left + scale * plan.size + 30
    lines = [
        f"{plan.count} x {plan.count} windows; {len(owner)} inferred, each once", "",
        *(f"chunk {c + 1}: {sum(o == c for o in owner.values())} of them" for c in range(4)), "",
        "What a window finds in another chunk is", "handed over as a sum: weight x probability,",
        "rounded to multiples of 2^-23.", "",
        "Such sums are exact in float32, so their", "order does not matter: any chunks, threads",
        "or workers give the same mask.",
    ]  # fmt: skip
    for number, words in enumerate(lines):
        chunk = number - 2
        if 0 <= chunk < 4:
            svg.box(x, 56 + 20 * number, 11, 11, OWNERS[chunk], opacity=0.5)
        svg.text(x + (18 if 0 <= chunk < 4 else 0), 66 + 20 * number, words)
    return svg


def units() -> Svg:
    """Return how one stored number of Sentinel-2 is read before and after January 2022."""
    svg = Svg(720, 220, "The same reflectance is stored as different numbers")
    rows = [
        ("Sentinel-2, before 25 January 2022", "1800", "x 0.0001", "+ 0", "0.18"),
        ("Sentinel-2, since (baseline 04.00)", "2800", "x 0.0001", "- 0.1", "0.18"),
        ("Landsat Collection 2, level 2", "13818", "x 0.0000275", "- 0.2", "0.18"),
    ]
    for x, head in ((20, "product"), (290, "stored"), (400, "scale"), (520, "offset"), (630, "reflectance")):
        svg.text(x, 24, head, colour=GREY)
    for number, (what, stored, scale, offset, reflectance) in enumerate(rows):
        y = 40 + 42 * number
        svg.text(20, y + 20, what)
        for x, width, words, colour in (
            (280, 70, stored, GREY), (390, 90, scale, BLUE), (510, 70, offset, BLUE),
            (620, 80, reflectance, GREEN),
        ):  # fmt: skip
            svg.box(x, y, width, 30, colour, opacity=0.15, line=colour)
            svg.text(x + width / 2, y + 20, words, at="middle")
        for start, end in ((352, 386), (482, 506), (582, 616)):
            svg.line([(start, y + 15), (end, y + 15)], tip=True)
    svg.text(
        20,
        184,
        "An offset left out makes everything 0.1 brighter: clouds grow. One added twice hides them.",
    )
    svg.text(20, 204, "So it is read from the product, or must be said; it is never guessed.")
    return svg


def no_data() -> Svg:
    """Return what becomes of pixels without data."""
    svg = Svg(720, 250, "A gap is filled for the network, and is no data in the mask")
    steps = [("stored", 20), ("for the network", 190), ("probability", 360), ("mask", 530)]
    gap = {(1, 3), (2, 3), (2, 4), (3, 4), (0, 4), (1, 4)}
    cloud = {(3, 0), (3, 1), (4, 0), (4, 1), (4, 2), (3, 2)}
    for name, left in steps:
        svg.text(left, 26, name)
        for row in range(5):
            for column in range(5):
                here = (row, column)
                colour = "#333333" if here in gap else ("#eeeeee" if here in cloud else "#9bb08a")
                if name == "for the network" and here in gap:
                    colour = "#b5c4a8"
                if name == "probability":
                    colour = "#ffe945" if here in cloud else "#00224e"
                if name == "mask":
                    colour = "#dddddd" if here in gap else (ORANGE if here in cloud else "#ecf2e3")
                svg.box(left + 26 * column, 36 + 26 * row, 26, 26, colour, line="white")
                if here in gap and name in ("stored", "mask"):
                    words = "NaN" if name == "stored" else "255"
                    svg.text(
                        left + 26 * column + 13,
                        53 + 26 * row,
                        words,
                        size=9,
                        at="middle",
                        colour="#fff" if name == "stored" else "#222",
                    )
        if left < 530:
            svg.line([(left + 134, 100), (left + 164, 100)], tip=True)
    svg.text(
        20,
        196,
        "Gaps (NaN, fill value, valid=False) are filled from around them: the network sees no edge.",
    )
    svg.text(
        20,
        216,
        "What was stored in a gap changes no neighbour; in the mask it is 255, whatever the network said.",
    )
    svg.text(20, 236, "255 is never counted as clear. Windows of nothing but gaps are not inferred.")
    return svg


def resume() -> Svg:
    """Return a store that is stopped and resumed."""
    svg = Svg(720, 235, "A stopped run leaves whole regions, and the same call does the others")
    done = {(0, 0), (0, 1), (0, 2), (0, 3), (1, 0)}
    for left, title, now in ((20, "stopped", done), (270, "the same call", done), (520, "complete", None)):
        svg.text(left, 26, title)
        for row in range(4):
            for column in range(4):
                ready = now is None or (row, column) in now
                new = now is None and (row, column) not in done
                colour = GREEN if ready else "#dddddd"
                svg.box(
                    left + 36 * column,
                    36 + 36 * row,
                    34,
                    34,
                    BLUE if new else colour,
                    opacity=0.45 if ready else 1,
                    line="#fff",
                )
                svg.text(
                    left + 36 * column + 17, 57 + 36 * row, "done" if ready else "255", size=10, at="middle"
                )
        if left < 520:
            svg.line([(left + 158, 106), (left + 236, 106)], tip=True)
    svg.text(197, 98, "kill -9", at="middle", size=11)
    svg.text(447, 98, "11 regions", at="middle", size=11)
    svg.text(
        20,
        206,
        "A region is one file, and marked as done once its bytes are on the disk, so a mark is never wrong;",
    )
    svg.text(
        20,
        226,
        "a half-written one is written again. The store ends byte for byte as if nothing had happened.",
    )
    return svg


def all_of_them() -> dict[str, str]:
    """Return each drawing as SVG, by name."""
    return {make.__name__: str(make()) for make in (windows, chunks, units, no_data, resume)}
