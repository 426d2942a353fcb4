"""Training batches without end, from samples of any sensor: in bounded memory, the same for the same seed.

Every sample has a generator of its own, seeded by (seed, epoch, index). So a batch does not depend on which
worker made it or on what was drawn before, and a training that resumes in the middle of an epoch sees
exactly what it would have seen.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.train import augment, clouds, ground
from xcloudmask.train.config_tables import Recipe
from xcloudmask.train.files import Entry
from xcloudmask.train.imitation import as_seen
from xcloudmask.train.mosaic import mosaic
from xcloudmask.train.samples import AUX_KINDS, Sample, with_aux
from xcloudmask.types import KINDS, AuxInput, Band

#: Imitations made of each patch (`Recipe.imitate`): the forward model takes longer than a step of training.
VARIANTS = 16


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Samples of any bands, padded to the most bands among them.

    `pixels`, (n, bands, y, x), are 0 where a band is padding or a pixel has no data; `present`, (n, bands),
    is False for padding. `possible`, (n, y, x), holds bit masks, 0 where not labelled or no data.
    `soft_labels`, (n, 3, y, x), are what a teacher predicts, NaN where it does not; see
    `xcloudmask.train.pseudo.opinion`.
    """

    pixels: NDArray[np.float32]
    bands: tuple[tuple[Band, ...], ...]
    present: NDArray[np.bool_]
    possible: NDArray[np.uint8]
    soft_labels: NDArray[np.float32] | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """Return one batch of samples that agree in rows and columns.

    Examples
    --------
    >>> one = Sample(np.ones((1, 2, 2), "f4"), (Band("a"),), np.ones((2, 2), "u1"), 30.0)
    >>> two = Sample(np.ones((2, 2, 2), "f4"), (Band("a"), Band("b")), np.ones((2, 2), "u1"), 10.0)
    >>> collate([one, two]).present.tolist()
    [[True, False], [True, True]]
    """
    sizes = {s.possible.shape for s in samples}
    if len(sizes) != 1:
        raise CloudMaskError(f"samples of a batch must agree in rows and columns, got {sorted(sizes)}")
    most = max(len(s.bands) for s in samples)
    pixels = np.zeros((len(samples), most, *sizes.pop()), np.float32)
    present = np.zeros((len(samples), most), bool)
    possible = np.zeros((len(samples), *pixels.shape[2:]), np.uint8)
    taught = any(s.soft_labels is not None for s in samples)
    soft_labels = np.full((len(samples), 3, *pixels.shape[2:]), np.nan, np.float32) if taught else None
    for i, sample in enumerate(samples):
        valid, count = sample.valid, len(sample.bands)
        pixels[i, :count] = np.where(valid, sample.image, 0)
        present[i, :count] = True
        possible[i] = np.where(valid, sample.possible, 0)
        if soft_labels is not None and sample.soft_labels is not None:
            soft_labels[i] = np.where(valid, sample.soft_labels, np.nan)
    return Batch(pixels, tuple(s.bands for s in samples), present, possible, soft_labels)


class _Kept:
    """The samples read last, up to a number of bytes."""

    def __init__(self, limit: int, kinds: Collection[str]) -> None:
        self.limit, self.size, self.kinds = limit, 0, kinds
        self._samples: OrderedDict[Hashable, Sample] = OrderedDict()
        self._scenes: dict[Entry, list[str]] = {}
        self._lock = threading.Lock()

    def scenes(self, entry: Entry) -> list[str]:
        """Return the scene of each pixel of a table."""
        if entry not in self._scenes:
            self._scenes[entry] = entry.groups()
        return self._scenes[entry]

    def get(self, entry: Entry) -> Sample:
        def read() -> Sample:
            sample = entry.read()
            return sample.select([i for i, b in enumerate(sample.bands) if b.kind in self.kinds])

        return self.made(entry, read)

    def made(self, key: Hashable, make: Callable[[], Sample]) -> Sample:
        with self._lock:
            if key in self._samples:
                self._samples.move_to_end(key)
                return self._samples[key]
        sample = make()
        with self._lock:
            if key not in self._samples:
                self._samples[key] = sample
                self.size += sample.image.nbytes
            while self.size > self.limit and len(self._samples) > 1:
                self.size -= self._samples.popitem(last=False)[1].image.nbytes
        return sample


