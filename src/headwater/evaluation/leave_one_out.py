"""Exact leave-one-out of regularised regressions, and how near a method's scores come to it.

    effect(q, z) = loss of q at the optimum without z  -  loss of q at the optimum

Ridge has it in closed form; logistic regression is fitted again without each row, by Newton's
method from the whole optimum to convergence. The objective is 1/n sum of losses + penalty/2 |w|^2
without the last weight (the intercept); without a row, n stays what it was, so that leaving the row
out is the same as weighing it zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headwater.engine.bootstrap import RESAMPLES
from headwater.engine.errors import InputError, NumericError
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Figures, Scored
from headwater.evaluation.over_queries import mean

Array = np.ndarray[Any, Any]

STEPS, CONVERGED = 100, 1e-12


def penalty_of(width: int, penalty: float) -> Array:
    """The penalty's second derivative: none for the last weight, the intercept."""
    return np.diag([penalty] * (width - 1) + [0.0])


def ridge_fit(x: Array, y: Array, penalty: float, rows: int | None = None) -> Array:
    """Weights that minimise 1/rows sum 1/2 (x w - y)^2 + penalty/2 |w|^2."""
    n = rows or len(x)
    return np.linalg.solve(x.T @ x / n + penalty_of(x.shape[1], penalty), x.T @ y / n)


def ridge_effects(x: Array, y: Array, held_x: Array, held_y: Array, penalty: float) -> Array:
    """Exact effects, float64 [queries, rows], by the formula for a matrix less one row."""
    weights = ridge_fit(x, y, penalty)
    inverse = np.linalg.inv(x.T @ x / len(x) + penalty_of(x.shape[1], penalty)) / len(x)
    turned = x @ inverse  # [rows, features]
    leverage = (turned * x).sum(axis=1)
    residual = x @ weights - y
    # w without z is w + H^-1 x_z r_z / (n (1 - h_z))
    shift = held_x @ (turned * (residual / (1 - leverage))[:, None]).T
    before = held_x @ weights - held_y
    return ((before[:, None] + shift) ** 2 - before[:, None] ** 2) / 2


def logistic_fit(
    x: Array, y: Array, penalty: float, counts: Array | None = None, start: Array | None = None
) -> Array:
    """Weights that minimise 1/n sum counts log(1 + exp(-s x w)) + penalty/2 |w|^2, s = 2 y - 1.

    Raises:
        NumericError: when Newton's method does not converge.
    """
    known = np.ones(len(x)) if counts is None else counts
    weights = np.zeros(x.shape[1]) if start is None else start.copy()
    ridge = penalty_of(x.shape[1], penalty)
    for _ in range(STEPS):
        p = _sigmoid(x @ weights)
        slope = x.T @ (known * (p - y)) / len(x) + ridge @ weights
        curvature = (x * (known * p * (1 - p))[:, None]).T @ x / len(x) + ridge
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < CONVERGED * max(1.0, np.abs(weights).max()):
            return weights
    raise NumericError(
        "Newton's method did not converge", expected=f"a step below {CONVERGED}", do="add penalty"
    )


def logistic_effects(x: Array, y: Array, held_x: Array, held_y: Array, penalty: float) -> Array:
    """Exact effects, float64 [queries, rows], by one fit for each row."""
    whole = logistic_fit(x, y, penalty)
    before = logistic_losses(held_x, held_y, whole)
    made = np.empty((len(held_x), len(x)))
    for row in range(len(x)):
        counts = np.ones(len(x))
        counts[row] = 0
        without = logistic_fit(x, y, penalty, counts, whole)
        made[:, row] = logistic_losses(held_x, held_y, without) - before
    return made


def logistic_losses(x: Array, y: Array, weights: Array) -> Array:
    """-log p(y) of each row."""
    return np.logaddexp(0, (1 - 2 * y) * (x @ weights))


def first_order(gradients: Array, held: Array, x: Array, curvature: Array, penalty: float) -> Array:
    """The closed-form influence g_q^T H^-1 g_z / n, [queries, rows].

    Args:
        gradients, held: of the losses of rows and queries by the weights.
        curvature: the loss's second derivative by each row's output.
    """
    matrix = (x * curvature[:, None]).T @ x / len(x) + penalty_of(x.shape[1], penalty)
    return held @ np.linalg.solve(matrix, gradients.T) / len(x)


def _sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


class LeaveOneOut:
    """How near scores come to exact effects, over all rows, query by query.

    Args:
        effects: [queries, rows]. scale: what a method's scores are divided by to be changes of the
            loss; those not named are in a unit of their own, and have no relative error.
        resamples, seed: of the intervals over queries.
    """

    name = "leave-one-out"

    def __init__(
        self,
        effects: Array,
        scale: Mapping[str, float],
        *,
        label: str = "",
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.effects, self.scale, self.label = effects, dict(scale), label
        self.resamples, self.seed = resamples, seed

    @property
    def columns(self) -> Mapping[str, str]:
        """Correlation, slope and relative error."""
        return {
            "Pearson": "correlation with the exact effects, mean over queries; 1 is best",
            "slope": "of the exact effects on the scores, mean over queries; 1 is best",
            "relative error": "|scores - effects| / |effects| by query; lower is better",
        }

    def measure(self, scored: Scored) -> Figures:
        """The three figures."""
        given = np.asarray(scored.scores, np.float64)
        if given.shape != self.effects.shape:
            raise InputError(
                "Scores do not fit the effects", expected=self.effects.shape, found=given.shape
            )
        varies = (np.ptp(given, axis=1) > 0) & np.isfinite(given).all(axis=1)
        if not varies.any():
            return dict.fromkeys(self.columns, "the scores do not vary")
        a, b = given[varies], self.effects[varies]
        centred, true = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        product = (centred * true).sum(axis=1)
        pearson = product / np.sqrt((centred**2).sum(axis=1) * (true**2).sum(axis=1))
        made: dict[str, Estimate | str] = {"Pearson": self._mean(pearson)}
        unit = self.scale.get(scored.name)
        if unit is None:
            return made | dict.fromkeys(("slope", "relative error"), "in a unit of its own")
        made["slope"] = self._mean(unit * product / (centred**2).sum(axis=1))
        error = np.linalg.norm(a / unit - b, axis=1) / np.linalg.norm(b, axis=1)
        made["relative error"] = self._mean(error)
        return made

    def _mean(self, values: Array) -> Estimate | str:
        return mean(values, self.resamples, self.seed)

    def notes(self) -> list[str]:
        """How many effects."""
        queries, rows = self.effects.shape
        return [f"Leave-one-out: {rows} rows, {queries} queries, all effects exact."]
