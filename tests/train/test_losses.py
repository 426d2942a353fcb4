"""Losses: equal to the paper's formulas and, where labels are exact, to torch's; gradients by differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as f

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import losses

N, C, Y, X = 2, 4, 3, 5
CLOUDY = [False, True, True, False]
EVERY: dict[str, Callable[..., Tensor]] = {
    **losses.LOSSES, "bce-dice": lambda z, possible: losses.bce_dice(z, possible, CLOUDY)
}  # fmt: skip


def logits(seed: int = 0) -> Tensor:
    return torch.randn(N, C, Y, X, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(seed: int = 1) -> tuple[Tensor, Tensor]:
    truth = torch.randint(C, (N, Y, X), generator=torch.Generator().manual_seed(seed))
    return truth, f.one_hot(truth, C).permute(0, 3, 1, 2).bool()


def partial(seed: int = 2) -> Tensor:
    """Any number of classes open, none and all of them included."""
    possible = torch.rand(N, C, Y, X, generator=torch.Generator().manual_seed(seed)) < 0.5
    possible[0, :, 0, 0], possible[0, :, 0, 1] = False, True
    return possible


def test_exact_labels_give_torchs_losses() -> None:
    truth, possible = exact()
    z = logits()
    torch.testing.assert_close(losses.ambiguous_cross_entropy(z, possible), f.cross_entropy(z, truth))
    torch.testing.assert_close(
        losses.ambiguous_mean_squared(z, possible), f.mse_loss(torch.softmax(z, 1), possible.double())
    )
    torch.testing.assert_close(
        losses.distillation(z, torch.softmax(logits(5), 1)).double(),
        f.cross_entropy(z, torch.softmax(logits(5), 1)), atol=1e-6, rtol=1e-6,
    )  # fmt: skip


def test_bce_dice_is_binary_cross_entropy_and_dice_of_cloud_where_labels_decide_it() -> None:
    """Written out pixel by pixel; of one logit, which a channel of zeros makes two, it is torch's loss."""
    z, y = logits(), partial()
    p = torch.softmax(z, 1).numpy()
    entropy, both, each = [], 0.0, 0.0
    for n, i, j in np.ndindex(N, Y, X):
        cloud, rest = bool(y[n, 1:3, i, j].any()), bool(y[n, [0, 3], i, j].any())
        if cloud == rest:
            continue
        share = p[n, 1, i, j] + p[n, 2, i, j]
        entropy.append(-np.log(share if cloud else 1 - share))
        both, each = both + share * cloud, each + share + cloud
    expected = np.mean(entropy) + 1 - (2 * both + 1) / (each + 1)
    assert 5 < len(entropy) < N * Y * X
    assert losses.bce_dice(z, y, CLOUDY).item() == pytest.approx(expected, rel=1e-6)
    one, truth = z[:, :1], torch.stack([exact()[0] == 0, exact()[0] != 0], dim=1)
    two = torch.cat([torch.zeros_like(one), one], dim=1)
    sure, target = torch.sigmoid(one[:, 0]), truth[:, 1].double()
    torch.testing.assert_close(
        losses.combined({"bce-dice": 1.0}, ["clear", "cloud"])(two, truth),
        f.binary_cross_entropy_with_logits(one[:, 0], target)
        + 1
        - (2 * (sure * target).sum() + 1) / (sure.sum() + target.sum() + 1),
    )
    several = ["clear", "thin_cloud", "thick_cloud", "cloud_shadow"]
    with pytest.raises(CloudMaskError, match="add another term"):
        losses.combined({"bce-dice": 1.0}, several)
    losses.combined({"bce-dice": 1.0, "ambiguous-ce": 1.0}, several)


