"""What is known of a model while its card is put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller of `load` says; None where nothing is said."""

    name: str | None = None
    sha256: str | None = None
    architecture: str | None = None
    config: Mapping[str, object] | None = None
    bands: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    level: str | None = None
    gsd: tuple[float, float] | None = None
    units: str | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    activation: str | None = None
    threshold: float | None = None
    patch: int | None = None
    overlap: int | None = None
    licence: str | None = None
    citation: str | None = None
    description: str | None = None
    shadow_threshold: float | None = None
    fills: bool | None = None
    min_bands: int | None = None
    spare: Sequence[str] | None = None
    training_data: str | None = None
    scores: str | None = None
    limits: str | None = None
    aux: Sequence[Any] | None = None
    uncertainty: bool | None = None

    def over(self, other: Given) -> Given:
        """Return `other` with what is said here put in its place."""
        said = {name: getattr(self, name) for name in self.__slots__}
        return dataclasses.replace(
            other, **{name: value for name, value in said.items() if value is not None}
        )
