"""Models by name: one of this process, of this package, of a plug-in, or a card in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.models import card as _card
from xcloudmask.models import loading, registry
from xcloudmask.models.published import known
from xcloudmask.models.sources import plugins, shipped, ukis
from xcloudmask.models.weights.fetch import PACKAGE
from xcloudmask.models.weights.formats import FORMS
from xcloudmask.types import Level, ModelSpec

#: Modules that run networks which other packages carry.
ADAPTERS = "xcloudmask.models.sources.adapters:"


def names(*, published: bool = False) -> list[str]:
    """Return the names of all models.

    Parameters
    ----------
    published : bool
        Whether to name those that others have published and `xcloudmask.models.load` fetches, instead.

    Examples
    --------
    >>> import xcloudmask
    >>> "ukis-6band-l1c" in xcloudmask.models.names()
    True
    >>> "CloudS2Mask-10m" in xcloudmask.models.names(published=True)
    True
    """
    if published:
        return list(known.models())
    return list(dict.fromkeys((*registry.registered, *shipped.names(), *plugins.names())))


def answers_as_published(spec: ModelSpec) -> bool:
    """Whether a model may be a system of others, to which nothing is done unasked: any that came as a file.

    Those of this package are not, nor modules and cards that were registered.

    Examples
    --------
    >>> answers_as_published(get("sensei")), answers_as_published(get("omnicloudmask"))
    (False, True)
    """
    if spec.members:
        return any(map(answers_as_published, spec.members))
    from_file = spec.loader == loading.LOADER and not spec.weights.startswith(PACKAGE)
    return from_file or bool(spec.family) or spec.loader.startswith(ADAPTERS)


def get(name: str) -> ModelSpec:
    """Return the card of the model called `name`, or of what lies at a path, see `xcloudmask.models.load`.

    Examples
    --------
    >>> import xcloudmask
    >>> xcloudmask.models.get("ukis-6band-l1c").licence
    'Apache-2.0'
    """
    if isinstance(name, str):
        if name in registry.registered:
            return registry.registered[name]
        if name in shipped.names():
            return shipped.read(name)
        if name in plugins.names():
            return plugins.read(name)
        if name.endswith((".json", *FORMS)) or Path(name).is_dir():
            return _at_path(name)
        if name in known.models():
            hint = f"It is published elsewhere; xcloudmask.models.load({name!r}) fetches it"
            raise OptionError("model", name, hint=hint)
        if name in families():
            hint = f"There is one for each level: {name}-l1c, {name}-l2a; predict alone takes {name!r}"
            raise OptionError("model", name, hint=hint)
    raise OptionError("model", name, allowed=("auto", *families(), *names()))


def _at_path(name: str) -> ModelSpec:
    """Return the card of what lies at a path, which is read again only when its files have changed.

    `predict` asks each time it plans, and weights have hundreds of megabytes.
    """
    kept = _read.get(key := os.path.abspath(name))
    if kept is None or kept[1][0] is None or kept[1] != _stamps(key, kept[0]):
        spec = loading.read(name, {})
        kept = _read[key] = spec, _stamps(key, spec)
    return kept[0]


def _stamps(path: str, spec: ModelSpec) -> list[tuple[int, int] | None]:
    """Return when the files of a model were changed, and their sizes."""
    weights = [each.weights for each in spec.members or (spec,)]
    stamps: list[tuple[int, int] | None] = []
    for file in (path, *weights, *(str(Path(each).with_name("config.yaml")) for each in weights)):
        try:
            state = os.stat(file)
            stamps.append((state.st_mtime_ns, state.st_size))
        except OSError:  # an address, or nothing
            stamps.append(None)
    return stamps


#: Cards of what was read at paths, and what its files were like then.
_read: dict[str, tuple[ModelSpec, list[tuple[int, int] | None]]] = {}


def families() -> list[str]:
    """Return the names that stand for two models, one for each processing level; `predict` takes them, too.

    Examples
    --------
    >>> import xcloudmask
    >>> xcloudmask.models.families()
    ['ukis-6band', 'ukis-4band', 'ukis-any']
    """
    known = names()
    stems = [name.removesuffix("-l1c") for name in known if name.endswith("-l1c")]
    return [stem for stem in stems if f"{stem}-l2a" in known and stem not in known]


def for_level(name: str, level: Level | None) -> str:
    """Return the name of a model for a level: that of its family for it, or the name itself.

    Examples
    --------
    >>> import xcloudmask
    >>> xcloudmask.models.for_level("ukis-any", "boa"), xcloudmask.models.for_level("spectral", "boa")
    ('ukis-any-l2a', 'spectral')
    """
    if name in registry.registered or name not in families():  # the first is quick, and nearly always so
        return name
    return f"{name}-{'l2a' if level == 'boa' else 'l1c'}"


def readable() -> list[ModelSpec]:
    """Return the cards of all models but those of packages that are broken."""
    return [card for _, card in cards() if isinstance(card, ModelSpec)]


def cards() -> Iterator[tuple[str, ModelSpec | CloudMaskError]]:
    """Go through all models: the name of each and its card, or why that cannot be read."""
    for name in names():
        try:
            yield name, get(name)
        except CloudMaskError as error:
            yield name, error


def show(name: str) -> str:
    """Return the card of a model as text; of a family, those of its models.

    Examples
    --------
    >>> import xcloudmask
    >>> xcloudmask.models.show("ukis-6band-l1c").splitlines()[1].split()[:3]
    ['bands', 'blue,', 'green,']
    >>> xcloudmask.models.show("ukis-6band-l1c")
    ukis-6band-l1c ...
    """
    return _card.Card("\n\n".join(_card.text(get(each)) for each in of_family(name)))


def of_family(name: str) -> list[str]:
    """Return the names of the models that a name stands for: those of a family, or itself."""
    return [f"{name}-l1c", f"{name}-l2a"] if name in families() else [name]


def automatic() -> tuple[ModelSpec, ...]:
    """Return the models that ``model="auto"`` may take, those for the most bands first."""
    own = [shipped.read(name) for name in shipped.names()]
    return (*ukis.SPECS, *sorted(own, key=lambda spec: -spec.min_bands))
