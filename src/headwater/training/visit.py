"""Other weights for a while: a task at one of its checkpoints, and back, bit for bit.

Weights change in place, so that tied ones stay tied and nothing that holds the model notices.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.training.run import Checkpoint, TrainingRun

if TYPE_CHECKING:
    import torch

    from headwater.tasks.task import Task

Place = Checkpoint | TrainingRun | str | Path
Run = Place | Sequence[Checkpoint]


@contextmanager
def restoring(
    model: torch.nn.Module, parameters: Iterable[torch.Tensor] | None = None
) -> Generator[None]:
    """Whatever happens to the weights inside, afterwards they are as they were, bit for bit.

    Args:
        model: its buffers are kept too.
        parameters: those that will change, which takes memory for a second copy of them; None =
            all.
    """
    import torch

    changing = model.parameters() if parameters is None else parameters
    kept = [(tensor, tensor.detach().clone()) for tensor in changing]
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)
            for module, name, buffer, before in buffers:
                setattr(module, name, buffer.copy_(before))  # some modules put another in its place


@contextmanager
def at(task: Task, place: Place | None) -> Generator[None]:
    """The task's model with the weights of a checkpoint, and afterwards as it was.

    Args:
        task: its model is changed in place.
        place: a checkpoint, a run (its last one), or a folder with weights; None = as it is.

    Raises:
        InputError, MismatchError: see `Checkpoint.load_into`; the model is then as it was.
    """
    if place is None:
        yield
        return
    with restoring(task.model):
        checkpoint_of(place).load_into(task.model)
        yield


def checkpoint_of(place: Place) -> Checkpoint:
    """The checkpoint that is meant by a run (its last) or a folder.

    Raises:
        InputError: when there is none.
    """
    if isinstance(place, Checkpoint):
        return place
    return run_of(place).checkpoints[-1]


def run_of(given: object) -> TrainingRun:
    """The run that is meant: a run itself, its folder, or checkpoints in their order (`Run`).

    Of checkpoints of one run's folder the learning rates of all steps are looked up there.

    Raises:
        InputError: when it is none of these, or has no checkpoint.
    """
    several = list(given) if isinstance(given, (list, tuple)) else [given]
    checkpoints = [one for one in several if isinstance(one, Checkpoint)]
    if isinstance(given, TrainingRun):
        run = given
    elif isinstance(given, (str, Path)):
        run = TrainingRun.open(given)
    elif len(checkpoints) == len(several):
        run = _of_checkpoints(checkpoints)
    else:
        raise InputError(
            "This is no training run",
            expected="a TrainingRun, its folder, or checkpoints",
            found=repr(given),
        )
    if not run.checkpoints:
        raise InputError(
            "The training run has no checkpoint", expected="a run whose weights were saved"
        )
    return run


def _of_checkpoints(given: Sequence[Checkpoint]) -> TrainingRun:
    last = given[-1] if given else None
    rates: tuple[float, ...] = ()
    if last is not None and len({one.path.parent for one in given}) == 1:
        with suppress(InputError):  # what cannot be opened tells no rates
            found = TrainingRun.open(last.path)
            rates = found.learning_rates if found.steps == last.step else ()
    for one in given:
        told = rates[one.step - 1] if one.step and one.step <= len(rates) else None
        if one.learning_rate is not None and told != one.learning_rate:
            rates = ()  # who made the checkpoint says otherwise
    return TrainingRun(tuple(given), None if last is None else last.step, learning_rates=rates)


@contextmanager
def averaged(task: Task, places: Sequence[Place]) -> Generator[None]:
    """The task's model with the mean of the weights of several checkpoints, then as it was.

    Buffers (a batch norm's running means) are not averaged: they are the last checkpoint's.

    Raises:
        InputError, MismatchError: see `at`.
    """
    import torch

    with restoring(task.model):
        parameters = list(task.model.parameters())
        sums = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
        for place in places:
            checkpoint_of(place).load_into(task.model)
            for total, p in zip(sums, parameters, strict=True):
                total += p.detach().double()
        with torch.no_grad():
            for total, p in zip(sums, parameters, strict=True):
                p.copy_(total / len(places))
        yield
