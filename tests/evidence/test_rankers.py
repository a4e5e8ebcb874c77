"""What all rankers share, and the control: random scores that depend on nothing they should not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evidence.random_scores import Random, digest
from headwater.evidence.ranker import best, weighted
from headwater.methods.scoring import Keeper
from headwater.tasks.texts import Texts


def index_of(ids: list[str]) -> hw.Index:
    rows = [{"id": name, "text": f"text {name}", "half": i % 2} for i, name in enumerate(ids)]
    return hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return index_of([f"d{i:04d}" for i in range(2000)])


def test_random_scores_are_uniform_and_independent(index: hw.Index) -> None:
    queries = [hw.Query("a", f" {i}") for i in range(20)]
    found = hw.scores(index, queries, method=Random())
    assert found.dtype == np.float32
    assert 0 <= found.min() < found.max() < 1
    counts = np.histogram(found, bins=10, range=(0, 1))[0]
    assert np.abs(counts - 4000).max() < 4 * np.sqrt(4000)
    correlations = np.corrcoef(found)[np.triu_indices(20, 1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)
    assert len(np.unique(found)) > 0.99 * found.size


def test_random_scores_depend_on_seed_query_and_id_alone(index: hw.Index) -> None:
    query = hw.Query("a", " b", name="one")
    row = hw.scores(index, query, method=Random())[0]
    assert np.array_equal(hw.scores(index, hw.Query("a", " b"), method=Random())[0], row)
    other = index_of(["d0007", "new", "d0003"])
    assert hw.scores(other, query, method=Random())[0, [0, 2]].tolist() == row[[7, 3]].tolist()
    for changed in (hw.Query("a", " c"), hw.Query("ab", " b"), hw.Query("a", " b", " c")):
        assert (hw.scores(index, changed, method=Random())[0] != row).mean() > 0.99
    assert (hw.scores(index, query, method=Random(1))[0] != row).mean() > 0.99
    assert Random(3).describe() == {"method": "random", "seed": 3}
    some = hw.scores(index, query, method=Random(), groups=("half", [1]))[0]
    assert np.isnan(some[::2]).all()
    assert np.array_equal(some[1::2], row[1::2])
    assert float(row[0]) == pytest.approx(0.7154624, abs=1e-6)  # on every platform
    with pytest.raises(InputError, match="no modules"):
        hw.scores(index, query, method=Random(), modules=["x"])


def test_random_blocks(index: hw.Index, monkeypatch: Any) -> None:
    queries = [hw.Query("a", " b"), hw.Query("a", " c")]
    whole = hw.scores(index, queries, method=Random())
    monkeypatch.setattr("headwater.evidence.random_scores.BLOCK", 300)
    assert np.array_equal(hw.scores(index, queries, method=Random()), whole)


def test_every_form_of_query_has_a_digest() -> None:
    chat = [{"role": "user", "content": "hello"}]
    queries = [
        hw.Query("a", " b"),
        hw.Query(chat, " b"),
        hw.Query(input_ids=[1, 2, 3], target=(1, 2)),
        hw.Query(input_ids=(1, 2, 3), target=[0.0, 1.0, 0.5]),
        hw.Query(columns={"x": np.ones(3), "y": 1}),
        hw.Query.mean([hw.Query("a", " b"), hw.Query("a", " c")]),
        hw.Query.mean([hw.Query("a", " b")]),
    ]
    assert len({digest(query) for query in queries}) == len(queries)
    same = hw.Query(input_ids=np.array([1, 2, 3]), target=(1, 2))  # type: ignore[arg-type]
    assert digest(same) == digest(queries[2])


def test_weights() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert weighted([[1.0]] * 4, rows) is rows
    found = weighted([[1.0, -1.0], [0.5], [2.0]], rows)
    assert found.tolist() == [(rows[0] - rows[1]).tolist(), [3.0, 3.5, 4.0], [18.0, 20.0, 22.0]]


def test_best_keeps_the_order_of_a_keeper() -> None:
    rng = np.random.default_rng(0)
    names = [f"n{i:02d}" for i in rng.permutation(60)]
    index = index_of(names)
    for _ in range(40):
        scores = rng.integers(0, 6, 60).astype(np.float32)
        scores[rng.random(60) < 0.1] = np.nan
        k = int(rng.integers(1, 70))
        there = np.flatnonzero(~np.isnan(scores))
        keeper = Keeper(k)
        keeper.offer(-scores[there], index.examples.id_order[there], there)
        positions, values = best(index, np.arange(60), scores, k)
        assert positions.tolist() == keeper.positions.tolist()
        assert values.tolist() == (-keeper.values).tolist()


class Resembles(hw.Random):
    """Given scores, of a method that compares documents with the query."""

    def __init__(self, row: list[float], influence: bool = False) -> None:
        super().__init__()
        self.row, self.influence = np.asarray([row], dtype=np.float32), influence  # type: ignore[misc]

    def stream(self, *_: Any, **__: Any) -> Any:
        yield 0, self.row


def test_nothing_in_common_is_no_result() -> None:
    index = index_of(["a", "b", "c", "d"])
    (found,) = hw.top(index, hw.Query("q", " r"), method=Resembles([0, 2, -1, 0]))
    assert (found.ids, found.opponent_ids) == (["b", "c"], ["c", "b"])
    (found,) = hw.top(
        index, hw.Query("q", " r"), 3, method=Resembles([0, 2, -1, 0]), unrelated=True
    )
    assert found.ids == ["b", "a", "d"]
    (found,) = hw.top(index, hw.Query("q", " r"), method=Resembles([0, 0, 0, 0]))
    assert found.ids == found.opponent_ids == found.scores == []
    (found,) = hw.top(index, hw.Query("q", " r"), method=Resembles([0, 2, -1, 0], True))
    assert found.ids == ["b", "a", "d", "c"]  # of influence, 0 is a score as any other
    (found,) = hw.top(index, hw.Query("zyx", " wvu"), method=hw.BM25())
    assert found.ids == found.opponent_ids == []
    search = hw.TwoStage(Resembles([0, 2, 1, 0]), hw.Random(), candidates=4)
    assert np.isfinite(hw.scores(index, hw.Query("q", " r"), method=search)[0]).tolist() == [
        False, True, True, False,
    ]  # fmt: skip


def test_a_name_is_no_method() -> None:
    index, query = index_of(["a", "b"]), hw.Query("text", " a")
    for asked in (hw.scores, hw.top, hw.rank):
        with pytest.raises(InputError, match=r"given by its name.*hw\.BM25\(\).*method_by_name"):
            asked(index, query, method="bm25")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="given by its name"):
        hw.self_influence(index, method="logra")  # type: ignore[arg-type]
