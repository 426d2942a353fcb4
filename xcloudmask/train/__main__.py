"""The command ``python -m xcloudmask.train config.toml``."""

from __future__ import annotations

import argparse
import json
import sys

from xcloudmask.errors import CloudMaskError


def main(arguments: list[str] | None = None) -> int:
    """Train as a config file says."""
    parser = argparse.ArgumentParser("xcloudmask.train", description="Train a model as a config file says.")
    parser.add_argument("config", help="a TOML file, for instance examples/train/spectral.toml")
    parser.add_argument("--data", help="the folder with the data, instead of the config's")
    parser.add_argument("--out", help="where results go (default runs/<name>); resumes what is there")
    parser.add_argument("--threads", type=int, help="threads of torch")
    told = parser.parse_args(arguments)
    if told.threads:
        import torch

        torch.set_num_threads(told.threads)
    from xcloudmask.train.run import train

    try:
        record = train(told.config, data=told.data, out=told.out)
    except CloudMaskError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps({key: record[key] for key in ("name", "threshold", "chosen_on", "sha256")}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
