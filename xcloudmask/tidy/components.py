"""Areas of connected pixels across chunks: specks (sieve), holes (fill), areas without a seed (hysteresis).

Two passes over the chunks, and a look at the seams between them:

    examine    labels the areas of a chunk; what lies wholly within it is settled there and then. Of those
               that reach its edge it tells the size, and keeps the pixels where that may be too small
    settle     joins areas that meet at the seams, adds their sizes up, and says what becomes of each
    paint      writes that on the pixels that were kept

A chunk is held compressed between the passes, and not labelled twice. The source is worked on once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate, pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

from xcloudmask.classes import NO_DATA
from xcloudmask.tidy.graph import DataNode, Task, TaskRef, array_of
from xcloudmask.tidy.halo import Packed
from xcloudmask.tidy.lengths import SLACK, Floats

Codes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]
Bits = npt.NDArray[np.uint16]

#: Specks hang together at corners, too; holes do not, or they would leak out between these.
CORNERS, SIDES = np.ones((3, 3), bool), np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
#: Parts of a pixel in which areas are added up: whole numbers have one sum, whatever the chunks.
PARTS = 2**20
#: Bit of an area that touches what is not known: no data, the scene's edge, a class of another kind.
UNKNOWN = np.uint16(1 << 15)
#: Bit of an area that has a seed.
SEED = np.uint16(1 << 14)
_SHIFTED = (slice(1, None), slice(None, -1))


@dataclass(frozen=True, slots=True)
class Rule:
    """Which areas are too small, and what becomes of them."""

    members: tuple[int, ...]  # codes of the pixels that make an area
    least: float  # pixels of the middle row that an area must have to stay
    becomes: int = NO_DATA  # their new code; of holes, see `walls`
    walls: tuple[int, ...] = ()  # codes around a hole, which takes the first of them that it touches
    beside: tuple[int, ...] = ()  # codes that may lie beside an area, too, and its extent is still known
    seeds: tuple[int, ...] = ()  # members of which an area must have one to stay, whatever its size
    grounds: tuple[int, ...] = ()  # what each of the 256 codes becomes, in place of `becomes`

    def kinds(self) -> Bits:
        """Return the bit of each code that may lie beside an area."""
        out = np.full(256, UNKNOWN)
        out[[*self.members, *self.beside]] = 0
        out[list(self.walls)] = [1 << place for place in range(len(self.walls))]
        return out

    def may_go(self, size: Ints, bits: Bits, parts: int) -> Bool:
        """Return which areas go, as far as is known, by their size in parts of a pixel; none does not."""
        if self.seeds:
            lacking: Bool = bits & SEED == 0
        else:
            lacking = (size < (self.least - SLACK) * parts) & (bits & UNKNOWN == 0)
        return lacking & (size > 0)

    def verdicts(self, size: Ints, bits: Bits, parts: int) -> Codes:
        """Return what becomes of areas; 255 for those that stay as they are."""
        small = self.may_go(size, bits, parts)
        if not self.walls:
            return np.where(small, np.uint8(self.becomes), np.uint8(NO_DATA))
        out = np.full(size.shape, NO_DATA, np.uint8)
        for place, code in reversed(list(enumerate(self.walls))):
            out[small & (bits & np.uint16(1 << place) > 0)] = code
        return out

    def paint(self, block: Codes, where: Ints | npt.NDArray[np.int32], verdict: Codes) -> None:
        """Write on pixels of a block what becomes of the area of each; 255 leaves it."""
        where, verdict = where[verdict != NO_DATA], verdict[verdict != NO_DATA]
        flat = block.ravel()
        flat[where] = np.array(self.grounds, np.uint8)[flat[where]] if self.grounds else verdict


@dataclass(frozen=True, slots=True)
class Border:
    """Areas of a chunk that reach its edge, numbered from 1, and the four edges."""

    size: Ints  # of each; the first is that of none
    bits: Bits  # which walls each touches within the chunk
    areas: tuple[npt.NDArray[np.int32], ...]  # of the pixels at the top, bottom, left and right
    codes: tuple[Codes, ...]  # of the same


@dataclass(frozen=True, slots=True)
class Examined:
    """A chunk after the first pass: its pixels, compressed, and what is open yet."""

    packed: Packed
    border: Border
    where: npt.NDArray[np.int32]  # pixels whose area may be too small
    which: npt.NDArray[np.int32]  # the number of that

    def paint(self, rule: Rule, verdict: Codes) -> Codes:
        """Return the chunk with each open area as the verdict has it."""
        block = self.packed.part()
        rule.paint(block, self.where, verdict[self.which])
        return block


def edges(plane: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Return copies of the four edges of a plane: top, bottom, left, right."""
    return tuple(edge.copy() for edge in (plane[0], plane[-1], plane[:, 0], plane[:, -1]))


