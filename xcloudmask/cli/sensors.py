"""List the sensors, or show the bands of one."""

from __future__ import annotations

from argparse import Namespace

from xcloudmask import sensors
from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import paragraph, print_facts, table
from xcloudmask.types import Band

ACTIONS = ("list", "show")


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("action", nargs="?", default="list", help="list (default) or show")
    parser.add_argument("name", nargs="*", help="of the sensor to show, or one of its other names")


def run(args: Namespace) -> None:
    """Print."""
    name = " ".join(args.name)  # "Landsat 8" is understood without quotes
    if pick("action", args.action, ACTIONS) == "show":
        if not name:
            raise UsageError("say which sensor: xcloudmask sensors show NAME")
        _show(args, name)
    elif name:
        raise UsageError(f"sensors list takes no name. To see one: xcloudmask sensors show {name}")
    else:
        _list(args)


def _list(args: Namespace) -> None:
    every = [sensors.get(name) for name in sensors.names()]
    rows = [("sensor", "bands", "what it is")]
    rows += [(sensor.name, f"{len(sensor.bands):>5}", sensor.title) for sensor in every]
    text = f"{table(rows)}\n\nBands of one, with wavelengths: xcloudmask sensors show NAME"
    print_facts(args, every, text, head=True)


def _show(args: Namespace, name: str) -> None:
    sensor = sensors.get(name)
    lines = [paragraph(f"{sensor.name}: {sensor.title}")]
    if sensor.aliases:
        lines.append(table([("also called", ", ".join(sensor.aliases))]))
    rows: list[tuple[str, ...]] = [("band", "common name", "nm: from - to", "centre", "pixel", "kind")]
    rows += [_row(band) for band in sensor.bands]
    print_facts(args, sensor, "\n".join([*lines, "", table(rows)]))


def _row(band: Band) -> tuple[str, ...]:
    def nm(value: float | None) -> str:
        return "?" if value is None else f"{value:.0f}"

    span = "-" if band.center_nm is None and band.min_nm is None else f"{nm(band.min_nm)} - {nm(band.max_nm)}"
    gsd = "varies" if band.gsd is None else f"{band.gsd:g} m"
    kind = band.kind.replace("_", " ")
    return band.name, band.common_name or "-", span, nm(band.center_nm), gsd, kind
