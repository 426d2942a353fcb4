"""A Dask worker plugin: every worker loads the model before the first region comes, or says why it cannot."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
from distributed import WorkerPlugin as _WorkerPlugin

from xcloudmask._version import __version__
from xcloudmask.engine.predictor import WindowJob, get_predictor
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.network import load_network
from xcloudmask.types import ModelSpec


class WorkerError(CloudMaskError):
    """A worker cannot run the model; the message names the worker and the reason."""


class WorkerPlugin(_WorkerPlugin):
    """Load and check a model on every worker of a cluster, and on those that come later.

    ``client.register_plugin(xcloudmask.WorkerPlugin("ukis-4band-l2a"))`` returns when all workers are ready;
    it raises `WorkerError`, with the worker's name, if one lacks a dependency, has weights with another
    SHA-256, or another version of this library; register the plugin again when that is mended. Dask starts a
    worker that comes later whether it is fit or not: its log says the same, and the regions it is given fail
    and are tried again.

    Parameters
    ----------
    model : str or ModelSpec
        As of `predict`, but not ``"auto"``.
    device, dtype : str
        As of `predict`: what the call that follows will ask for.

    Examples
    --------
    >>> import xcloudmask
    >>> from xcloudmask.testing import TOY
    >>> plugin = xcloudmask.WorkerPlugin(TOY)
    >>> plugin.name
    'xcloudmask-toy-1'
    >>> client.register_plugin(plugin)  # doctest: +SKIP
    """

    def __init__(self, model: str | ModelSpec, *, device: str = "auto", dtype: str = "auto") -> None:
        from xcloudmask import models

        if model == "auto":
            raise CloudMaskError(
                "model='auto' is settled by the bands of a scene, which the plugin does not see: "
                "name the model"
            )
        self.spec = model if isinstance(model, ModelSpec) else models.get(model)
        self.device, self.dtype = device, dtype
        self.version = __version__
        self.name = f"xcloudmask-{self.spec.name}-{self.spec.version}"

    def setup(self, worker: Any) -> None:
        """Load the model; Dask calls this on each worker."""
        try:
            if __version__ != self.version:
                raise CloudMaskError(
                    f"it has xcloudmask {__version__}, the client {self.version}; install the same version"
                )
            _warm(self.spec, self.device, self.dtype)
        except Exception as error:
            raise WorkerError(
                f"worker {worker.name} ({worker.address}, host {platform.node()}) cannot run model "
                f"{self.spec.name!r}: {_reason(error)}"
            ) from error


def _warm(spec: ModelSpec, device: str, dtype: str) -> None:
    """Load a model where `predict` will find it, and infer one window."""
    if spec.any_bands:  # the network is made for the bands of a scene, which are not known yet
        load_network(spec)
        return
    size = spec.patch, spec.patch
    pixels = np.zeros((len(spec.bands) + len(spec.aux), *size), np.float32)
    job = WindowJob(0, 0, 0, pixels, np.ones(size, bool), np.ones(size, np.float32))
    get_predictor(spec, device, dtype).blend([job], (1, len(spec.classes), *size))


def _reason(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}. Install {error.name} in the environment of the workers (the image of the cluster)"
    return f"{type(error).__name__}: {error}" if not isinstance(error, CloudMaskError) else str(error)
