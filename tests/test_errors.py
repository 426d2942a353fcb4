"""Exceptions come back whole from another process, as Dask's workers send them."""

import inspect
import pickle
from typing import Any

import pytest

from xcloudmask import errors
from xcloudmask.errors import OptionError

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
