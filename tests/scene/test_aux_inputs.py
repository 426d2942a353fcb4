"""Height and radar beside reflectance: on any grid, lazily, and with no say in what is no data."""

import json
import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import dask
import dask.array as darr
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xarray.backends import BackendArray
from xarray.core import indexing

from tests.scenes import CountingScheduler, calls, chunks, forbidden, noise, same_odds, scene
from xcloudmask import models, testing
from xcloudmask.engine import predictor
from xcloudmask.engine.aux_planes import encode
from xcloudmask.engine.regrid import Axis, Regrid
from xcloudmask.errors import CloudMaskError, ContractError, OptionError, UnitError
from xcloudmask.models import registry
from xcloudmask.scene.aux_inputs import ALIASES
from xcloudmask.streaming import stream
from xcloudmask.testing import ANY_BANDS, COUNTING, LAST_INPUT, TOY
from xcloudmask.types import AuxInput, ModelSpec

BANDS = ["red", "nir"]
#: Depends on every pixel of every input of the window.
AUXED = replace(TOY, name="toy-aux", aux=("elevation", "vv", "angle"))
#: Answers with the height that it is given, in km.
HEIGHT = replace(LAST_INPUT, name="height", aux=(AuxInput("elevation", mean=0, std=1000),))
UTM, DEGREES = 32632, 4326


def metres(pixels: np.ndarray, names: list[str] = BANDS, step: float = 30.0) -> xr.DataArray:
    """A scene somewhere in the Alps."""
    da = scene(pixels, names, step)
    return da.assign_coords(y=5_150_000 + da.y, x=620_000 + da.x).rio.write_crs(UTM)


