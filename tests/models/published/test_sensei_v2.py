"""SEnSeI-v2 from the files of its author: the answers of its author's code, and what is refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from safetensors.torch import save
from torch import nn

from tests.models.published import golden
from xcloudmask import models, sensors
from xcloudmask.classes import NO_DATA
from xcloudmask.errors import WeightsError
from xcloudmask.models import arch, loading, published, registry
from xcloudmask.models.arch.descriptors import BandInput, with_published_edges
from xcloudmask.models.arch.segformer import SIZES
from xcloudmask.models.card_fields import checked
from xcloudmask.models.published import Contents
from xcloudmask.models.published.sensei_v2 import AUX, BANDS, FAMILY
from xcloudmask.models.weights import fetch
from xcloudmask.types import AUX_SCALING, AuxInput, ModelSpec


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch):
    monkeypatch.setattr(registry, "registered", dict(registry.registered))


pytestmark = [golden.needed, pytest.mark.usefixtures("one_thread")]

FOLDERS = {"senseiv2_segformer": "config-segformer.yaml", "senseiv2_deeplab": "config-deeplab.yaml"}
CASES = [
    *(("senseiv2_segformer", case) for case in ("s2_all", "s2_rgb", "l8_with_thermal", "s2_s1_dem")),
    *(("senseiv2_deeplab", case) for case in ("s2_all", "s2_rgb")),
]
SIGNALS = {
    "TOA Reflectance": "optical", "TOA Normalised Brightness Temperature": "thermal", "SAR VV": "sar_vv",
    "SAR VH": "sar_vh", "SAR Angle": "sar_angle", "DEM": "elevation",
}  # fmt: skip
S2, L8 = sensors.get("sentinel-2").bands, sensors.get("landsat-8").bands[:9]
OF_CASE = {
    "s2_all": (S2, ()), "s2_rgb": ([S2[3], S2[2], S2[1]], ()), "l8_with_thermal": (L8, ("lwir11", "lwir12")),
    "s2_s1_dem": ([S2[1], S2[2], S2[3], S2[7]], ("vv", "vh", "angle", "elevation")),
}  # fmt: skip


@dataclass
class Published:
    """A published network as it is read here, and what its author's code says of it."""

    contents: Contents
    card: dict[str, Any]
    network: nn.Module
    facts: dict[str, Any]
    answers: dict[str, np.ndarray]


def contents_of(shapes, config=None, tensors=golden.weights, **more):
    return Contents({**tensors(shapes), **more}, {"file": "weights.pt", "config": config})


def on_meta(shapes):
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}


def built(contents):
    """Its network as a worker builds it: strictly, so every tensor must fit."""
    card = FAMILY.card(contents)
    network = arch.build(card["architecture"], card["config"])
    network.load_state_dict(FAMILY.translate(contents))
    return network.eval()


def beside(folder):
    return yaml.safe_load((golden.PUBLISHED / "senseiv2_yaml" / FOLDERS[folder]).read_text())


@pytest.fixture(scope="module")
def read():
    known: dict[str, Published] = {}

    def read_once(folder):
        if folder not in known:
            facts = golden.facts(folder)
            contents = contents_of(facts["shapes"], beside(folder))
            card, network = FAMILY.card(contents), built(contents)
            known[folder] = Published(contents, card, network, facts, golden.answers(folder))
        return known[folder]

    return read_once


def inputs_of(bands):
    return [
        BandInput(SIGNALS[band["band_type"]], band.get("min_wavelength", 0), band.get("max_wavelength", 0))
        for band in bands
    ]


