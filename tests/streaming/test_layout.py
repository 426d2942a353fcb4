"""The plan of a stream: integers, so it is tried on many cuts."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xcloudmask.engine.chunks import ChunkedAxis
from xcloudmask.engine.tiling import AxisPlan
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.store.regions import Layout
from xcloudmask.store.sizes import choose_sizes
from xcloudmask.streaming.layout import WindowLayout


@st.composite
def axes(draw: st.DrawFn) -> ChunkedAxis:
    size, factor = draw(st.integers(1, 300)), draw(st.integers(1, 5))
    patch = draw(st.integers(1, 50))
    return ChunkedAxis(size, factor, AxisPlan(-(-size // factor), patch, draw(st.integers(0, patch - 1))))


@settings(deadline=None, max_examples=300)
@given(axis=axes(), size=st.integers(1, 320))
def test_every_window_has_one_owner_and_every_cell_gets_all_its_windows(axis: ChunkedAxis, size: int) -> None:
    regions = axis.cut(axis.every(size))
    owned = [window for region in regions for window in range(*region.windows)]
    assert owned == list(range(axis.plan.count))
    for index, region in enumerate(regions):
        assert all(piece.chunk <= index for piece in region.sums)  # nothing is waited for that comes later
        found = [set() for _ in range(region.needs[1] - region.needs[0])]
        for piece in region.sums:
            lo = axis.plan.span(*regions[piece.chunk].windows)[0] + piece.start
            assert lo == region.needs[0] + piece.offset
            for cell in range(lo, lo + piece.stop - piece.start):
                here = {
                    w
                    for w in range(*regions[piece.chunk].windows)
                    if axis.plan.start(w) <= cell < axis.plan.start(w) + axis.plan.patch
                }
                assert not found[cell - region.needs[0]] & here
                found[cell - region.needs[0]] |= here
        for cell, windows in zip(range(*region.needs), found, strict=True):
            starts = axis.plan.starts
            assert windows == set(
                np.flatnonzero((starts <= cell) & (cell < starts + axis.plan.patch)).tolist()
            )
        if region.windows[0] < region.windows[1]:
            lo, hi = axis.pixel_span(region.windows)
            assert region.box[0] <= lo
            assert hi <= region.box[1]
        assert region.box[0] <= region.pixels[0]
        assert region.pixels[1] <= region.box[1]


@settings(deadline=None, max_examples=60)
@given(y=axes(), x=axes(), region=st.tuples(st.integers(20, 200), st.integers(20, 200)))
def test_strips_are_what_the_others_ask_for(y: ChunkedAxis, x: ChunkedAxis, region: tuple[int, int]) -> None:
    windows = WindowLayout(Layout((2,), (y.size, x.size), (1,), region), y, x, classes=3)
    left, asked = set(), set()
    for tile in product(*(range(n) for n in windows.layout.tiles)):
        stop = 0
        for strip in windows.strips((0, *tile)):
            assert strip.start == stop
            rows, cols = strip.shape((1, 3))[-2:]
            stop = strip.stop
            assert stop - strip.start == 3 * rows * cols
            left.add((tile, strip.consumer))
        assert stop <= windows.longest
        asked |= {(other, tile) for other in windows.producers(tile) if other != tile}
    assert left == asked


def test_regions_are_whole_shards() -> None:
    found = choose_sizes(("time", "class", "y", "x"), (3, 4, 700, 5000), ("y", "x"), "class", None, None)
    assert found.chunks == (1, 4, 512, 512)
    assert found.shards == (1, 4, 1024, 2048)
    assert found.layout.grid == (3, 1, 3)
    assert choose_sizes(("y", "x"), (100, 90), ("y", "x"), None, None, None).shards is None
    plain = choose_sizes(("y", "x"), (5000, 5000), ("y", "x"), None, {"x": 300}, False)
    assert plain.shards is None
    assert plain.layout.region == (2048, 1800)


def test_bad_sizes_say_what_is_right() -> None:
    dims, shape, yx = ("time", "y", "x"), (3, 700, 700), ("y", "x")
    with pytest.raises(OptionError, match=r"'lat'.*time, y, x"):
        choose_sizes(dims, shape, yx, None, {"lat": 3}, None)
    with pytest.raises(CloudMaskError, match="500 along 'y' is no multiple of the chunk, 200; such as 400"):
        choose_sizes(dims, shape, yx, None, {"y": 200}, {"y": 500})
    with pytest.raises(CloudMaskError, match="has 2 sizes"):
        choose_sizes(dims, shape, yx, None, (1, 2), None)
    with pytest.raises(CloudMaskError, match="0 along 'y'"):
        choose_sizes(dims, shape, yx, None, {"y": 0}, None)
