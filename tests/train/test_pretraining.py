"""Pre-training of SEnSeI v1: what it draws, the published loss, and trainings that begin from its encoder."""

from __future__ import annotations

import pytest
import torch

from tests.models.published import golden
from xcloudmask.errors import CloudMaskError, ModelWarning, OptionError, WeightsError
from xcloudmask.models import arch
from xcloudmask.train import checkpoint, pretraining
from xcloudmask.train.config_tables import Network
from xcloudmask.train.networks import begin
from xcloudmask.train.plan import Plan
from xcloudmask.train.pretraining import Decoders, draw, losses, pretrain, read
from xcloudmask.train.run import _about, _starting_from, train

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = golden.PUBLISHED / "sensei_v1" / "sensei-epoch043-loss0.198.hdf5"


@pytest.fixture(scope="module")
def published() -> torch.nn.ModuleDict:
    """Encoder and decoders as the published pre-training left them."""
    pytest.importorskip("h5py", reason="Keras files need h5py: pip install 'xcloudmask[local]'")
    both = torch.nn.ModuleDict({"encoder": pretraining.SenseiV1(), "decoders": Decoders()})
    both.load_state_dict(read(FILE))
    return both.eval()


@golden.needed
def test_the_published_weights_have_the_published_loss(published):
    """0.0875 for bands, 0.194 for candidates, 0.016 of penalty, and 0.198 in the file's name."""
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        samples = [losses(*published.values(), draw(128, 13, generator)) for _ in range(5)]
    mean = {name: float(torch.stack([terms[name] for terms in samples]).mean()) for name in samples[0]}
    assert mean["bands"] == pytest.approx(0.0875, abs=0.006)
    assert mean["candidates"] == pytest.approx(0.194, abs=0.003)
    assert mean["penalty"] == pytest.approx(0.016, abs=0.0006)
    assert mean["total"] == pytest.approx(0.198, abs=0.008)
    assert mean["total"] == pytest.approx(mean["bands"] + mean["candidates"] / 2 + mean["penalty"])


@golden.needed
def test_the_published_weights_know_which_reflectance_is_whose(published):
    """The estimate of each band, and of no other, follows what was given: order is kept throughout."""
    batch = draw(256, 5, torch.Generator().manual_seed(1))
    encoder, decoders = published["encoder"], published["decoders"]
    with torch.inference_mode():
        features = encoder(batch.reflectance[:, :, None, None], batch.descriptors)[:, :, 0, 0]
        estimates = decoders.estimates(features, batch.descriptors)
        chances = decoders.candidates(features, torch.cat([batch.descriptors, batch.absent], dim=1))
    assert (estimates - batch.reflectance).square().mean() < 0.03
    assert chances[:, :5].mean() > 0.7 > 0.35 > chances[:, 5:].mean()


def test_bands_are_drawn_as_the_paper_says():
    batch = draw(4000, 7, torch.Generator().manual_seed(2))
    lower, center, upper = torch.cat([batch.descriptors, batch.absent], dim=1).unbind(dim=2)
    assert lower.min() >= 0
    assert 2.49 < lower.max() <= 2.5
    for half in (center - lower, upper - center):
        assert half.min() == pytest.approx(0.02, abs=1e-3)
        assert half.mean() == pytest.approx(0.02 + 0.05 * (2 / torch.pi) ** 0.5, abs=1e-3)
    assert batch.reflectance.min() >= 0
    assert 1.69 < batch.reflectance.max() <= 1.7


def test_training_learns_and_is_the_same_for_the_same_seed(tmp_path):
    few = pretrain(tmp_path / "a.safetensors", steps=1, batch=16)
    more = pretrain(tmp_path / "b.safetensors", steps=20, batch=16)
    again = pretrain(tmp_path / "c.safetensors", steps=20, batch=16)
    assert more["bands"] < few["bands"] / 2
    assert more == again
    on = pretrain(tmp_path / "d.safetensors", steps=1, batch=16, start=tmp_path / "b.safetensors", seed=1)
    assert on["bands"] < few["bands"] / 2
    encoder = {name for name in read(tmp_path / "d.safetensors") if name.startswith("encoder.")}
    assert encoder == {f"encoder.{name}" for name in pretraining.SenseiV1().state_dict()}


