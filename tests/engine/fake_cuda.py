"""A CUDA device that is not there: torch on the CPU, which counts copies and waits as a card would do them.

What is copied without waiting arrives only when somebody waits for it, and is NaN until then: code that
reads too early answers wrongly, here as on a card. All else is computed at once, in the order it is asked
for, which is that of a device's default stream.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch


class Stream:
    """Copies that have been asked for and not arrived."""

    def __init__(self, device: Any = None) -> None:
        self.pending: list[Callable[[], object]] = []
        self.arriving = threading.RLock()

    def arrive(self) -> None:
        """Have all that was asked for done."""
        with self.arriving:
            while self.pending:
                self.pending.pop(0)()

    def wait_stream(self, other: Stream) -> None:
        other.arrive()

    def record_event(self) -> Event:
        return Event(self)


class FakeCuda:
    """One fake card, and what was asked of it.

    `seen` counts copies by where they go and from which memory, and each time that the host waited.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.default = Stream()
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
        Event.card = self
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "stream", self.stream)
        patch.setattr(torch.cuda, "current_stream", self.current)
        for name in ("empty", "zeros", "tensor"):
            patch.setattr(torch, name, self._made(getattr(torch, name)))
        patch.setattr(torch.Tensor, "to", self._to(torch.Tensor.to, torch.Tensor.copy_))
        patch.setattr(torch.Tensor, "cpu", lambda tensor: self._cpu(tensor))
        patch.setattr(torch.Tensor, "copy_", self._copy(torch.Tensor.copy_))
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        return self

    def _made(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, device: Any = None, pin_memory: bool = False, **how: Any) -> Any:
            tensor = make(*args, **how)
            tensor.pinned = pin_memory
            return tensor

        return made

    def _memory(self, tensor: torch.Tensor) -> str:
        return "pinned" if getattr(tensor, "pinned", False) else "pageable"

    def _later(self, target: torch.Tensor, source: torch.Tensor, copy: Callable[..., Any]) -> None:
        target.fill_(torch.nan)
        self.current().pending.append(lambda: copy(target, source))

    def _to(self, to: Callable[..., Any], copy: Callable[..., Any]) -> Callable[..., Any]:
        def moved(tensor: torch.Tensor, *args: Any, non_blocking: bool = False, **how: Any) -> Any:
            if torch.device("cuda:0") not in args and torch.device("cuda") not in args:
                return to(tensor, *args, **({"non_blocking": True} if non_blocking else {}), **how)
            self.count(f"to the device, {self._memory(tensor)}")
            if not non_blocking:
                self.count("waits")
                return tensor.clone()
            there = torch.empty_like(tensor)
            self._later(there, tensor, copy)
            return there

        return moved

    def _cpu(self, tensor: torch.Tensor) -> torch.Tensor:
        self.count("to the host, pageable")
        self.count("waits")
        return tensor.clone()

    def _copy(self, copy: Callable[..., Any]) -> Callable[..., Any]:
        def copied(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
            if not non_blocking:
                return copy(target, source)  # type: ignore[no-any-return]
            self.count(f"to the host, {self._memory(target)}")
            self._later(target, source, copy)
            return target

        return copied


class Event:
    """A point in a stream that the host can wait for."""

    card: FakeCuda

    def __init__(self, on: Stream | None = None) -> None:
        self.on = on

    def record(self, stream: Stream) -> None:
        self.on = stream

    def synchronize(self) -> None:
        assert self.on is not None, "an event that was never recorded"
        self.card.count("waits")
        self.on.arrive()
