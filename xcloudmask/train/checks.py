"""What the entries of a config must be, table by table, and what goes together."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from xcloudmask import models
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics import METRICS
from xcloudmask.metrics.labels import covers_all, open_classes
from xcloudmask.models.arch import NAMES
from xcloudmask.train.evaluate import CODES, SETS
from xcloudmask.train.loggers import LOGGERS
from xcloudmask.train.loop import Settings
from xcloudmask.train.losses import LOSSES
from xcloudmask.train.stream import Recipe
from xcloudmask.types import ModelSpec

#: A name that is also that of a file, in any system.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
#: Names of other files that a training writes: beside weights, and beside the folders of stages.
TAKEN = ("best", "last", "record")
TAKEN_BY_FILES = (
    *TAKEN, "teacher", "tensorboard", "mlflow-run", "log.csv", "state.pt", "curves.png", "record.json",
    "best.safetensors", "last.safetensors",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Check:
    """What an entry must be, in words and as a function; what is told by name must be one of `names`."""

    words: str
    holds: Callable[[Any], bool]
    names: Collection[str] = ()

    def __call__(self, entry: str, value: Any, where: str) -> None:
        """Raise CloudMaskError unless a value holds."""
        place = f" in [{where}]" if where else ""
        if not self.holds(value):
            meant = f": [{value!r}]" if isinstance(value, str) and self.words.startswith("a list") else ""
            raise CloudMaskError(f"{entry} = {value!r}{place} must be {self.words}{meant}")
        for one in value if isinstance(value, list | tuple | Mapping) else [value]:
            if self.names and isinstance(one, str) and one not in self.names:
                raise OptionError(f"{entry}{place}", one, allowed=self.names)


class Models(Collection[str]):
    """The names of the models that are there now; paths of weights and cards may be of some to come."""

    def __contains__(self, one: object) -> bool:
        return str(one).endswith((".safetensors", ".onnx", ".json")) or any(one == name for name in self)

    def __iter__(self) -> Iterator[str]:
        return iter([*models.families(), *models.names()])

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    is_one = isinstance(value, Real) and not isinstance(value, bool)
    return is_one and low <= value <= high and abs(value) != math.inf


def _whole(least: int, words: str = "") -> Check:
    return Check(
        words or f"a whole number, {least} or more",
        lambda value: isinstance(value, Integral) and _number(value, least),
    )


def _list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


def _once(value: Any) -> bool:
    return _list(value) and len(set(value)) == len(value)


def _models(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str | ModelSpec) for one in value)


def _by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and _number(value[key], 0) for key in value
    )


def _pair(value: Any) -> bool:
    good = isinstance(value, list | tuple) and len(value) == 2 and all(_number(one) for one in value)
    return good and 0 < value[0] <= value[1]


TEXT = Check("a text in quotes", lambda value: isinstance(value, str))
PATH = Check("a path in quotes", lambda value: isinstance(value, str | os.PathLike))
FLAG = Check("true or false, without quotes", lambda value: isinstance(value, bool))
TEXTS = Check("a list of texts", _list)
SHARE = Check("a number from 0 to 1", lambda value: _number(value, 0, 1))
ABOVE_0 = Check("a number above 0", lambda value: _number(value, 0) and value > 0)
TABLE = Check("a table", lambda value: isinstance(value, Mapping))
MODEL = Check(
    "the name of a model, or the path of its card, in quotes",
    lambda value: isinstance(value, str | os.PathLike | ModelSpec),
    Models(),
)

#: The entries of each table, and what each must be; "" are those above all tables.
CHECKS: Mapping[str, Mapping[str, Check]] = {
    "": {"description": TEXT, "licence": TEXT},
    "data": {
        "folder": PATH, "train": PATH, "held_out": PATH, "sources": TEXTS,
        "weights": Check("a table of numbers, 0 or more: { l8_biome = 6.0 }", _by_name),
        "dev": SHARE, "dev_scenes": TEXTS,
        "used": Check("a number above 0 and not above 1", lambda value: _number(value, 0, 1) and value > 0),
        "batch": _whole(1), "length": _whole(1), "seed": _whole(0),
        "memory": _whole(1, "a whole number of bytes, 1 or more"), "labelled": FLAG, "teacher": FLAG,
    },
    "network": {
        "architecture": Check(TEXT.words, TEXT.holds, NAMES),
        "classes": Check(
            "a list of texts, one at least and none twice", lambda value: _once(value) and bool(value), CODES
        ),
        "settings": TABLE, "seed": _whole(0), "bands": Check("a list of texts, none twice", _once),
        "start": MODEL, "head_only": FLAG, "only": TEXTS, "estimate": FLAG,
    },
    "loss": {
        "terms": Check(
            "a table of numbers, 0 or more, one at least: { ambiguous-ce = 1.0 }",
            lambda value: _by_name(value) and bool(value), LOSSES,
        ),
        "smoothing": Check("a number from 0 to below 1", lambda value: _number(value, 0, 1) and value < 1),
        "recovery": Check("a number, 0 or more", lambda value: _number(value, 0)),
        "distil": Check("a table: { model = 'ukis-any' }", TABLE.holds),
    },
    "loss.distil": {"model": MODEL, "weight": ABOVE_0, "temperature": ABOVE_0},
    "validation": {
        "bands": Check("a list of texts, one at least", lambda value: _list(value) and bool(value), SETS),
        "metric": Check(TEXT.words, TEXT.holds, METRICS), "temperature": FLAG,
    },
    "card": {
        "version": TEXT, "gsd": Check("two numbers above 0, from and to, in metres: [10, 30]", _pair),
        "patch": _whole(1), "overlap": _whole(0), "citation": TEXT, "training_data": TEXT, "scores": TEXT,
        "limits": TEXT,
    },
    "teacher": {
        "models": Check(
            "a list of texts, one at least", lambda value: _models(value) and bool(value), Models()
        ),
        "unlabelled": PATH,
        "confident": Check(
            "a number above 0.5 and not above 1", lambda value: _number(value, 0.5, 1) and value > 0.5
        ),
        "tta": FLAG,
    },
    "log": {"to": Check("a list of texts", _list, LOGGERS)},
}  # fmt: skip
#: Tables that are dataclasses, which know what their entries must be.
SETTINGS: Mapping[str, Callable[[Mapping[str, Any]], object]] = {
    "loop": Settings.from_dict, "recipe": Recipe.from_dict
}  # fmt: skip
#: What a table needs, if it is there, and an example of it.
NEEDED = {"teacher": ("models", "['ukis-4band']"), "loss.distil": ("model", "'ukis-any'")}


def check_table(name: str, table: Any, where: str = "") -> None:
    """Raise CloudMaskError unless a table is one, and its entries are what they must be.

    Parameters
    ----------
    name : str
        Of the table, one of `CHECKS`; entries of others are not looked at.
    table : mapping
        Its entries.
    where : str
        Where it is, for messages, if not at its name.

    Examples
    --------
    >>> check_table("data", {"batch": 8, "sources": "l8"})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: sources = 'l8' in [data] must be a list of texts: ['l8']
    """
    where = where or name
    if not isinstance(table, Mapping):
        raise CloudMaskError(f"{where} = {table!r} must be a table: [{where}], and its entries below")
    checks = CHECKS.get(name)
    if checks is None:
        return
    for entry, value in table.items():
        if entry not in checks:
            raise OptionError(f"setting of [{where}]", entry, allowed=checks)
        checks[entry](entry, value, where)
        if f"{name}.{entry}" in CHECKS:
            check_table(f"{name}.{entry}", value, f"{where}.{entry}")
    if name in NEEDED and NEEDED[name][0] not in table:
        raise CloudMaskError(f"[{where}] needs {' = '.join(NEEDED[name])}")


def check_name(name: Any, what: str, others: Iterable[str] = (), taken: Iterable[str] = TAKEN) -> None:
    """Raise CloudMaskError unless a name can be that of files, and is not that of others.

    Examples
    --------
    >>> check_name("a/b", "name")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: name = 'a/b' must be a text of letters, digits, '_', '.' and '-', ...
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise CloudMaskError(
            f"{what} = {name!r} must be a text of letters, digits, '_', '.' and '-', the first a letter or a "
            "digit: files will bear it"
        )
    if name.casefold() in taken:
        raise CloudMaskError(f"{what} = {name!r} is what a training calls a file of its own: choose another")
    if name.casefold() in {other.casefold() for other in others}:
        raise CloudMaskError(f"{what} = {name!r} is there twice: stages and what they end in need own names")


