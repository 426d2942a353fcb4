"""Training: samples with partial labels, losses, the loop, teachers, fine-tuning.

A training is one command and one file::

    xcloudmask train config.toml --data DATA --out OUT

Examples
--------
>>> from xcloudmask.train import fine_tune
>>> mine = fine_tune("spectral", "my_patches", "runs/mine")  # doctest: +SKIP
"""

from xcloudmask.train.finetune import fine_tune
from xcloudmask.train.run import train

__all__ = ["fine_tune", "train"]
