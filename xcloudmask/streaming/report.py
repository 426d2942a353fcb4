"""What a stream did."""

from __future__ import annotations

from dataclasses import dataclass

from xcloudmask.errors import CloudMaskError
from xcloudmask.streaming.progress import clock


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
            f"({self.written} now, {self.skipped} before), {self.megapixels:.1f} Mpx in "
            f"{clock(self.seconds)}, "
            f"{self.rate:.1f} Mpx/s"
        )
        if not self.failed:
            return out
        lines = [f"  region {f.region} of {f.scene or 'the image'}: {f.message}" for f in self.failed[:10]]
        more = f"\n  and {len(self.failed) - 10} more" if len(self.failed) > 10 else ""
        return (
            f"{out}; {len(self.failed)} failed:\n"
            + "\n".join(lines)
            + more
            + "\nRun the same call again to try "
            "the failed ones once more"
        )
