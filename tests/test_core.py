"""The promises of the core: same result for any chunking, exactly once, lazy, no data never clear."""

import json
import pickle
import time
from pathlib import Path

import dask
import dask.array as darr
import numpy as np
import pytest
import ukis_csmask
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xcloudmask
from xcloudmask import engine, testing
from xcloudmask.errors import BandError, CloudMaskError, OptionError, UnitError
from xcloudmask.tiling import AxisPlan

RNG = np.random.default_rng(3)
NAMES = ["blue", "green", "red", "nir"]


def scene(pixels: np.ndarray, names: list[str], step: float = 30.0) -> xr.DataArray:
    coords = {"y": -step * np.arange(pixels.shape[-2]), "x": step * np.arange(pixels.shape[-1])}
    dims = ("time", "band", "y", "x")[4 - pixels.ndim :]
    return xr.DataArray(pixels, dims=dims, coords=coords).cloudmask.describe(bands=names, level="L1C")


@st.composite
def chunks(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    out = []
    while sum(out) < size:
        out.append(draw(st.integers(1, size - sum(out))))
    return tuple(out)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_the_result_is_the_same_for_any_chunking(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 110)), data.draw(st.integers(2, 110))
    pixels = np.random.default_rng(height * 131 + width).random((2, 2, height, width), dtype=np.float32)
    top, left = data.draw(st.integers(0, height)), data.draw(st.integers(0, width))
    pixels[0, :, top : top + 40, left : left + 40] = np.nan
    options = {
        "model": testing.TOY,
        "patch_size": data.draw(st.sampled_from([32, 48])),
        "overlap": data.draw(st.sampled_from([0, 5, 16, 27])),
        "resolution": data.draw(st.sampled_from(["auto", "native", 60])),
    }
    da = scene(pixels, ["red", "nir"], step=data.draw(st.sampled_from([10.0, 30.0])))
    cut = {
        "time": data.draw(st.sampled_from([1, 2])),
        "band": data.draw(st.sampled_from([1, 2])),
        "y": data.draw(chunks(height)),
        "x": data.draw(chunks(width)),
    }
    batch = data.draw(st.sampled_from(["auto", 3]))
    whole = da.cloudmask.predict_proba(**options)
    cut_up = da.chunk(cut).cloudmask.predict_proba(batch_size=batch, **options)
    np.testing.assert_allclose(cut_up.values, whole.values, atol=1e-5, rtol=0)
    classes = da.cloudmask.predict(**options)
    np.testing.assert_array_equal(da.chunk(cut).cloudmask.predict(**options).values, classes.values)
    assert (np.isnan(pixels).any(axis=1) == (classes.values == 255)).all()


@settings(deadline=None)
@given(size=st.integers(1, 400), patch=st.integers(1, 64), share=st.floats(0, 0.99))
def test_weights_sum_to_one_in_every_cell(size: int, patch: int, share: float) -> None:
    plan = AxisPlan(size, patch, int(patch * share))
    total = np.zeros(size)
    for index, start in enumerate(plan.starts):
        weights = plan.weights(index)
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_each_window_is_inferred_once_and_building_loads_nothing() -> None:
    engine.unload()
    testing.seen.clear()
    testing.loads.clear()
    pixels = (np.arange(200 * 170, dtype=np.float32) / 34_000).reshape(1, 200, 170)
    da = scene(pixels, ["red"])
    computed = []
    with dask.config.set(scheduler=lambda *a, **k: computed.append(1)):
        lazy = da.chunk(y=37, x=(90, 3, 77)).cloudmask.predict(testing.COUNTING, resolution="native")
    assert computed == []
    assert testing.loads == []
    lazy.compute()
    starts_y, starts_x = AxisPlan(200, 32, 8).starts, AxisPlan(170, 32, 8).starts
    expected = sorted(float(pixels[0, y, x]) for y in starts_y for x in starts_x)
    assert sorted(testing.seen) == expected
    assert testing.loads == ["counting"]


