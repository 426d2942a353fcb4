"""Scores: against definitions written out pixel by pixel, over partial labels, per scene, lazily."""

from __future__ import annotations

import subprocess
import sys

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import xcloudmask
from xcloudmask import metrics as m
from xcloudmask.errors import CloudMaskError, OptionError
from xcloudmask.metrics.codes import Undeclared, check_scored
from xcloudmask.metrics.labels import open_classes
from xcloudmask.metrics.tally import answers_by_code, can_answer
from xcloudmask.metrics.xarray_scores import score_mask, tally_mask

FULL = {0: "clear", 1: "cloud", 2: "thin_cloud", 3: "cloud_shadow", 255: "no_data"}
PLAIN = {0: "clear", 1: "cloud", 255: "no_data"}
ELEMENTS = {"land": 16, "water": 32, "snow": 64, "thick_cloud": 2, "thin_cloud": 4, "cloud_shadow": 8}
POSITIVE = {
    "cloud": {"thick_cloud", "thin_cloud"},
    "invalid": {"thick_cloud", "thin_cloud", "cloud_shadow"},
    "clear": {"land", "water", "snow"},
    "thick_cloud": {"thick_cloud"},
    "thin_cloud": {"thin_cloud"},
    "cloud_shadow": {"cloud_shadow"},
    "snow": {"snow"},
    "water": {"water"},
}


def table_text(scores):
    return "\n".join(map(" | ".join, scores.to_rows()))


def truth_by_hand(label: int, question: str) -> int:
    """Say what a label decides, by listing the classes it leaves open."""
    still = {name for name, bit in ELEMENTS.items() if label & bit}
    if label & 1 and not still & {"land", "water", "snow"}:
        still |= {"land", "water", "snow"}
    if not still:
        return -1
    verdicts = {name in POSITIVE[question] for name in still}
    return int(verdicts.pop()) if len(verdicts) == 1 else -1


@pytest.mark.parametrize("question", POSITIVE)
def test_a_partial_label_decides_only_what_all_its_classes_agree_on(question: str) -> None:
    labels = np.arange(128, dtype=np.uint8)
    expected = [truth_by_hand(int(label), question) for label in labels]
    assert m.QUESTIONS[question].truth(labels).tolist() == expected


def test_documented_labels() -> None:
    labels = np.array([0, 1, 2, 4, 6, 8, 9, 17, 7], np.uint8)
    assert m.QUESTIONS["cloud"].truth(labels).tolist() == [-1, 0, 1, 1, 1, 0, 0, 0, -1]
    assert m.QUESTIONS["cloud_shadow"].truth(labels).tolist() == [-1, 0, 0, 0, 0, 1, -1, 0, 0]
    assert m.QUESTIONS["snow"].truth(labels).tolist() == [-1, -1, 0, 0, 0, 0, -1, 0, -1]


def by_hand(tp: int, fp: int, fn: int, tn: int) -> dict[str, float]:
    """The textbook, for counts none of whose sums is 0."""
    n = tp + fp + fn + tn
    precision, recall, specificity = tp / (tp + fp), tp / (tp + fn), tn / (tn + fp)
    chance = ((tp + fp) / n) * ((tp + fn) / n) + ((fn + tn) / n) * ((fp + tn) / n)
    return {
        "oa": (tp + tn) / n,
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "f2": 5 * precision * recall / (4 * precision + recall),
        "iou": tp / (tp + fp + fn),
        "kappa": ((tp + tn) / n - chance) / (1 - chance),
    }


@given(st.tuples(*[st.integers(1, 10**7)] * 4))
def test_metrics_are_the_textbook_ones(counts: tuple[int, int, int, int]) -> None:
    found = dict(zip(m.METRICS, m.metrics(np.array(counts)), strict=True))
    assert found == pytest.approx(by_hand(*counts))


def test_what_is_not_defined_is_nan() -> None:
    only_clear = dict(zip(m.METRICS, m.metrics(np.array([0, 0, 0, 9])), strict=True))
    assert only_clear["oa"] == 1
    assert all(np.isnan(only_clear[name]) for name in ("balanced_accuracy", "precision", "recall", "f1"))
    assert np.isnan(m.metrics(np.zeros(4, int))).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([FULL, PLAIN]))
