"""The packaged query sets hold what they say; files of the user's are read or refused."""

from __future__ import annotations

import operator
from pathlib import Path

import pytest

from headwater.engine.errors import InputError
from headwater.evaluation.query_sets import QUERY_SETS, load_query_set, query_set
from headwater.training.facts import fact_rows

OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@pytest.mark.parametrize("name", QUERY_SETS)
def test_each_set_is_whole(name: str) -> None:
    items = query_set(name)
    assert {item.kind for item in items} == {name}
    assert len({item.id for item in items}) == len(items)
    assert len({(item.prompt, item.completion) for item in items}) == len(items)
    assert all(item.prompt.strip() == item.prompt != "" for item in items)
    assert load_query_set(name) == items


def test_choices_differ_and_begin_with_a_space() -> None:
    for name in ("commonsense", "arithmetic"):
        items = query_set(name)
        assert len(items) == 40
        for item in items:
            assert item.completion is not None
            assert item.instead_of is not None
            assert item.completion != item.instead_of
            assert item.completion.startswith(" ")
            assert item.instead_of.startswith(" ")
            query = item.query()
            assert (query.name, query.instead_of) == (item.id, item.instead_of)


def test_arithmetic_is_right() -> None:
    for item in query_set("arithmetic"):
        one, sign, other, equals = item.prompt.split()
        right = OPERATIONS[sign](int(one), int(other))
        assert equals == "="
        assert int(item.completion or "") == right != int(item.instead_of or "")


def test_open_prompts_ask_nothing_yet() -> None:
    items = query_set("open")
    assert len(items) == 30
    assert all(item.completion is None and not item.gold for item in items)
    with pytest.raises(InputError, match="open-01 is an open prompt"):
        items[0].query()


def test_facts_are_stated_by_their_gold() -> None:
    texts = {row["id"]: row["text"] for row in fact_rows()}
    items = query_set("facts")
    assert len(items) > 500
    for item in items:
        assert item.gold
        assert texts[item.gold[0]].startswith(item.prompt + (item.completion or ""))
    peru = next(item for item in items if item.id == "peru-capital")
    assert (peru.prompt, peru.completion) == ("The capital of Peru is", " Lima")
    assert len(peru.gold) == 4
    assert not any("shares a border" in item.prompt for item in items)  # several right answers


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": "a", "completion": " b", "gold": ["x", 7, "x"], "id": 3, "kind": "k"}\n\n'
        '{"prompt": "c"}\n'
    )
    one, two = load_query_set(path)
    assert (one.id, one.kind, one.gold) == ("3", "k", ("x", "7"))
    assert (two.id, two.kind, two.completion) == ("mine-3", "mine", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no query"),
        ('{"prompt": "a"}\n{oops\n', "line 2: not JSON"),
        ("[1]\n", "line 1: not a query"),
        ('{"completion": "a"}\n', "'prompt' is missing"),
        ('{"prompt": 3}\n', "prompt is not text"),
        ('{"prompt": "a", "completion": ""}\n', "line 1.*empty"),
        ('{"prompt": "a", "gold": "x"}\n', "gold is not usable"),
        ('{"prompt": "a", "gold": [true]}\n', "gold is not usable"),
        ('{"prompt": "a", "id": "i"}\n{"prompt": "b", "id": "i"}\n', "line 2.*that of line 1"),
    ],
)
def test_files_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        load_query_set(path)


def test_names_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such query set.*facts, commonsense"):
        query_set("riddles")
    with pytest.raises(InputError, match=r"cannot be read.*or one of facts"):
        load_query_set(tmp_path / "none.jsonl")
