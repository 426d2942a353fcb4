"""Losses for partial labels, and what else a cloud mask is trained with.

Logits are (n, classes, ...); `possible` has the same shape and holds which classes the label leaves open. A
pixel whose label leaves all or none open decides nothing and has no weight. Everything is computed in float32
at least, also under autocast.

References
----------
A. Francis, "Sensor independent cloud and shadow masking with partial labels and multimodal inputs", IEEE
TGRS 62, 2024, equations 5 to 8 and section IV-B
P. Kettig et al., "Improving future optical Earth Observation products using transfer learning", EGU 2020
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.labels import ASKED, covers_all, elementary, open_classes, within


def open_to(possible: NDArray[np.uint8], classes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which classes of a network each label (n, ...), a bit mask, leaves open: (n, classes, ...).

    Examples
    --------
    >>> open_to(np.array([6, 9, 0], "u1"), ["clear", "cloud", "cloud_shadow"]).astype(int).tolist()
    [[0, 1, 0], [1, 0, 1], [0, 0, 0]]
    """
    words = open_classes(classes)
    if not covers_all(words):
        raise CloudMaskError(f"the classes {', '.join(classes)} do not cover every pixel")
    open_bits = elementary(possible)
    return np.stack([(open_bits & np.uint8(bits)) > 0 for bits in words.values()], axis=1)


