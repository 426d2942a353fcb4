"""Completion of commands, flags and names by the TAB key: ``--install-completion``."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from xcloudmask import models, sensors
from xcloudmask.cli.parse import Parser, UsageError, pick
from xcloudmask.cli.text import paragraph, show

FLAGS = ("--install-completion", "--show-completion")
#: Where each shell looks for it, below the home folder, and what else it needs.
PLACES = {
    "bash": (".local/share/bash-completion/completions/xcloudmask", "a new shell has it"),
    "zsh": (".zfunc/_xcloudmask", "~/.zshrc must say before compinit: fpath+=~/.zfunc"),
    "fish": (".config/fish/completions/xcloudmask.fish", "a new shell has it"),
}


def run(words: Sequence[str], commands: Mapping[str, tuple[str, str]]) -> int:
    """Install the script of a shell, by default the one that ``SHELL`` names, or print it."""
    flag, *more = words
    if len(more) > 1:
        raise UsageError(f"{more[1]!r} is one word too many. Say {flag} SHELL")
    shell = pick("shell", more[0] if more else Path(os.environ.get("SHELL", "bash")).name, PLACES)
    if flag == "--show-completion":
        print(script(shell, commands))
        return 0
    place, then = PLACES[shell]
    path = Path.home() / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script(shell, commands))
    show(paragraph(f"{path} is written: {then}"))
    return 0


def script(shell: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """Return what completes every command, its flags, and the models, sensors and actions that there are."""
    import shtab

    top = ArgumentParser("xcloudmask")
    parts = top.add_subparsers(parser_class=Parser, dest="command")
    for name, (module_name, about) in commands.items():
        module = import_module(module_name)
        parser = parts.add_parser(name, help=about)
        module.add_arguments(parser)
        names = {"model": models.names(), "sensor": sensors.names(), "action": getattr(module, "ACTIONS", ())}
        for action in parser._actions:
            if choices := names.get(action.dest):
                action.choices = list(choices)
            elif not action.choices and action.nargs != 0:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(top, shell)
    return text
