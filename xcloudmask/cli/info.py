"""What a scene holds: sensor, bands, units, and the model that would mask it; or what made a mask."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import xarray as xr

from xcloudmask.cli import source, written
from xcloudmask.cli.flags import in_flags
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import print_facts, table


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    source.add_arguments(parser)


def run(args: Namespace) -> None:
    """Print."""
    path = Path(args.path).expanduser()
    mask, counts = written.find_mask(path, args.variable), None
    if mask is not None:
        head, rows = _summary(mask)
        if "flag_values" in mask.attrs:
            shares, counts = written.shares(mask)
            rows.insert(2, ("  Shares", shares))
    elif args.bands is None and args.sensor is None and source.bands_unnamed(path):
        head, rows = written.unnamed(path)
    else:
        head, rows = _summary(source.open_scene(args))
    name, _, sizes = head.partition(" (")
    facts = {
        "path": args.path,
        "kind": name.split()[0],
        "counts": counts,
        "sizes": {dim: int(size) for dim, _, size in (one.partition(": ") for one in sizes[:-1].split(", "))},
        **{label[1:].strip().lower().replace(" ", "_"): content for label, content in rows},
        "problems": [label[2:].lower() for label, _ in rows if label[0] == "!"],
    }
    print_facts(args, facts, f"{args.path}: {head}\n{table(rows)}")


def _summary(da: xr.DataArray) -> tuple[str, list[tuple[str, str]]]:
    """Return heading and rows of a summary; a problem is marked by an exclamation mark."""
    from xcloudmask.predict.summary import summary

    head, rows = summary(da)
    return head, [(f"{'!' if row.problem else ' '} {row.label}", in_flags(row.content)) for row in rows]
