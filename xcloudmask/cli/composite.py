"""Make one picture of the clear views of many dates, or one for each period.

Each scene tells its date, in its metadata or its name (2020-06-15.tif), and all lie on one grid. They are
masked as predict would, or --mask names a store of their masks. Written is reflectance, NaN where no view was
clear.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import xarray as xr

from xcloudmask.cli import predict, source, stream, written
from xcloudmask.cli.parse import Parser, UsageError
from xcloudmask.cli.text import paragraph, print_facts
from xcloudmask.errors import CloudMaskError
from xcloudmask.predict.prepare import predict as mask_scene

EXAMPLES = """examples:
  xcloudmask composite 2026-0*.tif summer.tif --sensor landsat-8 --level L2
  xcloudmask composite 2026-*.tif months.zarr --by month --method medoid
  xcloudmask composite 2026-*.tif clear.tif --mask masks.zarr"""


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.usage = f"{parser.prog} [options] IN... OUT"
    parser.epilog = EXAMPLES
    source.add_arguments(parser, several=True)
    parser.add_argument("out", metavar="OUT", help="picture.tif, or pictures.zarr for several periods")
    parser.add_argument("--method", metavar="M", default="median", help="median, medoid, best or latest")
    parser.add_argument("--by", metavar="P", help="day, week, month, season, year, or a length such as 10D")
    parser.add_argument(
        "--min-clear", metavar="X", type=float, help="clear share that a date must have, 0 to 1"
    )
    parser.add_argument("--mask", metavar="STORE", help="masks of the same dates, as stream writes them")
    predict.add_model_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    predict.add_volume(parser)


def run(args: Namespace) -> int:
    """Open, mask, compose, write."""
    from xcloudmask.masks.write import check_output

    asked = predict.model_options(args)
    if asked.output != "classes":
        raise UsageError("--proba: a composite asks masks for classes; leave it out")
    out = check_output(args.out, overwrite=args.overwrite)
    source.check_date(args, args.paths)
    predict.keep_cache_small()
    scenes = stream.in_order([stream.open_dated(args, path) for path in args.paths], args.paths)
    try:
        scene = xr.concat(scenes, "time", join="exact")
    except ValueError as error:
        raise CloudMaskError(
            "the scenes lie on different grids", "Bring them to one: load_stac does"
        ) from error
    if args.mask is None:
        mask = mask_scene(scene, asked)
    elif (stored := written.find_mask(Path(args.mask).expanduser())) is not None:
        mask = _of_dates(stored, scene.time, args.mask)
    else:
        raise CloudMaskError(f"{args.mask} holds no mask", "Name what stream wrote")
    if "scale" in scene.coords:
        scene = scene.astype("f4") * scene.scale.astype("f4") + scene.offset.astype("f4")
    pictures = scene.cloudmask.composite(mask, args.method, by=args.by, min_clear=args.min_clear)
    if "time" in pictures.dims and pictures.sizes["time"] > 1 and out.suffix.lower() != ".zarr":
        raise UsageError(f"{pictures.sizes['time']} periods go into a .zarr: name OUT so, or leave --by out")
    _write(pictures, out)
    line = f"{out}: {args.method} of {scene.sizes['time']} dates"
    facts = {"path": out, "method": args.method, "dates": scene.time, "sizes": dict(pictures.sizes)}
    print_facts(args, facts, paragraph(line), quiet=args.quiet)
    return 0


def _of_dates(stored: xr.DataArray, time: xr.DataArray, store: str) -> xr.DataArray:
    """Return the masks of these dates."""
    if "time" not in stored.dims:
        raise CloudMaskError(f"{store} holds a mask without dates", "Name what stream wrote of these scenes")
    missing = sorted({str(date)[:19] for date in time.values[~time.isin(stored.time).values]})
    if missing:
        raise CloudMaskError(
            f"{store} holds no mask of {', '.join(missing)}", "Mask these scenes, too, or leave them out"
        )
    return stored.sel(time=time)


def _write(pictures: xr.DataArray, out: Path) -> None:
    """Write them, whole or not at all."""
    from xcloudmask.store.atomic import beside, install

    crs = pictures.rio.crs
    others = [name for name in pictures.coords if name not in pictures.dims]
    pictures = pictures.drop_vars(others).rename("reflectance").drop_attrs()
    pictures = pictures if crs is None else pictures.rio.write_crs(crs)
    with beside(out) as work:
        target: Any = work / out.name
        if out.suffix.lower() == ".zarr":
            pictures.to_dataset().to_zarr(target, consolidated=False)
        else:
            picture = pictures.squeeze("time", drop=True) if "time" in pictures.dims else pictures
            labels = [str(name) for name in picture["band"].values]
            picture = picture.assign_attrs(long_name=labels).rio.write_nodata(float("nan"))
            picture.rio.to_raster(target, driver="COG", compress="deflate")
        install(work, out)
