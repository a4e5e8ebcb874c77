"""Verbatim evidence as an answer asks it: which documents it is drawn from, and what is counted."""

from __future__ import annotations

import numpy as np
import pytest

import headwater as hw
from headwater.answer.kinds import VerbatimReader
from phrase_models import text_index

COPIED = "seven grey herons stood beside the frozen weir"


@pytest.mark.parametrize("long", [False, True])
def test_of_the_chosen_documents_none_is_missed(long: bool) -> None:
    """The same words stand in forty documents, more than are looked at; two of them take part."""
    index = text_index([f"Note {i}: {COPIED} at dawn." for i in range(40)] + ["grey herons, too"])
    among = np.zeros(len(index), dtype=bool)
    among[[13, 29, 40]] = True
    reader = VerbatimReader(index, among)
    output = f" {COPIED}" + " and then nothing else was ever heard of them" * (9 if long else 0)
    row = reader.scores(hw.Query("They say that", output))
    assert np.flatnonzero(row > 0).tolist() == [13, 29]
    assert np.isnan(row).sum() == 38
    (span,) = [one for one in reader.spans if one["text"] == COPIED]
    assert span["count"] == span["parts"][0]["count"] == 2
    assert [one["position"] for one in span["documents"]] == [13, 29]


def test_what_others_hold_more_of_does_not_hide_what_the_chosen_hold() -> None:
    index = text_index([f"Once {COPIED} in a row.", "They saw grey herons stood beside a road."])
    reader = VerbatimReader(index, np.array([False, True]))
    reader.scores(hw.Query("Look:", f" {COPIED}"))
    assert [one["text"] for one in reader.spans] == ["grey herons stood beside"]


@pytest.mark.parametrize(
    ("prompt", "inside"), [("They say: seven grey herons stood", 4), ("They say:", 8)]
)
def test_tokens_of_the_output_are_those_of_the_span(prompt: str, inside: int) -> None:
    """A word and the space before it are one token, wherever the output begins."""
    index = text_index([f"Once {COPIED} in a row.", "something else"])
    reader = VerbatimReader(index, None)
    assert reader.verbatim.tokenizer.name == "words"
    output = f"{prompt} {COPIED}" if inside == 8 else f"They say: {COPIED}"
    reader.scores(hw.Query(prompt, output[len(prompt) :]))
    (span,) = [one for one in reader.spans if one["text"] == COPIED]
    assert span["parts"][0]["tokens"] == 8
    assert span["output_tokens"] == inside
