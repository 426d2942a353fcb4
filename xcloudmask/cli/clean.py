"""Tidy a mask step by step, in the order written: close gaps, take out specks, widen clouds, fill holes.

SIZE is a length ("150 m"), of --sieve and --fill an area ("1 ha"), or a number of pixels; for one class only,
cloud=150m,cloud_shadow=3. MASK is what predict wrote; no data stays no data.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from functools import partial
from pathlib import Path
from typing import Any

from xcloudmask.cli import predict, written
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import paragraph, print_facts
from xcloudmask.errors import CloudMaskError

EXAMPLES = """examples:
  xcloudmask clean mask.tif clean.tif --sieve "1 ha" --buffer "150 m"
  xcloudmask clean mask.zarr c.zarr --close 2 --buffer cloud=150m,cloud_shadow=3"""
STEPS = {
    "close": "close gaps narrower than twice the length",
    "open": "take out what is narrower than twice the length",
    "buffer": "widen by the length",
    "sieve": "take out what is smaller",
    "fill": "fill holes that are smaller",
}


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} MASK OUT --STEP SIZE [--STEP SIZE ...]"
    parser.epilog = EXAMPLES
    parser.add_argument("mask", metavar="MASK", help="a mask, GeoTIFF or Zarr")
    parser.add_argument("out", metavar="OUT", help="clean.tif or clean.zarr")
    for name, about in STEPS.items():
        parser.add_argument(
            f"--{name}", metavar="SIZE", dest="steps", action="append", default=[],
            type=partial(_step, name), help=about,
        )  # fmt: skip
    parser.add_argument("--variable", metavar="NAME", help="of a Zarr store")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    predict.add_volume(parser)


def _step(name: str, text: str) -> tuple[str, Any]:
    pairs = [part.partition("=") for part in text.split(",")]
    if len(pairs) == 1 and not pairs[0][1]:
        return name, _size(text)
    if not all(key and equals and value for key, equals, value in pairs):
        raise ArgumentTypeError(f"{text!r} must be a size, or CLASS=SIZE,CLASS=SIZE")
    return name, {key.strip(): _size(value) for key, _, value in pairs}


def _size(text: str) -> int | str:
    return int(text) if text.strip().isdecimal() else text


def run(args: Namespace) -> int:
    """Clean, and write."""
    from xcloudmask.tidy.clean import clean

    path = Path(args.mask).expanduser()
    mask = written.find_mask(path, args.variable) if path.exists() else None
    if mask is None:
        raise CloudMaskError(f"{path} holds no mask, or is not there", "Name what predict or stream wrote")
    result = predict.write_out(args, clean(mask, args.steps), args.out)
    print_facts(args, result, paragraph(str(result)), quiet=args.quiet)
    return 0
