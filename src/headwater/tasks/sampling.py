"""One token from its logits: tempered, cut to the likeliest, drawn by a generator of its own.

The probability that is kept of the token is the model's own, before any of that. All of it is done
in float64 on the CPU, so that a draw does not depend on the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwater.engine.errors import InputError, NumericError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: tempered first, then cut to the `top_k` best, then to `top_p`.

    Temperature 0 takes the most probable token (the lowest id among equals). `top_k` 0 keeps all
    tokens; `top_p` keeps the fewest tokens that hold this much of what `top_k` left.
    """

    temperature: float = 0.7
    top_k: int = 20
    top_p: float = 0.8

    def __post_init__(self) -> None:
        checks = (
            ("temperature", self.temperature, "0 or more", self.temperature >= 0),
            ("top_k", self.top_k, "1 or more, or 0 for all tokens", self.top_k >= 0),
            ("top_p", self.top_p, "above 0, at most 1", 0 < self.top_p <= 1),
        )
        for name, value, expected, fits in checks:
            if not (fits and math.isfinite(value)):
                raise InputError(f"{name} is not usable", expected=expected, found=value)


def draw(
    logits: torch.Tensor, sampling: Sampling, generators: list[np.random.Generator]
) -> tuple[list[int], list[float]]:
    """A token for each row of `logits` (float64 [rows, V]), and its untempered probability.

    Raises:
        NumericError: when the logits are not finite.
    """
    import torch

    log_p = torch.log_softmax(logits, dim=-1)
    if bool(log_p.isnan().any()):
        raise NumericError(
            "The model's logits are not finite", do="try --dtype float32, or check its weights"
        )
    if sampling.temperature == 0:
        tokens = [int(row.argmax()) for row in log_p.numpy()]  # numpy: the first of equals
    else:
        count = min(sampling.top_k or log_p.shape[1], log_p.shape[1])
        best, order = log_p.topk(count, dim=1)
        weights = torch.softmax(best / sampling.temperature, dim=1)
        above = weights.cumsum(dim=1) - weights  # what the better tokens hold
        weights = torch.where(above < sampling.top_p, weights, 0.0)
        shares = weights.cumsum(dim=1).numpy()
        tokens: list[int] = []
        for row, generator in enumerate(generators):
            place = np.searchsorted(shares[row], generator.random() * shares[row, -1], side="right")
            tokens.append(int(order[row, min(int(place), count - 1)]))
    chosen = log_p[torch.arange(len(tokens)), torch.tensor(tokens)]
    return tokens, chosen.exp().tolist()
