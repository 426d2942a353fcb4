"""How chunks share the plan: every window once, every pixel and sum from where it lies."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import chunks
from xcloudmask.engine.chunks import ChunkedAxis
from xcloudmask.engine.tiling import AxisPlan


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_pieces_put_together_are_what_a_chunk_asked_for(data: st.DataObject) -> None:
    size, factor = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 4))
    patch = data.draw(st.integers(1, 24))
    plan = AxisPlan(-(-size // factor), patch, data.draw(st.integers(0, patch - 1)))
    axis = ChunkedAxis(size, factor, plan)
    cut = data.draw(chunks(size))
    if data.draw(st.booleans()):  # an empty chunk may lie anywhere
        at = data.draw(st.integers(0, len(cut)))
        cut = (*cut[:at], 0, *cut[at:])
    parts = axis.cut(cut)
    edges = np.concatenate([[0], np.cumsum(cut)])
    pixels = [np.arange(a, b) for a, b in itertools.pairwise(edges)]
    owned = [index for part in parts for index in range(*part.windows)]
    assert owned == list(range(plan.count)), "each window has one owner"

    sums = {}
    for number, part in enumerate(parts):
        assert part.pixels == (edges[number], edges[number + 1])
        if part.windows[0] == part.windows[1]:
            assert part.reads == ()
            assert part.box == part.pixels
            continue
        for index in range(*part.windows):
            covers = plan.starts[index], plan.starts[index] + patch
            need = [
                k
                for k, other in enumerate(parts)
                if max(covers[0], other.needs[0]) < min(covers[1], other.needs[1])
            ]
            assert number == need[0], "a window belongs to the first chunk whose output needs it"
            assert edges[number] <= plan.starts[index] * factor
        first, stop = axis.pixel_span(part.windows)
        read = np.full(stop - first, -1)
        assert part.box == (min(first, part.pixels[0]), max(stop, part.pixels[1]))
        for piece in part.reads:
            got = pixels[piece.chunk][piece.start : piece.stop]
            assert piece.whole == (len(got) == len(pixels[piece.chunk]))
            assert (read[piece.offset : piece.offset + len(got)] == -1).all(), "no pixel is read twice"
            read[piece.offset : piece.offset + len(got)] = got
        np.testing.assert_array_equal(read, np.arange(first, stop))
        lo, hi = plan.span(*part.windows)
        sums[number] = np.zeros(hi - lo)
        for index in range(*part.windows):
            weights = plan.weights(index)
            start = plan.start(index) - lo
            sums[number][start : start + len(weights)] += weights

    for number, part in enumerate(parts):
        assert all(piece.chunk <= number for piece in part.sums), "nothing is waited for that comes later"
        if part.pixels[0] == part.pixels[1]:
            assert part.sums == ()
            continue
        total = np.zeros(part.needs[1] - part.needs[0])
        for piece in part.sums:
            got = sums[piece.chunk][piece.start : piece.stop]
            assert len(got) > 0
            assert piece.whole == (len(got) == len(sums[piece.chunk]))
            total[piece.offset : piece.offset + len(got)] += got
        np.testing.assert_allclose(total, 1, atol=1e-5, err_msg="some window's contribution is missing")


@given(size=st.integers(1, 80), factor=st.integers(1, 5), data=st.data())
def test_the_cells_needed_are_those_that_bilinear_return_touches(
    size: int, factor: int, data: st.DataObject
) -> None:
    cells = -(-size // factor)
    axis = ChunkedAxis(size, factor, AxisPlan(cells, 8, 2))
    first = data.draw(st.integers(0, size - 1))
    stop = data.draw(st.integers(first + 1, size))
    position = (np.arange(first, stop) + 0.5) / factor - 0.5
    touched = np.clip([np.floor(position), np.floor(position) + 1], 0, cells - 1)
    if factor == 1:
        touched = touched[:1]
    assert axis.needed_cells((first, stop)) == (touched.min(), touched.max() + 1)
