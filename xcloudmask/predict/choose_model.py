"""Which model answers: the one that was named or, for ``auto``, the one that scored best with such bands.

``evidence.json`` holds, for the bands of several instruments, the models in the order of their scores on
held-out scenes; ``examples/train/score_models.py`` writes it, and ``docs/scores.md`` shows it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from xcloudmask import models, sensors
from xcloudmask.classes import cloud_channels
from xcloudmask.errors import BandError, CloudMaskError, ModelWarning, Remedy, UnitWarning, Use, warn_user
from xcloudmask.models.lookup import answers_as_published
from xcloudmask.models.own.modules import spec_of
from xcloudmask.scene.bands import find_band, lacking, missing_bands
from xcloudmask.types import LEVEL_TITLES, Band, Level, ModelSpec, parse_level


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that ``auto`` considers, and why it cannot be taken; no reasons if it can."""

    spec: ModelSpec
    missing: tuple[str, ...]
    other_level: bool
    too_coarse: bool = False  # the pixels are larger than any it was trained on: others are asked first
    too_fine: bool = False  # likewise, where they are smaller

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


@dataclass(frozen=True, slots=True)
class Evidence:
    """The models that were scored with some bands, the best first.

    Parameters
    ----------
    bands : tuple of str
        Common names.
    order : tuple of str
        Models; those that differ by level alone share a name (ukis-4band).
    scores : mapping of str to (float, float, float)
        Balanced accuracy and its 95 % interval.
    scenes : int
        How many were scored on.
    chosen : tuple of str
        Models some of whose settings were chosen on those scenes, too.
    """

    bands: tuple[str, ...]
    order: tuple[str, ...]
    scores: Mapping[str, tuple[float, float, float]]
    scenes: int
    chosen: tuple[str, ...] = ()


@cache
def evidence() -> tuple[Evidence, ...]:
    """Return what is known, for the most bands first.

    Examples
    --------
    >>> evidence()[0].bands
    ('blue', 'green', 'red', 'nir', 'swir16', 'swir22')
    """
    stored = json.loads(Path(__file__).with_name("evidence.json").read_text(encoding="utf-8"))
    by_bands = [
        Evidence(
            tuple(scored["bands"]),
            tuple(scored["order"]),
            {model: (mean, low, high) for model, (mean, low, high) in scored["balanced_accuracy"].items()},
            scored["scenes"],
            tuple(stored["settings_chosen_there"]),
        )
        for scored in stored["sets"].values()
    ]
    return tuple(sorted(by_bands, key=lambda known: -len(known.bands)))


def evidence_for(bands: Sequence[Band]) -> Evidence | None:
    """Return the evidence for the most of these bands; None where there is none."""
    fitting = (known for known in evidence() if all(find_band(bands, n) is not None for n in known.bands))
    return next(fitting, None)


def family(spec: ModelSpec) -> str:
    """Return a model's name without its level.

    Examples
    --------
    >>> family(models.get("ukis-4band-l2a"))
    'ukis-4band'
    """
    return spec.name.removesuffix("-l1c").removesuffix("-l2a")


def candidates(bands: Sequence[Band], level: Level | None, pixel: float | None = None) -> list[Candidate]:
    """Return every model that ``auto`` may take, the best first, with what speaks against it.

    Models that were scored with the most of these bands go first, in the order that docs/scores.md tells. The
    scores are of top-of-atmosphere scenes; for surface reflectance, of which there are too few, they serve
    too, but where no band is lacking one network alone goes before several. Models that were trained on
    finer pixels than these go behind all that take any: there, networks that look at shapes do worse. So do
    those that were trained on coarser ones alone.
    """
    wanted = level or "toa"
    known = evidence_for(bands)
    order = {} if known is None else {name: place for place, name in enumerate(known.order)}
    asked = [
        Candidate(
            spec,
            tuple(missing_bands(bands, spec)),
            spec.level not in (None, wanted),
            pixel is not None and too_coarse(pixel, spec),
            pixel is not None and too_fine(pixel, spec),
        )
        for spec in models.automatic()
    ]
    asked.sort(key=lambda c: (c.too_coarse or c.too_fine, order.get(family(c.spec), len(order))))
    first = next((c for c in asked if c.fits), None)
    if wanted == "boa" and first is not None and first.spec.fills:
        alone = [c for c in asked if c.fits and not c.spec.fills and made_for(c.spec, bands)]
        asked = [*alone[:1], *(c for c in asked if c not in alone[:1])]
    return asked


def too_coarse(pixel: float, spec: ModelSpec) -> bool:
    """Whether pixels of so many metres are larger than a model was made for.

    Examples
    --------
    >>> spec = models.get("ukis-4band-l2a")
    >>> too_coarse(30, spec), too_coarse(300, spec)
    (False, True)
    """
    return spec.gsd is not None and pixel > 1.5 * spec.gsd[1]


def too_fine(pixel: float, spec: ModelSpec) -> bool:
    """Whether pixels of so many metres are smaller than a model was made for.

    Examples
    --------
    >>> spec = models.get("sensei")
    >>> too_fine(30, spec), too_fine(300, spec)
    (True, False)
    """
    return spec.finest_pixel is not None and 1.5 * pixel < spec.finest_pixel


