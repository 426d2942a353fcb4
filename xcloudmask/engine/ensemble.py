"""Runs several networks as one: their probabilities joined, window by window."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.backend import Backend
from xcloudmask.models.network import Network
from xcloudmask.types import Reduction


class EnsembleBackend:
    """Backends of any kind as one; arrays are those of `host`, the first that takes NumPy's, or the first."""

    def __init__(self, network: Network, members: Sequence[Backend]) -> None:
        from xcloudmask.engine.onnx import OnnxBackend

        # as the members keep them: without the bytes of graphs
        self.network = replace(network, members=tuple(each.network for each in members))
        self.members = members
        self.host = next((each for each in members if isinstance(each, OnnxBackend)), members[0])
        self.kind, self.lanes = self.host.kind, min(each.lanes for each in members)

    def probabilities(self, pixels: Any) -> Any:
        """See `Backend`."""
        each = [self._answer(member, pixels) for member in self.members]
        if self.network.reduce == "mean" and not self.network.spread:
            return self._mean(each)
        return self.host.upload(list(self._joined([self.host.fetch(answer) for answer in each])))

    def _answer(self, member: Backend, pixels: Any) -> Any:
        """Return what a member answers, as an array of the host's kind."""
        pixels = pixels[:, : member.network.channels]
        if type(member) is type(self.host):
            return member.probabilities(pixels)
        there = member.upload(list(self.host.fetch(pixels)))
        return self.host.upload(list(member.fetch(member.probabilities(there))))

    def _mean(self, each: Sequence[Any]) -> Any:
        weights = self.network.member_weights or (1.0,) * len(each)
        parts = [
            answer * np.float32(weight / sum(weights)) for answer, weight in zip(each, weights, strict=True)
        ]
        return sum(parts[1:], parts[0])

    def _joined(self, each: Sequence[Float]) -> Float:
        """Join the members' answers; where two classes are one score of cloud, that score is joined."""
        stack, reduce = np.stack(each), _REDUCTIONS[self.network.reduce]
        if self.network.reduce == "mean":
            joined: Float = self._mean(each)
        elif self.network.members[0].activation in ("sigmoid", "complement") and reduce != _mean_of_logits:
            cloud = reduce(stack[:, :, 1:], axis=0)
            joined = np.concatenate([1 - cloud, cloud], axis=1)
        else:
            joined = reduce(stack, axis=0)
            joined /= np.maximum(joined.sum(axis=1, keepdims=True), np.float32(1e-12))
        if not self.network.spread:
            return joined
        cloud = stack[:, :, list(self.network.spread)].sum(axis=2, keepdims=True)
        return np.concatenate([joined, cloud.std(axis=0)], axis=1)

    def __getattr__(self, name: str) -> Any:
        """Do the rest of what a `Backend` does as the host does it: `zeros`, `upload`, `weigh`, `add`, ..."""
        return getattr(self.host, name)

    def release(self) -> None:
        """See `Backend`."""
        for member in self.members:
            member.release()


def _mean_of_logits(stack: Float, axis: int) -> Float:
    """Return the softmax of the mean of logits, from probabilities; but for a factor a pixel.

    Logits are their logarithms but for a summand that all classes of a pixel share.
    """
    logits = np.log(np.maximum(stack, np.finfo(np.float32).tiny)).mean(axis=axis)
    out: Float = np.exp(logits - logits.max(axis=1, keepdims=True))
    return out


_REDUCTIONS: Mapping[Reduction, Callable[..., Float]] = {
    "mean": np.mean, "mean-logits": _mean_of_logits, "max": np.max, "min": np.min, "median": np.median,
}  # fmt: skip
