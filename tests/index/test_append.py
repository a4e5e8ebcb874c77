"""Appending: as if the new examples had been built with the old calibration; nothing else moves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from index_builds import (
    Given,
    columns_of,
    given_corpus,
    given_index,
    given_query,
    times,
    tree,
    vectors,
)

import headwater as hw
from headwater.answer.tokens import stored_features
from headwater.engine.errors import InputError
from headwater.index.build import Plan
from headwater.index.manifest import read_manifest

OLD, NEW = vectors(10), vectors(9, seed=1)
MORE = given_corpus(NEW, "new")
QUERY = given_query(vectors(1, seed=2)[0])


def grown(folder: Path, storage: str = "int8") -> hw.Index:
    index = given_index(folder, OLD, shard_rows=4, storage=storage)
    index.append(MORE)
    return index


@pytest.mark.parametrize("storage", ["int8", "float16", "float32"])
def test_appended_examples_are_stored_as_built_ones(tmp_path: Path, storage: str) -> None:
    """Built again with the new examples' shards in place of the old, under the same calibration."""
    index = grown(tmp_path / "a", storage)
    assert len(index) == 19
    assert index.ids[10:] == [f"new{i:04d}" for i in range(9)]
    held = stored_features(index, range(19))
    close = {"int8": 0.05, "float16": 2e-3, "float32": 1e-6}[storage]
    assert np.abs(held - np.concatenate([OLD, NEW])).max() < close * 4
    twin = given_index(tmp_path / "b", OLD, shard_rows=4, storage=storage)
    twin.append(given_corpus(OLD, "copy"))  # the same examples again: the same numbers again
    held = stored_features(twin, range(20))
    assert np.array_equal(held[:10], held[10:])


def test_old_shards_are_not_touched(tmp_path: Path) -> None:
    index = given_index(tmp_path / "a", OLD, shard_rows=4)
    before, stamps = tree(index.path), times(index.path)
    index.append(MORE)
    after, later = tree(index.path), times(index.path)
    old = [f"{kind}/0000{i}" for kind in ("features", "corpus", "done") for i in range(3)]
    old += ["statistics/calibration"]
    for prefix in old:
        name = next(name for name in before if name.startswith(prefix))
        assert (after[name], later[name]) == (before[name], stamps[name])
    assert set(after) - set(before) == {
        f"{kind}/0000{i}.{end}"
        for kind, end in (("features", "safetensors"), ("corpus", "parquet"), ("done", "json"))
        for i in (3, 4, 5)
    }


def test_two_appends_are_the_same_bytes(tmp_path: Path) -> None:
    assert tree(grown(tmp_path / "a").path) == tree(grown(tmp_path / "b").path)


def test_statistics_are_those_of_all_examples(tmp_path: Path) -> None:
    index = grown(tmp_path / "a")
    every = np.concatenate([OLD, NEW]).astype(np.float64)
    held = index.autocorrelation()
    assert held.count == 19
    for block, mean in zip(index.blocks, held.means(), strict=True):
        part = every[:, block.part]
        assert mean is not None
        assert np.allclose(mean.numpy(), part.T @ part / 19, rtol=1e-5, atol=1e-6)
    parts = [every[:, block.part] for block in index.blocks]
    values = np.concatenate([np.linalg.eigvalsh(part.T @ part / 19) for part in parts])
    assert np.allclose(index.spectrum(), np.sort(values)[::-1], atol=1e-5)
    manifest = read_manifest(index.path)
    assert manifest["statistics"]["count"] == manifest["corpus"]["rows"] == 19
    assert index.verify() == []


@pytest.mark.parametrize("method", [hw.GradDot(), hw.TrackStar(), hw.LoGra()])
def test_scores_do_not_depend_on_what_was_appended_when(tmp_path: Path, method: hw.GradDot) -> None:
    index = given_index(tmp_path / "a", OLD, shard_rows=4)
    hw.scores(index, QUERY, method=method)  # norms kept from before must not be used after
    index.append(MORE)
    whole = given_index(tmp_path / "b", np.concatenate([OLD, NEW]))
    found = hw.scores(index, QUERY, method=method)
    assert np.allclose(found, hw.scores(whole, QUERY, method=method), rtol=1e-4, atol=1e-5)


def test_an_id_that_is_there_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    index = given_index(tmp_path / "a", OLD, shard_rows=4)
    before, stamps = tree(index.path), times(index.path)
    ids = [*(f"new{i}" for i in range(8)), "e0003"]  # after two shards' worth of new ones
    with pytest.raises(InputError, match="e0003 is already in the index"):
        index.append(hw.Corpus.from_columns(columns_of(NEW), ids=ids))
    assert (tree(index.path), times(index.path)) == (before, stamps)
    assert len(index) == 10
    index.append(MORE)
    assert len(index) == 19
    with pytest.raises(InputError, match="new0000 is already in the index"):
        index.append(MORE)
    assert len(hw.Index.open(index.path)) == 19


def test_several_appends(tmp_path: Path) -> None:
    index = grown(tmp_path / "a")
    index.append(given_corpus(vectors(3, seed=4), "late"))
    assert index.ids[-3:] == ["late0000", "late0001", "late0002"]
    parts = read_manifest(index.path)["corpus"]["appended"]
    assert [part["first"] for part in parts] == [3, 6]
    assert hw.Index.open(index.path).verify() == []
    for corpus in (given_corpus(OLD), MORE):  # each of its parts is known again
        features = hw.Features(projection=None, storage="int8")
        assert len(hw.Index.build(index.path, Given(), corpus, features)) == 22


def test_workers_share_an_append(tmp_path: Path) -> None:
    whole = tree(grown(tmp_path / "a").path)
    index = given_index(tmp_path / "b", OLD, shard_rows=4, storage="int8")
    for number in (1, 0):
        index.append(MORE, Plan(worker=(number, 2)))
    assert tree(index.path) == whole


def test_nothing_is_appended_to_what_is_not_finished(tmp_path: Path) -> None:
    given_index(tmp_path / "a", OLD, shard_rows=4, storage="int8", worker=(0, 2))
    index = hw.Index.open(tmp_path / "a", Given(), unfinished=True)
    before = tree(index.path)
    with pytest.raises(InputError, match="not finished"):
        index.append(MORE)
    assert tree(index.path) == before


def test_the_manifest_is_plain_json(tmp_path: Path) -> None:
    path = grown(tmp_path / "a").path / "manifest.json"
    assert json.loads(path.read_text())["corpus"]["documents"] == 19
