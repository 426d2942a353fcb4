"""Devices: which can be asked for, what this machine has, its threads, and memory that is kept on them."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import sys
from dataclasses import replace
from functools import cache
from typing import Any

from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError, Remedy, Use, warn_user
from xcloudmask.types import ModelSpec

#: Whether this process was forked from one that had run a network. Threads do not survive a fork, those that
#: libraries keep (OpenMP's above all) neither: work submitted to them would hang.
forked = False

#: Windows inferred in parallel on a CPU, at most: each takes the memory of a network's layers.
MOST_LANES = 4


def dask_worker() -> Any:
    """Return the Dask worker on which this runs; None elsewhere.

    Outside of tasks, in a plugin's setup or ``client.run``, it is found where the worker has a nanny, as Dask
    starts them: the process is the worker's own then.
    """
    if "distributed" not in sys.modules:
        return None
    from distributed import Worker, get_worker

    try:
        return get_worker()
    except ValueError:  # no task
        return next((each for each in getattr(Worker, "_instances", ()) if each.nanny is not None), None)


def cpu_threads() -> int:
    """Threads one inference may use: this process's share of the machine.

    Its cores are those that it may use, a container's limit included. On a Dask worker that is the worker's
    own thread count, so that several workers on one machine do not claim the same cores; elsewhere
    ``OMP_NUM_THREADS`` at most, unless it is what Dask sets for its workers, 1 whatever they have.
    ``XCLOUDMASK_NUM_THREADS`` overrides all. A process that was forked from one that had run a network has
    one.
    """
    if forked:
        return 1
    override = os.environ.get("XCLOUDMASK_NUM_THREADS")
    if override:
        try:
            return max(1, int(override))
        except ValueError:
            raise CloudMaskError(
                f"XCLOUDMASK_NUM_THREADS={override!r} must be a whole number; correct it, or unset it"
            ) from None
    import dask
    from dask.system import CPU_COUNT

    available = int(CPU_COUNT)
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # a list is for nested threads
    if (worker := dask_worker()) is not None:
        return min(available, int(worker.state.nthreads))
    # Who starts workers on this machine sets their environment here, and leaves it so.
    if limit == str(dask.config.get("distributed.nanny.pre-spawn-environ.OMP_NUM_THREADS", None)):
        limit = ""
    return min(available, max(1, int(limit))) if limit.isdigit() else available


def cpu_lanes() -> int:
    """How many windows are inferred in parallel on the CPU; each has its share of the threads.

    Threads that work at one window wait for one another after each layer; one window a thread has no waiting,
    but takes memory for each. On two idle cores it is 1.1 times as fast in processor time, more by the clock;
    where others use the cores too, many times: threads that wait spin. At most one thread is left over.
    """
    threads = cpu_threads()
    return max(count for count in range(1, min(threads, MOST_LANES) + 1) if threads % count <= 1)


def settle_threads(runtime: str) -> None:
    """Let torch work without threads in a forked process, from the reading of weights on."""
    if forked and runtime == "torch":
        import torch

        torch.set_num_threads(1)


def for_device(spec: ModelSpec, device: str, dtype: str) -> ModelSpec:
    """Return the card with the runtime that a device, or a precision, needs.

    Examples
    --------
    >>> from xcloudmask import models
    >>> [for_device(models.get("ukis-4band-l1c"), name, "auto").runtime for name in ("cpu", "cuda:0")]
    ['onnx', 'torch']
    """
    on_gpu = device.startswith(("cuda", "mps", "gpu"))
    if spec.gpu_runtime and (on_gpu or (device == "cpu" and dtype not in ("auto", "float32"))):
        return replace(spec, runtime=spec.gpu_runtime)
    return spec


@cache
def has_gpu_driver() -> bool:
    """Whether there may be a GPU; to ask torch, which knows, takes seconds for its import."""
    if sys.platform == "darwin":
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")  # AMD's, which torch calls cuda too
    return True


@cache
def _warn_of_idle_gpu(name: str) -> None:
    """Say, once in a process, that a graph runs on the CPU although there is a GPU."""
    text = (
        f"the installed onnxruntime cannot use the GPU of this machine, {name}: ONNX models run on the CPU. "
        "To change that: pip uninstall onnxruntime; pip install onnxruntime-gpu. To keep it so: device='cpu'"
    )
    logging.getLogger("xcloudmask").warning(text)  # a worker's warnings reach nobody
    warn_user(text, ModelWarning)


def available_devices(device: str, runtime: str) -> list[str]:
    """Turn ``auto``, ``gpu`` and ``cuda`` into the devices of this machine; several GPUs are used in turn."""
    if device == "cpu" or (device == "auto" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""):
        return ["cpu"]
    if device.startswith("openvino"):
        return [device]  # which says itself what is missing
    if device == "auto" and not has_gpu_driver():
        return ["cpu"]
    import torch

    if device == "auto" and runtime == "onnx":
        import onnxruntime as ort

        if "CUDAExecutionProvider" not in ort.get_available_providers():
            if torch.cuda.device_count():
                _warn_of_idle_gpu(torch.cuda.get_device_name(0))
            return ["cpu"]
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    mps = ["mps"] if runtime == "torch" and torch.backends.mps.is_available() else []
    if device == "auto":
        return gpus or mps or ["cpu"]
    matching = [name for name in (*gpus, *mps) if device in ("gpu", name, name.partition(":")[0])]
    if not matching:
        raise CloudMaskError(
            f" is not on this machine (there: {', '.join(['cpu', *gpus, *mps])});",
            Remedy("use {}, or run on workers that have it", Use(device="auto")),
            option=Use(device=device),
        )
    return matching


def give_back() -> None:
    """Give memory that torch keeps for later back to every accelerator it has used in this process.

    Examples
    --------
    >>> give_back()
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


DEVICES = ("auto", "cpu", "gpu", "cuda", "cuda:0", "mps", "openvino", "openvino:GPU")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_device(device: str, spec: ModelSpec) -> None:
    """Refuse a device name that cannot be one; whether it exists is known only where the work runs."""
    known = r"auto|cpu|gpu|mps|cuda(:\d+)?|openvino(:[A-Z]+(\.\d+)?)?"
    if not isinstance(device, str) or not re.fullmatch(known, device):
        raise OptionError("device", device, allowed=DEVICES)
    runtimes = {each.runtime for each in (spec, *spec.members)}
    if device.startswith("openvino") and runtimes != {"onnx"}:
        raise CloudMaskError(
            f" runs ONNX graphs, and model {spec.name!r} runs in torch:",
            Remedy(
                "use {}, or export it, xcloudmask.models.export(...), and load the ONNX file",
                Use(device="auto"),
            ),
            option=Use(device=device),
        )


def check_dtype(dtype: str, spec: ModelSpec, device: str = "auto") -> None:
    """Refuse an unknown precision, or one that the model's runtime on that device cannot change to."""
    if dtype not in DTYPES:
        raise OptionError("dtype", dtype, allowed=DTYPES)
    other = spec.gpu_runtime and not device.startswith("openvino")
    if spec.runtime == "onnx" and not other and dtype not in ("auto", "float32"):
        raise CloudMaskError(
            f": model {spec.name!r} is an ONNX graph and runs in the precision it was exported in;",
            Remedy("leave {}", Use(dtype="auto")),
            option=Use(dtype=dtype),
        )
