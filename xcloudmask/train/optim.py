"""How fast the weights move, their running mean, and which layers are in training mode."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def rate(step: int, steps: int, *, warmup: int = 0, kind: str = "cosine") -> float:
    """Return the share of the full learning rate at a step: a line up, then half a cosine down, or flat.

    Examples
    --------
    >>> [round(rate(s, 100, warmup=10), 2) for s in (0, 9, 10, 55, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind != "cosine":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - warmup, 1), 1.0)))


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network that keeps the exponential moving average of its weights and buffers.

    The share of the old mean grows to `decay` over the first steps, so that the start is soon forgotten.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> mean = moving_average(net, 0.9)
    >>> mean.update_parameters(net)
    >>> torch.equal(mean.module.bias, net.bias)
    True
    """

    def mixed(mean: Tensor, new: Tensor, steps: Tensor | int) -> Tensor:
        kept = min(decay, int(steps) / (int(steps) + 10))
        return torch.lerp(mean, new, 1 - kept) if mean.is_floating_point() else new

    average = AveragedModel(network, avg_fn=mixed, use_buffers=True)
    average.n_averaged.fill_(1)  # the weights at the start count as one step
    return average


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
