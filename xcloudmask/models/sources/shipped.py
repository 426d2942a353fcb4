"""Models whose weights lie in this package: ``models/data/NAME.safetensors`` with its card, ``NAME.json``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xcloudmask.models import card
from xcloudmask.models.sources import scored
from xcloudmask.models.weights.fetch import PACKAGE
from xcloudmask.types import ModelSpec

FOLDER = Path(__file__).parents[1] / "data"


def names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the models that lie in `folder`; nothing is read.

    Examples
    --------
    >>> names(Path("no such folder"))
    []
    """
    return sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".safetensors").exists())


@cache
def read(name: str, folder: Path = FOLDER) -> ModelSpec:
    """Return the card of a model that lies in `folder`."""
    origin = f"{name}.json"
    told = scored.scores(name, None) if folder == FOLDER else ""
    return card.from_json(
        (folder / origin).read_bytes(),
        origin,
        name=name,
        loader="xcloudmask.models.loading:network",
        weights=f"{PACKAGE}{name}.safetensors",
        **({"scores": told} if told else {}),
    )
