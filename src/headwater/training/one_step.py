"""One optimizer step on one document, and back: what tail patches are made of.

The arithmetic is torch.optim's, from the moments that the training kept. Those are only read: what
changes are the weights, in place, and they come back from a copy, bit for bit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from headwater.corpus.halving import in_batches
from headwater.engine.errors import InputError, NumericError
from headwater.tasks.task import SAMPLED, dtype_name
from headwater.training.parameter_groups import trainable_groups
from headwater.training.second_moment import as_trained
from headwater.training.visit import restoring

if TYPE_CHECKING:
    from headwater.tasks.task import Chunk, Task
    from headwater.training.first_moment import AdamState

CPU_BUDGET, GPU_BUDGET = 2048, 16384  # tokens of a batch
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class Step:
    """How the step is taken.

    Args:
        learning_rate: of the step. rate_is: where it comes from, in words.
        optimizer: "adamw", or "sgd" (plain: a momentum is not restored).
        betas, eps, weight_decay, grad_clip: as in `Recipe`.
        state: Adam's moments at the present weights; None = they are zero.
        notes: what a reader should know of the choice.

    Raises:
        InputError: for a value outside its range.
    """

    learning_rate: float
    rate_is: str = "given"
    optimizer: Optimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip: float | None = 1.0
    state: AdamState | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what a person gives."""
        if not 0 < self.learning_rate < math.inf:
            raise InputError(
                "The learning rate of a step is not usable",
                expected="a number above 0",
                found=self.learning_rate,
            )
        if self.optimizer not in ("adamw", "sgd"):
            raise InputError("Unknown optimizer", expected="adamw or sgd", found=self.optimizer)

    def told(self) -> str:
        """The step in words."""
        how = "plain SGD"
        if self.optimizer == "adamw":
            state = self.state
            kept = "moments from zero" if state is None else f"the moments of step {state.step}"
            how = f"AdamW with {kept}"
        clip = "" if self.grad_clip is None else f", gradient clipped to {self.grad_clip:g}"
        return f"{how}, learning rate {self.learning_rate:.3g} ({self.rate_is}){clip}"

    def describe(self) -> dict[str, Any]:
        """All that decides the step, JSON-serialisable."""
        return {
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "betas": list(self.betas),
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "grad_clip": self.grad_clip,
            "state": None if self.state is None else _digest(self.state),
        }


def _digest(state: AdamState) -> str:
    """A hash of the step and of evenly spaced values of every moment."""
    digest = hashlib.sha256(str(state.step).encode())
    for held in (state.first, state.second):
        for name in sorted(held):
            flat = held[name].reshape(-1)
            digest.update(f"{name}|{flat.numel()}".encode())
            some = flat[:: max(1, flat.numel() // SAMPLED)]
            digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


class Stepper:
    """Steps from a task's present weights, each from the same ones.

    Trained are the parameters with requires_grad; of a model loaded for inference all, or its
    adapter's. The model is in evaluation mode: no dropout.

    Raises:
        InputError: when the model has nothing to train.
    """

    def __init__(self, task: Task, step: Step) -> None:
        self.task, self.step = task, step
        with as_trained(task.model):
            decayed, plain = trainable_groups(task.model)
        self.trained = decayed | plain
        self._decayed = set(decayed)
        if not self.trained:
            raise InputError("The model has nothing to train", expected="parameters")
        state = step.state
        held = [] if state is None else [state.first, state.second]
        self._moments = [
            {name: one[name].to(p.device, _wide(p)) for name, p in self.trained.items()}
            for one in held
        ]

    def notes(self) -> list[str]:
        """What a reader should know of the weights."""
        narrow = {dtype_name(p.dtype) for p in self.trained.values() if _wide(p) != p.dtype}
        if not narrow:
            return []
        return [
            f"the weights are {', '.join(sorted(narrow))}, in which a small step is mostly rounded "
            "away: load the model in float32 for a tail patch"
        ]

    @contextmanager
    def after(self, chunks: Sequence[Chunk], name: str = "") -> Generator[None]:
        """The model after one step on these chunks, all of a document; then as it was.

        Raises:
            NumericError: when the gradient is not finite; `name` says of what.
        """
        gradients = self._gradients(chunks)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
        if not math.isfinite(norm):
            raise NumericError(f"The gradient of document {name} is not finite")
        limit = self.step.grad_clip
        # As torch.nn.utils.clip_grad_norm_ has it.
        factor = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
        with restoring(self.task.model, self.trained.values()):
            with torch.no_grad():
                for one, gradient in gradients.items():
                    self._update(one, gradient * factor)
            del gradients
            yield

    def _gradients(self, chunks: Sequence[Chunk]) -> dict[str, torch.Tensor]:
        """Of the mean loss over the labelled tokens (examples), as the training loop has it."""
        total: dict[str, torch.Tensor] = {}
        count = max(1, sum(map(_labelled, chunks)))
        budget = GPU_BUDGET if self.task.device.type == "cuda" else CPU_BUDGET

        def compute(part: list[int]) -> list[torch.Tensor | None]:
            losses = self.task.loss(self.task.collate([chunks[i] for i in part]))
            made = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
            return list(made)

        with self.task.running(), torch.enable_grad():
            parameters = list(self.trained.values())
            for parameter in parameters:
                parameter.requires_grad_(True)
            for _, made, _ in in_batches([c.length for c in chunks], budget, compute):
                for name, gradient in zip(self.trained, made, strict=True):
                    if gradient is not None:
                        wide = gradient.to(_wide(gradient)) / count
                        total[name] = total[name] + wide if name in total else wide
        return total

    def _update(self, name: str, g: torch.Tensor) -> None:
        """The optimizer's step on one parameter."""
        step, p = self.step, self.trained[name]
        rate, decay = step.learning_rate, step.weight_decay if name in self._decayed else 0.0
        theta = p.to(g.dtype)
        if step.optimizer == "sgd":
            p.copy_(theta - rate * (g + decay * theta))
            return
        one, two = step.betas
        m, v = (1 - one) * g, (1 - two) * g.square()
        count = 1
        if step.state is not None:
            m = m.add_(self._moments[0][name], alpha=one)
            v = v.add_(self._moments[1][name], alpha=two)
            count += step.state.step
        denominator = (v.sqrt_() / math.sqrt(1 - two**count)).add_(step.eps)
        size = rate / (1 - one**count)
        p.copy_((theta * (1 - rate * decay)).addcdiv_(m, denominator, value=-size))


def _wide(tensor: torch.Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _labelled(chunk: Chunk) -> int:
    """Its labelled tokens (the first is never predicted); 1 for what is no sequence."""
    labels = chunk.content.get("labels")
    if labels is None or "input_ids" not in chunk.content:
        return 1
    return int((torch.as_tensor(labels)[1:] != -100).sum())
