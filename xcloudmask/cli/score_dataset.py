"""Scores of models on a published dataset, as papers print them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from xcloudmask import models
from xcloudmask.cli.score_table import AS_PAPERS, confusion_of, table_of
from xcloudmask.cli.text import paragraph
from xcloudmask.errors import CloudMaskError
from xcloudmask.metrics.cases import Case, Collected
from xcloudmask.metrics.report import write

if TYPE_CHECKING:
    import xarray as xr

    from xcloudmask.datasets import Labelled


def run(args: Namespace) -> None:
    """Mask each scene with each model, and print a table a model; counts and the worst scenes are kept."""
    from xcloudmask import datasets

    asked = None if args.questions is None else [word.strip() for word in args.questions.split(",")]
    found = {model: Collected(asked, worst=args.worst if args.report else 0) for model in args.model}
    patches = 0
    for one in datasets.read(args.dataset, args.mask, split=args.split, scale=args.scale):
        patches += 1
        for model, collected in found.items():
            collected.add(Case(one.scene, _mask(one, model), one.labels, one.image))
    declared = datasets.get(args.dataset)
    for model, collected in found.items():
        scores = collected.scores(samples=args.samples)
        if args.report:
            title = f"{model} on {declared.name}"
            scores = write(collected, Path(args.report) / model, title=title, samples=args.samples)
        print(f"{model} on {declared.name}: scenes {scores.scenes:,}, images {patches:,}")
        print(table_of(scores, AS_PAPERS))
        print("\nLabels (rows) and answers, in % of the label's pixels")
        print(confusion_of(collected.tallies.values()))
        print("".join(f"\n{paragraph(note)}\n" for note in (*scores.notes, trained_on(model))))
        if args.report:
            print(f"{Path(args.report) / model / 'report.html'}\n")
    print(paragraph("UA is precision, PA recall, IoU of classes mIoU; intervals are of scenes drawn anew."))
    print(paragraph(f"Please cite: {declared.citation}. {declared.note}"))


def trained_on(model: str) -> str:
    """Return what a model's card says of its training, so that a reader knows what is no test of it."""
    try:
        spec = models.get(model)
    except CloudMaskError:  # auto and its like choose by the scene
        return f"{model} chooses among models; see what each was trained on: xcloudmask models show NAME"
    return f"{model} was trained on: {spec.training_data or 'its card does not say'}"


def _mask(one: Labelled, model: str) -> xr.DataArray:
    if one.spatial:
        mask: xr.DataArray = one.image.cloudmask.predict(model)
    else:
        if models.get(model).architecture != "spectral":
            raise CloudMaskError(
                f"{model} looks at neighbours, and these are single pixels", "Score spectral."
            )
        mask = one.image.cloudmask.predict(model, working_resolution="native")
    return mask.compute()
