"""From the file of a published system, or a checkpoint, to a safetensors file with the names of this library.

Nothing of the source is run, see `xcloudmask.models.weights.formats.tensors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xcloudmask.errors import CloudMaskError, OptionError, WeightsError
from xcloudmask.models import card, loading
from xcloudmask.models.card_fields import checked
from xcloudmask.models.keymaps import KEYMAPS
from xcloudmask.models.published import Contents, recognised
from xcloudmask.models.weights import fetch
from xcloudmask.models.weights.formats import form_of

if TYPE_CHECKING:
    from torch import Tensor


def convert(
    source: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    prefix: str = "",
    keymap: str | None = None,
    sha256: str = "",
) -> list[str]:
    """Write the tensors of a file as safetensors; for a published system's, a card beside it as well.

    Parameters
    ----------
    source : str or Path, or a sequence of them
        Path or address of a file of a published system, which `xcloudmask.models.load` recognises; or of what
        ``torch.save`` wrote (a state dict, or a checkpoint that holds one), or of a safetensors file. Several
        where a model's networks come in a file each.
    target : str or Path
        The ``.safetensors`` file to write. The card is called the same, with ``.json``.
    prefix : str
        What the names begin with and shall not, such as ``"module."``.
    keymap : str, optional
        One of `xcloudmask.models.keymaps.KEYMAPS`, where the names are those of another library.
    sha256 : str, optional
        Of the source; needed if it is an address.

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
    notes: dict[str, Any] = {}
    state: dict[str, Tensor] = {}
    for each in [source] if isinstance(source, (str, Path)) else source:
        href = str(each)
        contents, _ = loading.contents_of(fetch.read(href, sha256), form_of(href), href)
        named = {name.removeprefix(prefix): tensor for name, tensor in contents.tensors.items()}
        if keymap is not None:
            named = _translated(keymap, named, href)
        if twice := sorted(state.keys() & named.keys()):
            raise CloudMaskError(f"{href} has {twice[0]!r}, as another of the files: are they one model's?")
        state |= named
        notes = {**contents.notes, **notes}
    published = Contents(state, notes)
    family = recognised(published) if keymap is None else None
    if family is not None:
        described = checked(family.card(published))  # before anything is written: it may refuse
        state = family.translate(published)
    target.write_bytes(save({name: state[name].detach().clone().contiguous() for name in sorted(state)}))
    if family is not None:
        reduce = described.pop("reduce", "mean")
        spec = replace(loading.make(str(target), described), weights=target.name, reduce=reduce)
        target.with_suffix(".json").write_text(card.to_json(spec), encoding="utf-8")
    return sorted(state)


def _translated(keymap: str, state: Mapping[str, Tensor], origin: str) -> dict[str, Tensor]:
    if keymap not in KEYMAPS:
        raise OptionError("key map", keymap, allowed=KEYMAPS)
    renamed = KEYMAPS[keymap](state)
    if renamed.keys() == state.keys():
        raise WeightsError(
            f"{origin}: keymap {keymap!r} knows none of its names ({', '.join(sorted(state)[:3])}, ...): "
            f"leave --keymap out if they are ours already, or name another: {', '.join(KEYMAPS)}"
        )
    return renamed
