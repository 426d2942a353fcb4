"""Published names become ours; what is computed stays the same."""

import re

import pytest
import torch

from xcloudmask.errors import OptionError
from xcloudmask.models.arch import build
from xcloudmask.models.convert import convert
from xcloudmask.models.keymaps import translate

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
