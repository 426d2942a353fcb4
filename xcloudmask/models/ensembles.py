"""How an ensemble of models is declared and loaded; `xcloudmask.engine.ensemble` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from xcloudmask.classes import CLOUDY
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models.imputation import imputer_for
from xcloudmask.models.loading import ENSEMBLE
from xcloudmask.models.lookup import get
from xcloudmask.models.network import Network, load_network
from xcloudmask.models.registry import add
from xcloudmask.types import REDUCTIONS, ModelSpec, Reduction

#: What members must agree in: what goes in, and what the answer means.
SHARED = ("bands", "any_bands", "classes", "level", "aux", "fills")


def ensemble(
    members: Sequence[str | ModelSpec],
    *,
    name: str,
    weights: Sequence[float] | None = None,
    reduce: Reduction = "mean",
    uncertainty: bool = False,
    overwrite: bool = False,
) -> ModelSpec:
    """Add a model that is several others at once: each window is given to all, and they are averaged.

    Parameters
    ----------
    members : sequence of str or ModelSpec
        Two or more with the same bands and classes, of any kind: ONNX graphs and networks that torch runs
        may go together. Each keeps its own normalisation.
    name : str
        How it is to be called.
    weights : sequence of float, optional
        What each counts for in the mean; the same if not given.
    reduce : {"mean", "max", "min", "median"}
        How their probabilities are joined, class by class; all but the mean are scaled to sum to one again.
    uncertainty : bool
        Whether it adds how far they disagree, too: the standard deviation of their probability of cloud.
    overwrite : bool
        Whether a model of the same name may be replaced.

    Returns
    -------
    ModelSpec
        Window, both thresholds (of cloud and of cloud shadow) and pixel size are those of the first member.

    Examples
    --------
    >>> from xcloudmask import models
    >>> models.ensemble(["spectral", "sensei"], name="both", overwrite=True).description
    'mean of spectral, sensei'
    """
    if isinstance(members, str | ModelSpec):
        alone = members if isinstance(members, str) else members.name
        raise CloudMaskError(f"an ensemble takes a list of models: members=[{alone!r}, ...]")
    if not name or not isinstance(name, str):
        raise CloudMaskError(f"name={name!r}: pass a name for the ensemble, name='both'")
    if reduce not in REDUCTIONS:
        raise OptionError("reduce", reduce, allowed=REDUCTIONS)
    specs = [get(each) if isinstance(each, str) else each for each in members]
    if len(specs) < 2:
        raise CloudMaskError(f"an ensemble has two members or more, got {len(specs)}")
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
    if uncertainty and not _cloud(first):
        raise CloudMaskError(
            f"uncertainty=True is of cloud, and none of {', '.join(first.classes)} is: leave it out"
        )
    parts = [*(f"{each.name} {each.version} {each.sha256}" for each in specs), weights, reduce, uncertainty]
    digest = sha256(repr(parts).encode()).hexdigest()
    runtimes, on_gpu = (
        {each.runtime for each in specs},
        {each.gpu_runtime or each.runtime for each in specs},
    )
    joined = replace(
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
    return add(joined, overwrite=overwrite)


def network(spec: ModelSpec) -> Network:
    """Load the members of an ensemble; each takes the first of the bands, as many as its card names."""
    cards = [
        replace(member, runtime=spec.runtime) if member.gpu_runtime == spec.runtime else member
        for member in spec.members
    ]
    members = tuple(
        replace(load_network(card), channels=len(card.bands) + len(card.aux) or None) for card in cards
    )
    return Network(
        activation=None,
        members=members,
        member_weights=spec.member_weights,
        reduce=spec.reduce,
        spread=_cloud(spec) if spec.uncertainty else (),
        imputer=imputer_for(spec.bands) if spec.fills else None,
    )


def _cloud(spec: ModelSpec) -> tuple[int, ...]:
    return tuple(place for place, name in enumerate(spec.classes) if name in CLOUDY)
