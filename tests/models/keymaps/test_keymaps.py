"""Published names become ours; what is computed stays the same."""

import re
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.models.smp_networks import NETWORKS, digest, filled, pixels, renamed
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import loading
from xcloudmask.models.arch import build
from xcloudmask.models.arch.descriptors import BandInput
from xcloudmask.models.card_fields import checked
from xcloudmask.models.convert import convert
from xcloudmask.models.keymaps.sensei import settings_of
from xcloudmask.models.keymaps.tables import translate

#: Ours, and what transformers calls it: the other way round than the key map has it, written anew.
PUBLISHED = [
    (r"encoder\.stages\.(\d)\.embed\.", r"segformer.encoder.patch_embeddings.\1.proj."),
    (r"encoder\.stages\.(\d)\.embed_norm\.", r"segformer.encoder.patch_embeddings.\1.layer_norm."),
    (r"encoder\.stages\.(\d)\.norm\.", r"segformer.encoder.layer_norm.\1."),
    (r"encoder\.stages\.(\d)\.blocks\.(\d+)\.", r"segformer.encoder.block.\1.\2."),
    (r"\.norm1\.", ".layer_norm_1."),
    (r"\.norm2\.", ".layer_norm_2."),
    (r"\.attention\.norm\.", ".attention.self.layer_norm."),
    (r"\.attention\.(query|key_value)\.", r".attention.self.\1."),
    (r"\.attention\.reduce\.", ".attention.self.sr."),
    (r"\.attention\.out\.", ".attention.output.dense."),
    (r"\.feed_forward\.first\.", ".mlp.dense1."),
    (r"\.feed_forward\.spread\.", ".mlp.dwconv.dwconv."),
    (r"\.feed_forward\.second\.", ".mlp.dense2."),
    (r"^project\.(\d)\.", r"decode_head.linear_c.\1.proj."),
    (r"^fuse\.0\.", "decode_head.linear_fuse."),
    (r"^fuse\.1\.", "decode_head.batch_norm."),
    (r"^logits\.", "decode_head.classifier."),
]


def published(state):
    out = {}
    for name, tensor in state.items():
        for ours, theirs in PUBLISHED:
            name = re.sub(ours, theirs, name)
        if ".key_value." in name:
            key, value = tensor.chunk(2)
            out[name.replace("key_value", "key")] = key
            out[name.replace("key_value", "value")] = value
        else:
            out[name] = tensor[:, :, 0, 0] if ".linear_c." in name and tensor.dim() == 4 else tensor
    return out


def test_a_published_segformer_loads(tmp_path):
    config = {"bands": 5, "classes": 3}
    net = build("segformer", config, seed=1).eval()
    state = published(net.state_dict())
    assert not set(state) & set(net.state_dict())
    torch.save(state, tmp_path / "net.pt")
    convert(tmp_path / "net.pt", tmp_path / "net.safetensors", keymap="transformers-segformer")
    again = build("segformer", config, seed=2).eval()
    from safetensors.torch import load_file

    again.load_state_dict(load_file(tmp_path / "net.safetensors"))
    pixels = torch.rand(1, 5, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels), net(pixels), rtol=0, atol=0)


def test_what_is_not_known_keeps_its_name():
    assert list(translate("transformers-segformer", {"extra.thing": torch.zeros(1)})) == ["extra.thing"]
    with pytest.raises(OptionError, match="unknown key map"):
        translate("transformers", {})


