"""Chosen words of a completion: just their tokens are explained, and the query says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.engine.errors import InputError
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.query import Query
from models import TEMPLATE, byte_tokenizer, tiny_llama

PROMPT, SAID = "The capital of Peru is", " Lima, and Quito that of Ecuador."


def task_of(**options: Any) -> CausalLM:
    return CausalLM(tiny_llama(), byte_tokenizer(**options))


TASK = task_of()


def explained(query: Query, task: CausalLM = TASK) -> str:
    ((weight, chunk),) = task.query_chunks(query)
    assert weight == 1
    ids, labels = chunk.content["input_ids"], chunk.content["labels"]
    assert (labels[labels >= 0] == ids[labels >= 0]).all()
    return task.tokenizer.decode(ids[labels >= 0])


def chosen(words: Any, said: str = SAID, prompt: Any = PROMPT) -> Query:
    return Query(prompt, said, words=words)


def test_only_the_tokens_of_the_chosen_words_are_explained() -> None:
    at = SAID.index(" Quito")
    assert "Quito" in explained(chosen((at, at + 6)))
    assert "Lima" not in explained(chosen((at, at + 6)))
    both = explained(chosen([(at, at + 6), (1, 5)]))
    assert both.index("Lima") < both.index("Quito")
    assert "and" not in both
    assert explained(chosen(None)) == SAID
    assert explained(chosen((0, len(SAID)))) == SAID


@given(st.lists(st.tuples(st.integers(0, 31), st.integers(1, 8)), min_size=1, max_size=4))
def test_a_token_counts_when_one_of_its_characters_is_chosen(ranges: Any) -> None:
    words = [(start, min(start + size, len(SAID))) for start, size in ranges]
    encoded = TASK.tokenizer(PROMPT + SAID, return_offsets_mapping=True)
    border = len(PROMPT)
    right = [
        any(first < border + end and last > border + start for start, end in words)
        for first, last in encoded["offset_mapping"]
    ]
    ((_, chunk),) = TASK.query_chunks(chosen(words))
    assert (chunk.content["labels"] >= 0).tolist() == right
    assert chunk.content["input_ids"].tolist() == encoded["input_ids"]


def test_losses_of_the_words_sum_to_the_loss_of_all() -> None:
    def loss(words: Any) -> float:
        ((_, chunk),) = TASK.query_chunks(chosen(words))
        return float(TASK.measurement(TASK.collate([chunk])))

    half = SAID.index(" and")
    assert loss((0, half)) + loss((half, len(SAID))) == pytest.approx(loss(None), rel=1e-9)


def test_words_after_a_conversation() -> None:
    task = task_of(template=TEMPLATE)
    messages = [{"role": "user", "content": "The capital of Peru?"}]
    assert "Lima" in explained(chosen((0, 5), prompt=messages), task)
    assert "Quito" not in explained(chosen((0, 5), prompt=messages), task)


def test_ranges_come_in_order_and_those_that_touch_are_one() -> None:
    query = chosen([(6, 8), (0, 2), (2, 4), np.array([7, 9]).tolist()])
    assert query.words == ((0, 4), (6, 9))
    assert query.chosen == query.words
    assert chosen(None).chosen == ((0, len(SAID)),)
    assert query == chosen(((0, 4), (6, 9)))
    assert hash(query) == hash(chosen(((0, 4), (6, 9))))


def test_the_query_says_which_words() -> None:
    told = chosen([(1, 5), (11, 16)]).describe()
    assert told == f"{PROMPT!r} -> {SAID!r} ('Lima', 'Quito' of it)"
    assert chosen(None).describe() == f"{PROMPT!r} -> {SAID!r}"


def test_a_word_that_begins_within_a_token_is_no_border_of_two_texts() -> None:
    task = task_of()
    task.query_chunks(chosen((2, 4)))  # within the token of a word
    assert task.notes == []
    crossing = task.query_chunks(Query("The cap", "ital of Peru", words=(0, 4)))
    assert crossing
    whole = task_of()
    whole.query_chunks(Query("The cap", "ital of Peru"))
    assert task.notes == whole.notes


BAD: dict[str, tuple[Any, str]] = {
    "beyond the end": (lambda: chosen((0, 99)), "leave the completion"),
    "backwards": (lambda: chosen((4, 2)), "leave the completion"),
    "empty": (lambda: chosen((2, 2)), "leave the completion"),
    "negative": (lambda: chosen((-3, 2)), "leave the completion"),
    "none": (lambda: chosen([]), "No words are chosen"),
    "no pairs": (lambda: chosen([(1, 2, 3)]), "no ranges"),
    "no numbers": (lambda: chosen([("a", "b")]), "no ranges"),
    "one number": (lambda: chosen([3]), "no ranges"),
    "a contrast": (
        lambda: Query(PROMPT, SAID, instead_of=" Quito", words=(0, 5)),
        "of one completion.*without instead_of; found a contrast",
    ),
    "no completion": (lambda: Query(columns={"x": 1}, words=(0, 5)), "found no completion"),
}


@pytest.mark.parametrize("name", BAD)
def test_words_that_are_none_are_refused(name: str) -> None:
    make, wrong = BAD[name]
    with pytest.raises(InputError, match=wrong):
        make()
