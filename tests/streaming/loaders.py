"""What tests have workers run: models whose loading depends on the worker, cores that are not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client

from xcloudmask.models.network import Network
from xcloudmask.models.weights import fetch
from xcloudmask.types import ModelSpec

#: A module that nothing else of ours imports.
DEPENDENCY = "colorsys"
WEIGHTS = "XCLOUDMASK_TEST_WEIGHTS"
loads: list[str] = []


def spec(name: str, sha256: str = "") -> ModelSpec:
    return ModelSpec(
        name=name, version="1", bands=("red",), classes=("clear", "cloud"),
        loader="tests.streaming.loaders:load", sha256=sha256, patch=32, overlap=8,
    )  # fmt: skip


def load(spec: ModelSpec) -> Network:
    import colorsys  # noqa: F401

    from torch import nn

    if spec.sha256:
        fetch.read(os.environ[WEIGHTS], spec.sha256)

    class Bright(nn.Module):
        def forward(self, x: Any) -> Any:
            return x[:, :1] * 4 - 2

    loads.append(spec.name)
    return Network(body=Bright(), activation="sigmoid")


def times_loaded(name: str) -> int:
    return loads.count(name)


@contextmanager
def cores(client: Client, count: int) -> Iterator[None]:
    """Have workers, which are processes of their own, believe that the machine has so many cores."""
    before = client.run(_claim_cores, count)
    try:
        yield
    finally:
        client.run(_claim_cores, max(before.values()))


def _claim_cores(count: int) -> int:
    import dask.system

    before, dask.system.CPU_COUNT = dask.system.CPU_COUNT, count
    return before
