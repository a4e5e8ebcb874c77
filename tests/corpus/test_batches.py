"""Batches hold each example once, keep the budget, and waste little."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.corpus.batches import batches_by_length, padding_share
from headwater.engine.errors import InputError

LENGTHS = st.lists(st.integers(1, 200), max_size=80)


@given(LENGTHS, st.integers(1, 1000), st.integers(1, 16))
def test_each_example_once_within_the_budget(lengths, budget, multiple):
    batches = batches_by_length(lengths, budget, multiple)
    flat = [index for batch in batches for index in batch]
    assert flat == sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    for batch in batches:
        longest = -(-lengths[batch[0]] // multiple) * multiple
        assert len(batch) == 1 or len(batch) * longest <= budget
    for batch, following in pairwise(batches):
        longest = -(-lengths[batch[0]] // multiple) * multiple
        assert (len(batch) + 1) * longest > budget, "a batch has room for the next"
        assert following


def test_padding_share():
    assert padding_share([4, 4], [[0, 1]]) == 0.0
    assert padding_share([4, 2], [[0, 1]]) == pytest.approx(0.25)
    assert padding_share([3], [[0]], multiple=4) == pytest.approx(0.25)
    assert padding_share([], []) == 0.0
    lengths = [1, 100] * 50
    in_order = [list(range(start, start + 10)) for start in range(0, 100, 10)]
    assert padding_share(lengths, batches_by_length(lengths, 1000)) < 0.1
    assert padding_share(lengths, in_order) > 0.4


@pytest.mark.parametrize(("lengths", "budget", "multiple"), [([0], 5, 1), ([1], 0, 1), ([1], 5, 0)])
def test_refuses(lengths, budget, multiple):
    with pytest.raises(InputError, match="at least 1"):
        batches_by_length(lengths, budget, multiple)
