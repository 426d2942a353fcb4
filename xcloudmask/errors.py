"""Every exception and warning of the library: few, each also a built-in one, each naming the remedy."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from functools import partial, wraps
from numbers import Real
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, TypeVar, cast

Call = TypeVar("Call", bound=Callable[..., Any])
#: Gives a warning that was held back.
HeldWarning = Callable[[], None]
_held: ContextVar[list[HeldWarning] | None] = ContextVar("held", default=None)


class _Value:
    """What equals another of its kind with the same parts, also after a way through pickle."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(str(self))


class Use(_Value):
    """An option, or several of one call, that a message names; each surface words it its own way.

    Parameters
    ----------
    call : str
        The method that takes them, where it is not the one that was called.
    options : object
        Names and values; ``...`` stands for a value of the reader's, ``[...]`` for several.

    Examples
    --------
    >>> print(Use(tta=True), Use(group=...), Use("da.cloudmask.describe", level="L1C", scale=...))
    tta=True group= da.cloudmask.describe(level='L1C', scale=...)
    """

    def __init__(self, call: str = "", /, **options: object) -> None:
        self.call = call
        self.options = options

    def __str__(self) -> str:
        """Return it as Python takes it."""
        text = ", ".join(f"{name}={_code(value)}" for name, value in self.options.items())
        return f"{self.call}({text})" if self.call else text.replace("=...", "=")


def _code(value: object) -> str:
    if value is ...:
        return "..."
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {_code(item)}" for key, item in value.items()) + "}"
    return f"[{', '.join(map(_code, value))}]" if isinstance(value, list) else repr(value)


class Remedy(_Value):
    """What settles a problem: a sentence, with ``{}`` where it names options, and these.

    Examples
    --------
    >>> print(Remedy("Say {} or {}", Use(level="L1C"), Use(level="L2A")))
    Say level='L1C' or level='L2A'
    """

    def __init__(self, text: str, *uses: Use) -> None:
        self.text = text
        self.uses = uses

    def worded(self, word: Callable[[Use], str]) -> str:
        """Return the sentence with its options in some surface's words."""
        return self.text.format(*map(word, self.uses)) if self.uses else self.text

    def __str__(self) -> str:
        return self.worded(str)


class Worded(Exception):  # noqa: N818  the base of errors and of warnings
    """A problem with its remedy as data; its text is in Python's words, `worded` gives others.

    Parameters
    ----------
    problem : str
        What is wrong.
    remedy : Remedy or str, optional
        What to do about it.
    option : Use, optional
        The option that is wrong, which the text begins with: ``patch_size=16``.

    Examples
    --------
    >>> remedy = Remedy("Leave it out, or say {}", Use(tta=2))
    >>> error = CloudMaskError(" is too small", remedy, option=Use(tta=0))
    >>> print(error)
    tta=0 is too small. Leave it out, or say tta=2
    >>> str(error.remedy), error.option.options
    ('Leave it out, or say tta=2', {'tta': 0})
    """

    problem: str = ""
    remedy: Remedy | None = None
    option: Use | None = None

    def __init__(
        self, problem: str = "", remedy: Remedy | str | None = None, *, option: Use | None = None
    ) -> None:
        self.problem = problem
        self.remedy = Remedy(remedy) if isinstance(remedy, str) else remedy
        self.option = option
        super().__init__(self.worded(str))

    def worded(self, word: Callable[[Use], str]) -> str:
        """Return the message with its options in some surface's words."""
        text = ("" if self.option is None else word(self.option)) + self.problem
        if self.remedy is None:
            return text
        stop = "" if text.endswith((".", "?", "!", ";", ":", "\n", ",")) else "."
        return f"{text}{stop}{'' if text.endswith(chr(10)) else ' '}{self.remedy.worded(word)}"


class CloudMaskError(Worded, ValueError):
    """Base of every error that the library raises on purpose.

    Remedy: what the message says; catch `CloudMaskError` for all of them.
    """


