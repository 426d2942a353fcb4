"""What a scene holds: sensor, bands, units, and the model that would mask it."""

from __future__ import annotations

from argparse import Namespace

from xcloudmask.cli import source
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import as_options, table


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    source.add_arguments(parser)


def run(args: Namespace) -> None:
    """Print."""
    from xcloudmask.summary import summary

    head, rows = summary(source.open_scene(args))
    print(f"{args.path}: {head}")
    print(table([(f"{'!' if row.problem else ' '} {row.label}", as_options(row.value)) for row in rows]))
