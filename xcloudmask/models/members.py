"""The card of an ensemble: what its members' cards must agree in, and what comes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from xcloudmask.classes import cloud_channels
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.types import REDUCTIONS, ModelSpec, Reduction

#: The function that loads an ensemble.
ENSEMBLE = "xcloudmask.models.ensembles:network"
#: What members must agree in: what goes in, and what the answer means.
SHARED = ("bands", "any_bands", "classes", "level", "aux", "fills", "gaps")


def joined(
    specs: Sequence[ModelSpec],
    name: str,
    *,
    weights: Sequence[float] | None = None,
    reduce: Reduction | None = None,
    uncertainty: bool = False,
) -> ModelSpec:
    """Return the card of an ensemble; nothing is registered.

    Examples
    --------
    >>> from xcloudmask import models
    >>> joined([models.get("spectral"), models.get("sensei")], "both", reduce="max").description
    'max of spectral, sensei'
    """
    if not name or not isinstance(name, str):
        raise CloudMaskError(f"name={name!r}: pass a name for the ensemble, name='both'")
    if len(specs) < 2:
        raise CloudMaskError(f"an ensemble has two members or more, got {len(specs)}")
    reduce = specs[0].reduce if reduce is None else reduce
    if reduce not in REDUCTIONS:
        raise OptionError("reduce", reduce, allowed=REDUCTIONS)
    if weights is not None and (len(weights) != len(specs) or reduce != "mean" or min(weights) <= 0):
        raise CloudMaskError(
            f"weights={weights!r}: pass {len(specs)} numbers above 0, one a member, with reduce='mean'"
        )
    first = specs[0]
    for spec in specs:
        if spec.members or spec.uncertainty:
            raise CloudMaskError(f"model {spec.name!r} is an ensemble already: pass its members themselves")
        for what in SHARED:
            if getattr(spec, what) != getattr(first, what):
                raise CloudMaskError(
                    f"members of an ensemble must agree in {what}: {first.name!r} has "
                    f"{getattr(first, what)}, {spec.name!r} has {getattr(spec, what)}"
                )
        if spec.patch_fixed and spec.patch != first.patch:
            raise CloudMaskError(
                f"members of an ensemble see the same windows: {spec.name!r} takes those of {spec.patch} "
                f"pixels alone, {first.name!r} those of {first.patch}"
            )
    if uncertainty and not cloud_channels(first):
        raise CloudMaskError(
            f"uncertainty=True is of cloud, and none of {', '.join(first.classes)} is: leave it out"
        )
    parts = [*(f"{each.name} {each.version} {each.sha256}" for each in specs), weights, reduce, uncertainty]
    digest = sha256(repr(parts).encode()).hexdigest()
    runtimes = {each.runtime for each in specs}
    on_gpu = {each.gpu_runtime or each.runtime for each in specs}
    largest = min(spec.largest_patch or 0 for spec in specs)
    return replace(
        first,
        name=name,
        version=digest[:12],
        loader=ENSEMBLE,
        weights="",
        sha256=digest,
        architecture="",
        config="",
        runtime="onnx" if "onnx" in runtimes else "torch",
        gpu_runtime="torch" if on_gpu == {"torch"} and "onnx" in runtimes else None,
        patch_fixed=any(spec.patch_fixed for spec in specs),
        largest_patch=largest if largest >= first.patch else None,
        min_bands=max(spec.min_bands for spec in specs),
        mean=None,
        std=None,
        activation=None,
        uncertainty=uncertainty,
        members=tuple(specs),
        member_weights=tuple(weights or ()),
        reduce=reduce,
        description=f"{reduce} of {', '.join(spec.name for spec in specs)}",
        licence="; ".join(dict.fromkeys(spec.licence for spec in specs if spec.licence)),
        citation="; ".join(dict.fromkeys(spec.citation for spec in specs if spec.citation)),
        scores="",
    )
