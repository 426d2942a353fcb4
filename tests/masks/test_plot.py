"""Pictures: the colours on the canvas, where they lie, and how little is computed for them."""

from __future__ import annotations

import itertools
import sys

import dask.array as dask_array
import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import xcloudmask  # noqa: F401  registers the accessors
from xcloudmask.classes import COLOURS, GAP_FACE, OTHER_COLOURS, SCHEMES, class_colours
from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.masks import picture
from xcloudmask.masks.plot import GAP_LINES

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

FLAGS = {
    "flag_values": [0, 1, 2, 3, 4, 5, 255],
    "flag_meanings": "clear cloud thin_cloud cloud_shadow snow water no_data",
}
CODES = dict(zip(FLAGS["flag_meanings"].split(), FLAGS["flag_values"], strict=True))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def grid(ny: int, nx: int, pixel: float = 10.0) -> dict[str, np.ndarray]:
    return {"y": 5_000_000 - pixel * np.arange(ny), "x": 600_000 + pixel * np.arange(nx)}


def scene(ny: int = 7, nx: int = 40, bands=("blue", "green", "red", "nir"), value=0.3) -> xr.DataArray:
    data = np.full((len(bands), ny, nx), value, np.float32)
    da = xr.DataArray(data, dims=("band", "y", "x"), coords={"band": list(bands), **grid(ny, nx)})
    return da.rio.write_crs("EPSG:32632")


def striped_mask(nx: int = 40) -> xr.DataArray:
    """One row for each class, from north to south."""
    values = np.repeat(np.array(FLAGS["flag_values"], np.uint8)[:, None], nx, axis=1)
    da = xr.DataArray(values, dims=("y", "x"), coords=grid(7, nx), attrs=FLAGS, name="cloud_mask")
    return da.rio.write_crs("EPSG:32632")


def test_a_composite_is_titled_with_all_of_its_dates():
    days = np.datetime64("2024-05-03", "ns") + 7 * np.arange(6) * np.timedelta64(1, "D")
    many = scene().expand_dims(time=days)
    masks = xr.zeros_like(many.isel(band=0, drop=True), np.uint8).assign_attrs(FLAGS)
    for data in (many, many.to_dataset("band")):
        ax = data.cloudmask.composite(masks).cloudmask.plot()
        assert ax.figure.get_suptitle() == "6 dates, 2024-05-03 to 2024-06-07"


@pytest.mark.parametrize(
    ("by", "title"),
    [
        ("day", "2024-05-10 (2 of 6)"),
        ("week", "week from 2024-05-06 (2 of 6)"),
        ("month", "2024-06 (2 of 2)"),
        ("season", "2024-06 to 2024-08 (2 of 2)"),
        ("year", "2024"),
        ("20D", "20D from 2024-05-23 (2 of 2)"),
    ],
)
def test_a_composite_is_titled_with_the_period_and_not_with_its_first_day(by: str, title: str) -> None:
    days = np.datetime64("2024-05-03", "ns") + 7 * np.arange(6) * np.timedelta64(1, "D")
    many = scene().expand_dims(time=days)
    masks = xr.zeros_like(many.isel(band=0, drop=True), np.uint8).assign_attrs(FLAGS)
    for data in (many, many.to_dataset("band")):
        periods = data.cloudmask.composite(masks, by=by)
        assert periods.cloudmask.plot(time=min(1, periods.time.size - 1)).figure.get_suptitle() == title


def canvas(ax) -> np.ndarray:
    ax.figure.canvas.draw()
    return np.asarray(ax.figure.canvas.buffer_rgba())[..., :3] / 255