def test_equal_to_the_library_that_published_it():
    """Where transformers is installed: the same numbers from its own SegFormer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(num_channels=5, num_labels=3, decoder_hidden_size=256)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    ours = build("segformer", {"bands": 5, "classes": 3}).eval()
    ours.load_state_dict(translate("transformers-segformer", theirs.state_dict()))
    pixels = torch.rand(2, 5, 64, 96)
    with torch.inference_mode():
        found = theirs(pixels).logits
        found = torch.nn.functional.interpolate(found, size=(64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours(pixels), found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_segmentation_models_pytorch_load_and_say_the_same(name):
    """Names, shapes, weights and logits are those that the library itself gave for the same numbers."""
    known = NETWORKS[name]
    net = build(known.architecture, known.config).eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == known.weights
    theirs = filled(renamed(net.state_dict(), known.names))
    assert digest(theirs) == known.digest
    net.load_state_dict(translate("smp", theirs))
    with torch.inference_mode():
        found = net(pixels(known.bands))
    some = found[0, 0][[3, 20, 40, 60]][:, [5, 50, 90]].flatten()
    torch.testing.assert_close(some, torch.tensor(known.logits), atol=1e-5, rtol=0)
    assert found.abs().mean().item() == pytest.approx(known.size, abs=2e-6)


def test_a_prefix_before_all_names_stays_and_the_rest_keeps_its_name():
    known = NETWORKS["DeepLabV3, mobilenet_v2"]
    net = build("pw-dl3plus", {"decoder": "v3", "output_stride": 8, "corners": True})
    theirs = renamed(net.deeplab.state_dict(), known.names)
    published = {f"deeplab.{name}": tensor for name, tensor in theirs.items()}
    published["pixel.0.weight"] = torch.zeros(1)
    found = translate("smp", published)
    ours = {f"deeplab.{name}" for name in net.deeplab.state_dict()}
    assert set(found) == ours | {"pixel.0.weight"}
    assert not ours & set(published) - {name for name in ours if ".encoder.features." in name}


def test_omnicloudmasks_two_files_become_one_model(tmp_path):
    sources, theirs = [], {}
    for name in ("Unet, tu-regnety_004", "Unet, tu-edgenext_small"):
        known = NETWORKS[name]
        theirs[name] = renamed(build("unet", known.config, seed=len(sources)).state_dict(), known.names)
        sources.append(tmp_path / f"{name[8:]}.safetensors")
        save_file(theirs[name], sources[-1])
    convert(sources, tmp_path / "ocm.safetensors", keymap="omnicloudmask")
    spec = loading.make(
        str(tmp_path / "ocm.safetensors"),
        {
            "architecture": "omnicloudmask", "bands": ["red", "green", "nir"],
            "classes": ["clear", "thick_cloud", "thin_cloud", "cloud_shadow"],
        },
    )  # fmt: skip
    pair = loading.network(spec).body
    window = pixels(3)
    scaled = (window - window.mean((2, 3), True)) / window.std((2, 3), keepdim=True, correction=0)
    each = []
    for name in theirs:
        net = build("unet", NETWORKS[name].config).eval()
        net.load_state_dict(translate("smp", theirs[name]))
        with torch.inference_mode():
            each.append(net(scaled))
    with torch.inference_mode():
        torch.testing.assert_close(pair(window), (each[0] + each[1]) / 2, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(pair(window * 10_000), pair(window), atol=1e-4, rtol=1e-4)  # any units
        assert pair(torch.full((1, 3, 32, 32), 0.2)).isfinite().all()
    with pytest.raises(CloudMaskError, match="as another of the files"):
        convert(sources[:1] * 2, tmp_path / "twice.safetensors", keymap="omnicloudmask")


def test_a_file_that_is_not_what_a_key_map_is_for_is_refused_with_what_it_lacks(tmp_path):
    known = NETWORKS["Unet, tu-edgenext_small"]
    theirs = renamed(build("unet", known.config).state_dict(), known.names)
    other = {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(1)}
    cut = {name: tensor for name, tensor in theirs.items() if not name.startswith("segmentation_head")}
    target = tmp_path / "out.safetensors"
    for state, keymap, says in (
        (
            other,
            "omnicloudmask",
            r"in.safetensors: not one of .*s1\.b1.*stem_0.*conv1\.weight, fc\.bias.*--keymap",
        ),
        (
            cut,
            "omnicloudmask",
            r"in.safetensors: not the whole .*edgenext: it lacks edgenext\.logits\.bias, edge",
        ),
        (other, "smp", r"'smp' knows none of its names \(conv1\.weight, fc\.bias.*transformers-segformer"),
    ):
        save_file(state, tmp_path / "in.safetensors")
        with pytest.raises(WeightsError, match=says):
            convert(tmp_path / "in.safetensors", target, keymap=keymap)
        assert not target.exists()
    save_file(theirs, tmp_path / "in.safetensors")
    given = checked(
        {
            "architecture": "unet", "config": known.config, "bands": ["red", "green", "nir"],
            "classes": list("abcd"),
        }
    )  # fmt: skip
    with pytest.raises(CloudMaskError, match=r"--keymap K, K one of omnicloudmask, .*smp"):
        loading.network(loading.make(str(tmp_path / "in.safetensors"), given))


class FullyConnected(nn.Module):
    """As the facts say: norm, ReLU, linear; a skip where shapes agree."""

    def __init__(self, *widths):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[:-1])
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x):
        for norm, layer in zip(self.norms, self.layers, strict=True):
            new = layer(torch.relu(norm(x)))
            x = x + new if new.shape == x.shape else new
        return x


class Embedding(nn.Module):
    def __init__(self, *widths):
        super().__init__()
        self.gains, self.freqs, self.phases = (FullyConnected(*widths) for _ in range(3))
        self.bn = nn.BatchNorm2d(widths[-1], momentum=0.05)

    def forward(self, pixels, features):
        gain, frequency, phase = (
            part(features)[..., None, None] for part in (self.gains, self.freqs, self.phases)
        )
        return self.bn((gain * torch.sin(frequency * (pixels[:, :, None] + phase))).sum(dim=1))


class Sensei(nn.Module):
    """A dummy of the published encoder, put together from the facts, with torch's own transformer layers."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(48, 4, 80, dropout=0.0)
        transformer = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        blocks = [nn.Identity(), FullyConnected(77, 40, 40, 48), transformer, FullyConnected(48, 56, 48)]
        self.blocks = nn.ModuleList([*blocks, Embedding(48, 24, 24, 16)])

    def forward(self, pixels, descriptors):
        levels = torch.tensor([0.01, 0.1, 0.5, 0.9, 0.99])
        x = torch.cat([descriptors, pixels.flatten(2).quantile(levels, dim=2).permute(1, 2, 0)], dim=2)
        for block in self.blocks[:-1]:
            x = block(x)
        return self.blocks[-1](pixels, x)


