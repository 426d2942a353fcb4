"""Architectures by name: sizes against the papers, shapes, seeds, and configurations that are refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from xcloudmask.errors import BandError, CloudMaskError, OptionError
from xcloudmask.models import arch
from xcloudmask.models.arch.mobilenet_v2 import MobileNetV2
from xcloudmask.models.arch.resnet import ResNet
from xcloudmask.models.arch.segformer import SIZES, MixTransformer
from xcloudmask.models.arch.sensei_v1 import SenseiV1

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sensei_v1_has_the_parameters_of_table_vi():
    encoder = SenseiV1()
    assert weights(encoder.descriptor_block) == 24_208
    assert weights(encoder.permuted_descriptor_block) == 62_848
    assert weights(encoder.combined_descriptor_block) == 123_488
    assert weights(encoder) == 210_544


def test_deeplab_behind_sensei_v1_dilates_as_published_and_sees_twice_its_input_less_one():
    head = arch.build("sensei-v1").eval().head
    blocks = head.network.encoder.features[1:]
    spread = [next(conv for conv in b.modules() if getattr(conv, "groups", 1) > 1) for b in blocks]
    assert [conv.dilation[0] for conv in spread] == [1] * 7 + [2] * 7 + [4] * 3
    assert [at for at, conv in enumerate(spread) if conv.stride[0] == 2] == [1, 3]
    assert {m.eps for m in head.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}
    head.network = torch.nn.Identity()
    assert head(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1, -0.5, 1]


def test_sensei_v1_networks_have_the_parameters_of_table_vii():
    assert weights(arch.build("pixel-mlp", {"bands": 13})) == 1154
    small = {"bands": 13, "encoder": "mobilenet-v2-320", "output_stride": 8, "decoder": "pooled"}
    assert round(weights(arch.build("deeplabv3plus", small)) / 1e6, 2) == 2.11
    assert round(weights(arch.build("sensei-v1")) / 1e6, 2) == 2.34


def test_fdr4vgts_networks_have_the_stated_parameters():
    """12.65 million for PW-DL3+; its pixel-wise part is what an ensemble of two U-Net++ has besides."""
    both, part = arch.build("pw-dl3plus"), 13_651_331 - 2 * 6_825_009
    alone = arch.build("deeplabv3plus", {"bands": 4, "classes": 1, "decoder": "v3", "output_stride": 8})
    assert f"{weights(both) / 1e6:.2f}" == "12.65"
    assert weights(both) == weights(alone) + part
    assert weights(arch.build("unet", {"encoder": "mobilenet-v2", "bands": 4, "classes": 1})) == 6_629_233


# Encoder and head in millions, 150 classes, from table 1 of the paper; its encoders count what they hold
# without the classifier of ImageNet.
SEGFORMER = {
    "b0": (3.4, 0.4),
    "b1": (13.1, 0.6),
    "b2": (24.2, 3.3),
    "b3": (44.0, 3.3),
    "b4": (60.8, 3.3),
    "b5": (81.4, 3.3),
}


@pytest.mark.parametrize("size", SIZES)
def test_segformer_has_the_parameters_of_table_1(size):
    with torch.device("meta"):
        whole = arch.construct("segformer", {"size": size, "classes": 150})
    encoder = weights(whole.encoder)
    head = weights(whole) - encoder
    assert encoder / 1e6 == pytest.approx(SEGFORMER[size][0], rel=0.026)
    assert head / 1e6 == pytest.approx(SEGFORMER[size][1], abs=0.06)


def test_the_known_totals_of_the_reference_segformers():
    with torch.device("meta"):
        b0 = arch.construct("segformer", {"classes": 150})
        b2 = arch.construct("segformer", {"size": "b2", "classes": 150})
    assert (weights(b0), weights(b2)) == (3_752_694, 27_461_974)


def test_encoders_have_their_known_sizes():
    assert weights(MobileNetV2(3)) == 2_223_872  # 3,504,872 with the classifier of ImageNet
    with torch.device("meta"):
        assert weights(ResNet(3, 34)) == 21_284_672  # 21,797,672
        assert weights(ResNet(3, 50)) == 23_508_032  # 25,557,032


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("encoder", ["mobilenet-v2", "resnet34", "resnet50"])
def test_output_stride(encoder, stride):
    made = (
        MobileNetV2(4, output_stride=stride)
        if encoder == "mobilenet-v2"
        else ResNet(4, 34 if encoder == "resnet34" else 50, output_stride=stride)
    )
    low, deep = made(torch.zeros(1, 4, 96, 64))
    assert low.shape == (1, made.low_channels, 24, 16)
    assert deep.shape == (1, made.deep_channels, 96 // stride, 64 // stride)
    dilations = {x.dilation[0] for x in made.modules() if isinstance(x, torch.nn.Conv2d)}
    assert dilations == {8: {1, 2, 4}, 16: {1, 2}, 32: {1}}[stride]


@pytest.mark.parametrize(
    ("stride", "decoder", "rates"),
    [(16, "v3plus", [6, 12, 18]), (8, "v3plus", [12, 24, 36]), (16, "v3plus-separable", [12, 24, 36])],
)
def test_rates_of_the_pyramid(stride, decoder, rates):
    pyramid = arch.build("deeplabv3plus", {"output_stride": stride, "decoder": decoder}).pyramid
    dilated = [x.dilation[0] for x in pyramid.modules() if isinstance(x, torch.nn.Conv2d)]
    assert [rate for rate in dilated if rate > 1] == rates


def test_mix_transformer_shapes():
    features = MixTransformer(5, "b1").eval()(torch.zeros(1, 5, 96, 64))
    assert [tuple(f.shape) for f in features] == [
        (1, 64, 24, 16),
        (1, 128, 12, 8),
        (1, 320, 6, 4),
        (1, 512, 3, 2),
    ]
    with pytest.raises(CloudMaskError, match="32 pixels or more"):
        MixTransformer(5, "b0")(torch.zeros(1, 5, 31, 64))


FIXED = {
    "cloud-unet": ({"width": 8}, 5, 1),
    "deeplabv3plus": ({"bands": 4, "output_stride": 8}, 4, 2),
    "dynamic-unet": ({"stem": 8, "widths": (8, 16, 24), "depths": (1, 2, 1), "group": 4}, 13, 4),
    "pixel-mlp": ({}, 4, 2),
    "pw-dl3plus": ({}, 4, 1),
    "segformer": ({"bands": 4}, 4, 7),
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_band_networks_give_logits_at_any_size(name):
    config, bands, classes = FIXED[name]
    module = arch.build(name, config).eval()
    with torch.inference_mode():
        for shape in ((32, 32), (45, 50)):
            out = module(torch.rand(2, bands, *shape))
            assert out.shape == (2, classes, *shape)
            assert out.isfinite().all()


@pytest.mark.parametrize("name", FIXED)
def test_windows_of_a_batch_do_not_see_each_other(name):
    config, bands, _ = FIXED[name]
    module = arch.build(name, config).eval()
    pixels = torch.rand(3, bands, 32, 32)
    with torch.inference_mode():
        alone = torch.cat([module(window[None]) for window in pixels])
        torch.testing.assert_close(module(pixels).softmax(dim=1), alone.softmax(dim=1), atol=1e-5, rtol=0)
        scale = alone.abs().max().item()
        torch.testing.assert_close(module(pixels), alone, atol=1e-5 * max(scale, 1), rtol=0)


@pytest.mark.parametrize("name", FIXED)
def test_gradients_reach_every_weight(name):
    config, bands, _ = FIXED[name]
    module = arch.build(name, config)
    out = module(torch.rand(2, bands, 32, 32))
    (out * torch.rand_like(out)).sum().backward()
    assert [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


@pytest.mark.parametrize("name", arch.NAMES)
def test_same_seed_same_weights_and_the_callers_random_state_is_kept(name):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, two, other = (arch.build(name, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.rand(1) == expected
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_who_sees_beyond_a_pixel():
    """The pixel network sees one pixel, the others a neighbourhood."""
    # in double precision: untrained, the deep part of pw-dl3plus says next to nothing beside the other
    pixels = torch.rand(1, 4, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    changed = pixels.clone()
    changed[..., 40, 32] += 1
    for name, sees in (("pixel-mlp", False), ("pw-dl3plus", True), ("segformer", True)):
        module = arch.build(name, {"bands": 4}).eval().double()
        with torch.inference_mode():
            differs = (module(pixels) - module(changed)).abs().amax(dim=1)[0]
        elsewhere = int((differs > 0).sum()) - int(differs[40, 32] > 0)
        assert (elsewhere > 0) == sees, name


def test_pw_dl3plus_uses_both_of_its_parts():
    module = arch.build("pw-dl3plus").eval().double()
    pixels = torch.rand(1, 4, 64, 64, dtype=torch.float64)
    with torch.inference_mode():
        before = module(pixels)
        module.pixelwise[2].weight.zero_()
        between = module(pixels)
        module.deeplab.logits.weight.zero_()
        after = module(pixels)
    assert not torch.equal(before, between)
    assert not torch.equal(between, after)


class TestCloudUNet:
    def test_height_is_optional_and_used(self):
        module = arch.build("cloud-unet", {"width": 8, "dem": True}).eval()
        bands, height = torch.rand(2, 5, 32, 32), torch.rand(2, 1, 32, 32)
        with torch.inference_mode():
            without = module(bands)
            assert torch.equal(without, module(bands, torch.zeros_like(height)))
            assert torch.equal(module(bands, height), module(torch.cat([bands, height], dim=1)))
            assert not torch.equal(without, module(bands, height))

    @pytest.mark.parametrize(("dem", "bands"), [(True, 4), (True, 7), (False, 6)])
    def test_wrong_bands_are_refused(self, dem, bands):
        module = arch.build("cloud-unet", {"width": 8, "dem": dem})
        with pytest.raises(BandError, match=f"takes 5 bands.*got {bands}"):
            module(torch.zeros(1, bands, 32, 32))

    def test_has_dropout_and_batch_norm(self):
        kinds = {type(x) for x in arch.build("cloud-unet").modules()}
        assert {torch.nn.Dropout2d, torch.nn.BatchNorm2d} <= kinds


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("segformr", {}, "did you mean 'segformer'"),
        ("os:system", {}, "unknown architecture"),
        ("segformer", {"clases": 3}, "did you mean 'classes'"),
        ("segformer", {"size": "b9"}, "Allowed: b0, b1"),
        ("segformer", {"classes": 3.5}, "of type int"),
        ("segformer", {"classes": True}, "of type int"),
        ("segformer", {"classes": "7"}, "of type int"),
        ("segformer", {"classes": -1}, "between 0 and 4096"),
        ("segformer", {"width": 10**9}, "between 0 and 4096"),
        ("cloud-unet", {"dropout": float("nan")}, "between 0 and 4096"),
        ("cloud-unet", {"levels": 4000}, "at most 6 levels"),
        ("cloud-unet", {"dem": 1}, "of type bool"),
        ("sensei-v2", {"compact_widths": 8}, "a list of at most 64"),
        ("sensei-v2", {"compact_widths": [8] * 65}, "a list of at most 64"),
        ("sensei-v2", {"compact_widths": ["8"]}, "of type int"),
        ("sensei-v2", {"width": 130}, "multiple of heads"),
        ("spectral", {"heads": 0}, "1 or more"),
        ("deeplabv3plus", {"output_stride": 4}, "Allowed: 8, 16"),
        ("deeplabv3plus", {"bands": 0}, "at least 1 band"),
        ("sensei-v1", {"classes": 0}, "at least 1 class"),
        ("segformer", {"classes": 0}, "at least 1 band"),
        ("dynamic-unet", {"act": "gelu"}, "Allowed: relu, mish"),
        ("dynamic-unet", {"depths": [1, 1]}, "as many depths as widths"),
        ("dynamic-unet", {"widths": [], "depths": []}, "1 to 64 blocks"),
        ("dynamic-unet", {"depths": [1, 1, 1, 4000]}, "1 to 64 blocks"),
        ("dynamic-unet", {"widths": [48, 112, 256, 600]}, "a multiple of group=16, got 600"),
    ],
)
def test_bad_names_and_configurations_are_refused(name, config, message):
    with pytest.raises((OptionError, CloudMaskError), match=message):
        arch.build(name, config)


def test_a_network_too_large_is_refused_before_memory_is_taken(monkeypatch):
    monkeypatch.setattr(arch, "LARGEST_NETWORK", 100_000)
    made = []
    monkeypatch.setattr(torch.random, "fork_rng", lambda **_: made.append(1))
    with pytest.raises(CloudMaskError, match="would have 7,850,177 weights; the most allowed is 100,000"):
        arch.build("cloud-unet")
    assert made == []


def test_numbers_as_json_gives_them_are_taken():
    module = arch.build("cloud-unet", {"width": 8, "dropout": 0})
    assert module.down[1][2].p == 0.0
    assert len(arch.build("sensei-v2", {"compact_widths": [8, 16], "layers": 1}).head.down) == 2


def test_config_of_tells_the_defaults():
    assert arch.config_of("cloud-unet") == {
        "bands": 5,
        "classes": 1,
        "width": 32,
        "levels": 4,
        "dropout": 0.2,
        "dem": False,
    }


def test_only_the_file_asked_for_is_imported():
    code = (
        "import sys; from xcloudmask.models import arch; assert 'torch' not in sys.modules; "
        "arch.build('pixel-mlp'); "
        "print(sorted(m.rsplit('.', 1)[1] for m in sys.modules if m.startswith('xcloudmask.models.arch.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "['descriptors', 'pixel', 'setnet']"