class OptionError(CloudMaskError, KeyError):
    """A name or value that is not one of those allowed; the message offers the nearest match.

    Remedy: take one of the names in the message, or of `error.allowed`.
    """

    def __init__(self, what: str, value: object, *, allowed: Iterable[object] = (), hint: str = "") -> None:
        names = [str(name) for name in allowed]
        folded = {name.casefold(): name for name in names}
        near = get_close_matches(str(value).casefold(), folded, n=1, cutoff=0.5)
        shown = repr(value)
        message = f"unknown {what} {shown if len(shown) <= 300 else shown[:300] + '...'}"
        if near:
            message += f"; did you mean {folded[near[0]]!r}?"
        elif names or hint:
            message += "."
        if names:
            message += f" Allowed: {', '.join(names)}."
        if hint:
            message += f" {hint}"
        super().__init__(message)
        self.what = what
        self.value = value
        self.allowed = tuple(names)
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:  # an exception remembers its message, not what made it
        again = partial(type(self), self.what, self.value, allowed=self.allowed, hint=self.hint)
        return again, (), self.__dict__

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


def check_number(name: str, value: object, *, above: float | None = None) -> None:
    """Refuse what is no number, or none above a bound.

    Examples
    --------
    >>> check_number("rise", True)
    Traceback (most recent call last):
    xcloudmask.errors.OptionError: unknown rise True. Give a number.
    """
    is_one = isinstance(value, Real) and not isinstance(value, bool)
    if not is_one or (above is not None and not above < cast("float", value) < float("inf")):
        raise OptionError(
            name, value, hint="Give a number." if above is None else f"Give a number above {above}."
        )


#: What values of a few kinds that annotations name have.
_HAVE = {
    "DataArray": "dims", "Dataset": "dims", "Callable": "__call__", "PathLike": "__fspath__",
    "str": "casefold",
}  # fmt: skip


def _kinds(annotation: str) -> set[str]:
    """Return the kinds that an annotation names, if they are the few that are checked; text alone is not.

    Examples
    --------
    >>> sorted(_kinds("Callable[[Any], Any] | xr.DataArray | None")), _kinds("Callable[[int], int] | Thing")
    (['Callable', 'DataArray', 'None'], set())
    """
    while (shorter := re.sub(r"\[[^\[\]]*\]|xr\.", "", annotation)) != annotation:
        annotation = shorter
    kinds = set(re.findall(r"\w+", annotation))
    return kinds if kinds <= {*_HAVE, "None"} and kinds - {"str", "None"} else set()


def names_checked(function: Call) -> Call:
    """Have a misspelt keyword of a function named with the nearest; its signature and types stay.

    A value that is plainly no array, no function or no path where one is needed is refused, too.

    Examples
    --------
    >>> names_checked(warn_user)("look", UserWarning, remedi=None)
    Traceback (most recent call last):
    xcloudmask.errors.OptionError: unknown option of warn_user 'remedi'; did you mean 'remedy'? Allowed: ...
    """
    code: CodeType = function.__code__
    if code.co_flags & 0x08:  # it takes any, and checks them itself
        return function
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    name, wrong, have = function.__name__, OptionError, _HAVE
    needed = {option: _kinds(str(hint)) for option, hint in function.__annotations__.items()}

    def call(*args: Any, **options: Any) -> Any:
        for option in options:
            if option not in known:
                raise wrong(f"option of {name}", option, allowed=[each for each in known if each != "self"])
        for option, value in (*zip(known, args, strict=False), *options.items()):
            kinds = needed.get(option)
            if not kinds or (value is None and "None" in kinds):
                continue
            if not any(hasattr(value, have[kind]) for kind in kinds - {"None"}):
                wanted = " or ".join(kind for kind in have if kind in kinds)
                hint = "Give a path, as text or a Path." if "PathLike" in kinds else f"Give {wanted}."
                shown = value if value is None or isinstance(value, str | int | float) else type(value)
                raise wrong(f"{option} of {name}", shown, hint=hint)
        return function(*args, **options)

    # At home in the function's module, where doctest and pickle look for it.
    made = FunctionType(call.__code__, function.__globals__, name, None, call.__closure__)
    return cast("Call", wraps(function)(made))


class BandError(CloudMaskError, KeyError):
    """The bands at hand do not serve the model, or cannot be told apart.

    Remedy: name the bands (`describe(bands=[...])`), load more of them, or take a model that needs fewer.
    """

    def __str__(self) -> str:
        return str(self.args[0])