def published_sensei():
    """A dummy of the published weights: encoder, then a SegFormer under the names of transformers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        encoder = Sensei().eval()
        for parameter in encoder.parameters():
            nn.init.normal_(parameter, std=0.2)
        encoder.blocks[-1].bn.running_var.uniform_(0.5, 2)
    head = build("segformer", {"bands": 16, "classes": 7}, seed=5).eval()
    state = {f"senseiv2.{name}": tensor for name, tensor in encoder.state_dict().items()}
    behind = published(head.state_dict())
    return encoder, head, state | {f"segmenter.model.{name}": tensor for name, tensor in behind.items()}


def test_a_published_sensei_loads_and_says_the_same():
    encoder, head, state = published_sensei()
    ours = translate("senseiv2-segformer", state)
    settings = settings_of(ours, heads=4)
    assert (settings["enter"], settings["leave"], settings["embed"]) == ([40, 40], [56], [24, 24])
    net = build("sensei-v2", {**settings, "classes": 7, "head": "segformer-b0"}).eval()
    net.load_state_dict(ours)
    bands = [BandInput("optical", low, low + 60) for low in (450, 640, 800)] + [BandInput("elevation")]
    described = torch.from_numpy(net.describe(bands))
    window = torch.rand(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = head(encoder(window, described[None]))
        torch.testing.assert_close(net(window, described), expected, atol=2e-4, rtol=1e-4)


def test_what_a_published_sensei_leaves_in_doubt_is_refused():
    def changed(old, new):
        _, _, state = published_sensei()
        return {re.sub(old, new, name): tensor for name, tensor in state.items()}

    for old, new, says in (
        (r"\.gains\.", ".first.", "does not tell whether it makes gain"),
        (r"blocks\.1\.norms\.2\.", "blocks.1.extra.2.x.", "1 norms|do not follow|besides"),
        (r"blocks\.2\.layers\.0\.linear1", "blocks.2.layers.0.linear3", "no part of an attention layer"),
        (r"blocks\.2\.", "blocks.9.", "attention behind other layers"),
        (r"blocks\.1\.norms\.1\.bias", "blocks.1.norms.1.offset", "besides or missing"),
    ):
        with pytest.raises(WeightsError, match=says):
            translate("senseiv2-segformer", changed(old, new))
