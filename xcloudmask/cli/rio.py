"""``rio cloudmask``: ``xcloudmask predict`` as a command of rasterio, with the same options."""

from __future__ import annotations

import click

from xcloudmask.cli import main


@click.command(
    "cloudmask",
    short_help="Mask clouds.",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def cloudmask(context: click.Context, words: tuple[str, ...]) -> None:
    """Do what ``xcloudmask predict`` does."""
    context.exit(main(["predict", *words], prog="rio cloudmask"))
