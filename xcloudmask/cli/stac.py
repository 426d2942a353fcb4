"""Search a STAC API, or read a file of items, and list what is found; with --to, mask it into a store.

The store is kept up to date: only the items that it lacks are computed, late ones are appended, and a run
that was stopped is resumed by the next. Run the same command every night.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xcloudmask.cli import predict, store
from xcloudmask.cli.flags import add_flags, given
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.source import positive
from xcloudmask.cli.text import paragraph, print_facts, table
from xcloudmask.errors import CloudMaskError
from xcloudmask.stac.options import LoadOptions

EXAMPLES = """examples:
  xcloudmask stac --api https://earth-search.aws.element84.com/v1 \\
    --collection sentinel-2-l2a --bbox 10 44 10.2 44.2 --datetime 2026-05
  xcloudmask stac ... --to masks.zarr
  xcloudmask stac items.json --to s3://bucket/masks.zarr --workers 4"""


#: Options whose flag is not made from their field, or that have none, and why.
BY_HAND = {
    "bbox": "--bbox of the search",
    **dict.fromkeys(("like", "mosaic", "duplicates", "masks"), "the store settles it"),
    **dict.fromkeys(("geometry", "patch_url", "modifier", "filesystem", "gdal_env"), "in Python only"),
    **dict.fromkeys(("chunks", "dtype", "retries"), "the flag of that name is of masking or storing"),
}


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} [ITEMS] [options]"
    parser.epilog = EXAMPLES
    parser.add_argument("items", metavar="ITEMS", nargs="?", help="a file of items: JSON, or stac-geoparquet")
    what = parser.add_argument_group("what is searched")
    what.add_argument("--api", metavar="URL", help="of the STAC API")
    what.add_argument("--collection", metavar="C", action="append", help="again for more")
    what.add_argument(
        "--bbox", metavar=("W", "S", "E", "N"), nargs=4, type=float, help="degrees; also what is masked"
    )
    what.add_argument("--datetime", metavar="D", help="2026-05, 2026-05-01/2026-06-15")
    what.add_argument(
        "--query", metavar="Q", action="append", help='such as "eo:cloud_cover<50"; again for more'
    )
    what.add_argument("--limit", metavar="N", type=positive, help="at most N items")
    parser.add_argument("--save", metavar="FILE", help="write the items to a JSON file")
    parser.add_argument("--to", metavar="STORE", help="mask them into masks.zarr, a URL, or icechunk:...")
    grid = parser.add_argument_group("what is loaded, on what grid (fixed by the first run)")
    add_flags(grid, LoadOptions, BY_HAND)
    predict.add_model_arguments(parser)
    store.add_arguments(parser)
    predict.add_volume(parser)


@store.resumable
def run(args: Namespace) -> int:
    """Run it."""
    asked, writing = predict.model_options(args), store.options(args)
    loading = given(args, LoadOptions, BY_HAND)
    LoadOptions.read(loading)  # what is wrong is said before anything is searched
    found = _from_file(args) if args.items else _search(args)
    if args.save:
        Path(args.save).write_text(json.dumps({"type": "FeatureCollection", "features": found}))
    if args.to is None:
        _list(args, found)
        return 0
    predict.keep_cache_small()
    from xcloudmask.archive.sync import sync

    if loading["bands"] not in ("auto", "all"):
        loading["bands"] = loading["bands"].split(",")
    with store.connected(args):
        report = sync(
            found, args.to, load={**loading, "bbox": args.bbox}, predict=predict.keywords(asked),
            output=asked.output, write=writing,
        )  # fmt: skip
    return store.finish(args, [report])


def _from_file(args: Namespace) -> list[dict[str, Any]]:
    for option in ("api", "collection", "datetime", "query", "limit"):
        if getattr(args, option) is not None:
            raise UsageError(f"--{option} searches an API, and {args.items} is a file: leave one of them out")
    from xcloudmask.stac.items import plain_items

    path = Path(args.items).expanduser()
    if path.suffix in (".parquet", ".geoparquet"):
        return plain_items(path)
    try:
        given = json.loads(path.read_text())
    except ValueError as error:
        raise CloudMaskError(f"{args.items}: it is no JSON ({error}). Name a FeatureCollection") from error
    return plain_items(given)


def _search(args: Namespace) -> list[dict[str, Any]]:
    if args.api is None:
        raise UsageError("say where to look: --api URL with --collection C, or a file ITEMS")
    import pystac_client

    from xcloudmask.store.retry import brief

    try:
        search = pystac_client.Client.open(args.api).search(
            collections=args.collection, bbox=args.bbox, datetime=args.datetime, query=args.query,
            max_items=args.limit,
        )  # fmt: skip
        return list(search.items_as_dicts())
    except Exception as error:  # pystac-client raises whatever it meets
        raise CloudMaskError(
            f"{args.api}: the search failed: {brief(error)}. Check the URL, and what is asked for"
        ) from error


def _list(args: Namespace, found: Sequence[Mapping[str, Any]]) -> None:
    rows, facts = [("time", "cloud", "item")], []
    for item in sorted(found, key=lambda one: str(_properties(one).get("datetime"))):
        cloud = _properties(item).get("eo:cloud_cover")
        when = str(_properties(item).get("datetime") or _properties(item).get("start_datetime") or "?")
        rows.append((when[:16].replace("T", " "), "" if cloud is None else f"{cloud:.0f} %", str(item["id"])))
        facts.append(
            {"id": item["id"], "collection": item.get("collection"), "time": when, "cloud_cover": cloud}
        )
    text = "no items. Widen --datetime or --bbox, and check the collection's name"
    if found:
        count = f"{len(found)} item{'s' if len(found) > 1 else ''}"
        text = (
            table(rows) + "\n\n" + paragraph(f"{count}. To mask them: the same command with --to masks.zarr")
        )
    print_facts(args, facts, text, head=bool(found))


def _properties(item: Mapping[str, Any]) -> Mapping[str, Any]:
    return item.get("properties") or {}
