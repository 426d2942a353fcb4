"""The scores that cards of bundled models tell: written from the counts that are in the repository.

``examples/train/score_models.py --table`` writes ``models/data/scored.json`` together with docs/scores.md.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from xcloudmask.types import Level

FILE = Path(__file__).parents[1] / "data" / "scored.json"


@cache
def _scored() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def scores(family: str, level: Level | None) -> str:
    """Return how well a model does at a level, on what, and whether it had seen that; empty if unknown.

    Examples
    --------
    >>> scores("ukis-6band", "boa")
    'None at this level: no labelled scene with its bands was at hand'
    >>> scores("mine", None)
    ''
    """
    if family not in _scored():
        return ""
    entries = [entry for entry in _scored()[family] if level in (None, entry["level"])]
    if not entries:
        return "None at this level: no labelled scene with its bands was at hand"
    head = "Balanced accuracy of cloud [95 % over scenes], and accuracy in the worst scene. "
    return head + "; ".join(f"{entry['on']}: {entry['score']} ({entry['seen']})" for entry in entries)
