"""post= of predict: the mask is as `clean` makes it, in a graph, in a store and on the command line."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask
from tests.scenes import noise, scene
from xcloudmask.cli.parse import Parser
from xcloudmask.cli.predict import add_model_arguments, model_options
from xcloudmask.errors import CloudMaskError, ContractError, OptionError
from xcloudmask.streaming import ProgressEvent
from xcloudmask.testing import LOCAL

MODEL = replace(LOCAL, threshold=0.5)
FORMS = (
    {"close": 1, "buffer": {"cloud": "60 m"}, "sieve": 9},
    [("close", 1), ("buffer", {"cloud": "60 m"}), ("sieve", "9 px")],
    "close=1; buffer(cloud)=60 m; sieve=9",
    "close = 1 px, buffer(cloud)=60 m, sieve=9 px",
)


@pytest.fixture
def da() -> xr.DataArray:
    """Blobs of 3 to 20 pixels: what the model sees is how bright the surroundings are."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(noise(60, 70), 2)
    return scene((field[None] - field.min()) / np.ptp(field), ["red"])


def test_all_forms_are_what_clean_makes(da: xr.DataArray) -> None:
    bare = da.cloudmask.predict(MODEL)
    want = bare.cloudmask.clean(close=1, buffer={"cloud": "60 m"}, sieve=9)
    assert 0.1 < float((bare == 1).mean()) < 0.9
    assert (bare != want).any()
    for form in FORMS:
        xr.testing.assert_identical(da.cloudmask.predict(MODEL, post=form), want)
    assert want.attrs["cleaned"] == "close=1 px; buffer(cloud)=60 m; sieve=9 px"
    twice = da.cloudmask.predict(MODEL, post=[("buffer", 1), ("sieve", 4), ("buffer", 1)])
    assert twice.attrs["cleaned"] == "buffer=1 px; sieve=4 px; buffer=1 px"


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_chunks_do_not_matter(data: st.DataObject) -> None:
    pixels = noise(1, 45, 50)
    post = data.draw(st.sampled_from([*FORMS[:1], "hysteresis=0.45 0.52; sieve=4; buffer=2"]))
    da = scene(pixels, ["red"])
    lazy = da.chunk(y=data.draw(st.integers(7, 45)), x=data.draw(st.integers(7, 50)))
    xr.testing.assert_identical(
        lazy.cloudmask.predict(LOCAL, post=post).compute(), da.cloudmask.predict(LOCAL, post=post)
    )


def test_hysteresis_decides_in_place_of_a_threshold(da: xr.DataArray) -> None:
    post = {"hysteresis": (0.4, 0.7), "buffer": 1}
    mask = da.cloudmask.predict(MODEL, post=post)
    xr.testing.assert_identical(mask, da.cloudmask.predict_proba(MODEL).cloudmask.clean(**post))
    assert mask.attrs["cleaned"] == "hysteresis=0.4 0.7; buffer=1 px"
    assert "threshold" not in mask.attrs
    with pytest.raises(CloudMaskError, match="leave one of them out"):
        da.cloudmask.predict(MODEL, post=post, threshold=0.5)


def test_a_store_holds_the_same_mask_and_refuses_other_steps(da: xr.DataArray, tmp_path: Path) -> None:
    how = {"model": MODEL, "post": "close=2; buffer=60 m"}
    sizes = {"chunks": {"y": 16, "x": 16}, "shards": {"y": 32, "x": 32}}
    want = da.cloudmask.predict(**how)
    for name, source in (("memory", da), ("lazy", da.chunk(y=25, x=40))):
        xcloudmask.stream(source, tmp_path / name, predict=how, progress=False, **sizes)
        stored = xr.open_zarr(tmp_path / name).cloud_mask
        np.testing.assert_array_equal(stored.values, want.values)
        assert stored.attrs["cleaned"] == "close=2 px; buffer=60 m"
    again = xcloudmask.stream(da, tmp_path / "memory", predict=how, progress=False, **sizes)
    assert (again.written, again.skipped) == (0, 6)
    with pytest.raises(ContractError, match=r"cleaned: 'close=2 px; buffer=60 m' in the store, None in this"):
        xcloudmask.stream(da, tmp_path / "memory", predict={"model": MODEL}, progress=False, **sizes)


