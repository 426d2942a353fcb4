"""Train a model as a config file says; the same command resumes one that was stopped.

Several GPUs: torchrun --nproc-per-node N -m xcloudmask train CONFIG ...
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

from xcloudmask.cli.parse import Parser
from xcloudmask.cli.score_table import table_of
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, print_facts, say, show


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument(
        "config", metavar="CONFIG", help="a TOML file, for instance examples/train/spectral.toml"
    )
    parser.add_argument("--data", metavar="D", help="the folder with the data, instead of the config's")
    parser.add_argument("--out", metavar="O", help="where results go (default runs/NAME)")
    parser.add_argument("--threads", metavar="N", type=positive, help="threads of torch")
    parser.add_argument(
        "--search", metavar="N", type=positive,
        help="try N settings out of the config's [search] instead (needs optuna)",
    )  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="print no line an epoch")


def run(args: Namespace) -> None:
    """Train, and print the record."""
    if args.search:
        from xcloudmask.train.search import search

        best = search(args.config, args.search, data=args.data, out=args.out, threads=args.threads)
        show(json.dumps(best, indent=2))
        return
    from xcloudmask.train.loggers import print_epoch
    from xcloudmask.train.run import train

    try:
        record = train(
            args.config, data=args.data, out=args.out, threads=args.threads,
            loggers=() if args.quiet else [print_epoch],
        )  # fmt: skip
    except KeyboardInterrupt:
        say("stopped. Run the same command again: it resumes at the last checkpoint, not a minute ago")
        raise
    facts = {key: record[key] for key in ("name", "threshold", "chosen_on", "sha256")}
    lines = [json.dumps(facts, indent=2)]
    if "scored" in record:
        facts["scored"] = record["scored"].to_dict()
        lines.append(f"scored on {record['scored'].scenes} scenes of [score]:\n{table_of(record['scored'])}")
    card = Path(args.out or Path("runs") / record["name"]) / f"{record['name']}.json"
    use = f"to use it: xcloudmask predict IN OUT --model {card}, or predict(model={str(card)!r})"
    lines.append(paragraph(use))
    print_facts(args, {**facts, "card": card}, "\n".join(lines))
