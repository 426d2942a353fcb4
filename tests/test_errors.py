"""Exceptions come back whole from another process, as Dask's workers send them."""

import inspect
import pickle
from typing import Any

import pytest

from xcloudmask import errors
from xcloudmask.cli.flags import in_flags
from xcloudmask.errors import CloudMaskError, OptionError, Remedy, StoreError, UnitWarning, Use, warn_user

TOLD: list[BaseException] = [
    kind("nothing at /a/b: mount it", *rest)
    for module in (errors,)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, BaseException) and kind is not OptionError
    for rest in ((), ("more",))
] + [
    OptionError("colour", "gren"),
    OptionError("colour", "gren", allowed=["green", "blue"]),
    OptionError("colour", 7, allowed=(8, 9), hint="Say a number."),
]


def state(error: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(error).items() if name != "__notes__"}


@pytest.mark.parametrize("error", TOLD, ids=repr)
def test_an_exception_survives_the_way_from_a_worker(error: BaseException) -> None:
    error.add_note("in chunk (3, 4)")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    assert state(again) == state(error)
    assert again.__notes__ == ["in chunk (3, 4)"]
    assert pickle.loads(pickle.dumps(again)).args == error.args


def test_the_list_is_complete() -> None:
    kinds = {type(error) for error in TOLD}
    assert {errors.AssetError, errors.BandError, OptionError, errors.StoreError} <= kinds
    assert len(kinds) >= 12


#: The same error in Python's words and in those of the command line.
WORDED: list[tuple[CloudMaskError, str, str]] = [
    (
        CloudMaskError(": too small", "Leave it out", option=Use(patch_size=16)),
        "patch_size=16: too small. Leave it out",
        "--patch-size 16: too small. Leave it out",
    ),
    (
        StoreError("there is a mask:", Remedy("pass {}, or another {}", Use(overwrite=True), Use(group=...))),
        "there is a mask: pass overwrite=True, or another group=",
        "there is a mask: pass --overwrite, or another --group",
    ),
    (
        CloudMaskError(
            "what is it", Remedy("Say {}", Use("da.cloudmask.describe", level="L1C", bands=[...]))
        ),
        "what is it. Say da.cloudmask.describe(level='L1C', bands=[...])",
        "what is it. Say --level L1C --bands a,b,c",
    ),
    (
        CloudMaskError("it needs heights:", Remedy("{}", Use(aux={"elevation": ..., "vv": ...}))),
        "it needs heights: aux={'elevation': ..., 'vv': ...}",
        "it needs heights: --aux elevation=FILE --aux vv=FILE",
    ),
]


@pytest.mark.parametrize(("error", "python", "shell"), WORDED)
def test_each_surface_words_the_remedy_its_own_way(error: CloudMaskError, python: str, shell: str) -> None:
    assert str(error) == python
    assert in_flags(error) == shell
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), in_flags(again), again.remedy) == (python, shell, error.remedy)


def test_a_remedy_is_data() -> None:
    error = WORDED[1][0]
    assert isinstance(error.remedy, Remedy)
    assert [use.options for use in error.remedy.uses] == [{"overwrite": True}, {"group": ...}]
    assert error.problem == "there is a mask:"
    assert CloudMaskError("nothing to do").remedy is None


def test_warnings_are_worded_too() -> None:
    with pytest.warns(UnitWarning, match="^it is odd. Say level='L1C'$") as caught:
        warn_user("it is odd", UnitWarning, Remedy("Say {}", Use(level="L1C")))
    assert in_flags(caught[0].message) == "it is odd. Say --level L1C"
