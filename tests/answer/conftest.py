"""One index for all tests of answers."""

from __future__ import annotations

import pytest
from small_facts import FEATURES, corpus, task

import headwater as hw


@pytest.fixture(scope="session")
def index() -> hw.Index:
    """Of a model that has seen the corpus a few times: there is still something to learn."""
    return hw.Index.build(None, task(8), corpus(), FEATURES, hw.Plan(shard_rows=8))