def check_search(space: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CloudMaskError unless there is what a search varies, and it may be all that is tried.

    Parameters
    ----------
    space : mapping
        The table [search].
    tables : mapping
        The tables that it may vary.

    Examples
    --------
    >>> check_search({"data.batch": [4, 0]}, {"data": {}})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: [search] 'data.batch': batch = 0 in [data] must be a whole number, ...
    """
    for name, choice in space.items():
        table, *rest = name.split(".")
        if not 1 <= len(rest) <= 2:
            raise CloudMaskError(
                f"[search] {name!r} must be named table.entry, or table.entry.part, in quotes: 'loop.rate'"
            )
        if table not in tables:
            raise OptionError("table in [search]", table, allowed=tables)
        now, entry = tables[table], rest[0]
        parts = now.get(entry, {})
        if len(rest) == 2 and not isinstance(parts, Mapping):
            raise CloudMaskError(f"[search] {name!r}: {entry} = {parts!r} in [{table}] has no parts")
        ends = (
            [choice[end] for end in ("low", "high") if end in choice] if isinstance(choice, Mapping) else []
        )
        for value in choice if isinstance(choice, list) else ends:
            tried = {**now, entry: {**parts, rest[1]: value} if len(rest) == 2 else value}
            try:
                if table in SETTINGS:
                    SETTINGS[table](tried)
                else:
                    check_table(table, tried)
            except CloudMaskError as error:
                raise CloudMaskError(f"[search] {name!r}: {error}") from error


def check_stage(tables: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise CloudMaskError where entries that a stage may change, each good, do not go together.

    Parameters
    ----------
    tables : mapping
        Those of one stage, with the entries that it has from the config.

    Examples
    --------
    >>> check_stage({"data": {"labelled": False}})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: labelled = false in [data] leaves nothing to train on ...
    """
    for table, read in SETTINGS.items():
        if table in tables:
            read(tables[table])
    data, loss = tables.get("data", {}), tables.get("loss", {})
    if data.get("labelled") is False and not data.get("teacher"):
        raise CloudMaskError(
            "labelled = false in [data] leaves nothing to train on but what a teacher labelled: "
            "teacher = true, and models in [teacher]"
        )
    learnt = any(loss.get("terms", {"ambiguous-ce": 1}).values())
    if not (learnt or loss.get("recovery") or "distil" in loss):
        raise CloudMaskError("all terms in [loss] are 0: nothing would be learnt")


def check_network(network: Mapping[str, Any], card: Mapping[str, Any]) -> None:
    """Raise CloudMaskError where entries of [network] and [card], each good, do not go together.

    Examples
    --------
    >>> check_network({"classes": ["cloud", "thin_cloud"]}, {})
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: classes = ['cloud', 'thin_cloud'] in [network] must cover every ...
    """
    words = open_classes(network["classes"])
    if not covers_all(words):
        raise CloudMaskError(
            f"classes = {list(words)} in [network] must cover every pixel, as ['clear', 'cloud'] do"
        )
    unused = [entry for entry in ("architecture", "settings", "bands") if network.get(entry)]
    if "start" in network and unused:
        raise CloudMaskError(
            f"[network] says start and {unused[0]}: what it starts from has its own; leave out one"
        )
    plain = {} if "start" in network else {field.name: field.default for field in fields(ModelSpec)}
    patch, overlap = (card.get(key, plain.get(key)) for key in ("patch", "overlap"))
    if patch is not None and overlap is not None and overlap >= patch:
        usual = "" if "start" in network else f"; {plain['overlap']} and {plain['patch']} unless told"
        raise CloudMaskError(f"overlap = {overlap} in [card] must be below patch = {patch}{usual}")
