"""argparse, with messages of one line that offer the nearest match."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from xcloudmask.cli.text import paragraph


class UsageError(Exception):
    """The command line was used wrongly; the message says how it is used."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return a hint at the word that may have been meant, or nothing.

    Examples
    --------
    >>> nearest("predcit", ["predict", "models"])
    " Did you mean 'predict'?"
    """
    found = get_close_matches(word.casefold(), list(allowed), n=1, cutoff=0.5)
    return f" Did you mean {found[0]!r}?" if found else ""


def pick(what: str, word: str, allowed: Iterable[str]) -> str:
    """Return `word` if it is allowed, else raise a `UsageError`.

    Examples
    --------
    >>> pick("command", "models", ["models", "sensors"])
    'models'
    """
    names = list(allowed)
    if word not in names:
        raise UsageError(f"no {what} {word!r}.{nearest(word, names)} There are: {', '.join(names)}")
    return word


class _Help(RawDescriptionRichHelpFormatter):
    """Help in colour on a terminal, its words as they are."""

    group_name_formatter = str
    text_markup = help_markup = False


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that raises `UsageError`, takes no abbreviations, and knows ``--debug``."""

    def __init__(
        self, prog: str, about: str = "", *, usage: str | None = None, epilog: str | None = None
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description="\n\n".join(paragraph(" ".join(part.split())) for part in about.split("\n\n")),
            epilog=epilog,
            formatter_class=_Help,
            allow_abbrev=False,
        )
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")
        self.add_argument("--json", action="store_true", help="print what is found as JSON")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; an unknown option is answered with the nearest one."""
        words = list(args if args is not None else sys.argv[1:])
        stop = words.index("--") if "--" in words else len(words)
        for name in (word.partition("=")[0] for word in words[stop + 1 :]):
            if name in self._option_string_actions:
                self.error(f"{name}: options come before --, and after it come names only")
        for word in words[:stop]:
            if self._is_file_like_an_option(word):
                self.error(f"{word}: a name that begins with - is written ./{word}")
        found, extra = self.parse_known_args(words, namespace)
        for word in extra:
            name = word.partition("=")[0]
            if name.startswith("-"):
                self.error(f"no option {name}.{nearest(name, self._option_string_actions)}")
            self.error(f"{word!r} is one word too many")
        return found

    def _is_file_like_an_option(self, word: str) -> bool:
        if not re.match(r"-[^-]", word) or word.partition("=")[0] in self._option_string_actions:
            return False
        return Path(word).exists() or bool(re.search(r"\.[A-Za-z]\w*$", word))

    def error(self, message: str) -> NoReturn:
        """Raise what `main` reports."""
        message = message.removeprefix("argument ")
        stop = "" if message.endswith((".", "?")) else "."
        raise UsageError(f"{message}{stop} Help: {self.prog} --help")