def test_tallies_count_each_pixel_and_add_up(seed: int, legend: dict[int, str]) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([0, 1, 2, 4, 6, 8, 9, 17, 33, 65], np.uint8), 400)
    codes = rng.choice(np.array(list(legend), np.uint8), 400)
    whole = m.Tally.of(labels, codes, legend)
    assert whole == m.Tally.of(labels[:150], codes[:150], legend) + m.Tally.of(
        labels[150:], codes[150:], legend
    )
    positive = {"cloud": (1, 2), "invalid": (1, 2, 3)}
    for question, says in positive.items():
        truth = np.array([truth_by_hand(int(v), question) for v in labels])
        decided, answered, said = truth >= 0, codes != 255, np.isin(codes, says)
        confusion = whole.confusion(m.QUESTIONS[question])
        assert confusion.tp == (said & (truth == 1) & answered).sum()
        assert confusion.fp == (said & (truth == 0) & answered).sum()
        assert confusion.fn == (~said & (truth == 1) & answered).sum()
        assert confusion.tn == (~said & (truth == 0) & answered).sum()
        assert confusion.refused == (decided & ~answered).sum()


def test_the_last_class_code_is_not_no_data() -> None:
    tally = m.Tally.of(np.array([6, 6, 6], "u1"), np.array([14, 255, 0], "u1"), {0: "clear", 14: "cloud"})
    assert tally.confusion(m.QUESTIONS["cloud"]) == m.Confusion(1, 0, 1, 0, refused=1)


def test_a_mask_is_asked_only_what_it_can_tell() -> None:
    assert can_answer(FULL, m.QUESTIONS["thin_cloud"])
    assert not can_answer(PLAIN, m.QUESTIONS["thin_cloud"])
    assert not can_answer(PLAIN, m.QUESTIONS["thick_cloud"])
    tally = m.Tally.of(np.array([1, 6], "u1"), np.array([0, 1], "u1"), PLAIN)
    assert m.score({"a": tally}).questions == ("cloud",)


def test_what_a_mask_leaves_open_is_left_out_or_told() -> None:
    """Shadow that a mask without that class calls clear is no error, unless one asks for it."""
    labels, codes = np.array([8, 8, 1, 6], "u1"), np.array([0, 0, 0, 1], "u1")
    plain = {"a": m.Tally.of(labels, codes, PLAIN)}
    found = m.score(plain)
    assert found.questions == ("cloud",)
    assert found.notes == (
        "Not scored: invalid, clear. The mask's class clear (it may hide cloud_shadow) leaves them open.",
    )
    asked = m.score(plain, ["cloud", "invalid", "clear"])
    assert asked.get("invalid", "oa") == 0.5
    assert [note.split(":")[0] for note in asked.notes] == ["invalid", "clear"]
    assert "counts as no" in asked.notes[0]
    assert "counts as yes" in asked.notes[1]
    full = m.score({"a": m.Tally.of(labels, codes, FULL)})
    assert {"cloud", "invalid", "clear", "cloud_shadow"} <= set(full.questions)
    assert full.notes == ()
    mask, reference = pair()
    mask.attrs |= {"flag_values": [0, 1, 255], "flag_meanings": "clear cloud no_data"}
    assert score_mask(mask, reference).question.values.tolist() == ["cloud"]
    assert "invalid" in score_mask(mask, reference, questions=["invalid"]).question


def test_one_scene_has_no_interval() -> None:
    good, empty = scenes()["good"], scenes()["empty"]
    for one in ({"a": good}, {"a": good, "b": empty}):
        found = m.score(one, ["cloud"])
        assert found.get("cloud", "oa") == 1
        assert np.isnan([found.get("cloud", "oa", end) for end in ("low", "high")]).all()
        assert found.to_dict()["cloud"]["oa"]["low"] is None
        assert "[" not in table_text(found)
    assert "nan" not in table_text(m.score({"b": empty}))
    assert table_text(m.score(scenes(), ["cloud"])).count("[") == len(m.METRICS)
    mask, labels = pair()
    one_scene = score_mask(mask.isel(time=0), labels.isel(time=0)).sel(metric="oa", question="cloud")
    assert np.isnan(one_scene.sel(statistic=["low", "high"])).all()
    assert one_scene.sel(statistic="pooled") > 0


