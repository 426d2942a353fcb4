"""ONNX graphs through OpenVINO, for Intel's processors, graphics and accelerators."""

from __future__ import annotations

from importlib.util import find_spec

from xcloudmask.engine.arrays import Float
from xcloudmask.engine.devices import cpu_threads
from xcloudmask.engine.onnx import OnnxBackend
from xcloudmask.errors import CloudMaskError


class OpenVinoBackend(OnnxBackend):
    """OpenVINO on one of its devices: ``openvino`` is the processor, ``openvino:GPU`` the graphics."""

    def open(self, body: bytes) -> None:
        """See `OnnxBackend`."""
        if find_spec("openvino") is None:
            raise CloudMaskError(
                "device='openvino' needs the package openvino: pip install 'xcloudmask[openvino]'; or use "
                "device='cpu'"
            )
        import openvino

        name, core = self.index or "CPU", openvino.Core()
        available = core.available_devices
        if name not in available:
            raise CloudMaskError(
                f"device='openvino:{name}' is not on this machine (there: {', '.join(available) or 'none'}); "
                "use device='openvino' or device='cpu'"
            )
        # Reflectance differs in the third digit: half precision must be asked for, never the default.
        how: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if name == "CPU":
            how["INFERENCE_NUM_THREADS"] = cpu_threads()
        self.request = core.compile_model(core.read_model(body), name, how).create_infer_request()

    def run(self, pixels: Float) -> Float:
        """See `OnnxBackend`."""
        out: Float = self.request.infer({0: pixels})[0]
        return out
