"""The plan of one call on one array: its options, and the windows over its rows and columns."""

from __future__ import annotations

from dataclasses import dataclass

from xcloudmask.engine.chunks import ChunkedAxis
from xcloudmask.engine.tiling import TilePlan
from xcloudmask.types import AuxInput, Options


@dataclass(frozen=True, slots=True)
class Plan:
    """One call on one array: its options, and the windows over its rows and columns."""

    options: Options
    y: ChunkedAxis
    x: ChunkedAxis

    @classmethod
    def make(cls, options: Options, shape: tuple[int, int]) -> Plan:
        """Plan the windows over an image of `shape` pixels."""
        fy, fx = options.factors
        tiles = TilePlan.make((-(-shape[0] // fy), -(-shape[1] // fx)), options.patch, options.overlap)
        return cls(options, ChunkedAxis(shape[0], fy, tiles.y), ChunkedAxis(shape[1], fx, tiles.x))

    @property
    def tiles(self) -> TilePlan:
        """The windows over the cells."""
        return TilePlan(self.y.plan, self.x.plan)

    @property
    def channels(self) -> int:
        """How many numbers a pixel has in the sums: one a class, and the uncertainty if it is asked for."""
        return len(self.options.spec.classes) + self.options.uncertainty

    @property
    def class_axis(self) -> tuple[int, ...]:
        """Shape of the output's class axis; empty where the output has none."""
        if self.options.output == "classes":
            return ()
        return (len(self.options.scheme.codes) + self.options.uncertainty,)

    @property
    def aux(self) -> tuple[AuxInput, ...]:
        """What the network is given behind the bands: of fixed inputs all, whether at hand or not."""
        return self.options.aux if self.options.spec.any_bands else self.options.spec.aux
