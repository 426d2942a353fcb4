"""What had to be assumed of items, gathered so that a thousand items give one warning and not a thousand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xcloudmask.errors import UnitWarning, warn_user

#: Items that a message names before it only counts.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Assumption:
    """Something that was assumed of an item."""

    reason: str  # what was assumed and why: the same words for every item of which it is true
    evidence: str  # what this item says
    remedy: str  # what settles it


def name_items(ids: Sequence[str]) -> str:
    """Return how a message calls items: by name, and beyond the first few by their number.

    Examples
    --------
    >>> name_items(["a"]), name_items(["a", "b"]), name_items(list("abcdef"))
    ("item 'a'", "2 items ('a', 'b')", "6 items ('a', 'b', 'c', ...)")
    """
    if len(ids) == 1:
        return f"item {ids[0]!r}"
    named = ", ".join(repr(name) for name in ids[:_NAMED])
    return f"{len(ids):,} items ({named}{', ...' if len(ids) > _NAMED else ''})"


def warn_about(assumptions: Iterable[tuple[str, Assumption]]) -> None:
    """Warn of assumptions, each with the name of its item: once for all items of one reason and remedy."""
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for item_id, assumption in assumptions:
        evidence = groups.setdefault((assumption.reason, assumption.remedy), {})
        evidence.setdefault(item_id, assumption.evidence)
    for (reason, remedy), evidence in groups.items():
        who = "The item" if len(evidence) == 1 else "The first"
        warn_user(
            f"{name_items(list(evidence))}: {reason}. {who} says: {next(iter(evidence.values()))}. {remedy}",
            UnitWarning,
        )
