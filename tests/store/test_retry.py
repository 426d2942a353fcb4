"""One table of faults, for stores and catalogues alike."""

import itertools
import time

import pytest

from xcloudmask.errors import StoreError
from xcloudmask.store.retry import call_with_retries, classify, is_transient, repeat


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
    ):
        assert not is_transient(error)

        def fail(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            call_with_retries("do it", fail)
    with pytest.raises(StoreError, match=r"cannot do it: access denied.*run the same call again: it resumes"):
        call_with_retries("do it", lambda: _raise(OSError("SignatureDoesNotMatch")))


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
