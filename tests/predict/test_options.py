"""Options are declared once: signatures, command line, attributes, fingerprint and repr follow the fields."""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import xcloudmask
from tests.scenes import noise, scene
from xcloudmask import testing
from xcloudmask.accessor import CloudMask
from xcloudmask.archive.sync import sync
from xcloudmask.cli import predict as predict_command
from xcloudmask.cli import stac as stac_command
from xcloudmask.cli import store as store_command
from xcloudmask.cli.parse import Parser
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.predict import summary
from xcloudmask.predict.fields import OptionSet, about
from xcloudmask.predict.options import PredictOptions
from xcloudmask.predict.prepare import predict, prepare
from xcloudmask.stac import load_stac
from xcloudmask.stac.options import LoadOptions
from xcloudmask.store.options import WriteOptions
from xcloudmask.streaming import stream, to_zarr
from xcloudmask.streaming.api import plan_output
from xcloudmask.streaming.source import from_mask, from_reflectance


@dataclass(frozen=True, kw_only=True, eq=False)
class Sharpened(PredictOptions):
    """The options, and a new one: one field."""

    sharpness: float = field(default=0.5, metadata=about("how sharp edges are", "X"))


@pytest.fixture
def da() -> xr.DataArray:
    return scene(noise(2, 70, 60), ["red", "nir"])


def test_a_new_option_is_one_field(da: xr.DataArray) -> None:
    asked = Sharpened(model=testing.TOY, sharpness=0.7)
    mask = predict(da, asked)
    assert mask.attrs["sharpness"] == 0.7
    assert "sharpness" not in predict(da, Sharpened(model=testing.TOY)).attrs
    assert "sharpness 0.7" in summary._made_with(mask, Sharpened)
    assert plan_output(from_reflectance(da, asked), WriteOptions()).contract["sharpness"] == 0.7
    lazy = predict(da.chunk(), asked)
    assert plan_output(from_mask(lazy), WriteOptions()).contract["sharpness"] == 0.7
    parser = Parser("x")
    predict_command.add_model_arguments(parser, Sharpened)
    assert parser.parse_args(["--sharpness", "0.7"]).sharpness == 0.7
    assert "how sharp edges are" in parser.format_help()


SPELLED_OUT: dict[str, tuple[Callable[..., Any], type[OptionSet], set[str]]] = {
    "predict": (CloudMask.predict, PredictOptions, {"output", "uncertainty"}),
    "predict_proba": (CloudMask.predict_proba, PredictOptions, {"output", "threshold", "post"}),
    "to_zarr": (CloudMask.to_zarr, WriteOptions, set()),
    "load_stac": (load_stac, LoadOptions, set()),
    "streaming.to_zarr": (to_zarr, WriteOptions, set()),
}


@pytest.mark.parametrize("name", SPELLED_OUT)
def test_signatures_spell_the_fields_out(name: str) -> None:
    function, options, absent = SPELLED_OUT[name]
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", "store", "mask", "items_or_search")
    }
    if options is PredictOptions:  # what is shown of the call is no option of the mask
        assert found.pop("progress") == "auto"
    assert found == {o.name: o.default for o in options.fields() if o.name not in absent}


