"""An index without features: the examples, whole and found again; and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import headwater as hw
from headwater.engine.errors import DamageError, InputError, MismatchError
from headwater.index.manifest import read_manifest
from headwater.tasks.texts import Texts
from models import byte_tokenizer, tiny_llama

ROWS = [{"id": f"d{i}", "text": f"example number {i}", "source": "ab"[i % 2]} for i in range(10)]


def build(folder: Path | None, rows: list[dict[str, str]] = ROWS, task: object = None) -> hw.Index:
    corpus = hw.Corpus.from_documents(rows)
    plan = hw.Plan(shard_rows=4)
    return hw.Index.build(folder, task or Texts(), corpus, None, plan)  # type: ignore[arg-type]


def test_it_holds_its_examples(tmp_path: Path) -> None:
    build(tmp_path / "a")
    index = hw.Index.open(tmp_path / "a")
    assert len(index) == 10
    assert index.ids == [row["id"] for row in ROWS]
    assert [d.content["text"] for d in index.stream()] == [row["text"] for row in ROWS]
    assert index.documents([7, 2])[0].metadata == {"source": "b"}
    assert index.metadata("source")[:2] == ["a", "b"]
    assert not index.has_features
    assert index.verify() == []
    assert "texts" in repr(index)


def test_it_resumes_appends_and_notices_damage(tmp_path: Path) -> None:
    build(tmp_path / "a")
    before = (tmp_path / "a" / "manifest.json").read_bytes()
    build(tmp_path / "a")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == before
    with pytest.raises(MismatchError):
        build(tmp_path / "a", ROWS[:5])
    shard = tmp_path / "a" / "corpus" / "00001.parquet"
    good = shard.read_bytes()
    shard.write_bytes(good[:-9])
    assert hw.Index.open(tmp_path / "a").verify() == ["corpus/00001.parquet"]
    build(tmp_path / "a")
    assert shard.read_bytes() == good
    more = [{"id": "new", "text": "one more", "source": "c"}]
    index = hw.Index.open(tmp_path / "a")
    index.append(hw.Corpus.from_documents(more))
    assert hw.Index.open(tmp_path / "a").ids[-1] == "new"
    assert read_manifest(tmp_path / "a")["complete"]


def test_appended_copies_are_counted(tmp_path: Path) -> None:
    index = build(tmp_path / "a")
    assert index.manifest["corpus"]["duplicates"]["duplicates"] == 0
    again = [row | {"id": f"again-{row['id']}"} for row in ROWS[:4]]
    index.append(hw.Corpus.from_documents(again))
    assert hw.Index.open(tmp_path / "a").manifest["corpus"]["duplicates"]["duplicates"] == 4


def test_a_model_may_be_there(tmp_path: Path) -> None:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=16)
    index = build(None, task=task)
    assert index.unigrams() is not None
    assert sum(len(chunks) for chunks in index.chunks(range(10))) >= 10


def test_what_it_refuses(tmp_path: Path) -> None:
    index = build(tmp_path / "a")
    for method in (hw.GradDot(), hw.TrackStar()):
        with pytest.raises(InputError, match="holds no features"):
            hw.scores(index, hw.Query("a", "b"), method=method)
    with pytest.raises(InputError, match="no text"):
        hw.Index.build(None, Texts(), hw.Corpus.from_columns({"x": [[1.0]], "y": [1]}), None)
    with pytest.raises(InputError, match="need a model"):
        hw.Index.build(None, Texts(), hw.Corpus.from_documents(ROWS))
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=16)
    with pytest.raises(MismatchError):
        hw.Index.build(tmp_path / "a", task, hw.Corpus.from_documents(ROWS))


def test_it_is_read_without_torch(tmp_path: Path) -> None:
    build(tmp_path / "a")
    code = (
        "import sys, headwater as hw\n"
        f"index = hw.Index.open({str(tmp_path / 'a')!r})\n"
        "assert len(index.documents([1, 2])) == 2 and index.ids\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_damaged_scale_is_no_score(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=16)
    index = hw.Index.build(tmp_path / "a", task, hw.Corpus.from_documents(ROWS))
    path = tmp_path / "a" / "features" / "00000.safetensors"
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    tensors["scale"][3] = float("inf")
    save_file(tensors, path)
    index = hw.Index.open(tmp_path / "a", task)
    with pytest.raises(DamageError, match="shard 0 are damaged"):
        hw.scores(index, hw.Query("example", " number"), method=hw.GradDot())