def test_ten_thousand_chunks_are_planned_quickly_and_small() -> None:
    source = xr.DataArray(
        darr.zeros((2, 51200, 51200), chunks=(2, 512, 512), dtype="f4"), dims=("band", "y", "x")
    )
    da = source.cloudmask.describe(bands=["red", "nir"])
    began = time.perf_counter()
    mask = da.cloudmask.predict(testing.TOY, resolution="native")
    layer = mask.data.dask.layers[mask.data.name]
    tasks = dict(layer)
    assert time.perf_counter() - began < 10  # a guard; the figure of about 1 s is a benchmark's business
    assert len(pickle.dumps(layer)) < 10_000
    assert len(pickle.dumps(tasks)) < 1024 * 10_000


def test_names_are_deterministic() -> None:
    da = scene(RNG.random((2, 64, 64), dtype=np.float32), ["red", "nir"]).chunk(y=30)
    assert da.cloudmask.predict(testing.TOY).data.name == da.cloudmask.predict(testing.TOY).data.name


def test_no_data_is_never_clear_and_does_not_touch_its_neighbours() -> None:
    pixels = RNG.random((2, 90, 90), dtype=np.float32)
    results = []
    for stored in (-9999.0, 0.5):
        filled = pixels.copy()
        filled[:, 20:50, 30:70] = stored
        valid = np.ones((90, 90), bool)
        valid[20:50, 30:70] = False
        da = scene(filled, ["red", "nir"], step=10.0)
        results.append(da.cloudmask.predict(testing.TOY, valid=xr.DataArray(valid, dims=("y", "x"))))
    assert (results[0].values[20:50, 30:70] == 255).all()
    assert (results[0].values != 255).sum() == 90 * 90 - 30 * 40
    np.testing.assert_array_equal(results[0].values, results[1].values)
    filled[:, 20:50, 30:70] = -9999
    by_nodata = scene(filled, ["red", "nir"], step=10.0).cloudmask.predict(testing.TOY, nodata=-9999)
    np.testing.assert_array_equal(by_nodata.values, results[0].values)


def test_dims_in_another_order_keep_their_order() -> None:
    da = scene(RNG.random((2, 70, 50), dtype=np.float32), ["red", "nir"])
    mask = da.cloudmask.predict(testing.TOY)
    turned = da.transpose("x", "y", "band").chunk(x=20).cloudmask.predict(testing.TOY)
    assert turned.dims == ("x", "y")
    np.testing.assert_array_equal(turned.transpose("y", "x").values, mask.values)


def hann_reference(pixels: np.ndarray, stem: str, patch: int, overlap: int) -> np.ndarray:
    """Windows, network, softmax and blend, by hand."""
    import onnxruntime as ort

    folder = Path(ukis_csmask.__file__).parent
    mean, std = json.loads((folder / f"{stem}.json").read_text())["data"]["dataset_statistics"]["img"]
    session = ort.InferenceSession(str(folder / f"{stem}.onnx"), providers=["CPUExecutionProvider"])
    _, height, width = pixels.shape
    total, weight = np.zeros((3, height, width)), np.zeros((height, width))
    starts = [sorted({*range(0, n - patch, patch - overlap), n - patch}) for n in (height, width)]

    def ramp(at: int, axis: list[int]) -> np.ndarray:
        w, i = np.ones(patch), axis.index(at)
        for other, flip in (
            (axis[i - 1] if i else None, False),
            (axis[i + 1] if i + 1 < len(axis) else None, True),
        ):
            if other is not None:
                shared = patch - abs(at - other)
                rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(shared) + 0.5) / shared)
                w[slice(-shared, None) if flip else slice(shared)] *= rise[::-1] if flip else rise
        return w

    for y in starts[0]:
        for x in starts[1]:
            window = pixels[:, y : y + patch, x : x + patch].astype(np.float32)
            window = (window - np.array(mean, "f4")[:, None, None]) / np.array(std, "f4")[:, None, None]
            logits = session.run(None, {session.get_inputs()[0].name: window[None]})[0][0].astype(float)
            odds = np.exp(logits - logits.max(axis=0))
            w = np.outer(ramp(y, starts[0]), ramp(x, starts[1]))
            total[:, y : y + patch, x : x + patch] += odds / odds.sum(axis=0) * w
            weight[y : y + patch, x : x + patch] += w
    return total / weight


