"""linear: ridge and logistic regression, whose leave-one-out is known exactly.

Nothing here is left to chance or to an optimizer, so a method is judged by its formula alone: does
it give the change of a query's loss, and in the right unit? The two regressions are two boards
that stand side by side in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.corpus import Corpus
from headwater.curvature.damping import AbsoluteDamping
from headwater.engine.errors import InputError
from headwater.evaluation import leave_one_out as exact
from headwater.evaluation.board import Board, Finding, Setting, board, joined
from headwater.evaluation.candidates import Candidate
from headwater.evaluation.exact import GaussNewton, of_softmax, of_squares
from headwater.evaluation.own_loss import OwnLoss
from headwater.evaluation.presets import common as c
from headwater.evidence.random_scores import Random
from headwater.gradients.features import Features
from headwater.methods.datainf import DataInf
from headwater.methods.ekfac import EKFAC, KFAC
from headwater.methods.grad_cos import GradCos
from headwater.methods.grad_dot import GradDot
from headwater.methods.logra import LoGra
from headwater.methods.method import Method, Scores
from headwater.tasks.query import Query
from headwater.tasks.task import Task

if TYPE_CHECKING:
    import torch

    from headwater.evaluation.metric import Figures, Scored
    from headwater.evaluation.presets.common import Array, Asked
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.task import Batch

PENALTY = 1e-2  # of lambda/2 |w|^2 beside the mean loss; the intercept has none
ROWS, TINY_ROWS, QUERIES, TINY_QUERIES = 400, 60, 40, 8
KINDS = ("ridge", "logistic")


@dataclass(frozen=True)
class Problem:
    """A regression at its optimum.

    Args:
        x: float64 [rows, features + 1], the last column ones. y: targets. held_x, held_y: queries.
        weights: the optimum. effects: exact, [queries, rows]. influence: closed form.
    """

    kind: str
    source: str
    x: Array
    y: Array
    held_x: Array
    held_y: Array
    weights: Array
    effects: Array
    influence: Array


def problem(kind: str, asked: Asked) -> Problem:
    """The regression, fitted, with all that is known of it exactly."""
    source = "load_diabetes" if kind == "ridge" else "load_breast_cancer"
    rows, queries = (TINY_ROWS, TINY_QUERIES) if asked.tiny else (ROWS, QUERIES)
    x, y, held_x, held_y = _data(source, rows, queries, asked.seed)
    if kind == "ridge":
        weights = exact.ridge_fit(x, y, PENALTY)
        effects = exact.ridge_effects(x, y, held_x, held_y, PENALTY)
        curvature = np.ones(len(x))
        slopes, held = x @ weights - y, held_x @ weights - held_y
    else:
        weights = exact.logistic_fit(x, y, PENALTY)
        effects = exact.logistic_effects(x, y, held_x, held_y, PENALTY)
        p, p_held = (1 / (1 + np.exp(-one @ weights)) for one in (x, held_x))
        curvature, slopes, held = p * (1 - p), p - y, p_held - held_y
    influence = exact.first_order(
        x * slopes[:, None], held_x * held[:, None], x, curvature, PENALTY
    )
    return Problem(kind, source, x, y, held_x, held_y, weights, effects, influence)


def _data(source: str, rows: int, queries: int, seed: int) -> tuple[Array, Array, Array, Array]:
    """Standardised columns and targets (classes stay as they are), and a column of ones."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "The data are scikit-learn's, which is not installed",
            do='install it with: pip install "headwater[evaluate]"',
        ) from error
    held: Any = getattr(datasets, source)()
    chosen = np.random.Generator(np.random.PCG64(seed)).permutation(len(held.target))
    chosen = chosen[: rows + queries]
    x = np.asarray(held.data, np.float64)[chosen]
    y = np.asarray(held.target, np.float64)[chosen]
    x = (x - x[:rows].mean(axis=0)) / x[:rows].std(axis=0)
    if set(np.unique(y)) != {0.0, 1.0}:
        y = (y - y[:rows].mean()) / y[:rows].std()
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    return x[:rows], y[:rows], x[rows:], y[rows:]


class ClosedForm(Method):
    """The regression's own first-order influence, g_q^T H^-1 g_z / n, worked out beforehand."""

    name, title, unit, additive = "closed-form", "Influence, closed form", "change of loss", True
    needs = "a regression at its optimum"

    def __init__(self, values: Array) -> None:
        self.values = values

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """All scores in one block."""
        block = self.values[: len(queries)].astype(np.float32)
        if among is not None:
            block = np.where(np.asarray(among, dtype=bool), block, np.float32(np.nan))
        yield 0, block


