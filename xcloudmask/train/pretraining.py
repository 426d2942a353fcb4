"""The encoder of SEnSeI v1, trained before any label: by telling which bands it saw, and what they held.

Francis et al. 2022 (TGRS 60, 5406121), section III-B. Bands and reflectances are random numbers, so no data
is needed. Two decoders read the encoder's 64 channels: the discriminator tells the bands that were there from
as many that were not, the estimator says the reflectance of each band. Both are dropped afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from xcloudmask.errors import OptionError, WeightsError, names_checked
from xcloudmask.models.arch.sensei_v1 import CHANNELS, DenseBlock, SenseiV1
from xcloudmask.models.published.sensei_v1 import ENCODER, renamed
from xcloudmask.models.weights import fetch, formats
from xcloudmask.train.checkpoint import write_weights

#: Bands of a batch, from and to; the largest reflectance; the last lower edge, ``log10(nm - 300) - 2``.
BANDS, BRIGHTEST, LAST_EDGE = (3, 14), 1.7, 2.5
CANDIDATES_COUNT, PENALTY = 0.5, 1e-5


class Reader(DenseBlock):
    """Makes one number of what the encoder gave and of what a block on descriptors makes of a band's.

    Examples
    --------
    >>> Reader()(torch.zeros(2, 5, 128), torch.full((2, 5), 1 / 5)).shape
    torch.Size([2, 5])
    """

    def __init__(self) -> None:
        super().__init__((2 * CHANNELS, 128, 64, 32), 16)
        self.final = nn.Linear(16, 1)

    def forward(self, x: Tensor, share: Tensor) -> Tensor:
        """Return a number for each item."""
        out: Tensor = self.final(super().forward(x, share))[..., 0]
        return out


class Decoders(nn.Module):
    """The discriminator (candidates) and the estimator (real bands).

    Examples
    --------
    >>> sum(p.numel() for p in Decoders().parameters())
    62010
    """

    def __init__(self) -> None:
        super().__init__()
        self.candidate_descriptor_block = DenseBlock((3, 8, 12, 16, 24, 32), adds=True)
        self.candidate_prediction_block = Reader()
        self.real_descriptor_block = DenseBlock((3, 8, 12, 16, 24), adds=True)
        self.band_estimation_block = Reader()

    def candidates(self, features: Tensor, descriptors: Tensor) -> Tensor:
        """Return how likely each candidate was among the bands, (n, candidates)."""
        blocks = self.candidate_descriptor_block, self.candidate_prediction_block
        return torch.sigmoid(_read(features, descriptors, *blocks))

    def estimates(self, features: Tensor, descriptors: Tensor) -> Tensor:
        """Return the reflectance of each band, (n, bands)."""
        return _read(features, descriptors, self.real_descriptor_block, self.band_estimation_block)


def _read(features: Tensor, descriptors: Tensor, block: DenseBlock, reader: Reader) -> Tensor:
    share = torch.full_like(descriptors[..., 0], 1 / descriptors.shape[1])
    seen = block(descriptors, share)
    return reader(torch.cat([features.unsqueeze(1).expand_as(seen), seen], dim=2), share)  # type: ignore[no-any-return]


class Batch(NamedTuple):
    """Reflectances, (n, bands); the bands' descriptors, (n, bands, 3); as many of bands that are absent."""

    reflectance: Tensor
    descriptors: Tensor
    absent: Tensor


def draw(count: int, bands: int, generator: torch.Generator) -> Batch:
    """Return random bands: a lower edge on the scale of descriptors, then centre and upper edge above it.

    Examples
    --------
    >>> batch = draw(2, 3, torch.Generator().manual_seed(0))
    >>> batch.absent.shape, (batch.descriptors.diff(dim=2) > 0.02).all().item()
    (torch.Size([2, 3, 3]), True)
    """
    device = generator.device
    lower = LAST_EDGE * torch.rand(count, 2 * bands, 1, generator=generator, device=device)
    halves = 0.02 + 0.05 * torch.randn(count, 2 * bands, 2, generator=generator, device=device).abs()
    descriptors = torch.cat([lower, lower + halves.cumsum(dim=2)], dim=2)
    reflectance = BRIGHTEST * torch.rand(count, bands, generator=generator, device=device)
    return Batch(reflectance, descriptors[:, :bands], descriptors[:, bands:])


