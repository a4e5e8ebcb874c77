"""Fusion and two-stage search: the formula by hand, and the same scores as scanning everything."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evidence.fusion import Fusion, best_first, reciprocal_ranks
from headwater.evidence.rankers import method_by_name
from headwater.evidence.two_stage import TwoStage
from headwater.methods.method import Method
from headwater.tasks.texts import Texts
from models import byte_tokenizer, relative, tiny_llama

TEXTS = [f"the {a} sat on the {b}" for a in ("cat", "dog", "owl", "hen") for b in ("mat", "log")]
ROWS = [{"id": f"z{9 - i}", "text": text} for i, text in enumerate(TEXTS)]
QUERY = hw.Query("the cat sat on the", " mat")


class Fixed(Method):
    """Scores that are given."""

    name, title, unit, additive, needs = "fixed", "Fixed", "points", False, "nothing"

    def __init__(self, *rows: Sequence[float]) -> None:
        self.rows = np.asarray(rows, dtype=np.float32)

    def stream(self, index: Any, queries: Any, modules: Any = None, among: Any = None) -> Any:
        rows = self.rows.copy()
        if among is not None:
            rows[:, ~among] = np.nan
        yield 0, rows[:, :3]
        yield 3, rows[:, 3:]


def texts() -> hw.Index:
    return hw.Index.build(None, Texts(), hw.Corpus.from_documents(ROWS), None)


def test_reciprocal_ranks_by_hand() -> None:
    rows = [{"id": name, "text": name} for name in ("c", "a", "b", "d", "e")]
    index = hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)
    order = index.examples.id_order
    assert order.tolist() == [2, 0, 1, 3, 4]
    scores = np.array([2.0, 2.0, np.nan, 5.0, -1.0])
    assert best_first(scores, order, 10).tolist() == [3, 1, 0, 4]  # ties by id
    assert best_first(scores, order, 2).tolist() == [3, 1]
    made = reciprocal_ranks(scores, order, k=60)
    assert made == pytest.approx([1 / 62, 1 / 62, 0, 1 / 61, 0])  # equal scores, equal ranks
    tied = reciprocal_ranks(np.array([1.0, 3.0, 3.0, 3.0, 2.0]), order, k=60)
    assert tied == pytest.approx([1 / 65, 1 / 61, 1 / 61, 1 / 61, 1 / 64])
    assert reciprocal_ranks(scores, order, k=1, depth=1) == pytest.approx([0, 0, 0, 1 / 2, 0])


def test_fusion_is_the_sum_over_methods() -> None:
    one = Fixed([8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8])
    other = Fixed([0, 0, 9, 0, 0, 0, 0, 0], [0] * 8)
    index = texts()
    fused = hw.scores(index, [QUERY, QUERY], method=Fusion(one, other, k=10, weights=[1, 2]))
    right = np.array([1 / (10 + rank) for rank in range(1, 9)])
    assert fused[1] == pytest.approx(right[::-1])
    right[2] += 2 / 11
    assert fused[0] == pytest.approx(right)
    tied = Fusion(Fixed([5, 5, 5, 4, 4, 1, 0, 0]), Fixed([0] * 8), k=10)
    assert hw.scores(index, QUERY, method=tied)[0] == pytest.approx(
        [1 / 11, 1 / 11, 1 / 11, 1 / 14, 1 / 14, 1 / 16, 0, 0]
    )
    some = hw.scores(
        index, QUERY, method=Fusion(Fixed(one.rows[0]), Fixed([0] * 8)), ids=["z9", "z8"]
    )
    assert np.isfinite(some[0]).tolist() == [True, True] + [False] * 6


def model_index(features: hw.Features | None) -> hw.Index:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=32)
    return hw.Index.build(None, task, hw.Corpus.from_documents(ROWS), features)


@pytest.mark.parametrize("method", [hw.GradDot(), hw.GradCos()], ids=lambda m: m.name)
def test_two_stages_score_their_candidates_as_a_whole_scan_does(method: Any) -> None:
    features = hw.Features(projection=hw.TwoSided(4, 4), storage="float32")
    whole = hw.scores(model_index(features), [QUERY, QUERY], method=method)
    first = Fixed([8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8])
    search = TwoStage(first, method, candidates=3, features=features)
    for index in (model_index(features), model_index(None)):
        found = hw.scores(index, [QUERY, QUERY], method=search)
        assert np.flatnonzero(np.isfinite(found[0])).tolist() == [0, 1, 2]
        assert np.flatnonzero(np.isfinite(found[1])).tolist() == [5, 6, 7]
        assert relative(found[0, :3], whole[0, :3]) < 1e-5
        assert relative(found[1, 5:], whole[1, 5:]) < 1e-5
    assert search.unit == method.unit


def test_the_best_of_fewer_candidates_than_are_asked_for() -> None:
    first = Fixed([8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 5, 6, 7, 8])
    then = Fixed([1, 2, 3, 4, 5, 6, 7, 8], [5, 4, 3, 2, 1, 6, 8, 7])
    found = hw.top(texts(), [QUERY, QUERY], k=6, method=TwoStage(first, then, candidates=3))
    assert [top.positions for top in found] == [[2, 1, 0], [6, 7, 5]]
    assert [top.opponent_positions for top in found] == [[0, 1, 2], [5, 7, 6]]


class Wide(Method):
    """Scores for many queries and documents, made block by block, some of them NaN."""

    name, title, unit, additive, needs = "wide", "Wide", "points", False, "nothing"

    def __init__(self, seed: int, missing: bool = True, step: int = 500) -> None:
        self.seed, self.missing, self.step = seed, missing, step

    def stream(self, index: Any, queries: Any, modules: Any = None, among: Any = None) -> Any:
        for first in range(0, len(index), self.step):
            rng = np.random.default_rng([self.seed, first])
            width = min(self.step, len(index) - first)
            block = rng.integers(-9, 30, (len(queries), width)).astype(np.float32)
            if self.missing:
                block[:, rng.random(width) < 0.2] = np.nan
                block[rng.random(block.shape) < 0.01] = np.nan
            if among is not None:
                block[:, ~among[first : first + width]] = np.nan
            yield first, block


class Few:
    """As much of an index as such methods look at."""

    def __init__(self, documents: int) -> None:
        order = np.random.default_rng(0).permutation(documents)
        self.documents, self.examples = documents, SimpleNamespace(id_order=order)
        self.has_features = True

    def __len__(self) -> int:
        return self.documents


def rows_of(method: Any, index: Any, queries: list[hw.Query]) -> Any:
    rows = np.full((len(queries), len(index)), np.nan, dtype=np.float32)
    for first, block in method.stream(index, queries):
        rows[:, first : first + block.shape[1]] = block
    return rows


def test_many_queries_score_as_whole_rows_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.evidence.sparse.CELLS", 999)
    index: Any = Few(1700)
    queries = [QUERY] * 7
    one, other = Wide(1), Wide(2)
    rows = [rows_of(method, index, queries) for method in (one, other)]
    order = index.examples.id_order
    right = sum(np.stack([reciprocal_ranks(r, order, 60, 40) for r in part]) for part in rows)
    right[np.isnan(rows[0]) & np.isnan(rows[1])] = np.nan
    found = rows_of(Fusion(one, other, depth=40), index, queries)
    assert np.isnan(right).any()
    assert np.array_equal(found, right.astype(np.float32), equal_nan=True)
    two = rows_of(TwoStage(one, other, candidates=30), index, queries)
    for row, first, then in zip(two, *rows, strict=True):
        best = best_first(first, order, 30)
        assert np.array_equal(row[best], then[best], equal_nan=True)
        assert np.isfinite(row).sum() == np.isfinite(then[best]).sum()


@pytest.mark.parametrize("combined", [Fusion, TwoStage])
def test_memory_is_not_queries_times_documents(
    combined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.evidence.sparse.CELLS", 1 << 16)
    index: Any = Few(200_000)
    methods = [Wide(seed, missing=False, step=2000) for seed in (1, 2)]
    tracemalloc.start()
    for _, block in combined(*methods).stream(index, [QUERY] * 30):
        assert len(block) == 30
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 30 * 200_000  # less than two bytes for each


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        Fusion(hw.GradDot())
    with pytest.raises(InputError, match="one weight"):
        Fusion(hw.GradDot(), hw.GradCos(), weights=[1])
    with pytest.raises(InputError, match="must be candidates"):
        TwoStage(hw.GradDot(), hw.GradCos(), candidates=0)
    first = Fixed([8, 7, 6, 5, 4, 3, 2, 1])
    with pytest.raises(InputError, match="made of texts alone"):
        hw.scores(texts(), QUERY, method=TwoStage(first, hw.GradDot()))


def test_names_of_combined_methods() -> None:
    fused = method_by_name("bm25+gradcos")
    assert isinstance(fused, Fusion)
    assert [m.name for m in fused.methods] == ["bm25", "gradcos"]
    search = method_by_name("bm25:50:trackstar", eval_queries=[QUERY] * 9)
    assert isinstance(search, TwoStage)
    assert (search.first.name, search.candidates) == ("bm25", 50)
    assert search.then.describe()["eval_queries"] == 9
    titles = [method_by_name(f"bm25:{n}:random").title for n in (20, 50)]
    assert titles == ["Random on BM25's first 20", "Random on BM25's first 50"]
    assert fused.title == "BM25 + GradCos"
    nested = method_by_name("bm25:5:gradcos+random")
    assert [m.name for m in getattr(nested, "methods")] == ["two-stage", "random"]  # noqa: B009
    for name in ("bm25:x:gradcos", "bm25:5", "bm25+", "bm25+nothing"):
        with pytest.raises(InputError):
            method_by_name(name)


@pytest.mark.parametrize("name", ["bm25+logra", "bm25:5:logra", "bm25:5:logra+random"])
def test_options_reach_the_parts_that_have_them(name: str) -> None:
    made = method_by_name(name, damping=0.3, k1=2.0)
    found: list[Any] = [made]
    for one in found:
        for inner in (*getattr(one, "methods", ()), *(getattr(one, n, 0) for n in PARTS)):
            found += [inner] if isinstance(inner, Method) else []
    (logra,) = [one for one in found if isinstance(one, hw.LoGra)]
    (lexical,) = [one for one in found if isinstance(one, hw.BM25)]
    assert (logra.damping, lexical.k1) == (0.3, 2.0)
    with pytest.raises(InputError, match="does not take these options.*mixing"):
        method_by_name(name, damping=0.3, mixing=0.5)


PARTS = ("first", "then")


def test_of_candidates_only_what_is_read_is_worked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pooled spectrum, no basis, no reference queries: a gradient for each candidate, once."""
    from headwater.evidence.two_stage import small_index
    from headwater.gradients.compute import Gradients

    passed: list[int] = []
    stream = Gradients.stream

    def counted(self: Gradients, chunks: Any, *rest: Any, **options: Any) -> Any:
        passed.append(len(chunks))
        return stream(self, chunks, *rest, **options)

    monkeypatch.setattr(Gradients, "stream", counted)
    index = model_index(None)
    small = small_index(index, [1, 3, 6])
    assert sum(passed) == 3
    assert small.features.storage == "float32"
    tensors = (small.path / "statistics" / "autocorrelation.safetensors").read_bytes()
    assert b'"spectrum"' not in tensors
    assert len(small.calibration.references) == 0
    assert len(small_index(index, [1, 3, 6], references=True).calibration.references) == 3
    # What a method needs after all is worked out then: TrackStar mixes by the spectrum.
    method = hw.TrackStar(eval_queries=[QUERY, hw.Query("the owl sat on the", " log")])
    scores = hw.scores(small, QUERY, method=method)
    assert np.isfinite(scores).all()
    features = hw.Features(storage="float32")
    rows = [ROWS[i] for i in (1, 3, 6)]
    whole = hw.Index.build(None, index.task, hw.Corpus.from_documents(rows), features)
    assert np.array_equal(small.spectrum(), whole.spectrum())
    assert np.array_equal(hw.scores(whole, QUERY, method=method), scores)
