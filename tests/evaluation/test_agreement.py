"""Agreement with gold scores: scipy, hand-worked overlaps, ties, and what cannot be counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from headwater.engine.errors import InputError
from headwater.evaluation.agreement import Agreement, agreement
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Scored

Array = np.ndarray[Any, Any]


def value(figure: Estimate | str) -> float:
    assert isinstance(figure, Estimate), figure
    assert figure.low <= figure.value <= figure.high
    return figure.value


def drawn(seed: int = 0, noise: float = 1.0) -> tuple[Array, Array]:
    random = np.random.default_rng(seed)
    gold = random.normal(size=(6, 30))
    return gold + noise * random.normal(size=gold.shape), gold


def test_correlations_are_scipys() -> None:
    scores, gold = drawn()
    scores = np.round(scores)  # with ties
    made = agreement(scores, gold, 5)
    for q, one in enumerate(made.each):
        assert one is not None
        assert one[0] == pytest.approx(spearmanr(scores[q], gold[q]).statistic)
        assert one[1] == pytest.approx(pearsonr(scores[q], gold[q]).statistic)
    each = np.array(made.each)
    assert value(made.spearman) == pytest.approx(each[:, 0].mean())
    assert value(made.pearson) == pytest.approx(each[:, 1].mean())
    assert value(made.overlap) == pytest.approx(each[:, 2].mean())


def test_overlap_worked_by_hand() -> None:
    gold = np.array([[5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5.0]])
    scores = np.array([[5.0, 0, 4, 3, 1, 2], [5, 4, 3, 2, 1, 0.0]])
    made = agreement(scores, gold, 3)
    assert [one[2] for one in made.each if one] == [2 / 3, 0.0]
    assert agreement(gold, gold, 3).overlap == Estimate(1.0, 1.0, 1.0)
    assert value(agreement(-gold, gold, 3).spearman) == -1


def test_what_has_no_score_takes_no_part() -> None:
    scores, gold = drawn()
    scores[0, :10], gold[0, 5:15] = np.nan, np.nan
    made = agreement(scores, gold, 4)
    assert made.each[0] is not None
    assert made.each[0][0] == pytest.approx(spearmanr(scores[0, 15:], gold[0, 15:]).statistic)
    first = set((15 + np.argsort(-scores[0, 15:])[:4]).tolist())
    other = set((15 + np.argsort(-gold[0, 15:])[:4]).tolist())
    assert made.each[0][2] == len(first & other) / 4


def test_two_sides_that_tell_little_apart_overlap_by_chance_only() -> None:
    flat = np.zeros((40, 100))
    flat[:, 0] = -1  # not constant, all the rest tied
    made = agreement(flat, flat, 10)
    assert value(made.overlap) < 0.3


def test_what_cannot_be_counted_is_told() -> None:
    scores, gold = drawn()
    scores[0], gold[1], scores[2] = 1.0, 2.0, np.nan
    made = agreement(scores, gold, 5)
    assert [one is None for one in made.each] == [True] * 3 + [False] * 3
    assert made.queries == 3
    assert "its scores do not vary" in made.notes[0]
    assert "gold's scores do not vary" in made.notes[1]
    assert "0 documents" in made.notes[2]
    nothing = agreement(np.full_like(gold, np.nan), gold, 5)
    assert nothing.spearman == nothing.overlap == "no query could be counted"
    with pytest.raises(InputError, match="do not fit"):
        agreement(scores[:, :4], gold, 2)
    with pytest.raises(InputError, match="no query"):
        agreement(scores[:0], gold[:0], 2)
    for k in (0, 30):
        with pytest.raises(InputError, match="k is not"):
            agreement(scores, gold, k)


def test_as_a_metric() -> None:
    scores, gold = drawn()
    metric = Agreement(gold[[1, 4]], 5, queries=[1, 4])
    found = metric.measure(Scored("own", "Own", scores.astype(np.float32)))
    assert list(found) == list(metric.columns) == ["rank", "linear", "top-5"]
    right = np.mean([spearmanr(scores[q], gold[q]).statistic for q in (1, 4)])
    assert value(found["rank"]) == pytest.approx(right, abs=1e-6)
    assert metric.name == "magic"
    assert metric.describe() != Agreement(-gold[[1, 4]], 5, queries=[1, 4]).describe()
    wrong = Agreement(gold).measure(Scored("flipped", "Flipped", -gold.astype(np.float32)))
    assert value(wrong["rank"]) == pytest.approx(-1)
