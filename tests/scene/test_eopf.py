"""EOPF products as DataTree, analysis mode and plain groups: all that is known of them is the store's own."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import pytest
import xarray as xr
import zarr

import xcloudmask
from tests.eopf_stores import CPM3, GEOZARR, L1C, L2A, Counting, needs_eopf, pixels, reflectance, tree_of
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.scene import eopf
from xcloudmask.scene.eopf import facts_of, nearness
from xcloudmask.testing import TOY

LEVELS = {
    L1C: ("L1C", "sentinel-2b", "toa"),
    L2A: ("L2A", "sentinel-2a", "boa"),
    GEOZARR: ("L2A", "sentinel-2a", "boa"),
    CPM3: ("L2A", "sentinel-2b", "boa"),
}
#: The upper left corner of each product's tile.
CORNERS = {L1C: (300000, 5000040), CPM3: (499980, 5500020)}
SIX = {"b02": "blue", "b03": "green", "b04": "red", "b08": "nir", "b11": "swir16", "b12": "swir22"}


def described(product: str, names: list[str]) -> xr.DataArray:
    """The same pixels as an array that a user describes: raw numbers, coarser ones repeated."""
    level, sensor, _ = LEVELS[product]
    sizes = [180 if name in ("b02", "b03", "b04", "b08") else 90 for name in names]
    planes = [
        np.kron(pixels(level, n, s), np.ones((180 // s,) * 2, "uint16"))
        for n, s in zip(names, sizes, strict=True)
    ]
    left, top = CORNERS.get(product, (699960, 4700040))
    coords = {"x": left + 5 + 10 * np.arange(180), "y": top - 5 - 10 * np.arange(180), "band": names}
    da = xr.DataArray(np.stack(planes), coords, ("band", "y", "x"))
    return da.rio.write_crs(32633 if product == CPM3 else 32632).cloudmask.describe(
        sensor, level=level, scale=1e-4, offset=-0.1, nodata=0
    )


@needs_eopf
@pytest.mark.parametrize("product", [L1C, L2A, GEOZARR])
def test_a_tree_needs_no_describe(eopf_store, product):
    _, sensor, level = LEVELS[product]
    da = xr.open_datatree(eopf_store(product), engine="zarr").cloudmask.to_array()
    assert (da.attrs["sensor"], da.attrs["level"], da.rio.crs.to_epsg()) == (sensor, level, 32632)
    assert da.chunks is not None
    assert da.dtype == np.float32
    if product != GEOZARR:  # whose root has lost its attributes
        assert str(da.time.values)[:10] == {L1C: "2025-01-13", L2A: "2025-10-08"}[product]
        assert da.item_id.item() == product
        assert da["s2:processing_baseline"].item() == "05.11"
        true = {L1C: 22.4813, L2A: 40.6951}[product]  # datetime is null in one, "null" in the other
        assert da.sun_elevation.item() == pytest.approx(true, abs=1e-4)


@needs_eopf
@pytest.mark.parametrize("product", [L1C, L2A, CPM3])
@pytest.mark.parametrize("decoded", [True, False])
def test_a_tree_is_masked_as_the_same_pixels_that_are_described(eopf_store, product, decoded):
    """Raw integers, too: what mask_and_scale=False leaves in the attributes scales them."""
    tree = xr.open_datatree(eopf_store(product), engine="zarr", mask_and_scale=decoded)
    mask = tree.cloudmask.predict(TOY)
    expected = described(product, list(SIX)).cloudmask.predict(TOY)
    assert mask.values.tobytes() == expected.values.tobytes()
    assert len(np.unique(mask)) > 2
    np.testing.assert_array_equal(mask.x, expected.x)
    np.testing.assert_array_equal(mask.y, expected.y)


@needs_eopf
@pytest.mark.network
@pytest.mark.parametrize("product", [L1C, L2A])
def test_a_real_network_gives_the_same_mask_byte_for_byte(eopf_store, product):
    tree = xr.open_datatree(eopf_store(product), engine="zarr")
    model = f"ukis-6band-{LEVELS[product][0].lower()}"
    mask = tree.cloudmask.predict(model)
    assert mask.values.tobytes() == described(product, list(SIX)).cloudmask.predict(model).values.tobytes()
    assert len(np.unique(mask)) > 1


@needs_eopf
@pytest.mark.parametrize("product", [L1C, L2A])
def test_groups_and_analysis_mode_need_no_describe(eopf_store, product):
    """A group is what xarray opens; analysis mode merges groups under the root's attributes."""
    _, sensor, level = LEVELS[product]
    group = xr.open_dataset(eopf_store(product), engine="zarr", group="measurements/reflectance/r10m")
    assert (group.cloudmask.sensor.name, group.cloudmask.predict(TOY).rio.crs.to_epsg()) == (sensor, 32632)
    expected = described(product, ["b02", "b03", "b04", "b08"]).cloudmask.predict(TOY)
    np.testing.assert_array_equal(group.cloudmask.predict(TOY), expected)

    merged = analysis_mode(eopf_store(product))
    assert merged.cloudmask.sensor.name == sensor
    mask = merged.cloudmask.predict(TOY)
    np.testing.assert_array_equal(mask, described(product, list(SIX)).cloudmask.predict(TOY))
    assert mask.item_id.item() == product
    cleared = merged.cloudmask.apply(mask)
    assert cleared.b04.isnull().any()
    assert "scl" not in merged or not cleared.scl.isnull().any()
    assert merged.cloudmask._array().attrs == {"sensor": sensor, "level": level}


