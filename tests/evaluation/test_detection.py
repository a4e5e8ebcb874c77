"""AUROC, AUPRC and the share found, against pairs counted by hand, and intervals by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.evaluation.detection import detection, figures

Array = np.ndarray[Any, Any]


def pairs(mine: Array, others: Array) -> float:
    return float(np.mean([(m > o) + (m == o) / 2 for m in mine for o in others]))


def precision(mine: Array, others: Array) -> float:
    """Average precision: at each threshold, the recall gained times the precision there."""
    both = np.concatenate([mine, others])
    total, before = 0.0, 0.0
    for threshold in sorted(set(both.tolist()), reverse=True):
        recall = float((mine >= threshold).mean())
        total += (recall - before) * float((mine >= threshold).sum() / (both >= threshold).sum())
        before = recall
    return total


values = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(values, values)
@settings(max_examples=150, deadline=None)
def test_figures_are_those_counted_by_hand(first: list[int], second: list[int]) -> None:
    mine, others = np.array(first, float), np.array(second, float)
    auroc, auprc, found = figures(mine, others)
    assert auroc == pytest.approx(pairs(mine, others))
    assert auprc == pytest.approx(precision(mine, others))
    assert 0 <= found <= 1


def test_a_worked_case() -> None:
    """Ranked: yes, no, yes, no ...; twenty rows, so two are inspected."""
    scores = np.arange(20, 0, -1.0)
    wanted = np.zeros(20, dtype=bool)
    wanted[[0, 2]] = True
    made = detection(scores, wanted, resamples=50)
    assert made.auroc.value == pytest.approx(1 - 1 / 36)
    assert made.auprc.value == pytest.approx((1 + 2 / 3) / 2)
    assert made.found.value == 0.5
    assert (made.rows, made.wanted) == (20, 2)


def test_a_tie_cut_by_the_budget_counts_in_parts() -> None:
    scores = np.ones(20)
    wanted = np.arange(20) < 5
    made = detection(scores, wanted, resamples=10)
    assert made.auroc.value == 0.5
    assert made.found.value == pytest.approx(0.1)


def test_intervals_cover_as_often_as_they_say() -> None:
    """The true AUROC of two normals one apart is Phi(1 / sqrt 2)."""
    random = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        scores = random.normal(size=300) + (np.arange(300) < 60)
        made = detection(scores, np.arange(300) < 60, resamples=200, seed=trial)
        covered += made.auroc.low <= 0.76025 <= made.auroc.high
    assert 0.90 <= covered / 200 <= 0.985


def test_several_searches_are_averaged() -> None:
    scores = [np.array([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0])]
    wanted = [np.array([True, False, False])] * 2
    made = detection(scores, wanted, resamples=10)
    assert made.auroc.value == 0.5
    assert made.rows == 6


def test_rows_without_a_score_take_no_part() -> None:
    scores = np.array([3.0, np.nan, 1.0, np.nan])
    made = detection(scores, np.array([True, True, False, False]), resamples=10)
    assert (made.rows, made.wanted, made.auroc.value) == (2, 1, 1.0)


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="both kinds"):
        detection(np.arange(3.0), np.zeros(3, dtype=bool))
    with pytest.raises(InputError, match="do not fit"):
        detection(np.arange(3.0), np.zeros(4, dtype=bool))
    with pytest.raises(InputError, match="no search"):
        detection([], [])
