"""From a pickle that its owner trusts to a safetensors file, without running what the pickle says.

``torch.load(weights_only=True)`` builds tensors and plain containers and refuses everything else.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, WeightsError
from xcloudmask.models.keymaps.tables import KEYMAPS, translate
from xcloudmask.models.weights import safety

#: Names under which training scripts keep the weights.
PLACES = ("state_dict", "model_state_dict", "model", "ema", "net", "network", "weights")
MAX_TOTAL = 4 * 2**30
#: Before it, weights_only could be got round (CVE-2025-32434).
SAFE_TORCH = (2, 6)


def convert(
    source: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    prefix: str = "",
    keymap: str | None = None,
) -> list[str]:
    """Write the tensors of a ``.pt`` or ``.pth`` file as safetensors.

    Parameters
    ----------
    source : str or Path, or a sequence of them
        What ``torch.save`` wrote: a state dict, or a checkpoint that holds one; or a safetensors file.
        Several where a model's networks come in a file each, as OmniCloudMask's do.
    target : str or Path
        The ``.safetensors`` file to write.
    prefix : str
        What the names begin with and shall not, such as ``"module."``.
    keymap : str, optional
        One of `xcloudmask.models.keymaps.tables.KEYMAPS`, where the names are those of another library.

    Returns
    -------
    list of str
        Names of the tensors.

    Examples
    --------
    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp())
    >>> torch.save({"state_dict": {"module.a": torch.ones(2)}}, folder / "a.pt")
    >>> convert(folder / "a.pt", folder / "a.safetensors", prefix="module.")
    ['a']
    """
    from safetensors.torch import save

    target = Path(target)
    if target.suffix != ".safetensors":
        raise CloudMaskError(f"{target} must end with .safetensors")
    state: dict[str, Any] = {}
    for one in [source] if isinstance(source, (str, Path)) else source:
        path = Path(one)
        found = {name.removeprefix(prefix): value for name, value in _state(_read(path), path).items()}
        found = found if keymap is None else _translated(keymap, found, path)
        if twice := sorted(state.keys() & found.keys()):
            raise CloudMaskError(f"{path} has {twice[0]!r}, as another of the files: are they one model's?")
        state |= found
    tensors = {name: state[name].detach().clone().contiguous() for name in sorted(state)}
    target.write_bytes(save(tensors))
    return sorted(tensors)


def _translated(keymap: str, state: Mapping[str, Any], source: Path) -> dict[str, Any]:
    try:
        found = translate(keymap, state)
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from error
    if found.keys() == state.keys():
        raise WeightsError(
            f"{source}: keymap {keymap!r} knows none of its names ({', '.join(sorted(state)[:3])}, ...): "
            f"leave --keymap out if they are ours already, or name another: {', '.join(KEYMAPS)}"
        )
    return found


def _read(source: Path) -> Any:
    import torch

    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < SAFE_TORCH:
        raise CloudMaskError(
            f"torch {torch.__version__} cannot read pickles safely: install torch 2.6 or newer"
        )
    if not source.exists():
        raise WeightsError(f"{source} does not exist")
    if source.suffix == ".safetensors":
        from safetensors.torch import load

        return load(safety.safetensors(source.read_bytes(), str(source)))
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            names = [info.filename for info in archive.infolist()]
            total = sum(info.file_size for info in archive.infolist())
        if total > MAX_TOTAL:
            raise WeightsError(f"{source} unpacks to {total / 2**30:.1f} GB: refused (a zip bomb?)")
        if any("/code/" in name for name in names):
            raise WeightsError(
                f"{source} is TorchScript, which is code: it has no tensors alone to take out. Export the "
                "network it came from as ONNX"
            )
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(
            f"{source} holds more than tensors and plain values, and nothing else is built from it: "
            f"{str(error).splitlines()[0]}. Save the state dict alone, where the network was made: "
            "torch.save(model.state_dict(), FILE)"
        ) from error


def _state(found: Any, source: Path) -> Mapping[str, Any]:
    """Return the state dict in what was read."""
    import torch

    for _ in range(3):
        if isinstance(found, Mapping) and any(isinstance(value, torch.Tensor) for value in found.values()):
            return {str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)}
        inner = [found[place] for place in PLACES if isinstance(found, Mapping) and place in found]
        if not inner:
            break
        found = inner[0]
    raise WeightsError(f"{source} holds no state dict, neither itself nor as {', '.join(PLACES)}")
