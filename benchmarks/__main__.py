"""The benchmarks there are, one after the other, each in a process of its own.

    python -m benchmarks                  # those that need no data: an hour on two idle cores
    python -m benchmarks --quick          # only that they run: what is printed means nothing
    python -m benchmarks --data FOLDER    # those that compare masks with labels, too
    python -m benchmarks windows --table  # any of them, with its own options
    python -m benchmarks history          # a chart of what was measured by date, results/history.svg

`peers` installs the peers into an environment of their own.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: What those need that run one after the other: options of a quick run (None: has none), a folder of patches.
SCRIPTS = {
    "overhead": (["--quick"], False), "engine": (["--quick"], False),
    "scale": (["--quick"], False), "peers": (["--quick"], False), "dates": (["--quick"], False),
    "timeaccess": (None, False), "shadow": (None, True), "choices": (None, True), "windows": (None, True),
    "imitation": (None, True), "default": (None, True), "precision": (None, True), "history": (None, False),
}  # fmt: skip


def main(words: list[str]) -> int:
    if words and (HERE / f"{words[0]}.py").is_file():
        return run(words[0], words[1:])
    quick, data = "--quick" in words, words[words.index("--data") + 1 :][:1] if "--data" in words else []
    if set(words) - {"--quick", "--data", *data}:
        print(__doc__, file=sys.stderr)
        return 2
    failed = []
    for name, (short, wants_data) in SCRIPTS.items():
        if (quick and short is None) or (wants_data and not data):
            continue
        extra = [*(short or [] if quick else []), *(["--data", *data] if wants_data else [])]
        print(f"\n== {name} {' '.join(extra)}", flush=True)
        if run(name, extra):
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


def run(name: str, words: list[str]) -> int:
    return subprocess.run([sys.executable, str(HERE / f"{name}.py"), *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
