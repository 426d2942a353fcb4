"""List the models, or show one."""

from __future__ import annotations

from argparse import Namespace

from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import paragraph, table

ACTIONS = ("list", "show")
LEVELS = {"toa": "top of atmosphere (L1C)", "boa": "surface (L2A)", None: "either"}


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("action", nargs="?", default="list", help="list (default) or show")
    parser.add_argument("name", nargs="?", help="of the model to show")


def run(args: Namespace) -> None:
    """Print."""
    if pick("action", args.action, ACTIONS) == "show":
        if args.name is None:
            raise UsageError("say which model: xcloudmask models show NAME")
        _show(args.name)
    elif args.name is not None:
        raise UsageError(f"models list takes no name. To see one: xcloudmask models show {args.name}")
    else:
        _list()


def _pixels(gsd: tuple[float, float] | None) -> str:
    if gsd is None:
        return "any"
    return f"{gsd[0]:g} m" if gsd[0] == gsd[1] else f"{gsd[0]:g}-{gsd[1]:g} m"


def _list() -> None:
    from xcloudmask import models

    rows = [("model", "level", "pixel", "bands")]
    for name in models.list():
        spec = models.get(name)
        level = {"toa": "L1C", "boa": "L2A", None: "either"}[spec.level]
        rows.append((name, level, _pixels(spec.gsd), ", ".join(spec.bands)))
    print(table(rows))
    print("\nBands, classes, licence of one: xcloudmask models show NAME")


def _show(name: str) -> None:
    from xcloudmask import models

    spec = models.get(name)
    fixed = ", fixed" if spec.patch_fixed else ""
    rows = [
        ("bands", ", ".join(spec.bands)),
        ("classes", ", ".join(spec.classes)),
        ("level", LEVELS[spec.level]),
        ("pixel", f"{_pixels(spec.gsd)}; finer input is averaged to it, and the mask brought back"),
        ("window", f"{spec.patch} x {spec.patch}{fixed}; overlap {spec.overlap}"),
        ("runs on", {"onnx": "onnxruntime", "torch": "torch"}[spec.runtime]),
        ("weights", spec.weights or "-"),
        ("sha256", spec.sha256 or "-"),
        ("licence", spec.licence or "not told"),
        ("cite", spec.citation or "-"),
    ]
    print(paragraph(f"{spec.name} {spec.version}: {spec.description}"))
    print(table([(f"  {what}", text) for what, text in rows]))
