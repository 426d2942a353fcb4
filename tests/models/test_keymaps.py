"""Published names become ours; what is computed stays the same."""

import re

import pytest
import torch
from safetensors.torch import save_file

from tests.models.smp_networks import NETWORKS, digest, filled, pixels, renamed
from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import loading
from xcloudmask.models.arch import build
from xcloudmask.models.card_fields import checked
from xcloudmask.models.convert import convert
from xcloudmask.models.keymaps import KEYMAPS

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


def test_what_is_not_known_keeps_its_name(tmp_path):
    assert list(KEYMAPS["transformers-segformer"]({"extra.thing": torch.zeros(1)})) == ["extra.thing"]
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(OptionError, match="unknown key map"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", keymap="transformers")


def test_equal_to_the_library_that_published_it():
    """Where transformers is installed: the same numbers from its own SegFormer."""
    transformers = pytest.importorskip("transformers")
    config = transformers.SegformerConfig(num_channels=5, num_labels=3, decoder_hidden_size=256)
    theirs = transformers.SegformerForSemanticSegmentation(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    ours = build("segformer", {"bands": 5, "classes": 3}).eval()
    ours.load_state_dict(KEYMAPS["transformers-segformer"](theirs.state_dict()))
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
    net.load_state_dict(KEYMAPS["smp"](theirs))
    with torch.inference_mode():
        found = net(pixels(known.bands))
    some = found[0, 0][[3, 20, 40, 60]][:, [5, 50, 90]].flatten()
    torch.testing.assert_close(some, torch.tensor(known.logits), atol=1e-5, rtol=0)
    assert found.abs().mean().item() == pytest.approx(known.size, abs=2e-6)


def test_a_prefix_before_all_names_stays_and_the_rest_keeps_its_name():
    known = NETWORKS["DeepLabV3, mobilenet_v2"]
    net = build("pw-dl3plus")
    theirs = renamed(net.deeplab.state_dict(), known.names)
    published = {f"deeplab.{name}": tensor for name, tensor in theirs.items()}
    published["pixel.0.weight"] = torch.zeros(1)
    found = KEYMAPS["smp"](published)
    ours = {f"deeplab.{name}" for name in net.deeplab.state_dict()}
    assert set(found) == ours | {"pixel.0.weight"}
    assert not ours & set(published) - {name for name in ours if ".encoder.features." in name}


def test_a_file_that_is_not_what_a_key_map_is_for_is_refused_with_what_it_lacks(tmp_path):
    known = NETWORKS["Unet, tu-edgenext_small"]
    theirs = renamed(build("unet", known.config).state_dict(), known.names)
    other = {"conv1.weight": torch.zeros(2), "fc.bias": torch.zeros(1)}
    target = tmp_path / "out.safetensors"
    save_file(other, tmp_path / "in.safetensors")
    with pytest.raises(
        WeightsError, match=r"'smp' knows none of its names \(conv1\.weight, fc\.bias.*--keymap"
    ):
        convert(tmp_path / "in.safetensors", target, keymap="smp")
    assert not target.exists()
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    with pytest.raises(CloudMaskError, match="as another of the files"):
        convert([tmp_path / "one.safetensors"] * 2, target)
    save_file(theirs, tmp_path / "in.safetensors")
    given = checked(
        {
            "architecture": "unet", "config": known.config, "bands": ["red", "green", "nir"],
            "classes": list("abcd"),
        }
    )  # fmt: skip
    with pytest.raises(CloudMaskError, match=r"--keymap K, K one of smp"):
        loading.network(loading.make(str(tmp_path / "in.safetensors"), given))