def sentences(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring of a function says of each of its parameters."""
    parameters = (inspect.getdoc(function) or "").partition("Parameters\n---")[2].partition("\n\n")[0]
    parts = re.split(r"^([\w, ]+?) : .*\n", parameters, flags=re.M)[1:]
    return {
        name: text for names, text in zip(parts[::2], parts[1::2], strict=True) for name in names.split(", ")
    }


@pytest.mark.parametrize("name", ["predict", "predict_proba", "to_zarr", "load_stac"])
def test_docstrings_tell_of_each_option(name: str) -> None:
    """A line with its type, and a sentence under it; those of predict_proba are told with predict."""
    function, options, absent = SPELLED_OUT[name]
    told = sentences(CloudMask.predict) | sentences(function) if "proba" in name else sentences(function)
    short = {option for option in options.names() if len(told.get(option, "").split()) < 3}
    assert short - absent == set()


def test_stream_shows_what_completion_offers() -> None:
    parameters = inspect.signature(stream).parameters
    assert list(parameters) == ["source", "store", "predict", "output", *WriteOptions.names()]


@pytest.mark.parametrize("options", [PredictOptions, WriteOptions, LoadOptions])
def test_each_field_has_its_sentence(options: type[OptionSet]) -> None:
    for option in options.fields():
        assert len(option.metadata["about"]) > 10, option.name


@pytest.mark.parametrize(
    ("command", "options", "by_hand"),
    [
        (predict_command.add_model_arguments, PredictOptions, predict_command.BY_HAND),
        (store_command.add_arguments, WriteOptions, store_command.BY_HAND),
        (stac_command.add_arguments, LoadOptions, stac_command.BY_HAND),
    ],
)
def test_each_option_has_a_flag_or_is_said_to_have_another(
    command: Any, options: type[OptionSet], by_hand: dict[str, str]
) -> None:
    assert set(by_hand) <= set(options.names())
    parser = Parser("x")
    command(parser)
    if options is PredictOptions:  # it is declared where the volume of messages is, and of IN
        predict_command.add_volume(parser)
    flags = set(parser._option_string_actions)
    for option in options.fields():
        if option.name in by_hand:
            known = re.findall(r"--[\w-]+", by_hand[option.name])
            assert set(known) - {"--quiet", "--nodata"} <= flags
        else:
            assert f"--{option.name.replace('_', '-')}" in flags
            assert parser.get_default(option.name) == option.default


def test_every_recorded_option_is_in_attributes_and_fingerprint(da: xr.DataArray) -> None:
    how: dict[str, Any] = {
        "model": testing.TOY, "threshold": 0.4, "scheme": "binary", "working_resolution": 60.0, "tta": 4,
        "patch_size": 40, "overlap": 6, "dtype": "float32", "saturation": 0.9,
    }  # fmt: skip
    mask = da.cloudmask.predict(**how)
    contract = plan_output(from_reflectance(da, PredictOptions(**how)), WriteOptions()).contract
    settled_otherwise = {"shadow_threshold", "bands", "uncertainty", "aux", "saturation_alike"}  # TOY: none
    recorded = set(PredictOptions.recorded()) - settled_otherwise
    assert {"model", "threshold", "scheme", "tta", "patch_size", "overlap", "working_factors"} < recorded
    for name in recorded:
        assert contract[name] == mask.attrs[name], name
    changed = plan_output(from_mask(mask.isel(y=slice(0, 30)).chunk()), WriteOptions()).contract
    assert {name: changed[name] for name in recorded} == {name: contract[name] for name in recorded}
    bare = da.cloudmask.predict(testing.TOY).attrs
    assert {"threshold", "tta", "dtype", "aux"} & set(bare) == set()


def test_what_makes_no_other_mask_is_not_recorded(da: xr.DataArray) -> None:
    plain = da.cloudmask.predict(testing.TOY)
    other = da.cloudmask.predict(testing.TOY, batch_size=3, device="cpu")
    assert plain.attrs == other.attrs
    np.testing.assert_array_equal(plain.values, other.values)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda da: stream(da, "m", predict={"treshold": 1}), "option of predict 'treshold'.*'threshold'"),
        (lambda da: stream(da, "m", predict={"output": "classes"}), "option of predict 'output'"),
        (lambda da: stream(da, "m", model="toy"), r"write 'model'.*predict=\{'model': \.\.\.\}"),
        (lambda da: stream(da, "m", overwite=True), "option of write 'overwite'.*'overwrite'"),
        (lambda da: to_zarr(da, "m", retry=1), "option of write 'retry'.*'retries'"),
        (lambda da: sync([], "m", load={"resoluton": 10}), "option of load 'resoluton'.*'resolution'"),
        (lambda da: sync([], "m", write={"shard": False}), "option of write 'shard'.*'shards'"),
        (lambda da: stream(da, "m", predict="toy"), "predict options 'toy'.*mapping"),
    ],
)
def test_a_misspelt_option_offers_the_nearest(da: xr.DataArray, call: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        call(da)


@pytest.mark.parametrize("name", ["like", "mosaic", "duplicates"])
def test_what_sync_settles_is_refused(name: str) -> None:
    with pytest.raises(CloudMaskError, match=f"'{name}'.*settled by sync.*Leave it out"):
        sync([], "m", load={name: None})


def test_signatures_are_short() -> None:
    """Longer ones are those that spell options out, each in one place."""
    root = Path(xcloudmask.__file__).parent
    long = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if len([a for a in arguments if a.arg != "self"]) > 15:
                    long.add(node.name)
    assert long == {"load_stac", "predict"}


@pytest.mark.parametrize(
    ("options", "given", "says"),
    [
        (PredictOptions, {"uncertainty": "no"}, "unknown uncertainty 'no'"),
        (PredictOptions, {"batch_size": np.array([1, 2])}, "batch_size=.* must be"),
        (PredictOptions, {"working_resolution": np.array([1, 2])}, "unknown working_resolution"),
        (PredictOptions, {"threshold": 0.3, "output": "probabilities"}, "threshold=0.3 turns probabilities"),
        (WriteOptions, {"resume": "no"}, "unknown resume 'no'"),
        (WriteOptions, {"retries": "3"}, "retries='3' must be a whole number"),
        (WriteOptions, {"retries": 1.5}, "retries=1.5 must be a whole number"),
        (WriteOptions, {"regions_in_flight": 1.5}, "regions_in_flight=1.5 must be a whole number"),
        (WriteOptions, {"group": 3}, "unknown group 3. Give a string"),
        (WriteOptions, {"append_dim": None}, "unknown append_dim None. Give a string"),
        (WriteOptions, {"storage_options": "anon"}, "unknown storage_options 'anon'. Give a mapping"),
        (WriteOptions, {"chunks": "512"}, "unknown chunks '512'"),
        (WriteOptions, {"shards": True}, "unknown shards True"),
        (LoadOptions, {"resampling": ["x"]}, "unknown resampling"),
    ],
    ids=str,
)
def test_values_of_another_kind_are_refused(options: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(CloudMaskError, match=says):
        options(**given)


def test_windows_are_chosen_for_the_working_size_and_for_nothing_else() -> None:
    spec = replace(testing.TOY, largest_patch=96)

    def side(pixels: int, step: float, **options: Any) -> int:
        da = scene(np.broadcast_to(np.float32(0.2), (2, pixels, pixels)), ["red", "nir"], step)
        plans = [
            prepare(each, PredictOptions(model=spec, **options)).options for each in (da, da.chunk(y=7, x=50))
        ]
        assert plans[0].patch == plans[1].patch == plans[0].record["patch_size"]
        return plans[0].patch

    assert side(60, 30.0) == 64, "one window in the place of nine"
    assert side(180, 10.0) == 64, "60 cells of 30 m"
    assert side(180, 10.0, working_resolution="native") == 96
    assert side(30, 30.0) == 32
    assert side(90, 30.0, patch_size=40) == 40
    assert side(90, 30.0, overlap=0) == 32, "3 x 3 windows of 32 are as many cells as one of 96"
    with pytest.raises(CloudMaskError, match=r"overlap=32.*less than the size"):
        side(90, 30.0, overlap=32)


@pytest.mark.parametrize("size", [31, 2**14 + 1, 10**9])
def test_windows_that_no_memory_holds_are_refused(size):
    scene = xr.DataArray(np.full((2, 4, 4), 0.1, np.float32), dims=("band", "y", "x"))
    scene = scene.cloudmask.describe(bands=["red", "nir"], level="L1C")
    with pytest.raises(
        CloudMaskError, match=rf"patch_size={size}: model 'spectral' takes at least 32 and at most 16384"
    ):
        scene.cloudmask.predict("spectral", patch_size=size)
