"""A CUDA device that is not there: torch on the CPU, which counts copies and waits as a card would do them.

What is copied there without waiting arrives only when somebody waits for it, and is NaN until then: to read
it too early is a wrong answer, here as on a card. All computing is done at once, in the order it is asked
for; a result fetched before it is computed is seen only in the count of streams that wait for others.

Not seen: whether a tensor is on the card (to read one there as if it were here works), and memory that is
used again too early (`record_stream` does nothing).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch


class Stream:
    """Copies in the order in which they were asked for, of which the first `done` have arrived."""

    def __init__(self, card: FakeCuda, device: Any = None) -> None:
        self.card = card
        self.asked: list[Callable[[], object]] = []
        self.done = 0
        self.arriving = threading.Lock()

    def arrive(self, upto: int) -> None:
        with self.arriving:
            for copy in self.asked[self.done : upto]:
                copy()
            self.done = max(self.done, upto)

    def wait_stream(self, other: Stream) -> None:
        self.card.count("streams that wait")
        other.arrive(len(other.asked))


class Event:
    """A point in a stream that the host can wait for."""

    def __init__(self, card: FakeCuda) -> None:
        self.card = card

    def record(self, stream: Stream) -> None:
        self.stream, self.upto = stream, len(stream.asked)

    def synchronize(self) -> None:
        self.card.count("waits")
        self.stream.arrive(self.upto)


class FakeCuda:
    """One fake card, and what was asked of it.

    `seen` counts copies by where they go and from which memory, each time that the host waited, and each time
    that a stream waited for another.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.default = Stream(self)
        self.chosen = threading.local()

    def count(self, what: str) -> None:
        with self.counting:
            self.seen[what] += 1

    def current(self, device: Any = None) -> Stream:
        found: Stream = getattr(self.chosen, "stream", self.default)
        return found

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before = self.current()
        self.chosen.stream = stream
        try:
            yield
        finally:
            self.chosen.stream = before

    def install(self, patch: pytest.MonkeyPatch) -> FakeCuda:
        """Put this card in the place of those that torch knows."""
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "Stream", partial(Stream, self))
        patch.setattr(torch.cuda, "Event", partial(Event, self))
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "current_stream", self.current)
        for name in ("empty", "zeros", "tensor"):
            patch.setattr(torch, name, _made_here(getattr(torch, name)))
        patch.setattr(torch.Tensor, "to", self._to(torch.Tensor.to))
        patch.setattr(torch.Tensor, "cpu", lambda tensor: self._fetched(tensor))
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        return self

    def _to(self, to: Callable[..., Any]) -> Callable[..., Any]:
        def moved(tensor: torch.Tensor, *args: Any, **how: Any) -> Any:
            if torch.device("cuda:0") not in args:
                return to(tensor, *args, **how)
            self.count(f"to the device, {'pinned' if getattr(tensor, 'pinned', False) else 'pageable'}")
            if not how.get("non_blocking"):
                self.count("waits")
                return tensor.clone()
            there = torch.full_like(tensor, torch.nan)
            self.current().asked.append(partial(there.copy_, tensor))
            return there

        return moved

    def _fetched(self, tensor: torch.Tensor) -> torch.Tensor:
        where = "default" if self.current() is self.default else "own"
        self.count(f"to the host, {where} stream")
        self.count("waits")
        return tensor.clone()


def _made_here(make: Callable[..., Any]) -> Callable[..., Any]:
    def made(*args: Any, device: Any = None, pin_memory: bool = False, **how: Any) -> Any:
        tensor = make(*args, **how)
        tensor.pinned = pin_memory
        return tensor

    return made
