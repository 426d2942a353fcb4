"""Look at a file of weights before any library parses it: refuse what could run code or fill the memory.

Each function takes the bytes and where they came from, and returns bytes that are safe to hand on.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from xcloudmask.errors import WeightsError

#: The header of a safetensors file names its tensors; ten thousand of them need about a megabyte.
MAX_HEADER = 100 * 2**20


def refuse_pickle(data: bytes, origin: str) -> None:
    """Refuse Python pickles, whatever the file is called: loading one runs what its author wrote."""
    if data[:1] == b"\x80" or data[:2] == b"PK" or data[:2] == b"\x1f\x8b" or b".pkl" in data[:200]:
        raise WeightsError(
            f"{origin} is a Python pickle (or an archive that may hold one), and loading one runs what its "
            "author wrote. If it is what torch.save wrote: name it FILE.pt and load that"
        )


def safetensors(data: bytes, origin: str) -> bytes:
    """Check that this is a safetensors file whose header can be meant."""
    if data[8:9] != b"{":  # a header's length may begin with any byte, that of a pickle too
        refuse_pickle(data, origin)
    if len(data) < 9:
        raise WeightsError(
            f"{origin} has {len(data)} bytes: it is no safetensors file, or did not arrive whole"
        )
    (length,) = struct.unpack("<Q", data[:8])
    if length > MAX_HEADER or data[8:9] != b"{":
        raise WeightsError(
            f"{origin} is no safetensors file: its first bytes announce a header of {length:,} bytes"
        )
    if 8 + length > len(data):
        raise WeightsError(f"{origin} is cut off: its header has {length:,} bytes, the file {len(data):,}")
    return data


#: Fields of ONNX's messages that lead to tensors: from a message's kind, by field number, to a kind.
_PATHS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def onnx(data: bytes, origin: str) -> bytes:
    """Check that an ONNX graph holds all its weights itself: files that it names could be anyone's."""
    refuse_pickle(data, origin)
    todo = [("model", data)]
    found_graph = False
    try:
        while todo:
            kind, message = todo.pop()
            for field, value in fields(message):
                if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
                    raise WeightsError(
                        f"{origin} keeps weights in other files (ONNX external data), which are not read; "
                        "save it as one file: onnx.save(onnx.load(FILE), OUT, save_as_external_data=False)"
                    )
                next_kind = _PATHS.get(kind, {}).get(field)
                if next_kind is not None and isinstance(value, bytes):
                    found_graph |= next_kind == "graph"
                    todo.append((next_kind, value))
    except (IndexError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{origin} is no ONNX file, or did not arrive whole: {error}") from error
    if not found_graph:
        raise WeightsError(f"{origin} is no ONNX file, or did not arrive whole: it holds no graph")
    return data


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Read a protobuf message: field numbers with numbers or bytes.

    Examples
    --------
    >>> list(fields(bytes([0x08, 0x96, 0x01])))
    [(1, 150)]
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if wire == 0:
            number, at = _varint(message, at)
            yield field, number
            continue
        if wire == 2:
            length, at = _varint(message, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of unknown kind {wire} at byte {at}")
        if at + length > len(message):
            raise ValueError(f"a field of {length} bytes at byte {at} goes beyond the end")
        yield field, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at
        if shift > 63:
            raise ValueError(f"a number without end at byte {at}")
