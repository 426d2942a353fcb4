"""Networks for any bands: descriptors, order, subsets, padding, and how the published code differs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from xcloudmask.errors import BandError
from xcloudmask.models import arch
from xcloudmask.models.arch.descriptors import BandInput, describe_spread, describe_v1, describe_v2
from xcloudmask.models.arch.sensei_v2 import BandAttention, BandEmbedding, EncoderSettings, percentiles
from xcloudmask.models.arch.setnet import Bound, SetNetwork
from xcloudmask.types import Band

EDGES = [
    (430, 450),
    (450, 520),
    (530, 590),
    (640, 680),
    (780, 900),
    (1570, 1650),
    (2100, 2300),
    (10600, 11190),
]
OPTICAL = [BandInput("optical", *edges) for edges in EDGES]
RADAR = [BandInput("sar_vv"), BandInput("sar_vh"), BandInput("sar_angle"), BandInput("elevation")]

NETWORKS = {
    "sensei-v1-pixel": ("sensei-v1", {"head": "pixel"}),
    "sensei-v1": ("sensei-v1", {}),
    "sensei-v2": ("sensei-v2", {}),
    "sensei-v2-published": ("sensei-v2", {"variant": "published", "head": "pixel"}),
    "sensei-v2-segformer": ("sensei-v2", {"variant": "published", "head": "segformer-b0"}),
    "spectral": ("spectral", {}),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    name, config = NETWORKS[request.param]
    module = arch.build(name, config, seed=5)
    _settle(module)
    return module.eval()


def _settle(module):
    """Give batch norm statistics that are not the identity, and zeroed weights a value."""
    generator = torch.Generator().manual_seed(2)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.1)
            layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    if hasattr(getattr(module, "head", None), "direct"):
        torch.nn.init.normal_(module.head.direct.weight, std=0.1, generator=generator)


def pixels_of(bands, n=2, size=32, seed=0):
    return torch.rand(n, bands, size, size, generator=torch.Generator().manual_seed(seed))


def close(one, two):
    """The same to 1e-5 in probabilities, and in logits as far as float32 of their size allows."""
    torch.testing.assert_close(one.softmax(dim=1), two.softmax(dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(one, two, atol=1e-5 * max(two.abs().max().item(), 1), rtol=0)


def run(network, pixels, bands, present=None):
    with torch.inference_mode():
        return network(pixels, torch.from_numpy(network.describe(bands)), present)


# --- descriptors -------------------------------------------------------------------------------------------


def test_descriptor_of_red_equals_a_hand_computation():
    row = describe_v2([BandInput("optical", 650.0, 680.0)])[0]
    assert row.shape == (74,)
    for start, nm in ((0, 650.0), (32, 680.0)):
        for i in range(32):
            angle = nm / 10_000 ** (2 * i / 32)
            expected = math.cos(angle) if i % 2 else math.sin(angle)
            assert row[start + i] == pytest.approx(expected, abs=1e-6), i
    assert row[64:].nonzero()[0].tolist() == [0]


def test_flags_and_ones_of_what_is_not_optical():
    thermal, vv, vh, angle, height = describe_v2([BandInput("thermal", 10600, 11190), *RADAR])
    assert thermal[64:].nonzero()[0].tolist() == [0, 3]
    assert vv.nonzero()[0].tolist() == [*range(32), 65]
    assert vh.nonzero()[0].tolist() == [*range(32, 64), 65]
    assert angle.nonzero()[0].tolist() == [*range(64), 65]
    assert height.nonzero()[0].tolist() == [66]


def test_spread_descriptors_tell_neighbouring_bands_apart():
    row = describe_spread([BandInput("optical", 650.0, 680.0)])[0]
    assert row[3] == pytest.approx(math.sin(0.5 * 128 ** (1 / 15) * (math.log10(350) - 2)), abs=1e-6)
    rows = describe_spread([BandInput("optical", 697, 713), BandInput("optical", 733, 748)])  # red edges
    assert np.abs(rows[0] - rows[1])[:64].max() > 1
    assert [row.nonzero()[0].tolist() for row in describe_spread(RADAR)] == [[0, 64], [1, 64], [2, 64], [65]]


def test_v1_descriptors_equal_a_hand_computation():
    row = describe_v1([BandInput("optical", 650, 690, 668)])[0]
    expected = [math.log10(nm - 300) - 2 for nm in (650, 668, 690)]
    np.testing.assert_allclose(row, expected, atol=1e-7)
    with pytest.raises(BandError, match="wavelength"):
        describe_v1(RADAR)


@pytest.mark.parametrize(
    "edges", [(0.65, 0.68), (300, 400), (700, 600), (math.nan, 500), (500, math.inf), (650, 680, 700)]
)
def test_wavelengths_that_cannot_be_are_refused(edges):
    with pytest.raises(BandError, match="nanometres"):
        BandInput("optical", *edges)


def test_band_inputs_from_bands():
    assert BandInput.from_band(Band("x", min_nm=500, center_nm=540, max_nm=600)) == BandInput(
        "optical", 500, 600, 540
    )
    assert BandInput.from_band(Band("VH", kind="sar")).signal == "sar_vh"
    assert BandInput.from_band(Band("dem", kind="elevation")).signal == "elevation"
    hot = Band("B10", min_nm=10600, max_nm=11190, kind="brightness_temperature")
    assert BandInput.from_band(hot) == BandInput("thermal", 10600, 11190)
    assert len({BandInput("optical", 500, 600), BandInput("optical", 500, 600)}) == 1  # hashable, equal
    with pytest.raises(BandError, match="no min_nm"):
        BandInput.from_band(Band("x", "red"))
    with pytest.raises(BandError, match="vv, vh or angle"):
        BandInput.from_band(Band("hh", kind="sar"))


# --- percentiles -------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_each_band_of_each_window():
    pixels = pixels_of(3, n=2, size=17)
    expected = np.quantile(pixels.flatten(2).numpy(), (0.01, 0.1, 0.5, 0.9, 0.99), axis=2).transpose(1, 2, 0)
    np.testing.assert_allclose(percentiles(pixels).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(
        percentiles(pixels[..., :1, :1]).numpy(), pixels[..., :1, :1].expand(-1, -1, -1, 5)[:, :, 0]
    )


def test_sampled_percentiles_look_at_every_nth_pixel():
    pixels = pixels_of(2, n=1, size=32)
    torch.testing.assert_close(percentiles(pixels, 4), percentiles(pixels[:, :, ::4, ::4]))


def test_percentiles_reach_the_result_of_sensei_v2_only():
    """A pixel far away changes the embedding of another pixel through the window's percentiles alone."""
    bands = OPTICAL[:3]
    pixels = pixels_of(3, n=1)
    changed = pixels.clone()
    changed[..., :16] += 0.3
    for name, differs in (("sensei-v2", True), ("sensei-v1", False)):
        network = arch.build(name).eval()
        described = torch.from_numpy(network.describe(bands))
        with torch.inference_mode():
            one, two = (network.encoder(p, described)[..., 30, 30] for p in (pixels, changed))
        assert torch.equal(one, two) != differs, name


