"""Which model answers: the one that was named or, for ``auto``, the richest that bands and level allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xcloudmask import models
from xcloudmask.bands import missing_bands
from xcloudmask.errors import BandError, UnitWarning
from xcloudmask.types import LEVEL_TITLES, Band, Level, ModelSpec, parse_level
from xcloudmask.warn import warn_user


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that ``auto`` considers, and why it cannot be taken; no reasons if it can."""

    spec: ModelSpec
    missing: tuple[str, ...]
    other_level: bool

    @property
    def fits(self) -> bool:
        """Whether bands and level allow it."""
        return not self.missing and not self.other_level

    @property
    def reason(self) -> str:
        """Why not, in words; empty if it fits."""
        why = [f"needs {', '.join(self.missing)}"] if self.missing else []
        if self.other_level and self.spec.level is not None:
            why.append(f"is for {LEVEL_TITLES[self.spec.level]} reflectance")
        return "; ".join(why)


def candidates(bands: Sequence[Band], level: Level | None) -> list[Candidate]:
    """Return every model that ``auto`` may take, the richest first, with what speaks against it."""
    wanted = level or "toa"
    return [
        Candidate(spec, tuple(missing_bands(bands, spec)), spec.level not in (None, wanted))
        for spec in models.automatic()
    ]


def _named(model: Any) -> ModelSpec:
    if isinstance(model, ModelSpec):
        return model
    return models.get(model) if isinstance(model, str) else models.spec_of(model)


def choose_model(model: Any, bands: Sequence[Band], level: str | None) -> ModelSpec:
    """Return the model to run, for a name, a card or a module that was registered.

    For ``auto``, a BandError lists what each needs if none fits.
    """
    if model != "auto":
        spec = _named(model)
        wanted = None if level is None else parse_level(level)
        if wanted is not None and spec.level not in (None, wanted):
            warn_user(
                f"model {spec.name!r} was trained on {LEVEL_TITLES[spec.level]} reflectance and the array "
                f"says level={level!r}: take a model of that level, or model='auto'",
                UnitWarning,
            )
        return spec
    if level is None:
        warn_user(
            "the processing level is not told: taking the values as top-of-atmosphere reflectance (L1C). "
            "Say da.cloudmask.describe(level='L1C') or describe(level='L2A')",
            UnitWarning,
        )
    found = candidates(bands, None if level is None else parse_level(level))
    for candidate in found:
        if candidate.fits:
            return candidate.spec
    have = ", ".join(band.common_name or band.name for band in bands)
    needs = "".join(
        f"\n  {c.spec.name} needs {', '.join(c.spec.bands) or 'any bands'}; missing: {', '.join(c.missing)}"
        for c in found
        if not c.other_level
    )
    others = [name for name in models.list() if models.get(name).any_bands]
    way_out = f"\nTakes any bands, at lower quality (see its card): model={others[0]!r}" if others else ""
    raise BandError(
        f"no model fits the bands of this array ({have}). If they have other names, say "
        f"da.cloudmask.describe(sensor=...) or describe(bands=[...]).{needs}{way_out}"
    )
