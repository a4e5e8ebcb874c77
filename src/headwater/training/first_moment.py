"""Adam's state as it is stored: both running means of each parameter, and how they are kept.

Unlike `SecondMoments` nothing is corrected for the bias towards zero, so that the next step can be
computed from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.engine.errors import InputError
from headwater.training.optimizer_state import Entry, check_shapes, one_step, read_entries

if TYPE_CHECKING:
    import torch

    from headwater.training.run import Checkpoint

KEYS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class AdamState:
    """What Adam remembers after `step` steps.

    Args:
        betas: None when the state does not tell both, or not one pair for all parameters.
        first, second: running means of the gradient and of its square, by parameter name, in the
            parameter's shape.
    """

    step: int
    betas: tuple[float, float] | None
    first: Mapping[str, torch.Tensor] = field(repr=False)
    second: Mapping[str, torch.Tensor] = field(repr=False)


def read_adam_state(
    source: str | Path | Checkpoint | torch.optim.Optimizer, model: torch.nn.Module
) -> AdamState:
    """Adam's state by parameter name, read without unpickling.

    Args:
        source, model: as in `read_second_moments`.

    Raises:
        InputError: when there is no state of Adam's (Adafactor keeps no first moments).
        MismatchError: when it cannot be shown to belong to `model`.
    """
    label, entries = read_entries(source, model, KEYS)
    held: dict[str, dict[str, torch.Tensor]] = {key: {} for key in KEYS}
    for name, (state, _) in entries.items():
        for key in KEYS:
            if state.get(key) is None:
                raise InputError(
                    f"{label} is not a state of Adam's",
                    expected="exp_avg and exp_avg_sq for every parameter (Adam, AdamW)",
                    found=f"no {key} for {name}",
                )
            held[key][name] = state[key].detach()
    for values in held.values():
        check_shapes(label, values, model)
    return AdamState(one_step(label, entries), _betas(entries), held[KEYS[0]], held[KEYS[1]])


def _betas(entries: Mapping[str, Entry]) -> tuple[float, float] | None:
    given: set[Any] = {tuple(group.get("betas") or ()) for _, group in entries.values()}
    if len(given) != 1:
        return None
    pair = next(iter(given))
    known = len(pair) == 2 and all(math.isfinite(beta) for beta in pair)
    return (float(pair[0]), float(pair[1])) if known else None
