"""What is done to a chunk is done in bands: the same to the last bit, and little held on the way."""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scenes import noise, scene
from xcloudmask.engine import kernel, pixels
from xcloudmask.engine.plan import Plan
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import prepare
from xcloudmask.testing import TOY
from xcloudmask.types import Calibration

MIB = 2**20


def most_held(work: Callable[[], object]) -> int:
    """Bytes that are allocated at once on the way, what is returned included."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("chunk", [None, {"y": 50, "x": 70}])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize(
    "options",
    [
        {"working_resolution": "native"},
        {"working_resolution": 90.0, "output": "probabilities", "uncertainty": True, "tta": 2},
        {"working_resolution": "native", "output": "probabilities"},
        {"working_resolution": 60.0, "threshold": 0.4},
    ],
)
def test_how_many_rows_are_made_at_once_changes_no_bit(
    options: dict[str, Any], rows: int, chunk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = noise(2, 131, 140)
    pixels[:, 40:60, 30:90] = np.nan
    da = scene(pixels, ["red", "nir"])
    da = da if chunk is None else da.chunk(chunk)
    how = {key: value for key, value in options.items() if key != "output"}
    predict = da.cloudmask.predict_proba if "output" in options else da.cloudmask.predict

    def answer(at_once: int) -> Any:
        monkeypatch.setattr(kernel, "ROWS_AT_ONCE", at_once)
        return predict(TOY, **how).values

    np.testing.assert_array_equal(answer(rows), answer(1000))


def plan_of(pixels: np.ndarray) -> Plan:
    return prepare(scene(pixels, ["red", "nir"]), PredictOptions(model=TOY, working_resolution="native")).plan


def test_an_output_is_made_within_less_than_its_sums_take() -> None:
    plan = plan_of(np.zeros((2, 2048, 256), np.float32))
    sums = noise(3, 2048, 256)
    valid = np.ones((2048, 256), bool)
    made = lambda: kernel.finish(plan, [(sums, 0, 0)], valid, (0, 2048), (0, 256))  # noqa: E731
    made()  # what is imported and kept on the way
    assert sums.nbytes == 6 * MIB
    assert most_held(made) < 4 * MIB


@pytest.mark.parametrize("dtype", ["f4", "u2"])
def test_looking_for_data_holds_no_more_than_a_band(dtype: str) -> None:
    raw = np.ones((6, 1024, 1024), dtype)
    calibration = Calibration(nodata=(0,))
    pixels.holds_data(raw[:, :8, :8], calibration)
    assert most_held(lambda: pixels.holds_data(raw, calibration)) < 4 * MIB


def test_a_pixel_holds_data_where_every_band_does() -> None:
    raw = np.ones((2, 3, 1, 5), np.float32)
    raw[0, 0, 0, 0], raw[1, 2, 0, 1], raw[1, 1, 0, 2] = np.nan, -9, np.inf
    found = pixels.holds_data(raw, Calibration(nodata=(-9,)))
    assert found.tolist() == [[[False, True, True, True, True]], [[True, False, False, True, True]]]


@given(
    st.sampled_from(["u1", "u2", "i2", "i4", "f2", "f4", "f8"]),
    st.sampled_from([(1.0, 0.0), (1e-4, 0.0), (1e-4, -0.1), (0.004, 5.0), (2.75e-5, -0.2), (100.0, -4000.0)]),
    st.integers(0, 2**32 - 1),
)
def test_limits_of_reflectance_hold_in_stored_numbers(
    dtype: str, figures: tuple[float, float], seed: int
) -> None:
    """Whatever the type stores, also where it cannot store the limit."""
    rng = np.random.default_rng(seed)
    if dtype[0] == "f":
        raw = np.concatenate([rng.normal(0, 10, 30), rng.normal(0, 1e5, 30), [np.nan, np.inf, -np.inf]])
        with np.errstate(over="ignore"):
            raw = raw.astype(dtype)
    else:
        kind = np.iinfo(dtype)
        raw = np.concatenate([rng.integers(kind.min, kind.max, 60, endpoint=True), [kind.min, 0, kind.max]])
    raw = raw.astype(dtype).reshape(1, 1, 63)
    scale, offset = figures
    real = raw.astype("f8") * scale + offset
    near = (np.abs(real - pixels.LOWEST) < 1e-3) | (np.abs(real - pixels.HIGHEST) < 20)
    expected = np.isfinite(real) & (real >= pixels.LOWEST) & (real <= pixels.HIGHEST)
    found = pixels.holds_data(raw, Calibration((scale,), (offset,)))
    np.testing.assert_array_equal(found[~near[0]], expected[0][~near[0]])


@pytest.mark.parametrize("dtype", ["i2", "f4"])
def test_a_limit_itself_is_within(dtype: str) -> None:
    numbers = np.array([-6, -5, -4, 4, 5, 6], dtype)
    assert pixels.within(numbers, -5.0, 5.0).tolist() == [False, True, True, True, True, False]
    assert pixels.within(numbers, -4.5, 4.5).tolist() == [False, False, True, True, False, False]
