"""Mask scenes into a Zarr store, region by region; a run that was stopped goes on where it stopped.

Memory does not grow with the scene. Scenes that tell their date, in their metadata or their name
(2020-06-15.tif), become steps of one array over time: name several, or run again with later ones.
Each region is recorded in the store when it is written, so the same command, run again, makes only what is
lacking. OUT is a folder, a URL such as s3://bucket/masks.zarr, or an Icechunk repository, icechunk:FOLDER or
icechunk:s3://bucket/prefix. GDAL, from 3.12 on, reads a folder if it was written with --no-shards.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import xarray as xr

from xcloudmask.cli import predict, source, store
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.scene.describe import describe_times
from xcloudmask.scene.dims import spatial_dims

EXAMPLES = """examples:
  xcloudmask stream S2B_MSIL1C_....SAFE masks.zarr
  xcloudmask stream 2026/*.SAFE s3://bucket/masks.zarr --workers 4
  xcloudmask stream 2020-06-15.tif 2020-06-20.tif masks.zarr --sensor landsat-8
  xcloudmask stream cube.zarr masks.zarr --proba --stored float16"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} [options] IN... OUT"
    parser.epilog = EXAMPLES
    source.add_arguments(parser, several=True)
    parser.add_argument("out", metavar="OUT", help="masks.zarr, a URL, or icechunk:...")
    predict.add_model_arguments(parser)
    store.add_arguments(parser)
    predict.add_volume(parser)


@store.resumable
def run(args: Namespace) -> int:
    """Run it."""
    asked = predict.model_options(args)
    source.check_date(args, args.paths)
    store.options(args)  # what is wrong is said before anything is opened
    predict.keep_cache_small()
    from xcloudmask.streaming import stream

    scenes = in_order([open_dated(args, path) for path in args.paths], args.paths)
    with store.connected(args):
        reports = []
        for number, scene in enumerate(scenes):
            options = store.options(args, *spatial_dims(scene))
            if number:  # the later ones are appended
                options |= {"overwrite": False, "resume": True}
            how = predict.keywords(asked)
            reports.append(stream(scene, args.out, predict=how, output=asked.output, **options))
    return store.finish(args, reports)


def open_dated(args: Namespace, path: str) -> xr.DataArray:
    """Open a scene; one without a time gets that of its name."""
    from xcloudmask.local.dates import date_in_name

    scene, file = source.open_scene(args, path), Path(path)
    named = date_in_name(file.name)
    if named is None or "time" in scene.dims or "time" in scene.coords:
        return scene
    return describe_times(
        scene.expand_dims("time"), [named], [file.stem], [scene.attrs.get("sensor", "unknown")]
    )


def in_order(scenes: list[xr.DataArray], paths: list[str]) -> list[xr.DataArray]:
    """Sort scenes by time, as they are stored; several must have one."""
    if len(scenes) == 1:
        return scenes
    for scene, path in zip(scenes, paths, strict=True):
        if "time" not in scene.dims or "time" not in scene.coords or np.isnat(scene.time.values).any():
            raise UsageError(
                f"{path} does not tell its date, so it cannot be one of several: write one into its name "
                "(2020-06-15.tif), or give each a store or a --group of its own"
            )
    return sorted(scenes, key=lambda scene: scene.time.values[0])