@pytest.mark.parametrize("step", ["sieve=1 ha", "fill=4", "hysteresis=0.3 0.6"])
def test_a_store_refuses_steps_that_need_the_whole_scene(da: xr.DataArray, tmp_path: Path, step: str) -> None:
    with pytest.raises(CloudMaskError, match=r"whole of a scene.*clean what xcloudmask\.open_masks"):
        xcloudmask.stream(da, tmp_path / "m", predict={"model": MODEL, "post": f"{step}; buffer=1"})
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("steps", [{"sieve": 9, "fill": 4, "buffer": 1}, {"hysteresis": (0.4, 0.7)}])
def test_the_remedy_gives_what_one_call_would(
    da: xr.DataArray, tmp_path: Path, steps: dict[str, object]
) -> None:
    """Streamed as predicted, stopped and resumed; then store to store, where the whole scene is at hand."""
    how, output = {"model": MODEL}, "probabilities" if "hysteresis" in steps else "classes"
    sizes = {"chunks": {"y": 16, "x": 16}, "shards": {"y": 32, "x": 32}, "regions_in_flight": 1}
    exact = {"encoding": {"dtype": "float32"}} if output == "probabilities" else {}

    def stop(event: ProgressEvent) -> None:
        if event.done == 3:
            raise KeyboardInterrupt

    for progress in (stop, False):
        with pytest.raises(KeyboardInterrupt) if progress else nullcontext():
            job = {"predict": how, "output": output, "progress": progress}
            report = xcloudmask.stream(da.chunk(y=32, x=32), tmp_path / "raw.zarr", **job, **sizes, **exact)
    assert (report.skipped, report.written) == (3, 3)
    clean = xcloudmask.open_masks(tmp_path / "raw.zarr").cloudmask.clean(**steps)
    clean.to_zarr(tmp_path / "clean.zarr", consolidated=False)
    want = da.cloudmask.predict(MODEL, post=steps)
    assert (want != da.cloudmask.predict(MODEL)).any()
    stored = xr.open_zarr(tmp_path / "clean.zarr", consolidated=False)[clean.name]
    np.testing.assert_array_equal(stored.values, want.values)
    assert stored.attrs["cleaned"] == want.attrs["cleaned"]


def test_the_command_line_takes_text() -> None:
    parser = Parser("x")
    add_model_arguments(parser)
    args = parser.parse_args(["--post", FORMS[2]])
    assert model_options(args).post == FORMS[2]


@pytest.mark.parametrize(
    ("post", "error", "says"),
    [
        ({"sieves": 3}, OptionError, "did you mean 'sieve'"),
        ("close 3", OptionError, "Write steps as 'close=60 m; buffer"),
        ("close=three", OptionError, "150 m"),
        ("close=150", CloudMaskError, "'150 m' or '150 px'"),
        (["close"], OptionError, "Give pairs"),
        ({"buffer": {"clouds": 3}}, OptionError, "did you mean 'cloud'"),
        ({"buffer": {"cloud_shadow": 3}}, OptionError, "class of buffer 'cloud_shadow'"),
    ],
)
def test_what_cannot_be_meant_is_refused(post: object, error: type[Exception], says: str) -> None:
    lazy = scene(noise(1, 40, 40), ["red"]).chunk()
    with pytest.raises(error, match=says):
        lazy.cloudmask.predict(MODEL, post=post)


def test_probabilities_are_not_cleaned(da: xr.DataArray) -> None:
    with pytest.raises(CloudMaskError, match="post='buffer=2' cleans classes: leave it out"):
        xcloudmask.stream(da, "m", predict={"model": MODEL, "post": "buffer=2"}, output="probabilities")
