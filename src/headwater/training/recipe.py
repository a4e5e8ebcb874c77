"""How to train: batch, schedule, optimizer, seed. A recipe and a corpus decide the weights.

A recipe is written into `run.json` beside the checkpoints, so that a run can be repeated.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from headwater.engine.errors import InputError

Schedule = Literal["constant", "linear", "cosine"]
Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True)
class Recipe:
    """How to train; every field has a sensible value.

    Args:
        epochs: passes over the corpus; may be a fraction. Ignored where `steps` is given.
        steps: optimizer steps, instead of epochs.
        batch_size: chunks (windows of documents) a step.
        learning_rate: the peak.
        schedule: after the warm-up: "constant", or falling to zero, "linear" or "cosine".
        warmup_steps: steps over which the rate rises linearly to the peak.
        optimizer: "adamw" or "sgd".
        betas, eps: AdamW's own.
        momentum: SGD's own.
        weight_decay: applied to matrices, never to biases and norms, as transformers.Trainer does.
        grad_clip: the greatest global gradient norm; None clips nothing.
        dropout: train with the model's dropout active; False trains in evaluation mode.
        seed: decides the order of the examples and the dropout masks.
        checkpoints: how many to keep, evenly spaced, the last one at the end.
        save_every: steps between checkpoints, instead of `checkpoints`; the end is kept too.

    Raises InputError for a value outside its range.
    """

    epochs: float = 1.0
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    warmup_steps: int = 0
    optimizer: Optimizer = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    grad_clip: float | None = 1.0
    dropout: bool = True
    seed: int = 0
    checkpoints: int = 1
    save_every: int | None = None

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "betas", tuple(self.betas))
        _require("epochs", self.epochs, self.epochs > 0, "a number above 0")
        _require("steps", self.steps, self.steps is None or self.steps > 0, "1 or more")
        _require("batch_size", self.batch_size, self.batch_size >= 1, "1 or more")
        rate = self.learning_rate
        _require("learning_rate", rate, 0 <= rate < math.inf, "a finite number, 0 or more")
        schedules = ("constant", "linear", "cosine")
        _require("schedule", self.schedule, self.schedule in schedules, ", ".join(schedules))
        _require("warmup_steps", self.warmup_steps, self.warmup_steps >= 0, "0 or more")
        _require("optimizer", self.optimizer, self.optimizer in ("adamw", "sgd"), "adamw, sgd")
        in_range = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _require("betas", self.betas, in_range, "two numbers in [0, 1)")
        _require("eps", self.eps, self.eps >= 0, "0 or more")
        _require("weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _require("momentum", self.momentum, 0 <= self.momentum < 1, "a number in [0, 1)")
        clip = self.grad_clip
        _require("grad_clip", clip, clip is None or clip > 0, "a number above 0, or None")
        _require("checkpoints", self.checkpoints, self.checkpoints >= 1, "1 or more")
        every = self.save_every
        _require("save_every", every, every is None or every >= 1, "1 or more")

    def total_steps(self, chunks: int) -> int:
        """Optimizer steps on that many chunks; the last batch of an epoch may be short."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.epochs * math.ceil(chunks / self.batch_size)))

    def learning_rate_at(self, step: int, total: int) -> float:
        """The learning rate used by the `step`-th of `total` steps, both counted from 1."""
        done = step - 1
        if done < self.warmup_steps:
            return self.learning_rate * (done + 1) / self.warmup_steps
        share = (done - self.warmup_steps) / max(1, total - self.warmup_steps)
        if self.schedule == "linear":
            return self.learning_rate * (1 - share)
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate

    def checkpoint_steps(self, total: int) -> list[int]:
        """The steps after which a checkpoint is kept, rising, the last of them `total`."""
        if self.save_every is not None:
            return sorted({*range(self.save_every, total + 1, self.save_every), total})
        count = min(self.checkpoints, total)
        return sorted({math.ceil(total * (i + 1) / count) for i in range(count)})

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Recipe:
        """The reverse of `to_json`; raises InputError for an unknown field."""
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError(
                "Unknown field in a recipe", expected=", ".join(sorted(known)), found=unknown[0]
            )
        return cls(**values)


def _require(name: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise InputError(f"Recipe field {name} is not usable", expected=expected, found=repr(value))
