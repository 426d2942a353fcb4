"""Training: samples with partial labels, losses, the loop.

A training is one command and one file::

    python -m xcloudmask.train config.toml
"""
