"""A proxy that misbehaves on demand, as a program: ``proxy.py PORT UPSTREAM``; see `web.FaultProxy`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict, deque
from contextlib import suppress

CONTROL = "/--control--"


class Proxy:
    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.faults: dict[str, deque[object]] = defaultdict(deque)
        self.always: dict[str, object] = {}
        self.seen: Counter[str] = Counter()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ", 2)[1].decode()
            if path == CONTROL:
                writer.write(await self.control(head, reader))
            else:
                answer = await self.answer(head, path)
                if answer is None:
                    writer.transport.abort()
                    return
                writer.write(answer)
            await writer.drain()
        writer.close()

    async def control(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n")
                      if line.lower().startswith(b"content-length:"))  # fmt: skip
        order = json.loads(await reader.readexactly(length))
        for path, faults in order.get("queue", {}).items():
            self.faults[path].extend(faults)
        self.always.update(order.get("always", {}))
        left = {path: list(faults) for path, faults in self.faults.items() if faults}
        state = json.dumps({"seen": self.seen, "left": left}).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(state), state)

    async def answer(self, head: bytes, path: str) -> bytes | None:
        self.seen[path] += 1
        fault = self.faults[path].popleft() if self.faults[path] else self.always.get(path, "pass")
        if fault == "drop":
            return None
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        asked = b""
        if isinstance(fault, list):
            fault, pause = fault
            asked = b"Retry-After: %b\r\n" % pause.encode()
        if isinstance(fault, int):
            body = b"" if head.startswith(b"HEAD") else b"no"
            head = b"HTTP/1.1 %d Fault\r\n%bContent-Length: 2\r\nConnection: close\r\n\r\n" % (fault, asked)
            return head + body
        answer = await self.forward(head)
        if fault == "cut":
            start = answer.index(b"\r\n\r\n") + 4
            return answer[: start + (len(answer) - start) // 2]
        return answer

    async def forward(self, head: bytes) -> bytes:
        lines = [line for line in head.split(b"\r\n")[:-2] if not line.lower().startswith(b"connection:")]
        reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        writer.write(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        await writer.drain()
        answer = await reader.read(-1)
        writer.close()
        return answer


async def main(port: int, upstream: int) -> None:
    async with await asyncio.start_server(Proxy(upstream).handle, "127.0.0.1", port) as listener:
        await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
