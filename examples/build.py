"""Make the notebook from its percent-format source, execute it, and write the picture for the README.

python examples/build.py            both, next to this file (needs nbclient and ipykernel)
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
#: Kernel metadata that says Python 3 and no more: no version, no machine.
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def cells(source: str) -> list[tuple[str, str]]:
    """Split percent-format source into (kind, text), kind being code or markdown."""
    found = []
    for part in re.split(r"(?m)^# %%", source)[1:]:
        head, _, body = part.partition("\n")
        body = body.strip("\n")
        if "[markdown]" in head:
            found.append(("markdown", re.sub(r"(?m)^# ?", "", body)))
        else:
            found.append(("code", body))
    return found


def notebook(source: str) -> Any:
    """Return percent-format source as a notebook that has not run; its ids are positions, always the same."""
    import nbformat

    make = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    book = nbformat.v4.new_notebook(metadata=METADATA)
    book.cells = [make[kind](text, id=f"cell-{i}") for i, (kind, text) in enumerate(cells(source))]
    return book


def execute(book: Any, folder: str | Path) -> Any:
    """Run a notebook in `folder`; pictures are small, and outputs name no place on this machine."""
    from nbclient import NotebookClient

    os.environ["IPYTHONDIR"] = str(Path(folder, ".ipython"))  # nothing of the user's own settings
    setup = "%matplotlib inline\n%config InlineBackend.print_figure_kwargs = {'bbox_inches': None}"
    book.cells.insert(0, notebook(f"# %%\n{setup}").cells[0])
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    del book.cells[0]
    book.metadata = METADATA
    for count, cell in enumerate((c for c in book.cells if c.cell_type == "code"), 1):
        cell.metadata = {}
        cell.execution_count = count
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
            if "image/png" in output.get("data", {}):
                output["data"]["image/png"] = smaller_base64(output["data"]["image/png"])
    return book


def joined(outputs: list[Any]) -> list[Any]:
    """Return outputs with runs of printed text as one: where they are cut depends on timing."""
    found: list[Any] = []
    for output in outputs:
        if found and output.output_type == "stream" and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def smaller(png: bytes, colours: int = 200) -> bytes:
    """Return a PNG with a palette, a third of the size; the legend's colours are kept exactly."""
    import numpy as np
    from matplotlib.colors import to_rgb
    from PIL import Image

    from xcloudmask.classes import COLOURS

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    chosen = picture.quantize(colours, method=Image.Quantize.MAXCOVERAGE, kmeans=3).getpalette() or []
    legend = [round(255 * part) for colour in (*COLOURS.values(), "w", "k") for part in to_rgb(colour)]
    kept = list(legend)  # none that Pillow, which looks for the nearest roughly, may take for the legend's
    ours, others = (np.reshape(colours_of, (-1, 3)) for colours_of in (legend, chosen[: 3 * colours]))
    for colour in others:
        kept += colour.tolist() if (abs(ours - colour).max(axis=1) > 8).all() else []
    palette = Image.new("P", (1, 1))
    palette.putpalette(kept)
    out = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def smaller_base64(text: str) -> str:
    """Do the same to a picture within a notebook."""
    import base64

    return base64.b64encode(smaller(base64.b64decode(text), colours=120)).decode()


def picture(path: Path, dpi: int = 82) -> None:
    """Write the README's picture: where the clouds of the demo's Landsat clip end, and the mask."""
    from xcloudmask.cli import demo

    data, part = demo.scene("landsat-8"), demo.CLIPS["landsat-8"].detail
    demo.draw(data.isel(part), data.cloudmask.predict().isel(part), path, dpi)
    path.write_bytes(smaller(path.read_bytes()))


def main() -> None:
    """Build both."""
    import nbformat

    source = (HERE / "quickstart.py").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        book = execute(notebook(source), folder)
    nbformat.write(book, HERE / "quickstart.ipynb")
    picture(HERE / "demo.png")
    for name in ("quickstart.ipynb", "demo.png"):
        print(f"{name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
