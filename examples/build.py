"""Make notebooks from their percent-format sources, execute them, and write the pictures of README and cards.

python examples/build.py                    all of them (needs nbclient and ipykernel)
python examples/build.py cleaning pictures  one notebook, and the pictures
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
    """Return outputs with runs of printed text as one: where they are cut depends on timing.

    Bars that came and went, where the machine was slow, are left out.
    """
    found: list[Any] = []
    for output in outputs:
        if output.get("data") == {"text/plain": ""}:
            continue
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


def failures(name: str, path: Path, dpi: int = 72) -> None:
    """Write the picture of a model's card: a clear coast, where every cloud is a false alarm, and haze."""
    import warnings

    import matplotlib.pyplot as plt

    from xcloudmask.cli import demo
    from xcloudmask.errors import ModelWarning

    coast, haze = (demo.scene(each).isel(time=0).compute() for each in ("sentinel-2", "landsat-8"))
    coast = coast.coarsen(y=3, x=3, boundary="trim").mean(keep_attrs=True).rio.write_crs(coast.rio.crs)
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
    for scene, (left, right) in zip((coast, haze), axes.reshape(2, 2), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ModelWarning)
            mask = scene.cloudmask.predict(name)
        clear = float(mask.cloudmask.clear_fraction())
        scene.cloudmask.plot(ax=left)
        mask.cloudmask.plot(ax=right)
        left.set_title("clear coast" if scene is coast else "clouds and haze", loc="left")
        right.set_title(f"{name}: {clear:.1%} clear", loc="left")
    for ax in axes:
        ax.set(xticks=[], yticks=[], xlabel="", ylabel="")
    figure.savefig(path, dpi=dpi)
    plt.close(figure)
    path.write_bytes(smaller(path.read_bytes()))


def main(names: list[str]) -> None:
    """Build the notebooks of these names, or all of them, and the pictures."""
    import nbformat

    for path in sorted(HERE.glob("*.py")):
        if path.stem != "build" and (not names or path.stem in names):
            with tempfile.TemporaryDirectory() as folder:
                book = execute(notebook(path.read_text(encoding="utf-8")), folder)
            nbformat.write(book, path.with_suffix(".ipynb"))
            print(f"{path.stem}.ipynb: {path.with_suffix('.ipynb').stat().st_size / 1000:.0f} kB")
    if not names or "pictures" in names:
        import matplotlib as mpl

        mpl.use("Agg")
        picture(HERE / "demo.png")
        for name in ("ukis-4band-l1c", "ukis-6band-l1c", "ukis-any-l1c", "sensei", "spectral"):
            failures(name, HERE.parent / "docs" / "cards" / f"{name}.png")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
