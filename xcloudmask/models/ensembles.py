"""Several models as one: an ensemble, whose members' weights become one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from xcloudmask.classes import CLOUDY
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import card
from xcloudmask.models.loading import LOADER
from xcloudmask.models.lookup import get
from xcloudmask.models.registry import add
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.formats import vetted
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "max", "min"]
REDUCTIONS = get_args(Reduction)
#: What members must agree in: what goes into a network, and what comes out.
SHARED = ("bands", "any_bands", "min_bands", "classes", "mean", "std", "activation", "level", "aux")


def ensemble(
    members: Sequence[str | ModelSpec],
    *,
    name: str,
    reduce: Reduction = "mean",
    uncertainty: bool = False,
    replace: bool = False,
) -> ModelSpec:
    """Add a model that is several others at once: each window is given to all, and they are averaged.

    Parameters
    ----------
    members : sequence of str or ModelSpec
        Two or more whose weights belong to an architecture of `xcloudmask.models.arch` (not ONNX graphs),
        with the same inputs and classes.
    name : str
        How it is to be called.
    reduce : {"mean", "max", "min"}
        How their probabilities are joined.
    uncertainty : bool
        Whether it tells how far they disagree, too.
    replace : bool
        Whether a model of the same name may be replaced.

    Returns
    -------
    ModelSpec
        Window, both thresholds (of cloud and of cloud shadow) and pixel size are those of the first member.

    Examples
    --------
    >>> from xcloudmask import models
    >>> models.ensemble(["spectral", "spectral"], name="twice-the-same", replace=True).architecture
    'ensemble'
    """
    if isinstance(members, str | ModelSpec):
        told = members if isinstance(members, str) else members.name
        raise CloudMaskError(f"an ensemble takes a list of models: members=[{told!r}, ...]")
    if not name or not isinstance(name, str):
        raise CloudMaskError(f"name={name!r}: say how the ensemble is to be called, name='both'")
    if reduce not in REDUCTIONS:
        raise OptionError("reduce", reduce, allowed=REDUCTIONS)
    specs = [get(each) if isinstance(each, str) else each for each in members]
    if len(specs) < 2:
        raise CloudMaskError(f"an ensemble has two members or more, got {len(specs)}")
    for spec in specs:
        if not spec.architecture or spec.architecture == "ensemble":
            raise CloudMaskError(
                f"model {spec.name!r} cannot be a member of an ensemble: only one whose weights belong to a "
                "single architecture of xcloudmask.models.arch.NAMES can"
            )
        for what in SHARED:
            if getattr(spec, what) != getattr(specs[0], what):
                raise CloudMaskError(
                    f"members of an ensemble must agree in {what}: {specs[0].name!r} has "
                    f"{getattr(specs[0], what)}, {spec.name!r} has {getattr(spec, what)}"
                )
    if specs[0].activation not in ("softmax", "sigmoid"):
        raise CloudMaskError(
            f"members of an ensemble answer with scores, not with {specs[0].activation or 'probabilities'}: "
            f"those of {specs[0].name!r} cannot be joined"
        )
    return add(_joined(specs, name, reduce, uncertainty), replace=replace)


def _joined(specs: Sequence[ModelSpec], name: str, reduce: str, uncertainty: bool) -> ModelSpec:
    """Return the card of an ensemble after keeping its weights."""
    from safetensors.torch import load, save

    tensors: dict[str, Tensor] = {}
    settings: list[dict[str, object]] = []
    for at, spec in enumerate(specs):
        data = vetted(fetch.read(spec.weights, spec.sha256), "safetensors", spec.weights)
        tensors |= {f"members.{at}.{key}": tensor for key, tensor in load(data).items()}
        settings.append({"name": spec.architecture, "config": json.loads(spec.config or "{}")})
    sha256 = fetch.hold(save(tensors))
    config: dict[str, object] = {"members": settings, "activation": specs[0].activation, "reduce": reduce}
    config["spread"] = uncertainty
    if uncertainty:
        config["cloud"] = [at for at, one in enumerate(specs[0].classes) if one in CLOUDY]
    names = ", ".join(spec.name for spec in specs)
    return replace(
        specs[0],
        name=name,
        version=sha256[:12],
        loader=LOADER,
        weights=f"{fetch.HELD}{sha256}",
        sha256=sha256,
        architecture="ensemble",
        config=card.settings(config),
        activation=None,
        uncertainty=uncertainty,
        description=f"{reduce} of {names}",
        licence="; ".join(dict.fromkeys(spec.licence for spec in specs if spec.licence)),
        citation="; ".join(dict.fromkeys(spec.citation for spec in specs if spec.citation)),
        scores="",
    )
