"""Mask a scene: a GeoTIFF, product or store in; a Cloud Optimized GeoTIFF (.tif) or Zarr store (.zarr) out.

With --out-dir several scenes are masked, each into a .tif of its name; where one fails the others go on.
OUT appears when it is complete. Classes are uint8: 0 clear, 1 cloud, 2 thin cloud, 3 cloud shadow, 4 snow,
5 water, 255 no data; each model tells some of them. Big scenes are worked on chunk by chunk.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcloudmask.cli import auxiliary, source
from xcloudmask.cli.flags import add_flags, given, in_flags
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, plain, print_facts, say, show
from xcloudmask.engine.progress import progress_bar
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import predict

if TYPE_CHECKING:
    import xarray as xr

    from xcloudmask.masks.geotiff import Written

EXAMPLES = """examples:
  xcloudmask predict S2B_MSIL1C_....SAFE mask.tif
  xcloudmask predict scene.tif mask.tif --level L2A --scale 1e-4
  xcloudmask predict raw.tif mask.tif --bands blue,green,red,nir --level L1C
  xcloudmask predict scene.zarr clouds.zarr --proba
  xcloudmask predict *.tif --out-dir masks/ --sensor landsat-8 --level L2
  xcloudmask predict *.tif --out-dir masks/ --dry-run
  xcloudmask predict scene.tif mask.tif --model mine --aux elevation=dem.tif"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} [options] IN OUT\n       {parser.prog} [options] IN... --out-dir DIR"
    parser.epilog = EXAMPLES
    source.add_arguments(parser, several=True)
    out = parser.add_argument("out", metavar="OUT", help="mask.tif or mask.zarr")

    def out_dir(text: str) -> Path:
        out.required = False  # with --out-dir the last word is one more IN
        return Path(text).expanduser().absolute()

    parser.add_argument("--out-dir", metavar="DIR", type=out_dir, help="write each mask here, as NAME.tif")
    add_model_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would run: windows, memory, seconds; write nothing"
    )
    add_volume(parser)


#: Options whose flag is not made from their field, or that have none, and why.
BY_HAND = {
    "output": "--proba",
    "tta": "--tta, --tta-views N",
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
        "--tta-views", metavar="N", dest="tta", type=positive, help="average over N of them, 2 to 8"
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


class _Lines(logging.Handler):
    """Says what the library logs, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        say(record.getMessage())


@contextmanager
def logged(level: int) -> Iterator[logging.Logger]:
    """Tell what the library logs at a level or above."""
    log, handler = logging.getLogger("xcloudmask"), _Lines()
    before = log.level
    log.addHandler(handler)
    log.setLevel(level)
    try:
        yield log
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def run(args: Namespace) -> int:
    """Run it."""
    with logged(logging.INFO) if args.verbose else nullcontext(logging.getLogger("xcloudmask")) as log:
        return _run(args, log)


def _run(args: Namespace, log: logging.Logger) -> int:
    asked = model_options(args)
    keep_cache_small()
    outputs = _outputs(args)
    if args.dry_run:
        from xcloudmask.cli import dry_run

        return dry_run.run(args, outputs, asked)
    if args.out_dir is None:
        ((path, out),) = outputs.items()
        print_facts(args, [_mask(args, path, out, asked, log)], "", quiet=True)
        return 0
    done, failed = [], dict[str, str]()
    for number, (path, out) in enumerate(outputs.items()):
        try:
            done.append(_mask(args, path, out, asked, log))
        except Exception as error:
            if number == 0 and isinstance(error, (UsageError, OptionError)):
                raise  # it is the call that is wrong, not this scene
            if args.debug:
                traceback.print_exc()
            known = isinstance(error, (UsageError, CloudMaskError))
            failed[path] = in_flags(error) if known else f"{type(error).__name__}: {error}"
    failures = [{"path": path, "error": reason} for path, reason in failed.items()]
    print_facts(args, [*done, *failures], "", quiet=True)
    if failed:
        say(f"{len(failed)} of {len(outputs)} scenes failed:")
        for path, reason in failed.items():
            say(reason if path in reason else f"{path}: {reason}")
    return 1 if failed else 0


def _outputs(args: Namespace) -> dict[str, Path]:
    """Return the output of each input, all of which can be written."""
    from xcloudmask.masks.write import check_output

    if args.out_dir is None:
        if len(args.paths) > 1:
            raise UsageError(f"{args.out!r} is one word too many. For several scenes say --out-dir DIR")
        if Path(args.paths[0]).expanduser().is_dir() and not Path(args.out).suffix:
            source.open_scene(args, args.paths[0])  # a folder of scenes: what to say for it comes first
        named: dict[str, str | Path] = {args.paths[0]: args.out}
    else:
        paths = list(dict.fromkeys([*args.paths, *([args.out] if args.out else [])]))
        source.check_date(args, paths)
        named = {path: args.out_dir / f"{_name(Path(path))}.tif" for path in paths}
        inputs: dict[Path, str] = {}
        for path, out in named.items():
            if (other := inputs.setdefault(Path(out), path)) != path:
                raise UsageError(f"{other} and {path} would both be masked into {out}: mask them in two runs")
        if args.out_dir.exists() and not args.out_dir.is_dir():
            raise UsageError(f"--out-dir {args.out_dir} is a file: name a folder")
        if not args.dry_run:
            args.out_dir.mkdir(parents=True, exist_ok=True)
    scenes = {Path(path).expanduser().resolve() for path in named}
    if args.out_dir and not args.out_dir.exists():  # of a dry run
        return {path: Path(out) for path, out in named.items()}
    outputs = {path: check_output(out, overwrite=args.overwrite) for path, out in named.items()}
    for out in outputs.values():
        if out.resolve() in scenes:
            raise UsageError(f"OUT is IN ({out}): name another {'folder' if args.out_dir else 'file'}")
    return outputs


def _name(path: Path) -> str:
    path = path.expanduser().absolute()
    return path.stem if path.is_file() or path.suffix.lower() in (".safe", ".zarr") else path.name


def _mask(
    args: Namespace, path: str, out: Path, asked: PredictOptions, log: logging.Logger
) -> dict[str, Any]:
    result = predict(source.open_scene(args, path), asked)
    log.info("model %s, %d chunks", result.attrs["model"], math.prod(map(len, result.chunks or ())))
    start = time.monotonic()
    written, model = write_out(args, result, out), result.attrs["model"]
    seconds = time.monotonic() - start
    if not (args.quiet or args.json):
        show(paragraph(f"{written} ({model}, {seconds:.1f} s)"))
    return {"scene": path, **plain(written), "model": model, "seconds": seconds}


def write_out(args: Namespace, result: xr.DataArray, out: str | Path) -> Written:
    """Write a mask, with a bar for who looks."""
    from xcloudmask.masks.write import write

    with progress_bar(False if args.quiet else "auto", Path(out).name, "px") as tell:
        return write(result, out, overwrite=args.overwrite, progress=tell)
