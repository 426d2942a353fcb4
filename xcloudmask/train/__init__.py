"""Training: samples with partial labels, losses, the loop, teachers, fine-tuning.

A training is one command and one file::

    xcloudmask train config.toml --data DATA --out OUT

Examples
--------
>>> from xcloudmask.train import fine_tune
>>> mine = fine_tune("spectral", "my_patches", "runs/mine")  # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_PLACES = {
    "fine_tune": "finetune", "imitate": "imitation", "label_folder": "pseudo", "pretrain": "pretraining",
    "search": "search", "train": "run", "write_patch": "write",
}  # fmt: skip
__all__ = ["fine_tune", "imitate", "label_folder", "pretrain", "search", "train", "write_patch"]


def __dir__() -> list[str]:
    """Offer the public names to completion; the modules stay importable."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:  # torch comes with what trains, not with what reads patches
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
