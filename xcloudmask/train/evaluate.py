"""Scores of a network, or of a model of the zoo, on labelled samples: with all bands and with few."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xcloudmask.classes import NO_DATA, SHADOW, scheme
from xcloudmask.engine.blend import window_weights
from xcloudmask.engine.classify import decide_classes, to_scheme
from xcloudmask.engine.tiling import TilePlan, reflect_indices
from xcloudmask.errors import OptionError
from xcloudmask.metrics import QUESTIONS, Histogram, Scores, Tally, score
from xcloudmask.metrics.labels import open_classes, within
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.train.augment import INSTRUMENTS, among, coarsen, places
from xcloudmask.train.files import Entry
from xcloudmask.train.losses import ambiguous_cross_entropy, open_to
from xcloudmask.train.pseudo import ask
from xcloudmask.train.samples import AUX_KINDS, Sample, with_aux
from xcloudmask.types import ModelSpec, Scheme

#: Sets of bands: all of reflectance, the same without the cirrus band, and those of `INSTRUMENTS`.
SETS: tuple[str, ...] = ("all", "no-cirrus", *INSTRUMENTS)
#: A model's answer: probabilities (classes, y, x), their classes, the thresholds of cloud and shadow.
Answer = tuple[NDArray[np.float32], Sequence[str], float | None, float | None]


def take(sample: Sample, bands: str | tuple[str, ...]) -> Sample | None:
    """Return the sample with one of `SETS`, or with bands by name; None where it lacks one of them.

    Its aux planes stay.

    Examples
    --------
    >>> from xcloudmask.types import Band
    >>> one = Sample(np.zeros((1, 1, 1), "f4"), (Band("a", "red"),), np.ones((1, 1), "u1"), 30.0)
    >>> take(one, "rgb") is None, len(take(one, "all").bands)
    (True, 1)
    """
    if isinstance(bands, str) and bands not in SETS:
        raise OptionError("set of bands", bands, allowed=SETS)
    if isinstance(bands, tuple) or bands in INSTRUMENTS:
        at = places(sample, bands if isinstance(bands, tuple) else INSTRUMENTS[bands])
    else:
        at = [
            i
            for i, band in enumerate(sample.bands)
            if band.kind == "reflectance" and (bands == "all" or band.common_name != "cirrus")
        ]
    aux = [i for i, band in enumerate(sample.bands) if band.kind in AUX_KINDS]
    return sample.select([*at, *aux]) if at else None


def logits(network: nn.Module, sample: Sample) -> NDArray[np.float32]:
    """Return the network's output before the softmax, (classes, y, x), NaN where there is no data."""
    sample, planes = sample.parted()
    if takes := getattr(network, "takes", ()):
        sample = among(sample, takes)  # by name, as the engine does: wavelengths may fit several
    sample = with_aux(sample, planes, getattr(network, "aux", ()), always=bool(getattr(network, "bands", ())))
    valid = sample.valid
    pixels = np.where(valid, sample.image, np.float32(0))
    described = network.describe([BandInput.from_band(b) for b in sample.bands])  # type: ignore[operator]
    descriptors = torch.from_numpy(np.array(described)).to(next(network.parameters()).device)
    network.eval()

    def forward(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            batch = torch.from_numpy(np.ascontiguousarray(pixels))[None].to(descriptors.device)
            output: NDArray[np.float32] = network(batch, descriptors).float()[0].cpu().numpy()
        return output

    window = getattr(network, "window", None)
    output = forward(pixels) if window is None else _in_windows(forward, pixels, window)
    return np.where(valid, output, np.float32(np.nan))


def _in_windows(
    forward: Callable[[NDArray[np.float32]], NDArray[np.float32]], pixels: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """Run a network that takes one size of window only, and blend its logits; a small image is mirrored.

    The windows and weights are the engine's. The adding is not: a network in training has no card to make an
    `engine.plan.Plan` of, and a temperature is fitted to logits, which the engine has no use for.
    """
    rows, cols = pixels.shape[1:]
    whole = pixels[:, reflect_indices(rows, max(rows, size))][:, :, reflect_indices(cols, max(cols, size))]
    plan = TilePlan.make(whole.shape[1:], size, size // 4)
    out: NDArray[np.float32] | None = None
    for row in range(plan.y.count):
        for col in range(plan.x.count):
            top, left = plan.y.start(row), plan.x.start(col)
            box = (slice(None), slice(top, top + size), slice(left, left + size))
            output = forward(whole[box])
            out = np.zeros((len(output), *whole.shape[1:]), np.float32) if out is None else out
            out[box] += output * window_weights(plan, row, col)
    assert out is not None  # a plan has one window at least
    return out[:, :rows, :cols]


def losses_of(
    network: nn.Module,
    classes: Sequence[str],
    entries: Iterable[Entry],
    bands: str | tuple[str, ...],
    pixelwise: bool,
) -> list[float]:
    """Return the mean ambiguous cross-entropy of each entry: how hard it is for the network.

    What cannot be told, such as that of a table of pixels for a network that is not `pixelwise`, is the mean
    of the rest.
    """
    out = []
    for entry in entries:
        sample = take(entry.read(), bands)
        out.append(np.nan)
        if sample is not None and (sample.spatial or pixelwise):
            output = torch.from_numpy(np.nan_to_num(logits(network, sample)))[None]
            labels = np.where(sample.valid, sample.possible, np.uint8(0))
            out[-1] = ambiguous_cross_entropy(output, torch.from_numpy(open_to(labels[None], classes))).item()
    values = np.array(out)
    values[np.isnan(values)] = 1.0 if np.isnan(values).all() else np.nanmean(values)
    return [float(value) for value in values + 1e-6]


def probabilities(network: nn.Module, sample: Sample) -> NDArray[np.float32]:
    """Return the probabilities of the network's classes, (classes, y, x), NaN where there is no data."""
    p: NDArray[np.float32] = torch.softmax(torch.from_numpy(logits(network, sample)), dim=0).numpy()
    return p


def share_of(p: NDArray[np.float32], classes: Sequence[str], question: str) -> NDArray[np.float32]:
    """Return the probability that the answer to a question is yes.

    Examples
    --------
    >>> share_of(np.array([0.5, 0.25, 0.25]), ("clear", "thick_cloud", "thin_cloud"), "cloud").item()
    0.5
    """
    return np.asarray(p[within(open_classes(classes), QUESTIONS[question].positive)].sum(axis=0))


def classify(
    p: NDArray[np.float32],
    classes: Sequence[str],
    threshold: float | None,
    shadow_threshold: float | None = None,
) -> NDArray[np.uint8]:
    """Return codes of `legend_of` by the engine's rule (`decide_classes`), for probabilities (class, ...).

    Without a threshold the likeliest class, as `predict` has it for a model whose card names none.

    Examples
    --------
    >>> p = np.array([[0.45], [0.3], [0.25]], "f4")
    >>> classify(p, ("clear", "thick_cloud", "thin_cloud"), 0.5).tolist()
    [1]
    """
    answer = _scheme(classes)
    rows = to_scheme(p.reshape(len(p), -1, 1), answer)
    some_cloudy = any(answer.cloudy) and not all(answer.cloudy)
    best = decide_classes(
        rows, answer, threshold if some_cloudy else None, shadow_threshold if SHADOW in answer.names else None
    )
    codes = np.array(answer.codes, np.uint8)
    out = np.where(np.isnan(rows).any(axis=0), np.uint8(NO_DATA), codes[best])
    return out.reshape(p.shape[1:])


def legend_of(classes: Sequence[str]) -> dict[int, str]:
    """Return the codes that `predict` has for a model with these classes, and their words.

    Examples
    --------
    >>> legend_of(["land", "water", "snow", "cloud", "cloud_shadow"])
    {0: 'clear', 1: 'cloud', 3: 'cloud_shadow', 4: 'snow', 5: 'water', 255: 'no_data'}
    """
    answer = _scheme(classes)
    return {**dict(zip(answer.codes, answer.names, strict=True)), NO_DATA: "no_data"}


def _scheme(classes: Sequence[str]) -> Scheme:
    return scheme("default", tuple("clear" if word == "not_cloud" else word for word in classes))


@dataclass(slots=True)
class Outcome:
    """A network's answers on labelled samples: a tally a scene, and a histogram of cloud probabilities."""

    tallies: dict[str, Tally] = field(default_factory=dict)
    histogram: Histogram | None = None

    def add(self, scene: str, tally: Tally, histogram: Histogram) -> None:
        """Take in a patch, or the pixels of a scene."""
        self.tallies[scene] = self.tallies[scene] + tally if scene in self.tallies else tally
        self.histogram = histogram if self.histogram is None else self.histogram + histogram

    def scores(self, questions: Iterable[str] | None = None) -> Scores:
        """Return the scores."""
        return score(self.tallies, questions)


def run_on(
    network: nn.Module,
    classes: Sequence[str],
    entries: Iterable[Entry],
    *,
    bands: str | tuple[str, ...],
    threshold: float | None = 0.5,
) -> dict[str, Outcome]:
    """Return the outcome of a set network by source, for the samples that have the bands; see `take`.

    Without a threshold of the probability of cloud the likeliest class counts.
    """
    return tallied(entries, bands, lambda sample: (probabilities(network, sample), classes, threshold, None))


def run_model(
    model: str | ModelSpec, entries: Iterable[Entry], *, bands: str | tuple[str, ...], coarser: int = 1
) -> dict[str, Outcome]:
    """Return a model's outcome by source as users get it: through the engine, with its own threshold.

    Tables of pixels, which have no neighbours, are passed over, and so are samples that lack a band or are of
    another level. ``"ukis-4band"`` means ukis-4band-l1c or ukis-4band-l2a, as each sample's level asks.
    Pixels are averaged to `coarser` times their size first.
    """

    def answer(sample: Sample) -> Answer | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pixels larger than the model was made for: that is asked
            return ask(sample, model)

    patches = (entry for entry in entries if entry.path.suffix == ".npz")
    return tallied(patches, bands, answer, coarser=coarser)


def tallied(
    entries: Iterable[Entry],
    bands: str | tuple[str, ...],
    answer: Callable[[Sample], Answer | None],
    *,
    coarser: int = 1,
) -> dict[str, Outcome]:
    """Return by source the answers to the samples that have the bands, held against their labels.

    `answer` returns None to pass a sample over.
    """
    out: dict[str, Outcome] = {}
    for entry in entries:
        sample = take(entry.read(), bands)
        answered = None if sample is None else answer(sample := coarsen(sample, coarser))
        if sample is None or answered is None:
            continue
        codes, cloud = classify(*answered), share_of(answered[0], answered[1], "cloud")
        truth = QUESTIONS["cloud"].truth(sample.possible)
        scenes = np.array([entry.scene] if sample.spatial else entry.groups())
        outcome = out.setdefault(entry.source, Outcome())
        for scene in np.unique(scenes):
            own = (slice(None),) if sample.spatial else (scenes == scene,)
            outcome.add(
                str(scene),
                Tally.of(sample.possible[own], codes[own], legend_of(answered[1])),
                Histogram.of(cloud[own], truth[own]),
            )
    return out


def pooled(outcomes: Iterable[Outcome]) -> Outcome:
    """Return several outcomes as one."""
    whole = Outcome()
    for number, outcome in enumerate(outcomes):
        if outcome.histogram is None:
            continue
        for scene, tally in outcome.tallies.items():
            whole.tallies[f"{number}:{scene}"] = tally
        whole.histogram = (
            outcome.histogram if whole.histogram is None else whole.histogram + outcome.histogram
        )
    return whole
