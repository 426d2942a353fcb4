"""xcloudmask models: what is not installed is said to be, and tables fit a terminal."""

import json
from importlib.metadata import EntryPoint

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models.smp_networks import NETWORKS, renamed
from xcloudmask import models
from xcloudmask.cli import main
from xcloudmask.models import registry
from xcloudmask.models.arch import build
from xcloudmask.models.sources import plugins, shipped, ukis
from xcloudmask.predict.choose_model import default_model


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """A terminal of 80 columns, and the models that come with this package alone."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(registry, "registered", {spec.name: spec for spec in ukis.SPECS})


@pytest.fixture
def without(monkeypatch):
    """Make packages look as if they were not installed."""

    def hide(*packages):
        found = plugins.find_spec
        monkeypatch.setattr(plugins, "find_spec", lambda name: None if name in packages else found(name))

    return hide


def told(capsys, *words):
    assert main(list(words)) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return out


def entry(text, name):
    """The lines of one model in the table."""
    lines = text.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(name + " "))
    stop = next(at for at in range(first + 1, len(lines)) if not lines[at].startswith(" "))
    return " ".join(" ".join(lines[first:stop]).split())


def test_what_is_not_installed_is_marked_with_the_line_that_installs_it(capsys, without):
    without("sentle", "omnicloudmask", "lightgbm", "ukis_csmask")
    text = told(capsys, "models")
    assert entry(text, "cloudsen12").endswith("not installed: pip install sentle")
    assert entry(text, "omnicloudmask").endswith("MIT not installed: pip install omnicloudmask")
    assert entry(text, "s2cloudless").endswith("not installed: pip install s2cloudless lightgbm")
    assert "not installed: pip install 'ukis-csmask" in entry(text, "ukis-4band-l1c")
    assert "not installed" not in entry(text, "spectral")
    assert "pip install sentle" in told(capsys, "models", "show", "cloudsen12")


def test_what_is_installed_is_not_marked(capsys, monkeypatch):
    monkeypatch.setattr(plugins, "find_spec", lambda name: object())
    assert "not installed" not in told(capsys, "models")
    assert "pip install" not in told(capsys, "models", "show", "omnicloudmask")


def test_a_broken_plug_in_hides_no_other(capsys, monkeypatch):
    found = {"broken": EntryPoint("broken", "no_such_package:SPEC", plugins.GROUP)}
    monkeypatch.setattr(plugins, "_found", lambda: found)
    plugins.read.cache_clear()
    text = told(capsys, "models")
    assert "cannot be read: model 'broken' comes from no_such_package:SPEC" in entry(text, "broken")
    assert "ukis-4band-l2a" in text
    plugins.read.cache_clear()


@pytest.mark.parametrize("name", [spec.name for spec in ukis.SPECS] + shipped.names() + plugins.names())
def test_every_card_fits_and_says_what_matters(capsys, name):
    text = told(capsys, "models", "show", name)
    spec = models.get(name)
    assert text.startswith(f"{spec.name} {spec.version}: ")
    for label in ("bands", "classes", "licence", "window", "weights"):
        assert f"\n  {label} " in text
    assert spec.sha256 in text  # on one line, so that it can be compared


def test_convert_takes_several_files(capsys, tmp_path):
    sources = []
    for name in ("Unet, tu-regnety_004", "Unet, tu-edgenext_small"):
        known = NETWORKS[name]
        theirs = renamed(build("unet", known.config).state_dict(), known.names)
        sources.append(str(tmp_path / f"{name[6:]}.safetensors"))
        save_file({f"{name[9:12]}.{key}": tensor for key, tensor in theirs.items()}, sources[-1])
    out = str(tmp_path / "out.safetensors")
    assert main(["models", "convert", *sources, out, "--keymap", "smp"]) == 0
    assert "716 tensors" in capsys.readouterr().out
    ours = {key.removeprefix("edg."): tensor for key, tensor in load_file(out).items() if key[0] == "e"}
    build("unet", {"encoder": "edgenext-small"}).load_state_dict(ours)
    assert main(["models", "convert", out]) == 2
    assert "xcloudmask models convert PATH OUT.safetensors" in capsys.readouterr().err


def test_convert_of_one_file_still_works(capsys, tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    assert main(["models", "convert", str(tmp_path / "a.pt"), str(tmp_path / "a.safetensors")]) == 0
    assert list(load_file(tmp_path / "a.safetensors")) == ["a"]


def test_the_default_is_marked_and_shown(capsys):
    name = default_model().name
    for word in ("auto", "default"):
        assert main(["models", "show", word, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["name"] == name
        shown = told(capsys, "models", "show", word)
        assert shown.startswith(f"{name} ")
        assert "The default for" in shown
    assert main(["models", "--json"]) == 0
    cards = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in cards if card.get("default")] == [name]
    listed = told(capsys, "models")
    assert "default for" in entry(listed, name)
    assert listed.count("default for") == 1


def test_the_name_of_two_levels_shows_both(capsys):
    assert main(["models", "show", "ukis-any", "--json"]) == 0
    assert [card["name"] for card in json.loads(capsys.readouterr().out)] == ["ukis-any-l1c", "ukis-any-l2a"]
    assert main(["models", "show", "ukis-any"]) == 0
    assert capsys.readouterr().out.strip() == models.show("ukis-any")