def any_of(block: Codes, codes: Iterable[int]) -> Bool:
    """Return where a block has one of the codes."""
    return reduce(np.logical_or, (block == code for code in codes), np.zeros(block.shape, bool))


def examine(block: Codes, weights: Ints | None, rule: Rule) -> Examined:
    """Label the areas of a chunk (rows, columns), settle those within, and tell of those at its edge."""
    from scipy import ndimage

    member = any_of(block, rule.members)
    labels, count = ndimage.label(member, SIDES if rule.walls else CORNERS)
    if weights is None:
        size = np.bincount(labels.ravel(), minlength=count + 1)
    else:  # sums of whole numbers this small are exact in float64
        per_pixel = np.repeat(weights, block.shape[1]).astype(np.float64)
        size = np.bincount(labels.ravel(), per_pixel, minlength=count + 1).astype(np.int64)
    bits = _touched(block, labels, member, count, rule)
    at_edge = np.zeros(count + 1, bool)
    for edge in edges(labels):
        at_edge[edge] = True
    size[0], at_edge[0] = 0, False
    number = np.cumsum(at_edge, dtype=np.int32) * at_edge
    parts = 1 if weights is None else PARTS
    verdict = np.where(at_edge, np.uint8(NO_DATA), rule.verdicts(size, bits, parts))
    open_yet = at_edge & rule.may_go(size, bits, parts)
    where = np.flatnonzero((open_yet | (verdict != NO_DATA))[labels]).astype(np.int32)
    label = labels.ravel()[where]
    later = open_yet[label]
    done = block.copy()
    rule.paint(done, where[~later], verdict[label[~later]])
    nothing = np.zeros(1, np.uint16)
    border = Border(
        np.concatenate([nothing, size[at_edge]]), np.concatenate([nothing, bits[at_edge]]),
        tuple(number[edge] for edge in edges(labels)), edges(block),
    )  # fmt: skip
    return Examined(Packed.of(done), border, where[later], number[label[later]])


def _touched(block: Codes, labels: Any, member: Bool, count: int, rule: Rule) -> Bits:
    """Return what each area touches within its chunk; specks, which hang together at corners, do so there."""
    from scipy import ndimage

    bits = np.zeros(count + 1, np.uint16)
    if rule.seeds:
        bits[labels[any_of(block, rule.seeds)]] = SEED
    elif rule.walls:
        for axis, (here, beside) in product((0, 1), (_SHIFTED, _SHIFTED[::-1])):
            a, b = ((slice(None),) * axis + (part,) for part in (here, beside))
            meets = member[a] & ~member[b]
            np.bitwise_or.at(bits, labels[a][meets], rule.kinds()[block[b][meets]])
    elif (unknown := rule.kinds()[block] == UNKNOWN).any():
        bits[labels[member & ndimage.binary_dilation(unknown, CORNERS)]] = UNKNOWN
    return bits


