"""What is stored is close to what was measured, and close enough where methods magnify it.

All of it through an index, so that it holds for whatever layout the files have.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import SIZES, given_index, given_query, vectors

import headwater as hw
from headwater.answer.tokens import stored_features

Array = np.ndarray[Any, Any]
WIDE = ((8, 8), (8, 8), (8, 8))


@cache
def turned(width: int) -> Array:
    """A random rotation."""
    return np.linalg.qr(np.random.default_rng(7).normal(size=(width, width)))[0]


def tailed(n: int, seed: int, width: int = 192) -> Array:
    """Directions of very different strength, examples and entries with heavy tails."""
    rng = np.random.default_rng(seed)
    strengths = np.arange(1, width + 1) ** -1.0
    made = rng.standard_t(4, size=(n, width)) * strengths @ turned(width)
    return (made * rng.pareto(2.5, size=(n, 1))).astype(np.float32)


def whitened(u: Array, sizes: tuple[tuple[int, int], ...], like: Array) -> Array:
    """u in coordinates in which each block's examples `like` are white, up to 1 % of its mean."""
    made, offset = [], 0
    for rows, columns in sizes:
        part = slice(offset, offset + rows * columns)
        held = like[:, part].astype(np.float64)
        values, turn = np.linalg.eigh(held.T @ held / len(held))
        made.append(u[:, part] @ turn / np.sqrt(values + 0.01 * values.mean()))
        offset += rows * columns
    return np.concatenate(made, axis=1)


@pytest.mark.parametrize(
    ("storage", "bound"), [("float32", 1e-6), ("float16", 4e-3), ("int8", 0.12)]
)
def test_what_comes_back_is_what_went_in(storage: str, bound: float) -> None:
    """Relative error of each example, in its own coordinates and in white ones."""
    u = tailed(120, 0)
    held = stored_features(
        given_index(None, u, sizes=WIDE, storage=storage, shard_rows=50), range(120)
    )
    for turn in (lambda x: x, lambda x: whitened(x, WIDE, u)):
        right, found = turn(u), turn(held)
        errors = np.linalg.norm(found - right, axis=1) / np.linalg.norm(right, axis=1)
        assert np.median(errors) < bound / 3
        assert errors.max() < bound


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_zeros_stay_zeros(storage: str) -> None:
    u = vectors(9)
    u[4] = 0
    u[5, : SIZES[0][0] * SIZES[0][1]] = 0  # one block of it
    index = given_index(None, u, storage=storage)
    held = stored_features(index, range(9))
    assert (held[4] == 0).all()
    assert (held[5, :24] == 0).all()
    assert np.isfinite(held).all()
    for method in (hw.GradCos(), hw.TrackStar()):
        scores = hw.scores(index, given_query(vectors(1, 3)[0]), method=method)[0]
        assert np.isfinite(scores).all()
        assert scores[4] == 0
        assert (np.delete(scores, 4) != 0).all()


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6, 1e12])
def test_the_scale_of_gradients_does_not_matter(storage: str, size: float) -> None:
    """Tiny and huge gradients keep the precision of ordinary ones, and their norms."""
    u = vectors(10)
    right = stored_features(given_index(None, u, storage=storage), range(10))
    index = given_index(None, u * np.float32(size), storage=storage)
    held = stored_features(index, range(10)).astype(np.float64) / size
    assert np.allclose(held, right, rtol=1e-2, atol=2e-2)
    query = given_query(vectors(1, seed=3)[0])
    cosines = hw.scores(index, query, method=hw.GradCos())[0]
    ordinary = hw.scores(given_index(None, u, storage=storage), query, method=hw.GradCos())[0]
    assert np.allclose(cosines, ordinary, atol=2e-3)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_examples_of_very_different_size_share_an_index(storage: str) -> None:
    """Each example has its own scale: a giant beside it costs a small one nothing."""
    u = vectors(40) * np.float32(10) ** np.linspace(-8, 8, 40, dtype=np.float32)[:, None]
    held = stored_features(given_index(None, u, storage=storage, shard_rows=40), range(40))
    errors = np.linalg.norm(held - u, axis=1) / np.linalg.norm(u, axis=1)
    assert np.median(errors) < 0.05
    assert errors.max() < 0.5  # the calibration's basis is the giants'


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
def test_norms_are_those_of_the_exact_gradients(storage: str) -> None:
    u = vectors(11)
    index = given_index(None, u, storage=storage)
    norms = np.concatenate([shard.norm.numpy() for shard in index.shards()])
    right = np.stack([np.linalg.norm(u[:, b.part], axis=1) for b in index.blocks], axis=1)
    assert norms.dtype == np.float32
    assert np.allclose(norms, right, rtol=1e-6)


@pytest.fixture(scope="module")
def hard() -> dict[str, hw.Index]:
    """The same examples in every storage: directions of very different strength, heavy tails."""
    torch.set_num_threads(1)
    u = tailed(1200, 1)
    return {
        storage: given_index(None, u, sizes=WIDE, storage=storage, shard_rows=600)
        for storage in ("float32", "float16", "int8")
    }


@pytest.mark.parametrize("method", [hw.GradDot(), hw.GradCos(), hw.LoGra(), hw.TrackStar()])
def test_int8_finds_the_examples_that_float32_finds(hard: dict[str, hw.Index], method: Any) -> None:
    """Recall at k, for plain and for whitening methods."""
    k, queries = 20, [given_query(q, WIDE) for q in tailed(24, 2)]
    found: dict[str, Array] = {
        storage: np.argsort(-hw.scores(index, queries, method=method), axis=1)[:, :k]
        for storage, index in hard.items()
    }

    def recall(storage: str) -> float:
        pairs = zip(found[storage], found["float32"], strict=True)
        return float(np.mean([len(set(a) & set(b)) / k for a, b in pairs]))

    assert recall("int8") >= 0.95
    assert recall("float16") >= 0.99


def test_int8_is_four_times_smaller_than_float32(hard: dict[str, hw.Index]) -> None:
    sizes = {
        storage: sum(p.stat().st_size for p in (index.path / "features").glob("*.safetensors"))
        for storage, index in hard.items()
    }
    assert sizes["int8"] < 0.35 * sizes["float32"]  # scales, norms and places are the rest
    assert sizes["float16"] < 0.6 * sizes["float32"]
