"""Mask a scene: a GeoTIFF, product or store in; a Cloud Optimized GeoTIFF (.tif) or Zarr store (.zarr) out.

OUT appears when it is complete. Classes are uint8: 0 clear, 1 cloud, 2 thin cloud, 3 cloud shadow, 4 snow,
5 water, 255 no data; each model tells some of them. Big scenes are worked on chunk by chunk.
"""

from __future__ import annotations

import logging
import math
import os
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from xcloudmask.cli import auxiliary, source
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.progress import ProgressLine
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, say

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


def add_model_arguments(parser: Parser) -> None:
    """Declare what tells how a scene is masked, and on what."""
    how = parser.add_argument_group("how it is masked")
    how.add_argument(
        "--model", metavar="M", default="auto", help="see: xcloudmask models (auto: the best that fits)"
    )
    how.add_argument("--proba", action="store_true", help="write probabilities, one band a class")
    how.add_argument("--threshold", metavar="P", type=float, help="cloud where its probability reaches P")
    how.add_argument(
        "--scheme", metavar="S", default="default", help="default, binary, cloudsen12, senseiv2, native"
    )
    how.add_argument(
        "--resolution", metavar="R", type=_resolution, default="auto", help="metres to infer at, or native"
    )
    how.add_argument("--patch-size", metavar="N", type=int, help="pixels a side of a window")
    how.add_argument("--overlap", metavar="N", type=int, help="pixels that windows share")
    turns = how.add_mutually_exclusive_group()
    turns.add_argument("--tta", action="store_true", help="average over 8 turns and mirrors; 8 times slower")
    turns.add_argument(
        "--tta-depth", metavar="N", dest="tta", type=positive, help="average over N of them, 2 to 8"
    )
    how.add_argument(
        "--uncertainty", action="store_true", help="with --proba: add how far members or turns disagree"
    )
    auxiliary.add_arguments(how)
    where = parser.add_argument_group("what does the work")
    where.add_argument("--device", metavar="D", default="auto", help="cpu, cuda, cuda:0, mps, openvino")
    where.add_argument("--dtype", metavar="T", default="auto", help="float32, bfloat16, float16")
    where.add_argument("--batch-size", metavar="N", type=positive, help="windows inferred at a time")


def add_volume(parser: Parser) -> None:
    """Declare how much is said."""
    loud = parser.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="print nothing but warnings and errors")
    loud.add_argument("--verbose", action="store_true", help="tell what is done")


def _resolution(text: str) -> str | float:
    if text in ("auto", "native"):
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} must be auto, native, or metres such as 30") from None


def model_options(args: Namespace) -> dict[str, Any]:
    """Return what `add_model_arguments` has taken, as `stream` takes it; not the threshold."""
    if args.proba and args.threshold is not None:
        raise UsageError("--threshold turns probabilities into classes: leave it out, or leave --proba out")
    if args.uncertainty and not args.proba:
        raise UsageError("--uncertainty is told beside probabilities: say --proba too, or leave it out")
    return {
        "model": args.model, "scheme": args.scheme, "patch_size": args.patch_size, "overlap": args.overlap,
        "batch_size": args.batch_size or "auto", "device": args.device, "dtype": args.dtype,
        "resolution": args.resolution, "aux": auxiliary.open_aux(args), "tta": args.tta,
        "uncertainty": args.uncertainty,
    }  # fmt: skip


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
    shared = model_options(args)
    keep_cache_small()
    from xcloudmask.masks.write import check_output, write

    out = check_output(args.out, overwrite=args.overwrite)
    if out == Path(args.path).expanduser().absolute():
        raise UsageError(f"OUT is IN ({out}): name another file")
    scene = source.open_scene(args)
    if args.proba:
        result = scene.cloudmask.predict_proba(**shared)
    else:
        del shared["uncertainty"]
        result = scene.cloudmask.predict(threshold=args.threshold, **shared)
    log.info("model %s, %d chunks", result.attrs["model"], math.prod(map(len, result.chunks)))
    progress = ProgressLine(shown=False if args.quiet else None)
    start = time.monotonic()
    try:
        written = write(result, out, overwrite=args.overwrite, progress=progress)
    finally:
        progress.clear()
    if not args.quiet:
        seconds = time.monotonic() - start
        print(paragraph(f"{written} ({result.attrs['model']}, {seconds:.1f} s)"))
