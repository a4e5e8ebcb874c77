"""The scan is exact on what is stored, whatever the shards, the batches of queries, the subset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_builds import SIZES, columns_of, given_index, given_query, vectors

import headwater as hw
from headwater.answer.tokens import stored_features
from headwater.engine.errors import InputError

Array = np.ndarray[Any, Any]
CLOSE = {"float32": 1e-5, "float16": 2e-3, "int8": 2e-2, "rank1": 1e-5}
QUERIES = vectors(40, seed=5)


def scored(index: hw.Index, queries: Array = QUERIES, **options: Any) -> Array:
    asked = [given_query(q) for q in queries]
    return hw.scores(index, asked, method=hw.GradDot(), **options).astype(np.float64)


def error(found: Array, right: Array) -> float:
    """Largest, relative to the size of a query's scores."""
    return float((np.abs(found - right).max(axis=1) / np.abs(right).max(axis=1)).max())


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "rank1"])
def test_scores_are_products_of_what_is_stored(storage: str) -> None:
    """For any number of queries: few go another way than many."""
    index = given_index(None, vectors(30), storage=storage, shard_rows=18)
    held = stored_features(index, range(30)).T.astype(np.float64)
    for count in (1, 3, 4, 5, 8, 9, 33):
        right = QUERIES[:count].astype(np.float64) @ held
        assert error(scored(index, QUERIES[:count]), right) < CLOSE[storage]


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "rank1"])
def test_many_queries_are_scored_as_one_at_a_time(storage: str) -> None:
    index = given_index(None, vectors(30), storage=storage)
    alone = np.concatenate([scored(index, q[None]) for q in QUERIES[:12]])
    assert error(scored(index, QUERIES[:12]), alone) < {"int8": 1e-5}.get(storage, CLOSE[storage])


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "rank1"])
def test_the_size_of_shards_does_not_matter(storage: str) -> None:
    """Two rows a shard, one shard for all: the calibration is the same, and so are the scores."""
    indexes = [given_index(None, vectors(30), storage=storage, shard_rows=n) for n in (2, 16, 99)]
    assert [len(list(index.shards())) for index in indexes] == [15, 2, 1]
    tables = [scored(index) for index in indexes]
    for table in tables[1:]:
        assert error(table, tables[0]) < 1e-5
    tops = [
        [one.ids for one in hw.top(index, [given_query(q) for q in QUERIES[:4]], k=9)]
        for index in indexes
    ]
    assert all(top == tops[0] for top in tops)


@pytest.mark.parametrize("storage", ["float32", "int8"])
@pytest.mark.parametrize("method", [hw.GradDot(), hw.GradCos(), hw.LoGra(), hw.TrackStar()])
def test_a_document_of_several_chunks_counts_with_their_sum(method: Any, storage: str) -> None:
    """As a document of one chunk whose gradient is the sum: before any normalising."""
    chunks = np.stack([vectors(3, seed=s) for s in range(25)])
    index = given_index(None, chunks, storage=storage, shard_rows=7)
    assert index.manifest["corpus"]["rows"] == 75
    assert len(index) == 25
    assert all(shard.documents * 3 == len(shard.document) for shard in index.shards())
    u = stored_features(index, range(25)).astype(np.float64)
    assert np.allclose(u, chunks.sum(axis=1), atol=0.5 if storage == "int8" else 1e-5)
    found = hw.scores(index, [given_query(q) for q in QUERIES[:5]], method=method)
    matrices = [np.eye(b.size) for b in index.blocks]
    if method.name in ("logra", "trackstar"):
        means = [m.numpy() for m in index.autocorrelation().means() if m is not None]
        damping = [0.1 * np.trace(m) / len(m) * np.eye(len(m)) for m in means]
        matrices = [np.linalg.inv(m + d) for m, d in zip(means, damping, strict=True)]
    whole = np.zeros((u.shape[1], u.shape[1]))
    for block, matrix in zip(index.blocks, matrices, strict=True):
        whole[block.part, block.part] = matrix
    q = QUERIES[:5].astype(np.float64)
    right = q @ whole @ u.T
    if method.norm == "both":
        right /= np.sqrt(np.einsum("ij,jk,ik->i", q, whole, q))[:, None]
        right /= np.sqrt(np.einsum("ij,jk,ik->i", u, whole, u))[None]
    assert error(found, right) < CLOSE[storage]


