"""What a scene holds: sensor, bands, units, and the model that would mask it; or what made a mask."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from xcloudmask.cli import source
from xcloudmask.cli.flags import in_flags
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import table


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    source.add_arguments(parser)


def run(args: Namespace) -> None:
    """Print."""
    from xcloudmask.cli import written
    from xcloudmask.predict.summary import summary

    path = Path(args.path).expanduser()
    mask = written.find_mask(path, args.variable)
    if mask is not None:
        head, rows = summary(mask)
        found = [(f"{'!' if row.problem else ' '} {row.label}", in_flags(row.content)) for row in rows]
        found[2:2] = [("  Shares", written.shares(mask))] if "flag_values" in mask.attrs else []
    elif args.bands is None and args.sensor is None and source.bands_unnamed(path):
        head, found = written.unnamed(path)
    else:
        head, rows = summary(source.open_scene(args))
        found = [(f"{'!' if row.problem else ' '} {row.label}", in_flags(row.content)) for row in rows]
    print(f"{args.path}: {head}")
    print(table(found))
