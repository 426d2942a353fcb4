"""What a store says of its grid by the GeoZarr conventions: right by their schemas, read by others."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import rasterix
import rioxarray
import xarray as xr
import zarr_cm
from affine import Affine

import xcloudmask  # noqa: F401  registers the accessor
from xcloudmask.store.geozarr import ImageGrid, attributes, multiscales

SCHEMAS = Path(__file__).parents[3] / "shared" / "eopf" / "conventions"
HERE = Affine(10, 0, 699960, 0, -10, 4700040)


def made(crs: Any = 32632, dims: tuple[str, ...] = ("time", "y", "x"), step: float = 10.0) -> xr.DataArray:
    shape = (2, 130, 90)[-len(dims) :]
    values = np.random.default_rng(3).choice(np.array([0, 1, 3, 255], "u1"), shape)
    y, x = 4700040 - step * (np.arange(130) + 0.5), 699960 + step * (np.arange(90) + 0.5)
    times = {"time": np.array(["2025-10-08", "2025-10-13"], "M8[ns]")} if dims[0] == "time" else {}
    flags = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
    da = xr.DataArray(values, dims=dims, coords={"y": y, "x": x, **times}, name="cloud_mask", attrs=flags)
    return da if crs is None else da.rio.write_crs(crs)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("geozarr") / "masks.zarr"
    made().cloudmask.to_zarr(path, overviews=(2, 4), progress=False)
    return path


def documents(store: Path) -> dict[str, Any]:
    """Those of all groups that say anything of a convention."""
    found = {
        str(path.parent.relative_to(store)): json.loads(path.read_text()) for path in store.rglob("zarr.json")
    }
    return {name: doc for name, doc in found.items() if "zarr_conventions" in doc["attributes"]}


def test_every_document_is_right_by_the_schemas_and_by_zarr_cm(store: Path) -> None:
    said = documents(store)
    assert sorted(said) == [".", "overviews/2", "overviews/4"]
    for name, doc in said.items():
        zarr_cm.spatial.validate_group_metadata(doc)
        zarr_cm.proj.validate_group_metadata(doc)
        if name == ".":
            zarr_cm.multiscales.validate_group_metadata(doc)


@pytest.mark.skipif(not SCHEMAS.is_dir(), reason="needs ../shared/eopf: the schemas of the conventions")
def test_every_document_is_right_by_the_schemas_in_shared(store: Path) -> None:
    names = {"spatial": "spatial", "geo-proj": "proj", "multiscales": "multiscales"}
    schemas = {own: json.loads((SCHEMAS / f"{file}.schema.json").read_text()) for file, own in names.items()}
    for path, doc in documents(store).items():
        held = schemas if path == "." else {key: schemas[key] for key in ("spatial", "proj")}
        for schema in held.values():
            jsonschema.validate(doc, schema)
            # draft 7 passes over what stands beside a $ref, and so over the registrations: those by hand
            entry = jsonschema.Draft7Validator(schema["$defs"]["conventionMetadata"])
            assert any(map(entry.is_valid, doc["attributes"]["zarr_conventions"]))


@pytest.mark.parametrize(("group", "factor"), [(None, 1), ("overviews/2", 2), ("overviews/4", 4)])
def test_rioxarray_rasterix_and_xarray_read_the_crs_and_the_transform(
    store: Path, group: str | None, factor: int
) -> None:
    expected = HERE @ Affine.scale(factor)
    ds = xr.open_zarr(store, group=group)
    assert ds.rio.crs.to_epsg() == ds.cloud_mask.rio.crs.to_epsg() == 32632
    assert ds.cloud_mask.rio.transform() == expected
    np.testing.assert_allclose(ds.x, expected.c + expected.a * (np.arange(ds.sizes["x"]) + 0.5))
    np.testing.assert_allclose(ds.y, expected.f + expected.e * (np.arange(ds.sizes["y"]) + 0.5))
    # by the conventions alone: no coordinates, no CF
    plain = ds.drop_vars(["x", "y", "spatial_ref"])
    plain.cloud_mask.attrs.pop("grid_mapping", None)
    indexed = rasterix.assign_index(plain)
    assert indexed.xindexes["x"].transform() == expected
    assert indexed.xindexes["x"].crs.to_epsg() == 32632


@pytest.mark.skipif(
    tuple(map(int, rioxarray.__version__.split(".")[:2])) < (0, 23), reason="rioxarray 0.23 needs Python 3.12"
)
def test_rioxarray_reads_the_conventions_alone(store: Path) -> None:
    plain = xr.open_zarr(store, group="overviews/2").drop_vars(["x", "y", "spatial_ref"])
    assert plain.rio.crs.to_epsg() == 32632
    assert plain.rio.transform() == HERE @ Affine.scale(2)
    assert (plain.rio.x_dim, plain.rio.y_dim) == ("x", "y")


def test_the_layout_has_a_figure_for_each_dimension_and_names_arrays_that_are_there(store: Path) -> None:
    said = documents(store)["."]["attributes"]["multiscales"]
    assert [entry["asset"] for entry in said["layout"]] == [
        "cloud_mask", "overviews/2/cloud_mask", "overviews/4/cloud_mask",
    ]  # fmt: skip
    for entry in said["layout"]:
        array = xr.open_zarr(store / Path(entry["asset"]).parent).cloud_mask
        assert list(array.shape[-2:]) == entry["spatial:shape"]
        assert list(array.rio.transform()[:6]) == entry["spatial:transform"]
    for entry in said["layout"][1:]:
        assert len(entry["transform"]["scale"]) == len(entry["transform"]["translation"]) == array.ndim
        assert entry["derived_from"] == "cloud_mask"
        assert entry["resampling_method"] == "mode"


def test_a_crs_without_a_code_is_written_in_full(tmp_path: Path) -> None:
    made("+proj=sinu +R=6371007.181 +units=m").cloudmask.to_zarr(tmp_path, progress=False)
    said = documents(tmp_path)["."]
    assert "proj:code" not in said["attributes"]
    zarr_cm.proj.validate_group_metadata(said)
    read = rioxarray.crs.crs_from_user_input(said["attributes"]["proj:wkt2"])
    assert xr.open_zarr(tmp_path).rio.crs.to_proj4() == read.to_proj4()


def test_what_is_not_known_is_not_said(tmp_path: Path) -> None:
    made(None).cloudmask.to_zarr(tmp_path / "a", progress=False)
    said = documents(tmp_path / "a")["."]["attributes"]
    assert "spatial:transform" in said
    assert not [key for key in said if key.startswith("proj:")]
    for bare in (made(None).drop_vars(["x", "y"]), made(None).assign_coords(x=np.arange(90.0) ** 2)):
        bare.cloudmask.to_zarr(tmp_path / "b", overwrite=True, progress=False)
        assert not documents(tmp_path / "b")


def test_a_store_that_is_replaced_says_nothing_of_the_old_mask(store: Path, tmp_path: Path) -> None:
    made().cloudmask.to_zarr(tmp_path, overviews=(2,), progress=False)
    made(None).drop_vars(["x", "y"]).cloudmask.to_zarr(tmp_path, overwrite=True, progress=False)
    assert not documents(tmp_path)
    assert "overviews" not in [path.name for path in tmp_path.iterdir()]


def test_coordinates_in_single_precision_are_even() -> None:
    """As a global product at 1/112 degree has them: their steps differ by 0.2 %."""
    x = (-180 + (np.arange(40320) + 0.5) / 112).astype("f4")
    coords = xr.Dataset(coords={"x": x, "y": np.array([1.0, 0.5], "f4")})
    grid = ImageGrid.of(coords, ("y", "x"), (2, x.size))
    assert grid.transform is not None
    np.testing.assert_allclose(grid.transform, (1 / 112, 0, -180, 0, -0.5, 1.25), atol=2e-5)
    assert ImageGrid.of(coords.assign_coords(x=x**3), ("y", "x"), (2, x.size)).transform is None


def test_rows_from_south_to_north_and_pixels_of_other_shape() -> None:
    grid = ImageGrid(("lat", "lon"), (5, 7), (0.25, 0.0, 10.0, 0.0, 0.5, -2.0))
    assert attributes(grid)["spatial:bbox"] == [10.0, -2.0, 11.75, 0.5]
    coarse = grid.coarser(4)
    assert coarse.shape == (2, 2)
    assert coarse.transform == (1.0, 0.0, 10.0, 0.0, 2.0, -2.0)
    layout = multiscales("mask", 2, grid, {4: "overviews/4/mask"}, "mode", {})["multiscales"]["layout"]
    assert layout[1]["transform"]["scale"] == [4.0, 4.0]
