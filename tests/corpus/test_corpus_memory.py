"""Corpora of columns in memory: arrays, tensors, lists, and lists of text."""

import json

import numpy as np
import pytest
import torch

from headwater.corpus import Corpus
from headwater.engine.errors import InputError


def test_arrays_and_tensors():
    x = torch.arange(12, dtype=torch.float32).reshape(3, 4).requires_grad_()
    corpus = Corpus.from_columns(
        {"x": x, "y": np.array([0, 1, 0])}, ids=["a", "b", 3], metadata={"label": ["u", None, "w"]}
    )
    assert corpus.kind == "columns"
    rows = list(corpus.documents())
    assert [row.id for row in rows] == ["a", "b", "3"]
    assert [row.metadata for row in rows] == [{"label": "u"}, {"label": None}, {"label": "w"}]
    np.testing.assert_array_equal(rows[1].content["x"], np.array([4, 5, 6, 7], np.float32))
    assert rows[1].content["x"].dtype == np.float32
    assert rows[1].content["y"] == 1
    assert isinstance(rows[1].content["y"], np.int64)
    json.dumps(corpus.describe())


def test_bfloat16_keeps_its_values():
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    rows = [row.content["x"] for row in Corpus.from_columns({"x": x}).documents()]
    np.testing.assert_array_equal(np.stack(rows), x.float().numpy())


def test_equal_rows_get_occurrences():
    ids = [d.id for d in Corpus.from_columns({"x": [1.0, 2.0, 1.0]}).documents()]
    assert ids[0][:-1] == ids[2][:-1]
    assert [name[-1] for name in ids] == ["0", "0", "1"]


def test_rows_of_different_lengths():
    corpus = Corpus.from_columns({"sound": [np.zeros(3, np.float32), torch.ones(2)], "y": [0, 1]})
    sounds = [row.content["sound"] for row in corpus.documents()]
    assert [sound.tolist() for sound in sounds] == [[0, 0, 0], [1, 1]]
    assert {sound.dtype for sound in sounds} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("columns", "kind", "content"),
    [
        ({"text": ["a"]}, "text", {"text": "a"}),
        ({"prompt": ["p"], "completion": ("c",)}, "prompt", {"prompt": "p", "completion": "c"}),
        (
            {"messages": [[{"role": "user", "content": "x"}]]},
            "messages",
            {"messages": [{"role": "user", "content": "x"}]},
        ),
        ({"input_ids": [[1, 2]]}, "tokens", {"input_ids": [1, 2]}),
        ({"input_ids": [torch.tensor([1, 2])]}, "tokens", {"input_ids": [1, 2]}),
        (
            {"input_ids": torch.tensor([[1, 2]]), "labels": np.array([[-100, 2]])},
            "tokens",
            {"input_ids": [1, 2], "labels": [-100, 2]},
        ),
        ({"text": np.array(["a"])}, "text", {"text": "a"}),
    ],
)
def test_columns_of_the_other_kinds(columns, kind, content):
    corpus = Corpus.from_columns(columns, metadata={"source": ["web"]})
    document = next(corpus.documents())
    assert corpus.kind == kind
    assert document.content == content
    assert document.metadata == {"source": "web"}


def test_names_alone_make_no_language_corpus():
    inputs = torch.tensor([[1, 2], [3, 4]])
    assert Corpus.from_columns({"input_ids": inputs, "labels": [0, 1]}).kind == "columns"
    assert Corpus.from_columns({"text": [1, 2]}).kind == "columns"
    corpus = Corpus.from_columns({"text": ["a", "bcd"], "y": [0, 1]})
    assert corpus.kind == "columns"
    assert [row.content["text"] for row in corpus.documents()] == ["a", "bcd"]


def test_bad_rows_of_columns():
    with pytest.raises(InputError, match="columns, row 2: text is empty"):
        list(Corpus.from_columns({"text": ["a", ""]}).documents())
    with pytest.raises(InputError, match="'x' is there twice: columns, row 1 and columns, row 3"):
        list(Corpus.from_columns({"y": [1, 2, 3]}, ids=["x", "y", "x"]).documents())


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "no columns"),
        ({"x": []}, {}, "columns are empty"),
        ({"x": [1, 2], "y": [1]}, {}, "differ in length; expected one length; found x: 2, y: 1"),
        ({"x": [1]}, {"ids": ["a", "b"]}, "differ in length"),
        ({"x": [1]}, {"metadata": {"m": [1, 2]}}, "differ in length"),
        ({"x": [1]}, {"metadata": {"x": [1]}}, "'x' is not free"),
        ({"id": [1]}, {}, "'id' is not free"),
        ({"x": 3}, {}, "'x' is not a column; expected array, tensor or list; found int 3"),
        ({"x": "abc"}, {}, "'x' is not a column"),
        ({"x": torch.tensor(1)}, {}, "'x' is not a column"),
        ({"x": [1, "a"]}, {}, "neither numbers nor text; .*types int, str"),
        ({"x": [None, 1]}, {}, "neither numbers nor text; .*dtype object"),
        ({"x": [1, [2, 3]]}, {}, "numbers and arrays mixed"),
        ({"x": [1]}, {"metadata": {"m": "a"}}, "'m' is not a column"),
    ],
)
def test_refuses(columns, options, message):
    with pytest.raises(InputError, match=message):
        Corpus.from_columns(columns, **options)