def same(computed, answer):
    np.testing.assert_allclose(computed, answer, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(computed.argmax(axis=0), answer.argmax(axis=0))


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_descriptors_and_probabilities_are_those_of_the_authors_code(read, folder, case):
    known = read(folder)
    described = known.network.describe(inputs_of(known.facts["cases"][case]))
    np.testing.assert_allclose(described, known.answers[f"{case}/descriptors"], atol=1e-6, rtol=0)
    pixels = torch.from_numpy(golden.image(case, (len(described), 64, 64)))[None]
    with torch.inference_mode():
        answer = known.network(pixels, torch.from_numpy(described)).softmax(dim=1)[0].numpy()
    same(answer, known.answers[f"{case}/answer"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_it_has_as_many_parameters(read, folder):
    known = read(folder)
    assert sum(each.numel() for each in known.network.parameters()) == known.facts["parameters"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_window_answers_does_not_depend_on_its_batch(read, folder):
    known = read(folder)
    described = torch.from_numpy(known.network.describe(inputs_of(known.facts["cases"]["s2_rgb"])))
    pixels = torch.from_numpy(golden.image("s2_rgb", (3, 64, 64)))[None]
    batch = torch.cat([pixels.flip(3) * 0.5, pixels, pixels + 0.2])
    with torch.inference_mode():
        answer = known.network(batch, described).softmax(dim=1)[1].numpy()
    same(answer, known.answers["s2_rgb/answer"])


def spec_of(known, **more):
    """The card as `load` writes it, in no registry."""
    fields = checked({**known.card, "name": "published", **more})
    sha256 = fetch.hold(save(FAMILY.translate(known.contents)))
    return ModelSpec(
        **{
            "bands": (), **fields, "version": "test", "loader": loading.LOADER, "any_bands": True,
            "sha256": sha256, "weights": f"{fetch.HELD}{sha256}",
        }
    )  # fmt: skip


@pytest.mark.parametrize(("folder", "case"), CASES)
def test_so_are_those_of_a_scene_whose_bands_have_other_edges_and_units_here(read, folder, case):
    """Half maxima become the edges it was trained with; metres, decibels and kelvin what it is fed."""
    known, (bands, others) = read(folder), OF_CASE[case]
    pixels = golden.image(case, (len(bands) + len(others), 64, 64))
    sensor = "landsat-8" if case.startswith("l8") else "sentinel-2"
    scene = xr.DataArray(pixels[: len(bands)], dims=("band", "y", "x"))
    scene = scene.cloudmask.describe(sensor, bands=[band.name for band in bands], level="L1C")
    aux = {}
    for name, plane in zip(others, pixels[len(bands) :].astype(np.float64), strict=True):
        mean, std = AUX_SCALING[name]
        units = {"vv": "dB", "vh": "dB", "angle": "degrees", "elevation": "m"}.get(name, "K")
        aux[name] = xr.DataArray(plane * std + mean, dims=("y", "x"), attrs={"units": units})
    answer = scene.cloudmask.predict_proba(
        spec_of(known), patch_size=64, working_resolution="native", scheme="native", aux=aux or None
    )
    assert [*answer["class"].values] == [*known.card["classes"]]
    same(answer.transpose("class", "y", "x").values, known.answers[f"{case}/answer"])


def test_the_edges_it_was_trained_with_are_those_of_every_satellite_of_the_kind():
    cases = golden.facts("senseiv2_segformer")["cases"]
    for name, ours, case in (
        ("sentinel-2", S2, "s2_all"), ("sentinel-2a", None, "s2_all"), ("sentinel-2b", None, "s2_all"),
        ("sentinel-2c", None, "s2_all"), ("hls-s30", None, "s2_all"), ("landsat-8", L8, "l8_with_thermal"),
        ("landsat-9", sensors.get("landsat-9").bands[:9], "l8_with_thermal"),
    ):  # fmt: skip
        bands = [BandInput.from_band(band) for band in ours or sensors.get(name).bands]
        edges = [(each.min_nm, each.max_nm) for each in map(with_published_edges, bands)]
        wanted = [(band["min_wavelength"], band["max_wavelength"]) for band in cases[case][: len(bands)]]
        assert edges == wanted, name
    pairs = zip(sensors.get("sentinel-2a").bands, sensors.get("sentinel-2b").bands, strict=True)
    for (a, b), wanted in zip(pairs, cases["s2_all"], strict=True):  # a search over both has the outermost
        both = BandInput("optical", min(a.min_nm, b.min_nm), max(a.max_nm, b.max_nm))
        assert with_published_edges(both).max_nm == wanted["max_wavelength"], a.name
    assert [AuxInput(name).band.max_nm for name in ("lwir11", "lwir12")] == [11190, 12510]
    other = BandInput("optical", 455, 515)  # PlanetScope's blue
    assert with_published_edges(other) is other


def test_the_card_tells_what_the_file_beside_it_says(read):
    segformer, deeplab = (read(folder).card for folder in FOLDERS)
    assert segformer["classes"] == (
        "land", "water", "snow", "thin_cloud", "thick_cloud", "cloud_shadow", "no_data",
    )  # fmt: skip
    assert deeplab["classes"] == ("clear", "thick_cloud", "thin_cloud", "cloud_shadow")
    assert (segformer["patch"], segformer["overlap"], segformer["aux"], deeplab["aux"]) == (512, 0, AUX, ())
    assert segformer["name"] == "SEnSeIv2-SegFormerB2-alldata-ambiguous"
    assert segformer["config"] == {
        "variant": "published", "head": "segformer-b2", "head_width": 768, "classes": 7, "channels": 32,
        "width": 128, "hidden": 256, "enter": [128, 128], "embed": [128], "heads": 4, "layers": 2,
    }  # fmt: skip
    assert deeplab["config"]["head"] == "deeplabv3plus-resnet50"
    assert "radar and height" in segformer["limits"]


def test_without_that_file_the_tensors_tell_all_but_the_other_inputs(read):
    known = read("senseiv2_segformer")
    alone = FAMILY.card(Contents(known.contents.tensors, {"config": None}))
    assert alone["config"] == known.card["config"]
    assert (alone["patch"], alone["aux"], alone["name"]) == (512, (), None)
    assert "without config.yaml" in alone["limits"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("CLASSES", 4, "says CLASSES: 4, and the tensors are of a network with 7: put the config"),
        ("MODEL_TYPE", "DeepLabv3+", "says MODEL_TYPE: 'DeepLabv3.', .* with 'Segformer'"),
        ("PATCH_SIZE", 10**9, "must be from 32 to 4096, got 1000000000"),
        ("PATCH_SIZE", "512", "must be from 32 to 4096, got '512'"),
        pytest.param("PATCH_SIZE", 16**5000, "got int", id="too long to print"),
        ("CLASSES", [[7] * 9] * 9, "says CLASSES: list, and"),
        ("MODEL_TYPE", "x" * 9999, "says MODEL_TYPE: 'x{60}', and"),
    ],
)
def test_the_file_of_another_network_is_refused(key, value, says):
    facts = golden.facts("senseiv2_segformer")
    config = {**beside("senseiv2_segformer"), key: value}
    with pytest.raises(WeightsError, match=says):
        FAMILY.card(contents_of(facts["shapes"], config, on_meta))


@pytest.mark.parametrize(
    ("block", "key", "value"),
    [(0, "percentiles", [0.05, 0.5, 0.95]), (1, "skips", "none"), (3, "skips_heads", True)],
)
def test_the_description_of_another_encoder_is_refused(tmp_path, block, key, value):
    """It lies beside the weights under the name that config.yaml gives; only the name of the path counts."""
    tensors = {name: torch.zeros(tuple(shape)) for name, shape in of_pixels().items()}
    torch.save(tensors, tmp_path / "weights.pt")
    config = {**beside("senseiv2_deeplab"), "MODEL_TYPE": "NN"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    described = yaml.safe_load((golden.PUBLISHED / "senseiv2_yaml" / "senseiv2-medium.yaml").read_text())
    (tmp_path / "senseiv2-medium.yaml").write_text(yaml.safe_dump(described))
    assert models.load(tmp_path).family == "sensei-v2"
    described["blocks"][block][key] = value
    (tmp_path / "senseiv2-medium.yaml").write_text(yaml.safe_dump(described))
    with pytest.raises(WeightsError, match=rf"beside weights\.pt says {key}"):
        models.load(tmp_path)


@pytest.mark.parametrize("blocks", [None, 3, "text", [3], [{}], [{"type": []}], {"type": "FCL"}])
def test_a_damaged_description_is_told(blocks):
    config = {**beside("senseiv2_segformer"), "SEnSeIv2": {"blocks": blocks}}
    with pytest.raises(WeightsError, match="is damaged: leave it out"):
        FAMILY.card(contents_of(golden.facts("senseiv2_segformer")["shapes"], config, on_meta))


def test_only_a_config_that_does_not_exist_is_done_without(web, monkeypatch, tmp_path):
    """Without it another model is made: without radar, height and thermal bands, with another window."""
    monkeypatch.setattr(fetch, "TRIES", 1)
    tensors = {name: torch.zeros(tuple(shape)) for name, shape in of_pixels().items()}
    torch.save(tensors, tmp_path / "weights.pt")
    data = (tmp_path / "weights.pt").read_bytes()
    web.files["/a/weights.pt"] = data
    href, sha256 = f"{web.url}/a/weights.pt?download=true", fetch.digest(data)
    monkeypatch.setenv("XCLOUDMASK_CACHE", str(tmp_path / "cache"))
    web.files["/a/weights.pt?download=true"] = data
    assert "without config.yaml" in models.load(href, sha256=sha256).limits
    for status in (503, 403, 429):
        web.faults = [status]  # of the one request: the weights are in the cache
        with pytest.raises(
            WeightsError, match=r"Save weights\.pt and config\.yaml in a folder and load that"
        ):
            models.load(href, sha256=sha256, overwrite=True)
    monkeypatch.setenv("XCLOUDMASK_OFFLINE", "1")
    with pytest.raises(WeightsError, match=r"Save weights\.pt and config\.yaml in a folder and load that"):
        models.load(href, sha256=sha256, overwrite=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_of_its_files_loads_in_one_call(read, folder, tmp_path):
    known, case = read(folder), "s2_rgb"
    torch.save(dict(known.contents.tensors), tmp_path / "weights.pt")
    (tmp_path / "config.yaml").write_bytes(
        (golden.PUBLISHED / "senseiv2_yaml" / FOLDERS[folder]).read_bytes()
    )
    spec = models.load(tmp_path)
    assert (spec.family, spec.patch, spec.overlap) == ("sensei-v2", 512, 0)
    scene = xr.DataArray(golden.image(case, (3, 64, 64)), dims=("band", "y", "x"))
    scene = scene.cloudmask.describe("sentinel-2", bands=["B04", "B03", "B02"], level="L1C")
    answer = scene.cloudmask.predict_proba(
        spec.name, patch_size=64, working_resolution="native", scheme="native"
    )
    same(answer.transpose("class", "y", "x").values, known.answers[f"{case}/answer"])


def test_recovery_is_left_out_and_other_encoders_are_refused():
    shapes = golden.facts("senseiv2_segformer")["shapes"]
    whole = contents_of(shapes, None, on_meta, **{"recovery_module.layers.0.weight": torch.zeros(3)})
    assert published.recognised(whole) is FAMILY
    assert not any("recovery" in name for name in FAMILY.translate(whole))

    def changed(old, new=None, shape=None):
        kept = {re.sub(old, new or "", name): shape if shape and re.match(old, name) else size
                for name, size in shapes.items() if new or shape or not re.match(old, name)}  # fmt: skip
        return contents_of(kept, None, on_meta)

    for contents, says in (
        (changed(r"senseiv2\.blocks\.3\.gain_head.*"), "not whole"),
        (changed(r"blocks\.3\.norm", "blocks.4.layers.0"), r"has senseiv2\.blocks\.4\.layers\.0.* not known"),
        (changed(r"segmenter\.segformer\.encoder\.block\.3\.2\..*"), r"no whole SegFormer.*\[3, 4, 6, 2\]"),
        (changed(r"segmenter\.decode_head\..*"), "no whole SegFormer"),
        (changed(r"segmenter\..*attention\.self\.value\.bias"), "no whole SegFormer"),
    ):
        with pytest.raises(WeightsError, match=says):
            FAMILY.card(contents)
    longer = {**shapes, "senseiv2.blocks.1.layers.2.weight": [128, 77]}
    with pytest.raises(WeightsError, match=r"takes 77 numbers a band.*74 and 5 percentiles"):
        FAMILY.card(contents_of(longer, None, on_meta))
    assert published.recognised(Contents({"segmenter.weight": torch.zeros(1)})) is None


# --- the other networks that were published beside these ----------------------------------------------------


def of_size(shapes, size):
    """Names and shapes of another SegFormer, made of those of B2: its widths, layers and decoder."""
    b2 = SIZES["b2"]
    widths = dict(zip(b2.channels, size.channels, strict=True))
    # hidden layers have four times the width; 128 and 64 are widths of the encoder, too, so stage by stage
    out = {name: shape for name, shape in shapes.items() if not name.startswith("segmenter.")}
    for name, shape in shapes.items():
        if not name.startswith("segmenter."):
            continue
        stage = re.search(r"(?:block|patch_embeddings|linear_c|encoder\.layer_norm)\.(\d)", name)
        own = b2.channels[int(stage[1])] if stage else 0
        before = b2.channels[int(stage[1]) - 1] if stage and stage[1] != "0" else 0
        swap = {own: widths.get(own), 4 * own: 4 * widths.get(own, 0), 768: size.head, 4 * 768: 4 * size.head}
        if "patch_embeddings" in name and before:
            swap[before] = widths[before]
        made = [swap.get(number, number) for number in shape]
        if "decode_head" in name and stage:
            made = [size.head, *(widths[own] for _ in shape[1:])]
        block = re.search(r"encoder\.block\.(\d)\.(\d+)\.", name)
        if not block:
            out[name] = made
        elif block[2] == "0":
            for layer in range(size.depths[int(block[1])]):
                out[name.replace(f"block.{block[1]}.0.", f"block.{block[1]}.{layer}.")] = made
    return out


def fits(contents):
    """Its card, once the architecture has taken its tensors, each by name and shape."""
    card = FAMILY.card(contents)
    with torch.device("meta"):
        arch.construct(card["architecture"], card["config"]).load_state_dict(
            FAMILY.translate(contents), assign=True
        )
    return card


@pytest.mark.parametrize("size", SIZES)
def test_every_size_of_segformer_is_known_by_its_tensors(size):
    shapes = of_size(golden.facts("senseiv2_segformer")["shapes"], SIZES[size])
    config = fits(contents_of(shapes, None, on_meta))["config"]
    assert (config["head"], config["head_width"]) == (f"segformer-{size}", SIZES[size].head)
    narrow = {
        name: [100 if number == SIZES[size].head else number for number in shape] if "fuse" in name else shape
        for name, shape in shapes.items()
    }
    assert FAMILY.card(contents_of(narrow, None, on_meta))["config"]["head_width"] == 100


def test_a_deeplab_on_resnet34_is_known_by_its_tensors():
    shapes = {
        name: shape
        for name, shape in golden.facts("senseiv2_deeplab")["shapes"].items()
        if not name.startswith("segmenter.encoder.layer") and not re.search(r"encoder\.layer\d", name)
    }
    norm = ("weight", "bias", "running_mean", "running_var")
    source = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True), 1):
        for block in range(blocks):
            parts = {
                "conv1": [width, source, 3, 3],
                "bn1": width,
                "conv2": [width, width, 3, 3],
                "bn2": width,
            }
            if source != width:
                parts |= {"downsample.0": [width, source, 1, 1], "downsample.1": width}
            source = width
            for part, shape in parts.items():
                name = f"segmenter.encoder.layer{stage}.{block}.{part}"
                if isinstance(shape, list):
                    shapes[f"{name}.weight"] = shape
                else:
                    shapes |= {f"{name}.{each}": [width] for each in norm}
                    shapes[f"{name}.num_batches_tracked"] = []
    for name, shape in shapes.items():
        if "decoder" in name:
            shapes[name] = [{2048: 512}.get(number, number) for number in shape]
    shapes["segmenter.decoder.block1.0.weight"] = [48, 64, 1, 1]
    card = fits(contents_of(shapes, {"DEEPLAB_CONFIG": "resnet34", "CLASSES": 4}, on_meta))
    assert card["config"]["head"] == "deeplabv3plus-resnet34"
    with pytest.raises(WeightsError, match=r"DEEPLAB_CONFIG: 'resnet50'.*'resnet34'"):
        FAMILY.card(contents_of(shapes, {"DEEPLAB_CONFIG": "resnet50"}, on_meta))


def of_pixels():
    """Names and shapes of the encoder with three layers on single pixels behind it."""
    whole = golden.facts("senseiv2_deeplab")["shapes"]
    shapes = {name: shape for name, shape in whole.items() if name.startswith("senseiv2.")}
    for layer, out, source in ((0, 256, 32), (2, 256, 256), (4, 4, 256)):
        shapes[f"segmenter.layers.{layer}.weight"] = [out, source, 1, 1]
        shapes[f"segmenter.layers.{layer}.bias"] = [out]
    return shapes


def test_layers_on_single_pixels_are_a_head_too(read):
    contents = contents_of(of_pixels(), {"MODEL_TYPE": "NN", "CLASSES": 4})
    network, known = built(contents), read("senseiv2_deeplab")
    described = torch.from_numpy(network.describe(inputs_of(known.facts["cases"]["s2_rgb"])))
    pixels = torch.from_numpy(golden.image("s2_rgb", (3, 64, 64)))[None]
    with torch.inference_mode():
        x = known.network.encoder(pixels, described)[0].flatten(1)  # the encoder that the goldens vouch for
        for layer in (0, 2, 4):
            weight, bias = (contents.tensors[f"segmenter.layers.{layer}.{end}"] for end in ("weight", "bias"))
            x = weight[:, :, 0, 0] @ (x.relu() if layer else x) + bias[:, None]
        torch.testing.assert_close(network(pixels, described)[0].flatten(1), x, atol=1e-4, rtol=1e-5)


def test_a_segformer_without_the_encoder_takes_the_thirteen_bands_of_sentinel_2(read):
    whole = golden.facts("senseiv2_segformer")["shapes"]
    shapes = {name: shape for name, shape in whole.items() if name.startswith("segmenter.")}
    shapes["segmenter.segformer.encoder.patch_embeddings.0.proj.weight"] = [64, 13, 7, 7]
    contents = contents_of(shapes, {"NUM_CHANNELS": 13, "MODEL_TYPE": "Segformer"}, on_meta)
    assert published.recognised(contents) is FAMILY
    card = fits(contents)
    assert (card["architecture"], card["bands"], "aux" in card) == ("segformer", BANDS, False)
    assert [*card["bands"]] == [band.common_name for band in S2]
    with pytest.raises(WeightsError, match="NUM_CHANNELS: 12"):
        FAMILY.card(contents_of(shapes, {"NUM_CHANNELS": 12}, on_meta))


# --- from windows to a mask ---------------------------------------------------------------------------------


def test_its_class_no_data_is_no_data_in_every_mask(read):
    known = read("senseiv2_segformer")
    scene = xr.DataArray(golden.image("s2_rgb", (3, 64, 64)), dims=("band", "y", "x"))
    scene = scene.cloudmask.describe("sentinel-2", bands=["B04", "B03", "B02"], level="L1C")
    # half of the pixels are no data once its logit is raised by as much as it lies behind water's
    answer = known.answers["s2_rgb/answer"].astype(np.float64)
    behind = np.log(answer[1] / answer[6])
    raised = np.array([0, 0, 0, 0, 0, 0, np.median(behind)])
    answer *= np.exp(raised)[:, None, None]
    name = "segmenter.decode_head.classifier.bias"
    bias = known.contents.tensors[name] + torch.from_numpy(raised.astype(np.float32))
    changed = replace(known, contents=Contents({**known.contents.tensors, name: bias}))
    four = np.stack([answer[:3].sum(axis=0), answer[4], answer[3], answer[5], answer[6]])
    sure = np.minimum(np.abs(np.log(answer[1] / answer[6])), np.abs(np.log(four[0] / four[4]))) > 1e-3

    def mask(scheme):
        made = scene.cloudmask.predict(
            spec_of(changed), patch_size=64, working_resolution="native", scheme=scheme
        )
        codes = dict(zip(made.attrs["flag_meanings"].split(), made.attrs["flag_values"], strict=True))
        assert codes["no_data"] == NO_DATA
        return made.values[sure], len(codes)

    native = answer.argmax(axis=0)[sure]
    assert 0.4 < (native == 6).mean() < 0.6
    codes, count = mask("native")
    np.testing.assert_array_equal(codes, np.where(native == 6, NO_DATA, native))
    assert count == 7
    np.testing.assert_array_equal(
        mask("cloudsen12")[0], np.array([0, 1, 2, 3, NO_DATA])[four.argmax(axis=0)][sure]
    )


def test_a_scene_answers_the_same_whatever_its_chunks(read):
    known = read("senseiv2_deeplab")
    spec = replace(spec_of(known), patch=64, overlap=0)
    scene = xr.DataArray(golden.image("chunks", (3, 90, 75)), dims=("band", "y", "x"))
    scene = scene.cloudmask.describe("sentinel-2", bands=["B04", "B03", "B02"], level="L1C")
    whole = scene.cloudmask.predict_proba(spec, working_resolution="native", batch_size=4)
    for chunks in ({"y": (1, 50, 39), "x": 17}, {"band": 1, "y": 31, "x": -1}):
        parts = scene.chunk(chunks).cloudmask.predict_proba(spec, working_resolution="native")
        np.testing.assert_allclose(parts.values, whole.values, atol=1e-6, rtol=0)