class UnitError(CloudMaskError):
    """Numbers whose unit is unknown or contradicts what is declared.

    Remedy: state scale, offset and level: `da.cloudmask.describe(level=..., scale=..., offset=...)`.
    """


class WeightsError(CloudMaskError):
    """Weights that are missing, altered, or in a form that is not loaded.

    Remedy: fetch the file again, or take a form that can be read as data (safetensors, ONNX, .pt2).
    """


class OutOfMemoryError(CloudMaskError, MemoryError):
    """What a network asks for does not fit into memory.

    Remedy: smaller chunks or windows, another device, or another model: the message says which.
    """


class CloudMaskWarning(Worded, UserWarning):
    """Base of the library's warnings.

    Remedy: what the message says; `warnings.simplefilter("error", CloudMaskWarning)` makes errors of them.
    """


class UnitWarning(CloudMaskWarning):
    """Something about units or level was assumed; the message says what, and how to settle it.

    Remedy: state it with `da.cloudmask.describe(...)`, and check a mask before you trust many.
    """


class ModelWarning(CloudMaskWarning):
    """A model answers that was not made for such bands or pixels; the message says how good it may be.

    Remedy: name a model (`model=`) that was made for them, or accept the stated score by naming this one.
    """


class NoDataWarning(CloudMaskWarning):
    """Input that holds no usable pixel, or values (such as inf) that are taken as no data.

    Remedy: declare the fill value (`nodata=`), or mend the input.
    """


class _SystemError(OSError, CloudMaskError):
    """An error of files or stores."""

    def __init__(
        self, problem: str = "", remedy: Remedy | str | None = None, *, option: Use | None = None
    ) -> None:
        CloudMaskError.__init__(self, problem, remedy, option=option)  # OSError comes first and takes others


class AssetError(_SystemError):
    """A file that a catalogue names and that cannot be read; the message names item, asset and remedy.

    Remedy: fetch or sign it again, leave the item out, or pass `on_error="skip"` for no data there.
    """


class StoreError(_SystemError):
    """The store refused or failed; the message says what to do. What was recorded as done stays done.

    Remedy: remove the cause (disk, permission, key) and repeat the call; `verify(repair=True)` mends damage.
    """


class StoreLockedError(StoreError):
    """Another process is writing to the same store.

    Remedy: wait for it; the lock of a process that died is taken over by the next call.
    """


class ClusterError(CloudMaskError):
    """The cluster is gone, or all of its workers are. What was recorded as done stays done.

    Remedy: start a cluster and repeat the call, which resumes.
    """


class ContractError(CloudMaskError):
    """The store holds a mask that was made otherwise; the message shows both.

    Remedy: pass the options of the store, `overwrite=True`, or another `group=`.
    """


class StreamWarning(CloudMaskWarning):
    """A stream ended, but not all of its regions are done.

    Remedy: read `report.failed`, mend the cause, and repeat the call, which does only these.
    """


_HERE = str(Path(__file__).parent)


@contextmanager
def hold_warnings(held: list[HeldWarning]) -> Iterator[None]:
    """Have `warn_user` put warnings into a list, in this thread, for the one that was called to give them.

    Examples
    --------
    >>> held = []
    >>> with hold_warnings(held):
    ...     warn_user("pixels that are 0", NoDataWarning)
    >>> len(held)
    1
    """
    before = _held.set(held)
    try:
        yield
    finally:
        _held.reset(before)


def warn_user(
    message: str, category: type[Warning], remedy: Remedy | None = None, *, option: Use | None = None
) -> None:
    """Warn with the first line outside this package as its place.

    Parameters
    ----------
    message : str
        What the user should know.
    category : type
        Of the warning.
    remedy, option : Remedy, Use, optional
        As of `Worded`, which the category then is.
    """
    held = _held.get()
    if held is not None:
        held.append(partial(warn_user, message, category, remedy, option=option))
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame, level = frame.f_back, level + 1
    if issubclass(category, CloudMaskWarning):
        warnings.warn(category(message, remedy, option=option), stacklevel=level)
    else:
        warnings.warn(message, category, stacklevel=level)


def __dir__() -> list[str]:
    """Offer the errors and warnings to completion."""
    kinds = {name: kind for name, kind in globals().items() if isinstance(kind, type) and name[0] != "_"}
    return sorted(name for name, kind in kinds.items() if issubclass(kind, Worded))
