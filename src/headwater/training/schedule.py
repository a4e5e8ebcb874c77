"""How far a training went between two of its steps: sums and means of its learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.training.run import Checkpoint, TrainingRun


def intervals(run: TrainingRun) -> list[tuple[int, int]]:
    """For each checkpoint the steps since the one before: (after, up to), the first from 0.

    Raises:
        InputError: when the run has no checkpoint, or one without a step.
    """
    if not run.checkpoints:
        raise InputError("The training run has no checkpoint", expected="at least one")
    steps: list[int] = []
    for checkpoint in run.checkpoints:
        if checkpoint.step is None:
            raise InputError(
                f"Nothing says which step {checkpoint.path} is of",
                expected="a run.json, a trainer_state.json, or a folder checkpoint-<step>",
            )
        steps.append(checkpoint.step)
    return list(pairwise([0, *steps]))


def rate_sums(run: TrainingRun) -> list[float]:
    """The sum of the learning rates of the steps that led to each checkpoint.

    Of every step where they are known; else steps times the mean of the rates at either end, which
    is exact while the schedule is linear in between.

    Raises:
        InputError: when nothing says what the rates were.
    """
    spans = intervals(run)
    if len(run.learning_rates) >= spans[-1][1]:
        return [math.fsum(run.learning_rates[a:b]) for a, b in spans]
    at = [checkpoint.learning_rate for checkpoint in run.checkpoints]
    known: list[float] = []
    for checkpoint, rate in zip(run.checkpoints, at, strict=True):
        if rate is None:
            raise InputError(
                f"Nothing says what the learning rate at {checkpoint.path} was",
                expected="a run.json or trainer_state.json with learning rates",
                do="give the sums by hand (rates=[...], one for each checkpoint)",
            )
        known.append(rate)
    ends = list(pairwise([known[0], *known]))
    return [(b - a) * (x + y) / 2 for (a, b), (x, y) in zip(spans, ends, strict=True)]


def given_or_known(
    run: TrainingRun, rates: Sequence[float] | None, checkpoints: Sequence[Checkpoint]
) -> list[float]:
    """`rates` after a check, or else `rate_sums`.

    Raises:
        InputError: when there are not as many as checkpoints, or they are not positive.
    """
    if rates is None:
        return rate_sums(run)
    made = [float(rate) for rate in rates]
    if len(made) != len(checkpoints) or not all(0 < rate < math.inf for rate in made):
        raise InputError(
            "rates do not fit the run",
            expected=f"{len(checkpoints)} positive numbers, one for each checkpoint",
            found=made,
        )
    return made
