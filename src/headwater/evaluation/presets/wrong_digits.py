"""Digits of 8 x 8 pixels, a tenth of whose training labels are wrong, and a small net for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError

if TYPE_CHECKING:
    import torch

    from headwater.evaluation.presets.common import Array
    from headwater.tasks.task import Batch

CLASSES = 10
PER_SAMPLE_SEED = 1000  # initial weights of seed s are drawn with s + this
FLIPPED = 0.1


def logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Of the net, [batch, classes]."""
    return model(batch["x"])


def loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of each example."""
    import torch

    return torch.nn.functional.cross_entropy(logits(model, batch), batch["y"], reduction="none")


def margin(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Log-odds of the right class."""
    import torch

    made = logits(model, batch)
    right = torch.nn.functional.one_hot(batch["y"], made.shape[1]).bool()
    return made[right] - made.masked_fill(right, -torch.inf).logsumexp(dim=1)


def sample(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with labels that the net itself draws."""
    import torch

    p = logits(model, batch).softmax(dim=1)
    return {**batch, "y": torch.multinomial(p, 1, generator=generator)[:, 0]}


def net(hidden: int, seed: int) -> torch.nn.Module:
    """Two layers, with weights of this seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(PER_SAMPLE_SEED + seed)
        return torch.nn.Sequential(
            torch.nn.Linear(64, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, CLASSES)
        )


@dataclass(frozen=True)
class Data:
    """Rows as they are trained on, which labels were flipped, and rows held out."""

    x: Array
    y: Array
    flipped: Array
    held_x: Array
    held_y: Array


def data(rows: int, held_out: int, seed: int) -> Data:
    """The digits, shuffled and cut, with wrong labels.

    Args:
        rows: of all. held_out: how many of these are not trained on. seed: of order and labels.

    Raises:
        InputError: when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError(
            "The digits are scikit-learn's, which is not installed",
            do='install it with: pip install "headwater[evaluate]"',
        ) from error
    held: Any = load_digits()
    random = np.random.Generator(np.random.PCG64(seed))
    chosen = random.permutation(len(held.target))[:rows]
    x = (held.data[chosen] / 16).astype(np.float32)
    y = held.target[chosen].astype(np.int64)
    count = len(x) - held_out
    flipped = np.zeros(count, dtype=bool)
    flipped[random.permutation(count)[: round(FLIPPED * count)]] = True
    other = (y[:count] + random.integers(1, CLASSES, count)) % CLASSES
    wrong = np.where(flipped, other, y[:count])
    return Data(x[:count], wrong, flipped, x[count:], y[count:])
