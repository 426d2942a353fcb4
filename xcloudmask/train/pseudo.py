"""Labels from a teacher: what models are sure of on images that nobody labelled, as partial labels.

The label of a pixel is the smallest set of classes that the teacher is sure the truth is in: one class where
it is sure, two where it wavers between two, none (not labelled) where anything may be.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.labels import ASKED, BITS, EVERY, GROUND, WORDS, open_classes
from xcloudmask.models import for_level
from xcloudmask.train import patches
from xcloudmask.train.augment import places
from xcloudmask.train.files import Entry, find
from xcloudmask.train.samples import Labels, Sample, to_xarray
from xcloudmask.types import ModelSpec

Floats = NDArray[np.float32]
#: Of aux planes of a sample; those of radar are ratios of powers.
UNITS = {"elevation": "m", "angle": "degrees"}


def confident_labels(probabilities: Floats, classes: Sequence[str], confident: float = 0.9) -> Labels:
    """Return the bit mask of the likeliest classes that together reach a probability of `confident`.

    Probabilities are (classes, y, x); NaN, for no data, gives 0.

    Examples
    --------
    >>> p = np.array([[0.95, 0.5, 0.4], [0.03, 0.05, 0.3], [0.02, 0.45, 0.3]])[:, None]
    >>> confident_labels(p, ["clear", "cloud", "cloud_shadow"]).tolist()  # clear; clear or shadow; nothing
    [[113, 121, 0]]
    """
    if not 0.5 < confident <= 1:
        raise CloudMaskError(f"confident={confident!r} must lie above 0.5 and not above 1")
    order = np.argsort(-probabilities, axis=0, kind="stable")
    ranked = np.take_along_axis(probabilities, order, axis=0)
    before = np.cumsum(ranked, axis=0) - ranked
    needed = before < confident - 1e-6  # the classes ahead of it do not suffice
    words = open_classes(classes)
    bits = np.array([b | (BITS["clear"] if b & GROUND else 0) for b in words.values()], np.uint8)
    out = np.bitwise_or.reduce(np.where(needed, bits[order], np.uint8(0)), axis=0)
    undecided = (out & EVERY) == EVERY
    return np.where(undecided | np.isnan(probabilities).any(axis=0), np.uint8(0), out).astype(np.uint8)


def teach(
    sample: Sample, models: Sequence[str | ModelSpec], *, confident: float = 0.9, tta: bool = False
) -> Labels | None:
    """Return labels for a sample from the mean answer of the models that fit it, or None if none does.

    A model fits if the sample has its bands and level, and pixels that it was made for or finer ones. Its
    labels are clear, cloud (of any thickness) and shadow; a model without the class shadow leaves clear and
    shadow open. ``"ukis-4band"`` means ukis-4band-l1c or ukis-4band-l2a, as the sample's level asks.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> red, label = np.zeros((1, 4, 4), "f4"), np.zeros((4, 4), "u1")
    >>> one = Sample(red, (Band("a", "red"),), label, 30.0, level="toa")
    >>> teach(one, ["ukis-4band"]) is None  # it has no green
    True
    """
    p = opinion(sample, models, tta=tta)
    if p is None:
        return None
    if np.isnan(p[2]).all():
        return confident_labels(p[:2], ["clear", "cloud"], confident)
    return confident_labels(p, list(ASKED), confident)


def opinion(
    sample: Sample, models: Sequence[str | ModelSpec], *, tta: bool = False, device: str = "auto"
) -> Floats | None:
    """Return the mean answer of the models that fit a sample (see `teach`), or None if none does.

    That is probabilities of clear, cloud and shadow, (3, y, x), NaN where there is no data. If no model has
    shadow, that is NaN everywhere and clear means not cloud.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> red, label = np.zeros((1, 4, 4), "f4"), np.zeros((4, 4), "u1")
    >>> opinion(Sample(red, (Band("a", "red"),), label, 30.0, level="toa"), ["ukis-4band"]) is None
    True
    """
    answers = [p for p in (_asked(sample, model, tta, device) for model in models) if p is not None]
    if not answers:
        return None
    with_shadow = [p for p in answers if not np.isnan(p[2]).all()]
    mean: Floats = np.mean(with_shadow or answers, axis=0)  # over different questions it would be none
    return mean


def _asked(sample: Sample, model: str | ModelSpec, tta: bool, device: str) -> Floats | None:
    """Return one model's probabilities of `ASKED`, shadow NaN where it has no such class; None if unfit."""
    spec = _resolved(model, sample.level)
    if spec.gsd is not None and sample.gsd > spec.gsd[1] * 1.01:
        return None
    answer = ask(sample, spec, tta=tta, device=device)
    if answer is None:
        return None
    p, words, *_ = answer
    out = np.zeros((len(ASKED), *p.shape[1:]), np.float32)
    for row, bits in enumerate(ASKED.values()):
        mine = [i for i, word in enumerate(words) if WORDS[word] and not WORDS[word] & ~bits]
        out[row] = p[mine].sum(axis=0) if mine else np.nan
    return out


