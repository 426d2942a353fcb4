"""What a stream did."""

from __future__ import annotations

import html
from dataclasses import dataclass

from xcloudmask.engine.progress import clock, figure
from xcloudmask.errors import CloudMaskError


@dataclass(frozen=True, slots=True)
class Failure:
    """A region that could not be made, and why."""

    region: tuple[int, ...]
    scene: str
    message: str


@dataclass(frozen=True, slots=True, repr=False)
class StreamReport:
    """What a stream did; print it for a summary.

    Examples
    --------
    >>> report = StreamReport("masks.zarr", "cloud_mask", 60, 40, 20, (), 167.8, 40.0)
    >>> report.complete
    True
    >>> print(report)
    masks.zarr: cloud_mask, 60 of 60 regions done (40 now, 20 before), 167.8 Mpx in 0:40, 4.2 Mpx/s
    """

    store: str
    name: str
    regions: int  # in all, of this call
    written: int  # in this run
    skipped: int  # done in an earlier run
    failed: tuple[Failure, ...]
    megapixels: float
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether every region is done."""
        return self.written + self.skipped == self.regions

    @property
    def rate(self) -> float:
        """Megapixels a second."""
        return self.megapixels / self.seconds if self.seconds > 0 else 0.0

    def raise_if_failed(self) -> None:
        """Raise `CloudMaskError` unless every region is done."""
        if not self.complete:
            raise CloudMaskError(str(self))

    def __repr__(self) -> str:  # what a notebook shows
        return str(self)

    def __str__(self) -> str:
        out = (
            f"{self.store}: {self.name}, {self.written + self.skipped} of {self.regions} regions done "
            f"({self.written} now, {self.skipped} before)"
        )
        if self.written:
            out += f", {figure(self.megapixels)} Mpx in {clock(self.seconds)}, {figure(self.rate)} Mpx/s"
        if not self.failed:
            return out
        lines = [f"  region {f.region} of {f.scene or 'the image'}: {f.message}" for f in self.failed[:10]]
        if len(self.failed) > 10:
            lines.append(f"  and {len(self.failed) - 10} more")
        again = "Run the same call again to try the failed ones once more"
        return "\n".join([f"{out}; {len(self.failed)} failed:", *lines, again])

    def _repr_html_(self) -> str:
        first, *lines = html.escape(str(self)).splitlines()
        folded = f"<details><summary>Which, and why</summary>{'<br>'.join(lines)}</details>"
        return f"<div>{first}{folded if lines else ''}</div>"
