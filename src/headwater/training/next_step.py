"""The step that a training would have taken next: its optimizer state, its rate, its clipping.

A schedule that ends at zero leaves no rate to step with. Then the rate is taken that the last
decay came down from, and the step says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import HeadwaterError, InputError
from headwater.tasks.task import model_fingerprint
from headwater.training.first_moment import AdamState, read_adam_state
from headwater.training.one_step import Optimizer, Step
from headwater.training.second_moment import as_trained
from headwater.training.visit import at

if TYPE_CHECKING:
    from headwater.tasks.task import Task
    from headwater.training.run import Checkpoint, TrainingRun

SPENT = 0.01  # of the greatest rate: below it a decay has come down to about zero
USUAL = {"sgd": 1e-2, "adamw": 1e-4}  # rates where nothing is known of the training


def next_step(
    run: TrainingRun | None,
    task: Task,
    *,
    learning_rate: float | None = None,
    optimizer: Optimizer | None = None,
    restore: bool = True,
) -> Step:
    """How one more step of this run would be taken from the task's present weights.

    Args:
        run: of the task's model; None = nothing is known of its training.
        learning_rate: of the step; None = the run's last, or, where that came down to about zero,
            the one that the decay began with.
        optimizer: None = AdamW where the run has its moments, else plain SGD.
        restore: False leaves the moments at zero although there are some.

    Raises:
        InputError: when nothing says what the rate was. MismatchError: when the state is of
            another model.
    """
    if optimizer is not None and optimizer not in USUAL:
        raise InputError("Unknown optimizer", expected=" or ".join(USUAL), found=optimizer)
    notes: list[str] = []
    place = None if run is None else _where(run, task, notes)
    state = None
    if place is not None and restore and optimizer != "sgd":
        state = _state(place, task, notes)
    chosen: Optimizer = optimizer or ("sgd" if state is None else "adamw")
    recipe = None if run is None else run.recipe
    if recipe is not None and chosen == "sgd" and recipe.momentum:
        notes.append("the momentum of the training is not restored")
    given: dict[str, Any] = {}
    if recipe is not None:
        fields = ("eps", "betas", "weight_decay", "grad_clip")
        given = {name: getattr(recipe, name) for name in fields}
    if state is not None and state.betas is not None:
        given["betas"] = state.betas
    if learning_rate is not None:
        rate, told = learning_rate, "given"
    elif run is None or place is None:
        rate, told = USUAL[chosen], "a guess: nothing is known of the training"
    else:
        rate, told = last_rate(run, place)
    return Step(rate, told, chosen, state=state, notes=tuple(notes), **given)


def _where(run: TrainingRun, task: Task, notes: list[str]) -> Checkpoint | None:
    """The checkpoint that the task's weights are of: the last that is equal to them."""
    if not run.checkpoints:
        notes.append("the run has no checkpoint, and so neither a state nor a rate")
        return None
    wanted = model_fingerprint(task.model)
    for checkpoint in reversed(run.checkpoints):
        try:
            with at(task, checkpoint):
                same = model_fingerprint(task.model) == wanted
        except HeadwaterError:
            continue  # weights that are gone, or of another kind of file
        if same:
            return checkpoint
    notes.append(
        "the model's weights are none of the run's checkpoints': moments and rate are those of its "
        "last one"
    )
    return run.checkpoints[-1]


def _state(place: Checkpoint, task: Task, notes: list[str]) -> AdamState | None:
    if place.optimizer is None:
        notes.append(f"{place.path.name} keeps no optimizer state")
        return None
    try:
        with as_trained(task.model):
            return read_adam_state(place, task.model)
    except InputError as error:
        notes.append(f"the optimizer's state is not used: {error.wrong}")
        return None


def last_rate(run: TrainingRun, place: Checkpoint) -> tuple[float, str]:
    """The rate at a checkpoint, and what it is in words.

    Raises:
        InputError: when nothing says what it was, or it is zero and no earlier one is known.
    """
    rates = _rates(run, place)
    if not rates:
        raise InputError(
            "Nothing says what the run's learning rate was",
            expected="a run.json or trainer_state.json with learning rates",
            do="give one: learning_rate= (--learning-rate)",
        )
    last, greatest = rates[-1], max(rates)
    if not greatest > 0:
        raise InputError(
            "The run's learning rate is zero, and no earlier one is known",
            do="give one: learning_rate= (--learning-rate)",
        )
    if last > SPENT * greatest:
        return last, "the run's last"
    begun = len(rates) - 1
    while begun > 0 and rates[begun - 1] > rates[begun]:  # up the decay
        begun -= 1
    if begun == len(rates) - 1:  # about zero for some time
        return greatest, f"the run's greatest; its last, {last:.2g}, is about zero"
    return rates[begun], f"where the last decay began; the run's last, {last:.2g}, is about zero"


def _rates(run: TrainingRun, place: Checkpoint) -> Sequence[float]:
    """Rates up to the checkpoint: of every step, else of the checkpoints."""
    if place.step is not None and len(run.learning_rates) >= place.step > 0:
        return run.learning_rates[: place.step]
    upto = run.checkpoints.index(place) + 1 if place in run.checkpoints else None
    rates = [one.learning_rate for one in run.checkpoints[:upto]]
    return [rate for rate in rates if rate is not None]
