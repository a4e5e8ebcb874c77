"""`headwater memorization` on a tiny model that knows two lines by heart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import Command, rows, write_rows

import headwater
from headwater.corpus.document import Document
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.texts import Texts
from infini_gram_files import write
from models import byte_tokenizer, tiny_llama

LINES = [
    "Trains to Lima cross Peru, and in the end they come to the sea.",
    "Nairobi lies in Kenya, where the long rains begin in the spring.",
]


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that was trained on the two lines until it says nothing else."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = tiny_llama(tied=False, dtype=torch.float32, max_position_embeddings=96)
    task = CausalLM(model, byte_tokenizer(), max_length=80)
    chunks = [
        c for i, text in enumerate(LINES) for c in task.chunks(Document(str(i), {"text": text}))
    ]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    batch = task.collate(chunks)
    for _ in range(100):
        optimizer.zero_grad()
        task.loss(batch).mean().backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("learnt")
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus without a model: one of the two lines in six documents, and other things."""
    folder = tmp_path_factory.mktemp("texts") / "index"
    held = [{"id": f"line-{i}", "text": f"{i}: {LINES[0]}"} for i in range(6)]
    corpus = headwater.Corpus.from_documents([*held, *rows()])
    headwater.Index.build(folder, Texts(), corpus, features=None)
    return folder


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    lines = [
        {"prompt": LINES[0][:16], "domain": "trains", "id": "a"},
        {"prompt": LINES[1][:16], "domain": "rain", "id": "b"},
    ]
    return write_rows(tmp_path / "p.jsonl", lines)


WORDS = ("--samples", 2, "--max-tokens", 30)


def test_the_line_of_the_corpus_is_found(
    hw: Command, tmp_path: Path, texts: Path, learnt: Path, prompts: Path
) -> None:
    file = tmp_path / "windows.jsonl"
    command = ("memorization", texts, "--prompts", prompts, "--model", learnt, *WORDS)
    ended = hw(*command, "--json", "--out", file)
    assert ended.code == 0, ended.err
    assert f"windows in {file}" in ended.err
    whole, trains, rain = ended.json["groups"]
    assert (whole["name"], trains["name"], rain["name"]) == (None, "trains", "rain")
    assert whole["prompts"] == 2
    assert whole["outputs"] == 4
    assert trains["categories"]["segmental"]["windows"] > 10
    assert trains["match"]["value"] > 0.9
    assert rain["match"]["value"] < 0.3
    assert ended.json["settings"]["sampling"]["samples"] == 2
    assert any("not a cause" in note for note in ended.json["notes"])
    windows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(windows) == whole["windows"]
    assert {w["id"] for w in windows if w["count"] == 6} == {"a"}
    again = hw(*command, "--json", "--out", file)
    assert again.json == ended.json


def test_the_table(hw: Command, texts: Path, learnt: Path, prompts: Path) -> None:
    ended = hw("memorization", texts, "--prompts", prompts, "--model", learnt, *WORDS)
    assert ended.code == 0, ended.err
    for said in ("windows", "trains", "rain", "segmental", "5-49", "50+", "shuffled", "examples"):
        assert said in ended.out
    assert "not a cause" in ended.out
    assert "prompt a, sample 0" in ended.out  # as --out has it
    assert f"{'0 %':<15}100 %" in ended.out
    assert "e+" not in ended.out
    assert ended.out.count("shuffled") == 3  # a row, a column of the domains, and a note
    assert "Intervals: 95 %" in ended.out
    (prompts.parent / "one.jsonl").write_text(prompts.read_text().splitlines()[0])
    alone = ("--prompts", prompts.parent / "one.jsonl", "--model", learnt)
    one = hw("memorization", texts, *alone, *WORDS)
    assert "No intervals" in one.out
    assert one.out.count("shuffled") == 2
    assert "by domain" not in one.out


def test_given_outputs_and_another_tokenizer(
    hw: Command, tmp_path: Path, texts: Path, learnt: Path
) -> None:
    given = [{"prompt": line[:16], "completion": line[16:]} for line in LINES]
    file = write_rows(tmp_path / "o.jsonl", [*given, given[0]])
    command = ("memorization", texts, "--outputs", file, "--model", learnt, "--json")
    ended = hw(*command)
    assert ended.code == 0, ended.err
    (whole,) = ended.json["groups"]
    assert (whole["prompts"], whole["outputs"]) == (2, 3)
    assert whole["categories"]["segmental"]["windows"] > 10
    words = hw(*command, "--tokenizer", "words")
    assert words.code == 0, words.err
    assert "again by words" in words.json["manner"]
    assert words.json["groups"][0]["windows"] == whole["windows"]
    assert 0 < words.json["groups"][0]["match"]["value"] <= 1


