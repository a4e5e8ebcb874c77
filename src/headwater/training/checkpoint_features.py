"""A feature set for every checkpoint of a training run: what ensembles are made of."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.gradients.features import Features
from headwater.index.feature_sets import add_features, open_set
from headwater.training.second_moment import load_second_moment
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.index.build import Plan
    from headwater.index.index import Index
    from headwater.tasks.task import Task
    from headwater.training.run import TrainingRun


def add_checkpoints(
    index: Index,
    run: TrainingRun,
    features: Features = Features(),  # noqa: B008 - frozen
    plan: Plan | None = None,
    *,
    own_moments: bool = False,
) -> list[str]:
    """Build a feature set for each checkpoint, named as its folder is; goes on where it stopped.

    Args:
        index: finished, with or without features of its own. run: of its model.
        features: what is stored. plan: how it is run.
        own_moments: correct each checkpoint's gradients by its own optimizer state.

    Returns:
        Names of the sets, in the order of the run.

    Raises:
        InputError: when the run has no checkpoint, or two of one name.
        InputError, MismatchError: see `Checkpoint.load_into`, `add_features`, `load_second_moment`.
    """
    names = [checkpoint.path.name for checkpoint in run.checkpoints]
    if not names or len(set(names)) < len(names):
        raise InputError(
            "The run's checkpoints cannot be told apart by their folders' names",
            expected="at least one checkpoint, each in a folder of its own name",
            found=", ".join(names) or "none",
        )
    for name, checkpoint in zip(names, run.checkpoints, strict=True):
        with at(index.task, checkpoint):
            own = features
            if own_moments:
                moment = load_second_moment(checkpoint, index.task, features.parameters)
                own = replace(features, second_moment=moment)
            source = {"checkpoint": str(checkpoint.path.resolve())}
            add_features(index, name, index.task, own, plan, source)
    return names


@contextmanager
def visiting(index: Index, name: str, task: Task | None = None) -> Generator[Index]:
    """A feature set with its model: at the checkpoint it was built of, and back afterwards.

    Args:
        index: whose set. name: of the set. task: of a set that was built with a model of its own.

    Raises:
        InputError, MismatchError: when the checkpoint is gone, or is another one now.
    """
    if task is not None:
        yield open_set(index, name, task)
        return
    made = open_set(index, name)
    place = made.manifest["source"].get("checkpoint")
    with at(index.task, None if place is None else Path(place)):
        yield open_set(index, name, index.task)