# --- sets of bands -----------------------------------------------------------------------------------------


def test_set_networks_follow_the_protocol(network):
    assert isinstance(network, SetNetwork)
    assert not isinstance(arch.build("pixel-mlp"), SetNetwork)


def test_band_order_does_not_matter(network):
    pixels = pixels_of(6)
    order = [3, 0, 5, 1, 4, 2]
    one = run(network, pixels, OPTICAL[:6])
    two = run(network, pixels[:, order], [OPTICAL[at] for at in order])
    close(one, two)


def test_band_order_changes_no_bit_once_bound(network):
    pixels = pixels_of(6)
    order = [3, 0, 5, 1, 4, 2]
    with torch.inference_mode():
        one = Bound(network, OPTICAL[:6])(pixels)
        two = Bound(network, [OPTICAL[at] for at in order])(pixels[:, order])
    assert torch.equal(one, two)


def test_wavelengths_matter(network):
    encoder = getattr(network, "encoder", network)
    with torch.inference_mode():
        one, two = (
            encoder(pixels_of(2), torch.from_numpy(network.describe(bands)))
            for bands in (OPTICAL[:2], OPTICAL[3:5])
        )
    assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_any_number_of_bands_runs(network, count):
    out = run(network, pixels_of(count, n=1), OPTICAL[-count:])
    assert out.shape[2:] == (32, 32)
    assert out.isfinite().all()


def test_radar_and_height_beside_bands():
    for name in ("sensei-v2", "spectral"):
        module = arch.build(name).eval()
        assert run(module, pixels_of(6), [*OPTICAL[:2], *RADAR]).isfinite().all()