@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "rank1"])
def test_some_modules_are_scored_as_if_the_others_were_zero(storage: str) -> None:
    u = vectors(20)
    index = given_index(None, u, storage=storage)
    only = QUERIES[:6].copy()
    only[:, 24:] = 0
    assert error(scored(index, QUERIES[:6], modules=["part.0*"]), scored(index, only)) < 1e-5
    both = scored(index, QUERIES[:6], modules=["*0.weight", "*1.weight"])
    assert np.array_equal(both, scored(index, QUERIES[:6]))
    parts = [scored(index, QUERIES[:6], modules=[f"part.{i}*"]) for i in range(2)]
    assert error(parts[0] + parts[1], both) < CLOSE[storage]
    with pytest.raises(InputError, match=r"No module.*part\.0\.weight.*head"):
        scored(index, modules=["head*"])


@pytest.mark.parametrize("method", [hw.GradCos(), hw.TrackStar(), hw.LRelatIF()])
def test_norms_are_of_the_modules_that_take_part(method: Any) -> None:
    """Half the blocks of an index are scored as an index of that half."""
    u = vectors(20)
    whole, half = given_index(None, u), given_index(None, u[:, :24], sizes=SIZES[:1])
    found = hw.scores(whole, given_query(QUERIES[0]), method=method, modules=["part.0*"])
    query = hw.Query(columns=columns_of(QUERIES[0, :24], SIZES[:1]))
    assert np.allclose(found, hw.scores(half, query, method=method), rtol=1e-4, atol=1e-6)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 12), st.sampled_from(["int8", "float32"]))
def test_the_best_are_the_first_of_all_scores(n: int, k: int, storage: str) -> None:
    """Also of a single example, of fewer than k, and of equal scores, which go by id."""
    u = vectors(n)
    u[n // 2 :] = u[0]  # many of the same score
    index = given_index(None, u, storage=storage, shard_rows=5)
    query = given_query(QUERIES[0])
    scores = hw.scores(index, query, method=hw.GradDot())[0]
    (top,) = hw.top(index, query, k=k, method=hw.GradDot())
    order = np.lexsort((np.arange(n), -scores))[:k]
    assert top.ids == [index.ids[i] for i in order]
    assert top.scores == [float(scores[i]) for i in order]
    worst = np.lexsort((np.arange(n), scores))[:k]
    assert top.opponent_ids == [index.ids[i] for i in worst]


def test_many_rows_go_through_in_pieces() -> None:
    """More rows than are taken at a time."""
    u = vectors(1100)
    index = given_index(None, u, storage="int8", shard_rows=5000)
    found = scored(index, QUERIES[:2])
    right = QUERIES[:2].astype(np.float64) @ u.T.astype(np.float64)
    assert error(found, right) < 0.05
    exact = QUERIES[:2].astype(np.float64) @ stored_features(index, range(1100)).T.astype(
        np.float64
    )
    assert error(found, exact) < CLOSE["int8"]


def test_a_wide_block_is_exact_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block too wide for a basis of its own, and for its autocorrelation."""
    monkeypatch.setattr("headwater.curvature.autocorrelation.WIDEST", 1000)
    sizes = ((64, 65),)
    u = vectors(20, width=4160)
    index = given_index(None, u, sizes=sizes, storage="int8")
    query = vectors(1, seed=5, width=4160)
    found = hw.scores(index, given_query(query[0], sizes), method=hw.GradDot())
    exact = query.astype(np.float64) @ stored_features(index, range(20)).T.astype(np.float64)
    assert error(found, exact) < CLOSE["int8"]
    assert error(found, query @ u.T) < 0.05


def test_wide_half_precision_features_do_not_overflow() -> None:
    """An example aligned with the query, in as many dimensions as a real model has."""
    import torch

    from headwater.gradients.layout import Block
    from headwater.index.encoding import Basis, encode
    from headwater.index.scan import Directions, Products

    blocks = [Block(str(i), 256 * i, 16, 16) for i in range(210)]
    u = torch.randn((4, 53760), generator=torch.Generator().manual_seed(0)).sign()
    stored = encode(blocks, Basis.identity(blocks), u, "float16")
    products = Products(Directions(u[:2], blocks, range(210)), "float16")
    found = products.some(stored["u"], stored["scale"])
    assert torch.allclose(found, u @ u[:2].T, rtol=2e-3, atol=30)