def analysis_mode(path) -> xr.Dataset:
    """What xarray-eopf 0.3.1 makes of a product at 10 m, its resampling apart; it asks for zarr < 3."""
    tree = xr.open_datatree(path, engine="zarr")
    base = tree["measurements/reflectance/r10m"].to_dataset(inherit=False)
    found = {}
    for group in ("measurements/reflectance", "conditions/mask/l2a_classification"):
        for name in ("r10m", "r20m", "r60m"):
            if f"/{group}/{name}" in tree.groups:
                for key, var in tree[f"{group}/{name}"].to_dataset(inherit=False).data_vars.items():
                    found.setdefault(key, var.reindex(x=base.x, y=base.y, method="nearest"))
    if "scl" in found:
        flags = {"flag_values": [0, 1], "flag_meanings": "no_data sat_or_defect_pixel"}
        found["scl"] = found["scl"].astype("uint8").assign_attrs(flags)
    return xr.Dataset(found, attrs=tree.attrs).assign_coords(spatial_ref=xr.DataArray(0))


@needs_eopf
@pytest.mark.parametrize(
    ("product", "fine"), [(L1C, {"b02", "b03", "b04", "b08"}), (L2A, {"b08"}), (GEOZARR, set())]
)
def test_nothing_is_read_while_building_and_no_more_than_is_needed_for_30_m(eopf_store, product, fine):
    """Level 1C has the visible bands at 10 m alone, level 2A b08, GeoZarr none."""
    store = Counting(eopf_store(product), read_only=True)
    tree = xr.open_datatree(store, engine="zarr")
    mask = tree.cloudmask.predict(
        "ukis-6band-l2a" if product != L1C else "ukis-6band-l1c", working_resolution=30
    )
    repr(tree.cloudmask)
    assert store.pixels() == {}
    assert mask.attrs["working_resolution_m"] == [30.0, 30.0]
    tree.cloudmask.to_array(30).sel(band=list(SIX)).compute()
    read = store.pixels()
    assert set(read) == {f"r10m/{b}" if b in fine else f"r20m/{b}" for b in SIX}
    if product == L2A:
        assert sum(read.values()) <= 0.35 * reflectance(eopf_store(product))