def hills(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height at places in UTM zone 32: a smooth plane, so that bilinear interpolation is exact."""
    return 500 + (x - 620_000) / 20 + (y - 5_150_000) / 40


def height(da: xr.DataArray, step: float, *, margin: float = 400.0, crs: int = UTM) -> xr.DataArray:
    """A terrain model that covers a scene, on a grid of its own."""
    from pyproj import Transformer

    if crs == UTM:
        x = np.arange(float(da.x.min()) - margin, float(da.x.max()) + margin, step)
        y = np.arange(float(da.y.max()) + margin, float(da.y.min()) - margin, -step)
        x2, y2 = np.meshgrid(x, y)
    else:
        to = Transformer.from_crs(UTM, crs, always_xy=True)
        lon, lat = to.transform(da.x.values[[0, -1, 0, -1]], da.y.values[[0, 0, -1, -1]])
        x, y = (np.arange(min(v) - 0.01, max(v) + 0.01, step / 90_000) for v in (lon, lat))
        y = y[::-1]
        x2, y2 = Transformer.from_crs(crs, UTM, always_xy=True).transform(*np.meshgrid(x, y))
    dem = xr.DataArray(hills(x2, y2), dims=("y", "x"), coords={"y": y, "x": x}, name="dem")
    return dem.rio.write_crs(crs)


# --- what the network is given -----------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, DEGREES])
@pytest.mark.parametrize("step", [10.0, 30.0, 47.0])
@pytest.mark.parametrize("chunk", [None, {"y": 33, "x": 17}])
def test_every_pixel_gets_the_height_of_its_place(
    crs: int, step: float, chunk: dict[str, int] | None
) -> None:
    da = metres(noise(1, 70, 60), ["red"])
    dem = height(da, step, crs=crs)
    if chunk:
        da, dem = da.chunk(chunk), dem.chunk(y=20, x=31)
    seen = da.cloudmask.predict_proba(HEIGHT, aux=dem).sel({"class": "cloud"})
    there = hills(*np.meshgrid(da.x, da.y)) / 1000
    assert np.ptp(there) > 0.05
    np.testing.assert_allclose(seen.values, there, atol=2e-4 if crs == UTM else 1e-3)


def test_the_same_grid_is_taken_as_it_is() -> None:
    da = metres(noise(1, 70, 60), ["red"])
    dem = (da.isel(band=0, drop=True) * 1000).drop_vars("spatial_ref")
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"DEM": dem}).sel({"class": "cloud"})
    np.testing.assert_allclose(seen.values, da.values[0], atol=1e-6)
    bare = xr.DataArray(dem.values, dims=("latitude", "longitude"))  # without coordinates: by its size
    again = da.cloudmask.predict_proba(HEIGHT, aux={"height": bare}).sel({"class": "cloud"})
    np.testing.assert_array_equal(again.values, seen.values)


def test_a_larger_area_on_the_same_pixels_gives_its_own_numbers() -> None:
    """Whatever the rounding of coordinates: positions are snapped."""
    da = metres(noise(1, 70, 60), ["red"])
    wide = metres(noise(1, 170, 160, seed=9) * 1000, ["red"])[0]
    wide = wide.assign_coords(y=wide.y + 50 * 30 + 0.01, x=wide.x - 40 * 30 - 0.01)
    same = da[0].copy(data=wide.values[50:120, 40:100])
    seen, expected = (da.cloudmask.predict_proba(HEIGHT, aux={"dem": each}).values for each in (wide, same))
    np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("many", [3, 4, 6, 15])
def test_of_finer_pixels_the_mean_is_taken(many: int) -> None:
    da = metres(noise(1, 40, 40), ["red"])
    step, shift = 30 / many, (30 - 30 / many) / 2  # many x many of them make a pixel
    fine = metres(noise(1, 40 * many, 40 * many) * 1000, ["red"], step=step)[0]
    fine = fine.assign_coords(y=fine.y + shift, x=fine.x - shift)
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": fine}).sel({"class": "cloud"})
    if many == 15:  # means of 7 x 7 do not fall into line with pixels: nearly the mean
        seen, means = seen[1:-1, 1:-1], fine.values.reshape(40, 15, 40, 15).mean(axis=(1, 3))[1:-1, 1:-1]
        assert float((seen.values - means / 1000).std()) < 0.02
        return
    means = fine.values.reshape(40, many, 40, many).mean(axis=(1, 3)) / 1000
    np.testing.assert_allclose(seen.values, means, atol=1e-6)


@pytest.mark.parametrize("step", [4.0, 13.0, 47.0])
def test_gaps_have_no_share_in_what_lies_between_and_in_no_mean(step: float) -> None:
    da = metres(noise(1, 70, 60), ["red"])
    dem = height(da, step)
    holes = dem.copy(data=np.where(noise(*dem.shape, seed=5) > 0.4, 700.0, np.nan))
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": holes}).sel({"class": "cloud"})
    np.testing.assert_allclose(seen.values, 0.7, atol=1e-6)


def test_a_tilted_grid_is_found_whichever_way_its_chunks_lie() -> None:
    """Far from the middle of its zone a scene lies askew on degrees, and rows of a chunk are curved."""
    da = metres(noise(1, 300, 700), ["red"], step=500.0).assign_coords(spatial_ref=0)
    da = da.assign_coords(y=da.y + 2_400_000, x=da.x + 200_000).rio.write_crs(UTM)
    lat, lon = np.arange(72, 62, -0.01), np.arange(8, 36, 0.01)
    dem = xr.DataArray(
        np.add.outer(lat * 5, lon * 10), dims=("y", "x"), coords={"y": lat, "x": lon}
    ).rio.write_crs(DEGREES)
    expected = da.cloudmask.predict_proba(HEIGHT, aux={"dem": dem}).values
    assert np.ptp(expected[1]) > 0.05
    for chunk in ({"y": 300, "x": 700}, {"y": 37, "x": 700}, {"y": 300, "x": 50}):
        found = da.chunk(chunk).cloudmask.predict_proba(HEIGHT, aux={"dem": dem})
        np.testing.assert_array_equal(found.values, expected)


def test_working_resolution_averages_what_the_plane_knows() -> None:
    da = metres(noise(1, 64, 64), ["red"])
    plane = noise(64, 64, seed=4) * 1000
    plane[::2, ::2] = np.nan  # one of four: the other three make the mean
    dem = da[0].copy(data=plane)
    seen = (
        da.cloudmask.predict_proba(HEIGHT, aux={"dem": dem}, working_resolution=60)
        .sel({"class": "cloud"})
        .values
    )
    cells = np.nanmean(plane.reshape(32, 2, 32, 2), axis=(1, 3)) / 1000
    inner = (seen[1:-1:2, 1:-1:2] + seen[2::2, 2::2] + seen[1:-1:2, 2::2] + seen[2::2, 1:-1:2]) / 4
    corners = (cells[:-1, :-1] + cells[1:, 1:] + cells[:-1, 1:] + cells[1:, :-1]) / 4
    np.testing.assert_allclose(
        inner, corners, atol=1e-5
    )  # bilinear return: the mean of 4 is that of the cells


def test_radar_in_decibels_and_as_a_ratio_is_the_same() -> None:
    da = metres(noise(1, 60, 60), ["red"])
    power = da[0].copy(data=10 ** (-2.5 + 2 * noise(60, 60)))
    spec = replace(HEIGHT, name="vv", aux=(AuxInput("vv", mean=-30, std=30),))
    given = {"linear": power, "dB": 10 * np.log10(power)}
    seen = [
        da.cloudmask.predict_proba(spec, aux={"VV": vv.assign_attrs(units=units)}).sel({"class": "cloud"})
        for units, vv in given.items()
    ]
    np.testing.assert_allclose(seen[0].values, (given["dB"].values + 30) / 30, atol=1e-5)
    np.testing.assert_allclose(seen[0].values, seen[1].values, atol=1e-5)


def test_stored_integers_are_scaled() -> None:
    da = metres(noise(1, 60, 60), ["red"])
    stored = (np.random.default_rng(1).integers(0, 5000, (60, 60))).astype("int16")
    stored[3, 4] = -32768
    dem = da[0].copy(data=stored).assign_attrs(scale_factor=0.1, add_offset=100.0, _FillValue=-32768)
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": dem}).sel({"class": "cloud"}).values
    right = np.abs(seen - (stored * 0.1 + 100) / 1000) < 1e-5
    assert right.sum() == right.size - 1
    assert np.abs(seen[3, 4] - seen[2:5, 3:6][right[2:5, 3:6]]).min() < 1e-6  # what lies next to the gap


def test_bands_are_normalised_and_aux_planes_are_not() -> None:
    """The toy's mean and std are of its bands: a height that was scaled once more would change the answer."""
    da = metres(noise(2, 50, 50))
    spec = replace(TOY, name="toy-dem", aux=(AuxInput("elevation", mean=0, std=1),))
    dem = da[0].copy(data=noise(50, 50))
    network = predictor.get_predictor(spec, "cpu")._load()[0].backend.network
    assert network.mean == (0.2, 0.2, 0.0)
    assert network.std == (0.2, 0.2, 1.0)
    found = da.cloudmask.predict_proba(spec, aux={"dem": dem})
    assert np.abs(found - da.cloudmask.predict_proba(spec)).max() > 1e-3


# --- gaps --------------------------------------------------------------------------------------------------


def test_gaps_of_aux_make_no_pixel_no_data_and_gaps_of_the_scene_do() -> None:
    pixels = noise(2, 80, 70)
    pixels[0, 10:20, 10:20] = np.nan
    da = metres(pixels)
    dem = da[1].copy(data=np.full((80, 70), 700.0))
    dem[30:60, 30:] = np.nan
    mask = da.cloudmask.predict(AUXED, aux={"dem": dem})
    np.testing.assert_array_equal(mask.values == 255, np.isnan(pixels[0]))
    whole = dem.copy(data=np.full((80, 70), 700.0))  # the nearest known height is the same everywhere
    odds = [da.cloudmask.predict_proba(AUXED, aux={"dem": each}).values for each in (dem, whole)]
    same_odds(*odds)


def test_nothing_known_at_all_is_nothing_given() -> None:
    da = metres(noise(2, 80, 70))
    nothing = da[0].copy(data=np.full((80, 70), np.nan))
    without = da.cloudmask.predict_proba(AUXED)
    for given_ in ({"dem": nothing}, {"dem": nothing, "angle": nothing}):
        for source in (da, da.chunk(y=30)):
            same_odds(source.cloudmask.predict_proba(AUXED, aux=given_).values, without.values)
    assert np.abs(da.cloudmask.predict_proba(AUXED, aux={"dem": nothing.fillna(3000)}) - without).max() > 1e-3


def test_the_gap_value_and_the_units_of_the_scene_are_not_those_of_aux() -> None:
    """A height of 0 m is no gap where the scene's is 0, and is not scaled by 0.0001."""
    stored = (noise(2, 60, 60) * 10_000).astype("uint16") + 1
    stored[:, 5:9] = 0
    da = metres(stored).cloudmask.describe(scale=1e-4, nodata=0)
    dem = xr.DataArray(np.zeros((60, 60), "int16"), dims=("y", "x"))
    mask = da.cloudmask.predict(AUXED, aux={"dem": dem})
    np.testing.assert_array_equal(mask.values == 255, stored[0] == 0)
    floats = da.astype("f4") * np.float32(1e-4)
    floats = floats.where(da != 0).drop_vars(["scale", "offset"])
    floats.attrs.clear()
    floats = floats.cloudmask.describe(bands=BANDS, level="L1C")
    expected = floats.cloudmask.predict_proba(AUXED, aux={"dem": dem})
    same_odds(da.cloudmask.predict_proba(AUXED, aux={"dem": dem}).values, expected.values)
    with pytest.warns(UserWarning, match="no pixel holds data in every band"):
        metres(np.full((2, 60, 60), np.nan, "f4")).cloudmask.predict(AUXED, aux={"dem": dem})


def test_beyond_the_edge_of_aux_its_nearest_value_goes_on() -> None:
    da = metres(noise(1, 40, 32), ["red"])
    half = height(da, 30.0).where(lambda dem: dem.x <= float(da.x[10]), drop=True)
    seen = da.cloudmask.predict_proba(HEIGHT, aux=half.fillna(0)).sel({"class": "cloud"}).values
    assert np.ptp(seen[20, 12:24]) < 1e-6  # within the window, all take the last column's
    assert np.ptp(seen[20, :10]) > 1e-3


# --- chunks, dimensions, executors -------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn) -> tuple[xr.DataArray, dict[str, xr.DataArray]]:
    """A scene (time, band, y, x) with holes and aux inputs on grids of their own, with holes."""
    height_, width = draw(st.integers(3, 90)), draw(st.integers(3, 90))
    pixels = noise(2, 2, height_, width, seed=height_ * 131 + width)
    if draw(st.booleans()):
        pixels[draw(st.integers(0, 1)), :, : draw(st.integers(1, 60)), draw(st.integers(0, 2)) :] = np.nan
    da = metres(pixels, step=draw(st.sampled_from([10.0, 30.0])))
    kind = draw(st.sampled_from(["same", "utm", "degrees"]))
    if kind == "same":
        dem = da[0, 0].copy(data=noise(height_, width, seed=5) * 4000).drop_vars("band")
    else:
        dem = height(da, draw(st.sampled_from([9.0, 25.0, 90.0])), crs=UTM if kind == "utm" else DEGREES)
        dem = dem.copy(data=noise(*dem.shape, seed=6) * 4000)
        if draw(st.booleans()):  # a part of the scene only
            dem = dem[: max(2, dem.sizes["y"] // 2 + 2), : max(2, dem.sizes["x"] // 2 + 2)]
    if draw(st.booleans()):
        dem = dem.where(noise(*dem.shape, seed=8) > 0.3)
    vv = da[:, 0].copy(data=noise(2, height_, width, seed=7) * 20 - 25).assign_attrs(units="dB")
    vv = vv.drop_vars("band").transpose(*draw(st.permutations(["time", "y", "x"])))
    return da, {"dem": dem, "VV": vv}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), case=cases())
def test_any_chunking_of_scene_and_aux(data: st.DataObject, case: Any) -> None:
    da, aux = case
    options: dict[str, Any] = {"working_resolution": data.draw(st.sampled_from(["auto", "native", 60.0]))}
    whole = da.cloudmask.predict_proba(AUXED, aux=aux, **options)
    assert whole.chunks is None
    cut = {
        "time": data.draw(st.sampled_from([1, 2])),
        "band": data.draw(st.sampled_from([1, 2])),
        "y": data.draw(chunks(da.sizes["y"])),
        "x": data.draw(chunks(da.sizes["x"])),
    }
    lazy_scene = da.chunk(cut)
    lazy_aux = {
        name: each.chunk({dim: data.draw(chunks(each.sizes[dim])) for dim in ("y", "x")})
        for name, each in aux.items()
    }
    scenes, auxes = [(lazy_scene, lazy_aux), (lazy_scene, aux), (da, lazy_aux)], []
    for source, given_ in scenes:
        found = source.cloudmask.predict_proba(AUXED, aux=given_, **options)
        assert found.chunks is not None
        auxes.append(found.values)
    for values in auxes:
        same_odds(values, whole.values)
    assert (np.isnan(whole.values).any(axis=1) == np.isnan(da.values).any(axis=1)).all()


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    steps=st.tuples(st.sampled_from([3.0, 10.0, 31.0]), st.sampled_from([-5.0, -10.0, 30.0])),
)
def test_a_pixel_of_another_grid_is_the_same_whichever_block_it_is_made_in(
    data: st.DataObject, steps: tuple[float, float]
) -> None:
    source = Axis(0.0, steps[0], 40), Axis(100.0, -steps[0], 35)
    target = Axis(7.0, steps[1] or 1.0, 30), Axis(10.0, 9.0, 28)
    values = np.where(noise(40, 35) > 0.2, noise(40, 35, seed=2), np.nan)
    plan = Regrid.plan(source, target)
    whole = plan(values, (0, 0), (0, 30), (0, 28))
    edges = [np.cumsum((0, *data.draw(chunks(size)))).tolist() for size in (30, 28)]
    rows, cols = (list(pairwise(each)) for each in edges)
    boxes = plan.boxes(rows, cols)
    for i, row in enumerate(rows):
        for j, col in enumerate(cols):
            box, part = boxes[i][j], whole[slice(*row), slice(*col)]
            if box is None:
                assert np.isnan(part).all()
                continue
            (top, bottom), (left, right) = box
            found = plan(values[top:bottom, left:right], (top, left), row, col)
            np.testing.assert_array_equal(found, part)


