"""The loop: batches in, weights out; stops early, resumes exactly, runs on one CPU or many GPUs."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.weights.atomic import replace_file
from xcloudmask.train import checkpoint
from xcloudmask.train.config_tables import Settings
from xcloudmask.train.loggers import Logger
from xcloudmask.train.losses import open_to
from xcloudmask.train.optim import moving_average, rate, train_mode
from xcloudmask.train.place import device_of, processes, repeatable
from xcloudmask.train.stream import Batch, Stream
from xcloudmask.types import Band

Loss = Callable[[Tensor, Tensor], Tensor]
#: Called with the network that would be shipped; returns scores by name.
Validate = Callable[[nn.Module], Mapping[str, float]]
#: Seconds between checkpoints where no number of steps is given.
SECONDS = 60.0
AUTOCAST: dict[str, torch.dtype | None] = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(slots=True)
class Progress:
    """Where a training is."""

    epoch: int = 0
    step: int = 0  # within the epoch
    total: int = 0  # steps since the beginning
    loss: float = 0.0  # sums over the epoch
    norm: float = 0.0
    seconds: float = 0.0
    taught: float = 0.0  # batches for which the teacher had labels
    rate: float = 0.0  # of the last step
    best: float = -math.inf
    best_epoch: int = -1


def _optimiser(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    weights, rate, decay = network.parameters(), settings.rate, settings.weight_decay
    if settings.optimiser == "sgd":
        return torch.optim.SGD(weights, lr=rate, momentum=settings.momentum, weight_decay=decay)
    kind = torch.optim.Adam if settings.optimiser == "adam" else torch.optim.AdamW
    return kind(weights, lr=rate, weight_decay=decay)


class Trainer:
    """Fits a set network to a stream.

    The network is called as ``network(pixels, descriptors, present)``, with ``describe`` for its descriptors
    (see `xcloudmask.models.arch.setnet.SetNetwork`); in training it may return a further loss beside logits.
    `loss` is of logits and possible classes, `teaching` of logits and the predictions of the stream's teacher
    (see `xcloudmask.train.losses`).

    Checkpoints, the log and the best weights go to `folder`, where a training that was stopped is resumed.
    `about` is what it is of besides, as JSON can hold it: network, recipe, data. It is kept with the state,
    and a training of something else is not resumed there. `validate` scores the network after each epoch;
    `loggers` are given the steps made and the numbers of each row of the log.
    """

    def __init__(
        self,
        network: nn.Module,
        classes: tuple[str, ...],
        loss: Loss,
        stream: Stream,
        settings: Settings,
        folder: str | Path,
        validate: Validate | None = None,
        loggers: Sequence[Logger] = (),
        about: Mapping[str, Any] | None = None,
        teaching: Loss | None = None,
    ) -> None:
        self.teaching = teaching
        self.about = dict(about or {})
        self.loggers = loggers
        self.classes, self.loss, self.stream, self.settings = classes, loss, stream, settings
        self.folder, self.validate = Path(folder), validate
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = device_of(settings.device)
        self.network = network.to(self.device)
        self.optimiser = _optimiser(network, settings)
        steps, kind = settings.epochs * stream.length, settings.schedule
        self.rates = LambdaLR(self.optimiser, partial(rate, steps=steps, warmup=settings.warmup, kind=kind))
        self.plateau = ReduceLROnPlateau(
            self.optimiser, "max", factor=0.2, patience=settings.patience - 1, threshold=0.0, eps=0.0
        )
        self.average = moving_average(self.network, settings.ema) if settings.ema else None
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.autocast == "fp16")
        self.progress = Progress()
        self._described = lru_cache(maxsize=4096)(self._describe)

    def run(self, *, stop_at: int | None = None) -> Progress:
        """Train to the end, or until `stop_at` steps in all were made (and are saved).

        Returns
        -------
        Progress
            Where it stopped; the best weights are ``best.safetensors`` in the folder.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CloudMaskError(
                f"{self.folder} cannot be made ({error.strerror}): pass another folder, out=FOLDER"
            ) from error
        alone = checkpoint.claimed(self.folder) if self.rank == 0 else contextlib.nullcontext()
        with alone, repeatable(self.settings.deterministic), processes(self.network, self.device) as wrapped:
            torch.manual_seed(self.stream.recipe.seed + self.rank)
            self._resume()
            while self.progress.epoch < self.settings.epochs and not self._is_stale():
                if not self._epoch(wrapped, stop_at):
                    return self.progress
        return self.progress

    def _epoch(self, wrapped: nn.Module, stop_at: int | None) -> bool:
        """Train for the rest of an epoch; False if it was stopped within it."""
        progress, every = self.progress, self.settings.save_every
        saved = began = time.perf_counter()
        for batch in self.stream.batches(progress.epoch, start=progress.step, workers=self.settings.workers):
            loss, norm = self._step(wrapped, batch)
            progress.step += 1
            progress.total += 1
            progress.loss += loss
            progress.norm += norm
            now = time.perf_counter()
            progress.seconds, began = progress.seconds + now - began, now
            if stop_at is not None and progress.total >= stop_at:
                self._save()
                return False
            due = progress.step % every == 0 if every else now - saved > SECONDS
            if due and progress.step < self.stream.length:
                self._save()
                saved = now
        self._end_epoch()
        return True

    def _step(self, wrapped: nn.Module, batch: Batch) -> tuple[float, float]:
        settings, progress = self.settings, self.progress
        progress.rate = self.optimiser.param_groups[0]["lr"]
        train_mode(wrapped)
        dtype = AUTOCAST[settings.autocast]
        with torch.autocast(self.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            logits = wrapped(*self._inputs(batch))
        logits, extra = logits if isinstance(logits, tuple) else (logits, 0.0)
        possible = torch.from_numpy(open_to(batch.possible, self.classes)).to(self.device)
        loss = self.loss(logits, possible) + extra
        if self.teaching is not None and batch.soft_labels is not None:
            progress.taught += 1
            loss = loss + self.teaching(logits, torch.from_numpy(batch.soft_labels).to(self.device))
        self.optimiser.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimiser)
        limit = settings.clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CloudMaskError(
                f"the loss is {value} at epoch {progress.epoch}, batch {progress.step}: lower the rate, clip "
                "the gradient, or look at the samples of that batch (stream.batch_at)"
            )
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        skipped = self.scaler.get_scale() < scale  # in fp16, a step whose gradient overflowed
        if not skipped and (settings.schedule == "cosine" or progress.total < settings.warmup):
            self.rates.step()
        if self.average is not None:
            self.average.update_parameters(self.network)
        return value, norm

    def _inputs(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        described = [self._described(bands) for bands in batch.bands]
        width = described[0].shape[1]
        descriptors = np.zeros((*batch.present.shape, width), np.float32)
        for row, known in zip(descriptors, described, strict=True):
            row[: len(known)] = known
        arrays = (batch.pixels, descriptors, batch.present)
        pixels, descriptors_, present = (torch.from_numpy(a).to(self.device) for a in arrays)
        return pixels, descriptors_, present

    def _describe(self, bands: tuple[Band, ...]) -> Any:
        return np.asarray(self.network.describe([BandInput.from_band(b) for b in bands]))  # type: ignore[operator]

    def _end_epoch(self) -> None:
        progress, count, watch = self.progress, max(self.stream.length, 1), self.settings.watch
        scores: dict[str, float] = {}
        if self.validate is not None:
            with torch.no_grad():
                scores = dict(self.validate(self.kept().eval()))
        if scores and watch and watch not in scores:
            raise OptionError("score to watch", watch, allowed=scores)
        score = scores.get(watch, -progress.loss / count)
        if self.settings.schedule == "plateau" and progress.total >= self.settings.warmup:
            self.plateau.step(score)
        row = {"epoch": progress.epoch, "steps": progress.total, "rate": progress.rate,
               "loss": progress.loss / count, "gradient": progress.norm / count,
               "seconds": round(progress.seconds, 2), **scores}  # fmt: skip
        if self.teaching is not None:
            row["taught"] = progress.taught / count
            if not progress.taught:
                raise CloudMaskError(
                    "distil, or cover, in [loss] had nothing to learn from in any image of an epoch: the "
                    "teacher does not take their bands, level or pixel size, or clouds were laid over all of "
                    "them (simulate, mix); cover needs imitate in [recipe]"
                )
        if score > progress.best:
            progress.best, progress.best_epoch = score, progress.epoch
            self._write("best.safetensors")
        self._log(row)
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.loss = progress.norm = progress.seconds = progress.taught = 0.0
        self._write("last.safetensors")
        self._save()

    def kept(self) -> nn.Module:
        """Return the network that would be kept: of mean weights, or as it is where no mean is taken."""
        return self.network if self.average is None else self.average.module

    def _is_stale(self) -> bool:
        after, progress = self.settings.stop_after, self.progress
        return bool(after) and progress.best_epoch >= 0 and progress.epoch - progress.best_epoch > after

    def _write(self, name: str) -> None:
        if self.rank == 0:
            checkpoint.write_weights(self.folder / name, self.kept().state_dict())

    def _save(self) -> None:
        if self.rank:
            return
        checkpoint.write_state(self.folder, {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "progress": asdict(self.progress), "random": torch.get_rng_state(),
            "random_gpu": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "settings": self.settings.model_dump(), "about": self.about,
        })  # fmt: skip

    def _resume(self) -> None:
        state = checkpoint.read_state(self.folder)
        if state is None:
            return
        settings = self.settings.model_dump(exclude={"workers", "device", "save_every"})
        if not isinstance(state.get("settings"), dict):
            raise checkpoint.unusable(self.folder)
        other = [k for k, v in settings.items() if state["settings"].get(k) != v]
        was = state.get("about", self.about)
        other += [k for k in {**was, **self.about} if was.get(k) != self.about.get(k)]
        if other:
            raise CloudMaskError(
                f"{self.folder} holds a training with other settings ({', '.join(other)}): resume with the "
                "same ones, or train into another folder"
            )
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise checkpoint.unusable(self.folder) from error

    def _parts(self) -> dict[str, Any]:
        """Return all that has a state of torch's."""
        parts = {"network": self.network, "optimiser": self.optimiser, "scaler": self.scaler}
        parts |= {"rates": self.rates, "plateau": self.plateau}
        return parts if self.average is None else {**parts, "average": self.average}

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        torch.set_rng_state(state["random"])
        if state["random_gpu"]:
            torch.cuda.set_rng_state_all(state["random_gpu"])

    def _log(self, row: Mapping[str, object]) -> None:
        """Append to the log; rows of an epoch that is trained again are replaced."""
        if self.rank:
            return
        path = self.folder / "log.csv"
        rows: list[Mapping[str, object]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < self.progress.epoch]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(row), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        replace_file(path, text.getvalue().encode())
        for log in self.loggers:
            log(self.progress.total, {name: float(str(value)) for name, value in row.items()})