def _named(model: Any, level: Level | None) -> ModelSpec:
    if isinstance(model, ModelSpec):
        return model
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if not isinstance(model, str):
        return spec_of(model)
    name = models.for_level(model, level)
    if level is None and name != model:
        _warn_of_no_level()
    return models.get(name)


def _warn_of_no_level() -> None:
    warn_user(
        "the processing level is not told: taking the values as top-of-atmosphere reflectance (L1C)",
        UnitWarning,
        Remedy("Say {} or {}", Use("da.cloudmask.describe", level="L1C"), Use("describe", level="L2A")),
    )


def choose_model(model: Any, bands: Sequence[Band], level: str | None, pixel: float | None) -> ModelSpec:
    """Return the model to run, for a name, a card or a module that was registered.

    For ``auto``, a BandError lists what each needs if none fits. `pixel` is the size of a pixel in metres.
    """
    wanted = None if level is None else parse_level(level)
    if model != "auto":
        spec = _named(model, wanted)
        if wanted is not None and spec.level not in (None, wanted):
            warn_user(
                f"model {spec.name!r} was trained on {LEVEL_TITLES[spec.level]} reflectance and the array "
                f"says level={level!r}:",
                UnitWarning,
                Remedy("take a model of that level, or {}", Use(model="auto")),
            )
        return spec
    if level is None:
        _warn_of_no_level()
    known = candidates(bands, wanted, pixel)
    for candidate in known:
        if candidate.fits:
            if not made_for(candidate.spec, bands):
                finer = next((c.spec for c in known if c.fits and c.too_coarse), None)
                doubt = _doubt(candidate.spec, bands, finer, pixel, surface=wanted == "boa")
                warn_user(doubt, ModelWarning)
            return candidate.spec
    have = ", ".join(band.common_name or band.name for band in bands)
    needs = "".join(
        f"\n  {c.spec.name} needs {c.spec.needs}; missing: {', '.join(c.missing)}"
        for c in known
        if not c.other_level
    )
    raise BandError(
        f"no model fits the bands of this array ({have}).{needs}",
        Remedy(
            "If they have other names, say {} or {}",
            Use("da.cloudmask.describe", sensor=...),
            Use("describe", bands=[...]),
        ),
    )


def default_model() -> ModelSpec:
    """Return what `predict` takes for Sentinel-2 and Landsat, top of atmosphere, where no model is named.

    Examples
    --------
    >>> default_model().name
    'ukis-any-l1c'
    """
    return choose_model("auto", sensors.get("sentinel-2").bands, "toa", None)


def made_for(spec: ModelSpec, bands: Sequence[Band]) -> bool:
    """Whether a model was trained on bands that are all there, but for those that it does as well without."""
    return not spec.any_bands and set(lacking(bands, spec)) <= set(spec.spare)


def _doubt(
    spec: ModelSpec, bands: Sequence[Band], finer: ModelSpec | None, pixel: float | None, *, surface: bool
) -> str:
    """Say how good the answer of a model may be that was not made for such bands, or for any pixels.

    `finer` would have answered, were the pixels finer.
    """
    known = evidence_for(bands)
    if known is None or family(spec) not in known.scores:
        worth = "how well it does with these bands was never measured"
    else:
        value, low, high = known.scores[family(spec)]
        worth = (
            f"with {', '.join(known.bands)} it scored a balanced accuracy of {value:.2f} [{low:.2f}, "
            f"{high:.2f}] on {known.scenes} scenes of Landsat 8 at 30 m"
            + " (its thresholds were chosen on them, too)"
            * (family(spec) in known.chosen)
        )
        if surface:
            worth += ", top of atmosphere; for surface reflectance it was not measured"
    absent = lacking(bands, spec)
    how = f"which estimates {', '.join(absent)} from the others" if absent else "which takes any"
    why, remedy = "no model was made for these bands", ", or describe(...) if bands have other names"
    if find_band(bands, "nir") is None:
        remedy = f", or load the near infrared, which is missing{remedy}"
    if finer is not None and finer.gsd is not None and pixel is not None:
        low, high = finer.gsd
        why = f"the pixels are {pixel:.4g} m, and {finer.name!r} was made for {low:g} to {high:g} m"
        how, remedy = "which takes any bands and pixels", ""
    return (
        f"{why}; {spec.name!r} answers, {how}: {worth}. Say "
        f"model={spec.name!r} to take it without this warning{remedy}"
    )


def saturation_for(spec: ModelSpec, asked: Any) -> Any:
    """Return ``saturation=`` as it holds for a model: a published system answers as published.

    Examples
    --------
    >>> saturation_for(models.get("sensei"), "auto"), saturation_for(models.get("omnicloudmask"), "auto")
    ('auto', None)
    """
    if asked == "auto":
        return None if answers_as_published(spec) or not cloud_channels(spec) else asked
    if asked is not None and not cloud_channels(spec):
        raise CloudMaskError(
            f"saturated pixels are cloud, and model {spec.name!r} has only {', '.join(spec.classes)}:",
            "leave saturation out",
        )
    return asked
