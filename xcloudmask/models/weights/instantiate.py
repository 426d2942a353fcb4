"""From checked bytes to a torch module: all of loading that imports torch (ONNX graphs stay bytes)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from xcloudmask.errors import WeightsError
from xcloudmask.models import arch
from xcloudmask.models.keymaps import KEYMAPS


class Exported(torch.nn.Module):
    """An exported program; it has no training mode, so asking for evaluation changes nothing."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> Exported:
        """Change nothing."""
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return what the program answers, the channels of several outputs behind one another."""
        out = self.program(pixels)
        return out if isinstance(out, torch.Tensor) else torch.cat(list(out), dim=1)


def built(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, torch.Tensor], origin: str
) -> nn.Module:
    """Return an architecture with these tensors in it."""
    module = arch.build(architecture, config)
    _compare(module, tensors, architecture, config, origin)
    module.load_state_dict(tensors)
    return module.eval()


def check(
    architecture: str, config: Mapping[str, object], tensors: Mapping[str, torch.Tensor], origin: str
) -> None:
    """Compare names and shapes of tensors with those of an architecture, without making its weights."""
    with torch.device("meta"):
        module = arch.construct(architecture, config)
    _compare(module, tensors, architecture, config, origin)


def _compare(
    module: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    architecture: str,
    config: Mapping[str, object],
    origin: str,
) -> None:
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name} ({_size(tensors[name])}, not {_size(wanted[name])})"
        for name in sorted(wanted.keys() & tensors.keys())
        if wanted[name].shape != tensors[name].shape
    ]
    if missing or extra or shapes:
        raise WeightsError(
            f"{origin} does not fit architecture {architecture!r} with {dict(config)}: it lacks "
            f"{_some(missing)}, has {_some(extra)} besides, and {_some(shapes)} of another shape. Check "
            "config=. Where the names are another library's: xcloudmask models convert FILE "
            f"OUT.safetensors --keymap K, K one of {', '.join(KEYMAPS)}"
        )
    _check_kinds(module, tensors, origin)


def _check_kinds(module: nn.Module, tensors: Mapping[str, torch.Tensor], origin: str) -> None:
    """Refuse numbers of another kind than the network's: quantised and complex ones would be cast."""
    for name, own in module.state_dict().items():
        if own.is_floating_point() and not tensors[name].is_floating_point():
            have, want = (str(each.dtype).removeprefix("torch.") for each in (tensors[name], own))
            raise WeightsError(
                f"{origin}: {name} holds {have}, and the network {want}. Save it in floating point, with the "
                "scales applied if it was quantised"
            )


def exported(clean: bytes, origin: str) -> nn.Module:
    """Return the network of a vetted exported program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no sample inputs: they were left out on purpose
        try:
            return Exported(torch.export.load(io.BytesIO(clean)).module())
        except Exception as error:
            raise WeightsError(
                f"{origin} cannot be loaded by torch {torch.__version__}: {error}. Export it again with this "
                "version, or as ONNX"
            ) from error


def _size(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if names[3:] else ""
    return ", ".join(names[:3]) + more if names else "nothing"