def test_a_corpus_that_others_have_indexed(
    hw: Command, tmp_path: Path, texts: Path, learnt: Path
) -> None:
    """The same counts from a folder in infini-gram's format, whatever OUT holds."""
    lines = [{"prompt": line[:16], "completion": line[16:]} for line in LINES]
    file = write_rows(tmp_path / "o.jsonl", lines)
    tokenizer = byte_tokenizer()
    documents = [doc.content["text"] for doc in headwater.Index.open(texts).stream()]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents]
    folder = write(tmp_path / "theirs", [ids[:5], ids[5:]])
    index = tmp_path / "index"
    headwater.Index.build(index, Texts(), headwater.Corpus.from_documents(rows()), features=None)
    command = ("memorization", "--outputs", file, "--model", learnt, "--json")
    own = hw(*command, texts)
    assert own.code == 0, own.err
    theirs = hw(*command, index, "--corpus", folder, "--corpus-tokenizer", learnt)
    assert theirs.code == 0, theirs.err
    assert theirs.json["groups"] == own.json["groups"]
    assert theirs.json["groups"][0]["categories"]["segmental"]["windows"] > 10
    for words in (
        ("--corpus", folder),
        ("--corpus-tokenizer", learnt),
        ("--corpus", folder, "--corpus-tokenizer", learnt, "--tokenizer", "words"),
    ):
        assert "--corpus FOLDER with --corpus-tokenizer NAME" in hw(*command, index, *words).error
    nowhere = ("--corpus", tmp_path, "--corpus-tokenizer", learnt)
    assert "no infini-gram index" in hw(*command, index, *nowhere).error


def test_plain_text_prompts_and_the_indexs_own_model(
    hw: Command, tmp_path: Path, index: Path
) -> None:
    file = tmp_path / "p.txt"
    file.write_text("The capital of\n\nLima lies in\n")
    ended = hw(
        "memorization", index, "--prompts", file, "--samples", 1, "--max-tokens", 8, "--json"
    )
    assert ended.code == 0, ended.err
    assert ended.json["groups"][0]["prompts"] == 2
    bare = hw("memorization", index, "--prompts", file, "--samples", 1, "--max-tokens", 8)
    assert "0 windows" in bare.out


def test_refuses(hw: Command, tmp_path: Path, texts: Path, index: Path, prompts: Path) -> None:
    def error(*words: object) -> str:
        ended = hw("memorization", index, *words)
        assert ended.code == 2, ended.err
        return ended.error

    assert "--prompts FILE" in error()
    assert "both given" in error("--prompts", prompts, "--outputs", prompts)
    assert "cannot be read" in error("--prompts", tmp_path / "none")
    assert "'completion' is missing" in error("--outputs", prompts)
    assert ".jsonl" in error("--prompts", prompts, "--out", "w.csv")
    assert "threshold" in error("--prompts", prompts, "--threshold", 2)
    assert "length 0" in error("--prompts", prompts, "--window", 0)
    assert "samples" in error("--prompts", prompts, "--samples", 0)
    assert "no room" in error("--prompts", prompts, "--max-tokens", 500)
    assert "no such tokenizer" in error("--prompts", prompts, "--max-tokens", 2, "--tokenizer", "x")
    cases = {
        "": "no prompt",
        '{"prompt": "a"}\n{"prompt": }\n': "line 2: not JSON",
        '{"prompt": "a"}\n[1]\n': "line 2: not a prompt",
        '{"text": "a"}\n': "'prompt' is missing",
        '{"prompt": 3}\n': "prompt is not text",
        '{"prompt": ""}\n': "Prompt 1 is empty",
    }
    for text, said in cases.items():
        (tmp_path / "bad.jsonl").write_text(text)
        assert said in error("--prompts", tmp_path / "bad.jsonl", "--max-tokens", 4)
    ended = hw("memorization", texts, "--prompts", prompts)
    assert "--model MODEL" in ended.error
    assert "no index" in hw("memorization", tmp_path / "nowhere", "--prompts", prompts).error
