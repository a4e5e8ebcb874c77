"""An index of a language model: tokenizer, window and token counts belong to it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from index_builds import flip, tree

import headwater as hw
from headwater.engine.errors import MismatchError
from models import byte_tokenizer, tiny_llama

TEXTS = [f"Document {i}: " + "the cat sat on the mat. " * (i % 4 + 1) for i in range(10)]
LATER = [f"Later {i}: a river runs to the sea" for i in range(5)]
FEATURES = hw.Features(projection=hw.TwoSided(4, 4))


def texts(lines: list[str], prefix: str = "d") -> hw.Corpus:
    return hw.Corpus.from_columns({"text": lines}, ids=[f"{prefix}{i}" for i in range(len(lines))])


def task(**options: Any) -> hw.CausalLM:
    model = tiny_llama(dtype=torch.float32, seed=options.pop("seed", 0))
    vocab = options.pop("vocab", 320)
    return hw.CausalLM(model, byte_tokenizer(vocab=vocab), **({"max_length": 24} | options))


@pytest.fixture(scope="module")
def lm() -> hw.CausalLM:
    torch.set_num_threads(1)
    return task()


def build(folder: Path, lm: hw.CausalLM, lines: list[str] = TEXTS) -> hw.Index:
    return hw.Index.build(folder, lm, texts(lines), FEATURES, hw.Plan(shard_rows=8))


def counted(lm: hw.CausalLM, lines: list[str]) -> np.ndarray[Any, Any]:
    counts = Counter(token for line in lines for token in lm.tokenizer(line)["input_ids"])
    return np.array([counts[token] for token in range(lm.vocabulary)])


def test_chunks_are_kept_as_they_were_cut(tmp_path: Path, lm: hw.CausalLM) -> None:
    index = build(tmp_path / "a", lm)
    right = [lm.chunks(document) for document in texts(TEXTS).documents()]
    for found, wanted in zip(index.chunks(range(10)), right, strict=True):
        assert [(c.offset, c.length) for c in found] == [(c.offset, c.length) for c in wanted]
        for one, other in zip(found, wanted, strict=True):
            for name in ("input_ids", "labels"):
                assert np.array_equal(one.content[name], other.content[name])
                assert one.content[name].dtype == np.int32
    rows = index.manifest["corpus"]["rows"]
    assert rows == sum(len(chunks) for chunks in right) > 10
    owners = np.concatenate([s.document.numpy() + s.first for s in index.shards()])
    assert owners.tolist() == [i for i, chunks in enumerate(right) for _ in chunks]
    assert index.manifest["corpus"]["tokens"] == sum(c.length for cs in right for c in cs)


def test_two_builds_are_the_same_bytes(tmp_path: Path, lm: hw.CausalLM) -> None:
    build(tmp_path / "a", lm)
    build(tmp_path / "b", lm)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("model", {"seed": 1}),
        ("tokenizer", {"vocab": 300}),
        ("max_length", {"max_length": 23}),
        ("overlap", {"overlap": 4}),
        ("truncate", {"truncate": True}),
        ("bos", {"bos": True}),
        ("eos", {"eos": True}),
        ("prompt_loss", {"prompt_loss": True}),
    ],
)
def test_another_model_or_convention_is_refused(
    tmp_path: Path, lm: hw.CausalLM, field: str, options: dict[str, Any]
) -> None:
    build(tmp_path / "a", lm)
    before = tree(tmp_path / "a")
    other = task(**options)
    with pytest.raises(MismatchError, match=f"own task: '{field}"):
        build(tmp_path / "a", other)
    with pytest.raises(MismatchError, match=f"'{field}"):
        hw.Index.open(tmp_path / "a", other)
    assert tree(tmp_path / "a") == before


def test_tokens_are_counted_over_all_parts(tmp_path: Path, lm: hw.CausalLM) -> None:
    index = build(tmp_path / "a", lm)
    assert np.array_equal(index.unigrams(), counted(lm, TEXTS))
    index.append(texts(LATER, "later"))
    assert np.array_equal(index.unigrams(), counted(lm, TEXTS + LATER))
    assert index.verify() == []
    whole = tree(tmp_path / "a")
    flip(tmp_path / "a" / "corpus" / "unigrams.safetensors", 0.9)
    assert index.verify() == ["corpus/unigrams.safetensors"]
    build(tmp_path / "a", lm)
    assert tree(tmp_path / "a") == whole


def test_features_do_not_depend_on_the_shard_they_lie_in(tmp_path: Path, lm: hw.CausalLM) -> None:
    """Batches differ with the shards, and with them the last bits; no more than that."""
    query = hw.Query("the cat sat on", " the mat")
    tables = []
    for name, rows, budget in (("a", 8, 1024), ("b", 3, 30), ("c", 99, 64)):
        plan = hw.Plan(shard_rows=rows, budget=budget)
        features = hw.Features(projection=hw.TwoSided(4, 4), storage="float32")
        index = hw.Index.build(tmp_path / name, lm, texts(TEXTS), features, plan)
        tables.append(hw.scores(index, query, method=hw.GradDot()))
    for table in tables[1:]:
        assert np.allclose(table, tables[0], rtol=1e-4, atol=1e-5 * np.abs(tables[0]).max())
