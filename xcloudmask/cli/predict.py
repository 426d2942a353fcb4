"""`xcloudmask predict`: mask a scene into a GeoTIFF or a store; its flags are fields of `predict/options.py`.

OUT appears when it is complete. Classes are uint8: 0 clear, 1 cloud, 2 thin cloud, 3 cloud shadow, 4 snow,
5 water, 255 no data; each model tells some of them. Big scenes are worked on chunk by chunk.
"""

from __future__ import annotations

import logging
import math
import os
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from xcloudmask.cli import auxiliary, source
from xcloudmask.cli.flags import add_flags, given
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.progress import ProgressLine
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, say
from xcloudmask.predict.options import PredictOptions

EXAMPLES = """examples:
  xcloudmask predict S2B_MSIL1C_....SAFE mask.tif
  xcloudmask predict scene.tif mask.tif --level L2A --scale 1e-4
  xcloudmask predict raw.tif mask.tif --bands blue,green,red,nir --level L1C
  xcloudmask predict scene.zarr clouds.zarr --proba
  xcloudmask predict scene.tif mask.tif --model mine --aux elevation=dem.tif"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} [options] IN OUT"
    parser.epilog = EXAMPLES
    source.add_arguments(parser)
    parser.add_argument("out", metavar="OUT", help="mask.tif or mask.zarr")
    add_model_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    add_volume(parser)


#: Options whose flag is not made from their field, or that have none, and why.
BY_HAND = {
    "output": "--proba",
    "tta": "--tta, --tta-depth N",
    "aux": "--aux NAME=FILE",
    "nodata": "--nodata of IN says it",
    "valid": "an array; in Python only",
}


def add_model_arguments(parser: Parser, options: type[PredictOptions] = PredictOptions) -> None:
    """Declare what tells how a scene is masked, and on what."""
    how = parser.add_argument_group("how it is masked")
    how.add_argument(
        "--proba", dest="output", action="store_const", const="probabilities", default="classes",
        help="write probabilities, one band a class",
    )  # fmt: skip
    add_flags(how, options, BY_HAND)
    about = {option.name: option.metadata["about"] for option in options.fields()}
    turns = how.add_mutually_exclusive_group()
    turns.add_argument("--tta", action="store_true", help=about["tta"])
    turns.add_argument(
        "--tta-depth", metavar="N", dest="tta", type=positive, help="average over N of them, 2 to 8"
    )
    auxiliary.add_arguments(how)


def add_volume(parser: Parser) -> None:
    """Declare how much is said."""
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    loud.add_argument("--verbose", action="store_true", help="tell what is done")


def model_options(args: Namespace) -> PredictOptions:
    """Return what `add_model_arguments` has taken."""
    if args.output == "probabilities" and args.threshold is not None:
        raise UsageError("--threshold turns probabilities into classes: leave it out, or leave --proba out")
    if args.uncertainty and args.output == "classes":
        raise UsageError("--uncertainty is told beside probabilities: say --proba too, or leave it out")
    aux = auxiliary.open_aux(args)
    taken = given(args, PredictOptions, BY_HAND)
    return PredictOptions(**taken, output=args.output, tta=args.tta, aux=aux)


def keywords(asked: PredictOptions) -> dict[str, Any]:
    """Return options as ``predict=`` of `stream` and `sync` takes them."""
    return {name: value for name, value in asked.given().items() if name not in ("output", "nodata", "valid")}


def keep_cache_small() -> None:
    """Leave GDAL less than its own choice, a twentieth of the machine's memory: blocks are used once here."""
    from xcloudmask.engine.malloc import map_large_blocks

    map_large_blocks()
    os.environ.setdefault("GDAL_CACHEMAX", "128")


class _Said(logging.Handler):
    """Tells what the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        say(record.getMessage())


@contextmanager
def said(level: int) -> Iterator[logging.Logger]:
    """Tell what the library logs at a level or above."""
    log, handler = logging.getLogger("xcloudmask"), _Said()
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def run(args: Namespace) -> None:
    """Run it."""
    with said(logging.INFO) if args.verbose else nullcontext(logging.getLogger("xcloudmask")) as log:
        _run(args, log)


def _run(args: Namespace, log: logging.Logger) -> None:
    asked = model_options(args)
    keep_cache_small()
    from xcloudmask.masks.write import check_output, write
    from xcloudmask.predict.prepare import predict

    out = check_output(args.out, overwrite=args.overwrite)
    if out == Path(args.path).expanduser().absolute():
        raise UsageError(f"OUT is IN ({out}): name another file")
    result = predict(source.open_scene(args), asked)
    log.info("model %s, %d chunks", result.attrs["model"], math.prod(map(len, result.chunks or ())))
    progress = ProgressLine(shown=False if args.quiet else None)
    start = time.monotonic()
    try:
        written = write(result, out, overwrite=args.overwrite, progress=progress)
    finally:
        progress.clear()
    if not args.quiet:
        seconds = time.monotonic() - start
        print(paragraph(f"{written} ({result.attrs['model']}, {seconds:.1f} s)"))
