"""Which bands of two samples are the same."""

from __future__ import annotations

from xcloudmask.train.samples import Sample
from xcloudmask.types import Band


def shared_bands(one: Sample, other: Sample) -> tuple[list[int], list[int]]:
    """Return the positions of the bands that both have, in the order of the first.

    Two bands are the same if their kinds are, and the centre of each lies within the other or within 25 nm.

    Examples
    --------
    >>> import numpy as np
    >>> from xcloudmask.types import Band
    >>> def make(*nm):
    ...     bands = tuple(Band(str(c), None, c - 15, c, c + 15) for c in nm)
    ...     return Sample(np.zeros((len(nm), 1, 1), "f4"), bands, np.ones((1, 1), "u1"), 30.0)
    >>> shared_bands(make(490, 665, 1610), make(1650, 1615, 660))
    ([1, 2], [2, 1])
    """
    mine, theirs = [], []
    for i, band in enumerate(one.bands):
        found = [
            (abs((band.center_nm or 0) - (twin.center_nm or 0)), j)
            for j, twin in enumerate(other.bands)
            if _same(band, twin) and j not in theirs
        ]
        if found:
            mine.append(i)
            theirs.append(min(found)[1])
    return mine, theirs


def _same(a: Band, b: Band) -> bool:
    if a.kind != b.kind or a.center_nm is None or b.center_nm is None:
        return False
    return abs(a.center_nm - b.center_nm) <= (25 if a.kind == "reflectance" else 700)
