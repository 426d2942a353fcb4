"""Where the log of a training goes besides ``log.csv``: TensorBoard, MLflow; each only if it is installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, OptionError

#: Called once an epoch with the step and the numbers of the log's row.
Logger = Callable[[int, Mapping[str, float]], None]


def tensorboard(folder: Path, name: str) -> Logger:
    """Return a logger that writes event files into ``folder/tensorboard``."""
    from torch.utils.tensorboard import SummaryWriter

    def log(step: int, numbers: Mapping[str, float]) -> None:
        with SummaryWriter(str(folder / "tensorboard")) as writer:  # a stopped training loses nothing
            for key, value in numbers.items():
                writer.add_scalar(key, value, step)

    return log


def mlflow(folder: Path, name: str) -> Logger:
    """Return a logger that writes into one run of the experiment `name`, at MLFLOW_TRACKING_URI."""
    ml: Any = import_module("mlflow")  # it may be missing, and has no types

    ml.set_experiment(name)
    kept = folder / "mlflow-run"
    run: Any = ml.start_run(run_id=kept.read_text() if kept.exists() else None, run_name=folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(run.info.run_id)
    ml.end_run()

    def log(step: int, numbers: Mapping[str, float]) -> None:
        with ml.start_run(run_id=run.info.run_id):
            ml.log_metrics(dict(numbers), step=step)

    return log


#: Columns of the log that are no scores.
COUNTS = ("epoch", "steps", "rate", "loss", "gradient", "seconds", "taught")


def print_epoch(steps: int, numbers: Mapping[str, float]) -> None:
    """Print an epoch's row of the log as a line where messages go: a logger for those who watch."""
    scores = [f"{name} {numbers[name]:.3f}" for name in numbers if name not in COUNTS]
    start = [f"epoch {numbers['epoch']:.0f}", f"{steps} steps", f"loss {numbers['loss']:.4g}"]
    line = ", ".join([*start, *scores, f"{numbers['seconds']:.0f} s"])
    print(line, file=sys.stderr, flush=True)


LOGGERS: Mapping[str, Callable[[Path, str], Logger]] = {"tensorboard": tensorboard, "mlflow": mlflow}


def open_loggers(names: Iterable[str], folder: str | Path, name: str) -> list[Logger]:
    """Return the loggers of these names for a model in the folder of its training, or say what to install.

    Examples
    --------
    >>> open_loggers(["wandb"], ".", "mine")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown logger 'wandb'. Allowed: tensorboard, mlflow.
    """
    out = []
    for logger in names:
        if logger not in LOGGERS:
            raise OptionError("logger", logger, allowed=LOGGERS)
        try:
            out.append(LOGGERS[logger](Path(folder), name))
        except ImportError as error:
            raise CloudMaskError(
                f"to in [log] names {logger!r}, which is not installed: pip install {logger}, or leave it "
                "out; log.csv is written anyway"
            ) from error
    return out