@needs_eopf
def test_level_1c_is_read_at_the_least_that_30_m_allow(eopf_store):
    """Each band once in the store, so visible ones and b08 at 10 m: 81 % of its pixels; each chunk once."""
    store = Counting(eopf_store(L1C), read_only=True)
    xr.open_datatree(store, engine="zarr").cloudmask.to_array(30).sel(band=list(SIX)).compute()
    least = sum(reflectance(eopf_store(L1C), name) for name in SIX)
    measured = sum(store.pixels().values())
    assert measured / least == 1
    groups = tree_of(L1C)["members"]["measurements"]["members"]["reflectance"]["members"].values()
    arrays = [each for group in groups for each in group["members"].items() if each[0] not in "xy"]
    pixels_of = {name: array["shape"][0] ** 2 for name, array in arrays}
    share = sum(pixels_of[name] for name in SIX) / sum(pixels_of.values())
    assert share == pytest.approx(0.806, abs=1e-3)
    assert measured / reflectance(eopf_store(L1C)) == pytest.approx(share, abs=0.05)


def test_the_group_of_152_pixels_lies_where_its_coordinates_say(tmp_path):
    """Of 10980 pixels of 10 m: 305 of 360 m and 152 of 720, half a pixel short; a reflectance of 0 is one."""
    path, name = tmp_path / f"{L2A}.zarr", "BOA reflectance from MSI acquisition at spectral band"
    ramp = {305: np.linspace(0, 1, 305**2, dtype="f4"), 152: np.linspace(0, 1, 152**2, dtype="f4")}
    for count, size, bands in ((305, 360, {"b04": 664.6}), (152, 720, {"b04": 664.6, "b11": 1613.7})):
        centres = size * (np.arange(count) + 0.5)
        group = xr.Dataset(
            {
                band: (("y", "x"), ramp[count].reshape(count, count),
                       {"long_name": f"{name} {band} {nm} nm", "proj:epsg": 32632})
                for band, nm in bands.items()
            },
            coords={"y": 4700040 - centres, "x": 699960 + centres},
            attrs={"spatial:shape": [count, count], "spatial:bbox": [0.0, 0.0, 0.0, 0.0]},
        )  # fmt: skip
        group.to_zarr(path, group=f"measurements/reflectance/r{size}m", mode="a", consolidated=False)
    coarse = ramp[152].reshape(152, 152)
    inside = np.minimum(np.arange(305) // 2, 151)
    tree = xr.open_datatree(path, engine="zarr", consolidated=False)
    found = tree.cloudmask.to_array().sel(band="b11")
    np.testing.assert_array_equal(found, coarse[inside][:, inside])
    opened = xcloudmask.open(path, bands=["swir16"])
    np.testing.assert_array_equal(opened[0, 0], coarse)
    assert opened.rio.bounds() == (699960.0, 4590600.0, 809400.0, 4700040.0)


def test_sizes_no_coarser_than_wanted_come_first():
    assert min([10, 20, 60, 120, 360, 720], key=lambda size: nearness(size, 100)) == 60
    assert min([20, 60], key=lambda size: nearness(size, 10)) == 20


@needs_eopf
def test_a_stale_transform_of_an_array_moves_no_pixel(eopf_store):
    """r20m/b08 of GeoZarr says 10 m, r120m/b02 says 60 m."""
    attrs = tree_of(GEOZARR)["members"]["measurements"]["members"]["reflectance"]["members"]
    assert attrs["r20m"]["members"]["b08"]["attributes"]["proj:transform"][0] == 10
    tree = xr.open_datatree(eopf_store(GEOZARR), engine="zarr")
    with pytest.raises(OptionError, match="unknown read_at '30'"):
        tree.cloudmask.to_array("30")
    da = tree.cloudmask.to_array(30)
    np.testing.assert_array_equal(da.sel(band="b08")[::2, ::2], da.sel(band="b08")[1::2, 1::2])  # of 20 m
    assert da.rio.bounds() == (699960.0, 4698240.0, 701760.0, 4700040.0)


@needs_eopf
def test_quality_masks_are_read_by_the_meanings_that_the_store_states(eopf_store):
    tree = xr.open_datatree(eopf_store(L1C), engine="zarr")
    mask = tree["quality/mask/r10m/b02"].load()
    mask.values[:3, 0], mask.values[5, 5] = [4, 16, 32], 128
    found = tree.cloudmask.quality()
    assert np.argwhere(~found.valid.values).tolist() == [[0, 0], [1, 0], [2, 0]]
    assert np.argwhere(found.saturated.sel(band="b02").values).tolist() == [[5, 5]]
    assert (tree.cloudmask.predict(TOY, valid=found.valid)[:3, 0] == 255).all()
    coarse = tree.cloudmask.quality(tree["measurements/reflectance/r20m/b11"])  # a pixel of 20 m holds four
    assert np.argwhere(~coarse.valid.values).tolist() == [[0, 0], [1, 0]]


@needs_eopf
def test_facts_pass_over_what_says_nothing():
    attrs = copy.deepcopy(tree_of(L1C)["attributes"])
    assert attrs["stac_discovery"]["properties"]["datetime"] == "null"
    facts = facts_of(attrs)
    assert (facts.time, facts.sensor, facts.baseline) == (
        "2025-01-13T10:33:09.024000",
        "sentinel-2b",
        "05.11",
    )
    attrs["stac_discovery"]["properties"].update(datetime=None, start_datetime="null", platform="null")
    assert facts_of(attrs).time == "2025-01-13T10:33:09"  # of the name
    assert facts_of(attrs).sensor == "sentinel-2b"
    assert facts_of({}) is None
    assert facts_of({"stac_discovery": {"properties": {"product:type": "S03OLCEFR"}}}) is None


@needs_eopf
def test_what_cpm_3_words_otherwise_means_the_same(eopf_store, tmp_path):
    """Kept apart until all else was done: baseline, quality masks, gaps in one band were wrong at first."""
    path = tmp_path / "renamed.zarr"
    shutil.copytree(eopf_store(CPM3), path)
    zarr.open_array(path / "measurements/reflectance/r10m/b04", mode="r+")[50, 60] = 0  # in this band alone
    zarr.open_array(path / "quality/mask/r20m/b11", mode="r+")[:3, 4] = [16, 32, 128]
    tree = xr.open_datatree(path, engine="zarr")
    da = tree.cloudmask.to_array()
    assert (da.attrs["sensor"], da.attrs["level"], da.rio.crs.to_epsg()) == ("sentinel-2b", "boa", 32633)
    assert da["s2:processing_baseline"].item() == "05.12"  # not 1.0.0, which is the software's
    assert da.sun_elevation.item() == pytest.approx(59.8055, abs=1e-4)
    assert str(da.time.values)[:19] == "2026-07-21T10:05:59"
    group = xr.open_dataset(path, engine="zarr", group="measurements/reflectance/r10m")
    raw = xr.open_datatree(path, engine="zarr", mask_and_scale=False)
    for each in (tree, group, raw):
        assert each.cloudmask.predict(TOY).values[50, 60] == 255
    assert group.cloudmask.sensor.name == "sentinel-2"  # whole wavelengths are those of no satellite
    found = tree.cloudmask.quality(tree["measurements/reflectance/r20m/b11"])
    assert np.argwhere(~found.valid.values).tolist() == [[0, 4], [1, 4]]
    assert np.argwhere(found.saturated.sel(band="b11").values).tolist() == [[2, 4]]


@needs_eopf
@pytest.mark.parametrize(("product", "sensor"), [(L1C, "sentinel-2b"), (L2A, "sentinel-2a")])
def test_wavelengths_tell_the_satellite_where_nothing_else_does(product, sensor):
    members = tree_of(product)["members"]["measurements"]["members"]["reflectance"]["members"]
    arrays = [node["attributes"] for node in members["r10m"]["members"].values()]
    facts = facts_of({}, arrays)
    assert (facts.sensor, facts.level) == (sensor, LEVELS[product][2])


@needs_eopf
def test_a_mask_of_a_product_is_written_and_applied(eopf_store, tmp_path):
    tree = xr.open_datatree(eopf_store(L2A), engine="zarr")
    mask = tree.cloudmask.predict(TOY)
    mask.cloudmask.to_zarr(tmp_path / "mask.zarr")
    back = xr.open_zarr(tmp_path / "mask.zarr")
    np.testing.assert_array_equal(back.cloud_mask.squeeze(), mask)
    cleared = tree.cloudmask.apply(mask)
    assert cleared.sizes["x"] == mask.sizes["x"]
    assert bool(cleared.isnull().any())


def test_other_trees_are_told_what_is_looked_for():
    tree = xr.DataTree.from_dict({"/other": xr.Dataset({"a": ("x", [1])})})
    with pytest.raises(CloudMaskError, match=r"no group 'measurements/reflectance'.*/other.*to_dataset"):
        tree.cloudmask.predict()
    assert "<cloudmask>" in repr(tree.cloudmask)


@needs_eopf
def test_a_band_of_one_chunk_is_decoded_once_and_masked_in_pieces(eopf_store, monkeypatch):
    """Level 2A of October 2025 has one chunk, or four, a band."""
    monkeypatch.setattr(eopf, "_PIECE", 40)
    store = Counting(eopf_store(L2A), read_only=True)
    tree = xr.open_datatree(store, engine="zarr")
    da = tree.cloudmask.to_array()
    assert max(map(max, da.chunks[1:])) <= 80
    expected = described(L2A, list(SIX)).cloudmask.predict(TOY)
    np.testing.assert_array_equal(da.cloudmask.predict(TOY), expected)
    files = (eopf_store(L2A) / "measurements/reflectance/r10m").glob("b0[48]/[01].*")
    read = store.pixels()
    assert read["r10m/b04"] + read["r10m/b08"] == sum(file.stat().st_size for file in files)


@needs_eopf
def test_a_tree_may_begin_at_its_reflectance(eopf_store):
    """What the root says is lost, what the arrays say is not."""
    tree = xr.open_datatree(eopf_store(L1C), engine="zarr", group="measurements/reflectance")
    whole = xr.open_datatree(eopf_store(L1C), engine="zarr")
    mask = tree.cloudmask.predict(TOY)
    assert tree.cloudmask.sensor.name == "sentinel-2b"
    np.testing.assert_array_equal(mask, whole.cloudmask.predict(TOY))
    with pytest.raises(CloudMaskError, match=r"no group 'quality/mask'.*from its root"):
        tree.cloudmask.quality()
    with pytest.raises(CloudMaskError, match=r"no mask: tree\.cloudmask\.predict"):
        tree.cloudmask.to_zarr("x.zarr")


@needs_eopf
def test_xarray_eopf_itself_gives_the_mask_of_the_tree(eopf_store):
    """Where it is installed (without its dependencies, as it asks for zarr < 3)."""
    pytest.importorskip("xarray_eopf")
    merged = xr.open_dataset(str(eopf_store(L1C)), engine="eopf-zarr", chunks={})
    tree = xr.open_datatree(eopf_store(L1C), engine="zarr")
    np.testing.assert_array_equal(merged.cloudmask.predict(TOY), tree.cloudmask.predict(TOY))


@needs_eopf
def test_quality_masks_that_lost_their_meanings_are_refused(eopf_store):
    tree = xr.open_datatree(eopf_store(L1C), engine="zarr")
    for group in tree["quality/mask"].children.values():
        for mask in group.data_vars.values():
            mask.attrs.pop("flag_meanings", None)
    with pytest.raises(CloudMaskError, match="no bit for MSI_LOST"):
        tree.cloudmask.quality()
