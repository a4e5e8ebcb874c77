"""How much is added to curvature before it is inverted.

An inverse weighs most what was measured worst, the directions of least curvature; damping says how
far they are believed. A number is absolute, in the curvature's own unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from headwater.engine.checks import at_least_zero, finite
from headwater.engine.errors import InputError


@dataclass(frozen=True)
class RelativeDamping:
    """This share of the mean eigenvalue of each layer (Grosse et al. 2023 take 0.1)."""

    share: float = 0.1

    def __post_init__(self) -> None:
        """Check the share."""
        object.__setattr__(self, "share", at_least_zero("the damping's share", self.share))

    def of(self, mean: float) -> float:
        """What is added to eigenvalues of this mean."""
        return self.share * mean


@dataclass(frozen=True)
class ScheduleDamping:
    """1 / (sum of the learning rates of a training): what training for so long does by itself.

    Approximate unrolling with one segment comes close to an inverse damped so (Bae et al. 2024).
    The curvature must then be that of the loss the optimizer saw: `scale` is what its loss divides
    the sum over a batch's examples by, per example (tokens of an example, for a mean over tokens).

    Args:
        learning_rates: of every step. scale: see above.
    """

    learning_rates: Sequence[float]
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the rates."""
        total = math.fsum(finite("a learning rate", rate) for rate in self.learning_rates)
        if not 0 < total < math.inf:
            raise InputError(
                "The learning rates have no sum", expected="rates of every step", found=total
            )
        object.__setattr__(self, "scale", at_least_zero("the damping's scale", self.scale))

    def of(self, mean: float) -> float:
        """What is added, whatever the eigenvalues are."""
        return self.scale / math.fsum(self.learning_rates)


@dataclass(frozen=True)
class AbsoluteDamping:
    """The same number for every layer."""

    value: float

    def __post_init__(self) -> None:
        """Check the number."""
        object.__setattr__(self, "value", at_least_zero("damping", self.value))

    def of(self, mean: float) -> float:
        """The number."""
        return self.value


Damping = RelativeDamping | ScheduleDamping | AbsoluteDamping


def damping_of(given: float | Damping) -> Damping:
    """A number as `AbsoluteDamping`; the others as they are.

    Raises:
        InputError: for what is neither.
    """
    if isinstance(given, (RelativeDamping, ScheduleDamping, AbsoluteDamping)):
        return given
    return AbsoluteDamping(given)
