"""Score masks against references, or models on a published dataset: pooled, by scene, with intervals.

MASK and REFERENCE are files, or folders whose files agree in name. Masks are GeoTIFF, Zarr or netCDF as
predict writes them. References are class maps of the same kinds, rasters of partial labels (bit masks), or
patches with partial labels (.npz, with image and possible).

With --dataset, FOLDER is a copy of a dataset that `xcloudmask datasets` lists, and the masks are made here,
scene by scene.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from xcloudmask.cli import datasets, source
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.score_dataset import run as run_dataset
from xcloudmask.cli.score_table import table_of
from xcloudmask.cli.source import open_image, positive
from xcloudmask.cli.text import paragraph, print_facts, say
from xcloudmask.cli.written import find_mask
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.cases import Case, Collected
from xcloudmask.metrics.codes import Undeclared
from xcloudmask.metrics.report import write

if TYPE_CHECKING:
    from xcloudmask.train.samples import Sample

EXAMPLES = """examples:
  xcloudmask score mask.tif reference.tif --reference-classes 0=clear,1=cloud
  xcloudmask score masks/ patches/ --report report/
  xcloudmask score --dataset cloudsen12 FOLDER --model auto sensei --split test"""
SUFFIXES = (".tif", ".tiff", ".zarr", ".nc", ".npz")
#: Bits of partial labels.
MASKS = [1, 2, 4, 8, 16, 32, 64]


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "mask", metavar="MASK", help="a mask, or a folder of masks; with --dataset its FOLDER"
    )
    parser.add_argument("reference", metavar="REFERENCE", nargs="?",
                        help="its reference, or a folder of references")  # fmt: skip
    parser.add_argument("--dataset", metavar="D", help="score models on it, a name of: xcloudmask datasets")
    parser.add_argument(
        "--model", metavar="M", nargs="+", default=["auto"], help="with --dataset: which (auto)"
    )
    datasets.add_options(parser)
    parser.add_argument("--report", metavar="DIR", help="write DIR/report.html and DIR/scores.json")
    parser.add_argument("--image", metavar="I", help="the scene, or a folder of scenes, for the pictures")
    parser.add_argument(
        "--probability", metavar="P", help="probabilities, or a folder of them, for a curve of reliability"
    )
    parser.add_argument(
        "--classes", metavar="C", type=_classes, help="of masks that do not tell: 0=clear,1=cloud"
    )
    legend = parser.add_mutually_exclusive_group()
    legend.add_argument(
        "--reference-classes", metavar="C", type=_classes, help="of references that do not tell"
    )
    legend.add_argument("--partial", action="store_true", help="references are bit masks: 1 clear, 2 thick, "
                        "4 thin cloud, 8 shadow, 16 land, 32 water, 64 snow")  # fmt: skip
    parser.add_argument(
        "--questions", metavar="Q", help="cloud,invalid,cloud_shadow,land ...; classes: all at once"
    )
    parser.add_argument(
        "--worst", metavar="N", type=positive, default=4, help="scenes drawn in the report (4)"
    )
    parser.add_argument(
        "--samples", metavar="N", type=positive, default=1000, help="draws of the bootstrap (1000)"
    )


def _classes(text: str) -> dict[int, str]:
    try:
        pairs = [(int(code), word.strip()) for code, word in (part.split("=") for part in text.split(","))]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} must be codes and classes: 0=clear,1=cloud,255=no_data") from None
    classes: dict[int, str] = {}
    for code, word in pairs:
        if code in classes:
            raise ArgumentTypeError(f"{text!r} has code {code} twice, as {classes[code]} and as {word}")
        classes[code] = word.replace(" ", "_")
    return classes


def run(args: Namespace) -> None:
    """Score, print the table, write the report."""
    if args.dataset:
        run_dataset(args)
        return
    if args.reference is None:
        raise UsageError("say the references, too: xcloudmask score MASK REFERENCE (or --dataset D FOLDER)")
    cases: list[Case] = []
    for name, mask, reference, image in pairs(args):
        opened = _opened(mask, reference, image, args)
        probability = _probability(args.probability, mask) if args.probability else None
        cases += Case(name, *opened, probability).scenes()
    asked = None if args.questions is None else [word.strip() for word in args.questions.split(",")]
    notes = _left_out(cases, args)
    for note in notes:
        say(f"warning: {note}")
    collected = Collected.of(cases, asked, worst=args.worst if args.report else 0)
    if args.report:
        title = f"{Path(args.mask).name} against {Path(args.reference).name}"
        scores = write(collected, args.report, title=title, samples=args.samples, notes=notes)
    else:
        scores = collected.scores(samples=args.samples)
    lines = [table_of(scores), *(f"\n{paragraph(note)}" for note in scores.notes if note not in notes)]
    lines += [f"\n{Path(args.report) / 'report.html'}"] if args.report else []
    worst = dict(zip(scores.questions, scores.worst_scenes, strict=True))
    facts = {
        "scenes": scores.scenes, "scores": scores.to_dict(), "worst_scenes": worst, "notes": scores.notes
    }  # fmt: skip
    print_facts(args, facts, "\n".join(lines), head=True)


def _left_out(cases: list[Case], args: Namespace) -> list[str]:
    """Say which codes of masks and references no class is declared for; those pixels do not count."""
    masks = Undeclared.of(case.mask for case in cases if case.mask.dtype == "u1")  # others are refused later
    references = Undeclared.of(case.reference for case in cases)
    notes = []
    if masks.codes:
        notes.append(_undeclared(args.mask, "--classes", args.classes is not None, masks))
    if references.codes:
        hint = ""
        if references.like_bit_masks:
            hint = (
                ". They look like bit masks (1 clear, 2 thick, 4 thin cloud, 8 shadow): if so, say --partial"
            )
            if args.reference_classes is not None:
                hint += " instead"
        given = args.reference_classes is not None
        notes.append(_undeclared(args.reference, "--reference-classes", given, references) + hint)
    return notes


def _undeclared(path: str, option: str, given: bool, found: Undeclared) -> str:
    who = f"{option} does" if given else "its flag_values do"
    return (
        f"{path} holds codes that {who} not declare: {found}. {found.count:,} of {found.pixels:,} pixels are "
        "left out"
    )


def pairs(args: Namespace) -> list[tuple[str, Path, Path, Path | None]]:
    """Return name, mask, reference and image of each scene."""
    mask, reference = Path(args.mask), Path(args.reference)
    image = None if args.image is None else Path(args.image)
    for path in (mask, reference, *([image] if image else [])):
        if not path.exists():
            raise CloudMaskError(f"{path}: there is no such file or folder")
    if _is_one(mask) != _is_one(reference):
        raise UsageError("MASK and REFERENCE must both be files (or stores), or both be folders of them")
    if _is_one(mask):
        return [(mask.stem, mask, reference, image)]
    masks, references = _by_stem(mask), _by_stem(reference)
    images = {} if image is None else _by_stem(image)
    both = sorted(masks.keys() & references.keys())
    if not both:
        raise CloudMaskError(
            f"no file of {mask} has the name of one in {reference} ({_some(masks)}; {_some(references)}): "
            "scene1.tif goes with scene1.npz"
        )
    lone = sorted(masks.keys() ^ references.keys())
    if lone:
        say(f"warning: {len(lone)} without a counterpart are left out: {_some(lone)}")
    return [(name, masks[name], references[name], images.get(name)) for name in both]


def _is_one(path: Path) -> bool:
    return (
        path.is_file() or path.suffix == ".zarr" or any((path / n).exists() for n in ("zarr.json", ".zgroup"))
    )


def _by_stem(folder: Path) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            if path.stem in paths:
                raise CloudMaskError(
                    f"{folder} holds {path.name} and {paths[path.stem].name}: which is meant?"
                )
            paths[path.stem] = path
    return paths


def _some(names: Any) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")


def _opened(
    mask: Path, reference: Path, image: Path | None, args: Namespace
) -> tuple[xr.DataArray, xr.DataArray, xr.DataArray | None]:
    codes = _with_classes(_array(mask), args.classes, mask, "--classes 0=clear,1=cloud")
    if reference.suffix != ".npz":
        truth = _array(reference)
        if args.partial:
            truth.attrs["flag_masks"] = MASKS
            truth.attrs.pop("flag_meanings", None)
        hint = "--reference-classes 0=clear,1=cloud, or --partial"
        truth = _with_classes(truth, args.reference_classes, reference, hint)
        return codes, truth, None if image is None else _scene(image)
    sample, picture = _patch(reference)
    truth = picture.isel(band=0, drop=True).copy(data=sample.possible)
    truth.attrs = {"flag_masks": MASKS}
    if codes.shape != truth.shape:
        raise CloudMaskError(
            f"{mask.name} has {codes.shape} rows and columns, {reference.name} {truth.shape}: a patch has no "
            "coordinates, so its mask must have its pixels"
        )
    bare = codes.drop_vars(list(codes.coords)).rename(dict(zip(codes.dims, ("y", "x"), strict=True)))
    return bare, truth.drop_vars(list(truth.coords)), picture if image is None else _scene(image)


def _array(path: Path) -> xr.DataArray:
    """Return a mask or class map, lazy."""
    if path.suffix.lower() in (".tif", ".tiff"):
        with _named(path, "GeoTIFF"):
            raster = open_image(path)
        if raster.sizes["band"] != 1:
            raise CloudMaskError(f"{path}: a mask has one band, this has {raster.sizes['band']}")
        da: xr.DataArray = raster.isel(band=0, drop=True)
    elif path.suffix == ".npz":
        raise CloudMaskError(f"{path}: patches (.npz) are references; a mask is GeoTIFF, Zarr or netCDF")
    else:
        engine = "zarr" if path.is_dir() else None
        with _named(path, "netCDF or Zarr"):
            ds = xr.open_dataset(path, engine=engine, chunks={}, mask_and_scale=False)
        names = [name for name, v in ds.data_vars.items() if {"flag_values", "flag_masks"} & set(v.attrs)]
        if len(names) != 1:
            names = [name for name, v in ds.data_vars.items() if v.ndim >= 2]
        if len(names) != 1:
            raise CloudMaskError(
                f"{path} holds {len(names)} arrays that may be masks: {_some(map(str, names))}"
            )
        da = ds[names[0]].drop_vars("spatial_ref", errors="ignore")
    return da.assign_attrs()


def _probability(given: str, mask: Path) -> xr.DataArray:
    """Return the probabilities that go with a mask, as ``predict --proba`` writes them."""
    path = Path(given)
    if not path.exists():
        raise CloudMaskError(f"{path}: there is no such file or folder")
    if not _is_one(path):
        paths = _by_stem(path)
        if mask.stem not in paths:
            raise CloudMaskError(f"{path} holds no probabilities called {mask.stem} ({_some(paths)})")
        path = paths[mask.stem]
    probability = find_mask(path)
    if probability is None or "class" not in probability.dims:
        raise CloudMaskError(f"{path} holds no probabilities; write them with xcloudmask predict --proba")
    return probability


def _with_classes(da: xr.DataArray, classes: dict[int, str] | None, path: Path, hint: str) -> xr.DataArray:
    if classes is not None:
        da.attrs |= {"flag_values": list(classes), "flag_meanings": " ".join(classes.values())}
        da.attrs.pop("flag_masks", None)
    elif not {"flag_values", "flag_masks"} & set(da.attrs):
        raise UsageError(f"{path} does not tell its classes; say {hint}")
    return da


def _scene(path: Path) -> xr.DataArray:
    if path.suffix == ".npz":
        return _patch(path)[1]
    parser = Parser("image")
    source.add_arguments(parser)
    return source.open_scene(parser.parse_args([str(path)]))


def _patch(path: Path) -> tuple[Sample, xr.DataArray]:
    """Return a patch and its image."""
    from xcloudmask.train.files import read_patch
    from xcloudmask.train.samples import to_xarray

    with _named(path, "a patch"):
        sample = read_patch(path)
        return sample, to_xarray(sample)


@contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    """Tell of a broken or hostile file, whatever reading it raises, that it is the file."""
    try:
        yield
    except Exception as error:
        if isinstance(error, CloudMaskError) and path.name in str(error):
            raise
        why = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise CloudMaskError(f"{path} cannot be read as {what}; is it broken? ({why})") from error
