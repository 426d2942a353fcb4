"""Test-time augmentation: how many turns and mirrors of each window are averaged, and which."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.scenes import noise, same_odds, scene
from xcloudmask.errors import OptionError
from xcloudmask.testing import TOY

PIXELS = noise(2, 32, 32)
SCENE = scene(noise(2, 2, 75, 58), ["red", "nir"])


def view(turns: int, mirrored: bool) -> tuple[Any, Any]:
    """What is done to the image, and undone to its answer."""

    def there(image: np.ndarray) -> np.ndarray:
        return np.rot90(image[..., ::-1] if mirrored else image, turns, (-2, -1))

    def back(answer: np.ndarray) -> np.ndarray:
        answer = np.rot90(answer, -turns, (-2, -1))
        return answer[..., ::-1] if mirrored else answer

    return there, back


#: In the order that CloudS2Mask takes them, and that the documentation gives.
VIEWS = [view(turns, mirrored) for mirrored in (False, True) for turns in range(4)]


def proba(image: np.ndarray, **options: Any) -> np.ndarray:
    return scene(np.ascontiguousarray(image), ["red", "nir"]).cloudmask.predict_proba(TOY, **options).values


def test_the_answer_is_the_mean_over_the_first_so_many_views() -> None:
    each = [back(proba(turn(PIXELS))) for turn, back in VIEWS]
    assert all(np.abs(a - b).max() > 1e-3 for n, a in enumerate(each) for b in each[:n]), "the views differ"
    for count in range(1, 9):
        np.testing.assert_allclose(
            proba(PIXELS, tta=count), np.mean(each[:count], axis=0), atol=1e-6, err_msg=str(count)
        )


def test_true_is_all_eight_and_false_and_one_are_the_window_alone() -> None:
    same_odds(proba(PIXELS, tta=True), proba(PIXELS, tta=8))
    for alone in (False, 1, np.int64(1), np.False_):
        same_odds(proba(PIXELS, tta=alone), proba(PIXELS))


@pytest.mark.parametrize("depth", [2, 5])
def test_chunks_change_nothing(depth: int) -> None:
    whole = SCENE.cloudmask.predict_proba(TOY, tta=depth).values
    lazy = SCENE.chunk(time=1, band=1, y=(1, 50, 24), x=17).cloudmask.predict_proba(TOY, tta=depth)
    same_odds(lazy.values, whole)
    assert np.abs(whole - SCENE.cloudmask.predict_proba(TOY).values).max() > 1e-3


def test_depths_have_graphs_of_their_own() -> None:
    lazy = SCENE.chunk(y=40)
    names = [lazy.cloudmask.predict(TOY, tta=depth).data.name for depth in (False, 1, 2, 8, True)]
    assert names[0] == names[1] != names[2] != names[3] == names[4]


@pytest.mark.parametrize("wrong", [0, 9, -1, 2.0, "4", None])
def test_what_is_no_depth_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"Allowed: False, True, or a number of views from 1 to 8\."):
        SCENE.cloudmask.predict(TOY, tta=wrong)
