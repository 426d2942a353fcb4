"""Small models for tests, benchmarks and examples: fast, deterministic, and with a wide receptive field.

They are no use for masking clouds. They live here, not in the tests, because a worker must be able to
import what infers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from xcloudmask.models.network import Network
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    import torch

TOY = ModelSpec(
    name="toy",
    version="1",
    bands=("red", "nir"),
    classes=("clear", "cloud", "cloud_shadow"),
    loader="xcloudmask.testing:load_toy",
    gsd=(20.0, 40.0),
    patch=32,
    overlap=8,
    licence="Apache-2.0",
    description="random weights, for tests",
)

TOYS = replace(
    TOY,
    name="team",
    loader="xcloudmask.models.ensembles:network",
    activation=None,
    uncertainty=True,
    members=(TOY, replace(TOY, name="toy-8"), replace(TOY, name="toy-9")),
    description="three with random weights, for tests",
)

COUNTING = ModelSpec(
    name="counting",
    version="1",
    bands=("red",),
    classes=("clear", "cloud"),
    loader="xcloudmask.testing:load_counting",
    patch=32,
    overlap=8,
    licence="Apache-2.0",
    description="says how bright a pixel is, and counts the windows it sees",
)

LAST_INPUT = replace(
    COUNTING,
    name="last",
    loader="xcloudmask.testing:load_last",
    activation="complement",
    description="answers with its last input",
)

LOCAL = replace(
    COUNTING,
    name="local",
    loader="xcloudmask.testing:load_local",
    description="says how bright the surroundings of a pixel are",
)

ANSWERS_NAN = replace(
    COUNTING,
    name="silent",
    loader="xcloudmask.testing:load_silent",
    gsd=(20.0, 40.0),
    description="answers NaN for bright pixels",
)

ANY_BANDS = ModelSpec(
    name="any",
    version="1",
    bands=(),
    any_bands=True,
    min_bands=2,
    classes=("land", "water", "snow", "thin_cloud", "thick_cloud", "cloud_shadow"),
    loader="xcloudmask.testing:load_any",
    patch=32,
    overlap=8,
    licence="Apache-2.0",
    description="random weights, for any bands",
)

#: What `COUNTING` has seen in this process: the first pixel of each window, and how often it was loaded.
seen: list[float] = []
loads: list[str] = []
_lock = threading.Lock()


def load_toy(spec: ModelSpec) -> Network:
    """Return a small network whose output in each pixel depends on the whole window."""
    seed = {"toy-8": 8, "toy-9": 9}.get(spec.name, 7)
    return Network(
        body=_toy(spec, seed), mean=(0.2,) * len(spec.bands), std=(0.2,) * len(spec.bands), parallel=True
    )


def _toy(spec: ModelSpec, seed: int) -> torch.nn.Module:
    import torch
    from torch import nn

    class Toy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            spread: list[nn.Module] = []
            for count in (len(spec.bands) + len(spec.aux), 4):
                conv = nn.Conv2d(count, 4, kernel_size=5, padding=8, dilation=4, padding_mode="reflect")
                spread += [conv, nn.Tanh()]
            self.spread = nn.Sequential(*spread)
            self.head = nn.Conv2d(8, len(spec.classes), 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.spread(x)
            everywhere = x.mean(dim=(2, 3), keepdim=True).expand_as(x)
            out: torch.Tensor = self.head(torch.cat([x, everywhere], dim=1)) * 4
            return out

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Toy()


def _module(function: Callable[[torch.Tensor], torch.Tensor]) -> torch.nn.Module:
    """Return a function as a module."""
    import torch

    class Function(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    return Function()


def load_counting(spec: ModelSpec) -> Network:
    """Return a model that notes every window: give it an image whose pixels tell where they lie."""

    def count(x: torch.Tensor) -> torch.Tensor:
        with _lock:
            seen.extend(x[:, 0, 0, 0].tolist())
        return x[:, :1]

    with _lock:
        loads.append(spec.name)
    return Network(body=_module(count), activation="sigmoid")


def load_last(spec: ModelSpec) -> Network:
    """Return a model whose probability of cloud is its last input."""
    return Network(body=_module(lambda x: x[:, -1:]), activation="complement")


def load_local(spec: ModelSpec) -> Network:
    """Return a network that sees two pixels around each and zeros beyond the window, so that edges show."""
    from torch import nn

    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Conv2d(len(spec.bands), 1, kernel_size=5, padding=2, bias=False)
            nn.init.constant_(self.mean.weight, 4 / 25)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.mean(x) - 2
            return out

    return Network(body=Local(), activation="sigmoid")


def load_silent(spec: ModelSpec) -> Network:
    """Return a model that answers NaN for bright pixels."""
    import torch

    body = _module(lambda x: torch.where(x[:, :1] > 0.8, torch.nan, x[:, :1]))
    return Network(body=body, activation="sigmoid")


def load_any(spec: ModelSpec) -> Network:
    """Return a set network: it takes any bands, described by their wavelengths."""
    from xcloudmask.models.arch import build

    return Network(body=build(spec.architecture or "spectral", {"classes": len(spec.classes)}, seed=5))
