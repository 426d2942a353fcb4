"""How fast the weights move, and their running mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from xcloudmask.errors import CloudMaskError


@dataclass(slots=True)
class Plateau:
    """Divides the rate by `by` when `patience` validations in a row bring nothing better."""

    patience: int = 5
    by: float = 5.0
    best: float = -math.inf
    bad: int = 0
    scale: float = 1.0

    def seen(self, score: float) -> None:
        """Take note of a validation's score; higher is better."""
        if score > self.best:
            self.best, self.bad = score, 0
            return
        self.bad += 1
        if self.bad >= self.patience:
            self.scale, self.bad = self.scale / self.by, 0


def rate(
    step: int, steps: int, *, warmup: int = 0, kind: Literal["cosine", "constant", "plateau"] | str = "cosine"
) -> float:
    """Return the share of the full learning rate at a step: a line up, then half a cosine down, or flat.

    Examples
    --------
    >>> [round(rate(s, 100, warmup=10), 2) for s in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind in ("constant", "plateau"):
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))


class Average:
    """Exponential moving average of a network's weights and buffers, warmed up so that it starts honest.

    Parameters
    ----------
    network : nn.Module
        Whose weights.
    decay : float
        Share of the old mean kept at a step, in the long run.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> mean = Average(net, 0.9)
    >>> mean.update(net)
    >>> torch.equal(mean.weights["bias"], net.bias.detach())
    True
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise CloudMaskError(f"ema must be from 0 to below 1, got {decay}")
        self.decay, self.steps = decay, 0
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights after a step."""
        self.steps += 1
        kept = min(self.decay, self.steps / (self.steps + 10))
        for name, value in network.state_dict().items():
            mine = self.weights[name]
            if mine.is_floating_point():
                mine.lerp_(value.to(mine.dtype), 1 - kept)
            else:
                mine.copy_(value)

    def load(self, weights: Mapping[str, Tensor], steps: int) -> None:
        """Take up where a checkpoint left."""
        for name, value in weights.items():
            self.weights[name].copy_(value)
        self.steps = steps


def train_mode(network: nn.Module) -> None:
    """Switch to training, but for layers of which nothing is trained: they would gather statistics anew.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1).requires_grad_(False))
    >>> train_mode(net)
    >>> [layer.training for layer in net]
    [True, False]
    """
    network.train()
    for layer in network.modules():
        own = list(layer.parameters(recurse=False))
        if own and not any(weight.requires_grad for weight in own):
            layer.eval()
