"""Further training: a few steps on what is being explained, looked at, and taken back.

The same weights and the same steps give the same result: the model stays in evaluation mode, all
pairs are one batch, and nothing is drawn at random. The learning rates are small, so the trained
weights must have the precision to hold such a step: 16-bit ones are refused.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from headwater.corpus.halving import in_batches
from headwater.engine.checks import positive, whole
from headwater.engine.errors import InputError, NumericError
from headwater.training.recipe import Optimizer
from headwater.training.visit import restoring

if TYPE_CHECKING:
    import torch

    from headwater.tasks.task import Chunk, Task

Pairs = Sequence[tuple[float, "Chunk"]]
Named = Mapping[str, "torch.nn.Parameter"]

BUDGET = 1024  # tokens of a piece of the batch; the steps do not depend on it


@dataclass(frozen=True)
class Further:
    """How a model is trained further: without weight decay, clipping, schedule or dropout.

    Args:
        learning_rate: of every step. steps: how many, each on all pairs.
        optimizer: "adamw" (betas 0.9 and 0.999, eps 1e-8) or "sgd" (no momentum).

    Raises:
        InputError: for a value outside its range.
    """

    learning_rate: float = 5e-6
    steps: int = 3
    optimizer: Optimizer = "adamw"

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "learning_rate", positive("learning_rate", self.learning_rate))
        object.__setattr__(self, "steps", whole("steps", self.steps))
        if self.optimizer not in ("adamw", "sgd"):
            raise InputError("Unknown optimizer", expected="adamw, sgd", found=self.optimizer)


@contextmanager
def further(
    task: Task,
    pairs: Pairs,
    how: Further,
    parameters: Named,
    *,
    ascend: bool = False,
    budget: int = BUDGET,
) -> Generator[list[float]]:
    """The task's model after some steps on the weighted sum of measurements `pairs`.

    Args:
        task: its model is trained in place, and afterwards as it was, also after an error.
        pairs: (weight, chunk) of what is trained on. how: the steps.
        parameters: those that are trained; see `trained_parameters`.
        ascend: raise the measurement instead of lowering it.
        budget: tokens of a batch.

    Yields the measurement before each step.

    Raises:
        NumericError: when a measurement, a gradient or a trained weight is not finite.
    """
    values = list(parameters.values())
    with restoring(task.model, values):
        before = [value.grad for value in values]
        try:
            measured = _train(task, pairs, how, parameters, ascend, budget)
        finally:
            for value, grad in zip(values, before, strict=True):
                value.grad = grad
        yield measured


def _train(
    task: Task, pairs: Pairs, how: Further, parameters: Named, ascend: bool, budget: int
) -> list[float]:
    import torch

    values = list(parameters.values())
    optimizer = (
        torch.optim.SGD(values, lr=how.learning_rate)
        if how.optimizer == "sgd"
        else torch.optim.AdamW(values, lr=how.learning_rate, weight_decay=0.0)
    )
    measured: list[float] = []
    for _ in range(how.steps):
        value, grads = gradient(task, pairs, parameters, budget)
        for parameter, grad in zip(values, grads, strict=True):
            parameter.grad = -grad if ascend else grad
        optimizer.step()
        measured.append(value)
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise NumericError("Further training left weights that are not finite", do=_LOWER)
    return measured


_LOWER = "lower the learning rate, or take fewer steps"


def gradient(
    task: Task, pairs: Pairs, parameters: Named, budget: int = BUDGET
) -> tuple[float, list[torch.Tensor]]:
    """A weighted sum of measurements, and its gradient in the order of `parameters`.

    Raises:
        InputError: when it does not depend on them. NumericError: when it is not finite.
    """
    import torch

    values = list(parameters.values())
    total = [torch.zeros_like(value) for value in values]
    measured = 0.0

    def compute(part: list[int]) -> tuple[float, tuple[torch.Tensor | None, ...]]:
        batch = task.collate([pairs[i][1] for i in part])
        # Autocast remembers the weights it has cast until it is left: it is left at every step.
        with task.running(), torch.enable_grad():
            for value in values:
                value.requires_grad_(True)
            losses = task.measurement(batch)
            given = [pairs[i][0] for i in part]
            weights = torch.tensor(given, dtype=losses.dtype, device=losses.device)
            weighted = (weights * losses).sum()
            if not weighted.requires_grad:
                raise InputError(
                    "The measurement does not depend on the parameters that are trained",
                    expected="a measurement that is differentiable in them",
                    do="choose other parameters, and leave detach() and no_grad() out of it",
                )
            found = torch.autograd.grad(weighted, values, allow_unused=True)
        return float(weighted.detach()), found

    lengths = [chunk.length for _, chunk in pairs]
    for _, (value, grads), _ in in_batches(lengths, budget, compute):
        measured += value
        for sum_, grad in zip(total, grads, strict=True):
            if grad is not None:
                sum_ += grad
    if not (math.isfinite(measured) and all(bool(torch.isfinite(g).all()) for g in total)):
        raise NumericError("The measurement of the query or its gradient is not finite", do=_LOWER)
    return measured, total


@contextmanager
def moved(
    task: Task, parameters: Named, direction: Sequence[torch.Tensor], step: float
) -> Generator[None]:
    """The task's model with `step` times `direction` added, and afterwards as it was."""
    import torch

    values = list(parameters.values())
    with restoring(task.model, values):
        with torch.no_grad():
            for value, part in zip(values, direction, strict=True):
                value.add_(part, alpha=step)
        yield


def trained_parameters(
    model: torch.nn.Module, *choices: Sequence[str] | None
) -> dict[str, torch.nn.Parameter]:
    """The parameters that are trained, by name.

    Args:
        model: of one with an adapter only the adapter's are trained, unless patterns ask for
            others.
        choices: lists of patterns (`*` as in file names) of parameters or of their modules; a
            parameter must match each list. None = no choice; an empty list chooses nothing.

    Raises:
        InputError: when none is left, or one has too little precision for small steps.
    """
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    asked = [choice for choice in choices if choice is not None]
    given = [[choice] if isinstance(choice, str) else list(choice) for choice in asked]
    if not given and any("lora_" in name for name in named):
        given = [["*lora_*"]]
    chosen = {
        name: p
        for name, p in named.items()
        if all(any(_matches(name, pattern) for pattern in patterns) for patterns in given)
    }
    if not chosen:
        raise InputError(
            "No parameter of the model matches",
            expected=f"a pattern of names such as {next(iter(named), 'none')}",
            found="; ".join(", ".join(patterns) or "no pattern" for patterns in given)
            or "no parameters",
        )
    _require_precision(chosen)
    return chosen


def _matches(name: str, pattern: str) -> bool:
    module = name.rpartition(".")[0]
    return fnmatchcase(name, pattern) or fnmatchcase(module, pattern)


def _require_precision(parameters: Mapping[str, Any]) -> None:
    import torch

    for name, parameter in parameters.items():
        if parameter.dtype not in (torch.float32, torch.float64):
            raise InputError(
                "The trained weights have too little precision for small steps",
                expected="float32 weights",
                found=f"{str(parameter.dtype).removeprefix('torch.')} ({name})",
                do="load the model in float32, or with dtype 'autocast'",
            )
