"""A trainer without a model: what it gives is a known function of what is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from headwater.evaluation.bank import Trial

Array = np.ndarray[Any, Any]


class Known:
    """loss = start + the sum of the effects left out + noise; margin = room - that sum.

    `trials` notes every training, in its order.
    """

    fields: ClassVar = {"loss": "losses", "margin": "margins", "answer": "answers (known)"}

    def __init__(
        self,
        effects: Array,
        *,
        room: Sequence[float] | None = None,
        noise: float = 0.0,
        answer: Callable[[Trial], list[Any]] | None = None,
    ) -> None:
        self.effects, self.noise, self.answer = np.asarray(effects, float), noise, answer
        self.room = np.full(len(effects), 1.0) if room is None else np.asarray(room, float)
        self.trials: list[Trial] = []

    @property
    def documents(self) -> int:
        return self.effects.shape[1]

    def describe(self) -> dict[str, Any]:
        return {"trainer": "known", "effects": self.effects.tolist(), "noise": self.noise}

    def asked(self) -> list[str]:
        return [f"q{number}" for number in range(len(self.effects))]

    def losses(self, trial: Trial) -> list[float]:
        return self.measured(trial)["loss"]

    def measured(self, trial: Trial) -> dict[str, list[Any]]:
        self.trials.append(trial)
        gone = self.effects[:, list(trial.left_out)].sum(axis=1)
        fixed = 7.0 if trial.kind == "fixed" and trial.left_out else 0.0
        random = np.random.default_rng([trial.seed, *trial.left_out])
        chance = self.noise * random.normal(size=len(gone))
        found: dict[str, list[Any]] = {
            "loss": (10.0 * trial.seed + gone + chance + fixed).tolist(),
            "margin": (self.room - gone + chance).tolist(),
        }
        found["answer"] = [None] * len(gone) if self.answer is None else self.answer(trial)
        return found