def test_codes_without_a_class_are_counted() -> None:
    flags = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}

    def found(values: np.ndarray, **attrs: object) -> Undeclared:
        return Undeclared.of([xr.DataArray(values, dims=("y", "x"), attrs=flags | attrs)])

    bits = np.array([[0, 1, 2, 4], [8, 8, 255, 0]], "u1")
    for values in (bits, bits.astype("i2"), np.where(bits == 255, np.nan, bits)):
        whole = found(values)
        assert whole.codes == {2: 1, 4: 1, 8: 2}
        assert (whole.count, whole.pixels) == (4, 8)
    lazy = xr.DataArray(bits, dims=("y", "x"), attrs=flags).chunk({"y": 1, "x": 3})
    assert Undeclared.of([lazy]) == found(bits)
    assert found(bits, _FillValue=8).codes == {2: 1, 4: 1}
    assert found(bits, flag_masks=[1, 2, 4, 8]).codes == {}
    assert found(np.array([[0, 1, 255]], "u1"), _FillValue=0).codes == {}
    alike = {(0, 2, 4, 8): True, (1, 2, 6, 9): True, (1, 17, 33, 2): True, (0, 1, 2): True,
             (0, 1, 2, 3): False, (3, 4, 5, 6): False, (0, 1, 3): False, (2, 4, 200): False,
             (1, 10, 20): False}  # fmt: skip
    for codes, expected in alike.items():
        assert found(np.array([codes], "u1")).like_bit_masks is expected, codes
    assert not found(np.array([[0, 1]], "u1")).like_bit_masks
    many = str(found(np.arange(2, 40, dtype="u1")[None]))
    assert many.startswith("2 (1 pixel), 3 (1 pixel)")
    assert many.endswith("and 32 more")


@pytest.mark.parametrize(
    ("labels", "codes", "why"),
    [
        (1, 255, "the mask is no data everywhere"),
        (0, 1, "the reference has no label"),
        (7, 1, "no label decides cloud"),
        (0, 255, "mask is no data everywhere; the reference"),
    ],
)
def test_nothing_scored_is_an_error_with_the_reason(labels: int, codes: int, why: str) -> None:
    tallies = {"a": m.Tally.of(np.full(4, labels, "u1"), np.full(4, codes, "u1"), PLAIN)}
    with pytest.raises(CloudMaskError, match=f"nothing can be scored: .*{why}"):
        check_scored(m.score(tallies), tallies)


def test_labels_and_mask_that_do_not_meet_are_an_error() -> None:
    tallies = {"a": m.Tally.of(np.array([1, 0], "u1"), np.array([255, 1], "u1"), PLAIN)}
    with pytest.raises(CloudMaskError, match="where a label decides, the mask is no data"):
        check_scored(m.score(tallies), tallies)
    clear = {"a": m.Tally.of(np.array([1], "u1"), np.array([0], "u1"), {0: "clear", 255: "no_data"})}
    with pytest.raises(CloudMaskError, match="answer no question"):
        check_scored(m.score(clear), clear)
    check_scored(m.score(scenes()), scenes())


def test_legends_leave_open_what_they_do_not_name() -> None:
    assert open_classes(["clear", "cloud"]) == {"clear": 16 + 32 + 64 + 8, "cloud": 6}
    assert open_classes(FULL.values()) == {
        "clear": 112, "cloud": 2, "thin_cloud": 4, "cloud_shadow": 8, "no_data": 0,
    }  # fmt: skip
    assert open_classes(["clear", "snow", "water"])["clear"] == 16 + 8
    codes = np.array([0, 1, 2, 3, 255])
    assert m.possible_from_classes(codes, FULL).tolist() == [113, 2, 4, 8, 0]
    with pytest.raises(OptionError, match="cloud_shadow"):
        open_classes(["shadow"])


def scenes() -> dict[str, m.Tally]:
    """A good scene, a large bad one and one without labels."""

    def tally(tp: int, fp: int, fn: int, tn: int) -> m.Tally:
        labels = np.repeat(np.array([6, 9, 6, 9], "u1"), (tp, fp, fn, tn))
        codes = np.repeat(np.array([1, 1, 0, 0], "u1"), (tp, fp, fn, tn))
        return m.Tally.of(labels, codes, PLAIN)

    return {"good": tally(50, 0, 0, 50), "fair": tally(45, 5, 5, 45), "bad": tally(100, 300, 100, 500),
            "empty": m.Tally.of(np.zeros(9, "u1"), np.zeros(9, "u1"), PLAIN)}  # fmt: skip


