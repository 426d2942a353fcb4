"""The architectures, by name: one file each, imported when its name is asked for.

A file of weights says which architecture it belongs to by a name and a few numbers. Both come from
outside, so both are checked: the name against `NAMES`, the numbers against the signature of the class that
it names. Nothing in a file can make Python import or run anything else.
"""

from __future__ import annotations

import importlib
import inspect
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from xcloudmask.errors import CloudMaskError, OptionError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NAMES", "build", "config_of", "construct"]

#: The file of each, and the class in it, whose keywords are the settings.
_FACTORIES: Mapping[str, tuple[str, str]] = {
    "cloud-unet": ("cloud_unet", "CloudUNet"),
    "deeplabv3plus": ("deeplabv3plus", "DeepLab"),
    "dynamic-unet": ("dynamic_unet", "DynamicUNet"),
    "ipl-uv": ("ipl_uv", "IplUv"),
    "pixel-mlp": ("pixel", "pixel_mlp"),
    "pw-dl3plus": ("pw_dl3plus", "PixelWiseDeepLab"),
    "segformer": ("segformer", "SegFormer"),
    "sensei-v1": ("sensei_v1", "SenseiV1Network"),
    "sensei-v2": ("sensei_v2", "SenseiV2Network"),
    "spectral": ("pixel", "Spectral"),
    "unet": ("unet", "UNet"),
}

#: The architectures that `build` knows.
NAMES: tuple[str, ...] = tuple(_FACTORIES)

#: No number of a configuration is larger, and no architecture has more weights: a file that says
#: otherwise is broken or hostile, and is refused before memory is taken.
LARGEST_NUMBER = 4096
LARGEST_NETWORK = 500_000_000


def config_of(name: str) -> dict[str, Any]:
    """Return the settings of an architecture and their defaults.

    Examples
    --------
    >>> config_of("pixel-mlp")["hidden"]
    64
    """
    signature = inspect.signature(_factory(name))
    return {
        key: (None if parameter.default is parameter.empty else parameter.default)
        for key, parameter in signature.parameters.items()
    }


def build(name: str, config: Mapping[str, object] | None = None, *, seed: int = 0) -> nn.Module:
    """Build an architecture with weights drawn from `seed`.

    Parameters
    ----------
    name : str
        One of `NAMES`.
    config : mapping
        Its settings, see `config_of`; those left out take their defaults.
    seed : int
        Of the initial weights. The caller's random state is left as it was.

    Returns
    -------
    torch.nn.Module
        In training mode, on the CPU, float32.

    Examples
    --------
    >>> sum(p.numel() for p in build("pixel-mlp", {"bands": 13, "classes": 2}).parameters())
    1154
    >>> build("pixel-mlp", {"band": 13})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown setting of architecture 'pixel-mlp' 'band'; did you mean 'bands'...
    """
    import torch

    with torch.device("meta"):
        weights = sum(p.numel() for p in construct(name, config or {}).parameters())
    if weights > LARGEST_NETWORK:
        raise CloudMaskError(
            f"architecture {name!r} with {config} would have {weights:,} weights; the most allowed is "
            f"{LARGEST_NETWORK:,}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return construct(name, config or {})


def construct(name: str, config: Mapping[str, object]) -> nn.Module:
    """Build an architecture on torch's current device, with weights from its current random state.

    `build` is what loads files: it bounds the size first.

    Examples
    --------
    >>> construct("pixel-mlp", {"bands": 4}).training
    True
    """
    factory = _factory(name)
    settings = _checked(name, factory, dict(config))
    try:
        module: nn.Module = factory(**settings)
    except (ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        if isinstance(error, CloudMaskError):
            raise
        raise CloudMaskError(f"architecture {name!r} cannot be built with {settings}: {error}") from error
    if any(0 in weight.shape for weight in module.parameters()):
        raise CloudMaskError(f"architecture {name!r} with {settings} has layers of no channels: widen them")
    return module


def _factory(name: str) -> Any:
    try:
        file, function = _FACTORIES[name]
    except (KeyError, TypeError):
        raise OptionError("architecture", name, allowed=NAMES) from None
    return getattr(importlib.import_module(f"{__name__}.{file}"), function)


def _checked(name: str, factory: Any, config: dict[Any, object]) -> dict[str, object]:
    """Return `config` in the types that `factory` declares, or say which entry is wrong."""
    hints = get_type_hints(factory.__init__ if inspect.isclass(factory) else factory)
    allowed = list(inspect.signature(factory).parameters)
    for key in config:
        if key not in allowed:
            raise OptionError(f"setting of architecture {name!r}", key, allowed=allowed)
    for key, parameter in inspect.signature(factory).parameters.items():
        if parameter.default is parameter.empty and key not in config:
            raise CloudMaskError(f"architecture {name!r} needs the setting {key!r}")
    return {
        key: _convert(f"{key} of architecture {name!r}", value, hints[key]) for key, value in config.items()
    }


def _convert(what: str, value: object, hint: Any) -> object:
    """Return `value` as `hint` asks; lists become tuples, integers may stand for floats, no more."""
    origin = get_origin(hint)
    if origin is Literal:
        if not isinstance(value, str) or value not in get_args(hint):
            raise OptionError(what, value, allowed=get_args(hint))
        return value
    if origin in (Union, types.UnionType):  # X | None
        inner = next(arg for arg in get_args(hint) if arg is not type(None))
        return None if value is None else _convert(what, value, inner)
    if origin is tuple:
        if not isinstance(value, list | tuple) or len(value) > 64:
            raise CloudMaskError(f"{what} must be a list of at most 64 entries, got {value!r}")
        return tuple(_convert(what, entry, get_args(hint)[0]) for entry in value)
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise CloudMaskError(f"{what} must be a mapping, got {value!r}")
        return dict(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise CloudMaskError(f"{what} must be of type {hint.__name__}, got {value!r}")
    if isinstance(value, int | float) and not 0 <= value <= LARGEST_NUMBER:
        raise CloudMaskError(f"{what} must lie between 0 and {LARGEST_NUMBER}, got {value!r}")
    return value
