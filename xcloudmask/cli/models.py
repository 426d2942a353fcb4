"""List the models, show one, load published weights, write a model as files, or convert weights."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

from xcloudmask import models
from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import paragraph, print_facts, table
from xcloudmask.models import card, lookup
from xcloudmask.models.network import load_network
from xcloudmask.models.published import known
from xcloudmask.models.sources import plugins
from xcloudmask.predict.choose_model import default_model
from xcloudmask.types import ModelSpec

#: What auto, which predict takes where none is named, stands for.
_DEFAULT = (
    "default for all bands of Sentinel-2 and Landsat, top of atmosphere; with others, auto may choose another"
)


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("action", nargs="?", default="list", help=", ".join(ACTIONS))
    parser.add_argument(
        "what",
        nargs="*",
        help="show NAME, load PATH [PATH ...], export NAME FOLDER, fetch NAME or convert PATH [PATH ...] OUT "
        "(PATH: a file, a folder, an address or a name of `list --published`)",
    )
    parser.add_argument("--published", action="store_true", help="list: models of others that load fetches")
    parser.add_argument("--sha256", default="", help="load, convert: of what comes from an address")
    parser.add_argument("--keymap", help="convert: whose names they are (smp, transformers-segformer, ...)")
    parser.add_argument(
        "--prefix", default="", help="convert: what names begin with and shall not ('module.')"
    )


def run(args: Namespace) -> None:
    """Do it."""
    action = pick("action", args.action, ACTIONS)
    wanted, do = ACTIONS[action]
    given = len(args.what)
    if given < len(wanted) or (given > len(wanted) and action not in ("convert", "load")):
        if not wanted:
            shown = " ".join(args.what)
            raise UsageError(f"models list takes no name. To see one: xcloudmask models show {shown}")
        raise UsageError(f"say which: xcloudmask models {action} {' '.join(wanted)}")
    do(args)


def _list(args: Namespace) -> None:
    if args.published:
        entries = known.models().values()
        heads = ("model", "licence", "system")
        sources = {each.system: each.source for each in entries}.items()
        lines = [
            table([heads, *((each.name, each.licence, each.system) for each in entries)]),
            *(f"{system}: {source}" for system, source in sources),
            "Fetch one and see its card: xcloudmask models load NAME",
        ]
        print_facts(args, list(entries), "\n".join(lines), head=True)
        return
    rows, facts = [("model", "level", "pixel", "bands; licence")], []
    default = default_model().name
    for name, spec in models.cards():
        if not isinstance(spec, models.ModelSpec):
            rows.append((name, "?", "?", f"cannot be read: {spec}"))
            facts.append({"name": name, "error": spec})
            continue
        level = {"toa": "L1C", "boa": "L2A", None: "either"}[spec.level]
        lines = [spec.needs]
        lines.append(spec.licence or "licence unknown")
        lines += [_DEFAULT] if name == default else []
        if remedy := plugins.missing(spec):
            lines.append(f"not installed: {remedy}")
        rows.append((name, level, card.pixels(spec).partition(";")[0], "\n".join(lines)))
        facts.append(
            {
                **card.changed(spec),
                "name": name,
                "needs": spec.needs,
                "install": remedy,
                "default": name == default,
            }
        )
    print_facts(args, facts, f"{table(rows)}\n\nAll of one: xcloudmask models show NAME", head=True)


def _show(args: Namespace) -> None:
    if args.what[0] in ("auto", "default"):
        _print_card(args, default_model(), f"The {_DEFAULT}")
        return
    specs = [models.get(name) for name in lookup.of_family(args.what[0])]
    if len(specs) == 1:
        _print_card(args, specs[0])
    else:
        facts = [{"name": spec.name, **card.changed(spec)} for spec in specs]
        print_facts(args, facts, models.show(args.what[0]))


def _load(args: Namespace) -> None:
    one = len(args.what) == 1
    spec = models.load(args.what[0] if one else args.what, **({"sha256": args.sha256} if args.sha256 else {}))
    load_network(spec)  # so that a file whose network does not run is not called loaded
    _print_card(
        args,
        spec,
        f"It loads. Masks with it: xcloudmask predict SCENE MASK --model {args.what[0]}" if one else "",
    )


def _print_card(args: Namespace, spec: ModelSpec, note: str = "") -> None:
    rows = card.rows_of(spec)
    if remedy := plugins.missing(spec):
        rows.insert(0, ("install", f"{remedy} (its package is not here)"))
    lines = [
        paragraph(f"{spec.name} {spec.version}: {spec.description}"),
        table([(f"  {label}", value) for label, value in rows]),
    ]
    lines += ["\n" + paragraph(note)] if note else []
    print_facts(args, {"name": spec.name, **card.changed(spec)}, "\n".join(lines))


def _export(args: Namespace) -> None:
    paths = list(models.export(*args.what))
    print_facts(args, paths, "\n".join(map(str, paths)))


def _fetch(args: Namespace) -> None:
    spec = models.get(args.what[0])
    load_network(spec)
    print_facts(
        args, {"name": spec.name, "weights": spec.weights}, f"{spec.name} is here and loads: {spec.weights}"
    )


def _convert(args: Namespace) -> None:
    from xcloudmask.models.convert import convert

    *sources, target = args.what
    names = convert(sources, target, prefix=args.prefix, keymap=args.keymap, sha256=args.sha256)
    print_facts(
        args, {"path": target, "tensors": names}, f"{target}: {len(names)} tensors, {names[0]} to {names[-1]}"
    )


#: Arguments of each action, and what it does.
ACTIONS: dict[str, tuple[tuple[str, ...], Callable[[Namespace], None]]] = {
    "list": ((), _list),
    "show": (("NAME",), _show),
    "load": (("PATH",), _load),
    "export": (("NAME", "FOLDER"), _export),
    "fetch": (("NAME",), _fetch),
    "convert": (("PATH", "OUT.safetensors"), _convert),
}