def test_rows_are_made_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Regrid.plan((Axis(0, 1, 50), Axis(0, 1, 50)), (Axis(3.3, 0.7, 41), Axis(2.1, 0.9, 37)))
    whole = plan(noise(50, 50), (0, 0), (0, 41), (0, 37))
    monkeypatch.setattr("xcloudmask.engine.regrid.ROWS", 7)
    np.testing.assert_array_equal(plan(noise(50, 50), (0, 0), (0, 41), (0, 37)), whole)


def test_degrees_go_around_the_earth() -> None:
    """A terrain model from 0 to 360 serves a scene west of Greenwich."""
    da = scene(noise(1, 40, 40), ["red"]).rename(y="latitude", x="longitude")
    da = da.assign_coords(latitude=50 - np.arange(40) / 3600, longitude=-5 + np.arange(40) / 3600)
    da = da.rio.write_crs(DEGREES)
    dem = da[0].assign_coords(longitude=da.longitude + 360).copy(data=noise(40, 40, seed=5) * 1000)
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": dem}).sel({"class": "cloud"})
    np.testing.assert_allclose(seen.values, dem.values / 1000, atol=1e-5)


def waves(lon: np.ndarray, lat: np.ndarray) -> np.ndarray:
    """Height at places in degrees, the same after a turn."""
    return 400 + 200 * np.sin(np.radians(lon) * 3) + 2 * lat


