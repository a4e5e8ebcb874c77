"""Folders in infini-gram's format, written here by sorting, give what our own files give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
import headwater.evidence.infini_gram as infini_gram
from headwater.engine.errors import DamageError, InputError
from headwater.evidence.infini_gram import InfiniGram
from headwater.evidence.spans import Tracing, trace
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from infini_gram_files import write
from models import SENTENCES, byte_tokenizer
from phrase_models import check, glued_bytes, letters, text_index, wide


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=10), min_size=2, max_size=8),
    st.lists(st.integers(0, 3), min_size=1, max_size=10),
    st.sampled_from([(1, 1), (2, None), (2, 5), (4, 3)]),
    st.integers(1, 2),
)
@settings(max_examples=60, deadline=None)
def test_equals_naive_search(tmp_path_factory, documents, query, sizes, shards):
    folder = tmp_path_factory.mktemp("folder")
    half = len(documents) // 2
    parts = [documents] if shards == 1 else [documents[:half], documents[half:]]
    write(folder, parts, width=sizes[0], pointer=sizes[1])
    found = InfiniGram.open(folder, letters(), token_bytes=sizes[0])
    check(found, documents, query)
    assert [found.document_tokens(i).tolist() for i in range(len(found))] == documents
    assert found.tokens == sum(map(len, documents))
    counts = np.bincount(np.concatenate(documents).astype(int), minlength=10)
    assert found.unigrams.tolist() == counts.tolist()


def test_ids_sort_by_low_byte_in_such_a_table(tmp_path):
    documents = [[256, 1, 255, 2], [1, 256, 65533, 1], [512, 1, 256]]
    write(tmp_path, [documents])
    check(InfiniGram.open(tmp_path, wide(65534)), documents, [1, 256, 65533, 1])


def test_traces_like_our_own(tmp_path):
    tokenizer = TextTokenizer.from_json(byte_tokenizer().backend_tokenizer.to_str(), "bytes")
    texts = [*SENTENCES, "Café Lima: 🙂🙃 Peru."]
    documents = [tokenizer.encode(text).ids.tolist() for text in texts]
    write(tmp_path, [documents[:2], documents[2:]], metadata=True)
    theirs = InfiniGram.open(tmp_path, tokenizer)
    ours = Verbatim.open(text_index(texts), tokenizer)
    output = "So the cat sat on the mat 🙂🙃 Peru, and a river runs"
    settings = Tracing(density=1.0)
    found, own = trace(theirs, output, settings=settings), trace(ours, output, settings=settings)
    assert [span.parts for span in found] == [span.parts for span in own]
    assert len(found) == 3
    for one, other in zip(found, own, strict=True):
        for document, right in zip(one.documents, other.documents, strict=True):
            assert document.position == right.position
            assert document.matches == right.matches
            assert document.snippet == right.snippet
            assert document.score == pytest.approx(right.score)
    assert theirs.source(0) == ("f0:0", {"url": "u0", "path": "f0", "linenum": 0})
    assert theirs.source(3)[0] == "f1:1"
    assert found[0].documents[0].url is not None


def test_public_names():
    assert (hw.InfiniGram, hw.trace) == (InfiniGram, trace)


def test_one_shard_without_a_number_and_no_metadata(tmp_path):
    write(tmp_path, [[[1, 2], [3]]], numbered=False)
    found = InfiniGram.open(tmp_path, letters())
    assert found.count([1, 2]) == 1
    assert found.source(1) == ("1", {})
    assert found.describe()["documents"] == 2


def test_counts_of_tokens_from_their_files(tmp_path):
    write(tmp_path, [[[1, 2, 2]], [[2]]])
    (tmp_path / "unigram.0").write_text("1 1\n2 2\n65535 1\n")
    found = InfiniGram.open(tmp_path, letters())
    assert found.unigrams[:4].tolist() == [0, 1, 3, 0]
    assert np.exp(found.log_probabilities([1, 2, 5])) == pytest.approx([0.25, 0.75, 0.0])
    (tmp_path / "unigram.0").write_text("x y\n")
    with pytest.raises(DamageError, match=r"unigram\.0"):
        _ = InfiniGram.open(tmp_path, letters()).unigrams


def test_more_than_ten_shards_stand_in_order(tmp_path):
    write(tmp_path, [[[i % 3, i % 7]] for i in range(12)])
    found = InfiniGram.open(tmp_path, letters())
    documents = [[i % 3, i % 7] for i in range(12)]
    check(found, documents, [1, 4, 0])


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["table.0", "offset.0"])
def test_truncated_files_are_named(tmp_path, name):
    write(tmp_path, [[[1, 2, 3], [4, 5]]])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-3])
    with pytest.raises(DamageError, match=name.replace(".", r"\.")):
        InfiniGram.open(tmp_path, letters())


@pytest.mark.parametrize("name", ["table.0", "offset.0"])
def test_missing_files_are_named(tmp_path, name):
    write(tmp_path, [[[1, 2, 3]]])
    (tmp_path / name).unlink()
    with pytest.raises(DamageError, match=name.replace(".", r"\.")):
        InfiniGram.open(tmp_path, letters())


@pytest.mark.parametrize("left", [0, 1, 13, 15])
def test_truncated_places_of_metadata_are_named(tmp_path, left):
    write(tmp_path, [[[1, 2, 3], [4, 5]]], metadata=True)
    found = InfiniGram.open(tmp_path, letters())
    whole = (tmp_path / "metaoff.0").read_bytes()
    (tmp_path / "metaoff.0").write_bytes(whole[:left])
    with pytest.raises(DamageError, match=r"metaoff\.0 is damaged.*16 bytes"):
        found.source(0)
    (tmp_path / "metaoff.0").write_bytes(whole[:-1] + b"\xff")
    with pytest.raises(DamageError, match=r"metaoff\.0 is damaged"):
        found.source(1)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ([0, 8, 4], "ascend"),
        ([0, 8, 8], "ascend"),
        ([2, 8, 14], "from 0"),
        ([0, 8, 400], "below 18"),
        ([0, 8, -1], "below 18"),
        ([0, 6, 14], "no separator|there is none"),
        ([0, 7, 14], "there is none"),
    ],
)
@pytest.mark.parametrize("checked", [1, 1 << 16])
def test_flipped_offsets_are_no_other_documents(tmp_path, monkeypatch, numbers, said, checked):
    write(tmp_path, [[[1, 2, 3], [4, 5], [1]]])
    assert np.fromfile(tmp_path / "offset.0", dtype="<i8").tolist() == [0, 8, 14]
    np.array(numbers, dtype="<i8").tofile(tmp_path / "offset.0")
    monkeypatch.setattr(infini_gram, "CHECKED", checked)
    if checked > 1 or "none" not in said:  # of many, separators are looked up for some
        with pytest.raises(DamageError, match=rf"offset\.0 is damaged.*({said})"):
            InfiniGram.open(tmp_path, letters())


def test_tokens_that_the_tokenizer_does_not_have(tmp_path):
    write(tmp_path, [[[1, 2, 3]], [[4, 5], [10]]])
    with pytest.raises(InputError, match="not of the tokenizer letters; expected ids below 10"):
        InfiniGram.open(tmp_path, letters())


def test_texts_that_another_tokenizer_would_cut_otherwise(tmp_path, caplog):
    tokenizer = TextTokenizer.from_json(
        byte_tokenizer(vocab=285).backend_tokenizer.to_str(), "bytes"
    )
    documents = [tokenizer.encode(text * 3).ids.tolist() for text in SENTENCES]
    write(tmp_path, [documents])
    InfiniGram.open(tmp_path, tokenizer)
    assert not caplog.messages
    InfiniGram.open(tmp_path, glued_bytes())
    assert "does not look like tokens of glued" in caplog.text


def test_another_tokenizer(tmp_path):
    write(tmp_path, [[[1, 2, 3]]])
    with pytest.raises(InputError, match="does not begin with a separator"):
        InfiniGram.open(tmp_path, wide(70000))
    with pytest.raises(InputError, match="not of the tokenizer"):
        InfiniGram.open(tmp_path, letters()).count([11])


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="no infini-gram index"):
        InfiniGram.open(tmp_path / "none", letters())
    with pytest.raises(InputError, match="1, 2 or 4"):
        InfiniGram.open(tmp_path, letters(), token_bytes=3)
