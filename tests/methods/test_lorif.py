"""LoRIF against dense algebra in float64 on the features as they are stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import flip, given_corpus, given_index, given_query

import headwater as hw
from headwater.answer.tokens import stored_features
from headwater.curvature import truncated
from headwater.curvature.truncated import Sought, leading_eigenpairs, truncated_inverse
from headwater.engine.errors import InputError, NumericError
from headwater.gradients.layout import Block
from headwater.methods import lorif

Array = np.ndarray[Any, Any]
SIZES = ((8, 8), (6, 9), (3, 1))
WIDTH = 121
BLOCKS = (Block("a", 0, 8, 8), Block("b", 64, 6, 9), Block("c", 118, 3, 1))


def tailed(n: int, seed: int = 0) -> Array:
    """Features with a spectrum that falls off, in turned directions."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(WIDTH, WIDTH)))[0]
    strengths = np.arange(1, WIDTH + 1) ** -1.0
    return ((rng.normal(size=(n, WIDTH)) * strengths) @ turn).astype(np.float32)


U, Q = tailed(60), tailed(4, 1)


def relative(found: Any, right: Any) -> float:
    return float(np.linalg.norm(np.asarray(found) - right) / np.linalg.norm(right))


def dense(rows: Array, rank: int, damping: float = 0.1, *, rest: bool = True) -> Array:
    """M [size, size] by a full decomposition of each block."""
    whole = np.zeros((WIDTH, WIDTH))
    for block in BLOCKS:
        part = rows[:, block.part].astype(np.float64)
        values, vectors = np.linalg.eigh(part.T @ part / len(part))
        values, vectors = values[::-1].copy(), vectors[:, ::-1]
        k = min(rank, block.size)
        level = damping * values.mean()
        left = min(len(part), block.size) - k
        outside = values[k:].sum() / left if rest and left > 0 else 0.0
        values[k:] = outside
        whole[block.part, block.part] = vectors @ np.diag(1 / (values + level)) @ vectors.T
    return whole


def index_of(u: Array = U, storage: str = "rank1", folder: Path | None = None, **options: Any):
    return given_index(folder, u, sizes=SIZES, storage=storage, **options)


def scored(index: hw.Index, method: Any, q: Array = Q) -> Array:
    return hw.scores(index, [given_query(one, SIZES) for one in q], method=method)


@pytest.mark.parametrize("storage", ["rank1", "rank8", "int8", "float16", "float32"])
@pytest.mark.parametrize("rank", [64, 500])
def test_with_all_eigenpairs_it_is_logra_on_what_is_stored(storage: str, rank: int) -> None:
    index = index_of(storage=storage)
    z = stored_features(index, range(60)).astype(np.float64)
    right = Q.astype(np.float64) @ dense(z, 64) @ z.T
    # The scan itself rounds int8 and fp16; of the others it is exact.
    close = {"int8": 2e-2, "float16": 2e-3}.get(storage, 2e-6)
    found = scored(index, hw.LoRIF(rank))
    assert relative(found, right) < close
    inverse, _ = hw.LoRIF(rank).fit(index)
    assert inverse is not None
    applied = inverse.apply(index.blocks, torch.from_numpy(Q))
    assert relative(applied, Q.astype(np.float64) @ dense(z, 64)) < 1e-6
    if storage.startswith("rank") or storage == "float32":
        assert relative(found, scored(index, hw.LoGra())) < 1e-4


@pytest.mark.parametrize("rest", [True, False])
@pytest.mark.parametrize("rank", [1, 5, 20])
@pytest.mark.parametrize("n", [60, 30])
def test_a_truncated_inverse_is_that_of_the_leading_eigenpairs(
    monkeypatch: pytest.MonkeyPatch, rest: bool, rank: int, n: int
) -> None:
    """By iteration, also of fewer examples than dimensions."""
    monkeypatch.setattr(truncated, "EXTRA", 2)
    rows = torch.from_numpy(U[:n])
    pairs = leading_eigenpairs(BLOCKS, lambda: iter(rows.split(7)), n, Sought(rank, 40, 0))
    assert [len(v) for v in pairs.values] == [rank, rank, min(rank, 3)]
    assert pairs.vectors[0].dtype == torch.float32  # not the exact way of narrow blocks
    for number, block in enumerate(BLOCKS):
        part = U[:n, block.part].astype(np.float64)
        right = np.linalg.eigvalsh(part.T @ part / n)[::-1]
        assert relative(pairs.values[number], right[: len(pairs.values[number])]) < 1e-5
        assert pairs.means[number] == pytest.approx(right.mean(), rel=1e-6)
    m = truncated_inverse(pairs, 0.1, "", rest=rest)
    right = dense(U[:n], rank, rest=rest)
    assert relative(m.apply(BLOCKS, torch.from_numpy(Q)), Q.astype(np.float64) @ right) < 1e-4
    for block, root in zip(BLOCKS, m.roots([None] * 3), strict=True):
        u = torch.from_numpy(U[:, block.part])
        norms = root(u).double().square().sum(dim=1)
        part = U[:, block.part].astype(np.float64)
        exact = np.einsum("ij,jk,ik->i", part, right[block.part, block.part], part)
        assert relative(norms, exact) < 1e-4


def test_three_passes_are_near_enough() -> None:
    """At the default number of passes; a single one is not."""
    rows = torch.from_numpy(U)
    right = Q.astype(np.float64) @ dense(U, 12)

    def error(passes: int) -> float:
        pairs = leading_eigenpairs(BLOCKS, lambda: iter([rows]), 60, Sought(12, passes, 0))
        applied = truncated_inverse(pairs, 0.1, "").apply(BLOCKS, torch.from_numpy(Q))
        return relative(applied, right)

    assert error(1) > 0.1
    assert error(3) < 0.05
    assert error(12) < error(3)