def on_degrees(lon: np.ndarray, lat: np.ndarray) -> tuple[xr.DataArray, np.ndarray]:
    """A scene on degrees, and the height of its pixels in km."""
    da = scene(noise(1, len(lat), len(lon)), ["red"]).assign_coords(y=lat, x=lon).rio.write_crs(DEGREES)
    return da, waves(*np.meshgrid(lon, lat)) / 1000


def world(step: float, north: float, south: float, west: float = -180.0) -> xr.DataArray:
    """A terrain model all around the earth."""
    lat, lon = np.arange(north, south, -step), west + step * (np.arange(round(360 / step)) + 0.5)
    dem = xr.DataArray(waves(*np.meshgrid(lon, lat)), dims=("y", "x"), coords={"y": lat, "x": lon})
    return dem.rio.write_crs(DEGREES)


@pytest.mark.parametrize("chunk", [None, 29])
@pytest.mark.parametrize(("west", "seam"), [(-180.0, 180.0), (0.0, 0.0)])
def test_a_scene_whose_middle_pixel_lies_on_the_seam_gets_the_height_of_its_place(
    west: float, seam: float, chunk: int | None
) -> None:
    for columns in (100, 101):
        lon = seam + 0.01 * (np.arange(columns) - columns // 2 - 0.5)
        da, there = on_degrees(lon, 50 - 0.01 * np.arange(40))
        da = da if chunk is None else da.chunk(y=chunk, x=chunk)
        seen = da.cloudmask.predict_proba(
            HEIGHT, aux={"dem": world(0.05, 51, 49, west)}, working_resolution="native"
        )
        # next to the seam the last column goes on for half a pixel
        np.testing.assert_allclose(seen.values[1], there, atol=1e-3)


@pytest.mark.parametrize("chunk", [None, 29])
@pytest.mark.parametrize("step", [0.05, 0.004], ids=["coarse", "fine"])
@pytest.mark.parametrize("west", [-180.0, 0.0])
def test_a_terrain_model_all_around_the_earth_has_no_seam(
    west: float, step: float, chunk: int | None
) -> None:
    """It makes no difference where its columns begin, nor where the scene's chunks end."""
    lat, lon = np.arange(50.02, 49.5, -step), west + step * (np.arange(round(360 / step)) + 0.5)
    dem = xr.DataArray(
        noise(len(lat), len(lon), seed=5) * 1000, dims=("y", "x"), coords={"y": lat, "x": lon}
    ).rio.write_crs(DEGREES)
    half = len(lon) // 2
    turned = dem.roll(x=half).assign_coords(x=lon + step * half - 360 * (west == 0))
    assert float(abs(dem[0, -1] - dem[0, 0])) > 50  # else the case shows nothing
    da, _ = on_degrees(west + 0.01 * (np.arange(60) - 30.25), 50 - 0.01 * np.arange(40))
    da = da if chunk is None else da.chunk(y=chunk, x=chunk)
    options: dict[str, Any] = {"working_resolution": "native"}
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": dem}, **options)
    expected = da.cloudmask.predict_proba(HEIGHT, aux={"dem": turned}, **options)
    assert not np.isnan(expected.values).any()
    np.testing.assert_allclose(seen.values, expected.values, atol=1e-5)


def test_means_of_columns_have_no_seam_either() -> None:
    pixels = noise(6, 360, seed=5)
    rows, target = Axis(50.0, -1.0, 6), (Axis(49.0, -1.0, 4), Axis(170.0, 5.0, 5))
    here = Regrid.plan((rows, Axis(-179.5, 1.0, 360)), target, period=360.0)
    there = Regrid.plan((rows, Axis(0.5, 1.0, 360)), target, period=360.0)
    assert (here.shrink, here.closed) == ((1, 2), True)
    seen = here(pixels, (0, 0), (0, 4), (0, 5))
    expected = there(np.roll(pixels, 180, axis=1), (0, 0), (0, 4), (0, 5))
    np.testing.assert_allclose(seen, expected, atol=1e-6)
    open_ended = Regrid.plan((rows, Axis(-179.5, 1.0, 300)), target, period=360.0)
    assert not open_ended.closed


@pytest.mark.parametrize("chunk", [None, 300, 170])
def test_a_chunk_may_reach_far_over_the_seam(chunk: int | None) -> None:
    da, there = on_degrees(np.arange(330) + 0.5, 60 - np.arange(60.0))
    da = da if chunk is None else da.chunk(y=30, x=chunk)
    seen = da.cloudmask.predict_proba(HEIGHT, aux={"dem": world(0.5, 62, -2)}, working_resolution="native")
    np.testing.assert_allclose(seen.values[1], there, atol=1e-3)


@pytest.mark.parametrize("part", [{"y": [20]}, {"x": [20]}, {"y": [20], "x": [20]}], ids=str)
def test_a_scene_of_one_row_or_column_gets_the_height_that_it_has_in_the_whole(part: dict[str, Any]) -> None:
    """On degrees, whose step is nothing like 1; of a terrain model that is finer, and one that is coarser."""
    lon, lat = 10 + 0.01 * np.arange(50), 50 - 0.01 * np.arange(40)
    da = on_degrees(lon, lat)[0]
    if len(part) == 2:  # nothing tells how large a single pixel is: as large as one of a metre
        da = metres(noise(1, 40, 50), ["red"], step=1.0)
    for step in (0.001, 0.03):
        if len(part) == 2:
            dem = height(da, 3.0)
        else:
            fine = 11 + np.arange(-1.2, -0.4, step), 50.1 - np.arange(0, 0.6, step)
            dem = on_degrees(*fine)[0][0].copy(data=noise(len(fine[1]), len(fine[0]), seed=5) * 1000)
        options: dict[str, Any] = {"aux": {"dem": dem}, "working_resolution": "native"}
        whole = da.cloudmask.predict_proba(HEIGHT, **options).isel(part)
        for one in (da.isel(part), da.isel(part).chunk(y=13, x=13)):
            alone = one.cloudmask.predict_proba(HEIGHT, **options)
            np.testing.assert_allclose(alone.values, whole.values, atol=1e-6)


def test_pixels_that_are_not_valid_and_datasets() -> None:
    da = metres(noise(2, 50, 40))
    dem, valid = height(da, 45.0), da[0] > 0.3
    expected = da.cloudmask.predict(AUXED, aux=dem, valid=valid)
    np.testing.assert_array_equal(expected.values == 255, ~valid.values)
    for source in (da.chunk(y=30), da.to_dataset("band").chunk(x=17)):
        found = source.cloudmask.predict(AUXED, aux=dem, valid=valid)
        np.testing.assert_array_equal(found.values, expected.values)


def test_dimensions_of_aux_in_any_order_and_with_lengths_of_one() -> None:
    da = metres(noise(3, 2, 50, 40)).assign_coords(time=[1, 2, 3])
    dem = da[0, 0].copy(data=noise(50, 40, seed=5) * 1000).drop_vars(["band", "time"])
    expected = da.cloudmask.predict_proba(AUXED, aux={"dem": dem}).values
    forms: list[Any] = [
        {"dem": dem.T},
        {"dem": dem.expand_dims(band=["data"], time=[9])},
        {"dem": dem.rename(y="lat", x="lon")},
        {"dem": dem.expand_dims(time=da.time).transpose("x", "time", "y")},
        dem.to_dataset(name="dem"),
        dem.rename("elevation"),
        dem.expand_dims(band=["DEM"]),
    ]
    for form in forms:
        for source in (da, da.chunk(time=1, y=30), da.transpose("x", "band", "time", "y")):
            found = source.cloudmask.predict_proba(AUXED, aux=form).transpose("time", "class", "y", "x")
            same_odds(found.values, expected)


def test_each_time_has_its_own_radar() -> None:
    da = metres(noise(2, 2, 50, 40)).assign_coords(time=[1, 2])
    vv = da[:, 0].copy(data=noise(2, 50, 40, seed=5)).assign_attrs(units="linear")
    both = da.chunk(time=1).cloudmask.predict_proba(AUXED, aux={"vv": vv})
    for at in range(2):
        alone = da[at].cloudmask.predict_proba(AUXED, aux={"vv": vv[at]})
        same_odds(both[at].values, alone.values)


@pytest.mark.parametrize("chunk", [None, {"y": 70, "x": 64, "time": 1}])
def test_a_stream_gives_the_same(tmp_path: Path, chunk: dict[str, int] | None) -> None:
    da = metres(noise(2, 2, 150, 130)).assign_coords(time=np.array(["2026-05-01", "2026-05-02"], "M8[ns]"))
    aux = {"dem": height(da, 45.0, crs=DEGREES), "vv": da[:, 0].assign_attrs(units="linear")}
    expected = da.cloudmask.predict(AUXED, aux=aux)
    assert expected.attrs["aux"] == "elevation vv"
    da = da if chunk is None else da.chunk(chunk)
    small: dict[str, Any] = {"chunks": {"y": 32, "x": 32}, "shards": {"y": 64, "x": 64}, "progress": False}
    stream(da, tmp_path / "a", predict={"model": AUXED, "aux": aux}, **small)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "a").cloud_mask.values, expected.values)
    if chunk is not None:
        da.cloudmask.predict(AUXED, aux=aux).cloudmask.to_zarr(tmp_path / "b", **small)
        np.testing.assert_array_equal(xr.open_zarr(tmp_path / "b").cloud_mask.values, expected.values)
    with pytest.raises(ContractError, match="aux: 'elevation vv' in the store, None in this call"):
        stream(da, tmp_path / "a", predict={"model": AUXED}, **small)


