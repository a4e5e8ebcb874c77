"""Packing: no token lost, windows full, documents named."""

from __future__ import annotations

import pytest

import headwater as hw
from headwater.engine.errors import MismatchError
from models import byte_tokenizer, tiny_llama

TEXTS = ["abcdefghij", "klm", "nopqrstuvwxyz", "ab"]


@pytest.fixture
def task() -> hw.CausalLM:
    return hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=8, bos=False, eos=False)


def test_windows_hold_every_token_once_in_order(task: hw.CausalLM) -> None:
    corpus = hw.Corpus.from_columns({"text": TEXTS}, ids=list("wxyz"))
    windows = list(hw.pack(task, corpus).documents())
    joined = [token for window in windows for token in window.content["input_ids"]]
    plain = [int(t) for text in TEXTS for t in task.encoder.texts([text])[0].ids]
    assert joined == plain
    assert [len(window.content["input_ids"]) for window in windows[:-1]] == [8] * (len(windows) - 1)


def test_metadata_names_the_documents_of_each_window(task: hw.CausalLM) -> None:
    corpus = hw.Corpus.from_columns({"text": TEXTS}, ids=list("wxyz"))
    windows = list(hw.pack(task, corpus).documents())
    counts: dict[str, int] = {}
    for window in windows:
        held = window.metadata["documents"]
        assert sum(entry["tokens"] for entry in held) == len(window.content["input_ids"])
        for entry in held:
            counts[entry["id"]] = counts.get(entry["id"], 0) + entry["tokens"]
    assert counts == {
        name: len(task.encoder.texts([text])[0].ids)
        for name, text in zip("wxyz", TEXTS, strict=True)
    }


def test_packed_corpus_is_indexed_by_window(task: hw.CausalLM) -> None:
    packed = hw.pack(task, hw.Corpus.from_columns({"text": TEXTS}))
    index = hw.Index.build(None, task, packed)
    assert [name.partition(":")[0] for name in index.ids] == [
        f"window-{i}" for i in range(len(index))
    ]
    index.append(hw.pack(task, hw.Corpus.from_columns({"text": ["other words altogether"]})))
    alone = hw.Corpus.from_columns({"text": ["documents by themselves"]})
    with pytest.raises(MismatchError, match="not packed alike.*expected windows"):
        index.append(alone)
    plain = hw.Index.build(None, task, hw.Corpus.from_columns({"text": TEXTS}))
    with pytest.raises(MismatchError, match="not packed alike.*found windows"):
        plain.append(hw.pack(task, alone))
    answer = hw.ask(index, hw.Query("abcd", "ef"), top=1, tokens=False)
    assert answer.proponents[0].text in "".join(TEXTS)
    assert answer.proponents[0].text
