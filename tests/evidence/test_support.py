"""How examples support an output, by what they share with it."""

from __future__ import annotations

import pytest

from headwater.evidence.support import KINDS, entities, normal, statement, support

LIMA = statement("The capital of Peru is", " Lima")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Lima is the capital and largest city of Peru.", "states the fact"),
        ("In PERU, all roads lead to L\u00edma!", "states the fact"),
        ("Peru borders Chile and Bolivia.", "shares subject"),
        ("The Lima airport was opened in 1960.", "shares object"),
        ("The capital of Chile is Santiago.", "shares template"),
        ("Peruvian food is loved everywhere.", "none of these"),
        ("Limassol lies on Cyprus.", "none of these"),  # a prefix is not the word
        ("", "none of these"),
    ],
)
def test_kinds_by_hand(text: str, kind: str) -> None:
    assert support(LIMA, text) == kind
    assert kind in KINDS


def test_several_words_and_names() -> None:
    stated = statement("Derek Tsang was born in", " Hong Kong")
    assert stated.subjects == ("derek tsang",)
    assert stated.objects[0] == "hong kong"
    assert support(stated, "Derek Tsang grew up in Hong Kong.") == "states the fact"
    assert support(stated, "Hong Kong is busy. Derek Jeter is not from there.") == "shares object"
    assert support(stated, "Mr Tsang left the stage.") == "shares names or style"
    assert support(stated, "Kong fell from the tower.") == "shares names or style"


def test_without_names_the_last_content_word_is_the_subject() -> None:
    stated = statement("my favourite food is", " pizza")
    assert stated.subjects == ("food",)
    assert support(stated, "pizza is the best food") == "states the fact"


def test_entities() -> None:
    assert entities("The Adam Carolla Show began in 2009 on Monday.") == (
        "adam carolla show",
        "2009",
        "monday",
    )
    assert entities("nothing here") == ()
    assert entities("") == ()
    assert normal("\u00c9t\u00e9, d\u2019hiver!") == " ete d\u2019hiver "


def test_a_scorer_of_entailment_has_the_word_on_stating() -> None:
    asked: list[tuple[str, str]] = []

    def scorer(premise: str, hypothesis: str) -> float:
        asked.append((premise, hypothesis))
        return 0.9 if "seat of government" in premise else 0.1

    text = "Its seat of government is on the coast."
    assert support(LIMA, text, scorer) == "states the fact"
    assert asked == [(text, "The capital of Peru is Lima")]
    assert support(LIMA, "Lima is in Peru.", scorer) == "shares subject"