def settle(rule: Rule, parts: int, across: int, *borders: Border) -> tuple[Codes, ...]:
    """Return, for each chunk, what becomes of the areas that reach its edge.

    Sizes count `parts` of a pixel; the borders are those of all chunks, row by row, `across` in each.
    """
    from scipy import sparse

    ends = list(accumulate((len(border.size) - 1 for border in borders), initial=0))
    size = np.concatenate([[0], *(border.size[1:] for border in borders)])
    bits = np.concatenate([np.zeros(1, np.uint16), *(border.bits[1:] for border in borders)])
    chunks = np.arange(len(borders)).reshape(-1, across)

    def line(row: Ints, edge: int) -> tuple[Ints, Codes]:
        """Areas, numbered over all chunks, and codes along one edge of a row or column of chunks."""
        areas = [borders[k].areas[edge] for k in row]
        numbers = [np.where(a > 0, a + ends[k], 0) for k, a in zip(row, areas, strict=True)]
        return np.concatenate(numbers), np.concatenate([borders[k].codes[edge] for k in row])

    pairs, kinds = [np.zeros((2, 0), np.int64)], rule.kinds()
    straight = (slice(None), slice(None))
    meetings = [straight] if rule.walls else [straight, _SHIFTED, _SHIFTED[::-1]]  # specks do at corners, too
    for rows, before, after in ((chunks, 1, 0), (chunks.T, 3, 2)):
        for upper, lower in pairwise(rows):
            (upper_areas, upper_codes), (lower_areas, lower_codes) = line(upper, before), line(lower, after)
            for a, b in meetings:
                pairs.append(np.stack([upper_areas[a], lower_areas[b]]))
                np.bitwise_or.at(bits, upper_areas[a], kinds[lower_codes[b]])
                np.bitwise_or.at(bits, lower_areas[b], kinds[upper_codes[a]])
        for row, edge in ((rows[0], after), (rows[-1], before)):
            bits[line(row, edge)[0]] |= UNKNOWN
    joined = np.concatenate(pairs, axis=1)
    joined = joined[:, (joined > 0).all(axis=0)]
    graph = sparse.coo_array((np.ones(joined.shape[1], bool), joined), shape=(len(size), len(size)))
    count, area = sparse.csgraph.connected_components(graph, directed=False)
    sizes, touched = np.zeros(count, np.int64), np.zeros(count, np.uint16)
    np.add.at(sizes, area, size)
    np.bitwise_or.at(touched, area[1:], bits[1:])  # the first is no area
    verdict = rule.verdicts(sizes, touched, parts)[area]
    verdict[0] = NO_DATA
    return tuple(
        np.concatenate([verdict[:1], verdict[1 + first : 1 + last]]) for first, last in pairwise(ends)
    )


def over_chunks(data: Any, rule: Rule, scale: Floats | None) -> Any:
    """Return a Dask array (..., rows, columns) of codes after the rule; each plane by itself."""
    from dask.base import tokenize

    name = f"areas-{tokenize(data.name, rule, scale)}"
    first, border, verdict, rule_key = (f"{word}-{name}" for word in ("examine", "border", "settle", "rule"))
    graph: dict[Any, Any] = {rule_key: DataNode(rule_key, rule)}
    *leading, down, across = (len(sizes) for sizes in data.chunks)
    weights: Sequence[Ints | None] = [None] * down
    if scale is not None:
        parts = np.round(scale * PARTS).astype(np.int64)
        weights = np.split(parts, list(accumulate(data.chunks[-2]))[:-1])
    for lead in product(*map(range, leading)):
        for i, j in product(range(down), range(across)):
            here = (*lead, i, j)
            graph[(first, *here)] = Task(
                (first, *here), _examine_planes, TaskRef((data.name, *here)), weights[i], TaskRef(rule_key)
            )
            graph[(border, *here)] = Task((border, *here), _borders, TaskRef((first, *here)))
            graph[(name, *here)] = Task(
                (name, *here),
                _paint_planes,
                TaskRef(rule_key), TaskRef((first, *here)), TaskRef((verdict, *lead)), i * across + j,
                tuple(sizes[k] for sizes, k in zip(data.chunks, here, strict=True)),
            )  # fmt: skip
        borders = [TaskRef((border, *lead, i, j)) for i, j in product(range(down), range(across))]
        parts_a_pixel = 1 if scale is None else PARTS
        graph[(verdict, *lead)] = Task(
            (verdict, *lead), _settle_planes, TaskRef(rule_key), parts_a_pixel, across, *borders
        )
    return array_of(name, graph, data, np.uint8)


def _examine_planes(block: Codes, weights: Ints | None, rule: Rule) -> list[Examined]:
    return [examine(plane, weights, rule) for plane in block.reshape(-1, *block.shape[-2:])]


def _borders(planes: Sequence[Examined]) -> list[Border]:
    return [plane.border for plane in planes]


def _settle_planes(
    rule: Rule, parts: int, across: int, *borders: Sequence[Border]
) -> list[tuple[Codes, ...]]:
    return [settle(rule, parts, across, *plane) for plane in zip(*borders, strict=True)]


def _paint_planes(
    rule: Rule,
    planes: Sequence[Examined],
    verdicts: Sequence[tuple[Codes, ...]],
    chunk: int,
    shape: tuple[int, ...],
) -> Codes:
    painted = [plane.paint(rule, verdict[chunk]) for plane, verdict in zip(planes, verdicts, strict=True)]
    return np.stack(painted).reshape(shape) if painted else np.zeros(shape, np.uint8)