def test_padded_bands_change_nothing(network):
    """Windows of two and of four bands in one batch equal the same windows on their own."""
    few, many = [OPTICAL[4], OPTICAL[1]], OPTICAL[:4]
    pixels = pixels_of(4)
    pixels[0, 2:] = math.nan
    described = np.full((2, 4, network.describe(many).shape[1]), np.nan, np.float32)
    described[0, :2], described[1] = network.describe(few), network.describe(many)
    present = torch.tensor([[True, True, False, False], [True] * 4])
    with torch.inference_mode():
        out = network(pixels, torch.from_numpy(described), present)
    close(out[:1], run(network, pixels[:1, :2], few))
    close(out[1:], run(network, pixels[1:], many))


def test_windows_of_a_batch_do_not_see_each_other(network):
    pixels = pixels_of(3, n=3)
    alone = torch.cat([run(network, window[None], OPTICAL[:3]) for window in pixels])
    close(run(network, pixels, OPTICAL[:3]), alone)


@pytest.mark.parametrize("case", NETWORKS)
def test_gradients_reach_every_weight_past_padding(case):
    name, config = NETWORKS[case]
    module = arch.build(name, config)
    _settle(module)
    pixels = pixels_of(3)
    pixels[0, 2] = math.nan
    present = torch.tensor([[True, True, False], [True, True, True]])
    out = module(pixels, torch.from_numpy(module.describe(OPTICAL[:3])), present)
    (out * torch.rand_like(out)).sum().backward()
    broken = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert broken == []
    assert sum(float(p.grad.abs().sum()) > 0 for p in module.parameters()) > 0.8 * len(
        list(module.parameters())
    )


@pytest.mark.parametrize("kind", ["none", "descriptors"])
def test_pixels_and_descriptors_must_agree(network, kind):
    bands = [] if kind == "none" else OPTICAL[:2]
    with pytest.raises(BandError, match="at least 1"):
        run(network, pixels_of(0 if kind == "none" else 3), bands)


class TestBound:
    def test_refuses_what_is_no_set_network(self):
        with pytest.raises(TypeError, match="set network"):
            Bound(arch.build("pixel-mlp"), OPTICAL)

    def test_refuses_no_bands_and_other_bands(self):
        with pytest.raises(BandError, match="at least one"):
            Bound(arch.build("spectral"), [])
        with pytest.raises(BandError, match="bound to 3 bands, got 2"):
            Bound(arch.build("spectral"), OPTICAL[:3])(pixels_of(2))

    def test_carries_no_weights_of_its_own(self):
        bound = Bound(arch.build("spectral"), OPTICAL)
        assert {key.split(".")[0] for key in bound.state_dict()} == {"network"}


# --- formulas ----------------------------------------------------------------------------------------------


def test_sensei_v1_multiplies_by_reflectance_plus_a_half_and_takes_the_mean():
    encoder = arch.build("sensei-v1").eval().encoder
    described = torch.from_numpy(describe_v1(OPTICAL[:2]))
    flat = [torch.full((1, 2, 1, 1), value) for value in (-0.5, 0.0, 0.5)]
    with torch.inference_mode():
        low, middle, high = (encoder(pixels, described) for pixels in flat)
    assert not low.any()
    torch.testing.assert_close(high, 2 * middle)
    with torch.inference_mode():
        twice = encoder(torch.rand(1, 4, 1, 1) * 0, described.repeat(2, 1))
    torch.testing.assert_close(twice, middle)  # the same bands twice change no mean


@pytest.mark.parametrize("variant", ["own", "published"])
def test_band_embedding_is_the_formula_of_its_variant(variant):
    published = variant == "published"
    settings = EncoderSettings(variant, channels=8, width=16)
    torch.manual_seed(0)
    embed = BandEmbedding(settings).eval()
    pixels, features = torch.rand(1, 3, 2, 2), torch.randn(1, 3, 16)
    with torch.inference_mode():
        out = embed(pixels, features, torch.ones(1, 3, dtype=torch.bool)).numpy()[0]
        gain, frequency, phase = (
            net(features).numpy()[0] for net in (embed.gain, embed.frequency, embed.phase)
        )
    expected = np.zeros((8, 2, 2))
    for b in range(3):
        for i in range(8):
            x = pixels.numpy()[0, b]
            angle = frequency[b, i] * (x + phase[b, i]) if published else frequency[b, i] * x + phase[b, i]
            expected[i] += gain[b, i] * np.sin(angle)
    expected /= 1 if published else 3
    np.testing.assert_allclose(out, expected / math.sqrt(1 + 1e-5), atol=1e-5)


