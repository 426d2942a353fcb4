"""Exceptions come back whole from another process, as Dask's workers send them."""

import doctest
import inspect
import pickle
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from xcloudmask import errors
from xcloudmask.accessor import CloudMask, DataArrayAccessor
from xcloudmask.cli.flags import in_flags
from xcloudmask.errors import (
    CloudMaskError,
    OptionError,
    Remedy,
    StoreError,
    UnitWarning,
    Use,
    names_checked,
    warn_user,
)
from xcloudmask.predict.options import PredictOptions

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


MISSPELT: dict[str, Callable[[Any], object]] = {
    "predict(treshold=)": lambda da: da.cloudmask.predict(treshold=0.5),
    "to_zarr(overview=)": lambda da: da.cloudmask.to_zarr("x", overview=True),
    "open(resoluton=)": lambda da: xcloudmask.open("x", resoluton=10),  # type: ignore[call-arg]
    "load_stac(resoluton=)": lambda da: xcloudmask.load_stac([], resoluton=10),  # type: ignore[call-arg]
    "clean(sieev=)": lambda da: da[0].cloudmask.clean(sieev=2),
    "composite(metod=)": lambda da: da.cloudmask.composite(da, metod="best"),
    "apply(bufer=) of a dataset": lambda da: da.to_dataset("band").cloudmask.apply(da, bufer=1),
    "sync(predct=)": lambda da: xcloudmask.sync([], "x", predct={}),  # type: ignore[call-arg]
    "fine_tune(epoch=)": lambda da: xcloudmask.train.fine_tune("a", "b", "c", epoch=1),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("call", MISSPELT)
def test_a_misspelt_option_is_told_the_nearest(call: str) -> None:
    da = xr.DataArray(np.zeros((2, 4, 4), "u1"), dims=("band", "y", "x"))
    da = da.assign_attrs(flag_values=[0, 1], flag_meanings="clear cloud")
    name = call[call.index("(") + 1 : call.index("=")]
    with pytest.raises(OptionError, match=f"'{name}'; did you mean '.*'") as told:
        MISSPELT[call](da)
    assert told.value.allowed


def test_what_is_checked_shows_its_own_signature_and_travels() -> None:
    for function in (xcloudmask.open, xcloudmask.load_stac, DataArrayAccessor.apply, CloudMask.predict):
        own = inspect.signature(function.__wrapped__)  # type: ignore[attr-defined]
        assert inspect.signature(function) == own
        assert list(own.parameters)[1:]
    assert pickle.loads(pickle.dumps(xcloudmask.load_stac)) is xcloudmask.load_stac
    found = doctest.DocTestFinder().find(sys.modules[xcloudmask.open_masks.__module__])
    assert [test.name for test in found if test.examples] == ["xcloudmask.archive.record.open_masks"]


MASK = xr.DataArray(np.zeros((4, 4), "u1"), dims=("y", "x"), name="cloud_mask").assign_attrs(
    flag_values=[0, 1], flag_meanings="clear cloud"
)
RED = {
    "href": "a.tif", "eo:bands": [{"name": "red", "common_name": "red"}], "proj:shape": [3, 4],
    "proj:transform": [10, 0, 600000, 0, -10, 4900020],
    "raster:bands": [{"scale": 1e-4, "offset": -0.1, "nodata": 0}],
}  # fmt: skip
ITEM: dict[str, Any] = {
    "type": "Feature", "id": "a", "assets": {"red": RED},
    "properties": {"datetime": "2026-05-01T10:00:00Z", "platform": "sentinel-2a", "processing:level": "L2A"},
}  # fmt: skip


def loaded(**changed: Any) -> object:
    """Load the item with other properties, or with other entries of its asset."""
    return xcloudmask.load_stac([{**ITEM, **changed}])


ODD: dict[str, Callable[[], object]] = {
    "mask of time_rules 5.*Give DataArray": lambda: MASK.cloudmask.time_rules(5),
    "da of decode 'x'": lambda: xcloudmask.masks.decode("x"),  # type: ignore[arg-type]
    "margin 'no'": lambda: xcloudmask.masks.decode(MASK, "scl", margin="no"),  # type: ignore[arg-type]
    "threshold True": lambda: xcloudmask.masks.decode(MASK, "cldprb", threshold=True),
    "a mask holds numbers": lambda: MASK.astype(str).cloudmask.clean(buffer=1),
    "unknown series of continuity None. Give DataArray or Dataset.": lambda: xcloudmask.continuity(None, []),  # type: ignore[arg-type]
    "view .95": lambda: MASK.cloudmask.cast_shadow(MASK, sun=(50, 100), view=(95, 400)),
    "view 'x'": lambda: MASK.cloudmask.cast_shadow(MASK, sun=(50, 100), view="x"),
    "unknown post 5": lambda: PredictOptions(post=5),  # type: ignore[arg-type]
    "unknown group": lambda: MASK.cloudmask.to_zarr("x", group="a/../b"),
    "unknown chunks 1.5": lambda: MASK.cloudmask.to_zarr("x", chunks=1.5),
    "encoding dtype 'x'": lambda: MASK.cloudmask.to_zarr("x", encoding={"dtype": "x"}),
    "unknown store ''": lambda: MASK.cloudmask.to_zarr(""),
    "path of to_geotiff 5": lambda: MASK.cloudmask.to_geotiff(5),
    "href of to_stac 5": lambda: MASK.cloudmask.to_stac(5),
    "modifier of load_stac 'x'": lambda: xcloudmask.load_stac([ITEM], modifier="x"),  # type: ignore[arg-type]
    "its id must be a text": lambda: loaded(id=["x"]),
    "its properties a mapping": lambda: loaded(properties=5),
    "'a' is not understood.*'x'": lambda: loaded(properties={**ITEM["properties"], "proj:epsg": "x"}),
    "'a' is not understood.*leave it out; else": lambda: loaded(assets={"red": {**RED, "raster:bands": 5}}),
}


@pytest.mark.parametrize("says", ODD)
def test_what_nobody_can_mean_is_told_by_name(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CloudMaskError, match=says):
        ODD[says]()
    assert not list(tmp_path.iterdir())


def test_an_error_within_a_call_is_not_laid_to_its_arguments() -> None:
    @names_checked
    def called(
        then: "Callable[[], object]",
        group: "str | None" = None,
        way: "Callable[[], int] | Sequence[int]" = (),
    ) -> object:
        return then()

    def broken() -> object:
        raise AttributeError("of the callback")

    with pytest.raises(AttributeError, match=r"^of the callback$"):
        called(broken, Path("x"), [1])  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"then of called 5\. Give Callable"):
        called(5)  # type: ignore[arg-type]

    def fails(item: object) -> object:
        raise TypeError("of my own")

    with pytest.raises(TypeError, match=r"^of my own$"):
        xcloudmask.load_stac([ITEM], modifier=fails)
