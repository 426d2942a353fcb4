"""Names of devices and precisions that can be asked for."""

from __future__ import annotations

import re

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.types import ModelSpec

DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps", "openvino", "openvino:GPU")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_device(device: str, spec: ModelSpec) -> None:
    """Refuse a device name that cannot be one; whether it exists is known only where the work runs."""
    known = r"auto|cpu|mps|cuda(:\d+)?|openvino(:[A-Z]+(\.\d+)?)?"
    if not isinstance(device, str) or not re.fullmatch(known, device):
        raise OptionError("device", device, allowed=DEVICES)
    if device.startswith("openvino") and spec.runtime != "onnx":
        raise CloudMaskError(
            f"device={device!r} runs ONNX graphs, and model {spec.name!r} runs in torch: use device='auto', "
            "or export it, xcloudmask.models.export(...), and load the ONNX file"
        )


def check_dtype(dtype: str, spec: ModelSpec) -> None:
    """Refuse an unknown precision, or one that the model's runtime cannot change to."""
    if dtype not in DTYPES:
        raise OptionError("dtype", dtype, allowed=DTYPES)
    if spec.runtime == "onnx" and dtype not in ("auto", "float32"):
        raise CloudMaskError(
            f"dtype={dtype!r}: model {spec.name!r} is an ONNX graph and runs in the precision it was "
            "exported in; leave dtype='auto'"
        )
