"""Scores as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from xcloudmask.cli.text import paragraph, table
from xcloudmask.metrics import Scores, Tally
from xcloudmask.metrics.scores import figure
from xcloudmask.metrics.tally import cross_table

#: Scores that the table shows, and their heads.
SHOWN = {
    "oa": "OA", "balanced_accuracy": "balanced acc.", "f1": "F1", "f2": "F2", "iou": "IoU", "kappa": "kappa",
}  # fmt: skip
#: Rows below the pooled scores of a question, where there are several scenes.
BELOW = {
    "low": "  95 % from", "high": "  95 % to", "mean": "  mean of scenes", "median": "  median scene",
    "worst": "  worst scene",
}  # fmt: skip
#: Scores shown, and their heads: balanced overall, user's and producer's accuracy, as CMIX has them.
AS_PAPERS = {
    "balanced_accuracy": "BOA", "precision": "UA", "recall": "PA", "iou": "IoU", "f1": "F1", "f2": "F2",
    "kappa": "kappa",
}  # fmt: skip


def table_of(scores: Scores, heads: Mapping[str, str] = SHOWN) -> str:
    """Return pooled scores, and where there are several scenes intervals, the median and the worst one."""
    rows = [["", "pixels", *heads.values()]]
    several = scores.scenes > 1
    for q, asked in enumerate(scores.questions):
        shown = {"pooled": asked, **(BELOW if several else {})}
        for statistic, label in shown.items():
            pixels = str(sum(scores.confusions[q].as_tuple()[:4])) if statistic == "pooled" else ""
            rows.append([label, pixels, *(figure(scores.get(asked, metric, statistic)) for metric in heads)])
    lines = _aligned(rows)
    if several:
        worst: dict[str, list[str]] = {}
        for asked, name in zip(scores.questions, scores.worst_scenes, strict=True):
            worst.setdefault(name or "none", []).append(asked)
        told = ", ".join(
            f"{name} ({', '.join(of)})" if worst.keys() - {name} else name for name, of in worst.items()
        )
        lines += "\n\n" + paragraph(f"Worst scene by OA: {told}")
    return lines


def confusion_of(tallies: Iterable[Tally]) -> str:
    """Return labels against answers, in percent of the pixels of each label."""
    rows, columns, counts = cross_table(tallies)
    lines = [["", "pixels", *(word.removesuffix("_cloud").replace("cloud_", "") for word in columns)]]
    for word, row in zip(rows, counts, strict=True):
        whole = row.sum()
        lines.append([word, f"{whole}", *(f"{100 * count / whole:.1f}" for count in row)])
    return _aligned(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose numbers, all but the first column, end below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return table([[row[0], *map(str.rjust, row[1:], widths[1:])] for row in rows])