def colour_at(ax, image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour drawn at a place given in the units of the axes."""
    column, row = ax.transData.transform((x, y))
    return image[image.shape[0] - 1 - int(row), int(column)]


def middle_of_rows(ax, n: int):
    left, right = ax.get_xlim()
    bottom, top = ax.get_ylim()
    return [((left + right) / 2, top - (top - bottom) * (i + 0.5) / n) for i in range(n)]


def test_each_class_of_a_mask_alone_has_its_own_colour_on_the_canvas():
    ax = striped_mask().cloudmask.plot()
    image = canvas(ax)
    seen = [colour_at(ax, image, *at) for at in middle_of_rows(ax, 7)]
    for name, colour in zip(FLAGS["flag_meanings"].split()[:-1], seen, strict=False):
        np.testing.assert_allclose(colour, to_rgb(COLOURS[name]), atol=0.01, err_msg=name)
    spread = [min(np.abs(seen[6] - to_rgb(c)).max() for c in (GAP_FACE, GAP_LINES))]
    assert spread[0] < 0.25, "no data is drawn in the greys of the hatching"
    for a, b in itertools.combinations(range(7), 2):
        assert np.abs(seen[a] - seen[b]).max() > 0.08, (a, b)


def test_no_data_is_hatched():
    ax = striped_mask().cloudmask.plot()
    image = canvas(ax)
    left, right = ax.get_xlim()
    y = middle_of_rows(ax, 7)[6][1]
    row = np.array([colour_at(ax, image, x, y) for x in np.linspace(left, right, 400)[5:-5]])
    assert np.abs(row - to_rgb(GAP_FACE)).max(1).min() < 0.01
    assert np.abs(row - to_rgb(GAP_LINES)).max(1).min() < 0.15


def test_over_a_scene_classes_tint_the_picture_and_clear_does_not():
    data = scene(21, 40)
    mask = striped_mask().isel(y=np.repeat(np.arange(7), 3)).assign_coords(y=data.y)
    ax = data.cloudmask.plot(mask, alpha=0.5)
    assert len(ax.figure.axes) == 2, "the picture, and the picture with the mask over it"
    image = canvas(ax)
    grey = 0.5**picture.GAMMA  # a constant band is drawn in the middle of its range
    for name, at in zip(FLAGS["flag_meanings"].split()[:-1], middle_of_rows(ax, 7), strict=False):
        want = np.full(3, grey) if name == "clear" else (np.array(to_rgb(COLOURS[name])) + grey) / 2
        np.testing.assert_allclose(colour_at(ax, image, *at), want, atol=0.02, err_msg=name)
    bare = ax.figure.axes[0]
    for at in middle_of_rows(bare, 7):
        np.testing.assert_allclose(colour_at(bare, image, *at), grey, atol=0.01)
    left, right = ax.get_xlim()
    y = middle_of_rows(ax, 7)[6][1]
    gap = np.array([colour_at(ax, image, x, y) for x in np.linspace(left, right, 400)[5:-5]])
    assert np.ptp(gap, axis=0).max() > 0.15, "where the mask has no data, the hatching shows, not the picture"


def test_classes_have_an_outline_in_their_full_colour():
    data = scene(20, 20)
    values = np.zeros((20, 20), np.uint8)
    values[5:15, 5:15] = 3
    mask = xr.DataArray(values, dims=("y", "x"), attrs=FLAGS)
    ax = data.cloudmask.plot(mask)
    tints = ax.images[-1].get_array()
    assert tints[5, 8, 3] > 0.9
    assert tints[9, 9, 3] == pytest.approx(0.5)
    assert tints[4, 8, 3] == 0


def deficient(rgb: np.ndarray, kind: str) -> np.ndarray:
    """How a dichromat sees a colour.

    Viénot, Brettel and Mollon (1999), Color Research & Application 24, 243-252, for red-green;
    Machado, Oliveira and Fernandes (2009), IEEE Trans. Vis. Comput. Graph. 15, 1291-1298, for blue.
    """
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = {
        "normal": np.eye(3),
        "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
        "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
        "tritan": np.array(
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
        ),
    }[kind]
    seen = np.clip(matrix @ linear, 0, 1)
    return np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)


def lab(rgb: np.ndarray) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ linear
        / np.array([0.9505, 1.0, 1.089])
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", ["normal", "protan", "deutan", "tritan"])
def test_colours_differ_for_colour_blind_eyes(kind):
    schemes = [[*codes, "no_data"] for codes, _ in SCHEMES.values()]
    for names in (*schemes, ["clear", "cloud", "haze", "smoke", "no_data"]):
        colours = class_colours(names)
        for a, b in itertools.combinations(names, 2):
            one, other = (lab(deficient(np.array(to_rgb(colours[n])), kind)) for n in (a, b))
            least = (
                8 if {a, b} & {"clear", "not_cloud", "land"} and "no_data" in (a, b) else 15
            )  # hatched besides
            assert np.linalg.norm(one - other) > least, (kind, a, b)


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_the_legend_is_readable_and_classes_and_gaps_the_same_in_a_dark_style(style):
    def light(colour) -> float:
        return (lab(np.array(to_rgb(colour)))[0] + 16) / 116

    with plt.style.context(style):
        ax = striped_mask().cloudmask.plot()
        (legend,) = ax.figure.legends
        face = light(ax.figure.get_facecolor())
        for text in (*legend.get_texts(), ax.title, ax.xaxis.label):
            assert abs(light(text.get_color()) - face) > 0.5, text
        image = canvas(ax)
    for name, at in zip(FLAGS["flag_meanings"].split()[:-1], middle_of_rows(ax, 7), strict=False):
        np.testing.assert_allclose(colour_at(ax, image, *at), to_rgb(COLOURS[name]), atol=0.01, err_msg=name)
    swatch = legend.get_patches()[-1]
    assert swatch.get_hatch(), "no data is hatched in the legend, too"


def test_every_scheme_gives_each_of_its_classes_a_colour_of_its_own():
    for name, (codes, _) in SCHEMES.items():
        colours = class_colours([*codes, "no_data"])
        assert len(set(colours.values())) == len(colours), name
    unknown = class_colours([f"c{i}" for i in range(12)])
    assert len(unknown) == 12
    assert set(unknown.values()) == set(OTHER_COLOURS)


def texts(ax) -> list[str]:
    return [text.get_text() for legend in ax.figure.legends for text in legend.get_texts()]


def test_legend_names_the_classes_the_mask_can_tell_and_no_data_only_where_there_is_some():
    whole = striped_mask().isel(y=slice(0, 6))
    assert texts(whole.cloudmask.plot()) == ["clear", "cloud", "thin cloud", "cloud shadow", "snow", "water"]
    assert texts(striped_mask().cloudmask.plot())[-1] == "no data"
    over = scene(6).cloudmask.plot(whole)
    assert texts(over)[0] == "clear (not tinted)"
    assert texts(striped_mask().cloudmask.plot(legend=False)) == []
    gappy = scene()
    gappy[:, 2, 3] = np.nan
    assert texts(gappy.cloudmask.plot()) == ["no data"]
    assert texts(scene().cloudmask.plot()) == []


def test_class_names_go_by_the_scheme_not_by_the_code():
    mask = striped_mask().isel(y=[1]).assign_attrs(flag_values=[0, 1], flag_meanings="land water")
    ax = mask.cloudmask.plot()
    left, right = ax.get_xlim()
    np.testing.assert_allclose(
        colour_at(ax, canvas(ax), (left + right) / 2, np.mean(ax.get_ylim())),
        to_rgb(COLOURS["water"]),
        atol=0.01,
    )


def test_axes_are_in_km_and_the_edges_are_those_of_the_pixels():
    ax = scene(7, 40).cloudmask.plot()
    assert ax.get_xlabel() == "Easting (km, EPSG:32632)"
    np.testing.assert_allclose(ax.get_xlim(), (599.995, 600.395))
    np.testing.assert_allclose(ax.get_ylim(), (4999.935, 5000.005))


def test_axes_in_degrees_and_in_pixels():
    data = scene(5, 5).drop_vars("spatial_ref")
    degrees = data.rename(y="lat", x="lon").assign_coords(
        lat=50 - 0.1 * np.arange(5), lon=7 + 0.1 * np.arange(5)
    )
    ax = degrees.cloudmask.plot()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Longitude (°)", "Latitude (°)")
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.radians(49.8)))
    ax = data.drop_vars(["y", "x"]).cloudmask.plot()
    assert ax.get_ylabel() == "Row (pixels)"
    assert ax.get_ylim() == (5, 0), "the first row is at the top"


@pytest.mark.parametrize("order", [("y", "x"), ("x", "y")])
@pytest.mark.parametrize("flip", [False, True])
def test_north_is_up_whatever_the_order_of_the_array(order, flip):
    mask = striped_mask().transpose(*order)
    mask = mask.isel(y=slice(None, None, -1), x=slice(None, None, -1)) if flip else mask
    ax = mask.cloudmask.plot()
    north = middle_of_rows(ax, 7)[1]
    np.testing.assert_allclose(colour_at(ax, canvas(ax), *north), to_rgb(COLOURS["cloud"]), atol=0.01)


def test_bands_for_the_picture_true_false_or_grey():
    titles = {
        ("blue", "green", "red"): "true colour",
        ("red", "green", "nir"): "nir, red, green",
        ("red", "nir", "swir16"): "swir16, nir, red",
        ("B1", "nir"): "B1",
    }
    for bands, title in titles.items():
        assert scene(4, 4, bands).cloudmask.plot().get_title(loc="left") == title
    assert scene().cloudmask.plot(rgb="nir").get_title(loc="left") == "nir"
    assert scene().sel(band="red").cloudmask.plot().get_title(loc="left") == "red"
    with pytest.raises(BandError, match="swir16, which the array lacks; it has blue, green"):
        scene().cloudmask.plot(rgb=("swir16", "nir", "red"))
    with pytest.raises(CloudMaskError, match="three bands, or one"):
        scene().cloudmask.plot(rgb=("red", "nir"))


def test_red_green_and_blue_are_not_mixed_up():
    data = scene(4, 4, value=0.0)
    data.loc[{"band": "red"}][:, :2] = 1.0  # red in the west, dark elsewhere
    pixels = data.cloudmask.plot(stretch=(0, 100)).images[0].get_array()
    assert pixels[0, 0, 0] == 1
    assert pixels[0, 3, 0] == 0


def test_declared_nodata_is_no_data_in_the_picture():
    data = (scene(4, 4) * 10_000).astype("uint16").assign_attrs(nodata=7, _FillValue=9)
    data[:, 0, 0] = 7
    data[:, 0, 2] = 9
    pixels = data.cloudmask.plot().images[0].get_array()
    np.testing.assert_array_equal(pixels[0, :, 3], [0, 1, 0, 1])
    assert pixels[1:, :, 3].all()


def test_large_arrays_are_thinned_before_they_are_computed():
    asked = []

    def reading(block):
        asked.append(block.shape)
        return block

    n = 4000
    data = dask_array.ones((3, 5, n, n), chunks=(1, 1, 1000, 1000), dtype="f4").map_blocks(
        reading, dtype="f4"
    )
    asked.clear()
    big = xr.DataArray(
        data,
        dims=("time", "band", "y", "x"),
        coords={"band": ["blue", "green", "red", "nir", "B9"], **grid(n, n)},
    )
    ax = big.cloudmask.plot(time=1)
    assert max(ax.images[0].get_array().shape) <= picture.LIMIT
    assert ax.images[0].get_array().shape[:2] == (1334, 1334)
    assert len(asked) == 3 * 16, "three bands of one time, and no chunk twice"
    np.testing.assert_allclose(np.diff(ax.get_xlim()), n * 10, err_msg="the edges are the whole array's")


def test_scene_and_mask_are_computed_in_one_go():
    reads = []

    def reading(block):
        reads.append(1)
        return block

    source = dask_array.ones((3, 64, 64), chunks=(3, 64, 64), dtype="f4").map_blocks(reading, dtype="f4")
    reads.clear()
    data = xr.DataArray(source, dims=("band", "y", "x"), coords={"band": ["red", "green", "blue"]})
    mask = (data.isel(band=0) > 0.5).astype("uint8").assign_attrs(FLAGS).drop_vars("band")
    data.cloudmask.plot(mask)
    assert len(reads) == 1


def test_several_times_draw_the_first_and_say_so():
    times = np.array(["2020-01-01T10:00", "2020-02-01T10:00"], "M8[ns]")
    data = xr.concat([scene(), scene() * 2], "time").assign_coords(time=times)
    with pytest.warns(UserWarning, match=r"2 times: drawing the first, 2020-01-01 10:00.*plot\(time="):
        data.cloudmask.plot()
    for time in (1, -1, "2020-02-01", times[1]):
        assert "2020-02-01 10:00 (2 of 2)" in data.cloudmask.plot(time=time).figure.get_suptitle()
    with pytest.raises(OptionError, match="2020-02-01"):
        data.cloudmask.plot(time="2021-02-01")
    with pytest.raises(OptionError, match="2 times: 0 to 1"):
        data.cloudmask.plot(time=2)
    mask = striped_mask().expand_dims(time=3)
    with pytest.raises(CloudMaskError, match="other numbers of times"):
        data.cloudmask.plot(mask)


def test_the_chosen_time_is_the_one_that_is_drawn():
    masks = (
        xr.concat([striped_mask() * 0, striped_mask() * 0 + 1], "time").astype("uint8").assign_attrs(FLAGS)
    )
    ax = masks.cloudmask.plot(time=1)
    at = middle_of_rows(ax, 1)[0]
    np.testing.assert_allclose(colour_at(ax, canvas(ax), *at), to_rgb(COLOURS["cloud"]), atol=0.01)


def test_probabilities_are_maps_of_one_scale():
    names = ["clear", "cloud", "cloud_shadow"]
    values = np.stack([np.full((7, 40), v, "f4") for v in (0.1, 0.7, np.nan)])
    proba = xr.DataArray(values, dims=("class", "y", "x"), coords={"class": names, **grid(7, 40)})
    ax = proba.cloudmask.plot()
    maps = [a for a in ax.figure.axes if a.images and a.get_title(loc="left")]
    assert [a.get_title(loc="left") for a in maps] == [f"probability of {n.replace('_', ' ')}" for n in names]
    assert {a.images[0].get_clim() for a in maps} == {(0, 1)}
    assert maps[2].images[0].get_array().mask.all()
    spread = proba.assign_coords({"class": ["clear", "cloud", "uncertainty"]}).cloudmask.plot()
    assert spread.get_title(loc="left") == "uncertainty"
    one = proba.sel({"class": "cloud"})
    assert one.cloudmask.plot().get_title(loc="left") == "probability of cloud"
    assert len(scene().cloudmask.plot(one).figure.axes) == 3  # picture, map, colour bar
    with pytest.raises(CloudMaskError, match="one class"):
        proba.cloudmask.plot(ax=plt.figure().subplots())


def test_on_an_ax_of_the_user_the_mask_lies_over_the_scene():
    figure, ax = plt.subplots()
    assert scene().cloudmask.plot(striped_mask(), ax=ax) is ax
    assert figure.axes == [ax]
    assert len(ax.images) == 2
    assert ax.get_legend() is not None


@pytest.mark.parametrize("shape", [(40, 40), (20, 60), (60, 20)])
def test_nothing_is_cut_off_and_little_of_the_figure_is_empty(shape):
    data = scene(*shape)
    mask = xr.DataArray(np.ones(shape, np.uint8), dims=("y", "x"), attrs=FLAGS)
    for ax in (data.cloudmask.plot(mask), data.cloudmask.plot(), mask.cloudmask.plot()):
        image = canvas(ax)
        height, width = image.shape[:2]
        drawn = [ax.title, ax._left_title, ax.xaxis.label, *ax.figure.legends]
        for part in drawn:
            box = part.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, part  # noqa: PT018
        maps = sum(np.prod(a.get_window_extent().size) for a in ax.figure.axes)
        assert maps / (height * width) > 0.5


def test_a_boolean_mask_is_drawn_as_what_it_is():
    where = striped_mask() == 3
    assert texts(where.cloudmask.plot()) == ["masked"]


def test_a_dataset_of_bands_plots():
    data = scene().drop_vars("spatial_ref").to_dataset("band")
    assert data.cloudmask.plot().get_title(loc="left") == "true colour"


def test_values_that_cannot_be_drawn_as_usual():
    bare = np.full((3, 4, 4), np.nan, "f4")
    bare = xr.DataArray(bare, dims=("band", "y", "x"), coords={"band": ["red", "green", "blue"]})
    assert texts(bare.cloudmask.plot()) == ["no data"]
    with pytest.raises(CloudMaskError, match="this is no mask"):
        scene().cloudmask.plot(striped_mask().drop_attrs())
    with pytest.raises(CloudMaskError, match="reproject_match"):
        scene(7, 20).cloudmask.plot(striped_mask())
    with pytest.raises(CloudMaskError, match="alpha=2"):
        scene().cloudmask.plot(striped_mask(), alpha=2)
    with pytest.raises(CloudMaskError, match="rising percentiles"):
        scene().cloudmask.plot(stretch=(98, 2))
    with pytest.raises(CloudMaskError, match=r"isel\(orbit=0\)"):
        scene().expand_dims(orbit=2).cloudmask.plot()
    with pytest.raises(CloudMaskError, match="nothing to draw"):
        scene().isel(y=slice(0, 0)).cloudmask.plot()


def test_without_matplotlib_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'xcloudmask\[plot\]'"):
        scene().cloudmask.plot()


def test_one_axes_for_each_map_or_one_map_an_axes_in_a_loop():
    _, axes = plt.subplots(1, 2)
    assert scene().cloudmask.plot(striped_mask(), ax=axes) is axes[1]
    assert axes[0].get_title(loc="left") == "true colour"
    assert axes[1].get_title(loc="left") == "cloud mask"
    _, several = plt.subplots(1, 3)
    times = striped_mask().expand_dims(time=3)
    for ax, each in zip(several, times, strict=True):
        assert each.cloudmask.plot(ax=ax) is ax
    with pytest.raises(CloudMaskError, match="holds 3 axes, and there are 2 maps"):
        scene().cloudmask.plot(striped_mask(), ax=several)


def dated(times: int = 5) -> xr.DataArray:
    """Masks of which the first is all clear, the second all cloud, and so on; the last has a gap."""
    values = np.stack([np.full((6, 9), code, np.uint8) for code in (0, 1, 3, 2, 4)[:times]])
    values[-1, :3] = 255
    days = np.array(["2026-05-01", "2026-05-06", "2026-05-11", "2026-06-01", "2026-06-06"][:times], "M8[ns]")
    return xr.DataArray(values, dims=("time", "y", "x"), coords={"time": days, **grid(6, 9)}, attrs=FLAGS)


@pytest.mark.parametrize(
    ("time", "shown"),
    [
        ("all", [0, 1, 2, 3, 4]), ([1, "2026-06-01"], [1, 3]), (slice(1, 3), [1, 2]),
        (slice("2026-05-06", "2026-05-31"), [1, 2]), (slice(None, None, 2), [0, 2, 4]),
    ],
)  # fmt: skip
def test_several_times_are_small_multiples(time, shown):
    ax = dated().cloudmask.plot(time=time, columns=3)
    panels = [a for a in ax.figure.axes if a.images]
    assert [a.get_title(loc="left")[:10] for a in panels] == [str(dated().time.values[i])[:10] for i in shown]
    image = canvas(ax)
    for a, index in zip(panels, shown, strict=True):
        name = ("clear", "cloud", "cloud_shadow", "thin_cloud", "snow")[index]
        at = (np.mean(a.get_xlim()), a.get_ylim()[0] + 0.2 * np.ptp(a.get_ylim()))
        np.testing.assert_allclose(colour_at(a, image, *at), to_rgb(COLOURS[name]), atol=0.01)
    assert len({a.get_position().y0.round(3) for a in panels}) == -(-len(shown) // 3)
    assert ("no data" in texts(ax)) == (4 in shown)
    assert texts(ax).count("cloud") == 1


def test_over_scenes_each_time_is_one_map_of_its_own_scene():
    pictures = xr.concat([scene(6, 9, value=v) for v in (0.2, 0.3, 0.4)], dim="time")
    pictures[1, :, :3] = np.nan
    ax = pictures.cloudmask.plot(dated(3).drop_vars("time"), time="all")
    panels = [a for a in ax.figure.axes if a.images]
    assert [len(a.images) for a in panels] == [2, 2, 2]
    assert not panels[1].images[0].get_array()[0, 0, 3]
    assert panels[0].images[0].get_array()[0, 0, 3]


def test_too_many_times_and_none_say_so():
    many = xr.concat([dated(1)] * 40, dim="time")
    with pytest.raises(CloudMaskError, match=r"is 40 times, and a picture shows 1 to 36.*list of positions"):
        many.cloudmask.plot(time="all")
    with pytest.raises(CloudMaskError, match="is 0 times"):
        many.cloudmask.plot(time=slice(0, 0))
    with pytest.raises(OptionError, match="0 to 4"):
        dated().cloudmask.plot(time=[9])
    with pytest.warns(UserWarning, match="time='all' draws all"):
        dated().cloudmask.plot()
