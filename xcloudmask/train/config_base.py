"""What every table of a training config has: checked entries, errors that name entry and remedy.

pydantic checks; `Table` turns what it finds into the library's errors, here and nowhere else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from typing import Annotated, Any, ClassVar

import numpy as np

from xcloudmask.errors import CloudMaskError, OptionError

try:
    from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
except ImportError as error:
    raise CloudMaskError("training needs pydantic: pip install 'xcloudmask[train]'") from error

Count = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
From0 = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]
#: pydantic's words for types, and those of TOML.
_WORDS = {
    "a valid integer": "a whole number", "a valid number": "a number", "a valid string": "a text in quotes",
    "a valid boolean": "true or false", "a valid tuple": "a list", "a valid dictionary": "a table",
}  # fmt: skip


def one_of(names: Collection[str]) -> AfterValidator:
    """Return the check that a text is one of these names; its error offers the nearest.

    Examples
    --------
    >>> class Log(Table):
    ...     section = "log"
    ...     to: tuple[Annotated[str, one_of(["tensorboard", "mlflow"])], ...] = ()
    >>> Log(to=["tensorbord"])
    Traceback (most recent call last):
    ...
    xcloudmask.errors.OptionError: unknown to in [log] 'tensorbord'; did you mean 'tensorboard'? ...
    """

    def check(name: str) -> str:
        if name not in names:
            raise OptionError("", name, allowed=names)
        return name

    return AfterValidator(check)


class Table(BaseModel):
    """Entries of a config with their types and ranges; a wrong one is a `CloudMaskError` that names it.

    A list serves where a tuple is declared, a path where text is, and NumPy's numbers are numbers. A bool is
    no number, text is no number, and a number must be finite. A field's `description` says what it must be
    where pydantic's words would not.

    Examples
    --------
    >>> class Data(Table):
    ...     section = "data"
    ...     batch: AtLeast1 = 16
    ...     sources: tuple[str, ...] = ()
    >>> Data(batch=8, sources=["l8"])
    Data(batch=8, sources=('l8',))
    >>> Data(batch="8")
    Traceback (most recent call last):
    ...
    xcloudmask.errors.CloudMaskError: batch = '8' in [data] must be a whole number, without quotes
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )
    #: The name of the table in a config, for messages.
    section: ClassVar[str] = ""

    def __init__(self, **entries: Any) -> None:
        try:
            super().__init__(**entries)
        except ValidationError as error:
            raise self._translated(entries, error) from None

    def given(self) -> dict[str, Any]:
        """Return the entries that were given, without those that have their default."""
        return {
            name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set
        }

    @model_validator(mode="before")
    @classmethod
    def _in_python_types(cls, entries: Any) -> Any:
        if not isinstance(entries, dict):
            return entries
        return {name: _plain(value) for name, value in entries.items()}

    @classmethod
    def _translated(cls, entries: dict[str, Any], errors: ValidationError) -> CloudMaskError:
        """Return the library's error for the first of pydantic's, or for a misspelt entry if there is one."""
        order = {"extra_forbidden": 0, "missing": 2}  # a misspelt entry is missing, too
        each = sorted(errors.errors(), key=lambda error: order.get(error["type"], 1))
        kind, place, text = each[0]["type"], each[0]["loc"], each[0]["msg"]
        raised = each[0].get("ctx", {}).get("error")
        if isinstance(raised, CloudMaskError) and not (isinstance(raised, OptionError) and not raised.what):
            return raised
        name, *inner = place
        where = f" in [{cls.section}]" if cls.section else ""
        if isinstance(raised, OptionError):
            return OptionError(f"{name}{where}", raised.value, allowed=raised.allowed)
        if kind == "extra_forbidden":
            what = f"setting of [{cls.section}]" if cls.section else "table or setting"
            return OptionError(what, name, allowed=cls.model_fields)
        field = cls.model_fields[str(name)]
        if kind == "missing" and not inner:
            example = "".join(f" = {example!r}" for example in (field.examples or [])[:1])
            return CloudMaskError(
                f"[{cls.section}] needs {name}{example}"
                if cls.section
                else f"the config has no {field.title}"
            )
        value = entries[str(name)]
        if kind == "model_type":
            inside = ".".join(filter(None, (cls.section, str(name))))
            return CloudMaskError(
                f"{name} = {value!r}{where} must be a table: [{inside}], and its entries below"
            )
        entry, held = str(name), value
        for part in () if field.description or "[key]" in inner else inner:
            held = held[part]
            entry += f"[{part}]" if isinstance(part, int) else f".{part}"
        hint = ""
        if field.description is None and isinstance(held, str):
            hint = f": [{held!r}]" if kind == "tuple_type" else ", without quotes"
        return CloudMaskError(f"{entry} = {held!r}{where} must {field.description or _words(text)}{hint}")


def _plain(value: Any) -> Any:
    """Return a list as a tuple, a path as text, and a number of NumPy as one of Python."""
    if isinstance(value, list):
        return tuple(map(_plain, value))
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _words(text: str) -> str:
    """Return what pydantic says, after "must"."""
    text = re.sub(r"^\w+ should ", "", text)
    text = re.sub(r" after validation, not .*", "", text).removeprefix("Value error, must ")
    for theirs, ours in _WORDS.items():
        text = text.replace(theirs, ours)
    return text