def test_what_cannot_be_trained_is_refused(tmp_path):
    with pytest.raises(OptionError, match="steps 0"):
        pretrain(tmp_path / "a.safetensors", steps=0)
    with pytest.raises(OptionError, match=r"\.safetensors"):
        pretrain(tmp_path / "a.hdf5", steps=1)
    checkpoint.write_weights(tmp_path / "other.safetensors", arch.build("pixel-mlp").state_dict())
    with pytest.raises(WeightsError, match=r"other\.safetensors does not hold the encoder of SEnSeI v1"):
        pretrain(tmp_path / "a.safetensors", steps=1, start=tmp_path / "other.safetensors")


# --- [network] encoder = FILE ------------------------------------------------------------------

TABLE = {"architecture": "sensei-v1", "classes": ["clear", "cloud"], "settings": {"head": "pixel"}}


def test_a_training_begins_from_the_encoder_of_a_file(tmp_path):
    path = tmp_path / "a.safetensors"
    pretrain(path, steps=1, batch=8)
    begun, wanted = begin({**TABLE, "encoder": str(path)}).called, read(path)
    for name, tensor in begun.encoder.state_dict().items():
        assert torch.equal(tensor, wanted[f"encoder.{name}"])
    fresh = begin(TABLE).called
    assert not torch.equal(
        fresh.encoder.combined_descriptor_block.last.weight,
        begun.encoder.combined_descriptor_block.last.weight,
    )
    assert torch.equal(fresh.head[0].weight, begun.head[0].weight)
    with pytest.raises(WeightsError, match=r"a\.safetensors does not hold the encoder of sensei-v2"):
        begin({"architecture": "sensei-v2", "classes": ["clear", "cloud"], "encoder": str(path)})


@golden.needed
@pytest.mark.parametrize("head", ["pixel", "deeplabv3"])
def test_a_training_begins_from_the_published_encoder(published, head):
    begun = begin({**TABLE, "settings": {"head": head}, "encoder": str(FILE)}).called
    for name, tensor in begun.encoder.state_dict().items():
        assert torch.equal(tensor, published["encoder"].state_dict()[name])


def test_a_whole_training_begins_from_it_and_notes_its_hash(data, tmp_path):
    path = tmp_path / "a.safetensors"
    pretrain(path, steps=1, batch=8)
    config = {
        "name": "tiny",
        "data": {"sources": ["l8"], "dev": 0.4, "batch": 2, "length": 1, "held_out": "val"},
        "recipe": {"size": 16},
        "network": {**TABLE, "encoder": str(path), "only": ["head"]},
        "loop": {"epochs": 1, "rate": 1e-3, "device": "cpu"},
        "stage": [{"name": "first"}, {"name": "second"}],
    }
    with pytest.warns(ModelWarning):  # a handful of steps
        train(Plan.of(config), data=data, out=tmp_path / "out")
    trained, wanted = checkpoint.read_weights(tmp_path / "out" / "tiny.safetensors"), read(path)
    for name in trained:
        if name.startswith("encoder."):
            assert torch.equal(trained[name], wanted[name])
    assert _starting_from(Plan.of(config), "first.json").network.encoder is None  # the stage before has it
    before = _about(Plan.of(config))
    pretrain(path, steps=1, batch=8, seed=1)
    assert _about(Plan.of(config)) != before  # weights of another encoder are another training


def test_start_has_an_encoder_of_its_own():
    with pytest.raises(CloudMaskError, match="start and encoder"):
        Network(start="sensei", encoder="a.hdf5", classes=("clear", "cloud"))
