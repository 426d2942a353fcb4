"""A search for better settings: many short trainings, chosen by Optuna. Needs the extra ``train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xcloudmask.errors import CloudMaskError, names_checked
from xcloudmask.train.checkpoint import read_state
from xcloudmask.train.plan import Plan
from xcloudmask.train.run import train


@names_checked
def search(
    config: str | Path | Plan,
    trials: int,
    *,
    data: str | Path | None = None,
    out: str | Path | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train with settings drawn from the config's table [search], and return the best.

    An entry of the table is named after what it sets, and is a list to choose from or a range::

        [search]
        "loop.rate" = { low = 1e-4, high = 1e-2, log = true }
        "network.settings.dropout" = [0.0, 0.1, 0.2]

    Settings are judged by the score of the validation, ``watch`` in [loop]: on scenes of the training set,
    never on those held out. Each trial is in a folder of its own below `out`; trials that were made already
    count, and are not made again.

    Parameters
    ----------
    config : path or Plan
        With the table [search].
    trials : int
        How many trainings in all.
    data, out, threads
        See `xcloudmask.train.run.train`.
    seed : int
        Of the search.

    Returns
    -------
    dict
        ``score``, ``settings`` and ``trial``, which names the folder, of the best; ``trials`` made.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise CloudMaskError("a search needs optuna: pip install 'xcloudmask[train]'") from error
    plan = config if isinstance(config, Plan) else Plan.read(config)
    space = plan.search
    if not space:
        raise CloudMaskError(f"{plan.name}: the config has no [search], which lists what to try")
    if not plan.loop.watch or not (plan.data.dev or plan.data.dev_scenes):
        raise CloudMaskError(f"{plan.name}: a search needs dev in [data] and watch in [loop] to judge by")
    folder = Path(out) if out is not None else Path("runs") / f"{plan.name}-search"
    folder.mkdir(parents=True, exist_ok=True)

    def score_of(trial: Any) -> float:
        drawn = {name: _drawn(trial, name, choice) for name, choice in space.items()}
        where = folder / f"trial-{trial.number}"
        train(plan.with_values(drawn), data=data, out=where, threads=threads)
        state = read_state(where)
        return float(state["progress"]["best"]) if state else float("nan")

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "trials.log")))
    study = optuna.create_study(
        study_name=plan.name, direction="maximize", load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=seed), storage=storage,
    )  # fmt: skip
    made = len([t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE])
    if trials > made:
        study.optimize(score_of, n_trials=trials - made)
    best = study.best_trial
    return {
        "score": best.value, "settings": best.params, "trial": best.number, "trials": max(trials, made)
    }  # fmt: skip


def _drawn(trial: Any, name: str, choice: Any) -> Any:
    if isinstance(choice, list):
        return trial.suggest_categorical(name, choice)
    ends, entries = {"low", "high"}, {"low", "high", "log", "step"}
    if not isinstance(choice, Mapping) or not ends <= choice.keys() <= entries:
        raise CloudMaskError(
            f"[search] {name!r} = {choice!r} must be a list to choose from, or a range with low, high and, "
            "if need be, log = true or step"
        )
    whole = isinstance(choice["low"], int) and isinstance(choice["high"], int)
    return (trial.suggest_int if whole else trial.suggest_float)(name, **choice)
