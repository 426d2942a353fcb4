"""How far the members of an ensemble disagree: blended once, as probabilities are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.scenes import chunks, noise, same_odds, scene
from xcloudmask import models, testing
from xcloudmask.engine import predictor
from xcloudmask.engine.tiling import TilePlan
from xcloudmask.errors import CloudMaskError, ContractError, OptionError
from xcloudmask.models import registry
from xcloudmask.streaming import stream
from xcloudmask.testing import ANSWERS_NAN, TOY, TOYS

BANDS = ["red", "nir"]


def members(pixels: np.ndarray) -> np.ndarray:
    """What each of the team says of one window, (member, class, y, x)."""
    with torch.inference_mode():
        batch = (torch.from_numpy(pixels[None]) - 0.2) / 0.2
        return np.stack(
            [torch.softmax(testing.load_toy(one).body(batch), dim=1)[0].numpy() for one in TOYS.members]
        )


def test_of_one_window_it_is_the_deviation_between_members() -> None:
    pixels = noise(2, 32, 32)
    odds = scene(pixels, BANDS).cloudmask.predict_proba(TOYS, uncertainty=True)
    assert odds["class"].values.tolist() == ["clear", "cloud", "cloud_shadow", "uncertainty"]
    each = members(pixels)
    np.testing.assert_allclose(odds.values[3], each[:, 1].std(axis=0), atol=1e-6)
    np.testing.assert_allclose(odds.values[:3], each.mean(axis=0), atol=1e-6)
    assert odds.values[3].max() > 0.1
    assert odds.attrs["uncertainty"].endswith("between members of the model")


def test_windows_are_blended_with_the_same_weights() -> None:
    pixels = noise(2, 60, 71)
    odds = scene(pixels, BANDS).cloudmask.predict_proba(TOYS, uncertainty=True)
    plan, expected = TilePlan.make((60, 71), 32, 8), np.zeros((60, 71))
    for row, top in enumerate(plan.y.starts):
        for col, left in enumerate(plan.x.starts):
            box = slice(top, top + 32), slice(left, left + 32)
            weights = plan.y.weights(row)[:, None] * plan.x.weights(col)
            expected[box] += weights * members(pixels[:, *box])[:, 1].std(axis=0)
    np.testing.assert_allclose(odds.sel({"class": "uncertainty"}).values, expected, atol=1e-6)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_chunking(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 100)), data.draw(st.integers(2, 100))
    pixels = noise(2, 2, height, width, seed=height * 131 + width)
    if data.draw(st.booleans()):
        pixels[0, :, : data.draw(st.integers(1, 60)), data.draw(st.integers(0, 9)) :] = np.nan
    da = scene(pixels, BANDS, step=data.draw(st.sampled_from([10.0, 30.0])))
    options: dict[str, Any] = {
        "model": data.draw(st.sampled_from([TOYS, TOY])),
        "working_resolution": data.draw(st.sampled_from(["auto", "native", 60])),
        "overlap": data.draw(st.sampled_from([0, 8, 21])),
    }
    options["tta"] = 4 if options["model"] is TOY else False
    cut = {"time": 1, "y": data.draw(chunks(height)), "x": data.draw(chunks(width))}
    whole = da.cloudmask.predict_proba(uncertainty=True, **options)
    lazy = da.chunk(cut).cloudmask.predict_proba(uncertainty=True, **options)
    assert lazy.chunks is not None
    assert lazy.sizes["class"] == 4
    same_odds(lazy.values, whole.values)
    plain = da.cloudmask.predict_proba(**options)  # and the probabilities are what they are without it
    same_odds(whole.values[:, :3], plain.values)
    gap = np.isnan(pixels).any(axis=1)
    np.testing.assert_array_equal(np.isnan(whole.values), np.broadcast_to(gap[:, None], whole.shape))
    found = whole.sel({"class": "uncertainty"}).values[~gap]
    assert found.size == 0 or (found.min() >= 0 and found.max() <= 0.5)


def test_a_constant_field_stays_constant_at_any_resolution() -> None:
    pixels = np.full((2, 200, 170), 0.3, np.float32)
    pixels[:, 40:60, 40:60] = (
        np.nan
    )  # cells next to a gap are left out of the interpolation, not mixed with 0
    for resolution in ("native", 60):
        da = scene(pixels, BANDS)
        found = da.cloudmask.predict_proba(TOYS, uncertainty=True, working_resolution=resolution)[3].values
        assert np.nanmax(found) - np.nanmin(found) < 1e-6
        assert np.nanmin(found) > 1e-3
        np.testing.assert_array_equal(np.isnan(found), np.isnan(pixels[0]))


def test_with_augmentation_it_is_the_deviation_between_turns() -> None:
    pixels = noise(2, 32, 32)

    def cloud(array: np.ndarray) -> np.ndarray:
        return scene(array, BANDS).cloudmask.predict_proba(TOY).values[1]

    odds = scene(pixels, BANDS).cloudmask.predict_proba(TOY, tta=True, uncertainty=True)
    each = []
    for swap in (False, True):
        for rows in (1, -1):
            for cols in (1, -1):
                turned = pixels[:, ::rows, ::cols]
                turned = turned.swapaxes(1, 2) if swap else turned
                back = cloud(np.ascontiguousarray(turned))
                each.append((back.T if swap else back)[::rows, ::cols])
    np.testing.assert_allclose(odds.values[3], np.std(each, axis=0), atol=1e-6)
    np.testing.assert_allclose(odds.values[1], np.mean(each, axis=0), atol=1e-6)
    assert odds.values[3].max() > 0.01
    assert odds.attrs["uncertainty"].endswith("turns and mirrors of a window")


def test_with_several_cloud_classes_it_is_that_of_their_sum() -> None:
    """Thick and thin cloud that change places between turns are no doubt about cloud."""
    spec = replace(TOY, name="toy-thin", classes=("clear", "cloud", "thin_cloud"))
    da = scene(noise(2, 32, 32), BANDS)
    binary = da.cloudmask.predict_proba(spec, tta=True, uncertainty=True, scheme="binary")
    assert binary["class"].values.tolist() == ["not_cloud", "cloud", "uncertainty"]
    default = da.cloudmask.predict_proba(spec, tta=True, uncertainty=True)
    same_odds(binary.values[-1], default.values[-1])
    each = [da, scene(np.rot90(da.values, axes=(-2, -1)).copy(), BANDS)]  # the second view is a quarter turn
    odds = [turned.cloudmask.predict_proba(spec, scheme="binary").values[1] for turned in each]
    two = da.cloudmask.predict_proba(spec, tta=2, uncertainty=True).values[-1]
    np.testing.assert_allclose(two, np.abs(odds[0] - np.rot90(odds[1], -1)) / 2, atol=1e-6)


def test_members_with_augmentation_tell_the_mean_of_their_spreads() -> None:
    pixels = np.full((2, 32, 32), 0.3, np.float32)  # every turn is the same
    da = scene(pixels, BANDS)
    plain = da.cloudmask.predict_proba(TOYS, uncertainty=True)
    turned = da.cloudmask.predict_proba(TOYS, uncertainty=True, tta=True)
    np.testing.assert_allclose(turned.values, plain.values, atol=1e-6)
    assert plain.values[3].min() > 1e-3
    without = da.cloudmask.predict_proba(TOYS, tta=True)
    same_odds(without.values, turned.values[:3])


def test_classes_and_probabilities_of_an_ensemble_need_no_uncertainty() -> None:
    pixels = noise(2, 60, 50)
    mask = scene(pixels, BANDS).cloudmask.predict(TOYS)
    odds = scene(pixels, BANDS).cloudmask.predict_proba(TOYS)
    assert odds.sizes["class"] == 3
    np.testing.assert_allclose(odds.sum("class"), 1, atol=1e-5)
    np.testing.assert_array_equal(np.array([0, 1, 3])[odds.argmax("class")], mask.values)


def test_a_stream_gives_the_same(tmp_path: Path) -> None:
    pixels = noise(2, 2, 150, 130)
    pixels[0, :, 20:60, 30:] = np.nan
    da = scene(pixels, BANDS).assign_coords(time=np.array(["2026-05-01", "2026-05-02"], "M8[ns]"))
    expected = da.cloudmask.predict_proba(TOYS, uncertainty=True)
    small: dict[str, Any] = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}
    small |= {"output": "probabilities", "encoding": {"dtype": "float32"}}
    stream(da.chunk(y=70), tmp_path, predict={"model": TOYS, "uncertainty": True}, **small)
    found = xr.open_zarr(tmp_path).cloud_probability
    same_odds(found.values, expected.values)
    assert found["class"].values.tolist()[-1] == "uncertainty"
    with pytest.raises(ContractError, match="uncertainty: True in the store, None in this call"):
        stream(da, tmp_path, predict={"model": TOYS}, **small)
    with pytest.raises(CloudMaskError, match="say output='probabilities'"):
        stream(da, tmp_path, predict={"model": TOYS, "uncertainty": True}, progress=False)


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test add models that no other test meets."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.mark.usefixtures("fresh_registry")
def test_one_member_cannot_disagree() -> None:
    da = scene(noise(2, 40, 40), BANDS)
    with pytest.raises(CloudMaskError, match=r"'toy' has one member.*tta=True"):
        da.cloudmask.predict_proba(TOY, uncertainty=True)
    models.register(TOYS, overwrite=True)
    with pytest.raises(CloudMaskError, match=r"several members: .*team"):
        da.cloudmask.predict_proba(TOY, uncertainty=True)
    land = replace(TOY, name="toy-land", classes=("land", "water", "snow"))
    with pytest.raises(CloudMaskError, match="one member"):  # no cloud, so no doubt about it
        da.cloudmask.predict_proba(land, uncertainty=True, tta=True)


def test_a_card_that_promises_what_the_network_does_not_tell() -> None:
    da = scene(noise(2, 40, 40), BANDS)
    false = replace(TOY, name="toy-false", activation=None, uncertainty=True)
    with pytest.raises(CloudMaskError, match="and the uncertainty"):
        da.cloudmask.predict_proba(false, uncertainty=True)
    with pytest.raises(ValueError, match="must be probabilities"):
        replace(TOY, uncertainty=True)


def test_the_card_tells_and_comes_back() -> None:
    from xcloudmask.models import card

    assert card.from_json(card.to_json(TOYS), "a.json") == TOYS
    assert dict(card.rows_of(TOYS))["uncertainty"] == "the spread between its members"


@pytest.mark.usefixtures("fresh_registry")
def test_an_ensemble_in_a_file_tells_it(tmp_path: Path) -> None:
    """From weights, and back from what `export` writes; in one graph that comes as ONNX, too."""
    from safetensors.torch import save_file

    from tests.models.helpers import as_onnx
    from xcloudmask.models.arch import build

    config = {"bands": 2, "classes": 1}
    for seed in (4, 5):
        path = tmp_path / f"one{seed}.safetensors"
        save_file(build("pixel-mlp", config, seed=seed).state_dict(), path)
        models.load(
            path, architecture="pixel-mlp", config=config, bands=BANDS, classes=["clear", "cloud"], patch=32
        )
    spec = models.ensemble(["one4", "one5"], name="pair", uncertainty=True)
    assert spec.uncertainty
    da = scene(noise(2, 50, 40), BANDS)
    expected = da.cloudmask.predict_proba("pair", uncertainty=True)
    assert expected.sizes["class"] == 3
    assert float(expected[2].max()) > 1e-3
    models.export("pair", tmp_path / "out")
    again = models.load(tmp_path / "out" / "pair.json", name="pair-again")
    found = da.cloudmask.predict_proba(again, uncertainty=True)
    same_odds(found.values, expected.values)

    class Pair(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.members = torch.nn.ModuleList(build("pixel-mlp", config, seed=seed) for seed in (4, 5))

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            each = torch.stack([torch.sigmoid(member(pixels)) for member in self.members])
            cloud = each.mean(dim=0)
            return torch.cat([1 - cloud, cloud, each.std(dim=0, correction=0)], dim=1)

    (tmp_path / "pair.onnx").write_bytes(as_onnx(Pair().eval()))
    graph = models.load(
        tmp_path / "pair.onnx", name="pair-onnx", bands=BANDS, classes=["clear", "cloud"], activation="none",
        uncertainty=True, patch=32, overlap=8,
    )  # fmt: skip
    found = da.cloudmask.predict_proba(graph, uncertainty=True)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-5)
    turned = da.cloudmask.predict_proba(graph, uncertainty=True, tta=2)  # sums of arrays, as of tensors
    np.testing.assert_allclose(turned.values, expected.values, atol=1e-5)


@pytest.mark.usefixtures("fresh_registry")
def test_a_module_of_ones_own_tells_it() -> None:
    class Two(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            one, other = pixels[:, :1], pixels[:, 1:2]
            cloud = (one + other) / 2
            return torch.cat([1 - cloud, cloud, (one - other).abs() / 2], dim=1)

    spec = models.register(Two(), bands=BANDS, classes=["clear", "cloud"], uncertainty=True, patch=32)
    pixels = noise(2, 50, 40)
    odds = scene(pixels, BANDS).cloudmask.predict_proba(spec, uncertainty=True)
    np.testing.assert_allclose(odds.values[2], np.abs(pixels[0] - pixels[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("resolution", ["native", 30])
def test_pixels_of_which_the_network_says_nothing_have_no_uncertainty(resolution: Any) -> None:
    predictor.unload()  # a model warns once in a process
    pixels = noise(1, 70, 70) * 0.7
    pixels[0, 12:30, 12:30] = 0.95
    da = scene(pixels, ["red"], step=10.0)
    with pytest.warns(UserWarning, match="not finite"):
        odds = da.cloudmask.predict_proba(
            ANSWERS_NAN, tta=True, uncertainty=True, working_resolution=resolution
        )
    np.testing.assert_array_equal(np.isnan(odds.values[2]), np.isnan(odds.values[0]))
    assert np.isnan(odds.values[2]).any()


def test_it_is_asked_for_by_a_boolean_and_listed_as_no_class() -> None:
    da = scene(noise(2, 32, 32), BANDS)
    wrongs: tuple[Any, ...] = ("no", 1, None)
    for wrong in wrongs:
        with pytest.raises(OptionError, match=r"unknown uncertainty .*Allowed: False, True"):
            da.cloudmask.predict_proba(TOYS, uncertainty=wrong)
    odds = da.cloudmask.predict_proba(TOYS, uncertainty=bool(np.True_))
    assert "clear, cloud, cloud_shadow; NaN for no data" in repr(odds.cloudmask)
    alone = odds.drop_sel({"class": "uncertainty"})  # what the documentation says
    np.testing.assert_allclose(alone.sum("class"), 1, atol=1e-5)
