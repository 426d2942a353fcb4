"""What commands that write into a store share: where to, on which cluster, and how a run ends."""

from __future__ import annotations

import json
import logging
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from xcloudmask.cli.flags import add_flags, given
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.predict import logged
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, print_facts, say
from xcloudmask.store.options import WriteOptions

#: Options whose flag is not made from their field, and why.
BY_HAND = {
    "chunks": "--zarr-chunk N",  # --chunks is of IN
    "shards": "--zarr-shard N, --no-shards",
    "encoding": "--stored T",
    "overviews": "--overviews",
    "progress": "--quiet",
    "storage_options": "--store-option KEY=VALUE",
}


def add_arguments(parser: Parser, options: type[WriteOptions] = WriteOptions) -> None:
    """Declare them."""
    about = {option.name: option.metadata["about"] for option in options.fields()}
    into = parser.add_argument_group("how it is stored")
    add_flags(into, options, BY_HAND)
    into.add_argument("--zarr-chunk", metavar="N", type=positive, help=about["chunks"])
    into.add_argument("--zarr-shard", metavar="N", type=positive, help=about["shards"])
    into.add_argument(
        "--no-shards", action="store_true", help="a file for each chunk, which GDAL reads from 3.12 on"
    )
    into.add_argument(
        "--stored", metavar="T", choices=("uint8", "float16", "float32"), help=about["encoding"]
    )
    into.add_argument("--overviews", action="store_true", help=about["overviews"])
    add_store_option(into)
    cluster = parser.add_argument_group("where it is run").add_mutually_exclusive_group()
    cluster.add_argument("--workers", metavar="N", type=positive, help="processes on this machine")
    cluster.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster: tcp://host:8786")


def add_store_option(parser: Any) -> None:
    """Declare what a store is opened with."""
    about = {option.name: option.metadata["about"] for option in WriteOptions.fields()}
    parser.add_argument(
        "--store-option", metavar="KEY=VALUE", type=_pair, action="append", default=[],
        help=about["storage_options"],
    )  # fmt: skip


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ArgumentTypeError(f"{text!r} must be KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def options(args: Namespace, rows: str = "y", columns: str = "x") -> dict[str, Any]:
    """Return what `add_arguments` has taken, as `stream` and `sync` take it."""

    def square(side: int | None) -> dict[str, int] | None:
        return None if side is None else {rows: side, columns: side}

    if args.stored and args.output == "classes":
        raise UsageError("--stored is for probabilities: say --proba too, or leave it out")
    return {
        **given(args, WriteOptions, BY_HAND),
        "chunks": square(args.zarr_chunk),
        "shards": False if args.no_shards else square(args.zarr_shard),
        "encoding": {"dtype": args.stored} if args.stored else None,
        "overviews": args.overviews,
        "progress": not args.quiet,
        "storage_options": dict(args.store_option) or None,
    }


@contextmanager
def connected(args: Namespace) -> Iterator[None]:
    """Have the workers that were asked for, if any."""
    with ExitStack() as stack:
        if args.workers or args.scheduler:
            import dask
            import distributed

            tools: Any = distributed
            address = args.scheduler
            if args.workers:
                # LocalCluster would give up, for good, a worker that died twice within some seconds.
                patience = dask.config.set({"distributed.deploy.lost-worker-timeout": "10 days"})
                stack.enter_context(patience)
                address = stack.enter_context(
                    tools.LocalCluster(
                        n_workers=args.workers,
                        threads_per_worker=1,
                        host="127.0.0.1",
                        dashboard_address="127.0.0.1:0",
                    )
                )
            stack.enter_context(tools.Client(address))
        yield


def resumable(run: Callable[[Namespace], int]) -> Callable[[Namespace], int]:
    """Have a command tell what goes on and, when it is interrupted, how it is carried on."""

    @wraps(run)
    def command(args: Namespace) -> int:
        try:
            with logged(logging.INFO if args.verbose else logging.WARNING):
                return run(args)
        except BaseException as error:
            if not isinstance(error, (Exception, SystemExit)):
                say("stopped. What is done is recorded: run the same command again, and it goes on there")
            raise

    return command


def finish(args: Namespace, reports: Sequence[Any]) -> int:
    """Print what was done; on stderr, with an exit code, what could not be."""
    done = [line for report in reports if report.complete for line in str(report).splitlines()]
    if args.json or done:
        print_facts(args, reports, "\n".join(map(paragraph, done)), quiet=args.quiet)
    failed = [report for report in reports if not report.complete]
    for report in failed:
        for line in str(report).replace("same call", "same command").splitlines():
            say(line.strip())
    return 1 if failed else 0
