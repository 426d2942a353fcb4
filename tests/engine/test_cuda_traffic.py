"""What travels to a GPU and back, how often somebody waits, and that windows are there when they are read."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.engine.fake_cuda import FakeCuda
from tests.scenes import noise, scene
from xcloudmask.engine import devices
from xcloudmask.engine.predictor import unload
from xcloudmask.testing import TOY


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    unload()
    with monkeypatch.context() as patch:
        patch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        patch.setattr(devices, "has_gpu_driver", lambda: True)
        yield FakeCuda().install(patch)
    unload()  # what lives on a card that is gone


def answer(device: str, chunks: int | None = None, **how: Any) -> Any:
    pixels = noise(2, 300, 260)
    pixels[:, 50:90, 60:200] = np.nan
    da = scene(pixels, ["red", "nir"])
    da = da if chunks is None else da.chunk(y=chunks, x=chunks)
    return da.cloudmask.predict_proba(TOY, device=device, dtype="float32", **how).values


@pytest.mark.parametrize("chunks", [None, 120])
@pytest.mark.parametrize("how", [{}, {"tta": 3}, {"batch_size": 3}, {"uncertainty": True, "tta": 2}])
def test_windows_are_not_read_before_they_have_arrived(
    chunks: int | None, how: dict[str, Any], card: FakeCuda
) -> None:
    expected = answer("cpu", chunks, **how)
    found = answer("cuda", chunks, **how)
    assert card.seen["to the device, pinned"], "it ran there"
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("batch", "batches"), [(1, 5), (2, 3), (4, 2), (7, 1)])
def test_a_batch_is_two_copies_and_a_task_one_back(batch: int, batches: int, card: FakeCuda) -> None:
    da = scene(noise(2, 5 * 56, 5 * 56), ["red", "nir"])
    how: dict[str, Any] = {"device": "cuda", "patch_size": 56, "overlap": 0, "batch_size": batch}
    da.cloudmask.predict(TOY, **how)  # loads; looks at the first probabilities
    card.seen.clear()
    da.cloudmask.predict(TOY, **how)
    tasks = 5  # rows of five windows
    assert card.seen == {
        "to the device, pinned": 2 * tasks * batches,  # pixels and weights
        "to the host, own stream": tasks,
        "streams that wait": tasks * (2 * batches + 1),  # for each copy there, and before the one back
        "waits": tasks * (1 + max(0, batches - 2)),  # for sums; and for all but two batches, before the next
    }
