"""Kept curvature is found again for the same task alone, by what its functions do."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import headwater as hw
from headwater.index import kept_factors
from small_net import Net, loss, rows, sample

N = 12


def tenfold(model: Any, batch: Any) -> torch.Tensor:
    return 10 * loss(model, batch)


def zeros(model: Any, batch: Any, generator: Any) -> Any:
    return {**batch, "y": torch.zeros_like(batch["y"])}


def query() -> hw.Query:
    asked = rows(N + 1)
    return hw.Query(columns={"x": asked["x"][N], "y": asked["y"][N]})


def task(**given: Any) -> hw.Task:
    return hw.Task(Net().double(), **{"loss": loss, "sample": sample, **given})


@contextmanager
def fits() -> Generator[list[int]]:
    """One entry for every fit that is made."""
    made: list[int] = []
    original = kept_factors.fit_factors
    with pytest.MonkeyPatch.context() as patch:

        def fit(*args: Any, **options: Any) -> Any:
            made.append(1)
            return original(*args, **options)

        patch.setattr(kept_factors, "fit_factors", fit)
        yield made


ASKED = {
    "the same": ({}, "true", 0),
    "another loss": ({"loss": tenfold}, "true", 1),
    "another loss of the empirical Fisher": ({"loss": tenfold}, "empirical", 1),
    "other labels": ({"sample": zeros}, "true", 1),
    "other labels, which are not drawn": ({"sample": zeros}, "empirical", 0),
}


@pytest.mark.parametrize("case", ASKED)
def test_factors_of_another_task_are_fitted_anew(tmp_path: Path, case: str) -> None:
    given, fisher, expected = ASKED[case]
    corpus, method = hw.Corpus.from_columns(rows(N)), hw.EKFAC(fisher, 0.01)
    built = hw.Index.build(tmp_path / "index", task(), corpus, None)
    first = hw.scores(built, query(), method=method)
    opened = hw.Index.open(tmp_path / "index", task(**given))
    with fits() as made:
        found = hw.scores(opened, query(), method=method)
    assert len(made) == expected
    fresh = hw.Index.build(None, task(**given), corpus, None)
    assert (found == hw.scores(fresh, query(), method=method)).all()
    assert (found == first).all() == (not expected)


def test_the_number_of_threads_is_no_other_task(tmp_path: Path) -> None:
    corpus, method = hw.Corpus.from_columns(rows(N)), hw.EKFAC("true", 0.01)
    built = hw.Index.build(tmp_path / "index", hw.Task(Net(), loss, sample=sample), corpus, None)
    hw.scores(built, query(), method=method)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 2)
        with fits() as made:
            opened = hw.Index.open(tmp_path / "index", hw.Task(Net(), loss, sample=sample))
            hw.scores(opened, query(), method=method)
        assert not made
    finally:
        torch.set_num_threads(threads)
