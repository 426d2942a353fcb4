"""What every benchmark needs: seconds, peak memory, the machine in words, tables and result files."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
PACKAGES = ("xcloudmask", "numpy", "dask", "xarray", "zarr", "onnxruntime", "torch", "ukis-csmask")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one measured piece of work took."""

    wall: float
    cpu: float  # seconds of all cores; hardly touched by what else the machine does


def clocked(work: Callable[[], object]) -> Spent:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def peak_mib() -> float:
    """Return the most memory this process has held at once (MiB).

    The high-water mark of its own address space: ru_maxrss may still tell of the process that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1024 * 1024 if sys.platform == "darwin" else 1024)


def in_child(script: str, case: str, arguments: dict[str, Any], limit: float = 900) -> dict[str, Any]:
    """Run ``script --child CASE JSON`` in a process of its own; return the JSON of its last line."""
    command = [sys.executable, script, "--child", case, json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} {arguments} failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def answered(asked: Sequence[str], cases: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """Do what `in_child` asks for, and print the answer."""
    case, words = asked
    print(json.dumps(cases[case](**json.loads(words))))


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def spread(values: Iterable[float]) -> float:
    """Return how far apart the largest and the smallest are, as a share of the median."""
    found = list(values)
    return (max(found) - min(found)) / statistics.median(found)


def load_average() -> float | None:
    """Return the machine's load over the last minute, where the system tells it."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        fields = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
        fields |= dict(line.split("\t\t: ", 1) for line in lines if "\t\t: " in line)
        words = [fields.get("model name", "").strip() or platform.machine()]
        if "model" in fields:
            words.append(f"(family {fields.get('cpu family', '?').strip()}, model {fields['model'].strip()})")
        return " ".join(words)
    except (OSError, ValueError):
        return platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no", "--", "../xcloudmask")
    return (commit or "unknown") + (" + changes in xcloudmask/" if changed else "")


def circumstances(code: str = "") -> dict[str, Any]:
    """Return when, on what and with what: no host names, no paths; `code` in the place of this commit."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": code or _commit(),
        "cpu": _cpu_model(),
        "cores": cores,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "load_average_at_start": load_average(),
    }


def in_words(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {found['versions'][k]}" for k in ("onnxruntime", "dask", "zarr"))
    return (
        f"{found['date']}, commit {found['commit']}\n"
        f"{found['cpu']}, {found['cores']} cores, {found['memory_gib']} GiB, "
        f"load {found['load_average_at_start']}\n"
        f"Python {found['python']}, {versions}"
    )


#: Arguments that several benchmarks have.
USUAL: dict[str, dict[str, Any]] = {
    "data": {"type": Path, "help": "the folder of patches"},
    "quick": {"action": "store_true", "help": "small, in seconds: shows that it works"},
    "table": {
        "nargs": "?", "const": "text", "choices": ("text", "markdown"),
        "help": "print the result file, measure nothing; as markdown: of those that keep their runs",
    },
    "out": {"type": Path, "help": "the result file"},
    "child": {"nargs": 2, "help": argparse.SUPPRESS},
}  # fmt: skip


def arguments(doc: str | None, *usual: str, out: str = "", **more: dict[str, Any]) -> argparse.Namespace:
    """Read a benchmark's arguments: some of `USUAL`, and `more` of its own; `out` is where results go."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, how in {**{name: USUAL[name] for name in usual}, **more}.items():
        parser.add_argument(f"--{name}", **how)
    if out:
        parser.add_argument("--out", default=RESULTS / out, **USUAL["out"])
    return parser.parse_args()


def on_patches(doc: str | None, out: str, **more: dict[str, Any]) -> argparse.Namespace:
    """Read the arguments of a benchmark on labelled patches, `more` of its own."""
    args = arguments(doc, "data", "table", out=out, **more)
    if args.data is None and not args.table:
        sys.exit("say --data FOLDER, or --table")
    return args


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as a table of at most 80 columns, if its cells allow it."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[k]) for line in cells) for k in range(len(head))]
    lines = []
    for line in cells:
        first, *rest = (
            text.ljust(width) if k == 0 else text.rjust(width)
            for k, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        lines.append("  ".join([first, *rest]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return str(value)


def runs_in(path: Path) -> list[dict[str, Any]]:
    """Return what a result file holds by date and machine, oldest first."""
    runs: list[dict[str, Any]] = json.loads(path.read_text())["runs"] if path.exists() else []
    return runs


def shown(run: dict[str, Any], form: str = "text") -> str:
    """Return a run as text: what was measured, its table, when and on what."""
    body = table(run["head"], run["rows"])
    if form == "markdown":
        lines = [run["head"], ["---", *["---:"] * (len(run["head"]) - 1)], *run["rows"]]
        body = "\n".join(["", *("| " + " | ".join(map(_cell, line)) + " |" for line in lines), ""])
    parts = [run["title"], body, *filter(None, [run.get("note")])]
    return "\n".join([*parts, f"Measured {in_words(run['circumstances'])}"])


def print_runs(path: Path, form: str) -> None:
    """Print what a result file holds, as text or markdown."""
    print("\n\n".join(shown(run, form) for run in runs_in(path)))


def keep(path: Path | None, run: dict[str, Any]) -> None:
    """Print a run, and add it to a result file at once: what is cut off later takes nothing with it.

    A run is its section, title, circumstances, head, rows and figures: numbers by name, whose history
    ``python -m benchmarks history`` draws.
    """
    run["circumstances"]["load_average_at_end"] = load_average()
    print(f"\n{shown(run)}", flush=True)
    if path is not None:
        save(path, {"runs": [*runs_in(path), run]})


def save(path: Path, found: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
