"""Which files weights are fitted to, which choose epoch and threshold, and which no training may read."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from xcloudmask import sensors
from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError, warn_user
from xcloudmask.train.augment import count_of
from xcloudmask.train.config_tables import Data, Recipe
from xcloudmask.train.files import Entry, find, split
from xcloudmask.train.imitation import INSTRUMENTS, imitate, shared
from xcloudmask.train.plan import Plan
from xcloudmask.train.samples import AUX_NAMES, Sample
from xcloudmask.types import AuxInput

#: Scenes below which a fixed number of them is kept for choosing.
FEW = 10


def entries_of(
    plan: Plan, root: Path, taught: Path, recipe: Recipe | None = None
) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """Return what to fit, what to choose settings by, and what is held out."""
    data, recipe = plan.data, recipe or plan.recipe
    labelled = find(root / data.train, data.sources)
    weak = find(taught) if data.teacher else []
    if data.sensors is not None:
        present = {entry.sensor for entry in (*labelled, *weak)}
        for name in data.sensors:
            if name not in present:
                raise OptionError("sensor in [data]", name, allowed=sorted(present))
        kept = (data.sensors, data.dev_scenes)
        labelled, weak = (
            [e for e in part if e.sensor in kept[0] or e.scene in kept[1]] for part in (labelled, weak)
        )
    sources = {entry.source for entry in (*labelled, *weak)}
    for source in data.weights:
        if source not in sources:
            raise OptionError("source in [data.weights]", source, allowed=sources)
    fit, dev = _parted(labelled, data)
    fit = [*(fit if data.labelled else []), *weak]
    wanted = recipe.bands or recipe.among
    if wanted:
        few = len(recipe.bands) or recipe.least_bands
        fit, dev = ([e for e in part if count_of(e.read(), wanted) >= few] for part in (fit, dev))
    if plan.validation.instrument is not None:
        dev = seen_by(plan.validation.instrument, dev)
    if not fit:
        which = f"{recipe.least_bands} of the bands" if recipe.among else "the bands"
        raise CloudMaskError(
            f"nothing to train on in {root}" + (f" has {which} {', '.join(wanted)}" if wanted else "")
        )
    held = root / data.held_out if data.held_out else None
    if held is not None and not held.is_dir():
        raise CloudMaskError(
            f"held_out names {held}, which is no folder: nothing could be kept out of training. Correct it, "
            "or leave it out"
        )
    scored = [] if plan.score is None else find(root / plan.score.folder, plan.score.sources)
    return fit, dev, [*(find(held) if held is not None else []), *scored]


@dataclass(frozen=True, slots=True)
class Seen(Entry):
    """A patch as an instrument would have recorded it; the noise is that of its scene."""

    instrument: str = ""

    def read(self) -> Sample:
        """Read it, and imitate."""
        made = imitate(self.instrument)(
            Entry.read(self), np.random.default_rng(zlib.crc32(self.scene.encode()))
        )
        if made is None:
            raise CloudMaskError(
                f"{self.path} lacks a band of {self.instrument}, or is smaller than its pixel"
            )
        return made


def seen_by(instrument: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the patches that have the bands of an instrument, as it would have recorded them.

    Examples
    --------
    >>> seen_by("proba-v", [Entry(Path("landsat8.csv"), "pixels", "pixels")])
    []
    """
    wanted = sensors.get(INSTRUMENTS[instrument].sensor).bands

    def has_bands(entry: Entry) -> bool:
        bands = entry.read().bands  # once: it is a file
        return all(shared(band, bands) for band in wanted)

    return [
        Seen(**{each.name: getattr(entry, each.name) for each in fields(Entry)}, instrument=instrument)
        for entry in entries
        if entry.path.suffix == ".npz" and has_bands(entry)
    ]


def check_aux(entries: Iterable[Entry], aux: Sequence[AuxInput], *, every: bool) -> None:
    """Raise CloudMaskError if files lack an aux input: any of them (with `every`), or all.

    Examples
    --------
    >>> check_aux([], [AuxInput("elevation")], every=True)
    """
    held = {entry.path: entry.aux() for entry in entries} if aux else {}
    for each in aux:
        without = [path for path, names in held.items() if each.name not in names]
        if without and (every or len(without) == len(held)):
            remedy = f"write_patch(..., aux={{{each.name!r}: ...}}) puts it there; or leave such sources out"
            if each.name not in AUX_NAMES:
                remedy = f"patches hold no aux inputs but {', '.join(AUX_NAMES)}: name some of these"
            raise CloudMaskError(
                f"{without[0]} holds no {each.name}, which the network takes ({len(without)} of {len(held)} "
                f"files lack it): {remedy}, or leave it out of [network]"
            )


def _parted(labelled: list[Entry], data: Data) -> tuple[list[Entry], list[Entry]]:
    """Part what is labelled by hand: scenes in dev_scenes, or a share `dev` of them, are for choosing."""
    named = data.dev_scenes
    for scene in named:
        if scene not in {entry.scene for entry in labelled}:
            raise OptionError("scene in dev_scenes", scene, allowed={entry.scene for entry in labelled})
    if named:
        rest = [entry for entry in labelled if entry.scene not in named]
        return split(rest, 0.0, used=data.used)[0], [e for e in labelled if e.scene in named]
    if not data.dev:
        return split(labelled, 0.0, used=data.used)[0], []
    fit, dev = split(labelled, data.dev, used=data.used)
    patches = [entry for entry in labelled if entry.path.suffix == ".npz"]
    scenes = sorted({e.scene for e in patches}, key=lambda scene: hashlib.sha256(scene.encode()).digest())
    if len(scenes) < FEW:  # a hash of their names decides, and may take none of a few, or most
        kept = set(scenes[: max(1, round(data.dev * len(scenes)))] if len(scenes) > 2 else ())
        rest = split([e for e in patches if e.scene not in kept], 0.0, used=data.used)[0]
        chosen = [e for e in patches if e.scene in kept]
        fit = [*rest, *(e for e in fit if e.path.suffix != ".npz")]
        dev = [*chosen, *(e for e in dev if e.path.suffix != ".npz")]
    if not dev:
        warn_user(
            "too few scenes to keep one for choosing: the epoch of the least loss is taken, and no threshold "
            "is chosen. Give more scenes, or name some in dev_scenes",
            ModelWarning,
        )
    return fit, dev
