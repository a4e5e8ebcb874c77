"""What cannot be used is named; with skip_bad it is left out, listed, counted, and not scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_builds import (
    Given,
    columns_of,
    given_corpus,
    given_query,
    tree,
    vectors,
)

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.index.manifest import read_manifest

BAD = {3: np.nan, 8: np.inf, 9: -np.inf}
METHODS: list[Any] = [
    hw.GradDot(),
    hw.GradCos(),
    hw.LoGra(),
    hw.LRelatIF(),
    hw.TrackStar(),
    hw.TRAK(),
]


def spoilt() -> np.ndarray[Any, Any]:
    u = vectors(12)
    for row, value in BAD.items():
        u[row, row] = value
    return u


def build(folder: Path | None, u: Any, **options: Any) -> hw.Index:
    plan = hw.Plan(shard_rows=5, skip_bad=True, budget=options.pop("budget", None))
    features = hw.Features(projection=None, **({"storage": "float32"} | options))
    return hw.Index.build(folder, Given(), given_corpus(u), features, plan)


@pytest.mark.parametrize("output", ["loss", "margin"])
@pytest.mark.parametrize("moment", [None, "estimate"])
def test_an_example_that_is_not_finite_is_named(tmp_path: Path, output: Any, moment: Any) -> None:
    features = hw.Features(projection=None, output=output, second_moment=moment)
    plan = hw.Plan(shard_rows=12)
    u = vectors(12)
    u[3, 0] = np.nan
    with pytest.raises(NumericError, match=r"example e0003 is not finite.*skip-bad") as caught:
        hw.Index.build(tmp_path / "a", Given(), given_corpus(u), features, plan)
    assert caught.value.exit_code == 6
    hw.Index.build(
        tmp_path / "a", Given(), given_corpus(u), features, hw.Plan(shard_rows=12, skip_bad=True)
    )
    assert hw.Index.open(tmp_path / "a").verify() == []


@pytest.mark.parametrize("storage", ["int8", "float16", "float32", "rank1"])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_skipped_examples_have_no_score_and_no_place(method: Any, storage: str) -> None:
    output = "margin" if method.weighted else "loss"
    index = build(None, spoilt(), storage=storage, output=output)
    query = given_query(vectors(1, seed=4)[0])
    scores = hw.scores(index, query, method=method)[0]
    skipped = np.isin(np.arange(12), list(BAD))
    assert np.isnan(scores[skipped]).all()
    assert np.isfinite(scores[~skipped]).all()
    assert (scores[~skipped] != 0).all()
    (top,) = hw.top(index, query, 12, method=method)
    kept = set(np.flatnonzero(~skipped).tolist())
    assert set(top.positions) == set(top.opponent_positions) == kept
    ranked = hw.rank(index, query, method=method)
    assert {one.name for one in ranked} == {index.ids[i] for i in kept}
    if method.norm != "both":
        own = hw.self_influence(index, method=method)
        assert np.isnan(own[skipped]).all()
        assert (own[~skipped] != 0).all()


def test_skipped_examples_are_listed(tmp_path: Path) -> None:
    index = build(tmp_path / "a", spoilt())
    manifest = read_manifest(tmp_path / "a")
    assert [shard["skipped"] for shard in manifest["shards"]] == [["e0003"], ["e0008", "e0009"], []]
    mark = json.loads((tmp_path / "a" / "done" / "00001.json").read_text())
    assert mark["skipped"] == ["e0008", "e0009"]
    assert [one["example"] for one in index.skipped()] == ["e0003", "e0008", "e0009"]
    assert "not finite" in index.skipped()[0]["reason"]
    assert len(index) == 12  # positions stay those of the corpus


def test_the_statistics_are_those_of_what_is_left() -> None:
    u = spoilt()
    index = build(None, u)
    held = index.autocorrelation()
    good = np.delete(u, list(BAD), axis=0).astype(np.float64)
    assert held.count == len(good)
    for block, mean in zip(index.blocks, held.means(), strict=True):
        part = good[:, block.part]
        assert mean is not None
        assert np.allclose(mean.numpy(), part.T @ part / len(good), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("budget", [2, None])
@pytest.mark.parametrize("storage", ["int8", "float32"])
def test_a_document_with_one_bad_chunk_is_left_out_whole(storage: str, budget: int) -> None:
    """Also when its other chunks were in batches before."""
    u = np.stack([vectors(4, seed=s) for s in range(6)])  # six documents of four chunks
    u[2, 3, 5] = np.nan
    index = build(None, u, storage=storage, budget=budget)
    assert [one["example"] for one in index.skipped()] == ["e0002"]
    scores = hw.scores(index, given_query(vectors(1, seed=9)[0]), method=hw.GradDot())[0]
    assert np.isnan(scores[2])
    right = u.sum(axis=1) @ vectors(1, seed=9)[0]
    kept = [0, 1, 3, 4, 5]
    assert np.allclose(scores[kept], right[kept], atol=0.3 if storage == "int8" else 1e-4)
    assert index.autocorrelation().count == 20


def test_an_estimated_second_moment_is_that_of_finite_examples(tmp_path: Path) -> None:
    """Bad examples in the calibration sample do not reach the optimizer correction."""
    u = spoilt()
    good = np.delete(u, list(BAD), axis=0)
    query = given_query(vectors(1, seed=4)[0])
    found = hw.scores(build(None, u, second_moment="estimate"), query, method=hw.GradDot())[0]
    right = hw.scores(build(None, good, second_moment="estimate"), query, method=hw.GradDot())[0]
    assert np.allclose(np.delete(found, list(BAD)), right, rtol=1e-4, atol=1e-5)


def test_nothing_finite_at_all(tmp_path: Path) -> None:
    u = np.full_like(vectors(4), np.nan)
    for options in ({"storage": "int8"}, {"second_moment": "estimate"}):
        with pytest.raises(NumericError, match="No example of the calibration sample"):
            build(tmp_path / "a", u, **options)


# -- rows of the corpus --------------------------------------------------------------------------


class Picky(Given):
    """Refuses some documents, as a language model refuses a text without tokens."""

    def chunks(self, document: Any) -> Any:
        if document.id in ("e0001", "e0006", "z0280"):
            raise InputError(f"Document {document.id} has no token to learn from")
        return super().chunks(document)


def test_documents_that_cannot_be_used_are_left_out_listed_and_counted(tmp_path: Path) -> None:
    u = vectors(9)
    features = hw.Features(projection=None, storage="float32")
    with pytest.raises(InputError, match="e0001 has no token"):
        hw.Index.build(tmp_path / "a", Picky(), given_corpus(u), features)
    assert not list((tmp_path / "a").rglob("*.parquet"))
    plan = hw.Plan(skip_bad=True, shard_rows=4)
    index = hw.Index.build(tmp_path / "a", Picky(), given_corpus(u), features, plan)
    assert len(index) == 7
    assert [one["example"] for one in index.skipped()] == ["e0001", "e0006"]
    assert "no token" in index.skipped()[0]["reason"]
    assert index.manifest["corpus"]["skipped_count"] == 2
    before = tree(tmp_path / "a")
    hw.Index.build(tmp_path / "a", Picky(), given_corpus(u), features, plan)
    assert tree(tmp_path / "a") == before
    with pytest.raises(hw_mismatch(), match="another corpus"):  # though something was skipped
        hw.Index.build(tmp_path / "a", Picky(), given_corpus(vectors(9, 1)), features, plan)


def hw_mismatch() -> type[Exception]:
    from headwater.engine.errors import MismatchError

    return MismatchError


def test_nothing_is_left_of_a_corpus_that_cannot_be_used(tmp_path: Path) -> None:
    """Though shards of it were written before the document that cannot be used was met."""
    features, plan = hw.Features(projection=None), hw.Plan(shard_rows=60)
    with pytest.raises(InputError, match="z0280 has no token"):
        hw.Index.build(tmp_path, Picky(), given_corpus(vectors(290), "z"), features, plan)
    assert not list(tmp_path.rglob("*.parquet"))


def test_bad_rows_of_a_file_are_listed_and_counted(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "text": f"text {i}"} for i in range(5)]
    lines = [json.dumps(row) for row in rows]
    lines[2], lines[4] = '{"id": "d2", "text": ', '{"id": "d4", "text": ""}'
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines) + "\n")

    class Texts(Given):
        def chunks(self, document: Any) -> Any:
            from headwater.tasks.task import Chunk

            u = vectors(1, seed=int(document.id[1:]))[0]
            return [Chunk(columns_of(u), 0, 1)]

    features = hw.Features(projection=None)
    with pytest.raises(InputError, match="line 3"):
        hw.Index.build(tmp_path / "a", Texts(), hw.Corpus.open(path), features)
    corpus = hw.Corpus.open(path, skip_bad=True)
    index = hw.Index.build(tmp_path / "a", Texts(), corpus, features, hw.Plan(skip_bad=True))
    assert index.ids == ["d0", "d1", "d3"]
    skipped = index.skipped()
    assert [one["example"].rsplit(":", 1)[1] for one in skipped] == ["3", "5"]
    assert index.manifest["corpus"]["skipped_count"] == 2
    assert "empty" in skipped[1]["reason"]


# -- evidence of other kinds, and the candidates of another method ---------------------------------


def test_candidates_without_a_gradient_have_no_score() -> None:
    """Also for those that name the documents themselves."""
    from headwater.evaluation.reranking import rank_candidates

    index = build(None, spoilt())
    query = given_query(vectors(1, seed=4)[0])
    search = hw.TwoStage(hw.Random(), hw.GradDot(), candidates=12)
    row = hw.scores(index, query, method=search)[0]
    assert np.flatnonzero(np.isnan(row)).tolist() == list(BAD)
    (ranked,) = rank_candidates(index, [query], hw.GradDot(), [np.arange(12)])
    assert set(ranked) == {name for i, name in enumerate(index.ids) if i not in BAD}
    (block,) = hw.GradDot().stream(build(None, spoilt()[:5]), [query], None, np.ones(5, dtype=bool))
    assert np.flatnonzero(np.isnan(block[1][0])).tolist() == [3]


def test_evidence_without_gradients_knows_the_examples_that_have_none() -> None:
    index = build(None, spoilt())
    query = given_query(vectors(1, seed=4)[0])
    assert np.isfinite(hw.scores(index, query, method=hw.Random())).all()
    (top,) = hw.top(index, query, 12, method=hw.Random())
    assert len(top.ids) == 12
    fused = hw.scores(index, query, method=hw.Fusion(hw.Random(), hw.GradDot()))[0]
    assert np.isfinite(fused).all()
    assert len(hw.rank(index, query, method=hw.Random())) == 12