# --- laziness and cost -------------------------------------------------------------------------------------


class File(BackendArray):
    """Pixels that lie in a file, and must not be read."""

    dtype = np.dtype("f4")

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("a pixel was read")


def test_building_reads_nothing() -> None:
    da = metres(noise(2, 200, 170))
    data = darr.from_array(da.values, chunks=(2, 64, 50)).map_blocks(forbidden, dtype="f4")
    lazy = da.copy(data=data)
    dem = height(da, 40.0, crs=DEGREES)
    blocks = dem.copy(data=darr.zeros(dem.shape, chunks=50).map_blocks(forbidden, dtype="f4"))
    unread = dem.copy(data=indexing.LazilyIndexedArray(File(dem.shape)))
    same = da[0].copy(data=indexing.LazilyIndexedArray(File((200, 170))))
    scheduler = CountingScheduler()
    with dask.config.set(scheduler=scheduler):
        for each in (blocks, unread, same):
            for source in (lazy, da.copy(data=indexing.LazilyIndexedArray(File(da.shape)))):
                mask = source.cloudmask.predict(AUXED, aux={"dem": each})
                assert mask.chunks is not None
    assert scheduler.computes == 0
    with pytest.raises(AssertionError, match="a pixel was read"):
        lazy.cloudmask.predict(AUXED, aux={"dem": blocks}).compute(scheduler="sync")


def test_the_graph_travels() -> None:
    da = metres(noise(2, 90, 80))
    aux = {"dem": height(da, 40.0, crs=DEGREES), "vv": da[0].assign_attrs(units="linear")}
    expected = da.cloudmask.predict(AUXED, aux=aux)
    lazy = da.chunk(y=40).cloudmask.predict(AUXED, aux={name: each.chunk(y=30) for name, each in aux.items()})
    again = pickle.loads(pickle.dumps(lazy))
    np.testing.assert_array_equal(again.values, expected.values)


def test_names_of_tasks_are_those_of_the_call() -> None:
    da = metres(noise(2, 90, 80)).chunk(y=40)
    dem = height(da, 40.0).chunk(y=30)
    names = [da.cloudmask.predict(AUXED, aux={"dem": each}).data.name for each in (dem, dem, dem.chunk(y=20))]
    assert names[0] == names[1] != names[2]


def test_each_window_is_inferred_once_with_aux() -> None:
    testing.seen.clear()
    pixels = (np.arange(100 * 90, dtype=np.float32) / 9000).reshape(1, 100, 90)
    da = metres(pixels, ["red"]).chunk(y=41, x=37)
    spec = replace(COUNTING, aux=("elevation",))
    da.cloudmask.predict(spec, aux={"dem": height(da, 50.0)}).compute()
    assert len(testing.seen) == len(set(testing.seen)) == 16


