"""One table of faults, for stores and catalogues alike."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from xcloudmask.errors import AssetError, StoreError
from xcloudmask.store.retry import call_with_retries, classify, is_transient, messages, repeat


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (OSError(28, "No space left on device"), "final", "full"),
        (OSError("HTTP response code: 403"), "final", "refused"),
        (OSError("An error occurred (AccessDenied) when calling PutObject"), "final", "refused"),
        (OSError("An error occurred (NoSuchBucket)"), "final", "no_bucket"),
        (OSError("HTTP error code : 404"), "absent", "absent"),
        (FileNotFoundError(2, "No such file or directory"), "absent", "absent"),
        (OSError("503, message='Service Unavailable'"), "passes", "busy"),
        (OSError("Please reduce your request rate: SlowDown"), "passes", "busy"),
        (ConnectionResetError(), "passes", "broken"),
        (OSError("TIFFReadEncodedTile() failed"), "passes", "short"),
        (OSError("/data/404/503.tif: odd"), "final", "other"),  # a path is no status
        (OSError("/data/read-only/x.tif: HTTP response code: 503"), "passes", "busy"),  # ... nor a reason
        (OSError("/credential/x.tif: HTTP response code: 404"), "absent", "absent"),
        (OSError("/data/read-only/x.tif: odd"), "final", "other"),
        (OSError("Client error with status 404 Not Found: <Code>NoSuchBucket</Code>"), "final", "no_bucket"),
        (PermissionError(13, "Permission denied"), "final", "denied"),
        (PermissionError("Access Denied"), "final", "refused"),  # s3fs
    ],
)
def test_what_an_error_means(error: Exception, kind: str, name: str) -> None:
    for raised in (error, _caused_by(error)):
        fault = classify(raised)
        assert (fault.kind, fault.name) == (kind, name)


def _caused_by(error: Exception) -> Exception:
    try:
        raise RuntimeError("reading") from error
    except RuntimeError as outer:
        return outer


def test_errors_of_the_program_are_neither_waited_for_nor_named_as_faults() -> None:
    for error in (
        TypeError("bad signature"),
        ValueError("no connection between nodes"),
        KeyError("credential"),
        KeyError("not a directory"),
        KeyError("permission denied"),
        ValueError("no space left on device"),
        ValueError("quota exceeded"),
        LookupError("no such bucket"),
    ):
        assert not is_transient(error)

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            call_with_retries("do it", fail)
    with pytest.raises(StoreError, match=r"cannot do it: access denied.*run the same call again: it resumes"):
        call_with_retries("do it", lambda: _raise(OSError("SignatureDoesNotMatch")))


def test_what_a_program_has_dealt_with_is_no_cause() -> None:
    def fail() -> None:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise ValueError("odd") from None

    with pytest.raises(ValueError, match="odd") as caught:
        call_with_retries("do it", fail)
    assert messages(caught.value) == "odd"


def test_a_read_only_store_is_named_and_a_read_only_array_is_a_bug(tmp_path: Path) -> None:
    zarr.create_group(tmp_path).create_array("x", shape=4, dtype="int32")
    store = zarr.storage.LocalStore(tmp_path, read_only=True)

    def write() -> None:
        array = zarr.open_group(store, mode="r")["x"]
        assert isinstance(array, zarr.Array)
        array[:] = 1

    for call in (write, lambda: zarr.open_group(store, mode="w")):
        with pytest.raises(StoreError, match="it was opened read-only"):
            call_with_retries("write", call)
    values = np.zeros(3)
    values.flags.writeable = False
    for method in (lambda: values.fill(1), values.sort):
        with pytest.raises(ValueError, match="read-only"):
            call_with_retries("write", method)


def test_causes_are_told_in_their_order() -> None:
    assert messages(_caused_by(OSError("GDAL's words"))) == "reading; GDAL's words"


def _raise(error: Exception) -> None:
    raise error


def test_pauses_grow_and_retries_end(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    calls: list[int] = []

    def fail(text: str) -> None:
        calls.append(1)
        raise OSError(text)

    for text, attempts in (("HTTP response code: 503", 5), ("HTTP response code: 404", 1), ("Fill tile", 1),
                           ("FillTile failed", 3)):  # fmt: skip
        calls.clear()
        slept.clear()
        with pytest.raises(OSError, match=text):
            repeat(lambda text=text: fail(text), 4, "it")
        assert len(calls) == attempts
        assert all(later > 1.2 * earlier for earlier, later in itertools.pairwise(slept))


@pytest.mark.parametrize(
    "machine", [lambda call: repeat(call, 4, "it"), lambda call: call_with_retries("it", call)]
)
def test_an_asset_that_was_given_up_is_not_asked_for_again(
    machine: Callable[[Callable[[], None]], None],
) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise AssetError("HTTP response code: 503")

    with pytest.raises(AssetError):
        machine(fail)
    assert len(calls) == 1
