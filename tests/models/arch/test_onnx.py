"""Every architecture exports to ONNX, equal to torch to 1e-4, with any number of windows in a batch."""

from __future__ import annotations

import io
import warnings

import pytest
import torch

from xcloudmask.models import arch
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.arch.setnet import Bound

BANDS = [BandInput("optical", *edges) for edges in ((450, 520), (640, 680), (780, 900), (1570, 1650))]
CASES = {
    "cloud-unet": {"bands": 4, "width": 8, "dem": True},
    "deeplabv3plus": {"bands": 4, "encoder": "resnet34", "decoder": "v3plus-separable"},
    "dynamic-unet": {"bands": 4, "stem": 8, "widths": [8, 16], "depths": [1, 1], "group": 4, "act": "mish"},
    "ipl-uv": {"adapter": True},
    "pixel-mlp": {},
    "pw-dl3plus": {},
    "segformer": {"bands": 4},
    "sensei-v1": {"head": "pixel"},
    "sensei-v2": {},
    "sensei-v2, published": {"variant": "published", "head": "pixel"},
    "spectral": {},
    "unet": {"bands": 4, "encoder": "mobilenet-v2"},
    "unet, any size": {"bands": 4, "standardise": True},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.network
@pytest.mark.parametrize("name", CASES)
def test_onnx_equals_torch(name):
    import onnxruntime

    case, name = name, name.partition(",")[0]
    module = arch.build(name, CASES[case])
    if name in ("sensei-v1", "sensei-v2", "spectral"):
        module = Bound(module, BANDS)
    module.eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Exporting by tracing warns that shapes become constants, which is meant, and that it is the old way.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.rand(2, 4, 32, 32),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["pixels"],
            output_names=["out"],
            dynamic_axes={"pixels": {0: "n"}, "out": {0: "n"}},
        )
    pixels = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"pixels": pixels.numpy()})
    with torch.inference_mode():
        expected = module(pixels)
    torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4)


def test_every_architecture_is_exported():
    assert {name.partition(",")[0] for name in CASES} == set(arch.NAMES)
