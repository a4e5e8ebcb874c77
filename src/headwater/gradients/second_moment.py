"""The optimizer's second moment V as a row and a column scaling of the gradient.

Adafactor's own form is `V = r c^T / mean(r)`, so `G / sqrt(V)` is `sqrt(mean r) r^-1/2 G c^-1/2`: a
scaling of the rows and one of the columns, which folds into the projections and costs nothing. Adam
keeps V whole; its row and column means are the factors closest to it in I-divergence. `exact` keeps
V whole here too: every gradient is then built and divided, which is slow.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import MismatchError

if TYPE_CHECKING:
    from headwater.gradients.parameters import Parameter

Array = np.ndarray[Any, Any]

FLOOR = 1e-8  # of a factor's mean: rows that never saw a gradient are not blown up
ADAM_EPS = 1e-8


@dataclass(frozen=True)
class SecondMoment:
    """Second moments by parameter name, oriented (out, in).

    Args:
        label: where it comes from ("adamw, step 1200", "estimated from 512 examples").
        factors: row [out] and column [in] means of V, float64.
        full: V itself [out, in], for the exact correction; empty when factored.
    """

    label: str
    factors: dict[str, tuple[Array, Array]]
    full: dict[str, Array] = field(default_factory=dict[str, Array])

    @property
    def digest(self) -> str:
        """A hash of the values: two states of one label are not the same."""
        digest = hashlib.sha256()
        for name in sorted(self.factors):
            values = [*self.factors[name], *([self.full[name]] if self.exact else [])]
            digest.update(name.encode())
            for value in values:
                digest.update(np.ascontiguousarray(value, dtype=np.float64).tobytes())
        return digest.hexdigest()[:16]

    @property
    def exact(self) -> bool:
        """Whether gradients are divided element by element."""
        return bool(self.full)

    def scales(self, parameter: Parameter) -> tuple[Array, Array]:
        """What multiplies the gradient's rows [out] and its columns [in], float64.

        Raises:
            MismatchError: when the state has no such parameter, or one of another shape.
        """
        row, column = self._checked(parameter)
        row = np.maximum(row, max(FLOOR * row.mean(), 1e-30))
        column = np.maximum(column, max(FLOOR * column.mean(), 1e-30))
        return np.sqrt(row.mean() / row), 1 / np.sqrt(column)

    def divisor(self, parameter: Parameter) -> Array:
        """`sqrt(V) + eps` [out, in], Adam's own form, float64."""
        self._checked(parameter)
        return np.sqrt(self.full[parameter.name]) + ADAM_EPS

    def _checked(self, parameter: Parameter) -> tuple[Array, Array]:
        found = self.factors.get(parameter.name)
        if found is None:
            raise MismatchError(
                f"The second moment has no state for {parameter.name}",
                expected="state for every attributed parameter",
                found=f"{len(self.factors)} others",
                do="attribute only parameters that were trained, or leave second_moment out",
            )
        row, column = found
        if (len(row), len(column)) != (parameter.rows, parameter.columns):
            raise MismatchError(
                f"The second moment of {parameter.name} has another shape",
                expected=(parameter.rows, parameter.columns),
                found=(len(row), len(column)),
            )
        return row, column


def factors_of(moment: Array) -> tuple[Array, Array]:
    """Row and column means of V [out, in], float64."""
    moment = np.asarray(moment, dtype=np.float64)
    return moment.mean(axis=1), moment.mean(axis=0)
