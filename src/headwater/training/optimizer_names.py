"""From an optimizer's numbers to the names of parameters, refusing what cannot be checked.

`torch.optim` saves its state by number, in the order of its groups. The groups are rebuilt by the
trainer's rule; counts, every shape and the weight decay must agree, and only one naming may fit,
because two matrices of one shape would otherwise change places in silence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import MismatchError
from headwater.training.parameter_groups import trainable_groups, trainable_groups_by_type

if TYPE_CHECKING:
    import torch

# Adafactor's factors: in transformers, and in torch (which keeps the reduced dimension as 1).
FACTORS = (("exp_avg_sq_row", "exp_avg_sq_col"), ("row_var", "col_var"))
_PREFIXES = ("module.", "_orig_mod.")


def names_of_groups(
    label: str, groups: Sequence[dict[str, Any]], states: Mapping[Any, Any], model: torch.nn.Module
) -> list[list[str]]:
    """The names in each group: as saved, or by the one rule that fits in every respect.

    Raises MismatchError when no rule fits, or more than one.
    """
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}
    if not shapes:
        raise MismatchError(
            f"{label} cannot be matched with the model",
            expected="parameters with requires_grad, as in training",
            found="none",
        )
    if all("param_names" in group for group in groups):
        saved = [[_plain_name(name) for name in group["param_names"]] for group in groups]
        _require_fit(label, saved, groups, states, shapes)
        return saved
    fitting: list[list[list[str]]] = []
    reasons: list[str] = []
    for candidate in _candidates(model, len(groups)):
        reason = _misfit(candidate, groups, states, shapes)
        if reason is not None:
            reasons.append(reason)
        elif candidate not in fitting:
            fitting.append(candidate)
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise MismatchError(
            f"{label} fits the model in more than one way",
            expected="one way to name its parameters",
            found=f"{len(fitting)}",
            do="give the optimizer itself, or save it with param_names",
        )
    raise MismatchError(
        f"{label} does not fit the model",
        expected="groups as transformers.Trainer makes them, or one group of all parameters",
        found=reasons[0] if reasons else f"{len(groups)} groups",
    )


def _candidates(model: torch.nn.Module, count: int) -> list[list[list[str]]]:
    if count == 1:
        return [[[name for name, p in model.named_parameters() if p.requires_grad]]]
    if count == 2:
        rules = (trainable_groups, trainable_groups_by_type)
        return [[list(group) for group in rule(model)] for rule in rules]
    return []


def _misfit(
    candidate: Sequence[Sequence[str]],
    groups: Sequence[dict[str, Any]],
    states: Mapping[Any, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    """Why `candidate` cannot be the names of `groups`; None when everything agrees."""
    counts = [len(group["params"]) for group in groups]
    wanted = [len(listed) for listed in candidate]
    if counts != wanted:
        return f"groups of {counts} parameters where the model has {wanted}"
    decays = [float(group.get("weight_decay", 0.0)) for group in groups]
    if len(groups) == 2 and decays[0] == 0.0 and decays[1] > 0.0:
        return "weight decay in the second group only"
    for group, listed in zip(groups, candidate, strict=True):
        for number, name in zip(group["params"], listed, strict=True):
            found = _shape_in_state(states.get(number) or {})
            if found is None:
                return f"no state for parameter {number}, so its shape cannot be checked"
            if name not in shapes:
                return f"parameter {name}, which the model does not train"
            if found != shapes[name]:
                return f"shape {found} where {name} has {shapes[name]}"
    return None


def _require_fit(
    label: str,
    candidate: list[list[str]],
    groups: Sequence[dict[str, Any]],
    states: Mapping[Any, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    reason = _misfit(candidate, groups, states, shapes)
    if reason is not None:
        raise MismatchError(
            f"{label} does not fit the model",
            expected="the parameters it names, in their shapes",
            found=reason,
        )


def _shape_in_state(state: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The parameter's shape as its state tells it."""
    for key in ("exp_avg_sq", "exp_avg", "variance", "momentum_buffer", "max_exp_avg_sq"):
        if getattr(state.get(key), "shape", None) is not None:
            return tuple(state[key].shape)
    if all(key in state for key in FACTORS[0]):
        row, col = (state[key].shape for key in FACTORS[0])
        return (*row, col[-1])
    if all(key in state for key in FACTORS[1]):
        row, col = (state[key].shape for key in FACTORS[1])
        return (*row[:-1], col[-1])
    return None


def _plain_name(name: str) -> str:
    """Without what data-parallel and compile wrappers put in front."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return _plain_name(name[len(prefix) :])
    return name
