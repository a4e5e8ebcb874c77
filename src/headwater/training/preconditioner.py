"""Adam's preconditioner of a stretch of training as a scaling of rows and columns.

    P = 1 / (sqrt(V) + eps),     P^1/2 ~= a scaling of the gradient's rows and one of its columns

V is the mean over checkpoints of the second moment, corrected for its bias towards zero. What is
factored is (sqrt(V) + eps)^2, by its row and column means (`gradients/second_moment.py`), so that
eps keeps its place: where V is far below it, P is 1 / eps and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from headwater.engine.errors import InputError
from headwater.gradients.matrices import Scale
from headwater.gradients.second_moment import factors_of
from headwater.training.optimizer_state import SecondMoments, read_second_moments
from headwater.training.second_moment import as_trained

if TYPE_CHECKING:
    from headwater.gradients.matrices import Layers
    from headwater.training.run import Checkpoint


def adam_scales(
    checkpoints: Sequence[Checkpoint], layers: Layers, eps: float = 1e-8
) -> dict[str, Scale]:
    """P^1/2 of each layer, by weight name.

    Args:
        checkpoints: with Adam's states. layers: of the trained model. eps: Adam's own.

    Raises:
        InputError, MismatchError: when a state cannot be read, is not Adam's, or does not fit.
    """
    moments: dict[str, torch.Tensor] = {}
    for checkpoint in checkpoints:
        for name, value in layers.laid_out(_moments(checkpoint, layers)).items():
            moments[name] = moments[name] + value if name in moments else value
    return {name: _scale(value / len(checkpoints), eps) for name, value in moments.items()}


def adam_weights(
    checkpoint: Checkpoint, layers: Layers, eps: float = 1e-8
) -> dict[str, torch.Tensor]:
    """P itself, [out, in + bias] of each layer by weight name, at one checkpoint.

    Raises:
        InputError, MismatchError: as `adam_scales`.
    """
    moments = layers.laid_out(_moments(checkpoint, layers))
    return {name: 1 / (value.sqrt() + eps) for name, value in moments.items()}


def _moments(checkpoint: Checkpoint, layers: Layers) -> dict[str, torch.Tensor]:
    """V of every weight and bias, float64."""
    wanted = [n for one in layers.layers.values() for n in (one.name, one.bias) if n is not None]
    with as_trained(layers.task.model):
        state: SecondMoments = read_second_moments(checkpoint, layers.task.model)
    if state.kind != "adam":
        raise InputError(
            f"The optimizer of {checkpoint.path} is not Adam",
            expected="Adam's second moments",
            found=state.kind,
        )
    return {name: state.full(name) for name in wanted if name in state.moments}


def _scale(moment: torch.Tensor, eps: float) -> Scale:
    """(mean r / r)^1/4 for the rows, c^-1/4 for the columns, of (sqrt(V) + eps)^2."""
    row, column = (
        torch.from_numpy(x) for x in factors_of(((moment.sqrt() + eps) ** 2).cpu().numpy())
    )
    return Scale(((row.mean() / row) ** 0.25).to(moment.device), (column**-0.25).to(moment.device))
