"""An estimate agrees with the build it speaks of."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.index import estimate as module
from models import byte_tokenizer, tiny_llama


@pytest.fixture(scope="module")
def task() -> hw.CausalLM:
    return hw.CausalLM(tiny_llama(dtype=torch.float32), byte_tokenizer())


def rows(count: int) -> list[dict[str, str]]:
    return [
        {"id": str(i), "text": f"Line {i}: the cat sat on the mat. " * (1 + i % 3)}
        for i in range(count)
    ]


def written(path: Path, count: int) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows(count))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    return path


@pytest.mark.parametrize("storage", ["int8", "float16", "float32", "rank1"])
def test_sizes_are_those_of_the_build(task: hw.CausalLM, tmp_path: Path, storage: Any) -> None:
    corpus = hw.Corpus.open(written(tmp_path / "c.jsonl", 120))
    features = hw.Features(storage=storage)
    told = hw.estimate(task, corpus, features)
    index = hw.Index.build(tmp_path / "index", task, corpus, features)
    size = index.manifest["corpus"]
    assert (told.documents, told.chunks, told.tokens) == (
        size["documents"],
        size["rows"],
        size["tokens"],
    )
    assert told.counted
    assert told.dimensions == index.size
    assert told.coverage == index.manifest["coverage"]
    for name, wanted in told.disk_bytes.items():
        real = sum(p.stat().st_size for p in (tmp_path / "index" / name).rglob("*"))
        if name == "corpus":
            continue  # token counts and the summary stand beside it
        assert wanted == pytest.approx(real, rel=0.2)
    assert told.seconds > 0
    assert told.tokens_per_second > 0
    assert told.peak_memory_bytes > 1e7


@pytest.mark.parametrize(("name", "how"), [("c.jsonl", "bytes"), ("c.jsonl.gz", "a count")])
def test_a_large_corpus_is_extrapolated(
    task: hw.CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, how: str
) -> None:
    corpus = hw.Corpus.open(written(tmp_path / name, 400))
    whole = hw.estimate(task, corpus)
    monkeypatch.setattr(module, "SAMPLE", 60)
    told = hw.estimate(task, corpus)
    assert whole.counted
    assert not told.counted
    assert how in told.basis
    assert told.documents == pytest.approx(400, rel=0.05)
    assert told.tokens == pytest.approx(whole.tokens, rel=0.1)


def test_parquet_says_its_rows(
    task: hw.CausalLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows(200)), tmp_path / "c.parquet")
    monkeypatch.setattr(module, "SAMPLE", 30)
    told = hw.estimate(task, hw.Corpus.open(tmp_path / "c.parquet"))
    assert (told.documents, told.counted) == (200, False)
    assert "rows" in told.basis
    picked = hw.Corpus.open(tmp_path / "c.parquet").select(where=lambda d: d.id < "2")
    assert "a count" in hw.estimate(task, picked).basis


def test_what_cannot_be_used(task: hw.CausalLM) -> None:
    values = [{"input_ids": [1, 2, 3]}, {"input_ids": [1, 99999]}]
    corpus = hw.Corpus.from_documents(values)
    with pytest.raises(InputError, match="99999"):
        hw.estimate(task, corpus)
    assert hw.estimate(task, corpus, plan=hw.Plan(skip_bad=True)).skipped == 1