def test_partial_labels_follow_equations_5_to_8() -> None:
    z, y = logits(), partial()
    p = torch.softmax(z, 1).numpy()
    ce, mse = [], []
    for n, i, j in np.ndindex(N, Y, X):
        open_, prob = y[n, :, i, j].numpy().astype(float), p[n, :, i, j]
        if open_.sum() in (0, C):
            continue
        phi = (open_ * prob).sum()
        proxy = (1 - open_) * prob + open_ * phi / open_.sum()
        ce.append(-np.log(phi))
        mse.append(((open_ / open_.sum() - proxy) ** 2).mean())
    assert losses.ambiguous_cross_entropy(z, y).item() == pytest.approx(np.mean(ce))
    assert losses.ambiguous_mean_squared(z, y).item() == pytest.approx(np.mean(mse))


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "ce": lambda z: losses.ambiguous_cross_entropy(z, partial()),
    "ce-smoothing": lambda z: losses.ambiguous_cross_entropy(z, partial(), smoothing=0.1),
    "mse": lambda z: losses.ambiguous_mean_squared(z, partial()),
    "bce-dice": lambda z: losses.bce_dice(z, partial(), CLOUDY),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    z = logits(3).requires_grad_()
    assert torch.autograd.gradcheck(LOSSES[name], (z,), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["dice", "distillation", "recovery"])
def test_gradients_of_those_in_single_precision(name: str) -> None:
    """These compute in float32: central differences with a step that suits it."""
    truth, possible = exact()
    function: dict[str, Callable[[Tensor], Tensor]] = {
        "dice": lambda z: losses.dice(z, possible),
        "distillation": lambda z: losses.distillation(
            z, torch.softmax(logits(5), 1), truth > 0, temperature=2
        ),
        "recovery": lambda z: losses.band_recovery(
            z, logits(6), torch.tensor([[True] * C, [True, False] * 2])
        ),
    }
    z = logits(4).float().requires_grad_()
    function[name](z).backward()
    assert z.grad is not None
    for at in [(0, 0, 0, 0), (0, 2, 1, 3), (1, 3, 2, 4), (1, 1, 0, 2)]:
        up, down = z.detach().clone(), z.detach().clone()
        up[at] += 2e-2
        down[at] -= 2e-2
        slope = (function[name](up) - function[name](down)).item() / 4e-2
        assert z.grad[at].item() == pytest.approx(slope, rel=0.02, abs=2e-5)


def test_pixels_that_tell_nothing_have_neither_weight_nor_gradient() -> None:
    for name, function in EVERY.items():
        z = logits().float().requires_grad_()
        possible = exact()[1].clone()
        possible[0] = False
        value = function(z, possible)
        changed = z.detach().clone()
        changed[0] = torch.nan_to_num(changed[0]) + 100
        assert torch.equal(value, function(changed, possible)), name
        value.backward()
        assert z.grad is not None
        assert not z.grad[0].any(), name
        assert torch.isfinite(z.grad).all(), name
    nothing = torch.zeros(N, C, Y, X, dtype=torch.bool)
    assert losses.ambiguous_cross_entropy(logits(), nothing) == 0


def test_the_ambiguous_loss_does_not_care_which_of_the_possible_classes_is_right() -> None:
    possible = torch.tensor([[True, True, False]])
    one, other = torch.tensor([[0.6, 0.2, 0.2]]).log(), torch.tensor([[0.1, 0.7, 0.2]]).log()
    for name in ("ambiguous-ce", "ambiguous-mse"):
        torch.testing.assert_close(losses.LOSSES[name](one, possible), losses.LOSSES[name](other, possible))


def test_extreme_logits_stay_finite() -> None:
    z = (logits() * 1e4).float().requires_grad_()
    for name, function in EVERY.items():
        value = function(z, partial())
        value.backward()
        assert torch.isfinite(value), name
        assert z.grad is not None
        assert torch.isfinite(z.grad).all(), name


def test_classes_of_labels() -> None:
    labels = np.array([[1, 6], [9, 0], [17, 8]], np.uint8)[None]
    open_ = losses.open_to(labels, ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"])
    assert open_.shape == (1, 4, 3, 2)
    assert open_[0, :, 0, 1].tolist() == [False, True, True, False]
    assert open_[0, :, 1, 0].tolist() == [True, False, False, True]
    assert not open_[0, :, 1, 1].any()
    ground = losses.open_to(labels, ["land", "water", "snow", "cloud", "cloud_shadow"])
    assert ground[0, :, 0, 0].tolist() == [True, True, True, False, False]
    assert ground[0, :, 2, 0].tolist() == [True, False, False, False, False]


def test_errors() -> None:
    with pytest.raises(OptionError, match="ambiguous-ce"):
        losses.combined({"ambigous-ce": 1.0}, ["clear", "cloud"])
    with pytest.raises(CloudMaskError, match="agree"):
        losses.ambiguous_cross_entropy(logits(), partial()[:, :2])
