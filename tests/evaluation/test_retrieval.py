"""Retrieval metrics: worked by hand, then their properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.evaluation.retrieval import retrieval


def test_by_hand() -> None:
    ranked = [
        ["a", "x", "b", "c"],  # first gold at 1; of {a, b, z} two in the first 3
        ["x", "y", "w", "q"],  # first gold at 4, outside k = 3
        ["x", "y"],  # none in the list
        ["x", "r"],  # first gold at 2; the whole of {r}
    ]
    gold = [{"a", "b", "z"}, ["q"], {"n"}, ("r", "r")]
    found = retrieval(ranked, gold, k=3)
    assert found.mrr.value == pytest.approx((1 + 1 / 4 + 0 + 1 / 2) / 4)
    assert found.success.value == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert found.recall.value == pytest.approx((2 / 3 + 0 + 0 + 1) / 4)
    assert (found.k, found.queries) == (3, 4)


def test_success_is_not_recall() -> None:
    found = retrieval([["a", "x"]], [{"a", "b", "c", "d"}], k=2)
    assert found.success.value == 1.0
    assert found.recall.value == 0.25


def test_recall_counts_gold_beyond_k_as_missing() -> None:
    found = retrieval([["a", "b", "c"]], [{"a", "b", "c"}], k=2)
    assert found.recall.value == pytest.approx(2 / 3)


def test_interval_of_a_known_case() -> None:
    """Half of 100 queries found: the interval is that of a binomial, 0.5 +- 1.96 * 0.05."""
    ranked = [["g"] if i % 2 else ["x"] for i in range(100)]
    found = retrieval(ranked, [{"g"}] * 100, resamples=4000)
    assert found.success.value == 0.5
    assert found.success.low == pytest.approx(0.402, abs=0.015)
    assert found.success.high == pytest.approx(0.598, abs=0.015)


def test_same_queries_leave_no_doubt() -> None:
    found = retrieval([["x", "g"]] * 7, [{"g"}] * 7)
    assert (found.mrr.low, found.mrr.value, found.mrr.high) == (0.5, 0.5, 0.5)


def test_seed_decides_the_interval() -> None:
    random = np.random.Generator(np.random.PCG64(5))
    ranked = [[f"d{i}" for i in random.permutation(30)] for _ in range(20)]
    gold = [{"d0", "d1"}] * 20
    assert retrieval(ranked, gold, seed=3) == retrieval(ranked, gold, seed=3)
    assert retrieval(ranked, gold, seed=3) != retrieval(ranked, gold, seed=4)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.permutations(list("abcdefgh")), st.sets(st.sampled_from("abcdxy"), min_size=1)
        ),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 8),
)
def test_bounds(pairs: list[tuple[list[str], set[str]]], k: int) -> None:
    ranked, gold = [p[0] for p in pairs], [p[1] for p in pairs]
    found = retrieval(ranked, gold, k=k, resamples=50)
    wider = retrieval(ranked, gold, k=8, resamples=50)
    for estimate in (found.mrr, found.success, found.recall):
        assert 0 <= estimate.low <= estimate.high <= 1
        assert 0 <= estimate.value <= 1
    assert found.recall.value <= found.success.value + 1e-12
    assert found.success.value <= wider.success.value
    assert found.mrr == wider.mrr


@pytest.mark.parametrize(
    ("ranked", "gold", "options", "message"),
    [
        ([["a"]], [set()], {}, "Query 1 has no gold"),
        ([["a"]], [], {}, "do not pair up"),
        ([], [], {}, "do not pair up"),
        ([["a", "a"]], [{"a"}], {}, "more than once"),
        (["abc"], [{"a"}], {}, "one string"),
        ([["a"]], [{"a"}], {"k": 0}, "1 or more"),
        ([["a"]], [{"a"}], {"resamples": 0}, "1 or more"),
    ],
)
def test_refuses(ranked: list, gold: list, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        retrieval(ranked, gold, **options)
