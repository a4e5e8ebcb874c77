"""The calibration sample: chosen by a hash of ids, the same however the corpus lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_builds import Given, columns_of, given_index, vectors

import headwater as hw
from headwater.index.calibration import LEAST, MOST, SHARE, choose_sample, sample_size
from headwater.index.corpus_shards import read_shard

N = 300


def built(folder: Path, order: Any, shard_rows: int = 50, seed: int = 0) -> hw.Index:
    u = vectors(N)[order]
    corpus = hw.Corpus.from_columns(columns_of(u), ids=[f"e{i}" for i in order])
    features = hw.Features(projection=None, seed=seed)
    return hw.Index.build(folder, Given(), corpus, features, hw.Plan(shard_rows=shard_rows))


def sample(index: hw.Index, seed: int = 0) -> list[str]:
    shards = index.manifest["corpus"]["shards"]
    places = choose_sample(index.path / "corpus", shards, seed)
    rows = {s["name"]: read_shard(index.path / "corpus" / f"{s['name']}.parquet") for s in shards}
    return [rows[name][row]["id"] for name, row in places]


def test_neither_shards_nor_order_decide_who_is_in_it(tmp_path: Path) -> None:
    plain = built(tmp_path / "a", range(N))
    others = [
        built(tmp_path / "b", range(N), shard_rows=7),
        built(tmp_path / "c", np.random.default_rng(0).permutation(N)),
    ]
    chosen = sample(plain)
    assert len(set(chosen)) == sample_size(N) == 64
    calibration = (plain.path / "statistics" / "calibration.safetensors").read_bytes()
    for other in others:
        assert sample(other) == chosen
        assert (other.path / "statistics" / "calibration.safetensors").read_bytes() == calibration


def test_the_seed_decides(tmp_path: Path) -> None:
    index = built(tmp_path / "a", range(N))
    one, other = sample(index), sample(index, seed=1)
    assert one != other
    assert 0 < len(set(one) & set(other)) < 64
    again = built(tmp_path / "b", range(N), seed=1)
    files = [i.path / "statistics" / "calibration.safetensors" for i in (index, again)]
    assert files[0].read_bytes() != files[1].read_bytes()


def test_it_is_spread_over_the_corpus(tmp_path: Path) -> None:
    places = sorted(int(name[1:]) for name in sample(built(tmp_path / "a", range(N))))
    assert places[0] < N // 8
    assert places[-1] > N - N // 8


@pytest.mark.parametrize(
    ("documents", "size"),
    [(1, 1), (LEAST, LEAST), (LEAST * 2, LEAST), (SHARE * 100, 100), (10**7, MOST)],
)
def test_it_is_a_share_within_bounds(documents: int, size: int) -> None:
    assert sample_size(documents) == size


def test_references_are_of_the_sample(tmp_path: Path) -> None:
    index = given_index(tmp_path / "a", vectors(N), storage="int8", shard_rows=100)
    held = index.calibration.references
    assert held.shape == (16, index.size)
    assert index.manifest["calibration"]["references"] == 16
    u = {row.tobytes() for row in vectors(N).round(4)}
    assert all(row.tobytes() in u for row in held.round(4))