def ask(
    sample: Sample, model: str | ModelSpec, *, tta: bool = False, device: str = "auto"
) -> tuple[Floats, list[str], float | None, float | None] | None:
    """Return a model's probabilities (class, y, x), their classes, and its thresholds of cloud and shadow.

    None if the sample lacks one of its bands, or is of another level.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> red, label = np.zeros((1, 4, 4), "f4"), np.zeros((4, 4), "u1")
    >>> ask(Sample(red, (Band("a", "red"),), label, 30.0, level="toa"), "ukis-4band") is None
    True
    """
    spec = _resolved(model, sample.level)
    if spec.level is not None and spec.level != sample.level:
        return None
    if spec.any_bands:
        bands = [i for i, band in enumerate(sample.bands) if band.kind == "reflectance"]
        at = bands if len(bands) >= spec.min_bands else None
        names = None
    else:
        names = [name for name in spec.bands if not spec.fills or places(sample, [name])]
        at = places(sample, names) if not spec.fills or len(names) >= spec.min_bands else None
    if at is None:
        return None
    taken = sample.select(at)
    if names is not None:
        pairs = zip(taken.bands, names, strict=True)
        taken = replace(taken, bands=tuple(replace(band, common_name=name) for band, name in pairs))
    da = to_xarray(taken)
    aux = {
        name: da.isel(band=0, drop=True).copy(data=plane).assign_attrs(units=UNITS.get(name, "linear"))
        for name, plane in sample.parted()[1].items()
        if name in [str(each.name) for each in spec.aux]
    }
    p = da.cloudmask.predict_proba(model=spec, aux=aux or None, tta=tta, device=device)
    words = [str(word) for word in p["class"].values]
    return p.transpose("class", "y", "x").values, words, spec.threshold, spec.shadow_threshold


def _resolved(model: str | ModelSpec, level: str) -> ModelSpec:
    from xcloudmask.train.networks import model_of

    named = for_level(model, "boa" if level == "boa" else "toa") if isinstance(model, str) else model
    return model_of(named)


def label_folder(
    unlabelled: str | Path,
    out: str | Path,
    models: Sequence[str | ModelSpec],
    *,
    confident: float = 0.9,
    tta: bool = False,
) -> list[Path]:
    """Write the patches of a folder again, with labels from a teacher; those there already are left alone.

    Parameters
    ----------
    unlabelled : path
        Patches as `xcloudmask.train.files` reads them, in a folder a source.
    out : path
        Where to. Another teacher, or other settings, need another folder.
    models, confident, tta
        See `teach`.

    Returns
    -------
    list of Path
        The labelled patches; those that no teacher fits, or is sure of, are left out.
    """
    folder = Path(out)
    names = [model if isinstance(model, str) else model.name for model in models]
    settings = {"models": names, "confident": confident, "tta": tta}
    note = folder / "teacher.json"
    done: dict[str, Any] = json.loads(note.read_text()) if note.exists() else {**settings, "patches": {}}
    if {key: done[key] for key in settings} != settings:
        raise CloudMaskError(f"{folder} holds the labels of another teacher ({done}): choose another folder")
    written = []
    for entry in find(unlabelled):
        path = folder / entry.source / entry.path.name
        key = f"{entry.source}/{entry.path.name}"
        if key not in done["patches"]:
            done["patches"][key] = round(_label_one(entry, path, models, settings), 4)
            folder.mkdir(parents=True, exist_ok=True)
            note.write_text(json.dumps(done, indent=2) + "\n")
        if done["patches"][key]:
            written.append(path)
    if not written:
        raise CloudMaskError(f"the teacher ({', '.join(names)}) is sure of nothing in {unlabelled}")
    return written


def _label_one(
    entry: Entry, path: Path, models: Sequence[str | ModelSpec], settings: dict[str, Any]
) -> float:
    """Write one patch with its labels, if there are any; return the share of pixels that have one."""
    if entry.path.suffix != ".npz":
        return 0.0
    sample = entry.read()
    labels = teach(sample, models, confident=settings["confident"], tta=settings["tta"])
    if labels is None or not labels.any():
        return 0.0
    with np.load(entry.path, allow_pickle=False) as file:
        parts = {name: file[name] for name in file.files}
    meta = {**json.loads(str(parts["meta"])), "labelled_by": settings}
    patches.write(path, **{**parts, "possible": labels, "meta": json.dumps(meta)})
    return float((labels > 0).mean())
