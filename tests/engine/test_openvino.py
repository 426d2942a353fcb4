"""The ONNX networks through OpenVINO: the same probabilities, and what it says where it is absent."""

from __future__ import annotations

import numpy as np
import pytest

from tests.scenes import noise, scene
from xcloudmask.engine import openvino
from xcloudmask.engine.devices import available_devices
from xcloudmask.engine.openvino import OpenVinoBackend
from xcloudmask.errors import CloudMaskError
from xcloudmask.models.network import Network

BANDS = ["blue", "green", "red", "nir"]


@pytest.fixture
def clouds():
    """A field that varies as clouds do, in two dates, with a gap."""
    pixels = np.kron(noise(2, 4, 20, 18), np.ones((1, 1, 16, 16), "f4")) * 0.6
    pixels[0, :, 100:180, 50:90] = np.nan
    return scene(pixels, BANDS)


@pytest.mark.network
def test_openvino_says_what_onnxruntime_says(clouds):
    pytest.importorskip("openvino", reason="pip install 'xcloudmask[openvino]'")
    expected = clouds.cloudmask.predict_proba("ukis-4band-l1c", device="cpu")
    found = clouds.chunk(y=100).cloudmask.predict_proba("ukis-4band-l1c", device="openvino")
    assert found.chunks is not None
    np.testing.assert_allclose(found.values, expected.values, atol=1e-3, rtol=0)
    assert float(expected.std()) > 0.05
    again = clouds.cloudmask.predict_proba("ukis-4band-l1c", device="openvino:CPU", batch_size=2)
    np.testing.assert_allclose(again.values, expected.values, atol=1e-3, rtol=0)


def test_a_device_that_openvino_does_not_have_is_named():
    pytest.importorskip("openvino", reason="pip install 'xcloudmask[openvino]'")
    with pytest.raises(CloudMaskError, match=r"'openvino:NPU.7' is not on this machine \(there: CPU"):
        OpenVinoBackend(Network(b""), "openvino:NPU.7")


def test_without_openvino_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    with pytest.raises(CloudMaskError, match=r"pip install 'xcloudmask\[openvino\]'"):
        OpenVinoBackend(Network(b""), "openvino")


def test_openvino_is_taken_where_it_is_asked_for():
    assert available_devices("openvino:GPU", "onnx") == ["openvino:GPU"]