@dataclass(frozen=True, slots=True)
class Stream:
    """Batches of training samples.

    Parameters
    ----------
    entries : tuple of Entry
        What to draw from; see `xcloudmask.train.files.find`.
    recipe : Recipe
        What to do to each sample.
    batch : int
        Samples a batch.
    length : int
        Batches an epoch.
    epochs : int
        Of the training, for `Recipe.resize`.
    weights : mapping of str to float
        How often each source is drawn, against 1 for those not named; a source's files share it.
    memory : int
        Bytes of samples kept.
    rank, world : int
        Which share of the samples this process makes, of how many (torchrun).
    teacher : callable, optional
        Asked about each image with all its bands, before they are dropped or disturbed, for
        `Sample.soft_labels`; not about images with cloud laid over or made of single pixels, which look like
        none it has seen.
    aux : tuple of AuxInput
        What the network takes beside bands, given as the engine gives it.
    hardness : sequence of float
        The loss of each entry, for `Recipe.hard`.

    Examples
    --------
    >>> Stream((), Recipe(), batch=2, length=3)
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: there is nothing to draw from
    """

    entries: tuple[Entry, ...]
    recipe: Recipe
    batch: int
    length: int
    epochs: int = 1
    weights: Mapping[str, float] = field(default_factory=dict)
    memory: int = 512 * 2**20
    rank: int = 0
    world: int = 1
    teacher: Callable[[Sample], NDArray[np.float32] | None] | None = None
    aux: tuple[AuxInput, ...] = ()
    hardness: Sequence[float] = ()
    _kept: _Kept = field(init=False, repr=False, compare=False)
    _chances: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.entries:
            raise CloudMaskError("there is nothing to draw from")
        sources = [entry.source for entry in self.entries]
        for name in self.weights:
            if name not in sources:
                raise OptionError("source", name, allowed=sorted(set(sources)))
        chances = np.array([self.weights.get(s, 1.0) / sources.count(s) for s in sources], np.float64)
        if chances.min() < 0 or chances.sum() <= 0:
            raise CloudMaskError(f"weights of sources must be positive, got {dict(self.weights)}")
        chances /= chances.sum()
        if len(self.hardness):
            hard = chances * self.hardness
            chances = (1 - self.recipe.hard) * chances + self.recipe.hard * hard / hard.sum()
        kinds = {"reflectance", *AUX_KINDS} if self.recipe.reflectance_only else KINDS
        object.__setattr__(self, "_kept", _Kept(self.memory, kinds))
        object.__setattr__(self, "_chances", chances)

    def sample(self, epoch: int, index: int) -> Sample:
        """Return one sample; the same for the same seed, epoch and index."""
        rng, resize = np.random.default_rng((self.recipe.seed, epoch, index)), self.recipe.resize or (1,)
        factor = resize[min(epoch * len(resize) // self.epochs, len(resize) - 1)]
        for _ in range(20):
            made = self._make(rng, factor)
            if (made.possible > 0).any():
                return made
        raise CloudMaskError(
            "20 samples in a row held no labelled pixel; are the sources labelled, is the crop large enough?"
        )

    def batch_at(self, epoch: int, index: int) -> Batch:
        """Return batch `index` of an epoch."""
        first = (index * self.world + self.rank) * self.batch
        return collate([self.sample(epoch, first + i) for i in range(self.batch)])

    def batches(self, epoch: int, *, start: int = 0, workers: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from `start` on, made ahead by `workers` threads."""
        if workers == 0:
            yield from (self.batch_at(epoch, index) for index in range(start, self.length))
            return
        with ThreadPoolExecutor(workers) as pool:
            ahead: list[Future[Batch]] = []
            try:
                for index in range(start, self.length):
                    ahead.append(pool.submit(self.batch_at, epoch, index))
                    if len(ahead) > 2 * workers:
                        yield ahead.pop(0).result()
                while ahead:
                    yield ahead.pop(0).result()
            finally:
                for waiting in ahead:
                    waiting.cancel()

    def _make(self, rng: np.random.Generator, shrink: int) -> Sample:
        recipe = self.recipe
        entry, drawn = self._pick(rng)
        if recipe.imitate and drawn.spatial and rng.random() < recipe.imitate:
            sample = self._imitated(entry, drawn, int(rng.integers(VARIANTS)))
            sample = augment.flip_rotate(sample, rng) if rng.random() < recipe.flip else sample
            sample = augment.gaps(sample, rng) if rng.random() < recipe.gaps else sample
        elif (sample := self._image(entry, drawn, rng)).spatial:
            sample = self._in_space(sample, rng, real=drawn.spatial, shrink=shrink)
        if recipe.pixels:
            sample = draw_pixels(sample, rng, recipe.pixels)
        for change in (augment.air, augment.radiometry, augment.noise, augment.salt_pepper, augment.saturate):
            share = getattr(recipe, change.__name__)  # the entry is named after what is done
            if share and rng.random() < share:
                sample = change(sample, rng)
        bands, planes = sample.parted()
        if recipe.bands:
            at = augment.places(bands, recipe.bands)
            if at is None:
                raise CloudMaskError(f"{sample.scene} lacks one of the bands {', '.join(recipe.bands)}")
            bands = bands.select(at)
        else:
            bands = augment.among(bands, recipe.among) if recipe.among else bands
            bands = augment.band_subset(bands, rng, least=recipe.least_bands, whole=recipe.whole)
        shown = {name: plane for name, plane in planes.items() if rng.random() >= recipe.hide_aux}
        return with_aux(bands, shown, self.aux, always=bool(recipe.bands))

    def _pick(self, rng: np.random.Generator) -> tuple[Entry, Sample]:
        entry = self.entries[int(rng.choice(len(self.entries), p=self._chances))]
        return entry, self._kept.get(entry)

    def _image(self, entry: Entry, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return what the network can learn from: of a table, if it looks at neighbours, a mosaic."""
        if not sample.spatial and not self.recipe.pixels:
            if self.recipe.mosaic:
                return mosaic(sample, self._kept.scenes(entry), rng, self.recipe.size)
            raise CloudMaskError(
                f"{sample.scene} is a table of pixels, which a network that looks at neighbours cannot learn "
                "from; leave it out of sources = [...], or set mosaic = true in [recipe] (for a network on "
                "single pixels, set pixels in [recipe])"
            )
        return sample

    def _imitated(self, entry: Entry, drawn: Sample, variant: int) -> Sample:
        """Return one of a patch's imitations: a crop, perhaps with clouds laid over, in coarse pixels."""
        recipe = self.recipe

        def make() -> Sample:
            rng = np.random.default_rng(
                (recipe.seed, variant, zlib.crc32(f"{entry.source}/{entry.path.name}".encode()))
            )
            finest = max(recipe.finest, 2 * drawn.gsd)
            coarsest = min(recipe.coarsest, min(drawn.possible.shape) * drawn.gsd / 4)
            pixel = float(np.exp(rng.uniform(np.log(finest), np.log(max(coarsest, finest)))))
            size = min(int(recipe.size * pixel / drawn.gsd), max(drawn.possible.shape))
            bright = recipe.bright > 0 and rng.random() < recipe.bright
            sample, _, bright = self._clouded(augment.crop(drawn, rng, size), rng, bright)
            sample = ground.brighten(sample, rng) if bright else sample
            return augment.mirrored(as_seen(sample, pixel, rng), recipe.size)

        return self._kept.made((entry, variant), make)

    def _in_space(self, sample: Sample, rng: np.random.Generator, *, real: bool, shrink: int) -> Sample:
        """Do what needs neighbours: crop, cloud laid over, larger pixels, turns, gaps; ask the teacher.

        The teacher is asked where the image is a `real` one and nothing was laid over it. Ground is made
        bright below clouds, or where there are next to none: thin cloud would keep the dark ground.
        """
        recipe, factor = self.recipe, 1
        bright = recipe.bright > 0 and rng.random() < recipe.bright
        if rng.random() < recipe.coarsen:
            most = min(recipe.coarsest / sample.gsd, min(sample.possible.shape) / 8)
            factor = max(1, int(np.exp(rng.uniform(0, np.log(max(most, 1) + 1)))))
        size = min(recipe.size * factor, max(sample.possible.shape))
        size = max(size // factor * factor, factor)
        sample, changed, bright = self._clouded(augment.crop(sample, rng, size), rng, bright)
        real = real and not changed
        sample = augment.coarsen(sample, factor)
        if sample.possible.shape != (recipe.size, recipe.size):
            sample = augment.crop(sample, rng, recipe.size)
        sample = augment.coarsen(sample, shrink)
        if rng.random() < recipe.flip:
            sample = augment.flip_rotate(sample, rng)
        if rng.random() < recipe.gaps:
            sample = augment.gaps(sample, rng)
        if self.teacher is not None and real and ((sample.possible > 0) & sample.valid).any():
            sample = replace(sample, soft_labels=self.teacher(sample))
        return ground.brighten(sample, rng) if bright else sample

    def _clouded(self, sample: Sample, rng: np.random.Generator, bright: bool) -> tuple[Sample, bool, bool]:
        """Lay clouds over a crop; return whether any were, and whether to make its ground bright yet."""
        recipe, changed = self.recipe, False
        if rng.random() < recipe.mix:
            other = self._image(*self._pick(rng), rng)
            if other.spatial:
                mixed = augment.mix_cloud(sample, augment.crop(other, rng, len(sample.possible)), rng)
                if not recipe.bands or augment.places(mixed, recipe.bands) is not None:  # shared bands remain
                    sample, changed = mixed, True
        if rng.random() < recipe.simulate:
            sample = clouds.simulate(ground.brighten(sample, rng) if bright else sample, rng)
            changed, bright = True, False
        return sample, changed, bright


def draw_pixels(sample: Sample, rng: np.random.Generator, count: int) -> Sample:
    """Return `count` labelled pixels as an image of one column, drawn with replacement if there are fewer.

    Examples
    --------
    >>> one = Sample(np.ones((1, 3, 3), "f4"), (Band("a"),), np.eye(3, dtype="u1"), 30.0)
    >>> drawn = draw_pixels(one, np.random.default_rng(0), 5)
    >>> drawn.image.shape, drawn.possible.ravel().tolist()
    ((1, 5, 1), [1, 1, 1, 1, 1])
    """
    labelled = np.flatnonzero((sample.possible > 0) & sample.valid)
    if labelled.size == 0:
        empty = np.zeros((count, 1), np.uint8)
        image = np.zeros((len(sample.bands), count, 1), np.float32)
        return replace(sample, image=image, possible=empty, soft_labels=None, spatial=False)
    chosen = rng.choice(labelled, count, replace=labelled.size < count)
    drawn = sample.moved(lambda plane: plane.reshape(*plane.shape[:-2], -1)[..., chosen, None])
    return replace(drawn, spatial=False)
