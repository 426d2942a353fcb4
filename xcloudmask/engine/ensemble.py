"""Several networks, one after the other, for the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.onnx import OnnxBackend
from xcloudmask.models.network import Network


class TeamBackend(OnnxBackend):
    """Several ONNX graphs, one after the other, for the mean of what they say."""

    def __init__(self, network: Network, device: str, members: Sequence[OnnxBackend]) -> None:
        self.kind, _, self.index = device.partition(":")
        self.network = network
        self.members, self.lanes = members, min(member.lanes for member in members)

    def probabilities(self, pixels: Float) -> Float:
        """See `Backend`."""
        said = [one.probabilities(pixels[:, : len(one.network.mean or ())]) for one in self.members]
        shares = self.network.shares or (1.0,) * len(said)
        parts = [one * np.float32(share / sum(shares)) for one, share in zip(said, shares, strict=True)]
        mean: Float = sum(parts[1:], parts[0])
        return mean