def ambiguous_cross_entropy(logits: Tensor, possible: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean of -log(sum of the possible classes' probabilities).

    Where labels leave one class open it is torch's cross-entropy. `smoothing` is the share of probability
    that labels are trusted not to have: coarse masks err at cloud edges.

    Examples
    --------
    >>> p = torch.tensor([[0.2, 0.3, 0.5]])
    >>> round(ambiguous_cross_entropy(p.log(), torch.tensor([[True, True, False]])).item(), 4)
    0.6931
    """
    logits, weight = _prepared(logits, possible)
    whole, decides = torch.logsumexp(logits, dim=1), _decides(possible)

    def without(classes: Tensor) -> Tensor:
        return torch.logsumexp(logits.masked_fill(classes, -torch.inf).where(decides, logits), dim=1)

    loss = whole - without(~possible)
    if smoothing:
        loss = (1 - smoothing) * loss + smoothing * (whole - without(possible))
    return _mean(loss, weight)


def ambiguous_mean_squared(logits: Tensor, possible: Tensor) -> Tensor:
    """Return the mean-squared twin: probability spread evenly over the possible classes, against theirs.

    Examples
    --------
    >>> p = torch.tensor([[0.2, 0.3, 0.5]])
    >>> round(ambiguous_mean_squared(p.log(), torch.tensor([[True, True, False]])).item(), 4)
    0.125
    """
    logits, weight = _prepared(logits, possible)
    p, y = torch.softmax(logits, dim=1), possible.to(logits.dtype)
    count = y.sum(dim=1, keepdim=True).clamp(min=1)
    proxy = (1 - y) * p + y * (y * p).sum(dim=1, keepdim=True) / count
    return _mean(((y / count - proxy) ** 2).mean(dim=1), weight)


def dice(logits: Tensor, possible: Tensor, *, eps: float = 1.0) -> Tensor:
    """Return one minus the mean Dice coefficient of the classes, where labels leave one class open.

    Examples
    --------
    >>> sure = torch.tensor([[[30.0, -30.0]], [[-30.0, 30.0]]]).reshape(1, 2, 2)
    >>> dice(sure, sure > 0).item() < 1e-6
    True
    """
    exact = possible.sum(dim=1, keepdim=True) == 1
    p = torch.softmax(logits.float(), dim=1) * exact
    y = (possible & exact).float()
    over = [d for d in range(p.dim()) if d != 1]
    both, each = (p * y).sum(dim=over), p.sum(dim=over) + y.sum(dim=over)
    return 1 - ((2 * both + eps) / (each + eps)).mean()


def bce_dice(logits: Tensor, possible: Tensor, cloudy: Sequence[bool], *, eps: float = 1.0) -> Tensor:
    """Return binary cross-entropy of cloud plus one minus its Dice coefficient, the loss of CNES's CloudDL.

    The probability of cloud is the sum over the classes that `cloudy` marks, some, not all; pixels whose
    label leaves cloud open do not count. Dice looks at cloud alone, so that rare clouds weigh as much as
    frequent ones; `eps` makes it 1 where there is no cloud at all.

    Examples
    --------
    >>> p, cloud = torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([[True, False], [False, True]])
    >>> round(bce_dice(p.log(), cloud, [False, True]).item(), 4)  # (0.2231 + 0.5108) / 2 + 1 - 2.2 / 2.8
    0.5813
    """
    yes = torch.tensor(cloudy, device=logits.device)
    logits, _ = _prepared(logits, possible)
    cloud = torch.logsumexp(logits[:, yes], dim=1) - torch.logsumexp(logits[:, ~yes], dim=1)
    truth = possible[:, yes].any(dim=1)
    weight = (truth != possible[:, ~yes].any(dim=1)).to(logits.dtype)  # neither or both: it decides nothing
    target = truth.to(logits.dtype)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(cloud, target, reduction="none")
    p, y = torch.sigmoid(cloud) * weight, target * weight
    return _mean(entropy, weight) + 1 - (2 * (p * y).sum() + eps) / (p.sum() + y.sum() + eps)


def distillation(
    logits: Tensor, teacher: Tensor, labelled: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Return the cross-entropy against a teacher's probabilities, where it is believed (`labelled`).

    Both are softened by a temperature: above 1, small probabilities count more.

    Examples
    --------
    >>> p = torch.tensor([[0.25, 0.75]])
    >>> round(distillation(p.log(), p).item(), 4)
    0.5623
    """
    soft = teacher.float().clamp(min=1e-8) ** (1 / temperature)
    soft = soft / soft.sum(dim=1, keepdim=True)
    loss = -(soft * torch.log_softmax(logits.float() / temperature, dim=1)).sum(dim=1) * temperature**2
    return _mean(loss, torch.ones_like(loss) if labelled is None else labelled.float())


def teaching(
    logits: Tensor,
    soft_labels: Tensor,
    classes: Sequence[str],
    *,
    temperature: float = 1.0,
    weight: float = 1.0,
) -> Tensor:
    """Return `distillation` from a teacher of clear, cloud and shadow, whatever classes the network has.

    `soft_labels` are (n, 3, ...), as `xcloudmask.train.pseudo.opinion` gives them: NaN where there is none;
    where only shadow is NaN, clear means not cloud.

    Examples
    --------
    >>> soft_labels = torch.tensor([[0.2, 0.8, float("nan")]])
    >>> logits = torch.tensor([[0.1, 0.4, 0.4, 0.1]]).log()
    >>> classes = ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"]
    >>> round(teaching(logits, soft_labels, classes).item(), 4)  # of 0.2 and 0.8 against themselves
    0.5004
    """
    legend = open_classes(classes)
    kinds = [torch.tensor(within(legend, asked)) for asked in ASKED.values()]
    if not kinds[1].any() or kinds[1].all():
        raise CloudMaskError(
            f"a teacher predicts cloud or not, and of the classes {', '.join(classes)} "
            + ("all are cloud" if kinds[1].any() else "none is cloud alone")
        )
    whole = kinds[0].any() and kinds[2].any() and (kinds[0] | kinds[1] | kinds[2]).all()
    rows, soft = (each.float().movedim(1, -1).flatten(0, -2) for each in (logits, soft_labels))
    known = ~torch.isnan(soft[:, 1])
    three = known & ~torch.isnan(soft[:, 2]) & bool(whole)
    cloud_or_not = torch.stack([1 - soft[:, 1], soft[:, 1]], dim=1)
    parts = ((three, kinds, soft), (known & ~three, [~kinds[1], kinds[1]], cloud_or_not))
    total = logits.new_zeros((), dtype=torch.float32)
    for where, groups, truth in parts:
        if where.any():
            summed = [torch.logsumexp(rows[where][:, group.to(rows.device)], dim=1) for group in groups]
            loss = distillation(torch.stack(summed, 1), truth[where], temperature=temperature)
            total = total + loss * where.sum() / known.sum()
    return weight * total


def band_recovery(estimate: Tensor, pixels: Tensor, present: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the mean squared error of band values recovered from an embedding, over present bands.

    `estimate` and `pixels` are (n, bands, y, x), `present` (n, bands), `valid` (n, y, x).

    Examples
    --------
    >>> x = torch.ones(1, 2, 1, 1)
    >>> band_recovery(torch.zeros(1, 2, 1, 1), x, torch.tensor([[True, False]])).item()
    1.0
    """
    weight = present[:, :, None, None].expand_as(pixels).float()
    if valid is not None:
        weight = weight * valid[:, None]
    error = torch.where(weight > 0, estimate.float() - pixels.float(), 0.0)
    return _mean(error**2, weight)


#: Losses of logits and possible classes, by the names that a config uses.
LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "ambiguous-ce": ambiguous_cross_entropy,
    "ambiguous-mse": ambiguous_mean_squared,
    "bce-dice": bce_dice,
    "dice": dice,
}


def combined(
    terms: Mapping[str, float], classes: Sequence[str], *, smoothing: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the weighted sum of losses named in `LOSSES`, for a network of these classes.

    `smoothing` is that of ``"ambiguous-ce"``.

    Examples
    --------
    >>> loss = combined({"ambiguous-ce": 1.0, "dice": 0.5}, ["clear", "cloud"])
    >>> loss(torch.zeros(1, 2), torch.tensor([[True, False]])).item() > 0.69
    True
    >>> combined({"bce-dice": 1.0}, ["clear", "thin_cloud", "thick_cloud"])
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: bce-dice in [loss] tells cloud from the rest, and the classes are ...
    """
    for name in terms:
        if name not in LOSSES:
            raise OptionError("loss", name, allowed=LOSSES)
    cloudy = within(open_classes(classes), ASKED["cloud"])
    if "bce-dice" in terms and (not any(cloudy) or (len(terms) == 1 and len(cloudy) > 2)):
        raise CloudMaskError(
            f"bce-dice in [loss] tells cloud from the rest, and the classes are {', '.join(classes)}: name "
            "two, such as clear and cloud, or add another term, ambiguous-ce"
        )
    functions: dict[str, Callable[..., Tensor]] = {
        **LOSSES,
        "ambiguous-ce": partial(ambiguous_cross_entropy, smoothing=smoothing),
        "bce-dice": partial(bce_dice, cloudy=cloudy),
    }

    def total(logits: Tensor, possible: Tensor) -> Tensor:
        values = [weight * functions[name](logits, possible) for name, weight in terms.items()]
        return torch.stack(values).sum()

    return total


def _decides(possible: Tensor) -> Tensor:
    """Return where a label decides something, with a class dimension of one."""
    return possible.any(dim=1, keepdim=True) & ~possible.all(dim=1, keepdim=True)


def _prepared(logits: Tensor, possible: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits in float32 at least, and the weight of each pixel."""
    if logits.shape != possible.shape or possible.dtype != torch.bool:
        raise CloudMaskError(
            f"logits {tuple(logits.shape)} and possible {tuple(possible.shape)} ({possible.dtype}) must "
            "agree in shape, possible as bool"
        )
    logits = logits if logits.dtype == torch.float64 else logits.float()
    weight = _decides(possible).squeeze(1).to(logits.dtype)
    return logits, weight


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean, 0 (with a gradient of 0) where nothing has weight."""
    whole = weight.sum()
    return (values * weight).sum() / torch.where(whole > 0, whole, torch.ones_like(whole))
