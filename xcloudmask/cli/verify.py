"""Check every byte of a store of masks: arrays, coordinates, documents and the ledger.

With --repair, documents, coordinates and the ledger are put back from the copy that the store has of them,
and damaged regions of the mask are deleted: the command that made the store, run again, makes them anew. The
exit code is 1 if something was damaged.
"""

from __future__ import annotations

from argparse import Namespace

from xcloudmask.cli import store
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import paragraph, plain, print_facts, say

EXAMPLES = """examples:
  xcloudmask verify masks.zarr
  xcloudmask verify s3://bucket/masks.zarr --group 32TPR --repair"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} STORE [options]"
    parser.epilog = EXAMPLES
    parser.add_argument("store", metavar="STORE", help="masks.zarr, a URL, or icechunk:...")
    parser.add_argument("--group", metavar="G", help="group within the store")
    parser.add_argument("--repair", action="store_true", help="mend what is damaged")
    store.add_store_option(parser)


def run(args: Namespace) -> int:
    """Run it."""
    from xcloudmask.store.verify import verify

    report = verify(
        args.store, args.group, repair=args.repair, storage_options=dict(args.store_option) or None
    )
    text = str(report).replace("repair=True (on the command line: --repair)", "--repair")
    if report.ok or args.json:
        print_facts(args, {**plain(report), "ok": report.ok}, "\n".join(map(paragraph, text.splitlines())))
    else:
        for line in text.splitlines():
            say(line)
    return 0 if report.ok else 1
