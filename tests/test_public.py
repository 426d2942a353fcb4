"""What completion, help() and the console show of the library."""

import importlib
import pydoc

import pytest

import xcloudmask
from xcloudmask import models

MODULES = ("", "errors", "local", "metrics", "models", "sensors", "stac", "streaming", "train")


@pytest.mark.parametrize("name", MODULES)
def test_completion_offers_what_is_public_and_it_is_there(name: str) -> None:
    module = importlib.import_module(f"xcloudmask.{name}".rstrip("."))
    offered = [word for word in dir(module) if word != "__version__"]
    assert offered
    assert not [word for word in offered if word.startswith("_") or not hasattr(module, word)]
    foreign = {"Any", "Mapping", "Sequence", "annotations", "import_module", "np", "sys", "warnings"}
    assert not foreign & set(offered)


def test_errors_are_offered() -> None:
    assert {"BandError", "CloudMaskError", "OptionError", "UnitWarning"} <= set(dir(xcloudmask.errors))


def test_help_begins_with_the_accessor() -> None:
    text = pydoc.plain(pydoc.render_doc(xcloudmask))
    assert "scene.cloudmask.predict()" in text[:800]
    assert text.index(".cloudmask.predict") < text.index("PACKAGE CONTENTS")


def test_a_card_reads_well_in_a_console_and_in_print() -> None:
    card = models.show("ukis-6band-l1c")
    assert isinstance(card, str)
    assert repr(card) == str(card)
    assert "\n" in repr(card)
