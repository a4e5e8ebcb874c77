"""The metrics as boards take them, and the exact references that boards are judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import spearmanr

import headwater as hw
import small_net
from headwater.curvature.damping import AbsoluteDamping, RelativeDamping
from headwater.engine.errors import InputError, NumericError
from headwater.evaluation import leave_one_out as exact
from headwater.evaluation.detection import DetectionMetric, detection
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.exact import GaussNewton, of_squares
from headwater.evaluation.lds import lds, lds_difference, summed
from headwater.evaluation.leave_one_out import LeaveOneOut
from headwater.evaluation.metric import Scored
from headwater.evaluation.own_loss import OwnLoss
from headwater.evaluation.retrieval import RetrievalMetric

Array = np.ndarray[Any, Any]


def scored(scores: Array, own: Array | None = None, name: str = "one") -> Scored:
    return Scored(name, name, scores, None if own is None else lambda: own)


# -- LDS ---------------------------------------------------------------------------------


def world(seed: int = 0, noise: float = 1.0) -> tuple[Array, list[list[int]], Array]:
    random = np.random.default_rng(seed)
    effects = random.normal(size=(6, 20))
    out = [sorted(random.permutation(20)[:10].tolist()) for _ in range(30)]
    clean = summed(effects, out)
    return effects, out, clean[:, None] + noise * random.normal(size=(30, 2, 6))


def test_a_difference_is_the_difference_of_the_two() -> None:
    effects, out, losses = world()
    worse = effects + np.random.default_rng(1).normal(size=effects.shape)
    one, other = (lds(s, out, losses, resamples=5).value.value for s in (effects, worse))
    found = lds_difference(effects, worse, out, losses, resamples=200)
    assert found.value == pytest.approx(other - one)
    assert found.high < 0


def test_paired_draws_tell_apart_what_single_intervals_do_not() -> None:
    effects, out, losses = world(noise=4.0)
    worse = effects + 0.5 * np.random.default_rng(1).normal(size=effects.shape)
    one, other = (lds(s, out, losses, resamples=300).value for s in (effects, worse))
    found = lds_difference(effects, worse, out, losses, resamples=300)
    assert other.high > one.low  # they overlap
    assert found.high - found.low < (one.high - one.low) * 0.9


def test_a_difference_counts_queries_that_both_score() -> None:
    effects, out, losses = world()
    half = effects.copy()
    half[3:] = np.nan
    found = lds_difference(half, effects, out, losses, resamples=20)
    assert found.value == pytest.approx(0)
    with pytest.raises(InputError, match="under both"):
        lds_difference(np.zeros_like(effects), effects, out, losses)


def test_the_interval_is_that_of_ranking_drawn_rows_again() -> None:
    """The fast way by counts, against sorting every draw; with ties in scores and losses."""
    effects, out, losses = world()
    effects, losses = np.round(effects), np.round(losses)
    found = lds(effects, out, losses, resamples=40, seed=3)
    foretold, known = summed(effects, out), losses.mean(axis=1)
    random = np.random.Generator(np.random.PCG64(3))
    draws = []
    for _ in range(40):
        rows, some = random.integers(0, 30, 30), random.integers(0, 6, 6)
        each = [spearmanr(foretold[rows, q], known[rows, q]).statistic for q in some]
        draws.append(np.mean(each))
    low, high = np.percentile(draws, [2.5, 97.5])
    assert (found.value.low, found.value.high) == pytest.approx((low, high))


# -- detection and retrieval -------------------------------------------------------------


def test_detection_reads_self_influence() -> None:
    wanted = np.arange(50) < 10
    own = np.random.default_rng(0).normal(size=50) + 2 * wanted
    metric = DetectionMetric(wanted, (0.1, 0.2), resamples=50)
    found = metric.measure(scored(np.zeros((1, 50)), own))
    right = detection(own, wanted, resamples=50)
    assert isinstance(found["AUROC"], Estimate)
    assert isinstance(found["found in 20%"], Estimate)
    assert found["AUROC"].value == right.auroc.value
    assert found["AUPRC"] == right.auprc
    best = np.argsort(-own)[:10]
    assert found["found in 20%"].value == pytest.approx(wanted[best].sum() / 10)
    none = metric.measure(scored(np.zeros((1, 50))))
    assert set(none.values()) == {"has no self-influence"}


def test_retrieval_ranks_all_documents() -> None:
    ids = ["b", "a", "c", "d"]
    metric = RetrievalMetric(ids, [["a"], ["d"]], k=2)
    scores = np.array([[1.0, 1.0, 0.0, np.nan], [3.0, 2.0, 1.0, np.nan]])
    assert metric.ranked(scores) == [["a", "b", "c"], ["b", "a", "c"]]  # ties by id, NaN nowhere
    found = metric.measure(scored(scores))
    assert isinstance(found["MRR"], Estimate)
    assert found["MRR"].value == 0.5
    assert found["success@2"].value == 0.5  # type: ignore[union-attr]


# -- exact Gauss-Newton ------------------------------------------------------------------


def logits(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    return model(batch["x"])


def by_hand(task: hw.Task, damping: Any) -> tuple[Array, Array, Array]:
    """The damped matrix, gradients of the rows, and of the queries: one Jacobian row at a time."""
    data = small_net.rows()
    model, names = task.model, [name for name, _ in task.model.named_parameters()]
    parameters = list(model.parameters())

    def flat(value: torch.Tensor) -> torch.Tensor:
        made = torch.autograd.grad(value, parameters, retain_graph=True)
        return torch.cat([one.reshape(-1) for one in made])

    total, gradients = 0.0, []
    for p in parameters:
        p.requires_grad_(True)
    for x, y in zip(data["x"], data["y"], strict=True):
        out = model(torch.as_tensor(x)[None])[0]
        p = torch.softmax(out, dim=0).detach()
        rows = torch.stack([flat(value) for value in out])
        total = total + rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows
        gradients.append(flat(-torch.log_softmax(out, dim=0)[int(y)]))
    matrix = total / len(data["x"])  # type: ignore[operator]
    added, place = torch.zeros(len(matrix), dtype=torch.float64), 0
    layers: dict[str, list[int]] = {}
    for name, p in zip(names, parameters, strict=True):
        places = list(range(place, place + p.numel()))
        layers.setdefault(name.split(".")[0], []).extend(places)
        place += p.numel()
    for places in layers.values():
        added[places] = damping.of(float(matrix.diagonal()[places].mean()))
    return (matrix + torch.diag(added)).numpy(), torch.stack(gradients).numpy(), added.numpy()


@pytest.mark.parametrize("damping", [RelativeDamping(0.1), AbsoluteDamping(0.05)])
def test_gauss_newton_is_the_dense_matrix(damping: Any) -> None:
    task, data = small_net.task(), small_net.rows()
    index = hw.Index.build(None, task, hw.Corpus.from_columns(data), None)
    queries = [
        hw.Query(columns={"x": data["x"][i], "y": data["y"][i - 1]}) for i in range(len(data["x"]))
    ]
    found = hw.scores(index, queries, method=GaussNewton(logits, damping))
    model = task.model
    state = [p.requires_grad for p in model.parameters()]
    matrix, g, _ = by_hand(small_net.task(), damping)
    other = small_net.task()
    gq = []
    for query in queries:
        assert query.columns is not None
        x, y = (torch.as_tensor(np.asarray(query.columns[k]))[None] for k in "xy")
        value = small_net.loss(other.model, {"x": x, "y": y}).sum()
        made = torch.autograd.grad(value, list(other.model.parameters()))
        gq.append(torch.cat([one.reshape(-1) for one in made]).numpy())
    right = np.stack(gq) @ np.linalg.solve(matrix, g.T)
    assert np.linalg.norm(found - right) < 1e-6 * np.linalg.norm(right)
    own = GaussNewton(logits, damping).self_influence(index)
    np.testing.assert_allclose(own, (g * np.linalg.solve(matrix, g.T).T).sum(axis=1), rtol=1e-5)
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == state


def test_gauss_newton_without_damping_has_no_inverse() -> None:
    index = hw.Index.build(None, small_net.task(), hw.Corpus.from_columns(small_net.rows()), None)
    query = hw.Query(columns={"x": small_net.rows()["x"][0], "y": 1})
    with pytest.raises(NumericError, match="zero curvature"):
        hw.scores(index, query, method=GaussNewton(logits, 0.0))


def test_gauss_newton_is_for_small_models() -> None:
    model = torch.nn.Linear(100, 100)
    task = hw.Task(model, lambda m, b: m(b["x"]).sum(dim=1))
    corpus = hw.Corpus.from_columns({"x": np.zeros((2, 100), np.float32)})
    index = hw.Index.build(None, task, corpus, None)
    query = hw.Query(columns={"x": np.zeros(100, np.float32)})
    with pytest.raises(InputError, match="too large"):
        hw.scores(index, query, method=GaussNewton(logits))


def test_own_loss_is_the_loss(tmp_path: Path) -> None:
    task, data = small_net.task(), small_net.rows()
    index = hw.Index.build(tmp_path, task, hw.Corpus.from_columns(data), None)
    batch = {name: torch.as_tensor(value) for name, value in data.items()}
    right = small_net.loss(task.model, batch).detach().numpy()
    query = hw.Query(columns={"x": data["x"][0], "y": data["y"][0]})
    found = hw.scores(index, [query, query], method=OwnLoss())
    np.testing.assert_allclose(found, np.stack([right, right]), rtol=1e-6)


# -- exact leave-one-out -----------------------------------------------------------------


def regression(seed: int = 0) -> tuple[Array, Array, Array, Array]:
    random = np.random.default_rng(seed)
    x = np.concatenate([random.normal(size=(25, 3)), np.ones((25, 1))], axis=1)
    y = x @ [1.0, -1.0, 0.5, 0.2] + random.normal(size=25)
    return x[:20], y[:20], x[20:], y[20:]


def test_ridge_effects_are_those_of_fitting_again() -> None:
    x, y, held_x, held_y = regression()
    found = exact.ridge_effects(x, y, held_x, held_y, 0.1)
    whole = exact.ridge_fit(x, y, 0.1)
    for row in range(20):
        kept = np.arange(20) != row
        without = exact.ridge_fit(x[kept], y[kept], 0.1, rows=20)
        change = ((held_x @ without - held_y) ** 2 - (held_x @ whole - held_y) ** 2) / 2
        np.testing.assert_allclose(found[:, row], change, rtol=1e-9)


def test_logistic_effects_are_those_of_another_optimizer() -> None:
    x, y, held_x, held_y = regression()
    y, held_y = (y > 0).astype(float), (held_y > 0).astype(float)
    found = exact.logistic_effects(x, y, held_x, held_y, 0.1)

    def fit(kept: Array) -> Array:
        def objective(w: Array) -> float:
            losses = exact.logistic_losses(x[kept], y[kept], w)
            return float(losses.sum() / 20 + 0.05 * (w[:-1] ** 2).sum())

        return minimize(objective, np.zeros(4), method="BFGS", options={"gtol": 1e-9}).x

    whole = exact.logistic_losses(held_x, held_y, fit(np.ones(20, bool)))
    for row in (0, 7):
        without = exact.logistic_losses(held_x, held_y, fit(np.arange(20) != row))
        np.testing.assert_allclose(found[:, row], without - whole, atol=2e-6)


def test_first_order_is_the_derivative_by_a_rows_weight() -> None:
    x, y, held_x, held_y = regression()
    y, held_y = (y > 0).astype(float), (held_y > 0).astype(float)
    w = exact.logistic_fit(x, y, 0.1)
    p, q = 1 / (1 + np.exp(-x @ w)), 1 / (1 + np.exp(-held_x @ w))
    found = exact.first_order(
        x * (p - y)[:, None], held_x * (q - held_y)[:, None], x, p * (1 - p), 0.1
    )
    for row in (2, 11):
        counts = np.ones(20)
        moved = []
        for sign in (1, -1):
            counts[row] = 1 - sign * 1e-5
            fit = exact.logistic_fit(x, y, 0.1, counts, w)
            moved.append(exact.logistic_losses(held_x, held_y, fit))
        np.testing.assert_allclose(found[:, row], (moved[0] - moved[1]) / 2e-5, rtol=1e-5)


def test_agreement_with_exact_effects() -> None:
    effects = np.random.default_rng(0).normal(size=(5, 30))
    metric = LeaveOneOut(effects, {"one": 10.0})
    found = metric.measure(scored(10 * effects))
    values = [one.value for one in found.values() if isinstance(one, Estimate)]
    assert values == pytest.approx([1, 1, 0])
    double = metric.measure(scored(20 * effects))
    assert double["slope"].value == pytest.approx(0.5)  # type: ignore[union-attr]
    assert double["relative error"].value == pytest.approx(1)  # type: ignore[union-attr]
    other = metric.measure(scored(effects, name="another"))
    assert other["slope"] == "in a unit of its own"
    still = metric.measure(scored(np.ones((5, 30))))
    assert still["Pearson"] == "the scores do not vary"
    with pytest.raises(InputError, match="do not fit"):
        metric.measure(scored(effects[:, :4]))


def test_squares_have_the_identity() -> None:
    np.testing.assert_array_equal(of_squares(torch.zeros(3, 2)), np.stack([np.eye(2)] * 3))
