"""A NumPy array, band by band, in order: the next is prepared meanwhile, nothing runs on after a failure."""

import threading
import warnings

import numpy as np
import pytest

from tests.scenes import noise, scene
from xcloudmask.engine import predictor
from xcloudmask.engine.run_numpy import _in_order
from xcloudmask.errors import NoDataWarning, UnitError
from xcloudmask.testing import TOY


def test_the_next_is_worked_at_while_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "2")
    both = threading.Barrier(2, timeout=20)

    def work(number: int) -> int:
        both.wait()  # broken if one had to end before the next begins
        return number * 10

    assert list(_in_order(work, 6)) == [0, 10, 20, 30, 40, 50]


def test_one_thread_is_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "1")
    assert set(_in_order(lambda _: threading.get_ident(), 4)) == {threading.get_ident()}


def test_after_a_failure_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "2")
    begun = []

    def work(number: int) -> None:
        begun.append(number)
        if number == 1:
            raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        list(_in_order(work, 50))
    assert max(begun) <= 4
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("xcloudmask-bands")]


@pytest.mark.filterwarnings("ignore::xcloudmask.errors.NoDataWarning")
def test_an_error_in_a_later_band_is_that_of_the_call() -> None:
    pixels = noise(2, 200, 40)
    pixels[:, 150:] *= 1e4
    with pytest.raises(UnitError, match="half of the values are above"):
        scene(pixels, ["red", "nir"]).cloudmask.predict(TOY, progress=False)


def test_a_warning_names_the_line_that_called() -> None:
    pixels = noise(2, 200, 40)
    pixels[:, 150:170] = 9999.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mask = scene(pixels, ["red", "nir"]).cloudmask.predict(TOY, progress=False)
    mine = [each for each in caught if issubclass(each.category, NoDataWarning)]
    assert {each.filename for each in mine} == {__file__}
    assert (np.asarray(mask)[150:170] == 255).all()


def test_what_was_noticed_before_an_error_is_told_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XCLOUDMASK_NUM_THREADS", "2")

    def fail(*_: object) -> None:
        raise ValueError("not of that shape")

    monkeypatch.setattr(predictor, "check_shape", fail)
    pixels = noise(2, 200, 40)
    pixels[:, :20] = 9999.0
    with pytest.warns(NoDataWarning, match="9999"), pytest.raises(ValueError, match="not of that shape"):
        scene(pixels, ["red", "nir"]).cloudmask.predict(TOY, progress=False)
