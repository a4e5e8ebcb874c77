"""The output head and its loss in one step, a few rows of logits at a time.

A language model's logits are its largest activation by far (vocabulary x tokens). The head's weight
needs no gradient here, so the gradient at the hidden states is known as soon as a block of logits
is: nothing of the size vocabulary x tokens is ever kept, and the softmax is walked once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

BLOCK_BYTES = 64 << 20  # logits held at a time


def _block_loss(
    logits: torch.Tensor, labels: torch.Tensor, margin: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss [n] and 1 - p [n] of float logits [n, V], which become the loss's gradient in place.

    Loss is the NLL `logsumexp(l) - l_y`, or with `margin` the negated log-odds
    `logsumexp over the others - l_y`.
    """
    rows = torch.arange(len(labels), device=labels.device)
    right = logits[rows, labels]
    if margin:
        logits[rows, labels] = float("-inf")
    top = logits.amax(dim=1)
    logits.sub_(top[:, None]).exp_()
    total = logits.sum(dim=1)
    loss = total.log() + top - right
    logits.div_(total[:, None])
    rest = torch.sigmoid(loss) if margin else 1 - logits[rows, labels]
    logits[rows, labels] -= 1.0
    return loss, rest


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        margin: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`hidden` [n, d], `weight` [V, d], `labels` [n] -> (loss [n], 1 - p [n])."""
        count, vocabulary = len(labels), weight.shape[0]
        work = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        rows = max(1, BLOCK_BYTES // (vocabulary * 4))
        loss = torch.empty(count, dtype=work, device=hidden.device)
        rest = torch.empty_like(loss)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, count, rows):
            part = slice(start, min(start + rows, count))
            logits = torch.nn.functional.linear(hidden[part], weight, bias).to(work)
            loss[part], rest[part] = _block_loss(logits, labels[part], margin)
            if gradient is not None:
                torch.mm(logits.to(weight.dtype), weight, out=gradient[part])
        ctx.mark_non_differentiable(rest)
        ctx.gradient = gradient
        return loss, rest

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = ctx.gradient
        return (gradient * grads[0][:, None].to(gradient.dtype), None, None, None, None)


def head_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    *,
    margin: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and 1 - p of each row, without keeping the logits.

    Args:
        hidden: [n, d], what enters the head.
        weight: [V, d], frozen. bias: [V] or None.
        labels: int64 [n], the right tokens.
        margin: the negated log-odds instead of the NLL.

    Returns:
        (loss [n], 1 - p [n]) in float32 (float64 for float64 input); only the loss is
        differentiable, and only in `hidden`.
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device):  # a function of our own is not seen by autocast
        dtype = torch.get_autocast_dtype(device)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return _HeadLoss.apply(hidden, weight, bias, labels, margin)  # pyright: ignore[reportReturnType]


def logits_loss(
    logits: torch.Tensor, labels: torch.Tensor, *, margin: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from logits [n, V], through autograd: for models whose head is not one matrix."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    rows = torch.arange(len(labels), device=labels.device)
    right = logits[rows, labels]
    if margin:
        others = logits.clone()
        others[rows, labels] = float("-inf")
        loss = others.logsumexp(dim=1) - right
        return loss, torch.sigmoid(loss.detach())
    loss = logits.logsumexp(dim=1) - right
    return loss, 1 - torch.exp(-loss.detach())


def draw_labels(
    hidden: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    uniform: np.ndarray[Any, Any],
) -> torch.Tensor:
    """A label for each row from softmax(logits), by inversion: int64 [n].

    Args:
        hidden: [n, d], what enters the head; the logits [n, V] where there is no `weight`.
        uniform: float64 [n] in [0, 1): the draw of each row.
    """
    vocabulary = hidden.shape[1] if weight is None else weight.shape[0]
    rows = max(1, BLOCK_BYTES // (vocabulary * 8))
    drawn = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
    for start in range(0, len(hidden), rows):
        part = slice(start, start + rows)
        logits = hidden[part]
        if weight is not None:
            logits = torch.nn.functional.linear(logits, weight, bias)
        reached = torch.softmax(logits.double(), dim=1).cumsum_(dim=1)
        wanted = torch.from_numpy(uniform[part]).to(reached) * reached[:, -1]
        drawn[part] = torch.searchsorted(reached, wanted[:, None], right=True)[:, 0]
    return drawn.clamp_(max=vocabulary - 1)
