"""The command line: ``xcloudmask COMMAND ...``, the same functions as in Python.

To add a command, add a module with ``add_arguments(parser)`` and ``run(args)`` (None, or an exit code) and a
row to `COMMANDS`. A module is imported only when its command is called.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from xcloudmask._version import __version__
from xcloudmask.cli import completion
from xcloudmask.cli.flags import in_flags
from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import say, table
from xcloudmask.errors import CloudMaskError, ModelWarning, NoDataWarning, OptionError, UnitWarning

__all__ = ["COMMANDS", "main"]

#: Name, module and what it does, in the order of the help.
COMMANDS: dict[str, tuple[str, str]] = {
    "predict": ("xcloudmask.cli.predict", "mask a scene: GeoTIFF, product or store in; COG or Zarr out"),
    "info": ("xcloudmask.cli.info", "what a scene holds, and which model would mask it"),
    "models": ("xcloudmask.cli.models", "list the models, or show one"),
    "sensors": ("xcloudmask.cli.sensors", "list the sensors, or show the bands of one"),
    "stream": ("xcloudmask.cli.stream", "mask scenes into a Zarr store that a stopped run goes on with"),
    "stac": ("xcloudmask.cli.stac", "search a catalogue, and keep a store of masks up to date with it"),
    "clean": ("xcloudmask.cli.clean", "tidy a mask: close gaps, take out specks, widen, fill"),
    "composite": ("xcloudmask.cli.composite", "one picture of the clear views of many dates"),
    "verify": ("xcloudmask.cli.verify", "check a store of masks, and mend what is damaged"),
    "score": ("xcloudmask.cli.score", "score masks against references, with a report page"),
    "datasets": ("xcloudmask.cli.datasets", "list published labelled datasets, or convert one into patches"),
    "train": ("xcloudmask.cli.train", "train a model as a config file says"),
    "demo": ("xcloudmask.cli.demo", "mask a real scene that comes with the demo extra"),
    "bench": ("xcloudmask.cli.bench", "measure how fast a model masks here, and what bounds it"),
    "doctor": ("xcloudmask.cli.doctor", "check this installation"),
}


def main(argv: Sequence[str] | None = None, prog: str = "") -> int:
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name. Default: what this process was started with.
    prog : str
        What was typed in place of ``xcloudmask COMMAND``, for usage lines.

    Examples
    --------
    >>> main(["models", "show", "ukis-4band-l2a"])  # doctest: +ELLIPSIS
    ukis-4band-l2a ...
    0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        with _told_warnings(every=debug), _terminated():
            return _run(words, prog)
    except KeyboardInterrupt:
        say("interrupted; nothing is left half-written")
        return _leave(130, at_once=argv is None)
    except _Terminated:
        say("terminated; nothing is left half-written")
        return _leave(143, at_once=argv is None)
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as done:  # argparse, after --help and --version
        return int(done.code or 0)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _report(error)


def _run(words: list[str], prog: str) -> int:
    if words[:1] and words[0] in completion.FLAGS:
        return completion.run(words, COMMANDS)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    place = next((at for at, word in enumerate(words) if not word.startswith("-")), None)
    if place is None:
        top = _top()
        top.parse_args(words)
        raise UsageError(f"say a command: {', '.join(COMMANDS)}. Help: xcloudmask --help")
    command = pick("command", words[place], COMMANDS)
    module_name, about = COMMANDS[command]
    module = import_module(module_name)
    parser = Parser(prog or f"xcloudmask {command}", module.__doc__ or about)
    module.add_arguments(parser)
    code: int | None = module.run(parser.parse_args(words[:place] + words[place + 1 :]))
    sys.stdout.flush()
    return code or 0


def _top() -> Parser:
    rows = table([(f"  {name}", about) for name, (_, about) in COMMANDS.items()])
    parser = Parser(
        "xcloudmask",
        "Cloud masks from satellite reflectance.",
        usage="xcloudmask COMMAND ...",
        epilog=f"commands:\n{rows}\n\nHelp of a command: xcloudmask COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"xcloudmask {__version__}")
    for flag, about in zip(completion.FLAGS, ("have the TAB key complete", "print its script"), strict=True):
        parser.add_argument(flag, nargs="?", metavar="SHELL", help=f"{about}: bash, zsh or fish")
    return parser


def _report(error: Exception) -> int:
    """Tell what went wrong in one line; return the exit code."""
    text = in_flags(error) or type(error).__name__
    if isinstance(error, (UsageError, CloudMaskError, OSError, MemoryError, ImportError)):
        say(text)
    else:
        say(f"{type(error).__name__}: {text}. This is not expected: run again with --debug and report it")
    return 2 if isinstance(error, (UsageError, OptionError)) else 1


@contextmanager
def _told_warnings(*, every: bool) -> Iterator[None]:
    """Show the library's own warnings as single lines, once each; those of others only with --debug."""
    told: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        text = in_flags(message)
        if text not in told:
            told.add(text)
            say(f"warning: {text}")

    with warnings.catch_warnings():
        warnings.simplefilter("default" if every else "ignore")
        for own in (UnitWarning, NoDataWarning, ModelWarning):
            warnings.simplefilter("always", own)
        warnings.showwarning = show
        yield


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _terminated() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, end the run tidily."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(code: int, *, at_once: bool) -> int:
    """End the process without waiting for chunks that threads still compute and nobody will write."""
    if at_once:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
