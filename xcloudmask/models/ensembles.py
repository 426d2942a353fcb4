"""Ensembles of models: declared and loaded; `engine.ensemble` runs them, `members` makes their card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xcloudmask.classes import cloud_channels
from xcloudmask.errors import CloudMaskError, names_checked
from xcloudmask.models.imputation import imputer_for
from xcloudmask.models.lookup import get
from xcloudmask.models.members import joined
from xcloudmask.models.network import Network, load_network
from xcloudmask.models.registry import add
from xcloudmask.types import ModelSpec, Reduction


@names_checked
def ensemble(
    members: Sequence[str | ModelSpec],
    *,
    name: str,
    weights: Sequence[float] | None = None,
    reduce: Reduction | None = None,
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
    reduce : {"mean", "mean-logits", "max", "min", "median"}
        How their probabilities are joined, class by class; all but the mean are scaled to sum to one again.
        If not given, as the first member's card says: by their mean, but for published networks whose authors
        average what comes before the softmax.
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
    specs = [get(each) if isinstance(each, str) else each for each in members]
    return add(
        joined(specs, name, weights=weights, reduce=reduce, uncertainty=uncertainty), overwrite=overwrite
    )


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
        spread=cloud_channels(spec) if spec.uncertainty else (),
        imputer=imputer_for(spec.bands) if spec.fills else None,
    )
