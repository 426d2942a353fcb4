"""Published models that are known by name: where their files are, and what the authors say of them."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from xcloudmask.errors import WeightsError
from xcloudmask.models.published import shown
from xcloudmask.models.weights import fetch

#: The files that were published beside weights have some kilobytes.
MAX_SETTINGS = 2**16


@dataclass(frozen=True)
class KnownModel:
    """A published model, by the name that `xcloudmask.models.load` takes, and the system it belongs to.

    `files` have the ``href`` of each, and its ``sha256`` where that was published; several are an ensemble.
    `source` is where they are published, under which licence the weights are.
    """

    name: str
    system: str
    files: tuple[Mapping[str, str], ...]
    licence: str
    source: str


@functools.cache
def models() -> dict[str, KnownModel]:
    """Return the published models by name.

    Examples
    --------
    >>> models()["CloudS2Mask-10m"].licence, len(models()["CloudS2Mask-10m"].files)
    ('MIT', 2)
    """
    text = files(__package__).joinpath("known.toml").read_text(encoding="utf-8")
    known = {}
    for system in tomllib.loads(text)["system"]:
        for name, entries in system["models"].items():
            links = tuple({"href": system["base"] + entry.pop("path"), **entry} for entry in entries)
            known[name] = KnownModel(name, system["name"], links, system["licence"], system["source"])
    return known


def config_beside(href: str) -> Mapping[str, Any] | None:
    """Return the YAML file ``config.yaml`` beside weights, None if there is none.

    The path of another YAML file in it is replaced by what that holds, if a file of its name lies there, too.
    """
    config = _yaml_beside(href, "config.yaml")
    if config is None or fetch.local_path(href) is None:
        return config
    return {key: _named(href, value) for key, value in config.items()}


def _named(href: str, value: Any) -> Any:
    """Return the YAML file beside weights that a value names; other values as they are."""
    name = PurePosixPath(value).name if isinstance(value, str) else ""
    return (_yaml_beside(href, name) or value) if name.endswith((".yaml", ".yml")) else value


def _yaml_beside(href: str, name: str) -> Mapping[str, Any] | None:
    path = fetch.local_path(href)
    if path is not None:
        where = str(path.with_name(name))
        if not os.path.isfile(where):
            return None
    else:
        parts = urlsplit(href)  # not urljoin, which knows neither s3 nor hf
        beside = str(PurePosixPath(parts.path).with_name(name))
        where = parts._replace(path=beside, query="", fragment="").geturl()
    try:
        text = fetch.read_text(where)
    except fetch.MissingError:
        return None
    except WeightsError as error:  # without it another model would be made, and nobody told
        raise WeightsError(f"{error}. Save {file_name(href)} and {name} in a folder and load that") from error
    return _parsed(text, f"{where}, beside the weights,")


def _parsed(text: bytes, origin: str) -> Mapping[str, Any]:
    """Return the settings in a YAML file.

    An alias (``*a``) stands for what was written before. A list of nine aliases of a list of nine aliases,
    and so on, is small in a file and in memory, and for ever being merged, compared or printed.
    """
    import yaml

    if len(text) > MAX_SETTINGS:
        raise WeightsError(f"{origin} has {len(text):,} bytes, and settings have {MAX_SETTINGS:,} at most")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text)):
            raise yaml.YAMLError("it has an alias (*name): write out what that stands for")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date or a number that is none
        raise WeightsError(f"{origin} is no YAML that can be used: {error}") from error
    if not isinstance(content, Mapping):
        raise WeightsError(f"{origin} holds no settings: {shown(content)}")
    return content


def file_name(href: str) -> str:
    """Return the last part of a path or an address.

    Examples
    --------
    >>> file_name("https://example.com/a/weights.pt?download=true")
    'weights.pt'
    """
    return PurePosixPath(urlsplit(href).path).name