def test_a_slice_reads_only_the_blocks_of_aux_that_it_needs() -> None:
    da = metres(noise(1, 400, 400), ["red"]).chunk(y=50, x=50)
    dem = height(da, 30.0)
    read = []

    def note(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info:
            read.append(block_info[0]["chunk-location"])
        return block

    data = darr.from_array(dem.values, chunks=50).map_blocks(note, dtype=dem.dtype, meta=dem.values[:0])
    corner = da.cloudmask.predict(HEIGHT, aux={"dem": dem.copy(data=data)})[:20, :20]
    corner.compute(scheduler="sync")
    assert set(read) <= {(i, j) for i in range(4) for j in range(4)}
    assert read


def beside_a_finer_grid(rows: int) -> tuple[xr.DataArray, xr.DataArray]:
    """A scene of rows x rows chunks, and heights of the whole region in degrees."""
    side = rows * 256
    coords = {"y": 5_150_000 - 10.0 * np.arange(side), "x": 620_000 + 10.0 * np.arange(side)}
    da = xr.DataArray(darr.zeros((2, side, side), chunks=(2, 256, 256), dtype="f4"), dims=("band", "y", "x"))
    da = da.assign_coords(coords).cloudmask.describe(bands=BANDS, level="L1C").rio.write_crs(UTM)
    lat, lon = np.arange(48, 43, -1 / 3600), np.arange(10, 15, 1 / 3600)
    dem = xr.DataArray(darr.zeros((len(lat), len(lon)), chunks=1024, dtype="f4"), dims=("y", "x"))
    dem = dem.assign_coords(y=lat, x=lon).rio.write_crs(DEGREES)
    return da, dem


def test_ten_thousand_chunks_with_an_aux_of_another_grid() -> None:
    """Which part of an aux input a chunk needs is asked for all at once; few calls are made for each."""
    options: dict[str, Any] = {"working_resolution": "native"}
    da, dem = beside_a_finer_grid(100)
    small, _ = beside_a_finer_grid(30)
    small.cloudmask.predict(AUXED, aux={"dem": dem}, **options)  # imports are done
    few = calls(lambda: small.cloudmask.predict(AUXED, aux={"dem": dem}, **options))
    made = calls(lambda: da.cloudmask.predict(AUXED, aux={"dem": dem}, **options))
    assert (made - few) / (100**2 - 30**2) < 60  # 31
    mask = da.cloudmask.predict(AUXED, aux={"dem": dem}, **options)
    layers = mask.data.dask.layers
    (name,) = (name for name in layers if name.startswith("regrid-"))
    assert len(pickle.dumps(dict(layers[name]))) < 512 * 10_000
    assert len(pickle.dumps(layers[mask.data.name])) < 10_000


# --- which models ------------------------------------------------------------------------------------------


def test_a_model_for_any_bands_is_told_of_height_and_radar() -> None:
    spec = replace(
        ANY_BANDS, name="any-aux", architecture="sensei-v2", aux=("elevation", "vv", "vh", "angle")
    )
    da = metres(noise(3, 70, 60), ["blue", "red", "nir"])
    plain = xr.zeros_like(da[0])
    aux = {
        "dem": plain + 2000,
        "vv": (plain - 9).assign_attrs(units="dB"),
        "vh": (plain + 0.02).assign_attrs(units="linear"),
        "angle": plain + 41,
    }
    found = {name: da.cloudmask.predict_proba(spec, aux={name: each}).values for name, each in aux.items()}
    found["nothing"], found["all"] = da.cloudmask.predict_proba(spec).values, None
    found["all"] = da.chunk(y=30).cloudmask.predict_proba(spec, aux=dict(reversed(aux.items()))).values
    same_odds(da.cloudmask.predict_proba(spec, aux=aux).values, found["all"])
    names = list(found)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert np.abs(found[one] - found[other]).max() > 1e-5, (one, other)


def test_thermal_bands_are_fed_within_0_and_1_and_in_no_other_unit() -> None:
    kelvin = np.array([[100.0, 132, 190.5, 249, 290]], "f4")
    found = encode(kelvin, np.ones((1, 5), bool), AuxInput("lwir11"))
    np.testing.assert_allclose(found, [[0, 0, 0.5, 1, 1]], atol=1e-6)
    spec = replace(ANY_BANDS, name="any-thermal", architecture="sensei-v2", aux=("lwir11",))
    da = metres(noise(3, 70, 60), ["blue", "red", "nir"])
    plain = xr.zeros_like(da[0])
    for celsius, match in ((plain + 20, "20, which.*kelvin"), (plain.assign_attrs(units="degC"), "degc.*K")):
        with pytest.raises(UnitError, match=match):
            da.cloudmask.predict(spec, aux={"lwir11": celsius})


def test_the_descriptors_carry_the_flags() -> None:
    spec = replace(ANY_BANDS, name="any-flags", architecture="sensei-v2", aux=("vh", "elevation"))
    da = metres(noise(2, 40, 40))
    aux = {"dem": da[0] * 0 + 5, "vh": (da[0] * 0 - 20).assign_attrs(units="dB")}
    da.cloudmask.predict(spec, aux=aux)
    inputs = next(key[3] for key in predictor._predictors if key[0] == spec)
    assert [(band.name, band.kind) for band in inputs] == [
        ("red", "reflectance"), ("nir", "reflectance"), ("vh", "sar"), ("elevation", "elevation"),
    ]  # fmt: skip
    body = predictor.get_predictor(spec, "auto", "auto", inputs)._load()[0].backend.network.body
    assert body.descriptors[:, 64].sum() == 1
    assert body.descriptors[:, 65].sum() == 1


@pytest.mark.usefixtures("fresh_registry")
def test_the_u_net_of_cnes_takes_height_and_does_without(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from xcloudmask.models.arch import build

    config = {"bands": 2, "width": 8, "levels": 2, "dem": True}
    net = build("cloud-unet", config, seed=3)
    save_file(net.state_dict(), tmp_path / "unet.safetensors")
    made = models.load(
        tmp_path / "unet.safetensors", name="unet-plain", architecture="cloud-unet", config=config,
        bands=BANDS, classes=["clear", "cloud"], activation="sigmoid", patch=32,
    )  # fmt: skip
    spec = models.load(
        tmp_path / "unet.safetensors", name="unet-dem", architecture="cloud-unet", config=config,
        bands=BANDS, classes=["clear", "cloud"], activation="sigmoid", patch=32, aux=["elevation"],
    )  # fmt: skip
    assert spec == replace(made, name="unet-dem", aux=("elevation",))
    da = metres(noise(2, 70, 60))
    dem = height(da, 50.0)
    without = da.cloudmask.predict_proba(made)
    same_odds(da.cloudmask.predict_proba(spec).values, without.values)
    found = da.cloudmask.predict_proba(spec, aux=dem)
    assert np.abs(found - without).max() > 1e-4
    same_odds(da.chunk(y=33, x=20).cloudmask.predict_proba(spec, aux=dem).values, found.values)

    models.export("unet-dem", tmp_path / "out")
    again = models.load(tmp_path / "out" / "unet-dem.json", name="unet-again")
    assert again.aux == spec.aux
    same_odds(da.cloudmask.predict_proba(again, aux=dem).values, found.values)
    graph = models.load(
        tmp_path / "out" / "unet-dem.onnx", name="unet-onnx", bands=BANDS, classes=["clear", "cloud"],
        activation="sigmoid", aux=["elevation"],
    )  # fmt: skip
    for aux, expected in ((dem, found), (None, without)):
        np.testing.assert_allclose(da.cloudmask.predict_proba(graph, aux=aux).values, expected, atol=1e-5)


@pytest.mark.usefixtures("fresh_registry")
def test_a_module_of_ones_own_gets_all_channels_in_the_order_of_its_card() -> None:
    def weighted(pixels: Any) -> Any:
        return pixels[:, :1] * 0.1 + pixels[:, 1:2] * 0.02 + pixels[:, 2:3] * 0.003

    aux = [AuxInput("angle", mean=0, std=100), AuxInput("elevation", mean=0, std=1000)]
    spec = models.register(
        weighted, bands=["red"], classes=["clear", "cloud"], activation="complement", patch=32, aux=aux
    )
    da = metres(np.full((1, 40, 40), 0.5, "f4"), ["red"])
    angle, dem = (da[0].copy(data=np.full((40, 40), value)) for value in (40.0, 700.0))
    given_ = {(): 0.05, ("angle",): 0.058, ("dem",): 0.0521, ("dem", "angle"): 0.0601}
    for names, expected in given_.items():
        chosen = {name: {"angle": angle, "dem": dem}[name] for name in names}
        seen = da.cloudmask.predict_proba(spec, aux=chosen).values[1]
        np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_the_card_tells_and_comes_back() -> None:
    from xcloudmask.models import card

    spec = replace(TOY, aux=(AuxInput("elevation", required=True), "vv"))
    assert card.from_json(card.to_json(spec), "a.json") == spec
    assert json.loads(card.to_json(spec))["aux"][1]["name"] == "vv"
    rows = dict(card.rows_of(spec))
    assert rows["aux"] == "elevation (needed), vv"
    assert "aux" not in dict(card.rows_of(TOY))
    with pytest.raises(OptionError, match=r"aux input 'dew'.*elevation"):
        replace(TOY, aux=("dew",))
    with pytest.raises(OptionError, match=r"aux input .*'colour': 'blue'"):
        replace(TOY, aux=({"name": "vv", "colour": "blue"},))
    with pytest.raises(ValueError, match="must not repeat"):
        replace(TOY, aux=("vv", "vv"))
    with pytest.raises(ValueError, match="std must be above 0"):
        AuxInput("vv", std=0)


# --- what is refused ---------------------------------------------------------------------------------------

DA = metres(noise(2, 60, 50)).assign_coords(band_name=("band", BANDS))
FLAT = xr.DataArray(np.full((60, 50), 700.0), dims=("y", "x"))


@pytest.mark.parametrize("chunk", [None, 30])
@pytest.mark.parametrize(
    ("aux", "error", "match"),
    [
        ({"elevaton": FLAT}, OptionError, r"name of an aux input 'elevaton'; did you mean 'elevation'\?"),
        ({"red": FLAT}, OptionError, r"name of an aux input 'red'.*elevation, dem"),
        ({3: FLAT}, OptionError, "name of an aux input 3"),
        (FLAT, OptionError, "dem.rename"),
        ({"dem": FLAT, "Height": FLAT}, CloudMaskError, "'elevation' is given twice"),
        ({"dem": FLAT.values}, CloudMaskError, r"aux\['dem'\] must be a DataArray, got ndarray"),
        (3, CloudMaskError, "aux must be a DataArray, a Dataset, or DataArrays by name"),
        ({"vh": FLAT}, CloudMaskError, "no use for the aux input vh: it takes elevation, vv, angle"),
        ({"vv": FLAT}, UnitError, r"aux\['vv'\] has no attribute units.*units='dB'"),
        ({"vv": FLAT.assign_attrs(units="DN")}, UnitError, "units='dn'.*decibels or a ratio"),
        ({"dem": FLAT.assign_attrs(units="ft")}, UnitError, "units='ft'.*0.3048"),
        ({"angle": FLAT.assign_attrs(units="rad")}, UnitError, "units='rad'.*degrees"),
        ({"dem": FLAT.astype(complex)}, UnitError, "real numbers"),
        ({"dem": FLAT.assign_attrs(scale_factor=0.1)}, UnitError, "scale_factor=0.1.*apply them"),
        ({"dem": FLAT[:30]}, CloudMaskError, "no coordinate 'y'"),
        ({"dem": FLAT.rename(y="row")}, CloudMaskError, "none are rows and columns"),
        ({"dem": FLAT.expand_dims(time=4)}, CloudMaskError, "dimension 'time' that is not that of the scene"),
        ({"dem": FLAT.expand_dims(orbit=2)}, CloudMaskError, r"'orbit'.*aux.median\('orbit'\)"),
    ],
)  # fmt: skip
def test_what_is_refused_while_building(aux: Any, error: Any, match: str, chunk: int | None) -> None:
    da = DA if chunk is None else DA.chunk(y=chunk)
    with pytest.raises(error, match=match):
        da.cloudmask.predict(AUXED, aux=aux)


@pytest.mark.parametrize(
    ("name", "values", "units", "match"),
    [
        ("vv", 0.1, "dB", "all values are above 0 dB.*units="),
        ("vv", -15.0, "linear", "the middle of the values is -15 as a ratio of powers"),
        ("vv", 420.0, "linear", "420 as a ratio of powers.*amplitude"),
        ("dem", 15_000.0, "m", r"holds 15000 m, which is no height.*dem \* 0.3048"),
        ("angle", 0.65, "", "0.65.*numpy.degrees"),
    ],
)
def test_numbers_that_cannot_be_what_they_are_said_to_be(
    name: str, values: float, units: str, match: str
) -> None:
    plane = xr.full_like(FLAT, values).assign_attrs(units=units)
    for da in (DA, DA.chunk(y=7)):
        with pytest.raises(UnitError, match=match):
            da.cloudmask.predict(AUXED, aux={name: plane}).compute(scheduler="sync")


@pytest.mark.parametrize("number", [-9999, -32768, 32767, -3.4028234663852886e38, 1e10])
def test_a_number_that_means_no_data_and_was_not_said_to_is_no_height(number: float) -> None:
    dem = height(DA, 30.0).astype("int16" if abs(number) < 1e5 else "f4")
    dem[20:22, 20:22] = number
    told = rf"holds {number:.9g} m, which is no height: .*attrs\['_FillValue'\] = {number:.9g}\.".replace(
        "+", r"\+"
    )
    for da, each in ((DA, dem), (DA, dem.chunk(y=7)), (DA.chunk(y=30), dem)):
        with pytest.raises(UnitError, match=told):
            da.cloudmask.predict(AUXED, aux={"dem": each}).compute(scheduler="sync")
    expected = DA.cloudmask.predict_proba(AUXED, aux={"dem": dem.astype("f4").where(dem != number)})
    said = dem.assign_attrs(_FillValue=number)
    same_odds(DA.cloudmask.predict_proba(AUXED, aux={"dem": said}).values, expected.values)


def test_what_an_integer_height_is_stored_as_is_told() -> None:
    dem = height(DA, 30.0).astype("int16").assign_attrs(scale_factor=0.1)
    dem[3, 4] = -9999
    with pytest.raises(UnitError, match=r"-999\.9\d* m \(stored as -9999\).*_FillValue'\] = -9999\."):
        DA.cloudmask.predict(AUXED, aux={"dem": dem})
    DA.cloudmask.predict(AUXED, aux={"dem": dem.where(dem != -9999, -999)})


def test_no_overlap_is_refused_with_both_extents() -> None:
    dem = height(DA, 30.0)
    for away in (dem.assign_coords(x=dem.x + 100_000), dem.assign_coords(y=dem.y - 50_000)):
        for da in (DA, DA.chunk(y=30)):
            with pytest.raises(
                CloudMaskError, match=r"does not overlap the scene in EPSG:32632: it covers .* the scene"
            ):
                da.cloudmask.predict(AUXED, aux={"dem": away})
    far = height(DA, 30.0, crs=DEGREES)
    with pytest.raises(CloudMaskError, match="does not overlap the scene in EPSG:4326"):
        DA.cloudmask.predict(AUXED, aux={"dem": far.assign_coords(y=far.y - 20)})


def test_a_crs_that_is_not_known_is_asked_for() -> None:
    dem = height(DA, 30.0)
    with pytest.raises(CloudMaskError, match=r"aux\['elevation'\] has no CRS.*EPSG:32632.*write_crs"):
        DA.cloudmask.predict(AUXED, aux={"dem": dem.drop_vars("spatial_ref")})
    with pytest.raises(CloudMaskError, match="the scene has no CRS"):
        DA.drop_vars("spatial_ref").cloudmask.predict(AUXED, aux={"dem": dem})
    neither = DA.drop_vars("spatial_ref").cloudmask.predict(AUXED, aux={"dem": dem.drop_vars("spatial_ref")})
    np.testing.assert_array_equal(neither.values, DA.cloudmask.predict(AUXED, aux={"dem": dem}).values)


def test_latitude_and_longitude_without_a_crs_are_degrees() -> None:
    lon, lat = -5 + 0.01 * np.arange(40), 50 - 0.01 * np.arange(30)
    da, there = on_degrees(lon, lat)
    dem = world(0.05, 51, 49, west=0.0)  # so the columns go around the earth, which metres do not
    bare = dem.drop_vars("spatial_ref")
    for names in ({"y": "lat", "x": "lon"}, {"y": "latitude", "x": "longitude"}):
        plain = da.drop_vars("spatial_ref").rename(names)
        for source in (da, plain, plain.chunk(dict.fromkeys(names.values(), 13))):
            for aux in (dem, dem.rename(names), bare.rename(names)):
                seen = source.cloudmask.predict_proba(HEIGHT, aux={"dem": aux}, working_resolution="native")
                np.testing.assert_allclose(seen.values[1], there, atol=1e-3)
    with pytest.raises(CloudMaskError, match=r"aux\['elevation'\] has no CRS"):
        da.cloudmask.predict(HEIGHT, aux={"dem": bare})


def test_an_aux_across_the_antimeridian_is_told_apart_from_the_scene() -> None:
    dem = height(DA, 30.0)
    turned = dem.isel(x=np.roll(np.arange(dem.sizes["x"]), 9))
    with pytest.raises(
        CloudMaskError, match=r"^aux\['elevation'\]: the coordinate 'x' does not rise or fall"
    ):
        DA.cloudmask.predict(AUXED, aux={"dem": turned})


def test_a_dataset_may_hold_its_crs_as_a_variable_and_nothing_strange() -> None:
    dem = height(DA, 30.0, crs=DEGREES)
    expected = DA.cloudmask.predict_proba(AUXED, aux={"dem": dem})
    ds = dem.rio.write_crs(DEGREES, grid_mapping_name="crs").drop_vars("spatial_ref").to_dataset(name="dem")
    as_read = ds.reset_coords("crs")  # what open_dataset gives
    assert set(as_read.data_vars) == {"dem", "crs"}
    for each in (ds, as_read):
        same_odds(DA.cloudmask.predict_proba(AUXED, aux=each).values, expected.values)
    with pytest.raises(OptionError, match=r"name of an aux input 'slope'.*aux\[\['elevation'\]\]"):
        DA.cloudmask.predict(AUXED, aux=ds.assign(slope=ds["dem"]))


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test add models that no other test meets."""
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.mark.usefixtures("fresh_registry")
def test_a_model_that_takes_none_names_those_that_do() -> None:
    with pytest.raises(CloudMaskError, match=r"'toy' has no use for the aux input elevation: it takes none"):
        DA.cloudmask.predict(TOY, aux={"dem": FLAT})
    models.register(replace(AUXED, name="toy-that-takes-height"), overwrite=True)
    with pytest.raises(CloudMaskError, match=r"Models that take it: .*toy-that-takes-height"):
        DA.cloudmask.predict(TOY, aux={"dem": FLAT})


def test_what_a_model_needs_is_asked_for() -> None:
    spec = replace(TOY, name="toy-needs", aux=(AuxInput("vv", required=True),))
    with pytest.raises(CloudMaskError, match=r"needs the aux input vv: aux=\{'vv': ...\}"):
        DA.cloudmask.predict(spec)


def test_no_alias_stands_for_two() -> None:
    names = [alias for aliases in ALIASES.values() for alias in aliases]
    assert len(names) == len(set(names))


def test_without_aux_nothing_is_added() -> None:
    """A model that could take aux and gets none costs the graph nothing."""
    da = DA.chunk(y=30)
    assert not any(
        "regrid" in name or "join" in name for name in da.cloudmask.predict(AUXED).data.dask.layers
    )
    assert isinstance(AUXED, ModelSpec)