def test_attention_is_over_bands():
    torch.manual_seed(0)
    layer = BandAttention(16, 4, 32).eval()
    x, present = torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)
    changed = x.clone()
    changed[0, 1] += 1
    differs = (layer(x, present) - layer(changed, present)).abs().amax(dim=2) > 1e-6
    assert differs.tolist() == [[True] * 3, [False] * 3]


def test_attention_as_published_is_over_nothing_else():
    """What torch's own layer gives for sequences of one; a window beside it changes no bit."""
    torch.manual_seed(0)
    layer = BandAttention(16, 4, 32, alone=True)
    x, present = torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)
    changed = x.clone()
    changed[0, 1] += 1
    differs = (layer(x, present) - layer(changed, present)).abs().amax(dim=2) > 0
    assert differs.tolist() == [[False, True, False], [False] * 3]
    own = BandAttention(16, 4, 32)
    own.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x, present)[:, :1], own(x[:, :1], present[:, :1]))


def test_attention_equals_torchs_own_transformer_layer():
    torch.manual_seed(0)
    ours = BandAttention(16, 4, 32).eval()
    theirs = torch.nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True).eval()
    names = {
        "query_key_value.weight": "self_attn.in_proj_weight",
        "query_key_value.bias": "self_attn.in_proj_bias",
    }
    names |= {"out.weight": "self_attn.out_proj.weight", "out.bias": "self_attn.out_proj.bias"}
    theirs.load_state_dict({names.get(key, key): value for key, value in ours.state_dict().items()})
    x, present = torch.randn(2, 5, 16), torch.ones(2, 5, dtype=torch.bool)
    present[0, 3:] = False
    with torch.inference_mode():
        expected = theirs(x, src_key_padding_mask=~present)
        out = ours(x, present)
    torch.testing.assert_close(out[present], expected[present], atol=1e-5, rtol=1e-5)


def test_spectral_sees_one_pixel_and_blocks_change_nothing():
    module = arch.build("spectral").eval()
    pixels = pixels_of(4, n=1, size=128)  # more pixels than a block
    whole = run(module, pixels, OPTICAL[:4])
    torch.testing.assert_close(run(module, pixels[..., 100:101, 7:8], OPTICAL[:4]), whole[..., 100:101, 7:8])
    with torch.no_grad():
        trained = module.train()(pixels, torch.from_numpy(module.describe(OPTICAL[:4])))
    torch.testing.assert_close(trained, whole)


def test_spectral_attention_equals_keys_and_values_written_out():
    module = arch.build("spectral", {"width": 8, "heads": 2, "rounds": 1}).eval()
    with torch.no_grad():
        module.parameters_of_band[-1].weight.mul_(30)  # so that attention is far from a plain mean
    bands = OPTICAL[:3]
    x = torch.rand(3)
    with torch.inference_mode():
        out = run(module, x.reshape(1, 3, 1, 1), bands).flatten()
        a, b, c, d = module.parameters_of_band(torch.from_numpy(module.describe(bands))).chunk(4, dim=1)
        key, value = x[:, None] * a + b, torch.relu(x[:, None] * c + d)
        query = module.first_query(value.mean(dim=0)[:, None]).flatten()
        found = []
        for head in (slice(0, 4), slice(4, 8)):
            weights = torch.softmax(key[:, head] @ query[head] / 2, dim=0)
            found.append(weights @ value[:, head])
        query = query + module.updates[0](torch.cat(found)[:, None]).flatten()
        expected = module.classify(query[:, None]).flatten()
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)


def test_half_precision_leaves_the_embedding_alone():
    """In bfloat16 a phase of 12 radians would be off by 0.05."""
    module = arch.build("sensei-v2").eval()
    described = torch.from_numpy(module.describe(OPTICAL[:3]))
    pixels = pixels_of(3)
    with torch.inference_mode():
        expected = module.encoder(pixels, described)
        logits = module(pixels, described)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(module.encoder(pixels, described), expected)
            found = module(pixels, described)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().softmax(dim=1), logits.softmax(dim=1), atol=0.02, rtol=0)


def test_the_librarys_own_size_is_small():
    for config in ({}, {"channels": 24, "compact_widths": [24, 48, 96, 128]}):
        assert sum(p.numel() for p in arch.build("sensei-v2", config).parameters()) < 5_000_000
