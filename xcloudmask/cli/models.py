"""List the models, show one, write one as files, fetch its weights, or take tensors out of a pickle."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import paragraph, table


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("action", nargs="?", default="list", help=", ".join(ACTIONS))
    parser.add_argument(
        "what", nargs="*", help="show NAME, export NAME FOLDER, fetch NAME or convert FILE OUT"
    )
    parser.add_argument("--keymap", help="convert: whose names they are (transformers-segformer)")
    parser.add_argument(
        "--prefix", default="", help="convert: what names begin with and shall not ('module.')"
    )


def run(args: Namespace) -> None:
    """Do it."""
    action = pick("action", args.action, ACTIONS)
    wanted, do = ACTIONS[action]
    if len(args.what) != len(wanted):
        if not wanted:
            shown = " ".join(args.what)
            raise UsageError(f"models list takes no name. To see one: xcloudmask models show {shown}")
        raise UsageError(f"say which: xcloudmask models {action} {' '.join(wanted)}")
    do(args)


def _list(args: Namespace) -> None:
    from xcloudmask import models
    from xcloudmask.models import card

    rows = [("model", "level", "pixel", "bands; licence")]
    for name in models.list():
        spec = models.get(name)
        level = {"toa": "L1C", "boa": "L2A", None: "either"}[spec.level]
        bands = ", ".join(spec.bands) or f"any, {spec.min_bands} or more"
        pixels = card.pixels(spec).partition(";")[0]
        rows.append((name, level, pixels, f"{bands}\n{spec.licence or 'licence not told'}"))
    print(table(rows))
    print("\nAll of one: xcloudmask models show NAME")


def _show(args: Namespace) -> None:
    from xcloudmask import models
    from xcloudmask.models import card

    spec = models.get(args.what[0])
    print(paragraph(f"{spec.name} {spec.version}: {spec.description}"))
    print(table([(f"  {label}", value) for label, value in card.rows_of(spec)]))


def _export(args: Namespace) -> None:
    from xcloudmask import models

    for path in models.export(*args.what):
        print(path)


def _fetch(args: Namespace) -> None:
    from xcloudmask import models
    from xcloudmask.models.network import load_network

    spec = models.get(args.what[0])
    load_network(spec)
    print(f"{spec.name} is here and loads: {spec.weights}")


def _convert(args: Namespace) -> None:
    from xcloudmask.models.convert import convert

    names = convert(*args.what, prefix=args.prefix, keymap=args.keymap)
    print(f"{args.what[1]}: {len(names)} tensors, {names[0]} to {names[-1]}")


#: What each action is told, and what it does.
ACTIONS: dict[str, tuple[tuple[str, ...], Callable[[Namespace], None]]] = {
    "list": ((), _list),
    "show": (("NAME",), _show),
    "export": (("NAME", "FOLDER"), _export),
    "fetch": (("NAME",), _fetch),
    "convert": (("FILE", "OUT.safetensors"), _convert),
}
