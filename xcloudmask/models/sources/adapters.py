"""Networks that other packages carry, run by our engine: same tiling, same no-data rules, on Dask.

Their cards are entry points of the group ``xcloudmask.models``, so they are listed whether or not the
package is there; asked to run without it, they say how to install it. From s2cloudless and sentle nothing
but a file is read, whose hash is compared. omnicloudmask fetches its own weights, by its own code.
"""

from __future__ import annotations

import io
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xcloudmask.errors import WeightsError
from xcloudmask.models import loading
from xcloudmask.models.network import Network, carried
from xcloudmask.models.published.omnicloudmask import SHARED
from xcloudmask.models.weights import fetch
from xcloudmask.types import ModelSpec

if TYPE_CHECKING:
    import torch

S2CLOUDLESS = ModelSpec(
    name="s2cloudless",
    version="1.7",
    bands=(
        "coastal", "blue", "red", "rededge071", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22",
    ),
    classes=("clear", "cloud"),
    loader="xcloudmask.models.sources.adapters:s2cloudless",
    level="toa",
    patch=256,
    overlap=0,
    sha256="0f92b6822cc0ad42982f55bab9b1688329e119451ad9a9e0a56384b9f37bc61d",
    weights="s2cloudless/models/pixel_s2_cloud_detector_lightGBM_v0.1.txt",
    licence="CC-BY-SA-4.0",
    citation="Zupanc (2017), Improving cloud detection with machine learning; Sentinel Hub's cloud detector",
    description="gradient-boosted trees on each pixel of ten Sentinel-2 bands",
    activation="complement",
    threshold=0.4,
    limits="pixels alone: the package's own averaging and dilation are left to post-processing; CPU only",
)  # fmt: skip

CLOUDSEN12 = ModelSpec(
    name="cloudsen12",
    version="sentle",
    bands=(
        "coastal", "blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "nir09",
        "swir16", "swir22",
    ),
    classes=("clear", "thick_cloud", "thin_cloud", "cloud_shadow"),
    loader="xcloudmask.models.sources.adapters:cloudsen12",
    level="boa",
    gsd=(10.0, 10.0),
    patch=512,
    overlap=64,
    sha256="3bd7e691020d6231309bc17665fedfebffcf08cb1fb4906c3ac905f080be2aee",
    weights="sentle/data/cloudmodel.pt",
    licence="MIT (package sentle); CC0-1.0 (CloudSEN12)",
    citation="Aybar et al. (2022), CloudSEN12, doi:10.1038/s41597-022-01878-2; package sentle (Mosig)",
    description="U-Net of CloudSEN12 on twelve Sentinel-2 L2A bands, as the package sentle carries it",
)  # fmt: skip

OMNICLOUDMASK = ModelSpec(
    name="omnicloudmask",
    version="4",
    loader="xcloudmask.models.sources.adapters:omnicloudmask",
    activation=None,
    **SHARED,
    description="two U-Nets (RegNetY-004, EdgeNeXt-small) on red, green and NIR, each scaled by its window",
    limits="the package fetches its weights itself and publishes no hash: they are not checked; "
    "probabilities of windows are blended where it blends logits",
)


def s2cloudless(spec: ModelSpec) -> Network:
    """Load the trees that the package s2cloudless carries."""
    import torch

    data, _ = carried(spec, "pip install s2cloudless")
    if find_spec("lightgbm") is None:
        raise WeightsError(f"model {spec.name!r} needs the package lightgbm: pip install lightgbm")
    from lightgbm import Booster

    trees = Booster(model_str=data.decode())

    class Trees(torch.nn.Module):
        """Trees on each pixel."""

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            n, bands, rows, cols = pixels.shape
            table = pixels.permute(0, 2, 3, 1).reshape(-1, bands).double().cpu().numpy()
            cloud = np.asarray(trees.predict(table, num_threads=torch.get_num_threads()), np.float32)
            return torch.from_numpy(cloud).reshape(n, 1, rows, cols).to(pixels.device)

    return Network(Trees(), activation=spec.activation)


def cloudsen12(spec: ModelSpec) -> Network:
    """Load the TorchScript that the package sentle carries; its bytes are those of the hash in the card."""
    import torch

    data, _ = carried(spec, "pip install sentle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is on its way out of torch
        network = torch.jit.load(io.BytesIO(data), map_location="cpu")  # type: ignore[no-untyped-call]
    return Network(_in_multiples(network))


def omnicloudmask(spec: ModelSpec) -> Network:
    """Build omnicloudmask's networks from the files that it fetches; none of its networks' code runs."""
    try:
        from omnicloudmask.download_models import (  # type: ignore[import-not-found,unused-ignore]
            get_model_data_dir,
            get_models,
        )
    except Exception as error:  # whatever another package does as it is imported
        raise WeightsError(_why_not(spec, error)) from error
    if fetch.offline() and not list(Path(get_model_data_dir()).glob("*")):
        raise WeightsError(
            "XCLOUDMASK_OFFLINE is set and the package omnicloudmask has not fetched the weights of "
            f"{spec.name!r}: unset it once"
        )
    files = [Path(network["Path"]) for network in get_models(model_version=float(spec.version))]
    return Network(activation=None, members=tuple(map(_omnicloudmask, files)), reduce="mean-logits")


def _omnicloudmask(path: Path) -> Network:
    """Return one of its networks, which are recognised as any published one is."""
    try:
        return loading.network(loading.make(str(path), {}))
    except WeightsError as error:
        raise WeightsError(f"{path} is none of the two networks of OmniCloudMask 4: {error}") from error


def _why_not(spec: ModelSpec, error: Exception) -> str:
    """Return why the package omnicloudmask cannot be imported, and what to do."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "omnicloudmask":
        return f"model {spec.name!r} needs the package omnicloudmask: pip install omnicloudmask"
    message = f"model {spec.name!r}: the package omnicloudmask cannot be imported: {error}"
    if "torchvision" in str(error):
        from torch import __version__

        message += (
            f". torchvision is absent or made for another torch than {__version__}, which is installed: "
            "install the torchvision that PyTorch's table of versions names beside it"
        )
    return message


def _in_multiples(network: Any, *, of: int = 32) -> torch.nn.Module:
    """Return a network that takes any size from one that takes sides of a multiple only."""
    import torch

    class InMultiples(torch.nn.Module):
        """Adds mirrored pixels below and to the right, and takes them off again."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            rows, cols = pixels.shape[-2:]
            pixels = torch.nn.functional.pad(pixels, (0, -cols % of, 0, -rows % of), mode="replicate")
            out: torch.Tensor = self.network(pixels)
            return out[..., :rows, :cols]

    return InMultiples()
