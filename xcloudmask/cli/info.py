"""What a scene holds: sensor, bands, units, and the model that would mask it; or what made a mask."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from xcloudmask.cli import source, written
from xcloudmask.cli.flags import in_flags
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import print_facts, table


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    source.add_arguments(parser)


def run(args: Namespace) -> None:
    """Print."""
    from xcloudmask.predict.summary import summary

    path = Path(args.path).expanduser()
    mask, counts = written.find_mask(path, args.variable), None
    if mask is not None:
        head, rows = summary(mask)
        found = [(f"{'!' if row.problem else ' '} {row.label}", in_flags(row.content)) for row in rows]
        if "flag_values" in mask.attrs:
            shares, counts = written.shares(mask)
            found.insert(2, ("  Shares", shares))
    elif args.bands is None and args.sensor is None and source.bands_unnamed(path):
        head, found = written.unnamed(path)
    else:
        head, rows = summary(source.open_scene(args))
        found = [(f"{'!' if row.problem else ' '} {row.label}", in_flags(row.content)) for row in rows]
    name, _, sizes = head.partition(" (")
    facts = {
        "path": args.path,
        "kind": name.split()[0],
        "counts": counts,
        "sizes": {dim: int(size) for dim, _, size in (one.partition(": ") for one in sizes[:-1].split(", "))},
        **{label[1:].strip().lower().replace(" ", "_"): content for label, content in found},
        "problems": [label[2:].lower() for label, _ in found if label[0] == "!"],
    }
    print_facts(args, facts, f"{args.path}: {head}\n{table(found)}")
