"""LDS, its ceiling and its intervals: worked cases, scipy, and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from headwater.engine.errors import InputError
from headwater.evaluation.lds import ceiling, correlations, lds, summed

Array = np.ndarray[Any, Any]
TRIALS, DOCUMENTS, QUERIES = 40, 20, 5


def halves(random: np.random.Generator, trials: int = TRIALS) -> list[list[int]]:
    return [sorted(random.permutation(DOCUMENTS)[: DOCUMENTS // 2].tolist()) for _ in range(trials)]


def simulated(
    seed: int, noise: float, seeds: int = 2, trials: int = TRIALS
) -> tuple[Array, list[list[int]], Array]:
    """True effects, and losses that are their sums with noise of their own for each training."""
    random = np.random.default_rng(seed)
    effects = random.normal(size=(QUERIES, DOCUMENTS))
    out = halves(random, trials)
    clean = summed(effects, out)
    losses = clean[:, None, :] + noise * random.normal(size=(trials, seeds, QUERIES))
    return effects, out, losses


def test_the_effects_themselves_come_to_one_and_reversed_to_minus_one() -> None:
    effects, out, losses = simulated(0, 0.0)
    assert lds(effects, out, losses, resamples=20).value.value == pytest.approx(1)
    assert lds(-effects, out, losses, resamples=20).value.value == pytest.approx(-1)
    assert lds(effects, out, losses, resamples=20).share.value == pytest.approx(1)  # type: ignore[union-attr]


def test_each_query_is_scipys_rank_correlation() -> None:
    effects, out, losses = simulated(1, 2.0)
    made = lds(np.round(effects), out, losses, resamples=5)
    foretold = summed(np.round(effects), out)
    for number, value in enumerate(made.each):
        right = spearmanr(foretold[:, number], losses.mean(axis=1)[:, number]).statistic
        assert value == pytest.approx(right)
    assert made.value.value == pytest.approx(np.mean(made.each))


def test_rank_correlations_with_ties_are_scipys() -> None:
    random = np.random.default_rng(2)
    a, b = (
        random.integers(0, 4, (30, 6)).astype(float),
        random.integers(0, 4, (30, 6)).astype(float),
    )
    right = [spearmanr(a[:, i], b[:, i]).statistic for i in range(6)]
    np.testing.assert_allclose(correlations(a, b), right)


def test_the_ceiling_is_what_the_truth_reaches() -> None:
    """With much chance in a training, the true effects come to the ceiling, not to one."""
    reached, limits = [], []
    for seed in range(12):
        effects, out, losses = simulated(seed, 4.0, seeds=4, trials=200)
        reached.append(lds(effects, out, losses, resamples=2).value.value)
        limits.append(ceiling(losses))
    assert np.mean(reached) == pytest.approx(np.mean(limits), abs=0.02)
    assert np.mean(reached) < 0.95


def test_one_seed_has_no_ceiling() -> None:
    effects, out, losses = simulated(3, 1.0, seeds=1)
    made = lds(effects, out, losses, resamples=5)
    assert made.ceiling is None
    assert made.share is None


def test_random_scores_interval_holds_zero_as_often_as_it_says() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for seed in range(80):
        _, out, losses = simulated(seed, 1.0, trials=30)
        made = lds(random.normal(size=(QUERIES, DOCUMENTS)), out, losses, resamples=100, seed=seed)
        covered += made.value.low <= 0 <= made.value.high
    assert covered / 80 >= 0.92


def test_wrong_methods_are_caught() -> None:
    effects, out, losses = simulated(5, 1.0, trials=100)
    right = lds(effects, out, losses, resamples=100)
    permuted = effects[:, np.random.default_rng(0).permutation(DOCUMENTS)]
    for wrong in (-effects, permuted):
        assert lds(wrong, out, losses, resamples=100).value.high < right.value.low


def test_queries_without_variance_are_told_and_not_counted() -> None:
    effects, out, losses = simulated(6, 0.5)
    losses[:, :, 1] = 3.0
    effects[2] = 0.0
    made = lds(effects, out, losses, resamples=5)
    assert made.each[1] is None
    assert made.each[2] is None
    assert len(made.notes) == 2
    assert "losses" in made.notes[0]
    assert "scores" in made.notes[1]
    assert np.isfinite(made.value.value)


def test_bad_input_is_told() -> None:
    effects, out, losses = simulated(7, 0.5)
    with pytest.raises(InputError, match="too few trials"):
        lds(effects, out[:4], losses[:4])
    with pytest.raises(InputError, match="do not fit"):
        lds(effects, out, losses[:, :, :2])
    with pytest.raises(InputError, match="not finite"):
        lds(effects, out, np.full_like(losses, np.nan))
    with pytest.raises(InputError, match="No query"):
        lds(np.zeros_like(effects), out, losses)
