"""Independent judges: the network called by hand, and ukis-csmask's own code.

A 256 x 256 image is one window to us. `CSmask` mirrors it outward, runs four windows that are mostly mirror
image, and averages them where they meet, so its map is not that of the patch alone: on 25 real patches
between 0 and 39 % of the pixels differ from a plain ``predict`` (median 2 %), the most over snow and towns.
What must be equal, and is, is the arithmetic on the same windows.
"""

import itertools
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import ukis_csmask
from scipy.signal.windows import tukey
from ukis_csmask.mask import CSmask

from tests.scenes import NAMES, noise, scene, weather

pytestmark = pytest.mark.network

MODELS = ["ukis-6band-l1c", "ukis-4band-l1c", "ukis-6band-l2a", "ukis-4band-l2a"]
DATA = Path(__file__).parents[3] / "shared" / "data"
REAL = [
    ("train/l8_biome/Barren_03_0207.npz", 0),  # all three classes
    ("val/l8_biome/Forest_01_2715.npz", 0),  # mostly cloud
    ("val/dlr/sentinel2.npz", 128),
]


def predicted(pixels: np.ndarray, model: str, **options: object) -> np.ndarray:
    da = scene(pixels, NAMES[: len(pixels)], level=model[-3:])
    return da.cloudmask.predict_proba(model, **options).values


def hann_reference(pixels: np.ndarray, model: str, patch: int, overlap: int) -> np.ndarray:
    """Windows, network, softmax and blend, by hand."""
    import onnxruntime as ort

    stem = Path(ukis_csmask.__file__).parent / f"model_{model[5]}b_{model[-3:]}"
    mean, std = json.loads(stem.with_suffix(".json").read_text())["data"]["dataset_statistics"]["img"]
    session = ort.InferenceSession(str(stem.with_suffix(".onnx")), providers=["CPUExecutionProvider"])
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


@pytest.mark.parametrize("model", MODELS)
def test_probabilities_equal_a_reference_written_by_hand(model: str) -> None:
    pixels = weather(300, 280, bands=int(model[5]))
    expected = hann_reference(pixels, model, 256, 48)
    assert len(np.unique(expected.argmax(axis=0))) > 1
    np.testing.assert_allclose(predicted(pixels, model), expected, atol=1e-5, rtol=0)


def test_probabilities_equal_the_reference_whatever_the_chunks() -> None:
    pixels = np.kron(noise(4, 20, 16), np.ones((1, 20, 20), "f4")) * 0.6
    expected = hann_reference(pixels, "ukis-4band-l1c", 256, 48)
    lazy = scene(pixels, NAMES[:4]).chunk(band=1, y=150, x=101)
    found = lazy.cloudmask.predict_proba("ukis-4band-l1c")
    np.testing.assert_allclose(found.values, expected, atol=1e-5, rtol=0)


def real_patch(path: str, first: int) -> np.ndarray:
    if not (DATA / path).exists():
        pytest.skip(f"needs shared/data/{path}, which is not part of the repository")
    stored = np.load(DATA / path)
    names = ["nir" if name == "nir08" else str(name) for name in stored["bands"]]
    counts = np.stack([stored["image"][names.index(name)] for name in NAMES])
    return (counts[:, first : first + 256, first : first + 256] / 1e4).astype(np.float32)


@cache
def judged(path: str, first: int, model: str) -> tuple[np.ndarray, np.ndarray]:
    """A patch, and the class map that ukis-csmask gives it."""
    pixels = real_patch(path, first) if path else weather(256, 256, bands=int(model[5]), seed=first)
    image = np.moveaxis(pixels, 0, -1).copy()
    mask = CSmask(image, NAMES[: len(pixels)], product_level=model[-3:], intra_op_num_threads=1)
    return pixels, mask.csm[..., 0]


def csmask_windows(pixels: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """The pixels that CSmask infers for a 256 x 256 image, and the corners of its windows.

    It mirrors the image, 51 pixels before it, and runs windows of 256 that start every 204 pixels.
    """
    padded = np.pad(pixels, ((0, 0), (51, 153), (51, 153)), mode="symmetric")
    return padded, list(itertools.product((0, 204), repeat=2))


CASES = [pytest.param(path, first, "ukis-6band-l1c", id=Path(path).stem) for path, first in REAL]
CASES += [pytest.param("", 5, model, id=f"made-up-{model}") for model in MODELS]


@pytest.mark.parametrize(("path", "first", "model"), CASES)
def test_classes_equal_csmask_for_the_same_windows(path: str, first: int, model: str) -> None:
    """`CSmask(...).csm` to the last pixel, when our windows are added up as CSmask adds them.

    So: its four windows through our whole path, one at a time, and its own Tukey ramps.
    """
    pixels, theirs = judged(path, first, model)
    assert len(np.unique(theirs)) > 1, "a patch of one class proves little"
    padded, corners = csmask_windows(pixels)
    ramps = np.outer(tukey(256, 0.4), tukey(256, 0.4))
    total = np.zeros((3, 460, 460))
    for y, x in corners:
        cells = np.s_[..., y : y + 256, x : x + 256]
        total[cells] += predicted(padded[cells], model) * ramps
    np.testing.assert_array_equal(total[:, 51:307, 51:307].argmax(axis=0), theirs)


@pytest.mark.parametrize(("path", "first", "model"), CASES[:4])
def test_our_blend_differs_from_csmask_only_where_the_ramps_do(path: str, first: int, model: str) -> None:
    """The same four windows in one call of ours, with our Hann ramps in place of CSmask's.

    Another ramp moves the difference of two probabilities by no more than the weights move. No pixel may
    differ whose two best classes lie further apart than that.
    """
    pixels, theirs = judged(path, first, model)
    padded, corners = csmask_windows(pixels)
    found = predicted(padded, model, overlap=52)[:, 51:307, 51:307]

    ours = np.ones(256)
    ours[-52:] = np.cos(np.pi * (np.arange(52) + 0.5) / 104) ** 2
    moved = np.zeros((460, 460))
    total = np.zeros((460, 460))
    for y, x in corners:  # CSmask's weights fall off at the outer edge too: compare after dividing by the sum
        total[y : y + 256, x : x + 256] += np.outer(tukey(256, 0.4), tukey(256, 0.4))
    for y, x in corners:
        hann = np.outer(ours[::-1] if y else ours, ours[::-1] if x else ours)
        cells = np.s_[y : y + 256, x : x + 256]
        share = np.divide(
            np.outer(tukey(256, 0.4), tukey(256, 0.4)), total[cells], out=hann.copy(), where=total[cells] > 0
        )
        moved[cells] += abs(hann - share)
    best = np.sort(found, axis=0)
    margin = best[-1] - best[-2]
    differ = found.argmax(axis=0) != theirs
    assert (margin[differ] <= moved[51:307, 51:307][differ] + 1e-5).all()
    assert differ.mean() < 0.002