def test_pooled_median_and_worst_scene() -> None:
    found = m.score(scenes(), ["cloud"])
    assert found.get("cloud", "oa") == pytest.approx(790 / 1200)
    assert found.get("cloud", "oa", "median") == pytest.approx(0.9)
    assert found.get("cloud", "oa", "worst") == pytest.approx(0.6)
    assert found.worst_scenes == ("bad",)
    assert found.get("cloud", "oa", "low") == pytest.approx(0.6)
    assert found.get("cloud", "oa", "high") == pytest.approx(1.0)
    assert "cloud | " in table_text(found)
    assert found.to_dict()["cloud"]["oa"]["worst"] == 0.6
    with pytest.raises(CloudMaskError, match="balanced_accuracy"):
        found.get("cloud", "accuracy")


LAND = {0: "clear", 1: "cloud", 2: "thin_cloud", 3: "cloud_shadow", 4: "snow", 5: "water", 255: "no_data"}
#: The class of a label that decides which it is, by code of `LAND`; others decide nothing, or cloud alone.
MEANS = {16: 0, 17: 0, 2: 1, 4: 2, 8: 3, 64: 4, 65: 4, 32: 5, 33: 5}


def land_scenes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and codes of scenes of very unequal size, each with its own mix of classes and of errors."""
    rng = np.random.default_rng(3)
    out = {}
    for name, size, some in (("large", 4000, 0.1), ("middle", 300, 0.5), ("small", 40, 0.8)):
        share = rng.dirichlet(np.ones(13))
        labels = rng.choice(np.array([16, 17, 2, 4, 8, 64, 65, 32, 33, 1, 6, 9, 0], "u1"), size, p=share)
        codes = rng.choice(np.array([*LAND], "u1"), size)
        right = np.array([MEANS.get(int(label), 0) for label in labels])
        out[name] = labels, np.where(rng.random(size) < some, codes, right).astype("u1")
    return out


def classes_by_hand(pairs: list[tuple[int, int]]) -> dict[str, float]:
    """Textbook scores of (truth, answer) over classes, in plain Python."""
    n = len(pairs)
    present = sorted({truth for truth, _ in pairs})
    oa = sum(t == a for t, a in pairs) / n
    chance = sum(sum(t == c for t, _ in pairs) * sum(a == c for _, a in pairs) for c in range(6)) / n**2
    each: dict[str, list[float]] = {name: [] for name in ("precision", "recall", "f1", "f2", "iou")}
    for c in present:
        tp, said = sum(t == a == c for t, a in pairs), sum(a == c for _, a in pairs)
        whole = sum(t == c for t, _ in pairs)
        precision, recall = tp / said if said else 0.0, tp / whole
        each["precision"].append(precision)
        each["recall"].append(recall)
        for beta, name in ((1, "f1"), (2, "f2")):
            under = beta**2 * precision + recall
            each[name].append((1 + beta**2) * precision * recall / under if under else 0.0)
        each["iou"].append(tp / (whole + said - tp))
    means = {name: sum(values) / len(values) for name, values in each.items()}
    return {"oa": oa, "kappa": (oa - chance) / (1 - chance), "balanced_accuracy": means["recall"], **means}


def decided(labels: np.ndarray, codes: np.ndarray) -> list[tuple[int, int]]:
    return [
        (MEANS[int(b)], int(c)) for b, c in zip(labels, codes, strict=True) if int(b) in MEANS and c != 255
    ]


def test_scores_of_all_classes_are_the_textbook_ones_pooled_and_as_mean_over_scenes() -> None:
    scenes = land_scenes()
    found = m.score({name: m.Tally.of(*pair, LAND) for name, pair in scenes.items()})
    assert set(found.questions) == {*m.QUESTIONS, "classes"}
    assert {"land", "water", "snow", "thin_cloud", "thick_cloud", "cloud_shadow"} <= set(found.questions)
    pooled = classes_by_hand([pair for both in scenes.values() for pair in decided(*both)])
    each = [classes_by_hand(decided(*both)) for both in scenes.values()]
    for name in m.METRICS:
        assert found.get("classes", name) == pytest.approx(pooled[name]), name
        values = [scene[name] for scene in each]
        assert found.get("classes", name, "mean") == pytest.approx(np.mean(values)), name
        assert found.get("classes", name, "median") == pytest.approx(np.median(values)), name
        assert abs(found.get("classes", name) - found.get("classes", name, "mean")) > 0.02, name
    at = found.questions.index("classes")
    every = sum(int(b) in MEANS for labels, _ in scenes.values() for b in labels)
    counted = found.confusions[at]
    assert (counted.tp, counted.fp, counted.tn) == (round(pooled["oa"] * (every - counted.refused)), 0, 0)
    assert sum(counted.as_tuple()) == every
    assert found.worst_scenes[at] == "small"
    # land: clear and neither snow nor water; a label of clear of any kind decides nothing
    pairs = [(int(b), int(c)) for both in scenes.values() for b, c in zip(*both, strict=True)
             if int(b) not in (0, 1, 9) and c != 255]  # fmt: skip
    tp = sum(b in (16, 17) and c == 0 for b, c in pairs)
    assert found.get("land", "recall") == pytest.approx(tp / sum(b in (16, 17) for b, _ in pairs))
    assert found.get("land", "precision") == pytest.approx(tp / sum(c == 0 for _, c in pairs))


def test_scores_of_classes_of_arrays_and_in_few_words() -> None:
    labels, codes = (np.stack([pair[at][:40] for pair in land_scenes().values()]) for at in (0, 1))
    flags = {"flag_values": list(LAND), "flag_meanings": " ".join(LAND.values())}
    mask = xr.DataArray(codes[:, None], dims=("time", "y", "x"), attrs=flags)
    truth = xr.DataArray(
        labels[:, None], dims=("time", "y", "x"), attrs={"flag_masks": list(m.BITS.values())}
    )
    expected = m.score({str(t): m.Tally.of(labels[t], codes[t], LAND) for t in range(3)})
    for lazy in (False, True):
        pair_ = (mask.chunk(time=1, x=7), truth) if lazy else (mask, truth)
        scores = mask.cloudmask.score(truth) if not lazy else score_mask(*pair_)
        assert scores.question.values.tolist() == list(expected.questions)
        np.testing.assert_array_equal(scores.values, expected.values)
    assert scores.sel(statistic="mean", question="classes").notnull().all()
    words = m.score({"a": m.Tally.of(labels[0], codes[0], LAND)}, ["classes"])
    assert words.questions == ("classes",)
    assert "classes, mean of scenes |" in table_text(words)
    assert "classes" not in m.score({"a": m.Tally.of(labels[0], np.minimum(codes[0], 1), PLAIN)}).questions
    with pytest.raises(CloudMaskError, match="overlap"):
        m.score({"a": m.Tally.of(labels[0], codes[0] * 0, {0: "cloud", 1: "thick_cloud"})}, ["classes"])
    none = m.score({"a": m.Tally.of(np.zeros(3, "u1"), np.zeros(3, "u1"), LAND)}, ["classes"])
    assert np.isnan(none.values).all()


def test_the_mean_over_scenes_leaves_out_those_where_a_score_is_not_defined() -> None:
    found = m.score(scenes(), ["cloud"])  # the scene without labels has no score at all
    assert found.get("cloud", "iou", "mean") == pytest.approx((1 + 45 / 55 + 100 / 500) / 3)
    assert found.get("cloud", "iou") == pytest.approx(195 / 605)
    clear = m.Tally.of(np.full(10, 9, "u1"), np.zeros(10, "u1"), PLAIN)  # no cloud, none answered: no F2
    more = m.score({**scenes(), "clear": clear}, ["cloud"])
    assert more.get("cloud", "f2", "mean") == found.get("cloud", "f2", "mean")
    assert more.get("cloud", "oa", "mean") == pytest.approx((1 + 0.9 + 0.6 + 1) / 4)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Scenes drawn from a known population: a 90 % interval holds the mean about 90 times."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        right = rng.binomial(100, rng.beta(8, 2, 40))
        counts = np.stack([right, 100 - right, 0 * right, 0 * right], axis=1)
        low, high = m.bootstrap(counts, samples=300, level=0.9)
        hits += low[0] <= 0.8 <= high[0]
    assert 165 <= hits <= 195
    same = m.bootstrap(np.array([[3, 1, 2, 4]] * 9), samples=50)
    assert np.array_equal(same, m.bootstrap(np.array([[3, 1, 2, 4]] * 9), samples=50))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["f2", "balanced_accuracy", "iou"]))
def test_the_threshold_is_the_best_there_is(seed: int, metric: str) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(-1, 2, 300)
    p = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1).round(3)
    at, best = m.choose_threshold(m.Histogram.of(p, truth), metric)

    def value(threshold: float) -> float:
        said = p >= threshold - 1e-9
        counts = [(said & (truth == 1)).sum(), (said & (truth == 0)).sum(),
                  (~said & (truth == 1)).sum(), (~said & (truth == 0)).sum()]  # fmt: skip
        return float(m.metrics(np.array(counts))[m.METRICS.index(metric)])

    assert value(at) == pytest.approx(best)
    assert best == pytest.approx(np.nanmax([value(t) for t in np.linspace(0, 1, 1001)]))


def test_threshold_and_histogram_refuse_nonsense() -> None:
    h = m.Histogram.of(np.array([0.3, np.nan, 0.5]), np.array([1, 1, -1]))
    assert h.counts.sum() == 1
    with pytest.raises(CloudMaskError, match="1 yes and 0 no"):
        m.choose_threshold(h, "balanced_accuracy")
    with pytest.raises(OptionError, match="f2"):
        m.choose_threshold(h, "f3")
    with pytest.raises(CloudMaskError, match="0 to 1"):
        m.Histogram.of(np.array([30.0]), np.array([1]))


def test_reliability_and_temperature() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    honest = m.Histogram.of(p, (rng.random(p.size) < p).astype(int))
    bold = m.Histogram.of(p, (rng.random(p.size) < 0.5).astype(int))
    assert m.reliability(honest).expected_error < 0.02
    assert m.reliability(bold).expected_error == pytest.approx(0.25, abs=0.02)
    nothing = m.Histogram.of(np.full(9, np.nan), np.ones(9, int))
    assert np.isnan(m.reliability(nothing).expected_error)
    z = rng.normal(size=(5000, 3)) * 4
    share = np.exp(z / 2.5) / np.exp(z / 2.5).sum(axis=1, keepdims=True)
    truth = (share.cumsum(axis=1) > rng.random((5000, 1))).argmax(axis=1)
    exact = np.eye(3, dtype=bool)[truth]
    assert m.temperature(z, exact) == pytest.approx(2.5, rel=0.05)
    blurred = exact.copy()
    blurred[truth < 2, :2] = True  # classes 0 and 1 are not told apart
    assert m.temperature(z, blurred) == pytest.approx(2.5, rel=0.05)


def pair(chunks: dict[str, int] | None = None) -> tuple[xr.DataArray, xr.DataArray]:
    rng = np.random.default_rng(3)
    dims, coords = ("time", "y", "x"), {"y": np.arange(30.0), "x": np.arange(40.0), "time": [1, 2, 3]}
    mask = xr.DataArray(
        rng.choice(np.array(list(FULL), "u1"), (3, 30, 40)), dims=dims, coords=coords,
        attrs={"flag_values": list(FULL), "flag_meanings": " ".join(FULL.values())},
    )  # fmt: skip
    labels = mask.copy(data=rng.choice(np.array([0, 1, 2, 4, 6, 8, 9], "u1"), (3, 30, 40)))
    labels.attrs = {"flag_masks": [1, 2, 4, 8], "flag_meanings": "clear thick_cloud thin_cloud cloud_shadow"}
    return (mask.chunk(chunks), labels.chunk(chunks)) if chunks else (mask, labels)


def test_scores_of_arrays_are_those_of_the_scenes() -> None:
    mask, labels = pair()
    tallies = {str(t): m.Tally.of(labels.values[t], mask.values[t], FULL) for t in range(3)}
    expected = m.score(tallies)
    found = score_mask(mask, labels)
    assert found.question.values.tolist() == list(expected.questions)
    np.testing.assert_array_equal(found.values, expected.values)


@pytest.mark.parametrize("chunks", [{"time": 1, "y": 30, "x": 40}, {"time": 2, "y": 7, "x": 11}])
def test_lazy_scores_are_lazy_and_equal(chunks: dict[str, int]) -> None:
    mask, labels = pair()
    lazy_mask, lazy_labels = pair(chunks)

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("computed while the graph was built")

    with dask.config.set(scheduler=forbidden):
        lazy = score_mask(lazy_mask, lazy_labels)
        half = score_mask(lazy_mask, labels)
    xr.testing.assert_identical(lazy.compute(scheduler="sync"), score_mask(mask, labels))
    xr.testing.assert_identical(half.compute(scheduler="sync"), score_mask(mask, labels))


def test_a_lazy_score_holds_no_scene_whole() -> None:
    """Each chunk is counted by itself: rows of a tile never meet before they are counts."""
    mask, labels = pair({"time": 1, "y": 5, "x": 5})
    table = tally_mask(mask, labels, scene_dims=["time"])
    whole = tally_mask(*pair(), scene_dims=["time"])
    np.testing.assert_array_equal(table.values, whole.values)
    assert int(whole.sum()) == 3 * 30 * 40


def test_references_given_as_classes_and_in_another_order() -> None:
    mask, _ = pair()
    classes = mask.copy(data=np.where(mask.values == 2, 1, mask.values).astype("u1"))
    classes.attrs = {"flag_values": [0, 1, 3, 255], "flag_meanings": "clear cloud cloud_shadow no_data"}
    found = score_mask(mask, classes.transpose("x", "time", "y"), questions=["cloud", "invalid"])
    assert found.sel(question="cloud", metric="oa", statistic="pooled") == 1
    assert found.sel(question="invalid", metric="kappa", statistic="worst") == 1


def test_errors_say_what_to_do() -> None:
    mask, labels = pair()
    with pytest.raises(
        CloudMaskError, match=r"reference\.assign_attrs\(flag_masks=list\(.*BITS\.values"
    ) as told:
        score_mask(mask, labels.drop_attrs())
    said = str(told.value).rpartition(", pass ")[2]
    mended = eval(said, {"reference": labels.drop_attrs(), "list": list, "xcloudmask": xcloudmask})
    xr.testing.assert_equal(score_mask(mask, mended), score_mask(mask, labels))
    with pytest.raises(CloudMaskError, match="2 flag_values and 3 words"):
        score_mask(mask.assign_attrs(flag_values=[0, 1], flag_meanings="clear thin cloud"), labels)
    with pytest.raises(CloudMaskError, match="flag_meanings"):
        score_mask(mask.drop_attrs(), labels)
    with pytest.raises(CloudMaskError, match="reproject_match"):
        score_mask(mask, labels.assign_coords(x=labels.x + 5))
    with pytest.raises(CloudMaskError, match="dimensions"):
        score_mask(mask, labels.isel(time=0, drop=True))
    with pytest.raises(CloudMaskError, match="possible_from_classes"):
        m.Tally.of(np.array([300]), np.array([0], "u1"), PLAIN)
    with pytest.raises(CloudMaskError, match="at most 127"):
        m.Tally.of(np.array([128], "u1"), np.array([0], "u1"), PLAIN)
    with pytest.raises(OptionError, match="invalid"):
        score_mask(mask, labels, questions=["invalid_px"])
    with pytest.raises(CloudMaskError, match="0 to 14"):
        m.Tally.of(np.array([1], "u1"), np.array([0], "u1"), {0: "clear", 40: "cloud"})


def test_metrics_import_neither_torch_nor_onnxruntime() -> None:
    code = "import sys, xcloudmask.metrics; print({'torch', 'onnxruntime', 'zarr'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_clear_is_an_answer_beside_any_other_classes() -> None:
    legend = {0: "clear", 1: "cloud", 2: "land", 3: "cloud_shadow", 4: "snow", 5: "water"}
    assert answers_by_code(legend, m.QUESTIONS["clear"])[0] == 1
    assert answers_by_code(legend, m.QUESTIONS["clear"])[1] == 0
