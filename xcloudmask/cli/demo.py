"""Mask a real scene that comes with the demo extra, and show what came out."""

from __future__ import annotations

from argparse import Namespace

from xcloudmask.cli.parse import Parser


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("out", nargs="?", metavar="OUT", help="folder for the results")


def run(args: Namespace) -> None:
    """Run it."""
    import xcloudmask.demo

    out = () if args.out is None else (args.out,)
    xcloudmask.demo.run(*out)  # prints what it found
