"""The bootstrap against one that copies the groups it draws, and against the normal interval."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.engine.bootstrap import interval, redrawn


def test_sums_are_spread_as_those_of_copied_groups() -> None:
    values = np.random.default_rng(0).exponential(1, (30, 2))
    found = redrawn(values, 4000, seed=1)
    assert found.shape == (4000, 2)
    places = np.random.default_rng(2).integers(0, 30, (4000, 30))
    naive = values[places].sum(axis=1)
    np.testing.assert_allclose(found.mean(axis=0), values.sum(axis=0), rtol=0.01)
    np.testing.assert_allclose(np.cov(found.T), np.cov(naive.T), atol=0.1 * naive.var())
    assert np.array_equal(redrawn(values, 4000, seed=1), found)
    assert not np.array_equal(redrawn(values, 4000, seed=2), found)


def test_the_interval_holds_95_percent() -> None:
    draws = np.random.default_rng(0).normal(5, 2, (20_000, 3))
    low, high = interval(draws)
    assert low == pytest.approx([5 - 1.96 * 2] * 3, abs=0.1)
    assert high == pytest.approx([5 + 1.96 * 2] * 3, abs=0.1)
