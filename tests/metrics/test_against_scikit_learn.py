"""Scores against scikit-learn's, on random labels: of questions, of all classes, pooled and by scene."""

import numpy as np
import pytest
import xarray as xr
from sklearn import metrics as theirs

import xcloudmask  # noqa: F401
from xcloudmask import metrics as ours
from xcloudmask.metrics.tally import class_counts, count

LEGEND = {0: "clear", 1: "cloud", 3: "cloud_shadow", 255: "no_data"}
LABEL = {0: 1, 1: 6, 3: 8}


def scenes(seed: int, number: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Classes and answers of scenes, each with a mix of classes and a share of errors of its own."""
    rng = np.random.default_rng(seed)
    truth = np.stack([rng.choice([0, 1, 3], (30, 40), p=rng.dirichlet((2, 2, 1))) for _ in range(number)])
    wrong = rng.random(truth.shape) < rng.random((number, 1, 1))
    return truth, np.where(wrong, rng.choice([0, 1, 3], truth.shape), truth)


def as_arrays(truth: np.ndarray, said: np.ndarray) -> tuple[xr.DataArray, xr.DataArray]:
    flags = {"flag_values": list(LEGEND), "flag_meanings": " ".join(LEGEND.values())}
    mask = xr.DataArray(said.astype("u1"), dims=("time", "y", "x"), attrs=flags)
    return mask, mask.copy(data=truth.astype("u1"))


def asked(truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Every score of a yes-or-no question as scikit-learn has it."""
    truth, said = truth.ravel(), said.ravel()
    return {
        "oa": theirs.accuracy_score(truth, said),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, said),
        "precision": theirs.precision_score(truth, said),
        "recall": theirs.recall_score(truth, said),
        "f1": theirs.f1_score(truth, said),
        "f2": theirs.fbeta_score(truth, said, beta=2),
        "iou": theirs.jaccard_score(truth, said),
        "kappa": theirs.cohen_kappa_score(truth, said),
    }


QUESTIONS = {"cloud": (1,), "cloud_shadow": (3,), "clear": (0,), "invalid": (1, 3)}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_pooled_and_as_mean_and_worst_over_scenes(question: str, seed: int) -> None:
    """The mean over scenes is what FDR4VGT-CLOUD reports of F2, IoU and kappa."""
    truth, said = scenes(seed)
    mask, reference = as_arrays(truth, said)
    found = mask.cloudmask.score(reference, questions=[question], scene_dims=["time"]).sel(question=question)
    truth, said = (np.isin(classes, QUESTIONS[question]) for classes in (truth, said))
    pooled = asked(truth, said)
    each = [asked(*pair) for pair in zip(truth, said, strict=True)]
    assert set(pooled) == set(ours.METRICS)
    for metric in ours.METRICS:
        values = [scene[metric] for scene in each]
        expected = {
            "pooled": pooled[metric], "mean": np.mean(values), "median": np.median(values),
            "worst": min(values),
        }  # fmt: skip
        told = {name: float(found.sel(metric=metric, statistic=name)) for name in expected}
        assert told == pytest.approx(expected), metric


@pytest.mark.parametrize("seed", range(5))
def test_all_classes_at_once(seed: int) -> None:
    truth, said = (classes.ravel() for classes in scenes(seed))
    labels = np.vectorize(LABEL.__getitem__)(truth).astype("u1")
    table = count(labels, said.astype("u1"))
    np.testing.assert_array_equal(
        class_counts(table, LEGEND.items()), theirs.confusion_matrix(truth, said, labels=[0, 1, 3])
    )
    found = ours.score({"all": ours.Tally.of(labels, said.astype("u1"), LEGEND)}, ["classes"])
    how = {"average": "macro", "zero_division": 0}
    expected = {
        "oa": theirs.accuracy_score(truth, said),
        "kappa": theirs.cohen_kappa_score(truth, said),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, said),
        "precision": theirs.precision_score(truth, said, **how),
        "recall": theirs.recall_score(truth, said, **how),
        "f1": theirs.f1_score(truth, said, **how),
        "f2": theirs.fbeta_score(truth, said, beta=2, **how),
        "iou": theirs.jaccard_score(truth, said, **how),
    }
    assert {metric: found.get("classes", metric) for metric in ours.METRICS} == pytest.approx(expected)