@pytest.mark.network
def test_the_real_network_equals_a_reference_written_by_hand() -> None:
    coarse = RNG.random((4, 20, 16), dtype=np.float32)
    pixels = np.kron(coarse, np.ones((1, 20, 20), "f4")) * 0.6
    expected = hann_reference(pixels, "model_4b_l1c", 256, 48)
    da = scene(pixels, NAMES)
    found = da.cloudmask.predict_proba(model="ukis-4band-l1c")
    np.testing.assert_allclose(found.values, expected, atol=1e-5, rtol=0)
    lazy = da.chunk(band=1, y=150, x=101).cloudmask.predict_proba(model="ukis-4band-l1c")
    np.testing.assert_allclose(lazy.values, expected, atol=1e-5, rtol=0)


GOOD = RNG.random((4, 64, 64), dtype=np.float32)


@pytest.mark.parametrize(
    ("make", "options", "error", "words"),
    [
        (lambda: scene((GOOD * 1e4).astype("u2"), NAMES), {}, UnitError, "scale"),
        (lambda: scene(GOOD, ["a", "b", "c", "d"]), {}, BandError, "missing"),
        (lambda: xr.DataArray(GOOD, dims=("k", "y", "x")), {}, BandError, "rename"),
        (lambda: scene(GOOD, NAMES)[:, :0], {}, CloudMaskError, "empty"),
        (lambda: scene(GOOD, NAMES).astype("c8"), {}, UnitError, "real numbers"),
        (lambda: scene(GOOD[:1], ["red"]), {}, BandError, "missing"),
        (lambda: scene(GOOD, NAMES), {"patch_size": 16}, CloudMaskError, "patch_size=16"),
        (lambda: scene(GOOD, NAMES), {"overlap": 256}, CloudMaskError, "overlap=256"),
        (lambda: scene(GOOD, NAMES), {"model": "ukis-4bnd-l1c"}, OptionError, "did you mean"),
        (lambda: scene(GOOD, NAMES), {"device": "gpu"}, OptionError, "cuda"),
        (lambda: scene(GOOD, NAMES), {"batch_size": -1}, CloudMaskError, "batch_size=-1"),
        (lambda: scene(GOOD, NAMES), {"valid": xr.DataArray(np.ones((3, 3)), dims=("y", "x"))}, CloudMaskError,
         "do not fit"),
        (lambda: scene((GOOD * 1e4).astype("u2"), NAMES).cloudmask.describe(scale=1e-4), {"nodata": -9999},
         UnitError, "nodata=-9999"),
    ],
)  # fmt: skip
def test_bad_input_is_answered_with_the_remedy(make, options, error, words) -> None:
    with pytest.raises(error, match=words):
        make().cloudmask.predict(**options)


def test_scaled_numbers_held_as_floats_are_refused_when_seen() -> None:
    lazy = scene(GOOD * 1e4, NAMES).chunk(y=32).cloudmask.predict()
    with pytest.raises(UnitError, match="describe"):
        lazy.compute()


def test_wavelengths_in_nanometres_are_refused() -> None:
    da = scene(GOOD, ["a", "b", "c", "d"]).assign_coords(center_wavelength=("band", [490.0, 560, 665, 842]))
    with pytest.raises(UnitError, match="µm"):
        da.cloudmask.predict()


def test_import_is_light() -> None:
    import subprocess
    import sys

    code = "import sys, xcloudmask; print([m for m in ('torch','onnxruntime','zarr','pystac') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
    assert "ukis-6band-l1c" in xcloudmask.models.list()
