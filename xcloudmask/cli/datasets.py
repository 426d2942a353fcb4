"""List the published labelled datasets that can be read, show one, or convert a copy into training patches.

A copy is what you downloaded and unpacked; nothing is fetched. convert writes OUT/train/NAME/*.npz (and val,
test, where the dataset is published with a split), patch by patch: `xcloudmask train` reads OUT.
"""

from __future__ import annotations

import gzip
import textwrap
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, print_facts, table, width
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.codes import counted
from xcloudmask.metrics.labels import BITS, GROUND, QUESTIONS

if TYPE_CHECKING:
    from xcloudmask.datasets import Declared, Labelled

EXAMPLES = """examples:
  xcloudmask datasets show sparcs
  xcloudmask datasets convert sparcs l8cloudmasks/ --out DATA
  xcloudmask train examples/train/sensei.toml --data DATA"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.epilog = EXAMPLES
    parser.add_argument("action", nargs="?", default="list", help=", ".join(ACTIONS))
    parser.add_argument("what", nargs="*", help="show NAME, convert NAME FOLDER")
    parser.add_argument("--out", metavar="OUT", default="data", help="convert: where patches go (data)")
    parser.add_argument("--size", metavar="N", type=positive, default=512,
                        help="convert: rows and columns at most (512); larger images are cut")  # fmt: skip
    add_options(parser)


def add_options(parser: Parser) -> None:
    """Declare what reading a dataset takes."""
    parser.add_argument("--split", metavar="S", help="only this part: train, val or test")
    parser.add_argument("--scale", metavar="X", type=float,
                        help="reflectance of one unit, for a dataset that does not tell")  # fmt: skip


def run(args: Namespace) -> None:
    """Do it."""
    action = pick("action", args.action, ACTIONS)
    wanted, do = ACTIONS[action]
    if len(args.what) != len(wanted):
        raise UsageError(f"say: xcloudmask datasets {action} {' '.join(wanted)}".rstrip())
    do(args)


def _list(args: Namespace) -> None:
    from xcloudmask import datasets

    rows = [("dataset", "sensor", "labels", "what it is")]
    for name in datasets.names():
        each = datasets.get(name)
        rows.append((name, each.sensor, f"{len(set(each.classes.values()))} classes", each.title))
    facts = [dict(zip(("name", *rows[0][1:3], "title"), row, strict=True)) for row in rows[1:]]
    more = "Layout, classes, citation of one: xcloudmask datasets show NAME"
    print_facts(args, facts, f"{table(rows)}\n\n{more}")


def _show(args: Namespace) -> None:
    from xcloudmask import datasets

    each = datasets.get(args.what[0])
    classes = [f"{code}: {_words(bits)}" for code, bits in each.classes.items()]
    rows = [
        ("sensor", f"{each.sensor}, {each.level}, {each.gsd:g} m: {' '.join(each.bands)}"),
        ("labels", "; ".join(classes)),
        ("split", ", ".join(each.splits) or "none published"),
        ("counts", ", ".join(f"{count:,} {what}" for what, count in each.published.items()) or "not known"),
        ("note", each.note),
        ("licence", each.licence),
        ("where", each.url),
        ("cite", each.citation),
        ("layout from", each.source),
    ]
    how: dict[str, Any] = {"subsequent_indent": "    ", "break_long_words": False, "break_on_hyphens": False}
    layout = "\n".join(textwrap.fill(line, width(), **how) for line in each.layout.splitlines())
    parts = [
        paragraph(f"{each.name}: {each.title}"),
        table([(f"  {label}", text) for label, text in rows if text]),
        f"  expected files, below FOLDER:\n{layout}",
    ]
    print_facts(args, each, "\n".join(parts))


def _words(bits: int) -> str:
    """Return what a label leaves open: land, and not "clear or land"."""
    words = [word for word, bit in BITS.items() if bits & bit and (word != "clear" or not bits & GROUND)]
    return " or ".join(words).replace("_", " ")


def _convert(args: Namespace) -> None:
    from xcloudmask import datasets
    from xcloudmask.train.patches import read
    from xcloudmask.train.write import write_patch

    name, folder = args.what
    declared, out = datasets.get(name), Path(args.out)
    scenes: set[str] = set()
    patches, labelled, written = 0, Counter[float](), Counter[float]()
    pixels: list[list[str]] = []
    for scene in datasets.read(name, folder, split=args.split, scale=args.scale):
        scenes.add(scene.scene)
        labelled.update(_labels(scene.labels.values))
        if not scene.spatial:
            pixels += _rows(scene, len(scenes))
            continue
        for place, image, labels in _cut(scene, args.size):
            path = out / (scene.split or "train") / name / f"{scene.name}{place}.npz"
            write_patch(path, image, labels, name=scene.scene, pixel_size=declared.gsd)
            patches += 1
            written.update(_labels(read(path).possible))
    counts = {"scenes": len(scenes), "patches": patches, "pixels": sum(labelled.values())}
    if pixels:
        counts["written"] = _write_table(out / "train" / name / f"{declared.sensor}.csv.gz", declared, pixels)
    elif labelled != written:
        raise CloudMaskError(f"labels were lost on their way: {labelled - written}", "Report it, please.")
    whole = {} if args.split else declared.published
    kinds = {_words(int(bits)): count for bits, count in sorted(labelled.items())}
    parts = [
        table([(what, _against(count, whole.get(what))) for what, count in counts.items()]),
        table([(f"  {words}", f"{count:,} pixels") for words, count in kinds.items()]),
        f"\nTrain on them: xcloudmask train CONFIG --data {out}\n",
        paragraph(f"Please cite: {declared.citation}. Licence: {declared.licence}. {declared.note}"),
    ]
    facts = {"dataset": name, "out": out, **counts, "labels": kinds, "citation": declared.citation}
    print_facts(args, facts, "\n".join(parts))


def _rows(one: Labelled, group: int) -> list[list[str]]:
    """Return single pixels as rows of a table: bands, whether it is cloud, and a number for the scene."""
    truth = QUESTIONS["cloud"].truth(one.labels.values[:, 0])
    rows = zip(one.image.values[:, :, 0].T, truth, strict=True)
    return [[*(f"{v:.5g}" for v in values), str(cloud), str(group)] for values, cloud in rows if cloud >= 0]


def _write_table(path: Path, declared: Declared, rows: list[list[str]]) -> int:
    """Write a table of pixels as `xcloudmask.train.files.read_pixels` reads it, and return its rows."""
    from xcloudmask.train.files import COLUMNS, GROUP

    column = {band: name for name, band in COLUMNS[declared.sensor].items()}
    lines = [[*(column[band] for band in declared.bands), "label", GROUP], *rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("".join(f"{','.join(line)}\n" for line in lines).encode(), mtime=0))
    return len(rows)


def _against(count: int, whole: int | None) -> str:
    return f"{count:,}" + ("" if whole is None else f" of {whole:,} published")


def _labels(bits: Any) -> Counter[float]:
    return counted(bits[bits > 0])


def _cut(one: Labelled, size: int) -> Any:
    """Yield windows of an image that have labels, and what each is called."""
    height, width = one.labels.shape
    for top in range(0, height, size):
        for left in range(0, width, size):
            window = {"y": slice(top, top + size), "x": slice(left, left + size)}
            labels = one.labels.isel(window)
            if labels.values.any():
                place = "" if max(height, width) <= size else f"_{top}_{left}"
                yield place, one.image.isel(window), labels


#: Arguments of each action, and what it does.
ACTIONS: dict[str, tuple[tuple[str, ...], Any]] = {
    "list": ((), _list), "show": (("NAME",), _show), "convert": (("NAME", "FOLDER"), _convert),
}  # fmt: skip
