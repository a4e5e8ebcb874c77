"""How far a training went between two of its steps: sums and means of its learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from headwater.engine.checks import positive
from headwater.engine.errors import InputError

if TYPE_CHECKING:
    from headwater.training.run import TrainingRun


def intervals(run: TrainingRun) -> list[tuple[int, int]]:
    """For each checkpoint the steps since the one before: (after, up to), the first from 0.

    Raises:
        InputError: when the run has no checkpoint, one without a step, or they are not in order.
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
        if steps and checkpoint.step <= steps[-1]:
            raise InputError(
                "The checkpoints are not in the order of their steps",
                expected=f"a step after {steps[-1]}",
                found=f"{checkpoint.step} ({checkpoint.path})",
            )
        steps.append(checkpoint.step)
    return list(pairwise([0, *steps]))


def rate_sums(run: TrainingRun) -> list[float]:
    """The sum of the learning rates of the steps that led to each checkpoint.

    Of every step where they are known; else steps times the mean of the rates at either end, which
    is exact while the schedule is linear in between, and up to the first checkpoint its own rate.

    Raises:
        InputError: when nothing says what the rates were, or they add up to nothing.
    """
    spans = intervals(run)
    if len(run.learning_rates) >= spans[-1][1]:
        made = [math.fsum(run.learning_rates[a:b]) for a, b in spans]
    else:
        ends = _rates_at(run)
        pairs = pairwise([ends[0], *ends])
        made = [(b - a) * (x + y) / 2 for (a, b), (x, y) in zip(spans, pairs, strict=True)]
    if not 0 < math.fsum(made) < math.inf:
        raise InputError(
            "The run's learning rates add up to nothing",
            expected="rates above 0",
            found=math.fsum(made),
            do=BY_HAND,
        )
    return made


BY_HAND = "give the sums by hand (rates=[...], one for each checkpoint)"


def _rates_at(run: TrainingRun) -> list[float]:
    """The rate at each checkpoint."""
    known: list[float] = []
    for checkpoint in run.checkpoints:
        if checkpoint.learning_rate is None:
            raise InputError(
                f"Nothing says what the learning rate at {checkpoint.path} was",
                expected="a run.json or trainer_state.json with learning rates",
                do=BY_HAND,
            )
        known.append(checkpoint.learning_rate)
    return known


def given_or_known(run: TrainingRun, rates: Sequence[float] | None) -> list[float]:
    """The sum for each checkpoint: `rates` after a check, or else `rate_sums`.

    Raises:
        InputError: when there are not as many as checkpoints, or they are not positive.
    """
    if rates is None:
        return rate_sums(run)
    count = len(run.checkpoints)
    expected = f"{count} positive numbers, one for each checkpoint"
    try:
        made = [positive("rates", rate) for rate in rates]
    except (TypeError, InputError) as error:
        raise InputError(
            "rates do not fit the run", expected=expected, found=repr(rates)
        ) from error
    if len(made) != count:
        raise InputError("rates do not fit the run", expected=expected, found=made)
    return made


def mean_rates(run: TrainingRun, rates: Sequence[float] | None) -> list[float]:
    """The mean learning rate of the steps that led to each checkpoint.

    Args:
        rates: the sums, given by hand. Where the run does not know its steps they are taken as
            they are: the checkpoints then count as equally far apart.

    Raises:
        InputError: as `given_or_known`.
    """
    sums = given_or_known(run, rates)
    if rates is not None and any(one.step is None for one in run.checkpoints):
        return sums
    return [total / max(1, b - a) for total, (a, b) in zip(sums, intervals(run), strict=True)]
