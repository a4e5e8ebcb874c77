"""From what a training left behind to the correction of the gradients.

The state speaks of parameters as they are stored; `SecondMoment` wants them as (out, in). Linear
layers are stored so, transformers' Conv1D the other way round, vectors have one column.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError, MismatchError
from headwater.gradients.parameters import Parameter, choose
from headwater.gradients.second_moment import SecondMoment, factors_of
from headwater.training.optimizer_state import SecondMoments, read_second_moments
from headwater.training.run import Checkpoint, TrainingRun

if TYPE_CHECKING:
    import torch

    from headwater.gradients.features import ModuleFilter
    from headwater.tasks.task import Task

Array = np.ndarray[Any, Any]


def load_second_moment(
    source: str | Path | Checkpoint | TrainingRun | torch.optim.Optimizer,
    task: Task,
    parameters: str | ModuleFilter = "linear",
    *,
    exact: bool = False,
) -> SecondMoment:
    """The second moment of the parameters that are to be attributed.

    Args:
        source: see `read_second_moments`; of a TrainingRun, its last checkpoint.
        task: the task whose model was trained.
        parameters: as in `Features`.
        exact: keep V whole, so that every gradient is divided element by element (slow).

    Raises:
        InputError, MismatchError: when the state cannot be read, does not belong to the model, or
            has nothing for an attributed parameter.
    """
    if isinstance(source, TrainingRun):
        if not source.checkpoints:
            raise InputError("The training run has no checkpoint", expected="at least one")
        source = source.checkpoints[-1]
    with as_trained(task.model):
        moments = read_second_moments(source, task.model)
    uses, _ = choose(task, parameters)
    wanted = {use.parameter.name: use.parameter for use in uses}
    lacking = [name for name in wanted if name not in moments.moments]
    if lacking:
        raise MismatchError(
            f"The optimizer's state has no second moment for {lacking[0]}",
            expected="state for every attributed parameter",
            found=f"none for {len(lacking)} of {len(wanted)}",
            do="attribute only parameters that were trained (--parameters, --modules)",
        )
    return second_moment(moments, wanted, exact=exact)


def second_moment(
    moments: SecondMoments, wanted: dict[str, Parameter], *, exact: bool = False
) -> SecondMoment:
    """`moments` of the `wanted` parameters, turned to (out, in), float64."""
    full = {name: _turned(moments, parameter) for name, parameter in wanted.items()}
    factors = {name: factors_of(value) for name, value in full.items()}
    how = ", element by element" if exact else ""
    return SecondMoment(f"{moments.kind}, step {moments.step}{how}", factors, full if exact else {})


def _turned(moments: SecondMoments, parameter: Parameter) -> Array:
    """V [out, in] of one parameter."""
    value = moments.full(parameter.name).numpy()
    matrix = value.T if parameter.kind == "conv1d" else value
    return np.ascontiguousarray(matrix.reshape(parameter.rows, parameter.columns))


@contextmanager
def as_trained(model: torch.nn.Module) -> Generator[None]:
    """The model with the parameters trainable that training would have had so.

    An adapter loaded for inference comes with every parameter frozen; the adapter's were trained.
    """
    named = dict(model.named_parameters())
    before = {name: parameter.requires_grad for name, parameter in named.items()}
    if not any(before.values()):
        adapter = [n for n in named if "lora_" in n or "modules_to_save" in n]
        for name in adapter or named:
            named[name].requires_grad_(True)
    try:
        yield
    finally:
        for name, wanted in before.items():
            named[name].requires_grad_(wanted)