def setting(asked: Asked, kind: str) -> Setting:
    """The setting of one of the two."""
    it = problem(kind, asked)
    task = _task(it)
    corpus = Corpus.from_columns(
        {"x": it.x[:, :-1], "y": _target(it.y, kind)}, ids=[f"row-{i}" for i in range(len(it.x))]
    )
    held_y = _target(it.held_y, kind)
    queries = [
        Query(columns={"x": x[:-1], "y": y}, name=f"held-out-{i}")
        for i, (x, y) in enumerate(zip(it.held_x, held_y, strict=True))
    ]
    n = float(len(it.x))
    scale = {"closed-form": 1.0, "gauss-newton": n, "ekfac": n, "kfac": n, "datainf": n}
    metric = exact.LeaveOneOut(it.effects, scale, seed=asked.seed)
    recipe = {
        "kind": kind,
        "data": f"scikit-learn {it.source}, {len(it.x)} rows, {len(queries)} queries, standardised",
        "penalty": f"{PENALTY} / 2 |w|^2 beside the mean loss; none for the intercept",
        "damping": "the penalty, for Gauss-Newton, EK-FAC and K-FAC",
    }
    return Setting(
        f"linear {kind}",
        {"preset": "linear", "scale": asked.scale, "seed": asked.seed, **recipe},
        asked.cache,
        task,
        corpus,
        queries,
        asked.chosen_methods(_methods(asked, it), _controls(asked.seed)),
        asked.chosen_metrics([metric]),
        recipe,
        None,
        None,
        partial(_findings, kind),
    )


def preset(asked: Asked) -> Board:
    """Both regressions, side by side."""
    return joined("linear", {kind: board(setting(asked, kind)) for kind in KINDS})


def _target(y: Array, kind: str) -> Array:
    return y if kind == "ridge" else y.astype(np.int64)


def _task(it: Problem) -> Task:
    """A linear layer at the optimum; of two classes, the first one's logit is always 0."""
    import torch

    model = torch.nn.Linear(it.x.shape[1] - 1, 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(it.weights[None, :-1]))
        model.bias.copy_(torch.as_tensor(it.weights[-1:]))
    if it.kind == "ridge":
        return Task(model, _squares, sample=_drawn_squares)
    return Task(model, _cross_entropy, sample=_drawn_classes)


def _output(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return model(batch["x"])


def _two_logits(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    import torch

    made = _output(model, batch)
    return torch.cat([torch.zeros_like(made), made], dim=1)


def _squares(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    return (_output(model, batch)[:, 0] - batch["y"]) ** 2 / 2


def _cross_entropy(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    import torch

    return torch.nn.functional.cross_entropy(
        _two_logits(model, batch), batch["y"], reduction="none"
    )


def _drawn_squares(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    import torch

    made = _output(model, batch)[:, 0]
    noise = torch.randn(made.shape, generator=generator, dtype=made.dtype)
    return {**batch, "y": made + noise}


def _drawn_classes(model: torch.nn.Module, batch: Batch, generator: torch.Generator) -> Batch:
    import torch

    p = _two_logits(model, batch).softmax(dim=1)
    return {**batch, "y": torch.multinomial(p, 1, generator=generator)[:, 0]}


def _methods(asked: Asked, it: Problem) -> list[Candidate]:
    damping, seed = AbsoluteDamping(PENALTY), asked.seed
    logits, output = (_output, of_squares) if it.kind == "ridge" else (_two_logits, of_softmax)
    full = Features(projection=None, storage="float32")

    def newton() -> GaussNewton:
        return GaussNewton(logits, damping, output)

    return [
        Candidate("closed-form", ClosedForm.title, lambda: ClosedForm(it.influence)),
        Candidate("gauss-newton", "Gauss-Newton, exact", newton),
        Candidate("ekfac", "EK-FAC", lambda: EKFAC(damping=damping, seed=seed)),
        Candidate("kfac", "K-FAC", lambda: KFAC(damping=damping, seed=seed)),
        Candidate("datainf", "DataInf", lambda: DataInf(examples=None, seed=seed)),
        Candidate("logra", "LoGra", LoGra, features=full),
        Candidate("graddot", "GradDot", GradDot, features=full),
        Candidate("gradcos", "GradCos", GradCos, features=full),
    ]


def _controls(seed: int) -> list[Candidate]:
    return [
        Candidate("loss", "Loss", OwnLoss),
        Candidate("random", "Random", lambda: Random(seed)),
    ]


def _findings(
    kind: str, scored: Mapping[str, Scored], figures: Mapping[str, Figures]
) -> list[Finding]:
    """What is claimed of a regression."""
    claim = f"{kind}: no method comes nearer to the exact effects than the closed form"
    errors = {name: c.figure(figures, name, "relative error") for name in figures}
    known = {name: one for name, one in errors.items() if one is not None}
    best = min(known, key=lambda name: known[name].value, default=None)
    own = known.get("closed-form")
    nearest = Finding(claim, None, "no figure")
    if own is not None and best is not None:
        told = f"relative error {c.shown(own)}; the least is {best}'s, {c.shown(known[best])}"
        clear = best == "closed-form" or known[best].high < own.low
        nearest = Finding(claim, best == "closed-form" if clear else None, told)
    return [nearest, c.contains_zero(figures, "Pearson", f"{kind}: Pearson")]
