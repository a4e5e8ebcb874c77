"""From columns to content: kinds, renaming, ids, and every way in which a row can be bad."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headwater.corpus import Corpus
from headwater.corpus import corpus as corpus_module
from headwater.engine.errors import InputError

USER = {"role": "user", "content": "hi"}


def one(row, **options):
    return next(Corpus.from_documents([row], **options).documents())


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"text": "a", "prompt": "p"}, "text"),
        ({"prompt": "", "completion": "c", "text": "a"}, "prompt"),
        ({"messages": [USER], "prompt": "p", "completion": "c"}, "messages"),
        ({"input_ids": [1], "messages": [USER], "text": "a"}, "tokens"),
    ],
)
def test_kinds_by_precedence(row, kind):
    corpus = Corpus.from_documents([row])
    document = next(corpus.documents())
    assert corpus.kind == kind
    assert {**document.content, **document.metadata} == row


def test_precedence_is_recorded_and_can_be_overruled():
    row = {"text": "a", "input_ids": [1, 2], "body": "b"}
    corpus = Corpus.from_documents([row])
    assert corpus.kind == "tokens"
    assert corpus.describe()["possible_kinds"] == ["tokens", "text"]
    assert Corpus.from_documents([row], kind="text").kind == "text"
    renamed = Corpus.from_documents([row], columns={"text": "body"})
    assert renamed.kind == "text", "a column named in columns= comes first"
    assert next(renamed.documents()).content == {"text": "b"}
    assert renamed.describe()["hidden_columns"] == ["text"]


def test_columns_map_our_word_to_theirs():
    row = {"body": "b", "source": "web", "doc_id": 7, "other": None}
    corpus = Corpus.from_documents(
        [row], columns={"text": "body", "id": "doc_id", "group": "source"}
    )
    document = next(corpus.documents())
    assert (document.id, document.content) == ("7", {"text": "b"})
    assert document.metadata == {"group": "web", "other": None}
    assert corpus.describe()["columns"] == {"text": "body", "id": "doc_id", "group": "source"}


def test_columns_may_swap_names():
    document = one({"text": "title", "body": "long"}, columns={"text": "body", "body": "text"})
    assert document.content == {"text": "long"}
    assert document.metadata == {"body": "title"}


def test_a_renamed_column_that_a_row_lacks_is_not_made_up():
    rows = [{"body": "long", "text": "title"}, {"text": "title"}]
    corpus = Corpus.from_documents(rows, columns={"text": "body"})
    with pytest.raises(InputError, match="row 2: no body"):
        list(corpus.documents())


@pytest.mark.parametrize(
    ("columns", "kind", "message"),
    [
        ({"text": "nope"}, None, r"has no column 'nope' \(asked for as 'text'\).*found a, b"),
        (None, None, r"expected input_ids .*; found a, b.*our words are text, prompt, completion"),
        ({"my text": "a"}, None, "no word 'my text'; expected one of text, prompt, completion"),
        ({"text": 3}, None, "expected two strings"),
        ({"text": "a"}, "chat", "unknown kind; expected one of tokens, messages, prompt, text"),
        ({"text": "a"}, "tokens", "cannot be read as tokens; expected columns input_ids"),
        ({"prompt": "a"}, None, "no column to learn from"),
    ],
)
def test_columns_that_do_not_fit(columns, kind, message):
    with pytest.raises(InputError, match=message):
        Corpus.from_documents([{"a": "x", "b": "y"}], columns=columns, kind=kind)


def test_columns_seen_late():
    rows = [{"text": str(n)} for n in range(300)] + [{"text": "x", "source": "web"}]
    corpus = Corpus.from_documents(rows, columns={"group": "source"})
    assert list(corpus.documents())[-1].metadata == {"group": "web"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"other": 1}, "no text; expected a value in column 'text'; found columns other"),
        ({"text": None}, "no text; .*found null"),
        ({"text": b"a"}, "text is not text; expected a string; found bytes"),
        ({"text": " \n"}, "text is empty"),
        ({"text": "\ud800"}, "not valid Unicode"),
        ({"text": "a", "id": "late"}, "an id, where the rows before have none"),
        ({"prompt": "p", "completion": ""}, "completion is empty"),
        ({"prompt": 1, "completion": "c"}, "prompt is not text"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "hi"}, "messages is not a list"),
        ({"messages": ["hi"]}, "message 1 is not a chat message; .*found 'hi'"),
        ({"messages": [USER, {"content": "x"}]}, "message 2 is not a chat message; .*role None"),
        ({"messages": [{"role": "user"}]}, "content None"),
        ({"messages": [{"role": "user", "content": 3}]}, "content int 3"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, "not valid Unicode"),
        ({"messages": [{"role": "user", "content": " "}]}, "every message is empty"),
        ({"input_ids": []}, "input_ids is empty"),
        ({"input_ids": 5}, "input_ids is not a list"),
        ({"input_ids": [1, -1]}, "out of range; .*found -1"),
        ({"input_ids": [1, 2**31]}, "out of range"),
        ({"input_ids": [1, 2.0]}, "not a list of integers; found float 2.0"),
        ({"input_ids": [1, True]}, "not a list of integers; found bool True"),
        ({"input_ids": [1, 2], "labels": [1]}, "expected 2 labels; found 1"),
        ({"input_ids": [1, 2], "labels": [-100, -100]}, "labels are all -100"),
        ({"input_ids": [1, 2], "labels": [-1, 2]}, "labels out of range; .*found -1"),
    ],
)
def test_bad_rows(row, reason):
    good = {"text": "a"}
    for name, example in (
        ("input_ids", {"input_ids": [1]}),
        ("messages", {"messages": [USER]}),
        ("prompt", {"prompt": "p", "completion": "c"}),
    ):
        good = example if name in row else good
    # An id counts as late after the rows from which the columns are settled.
    rows = [good] * 100 + [row, good]
    with pytest.raises(InputError, match=f"documents, row 101: .*{reason}.*skip_bad=True"):
        list(Corpus.from_documents(rows).documents())
    corpus = Corpus.from_documents(rows, skip_bad=True)
    assert len(list(corpus.documents())) == 101
    assert [bad.row for bad in corpus.bad] == [101]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
        {"messages": [{"role": "system", "content": ""}, USER]},
        {"input_ids": [0, 1], "labels": [-100, 1]},
        {"prompt": "", "completion": "c"},
    ],
)
def test_rows_that_are_fine(row):
    assert one(row).content == row


def test_null_labels_are_absent_ones():
    assert one({"input_ids": [1], "labels": None}).content == {"input_ids": [1]}
    assert one({"input_ids": [1], "labels": None}).metadata == {}


def test_messages_are_the_same_from_parquet_and_from_json(tmp_path):
    chats = [[USER], [USER, {"role": "assistant", "content": "x", "name": "bot"}]]
    pq.write_table(pa.table({"messages": chats}), tmp_path / "a.parquet")
    text = "".join(json.dumps({"messages": chat}) + "\n" for chat in chats)
    (tmp_path / "a.jsonl").write_text(text)
    found = [list(Corpus.open(tmp_path / f"a.{end}").documents()) for end in ("parquet", "jsonl")]
    assert found[0] == found[1]
    assert found[0][0].content == {"messages": [USER]}


def test_ids_from_content_and_occurrence():
    rows = [{"text": t, "n": n} for n, t in enumerate(["a", "b", "a", "a"])]
    corpus = Corpus.from_documents(rows)
    ids = [document.id for document in corpus.documents()]
    first, end = ids[0].split("-")
    assert (len(first), end) == (16, "0")
    assert ids == [f"{first}-0", ids[1], f"{first}-1", f"{first}-2"]
    assert [document.id for document in corpus.documents()] == ids


def test_given_ids_are_text():
    ids = [
        document.id
        for document in Corpus.from_documents(
            [{"text": "a", "id": value} for value in ("x", 3, 2.5, np.int64(4))]
        ).documents()
    ]
    assert ids == ["x", "3", "2.5", "4"]


@pytest.mark.parametrize("value", [None, "", True, [1]])
def test_unusable_ids(value):
    rows = [{"text": "a", "id": "1"}, {"text": "b", "id": value}]
    with pytest.raises(InputError, match="row 2: no (usable )?id"):
        list(Corpus.from_documents(rows).documents())


@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_id_there_twice_names_both_places(tmp_path, skip_bad):
    for name, ids in (("a", "xy"), ("b", "zy")):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": "t", "id": one}) + "\n" for one in ids)
        )
    corpus = Corpus.open(tmp_path, skip_bad=skip_bad)
    with pytest.raises(
        InputError, match=r"'y' is there twice: .*a\.jsonl, line 2 and .*b\.jsonl, "
    ):
        list(corpus.documents())
    twice = Corpus.open([tmp_path / "a.jsonl"] * 2, skip_bad=skip_bad)
    with pytest.raises(InputError, match="'x' is there twice"):
        list(twice.documents())


def test_ids_whose_hashes_collide_are_not_duplicates(monkeypatch):
    class Same:
        def digest(self):
            return bytes(32)

    monkeypatch.setattr(corpus_module.hashlib, "sha256", lambda *_: Same())
    rows = [{"text": "t", "id": name} for name in "xyz"]
    assert [document.id for document in Corpus.from_documents(rows).documents()] == list("xyz")


def test_rows_that_are_no_dicts():
    corpus = Corpus.from_documents([{"text": "a"}, ["text"]], skip_bad=True)
    assert corpus.count() == 1
    assert "expected a dict" in corpus.bad[0].reason