def losses(encoder: SenseiV1, decoders: Decoders, batch: Batch) -> dict[str, Tensor]:
    """Return the terms of the loss, and their weighted sum as ``"total"``.

    ``"bands"``: mean squared error of the reflectances. ``"candidates"``: that of telling bands that were
    there from others, which counts half. ``"penalty"``: that on the last layers of blocks on descriptors.

    Examples
    --------
    >>> batch = draw(2, 3, torch.Generator().manual_seed(0))
    >>> sorted(losses(SenseiV1(), Decoders(), batch))
    ['bands', 'candidates', 'penalty', 'total']
    """
    features = encoder(batch.reflectance[:, :, None, None], batch.descriptors)[:, :, 0, 0]
    likely = decoders.candidates(features, torch.cat([batch.descriptors, batch.absent], dim=1))
    bands = batch.reflectance.shape[1]
    truth = (torch.arange(2 * bands, device=likely.device) < bands).to(likely.dtype).expand_as(likely)
    blocks = (
        encoder.descriptor_block, encoder.permuted_descriptor_block, encoder.combined_descriptor_block,
        decoders.candidate_descriptor_block, decoders.real_descriptor_block,
    )  # fmt: skip
    terms = {
        "bands": (decoders.estimates(features, batch.descriptors) - batch.reflectance).square().mean(),
        "candidates": (likely - truth).square().mean(),
        "penalty": PENALTY * torch.stack([block.last.weight.abs().sum() for block in blocks]).sum(),
    }
    return {**terms, "total": terms["bands"] + CANDIDATES_COUNT * terms["candidates"] + terms["penalty"]}


@names_checked
def pretrain(
    out: str | Path,
    *,
    steps: int = 20_000,
    batch: int = 1024,
    rate: float = 0.01,
    momentum: float = 0.75,
    seed: int = 0,
    device: str = "cpu",
    start: str | Path | None = None,
) -> dict[str, float]:
    """Train the encoder of SEnSeI v1 on random bands, without labels or images, and write its weights.

    A training takes them with ``[network] architecture = "sensei-v1", encoder = OUT``.

    Parameters
    ----------
    out : path
        The ``.safetensors`` file to write: the encoder, and the decoders, from which it can be trained on.
    steps, batch : int
        How many batches, of how many samples. Each batch has 3 to 14 bands.
    rate, momentum : float
        Of stochastic gradient descent; the published encoder was trained with 0.01 and 0.75.
    seed : int
        Of the initial weights and all samples.
    device : str
        Where it is trained, as torch names it; on a CPU a thousand steps take minutes.
    start : path, optional
        The published Keras file, or what this function wrote before, to train on from.

    Returns
    -------
    dict of str to float
        Mean over the last tenth of the steps of ``"total"``, ``"bands"``, ``"candidates"``, ``"penalty"``.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp(), "encoder.safetensors")
    >>> sorted(pretrain(path, steps=2, batch=8)), path.exists()
    (['bands', 'candidates', 'penalty', 'total'], True)
    """
    if Path(out).suffix != ".safetensors":
        raise OptionError("form of out", Path(out).suffix, allowed=(".safetensors",))
    for name, number in (("steps", steps), ("batch", batch)):
        if number < 1:
            raise OptionError(name, number, allowed=("1 or more",))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trained = nn.ModuleDict({"encoder": SenseiV1(), "decoders": Decoders()})
    if start is not None:
        _set(trained, read(start), start, "the encoder of SEnSeI v1 and its decoders")
    trained.to(device)
    generator = torch.Generator(device).manual_seed(seed)
    optimiser = torch.optim.SGD(trained.parameters(), lr=rate, momentum=momentum)
    low, high = BANDS
    recent: list[Mapping[str, Tensor]] = []
    for step in range(steps):
        bands = int(torch.randint(low, high + 1, (), generator=generator, device=device))
        terms = losses(trained["encoder"], trained["decoders"], draw(batch, bands, generator))  # type: ignore[arg-type]
        optimiser.zero_grad()
        terms["total"].backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step >= steps - max(steps // 10, 1):
            recent.append({name: term.detach() for name, term in terms.items()})
    write_weights(Path(out), trained.state_dict())
    return {name: float(torch.stack([terms[name] for terms in recent]).mean()) for name in recent[0]}


def read(path: str | Path) -> dict[str, Tensor]:
    """Return the encoder and the decoders in a file; names begin with ``encoder.`` and ``decoders.``."""
    href = str(path)
    form = formats.form_of(href)
    tensors, _ = formats.tensors(fetch.read(href, ""), form, href)
    return renamed(tensors) if form == "keras" else tensors


def set_encoder(network: nn.Module, path: str | Path, architecture: str) -> None:
    """Give a network's encoder the weights of a file."""
    encoder = {name: tensor for name, tensor in read(path).items() if name.startswith(ENCODER)}
    state = {name: t for name, t in network.state_dict().items() if not name.startswith(ENCODER)}
    _set(network, {**state, **encoder}, path, f"the encoder of {architecture}")


def _set(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path} does not hold {what}: {str(error).splitlines()[1].strip()}") from error