@pytest.mark.parametrize("storage", ["rank1", "int8"])
def test_self_influence_and_several_chunks(storage: str) -> None:
    """Norms under M, of the sum of a document's chunks; R is a mean over chunks."""
    chunks = np.stack([tailed(3, seed) for seed in range(20)])
    index = index_of(chunks, storage)
    method = hw.LoRIF(200)
    rows = np.concatenate([one.numpy() for one in lorif.stored_rows(index)])
    z = rows.reshape(20, 3, WIDTH).sum(axis=1).astype(np.float64)
    m = dense(rows, 200)
    found = method.self_influence(index)
    assert relative(found, np.einsum("ij,jk,ik->i", z, m, z)) < 1e-4
    again = method.self_influence(index)
    assert np.array_equal(found, again)
    for other in (hw.LoRIF(200, 0.5), hw.LoRIF(20), hw.LoRIF(20, rest=False)):
        assert not np.allclose(other.self_influence(index), found, rtol=1e-3)
    assert not np.allclose(
        hw.LoRIF(20).self_influence(index), hw.LoRIF(20, rest=False).self_influence(index)
    )
    only = method.self_influence(index, modules=["*1*"])
    keep = np.zeros(WIDTH)
    keep[index.blocks[1].part] = 1
    assert relative(only, np.einsum("ij,jk,ik->i", z * keep, m, z * keep)) < 1e-4


def test_eigenpairs_are_kept_beside_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found once for any damping, anew after damage, an append, or another number of them."""
    index = index_of(folder=tmp_path)
    first = scored(index, hw.LoRIF(5))
    (path,) = (index.path / "views").glob("eigenpairs-*")
    held = path.read_bytes()

    def forbidden(*_: Any) -> Any:
        raise AssertionError("found again")

    with monkeypatch.context() as patch:
        patch.setattr(lorif, "leading_eigenpairs", forbidden)
        assert np.array_equal(scored(index, hw.LoRIF(5)), first)
        assert not np.allclose(scored(index, hw.LoRIF(5, 2.0)), first)
        for other in (hw.LoRIF(6), hw.LoRIF(5, passes=2), hw.LoRIF(5, seed=1)):
            with pytest.raises(AssertionError, match="found again"):
                scored(index, other)
    path.write_bytes(held[:-9])
    assert np.array_equal(scored(index, hw.LoRIF(5)), first)
    assert path.read_bytes() == held
    index.append(given_corpus(tailed(9, 4), "new", SIZES))
    grown = scored(index, hw.LoRIF(500))
    z = stored_features(index, range(69)).astype(np.float64)
    assert relative(grown, Q.astype(np.float64) @ dense(z, 64) @ z.T) < 2e-6
    flip(index.path / "features" / "00000.safetensors")
    assert index.verify() == ["features/00000.safetensors"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    indexes = [index_of(folder=tmp_path / name) for name in "ab"]
    tables = [scored(index, hw.LoRIF(5)) for index in indexes]
    assert np.array_equal(*tables)
    kept = [next((i.path / "views").glob("eigenpairs-*")).read_bytes() for i in indexes]
    assert kept[0] == kept[1]
    assert not np.array_equal(scored(indexes[0], hw.LoRIF(5, seed=1, passes=1)), tables[0])


def test_examples_without_gradient_or_one_alone() -> None:
    zeros = index_of(np.zeros((6, WIDTH), dtype=np.float32))
    assert not scored(zeros, hw.LoRIF(5)).any()
    single = index_of(U[:1])
    z = stored_features(single, [0]).astype(np.float64)
    right = Q.astype(np.float64) @ dense(z, 5) @ z.T
    assert relative(scored(single, hw.LoRIF(5)), right) < 1e-4
    u = U.copy()
    u[:, 64:118] = 0  # a block that nothing moves
    index = index_of(u)
    assert relative(scored(index, hw.LoRIF(500)), scored(index, hw.LoGra())) < 1e-4


def test_what_cannot_be_done_is_said() -> None:
    index = index_of()
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="0 or more"):
            scored(index, hw.LoRIF(5, wrong))
    with pytest.raises(InputError, match="rank is a count.*-1"):
        hw.LoRIF(-1)
    with pytest.raises(InputError, match="passes is a count"):
        hw.LoRIF(passes=0)
    with pytest.raises(NumericError, match="singular"):
        scored(index, hw.LoRIF(5, 0, rest=False))
    with pytest.raises(NumericError, match="singular"):
        scored(index_of(U[:40]), hw.LoRIF(100, 0))  # fewer examples than dimensions
    assert np.isfinite(scored(index, hw.LoRIF(5, 0))).all()
    spoilt = torch.from_numpy(U.copy())
    spoilt[3, 70] = float("nan")
    with pytest.raises(NumericError, match="block b is not finite"):
        leading_eigenpairs(BLOCKS, lambda: iter([spoilt]), 60, Sought(5, 2, 0))


def test_it_describes_itself() -> None:
    described = hw.LoRIF(5, 0.2).describe()
    assert json.loads(json.dumps(described)) == {
        "method": "lorif",
        "rank": 5,
        "damping": 0.2,
        "rest": True,
        "passes": 3,
        "seed": 0,
    }
    assert hw.LoRIF().additive
