"""A training's log as a picture."""

from __future__ import annotations

from pathlib import Path

import pandas

from xcloudmask.errors import CloudMaskError
from xcloudmask.train.loggers import COUNTS


def draw(folder: str | Path) -> Path:
    """Draw loss and scores of a training over its epochs, as ``curves.png`` beside the log."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CloudMaskError("drawing needs matplotlib: pip install 'xcloudmask[plot]'") from error
    path = Path(folder) / "log.csv"
    if not path.exists():
        raise CloudMaskError(f"{path} does not exist: no epoch of this training was finished yet")
    log = pandas.read_csv(path)
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(log["epoch"], log["loss"], color="0.2")
    left.set(xlabel="epoch", ylabel="training loss")
    scores = [name for name in log if name not in COUNTS]
    if len(scores) == 2 and "score" in scores:
        scores.remove("score")  # the mean of one
    for name in scores:
        right.plot(log["epoch"], log[name], label=name, linewidth=2 if name == "score" else 1)
    right.set(xlabel="epoch", ylabel="score on scenes kept for choosing")
    if scores:
        right.legend(fontsize="small")
    else:
        right.text(0.5, 0.5, "no scene was kept for choosing", ha="center", transform=right.transAxes)
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    path = Path(folder) / "curves.png"
    figure.savefig(path, dpi=120)
    return path
