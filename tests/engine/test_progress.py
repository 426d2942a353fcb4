"""Progress of a call: what it is told, and what a terminal shows."""

import io
import os
import pty
import re
import sys
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from tests.scenes import noise, scene
from xcloudmask.engine.progress import progress_bar
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.streaming import ProgressEvent
from xcloudmask.testing import TOY


def noted() -> tuple[list[tuple[int, int]], Callable[[ProgressEvent], None]]:
    told: list[tuple[int, int]] = []
    return told, lambda event: told.append((event.done, event.total))


@pytest.mark.parametrize("dates", [1, 3])
def test_predict_tells_of_each_window_and_ends_with_all(dates: int) -> None:
    pixels = noise(dates, 2, 90, 70)
    pixels[-1, :, :40] = np.nan  # windows that hold nothing are counted, too
    told, note = noted()
    scene(pixels, ["red", "nir"]).cloudmask.predict(TOY, progress=note)
    done, totals = zip(*told, strict=True)
    assert set(totals) == {dates * 4 * 3}
    assert list(done) == sorted(done)
    assert done[-1] == totals[0]
    assert len(set(done)) > 4 * dates, "as it goes, and not row by row"


def test_clean_and_geotiff_tell_what_is_done(tmp_path: os.PathLike[str]) -> None:
    mask = scene(noise(2, 90, 70), ["red", "nir"]).cloudmask.predict(TOY, progress=False)
    told, note = noted()
    mask.cloudmask.clean(close=2, sieve=3, progress=note)
    assert told[-1][0] == told[-1][1] == len(told)
    told.clear()
    mask.cloudmask.to_geotiff(f"{tmp_path}/m.tif", progress=note)
    assert told[-1] == (6300, 6300)


def test_one_function_follows_every_call(tmp_path: os.PathLike[str]) -> None:
    """Windows, tasks, pixels and regions: the same event, which says what it counts."""
    seen: list[ProgressEvent] = []
    da = scene(noise(2, 90, 70), ["red", "nir"])
    mask = da.cloudmask.predict(TOY, progress=seen.append)
    mask.cloudmask.clean(close=2, progress=seen.append)
    mask.cloudmask.to_geotiff(f"{tmp_path}/m.tif", progress=seen.append)
    da.chunk().cloudmask.predict(TOY).cloudmask.to_zarr(f"{tmp_path}/m.zarr", progress=seen.append)
    assert list(dict.fromkeys(event.unit for event in seen)) == ["window", "task", "px", "region"]
    assert {event.unit for event in seen if event.kind == "end"} == {event.unit for event in seen}
    assert all(event.done == event.total for event in seen if event.kind == "end")
    halfway = ProgressEvent("done", 10, 40, seconds=5.0, unit="window")
    assert halfway.text == "10/40 windows  ETA 0:15"


def test_a_terminal_shows_a_bar_that_fills_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pseudo-terminal of 80 columns."""
    import fcntl
    import struct
    import termios

    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress_bar(True, "cloud mask", "window") as tell:
            for done in range(0, 41, 10):
                tell(done, 40)
        with progress_bar("auto", "quick", "window") as tell:
            tell(3, 3)
        print("(end)", file=terminal, flush=True)
        received = b""
        while b"(end)" not in received:  # a terminal gives what has arrived by now
            received += os.read(reader, 65536)
    os.close(reader)
    shown = received.decode()
    lines = re.split(r"[\r\n]+", shown)
    assert max(map(len, lines)) <= 80
    assert re.search(r"cloud mask: 100%\|█+\| 40/40 ", shown)
    assert "quick: 100%" not in shown  # what takes no second is not worth a bar


def test_nobody_looks_at_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    da = scene(noise(2, 40, 40), ["red", "nir"])
    da.cloudmask.predict(TOY)
    assert file.getvalue() == ""
    da.cloudmask.predict(TOY, progress=True)
    assert "cloud mask: 100%" in file.getvalue()


def test_what_a_lazy_scene_cannot_show_is_said(recwarn: pytest.WarningsRecorder) -> None:
    lazy: xr.DataArray = scene(noise(2, 40, 40), ["red", "nir"]).chunk()
    lazy.cloudmask.predict(TOY)
    with pytest.raises(CloudMaskError, match=r"lazy scene.*TqdmCallback"):
        lazy.cloudmask.predict(TOY, progress=True)
    with pytest.raises(OptionError, match="unknown progress 'yes'"):
        scene(noise(2, 40, 40), ["red", "nir"]).cloudmask.predict(TOY, progress="yes")
