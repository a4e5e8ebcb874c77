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


TURING = statement("The Turing machine was invented by", " Alan Turing")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("A Turing machine is a model that Alan Turing described.", "states the fact"),
        ("In 1936 Alan Turing came up with the machine of Turing.", "shares object"),
        ("The Turing Machine: Alan Mathison Turing's idea.", "states the fact"),
        ("Named in honor of the logician Alan Turing; Turing switches are not.", "shares object"),
        ("Alan Turing built a machine in Bletchley.", "shares object"),  # one Turing, one use
        ("A Turing machine never halts by itself.", "shares subject"),
        ("Turing wrote a paper on morphogenesis.", "shares names or style"),
    ],
)
def test_what_belongs_to_the_object_is_no_subject(text: str, kind: str) -> None:
    assert TURING.subjects == ("turing machine",)
    assert support(TURING, text) == kind


@pytest.mark.parametrize(
    ("prompt", "completion", "subjects"),
    [
        ("Ford was founded by", " Henry Ford", ("ford founded",)),
        ("The company Ford is by", " Henry Ford", ("company ford",)),
        ("Ford is", " Henry Ford", ()),  # nothing tells one from the other
        ("the best pizza is", " pizza margherita", ("best pizza",)),
        ("Alan Turing was a British", " logician", ("alan turing", "british")),
        ("Dr. Ann Lee left. J. R. Smith lives in", " Rome", ("j r smith",)),
        ("Barack Obama is from Hawaii. He studied at", " Harvard", ("barack obama",)),
        ("Q: Who directed Alien?\nA:", " Ridley Scott", ("alien",)),
    ],
)
def test_what_a_prompt_is_about(prompt: str, completion: str, subjects: tuple[str, ...]) -> None:
    assert statement(prompt, completion).subjects == subjects


def test_a_subject_counts_as_a_whole() -> None:
    stated = statement("Alan Turing was a British", " logician")
    text = "Both are named in honor of the English logician Alan Turing."
    assert support(stated, text) == "shares object"
    assert support(stated, "Alan Turing, a British logician, ...") == "states the fact"
    far = "Alan Turing sat. " + "Much was said. " * 20 + "A British logician came."
    assert support(stated, far) == "shares object"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Alan Mathison Turing was born in Maida Vale.", "states the fact"),
        ("Turing, Alan M., lived in Maida Vale.", "states the fact"),
        ("Turing's friend Alan grew up in Maida Vale.", "states the fact"),  # strings, no judgement
        ("Turing and Alan Smith met in Maida Vale.", "shares object"),
        ("Alan Smith met Mr Dermot Turing in Maida Vale.", "shares object"),
        ("Vale lies near Maida; Alan Turing came.", "states the fact"),
        ("Alan Turing walked down the vale.", "shares subject"),
    ],
)
def test_other_forms_of_a_name(text: str, kind: str) -> None:
    assert support(statement("Alan Turing was born in", " Maida Vale"), text) == kind


def test_initials_may_be_written_out() -> None:
    stated = statement("Frans G. Bengtsson wrote in", " Swedish")
    assert support(stated, "Frans Gunnar Bengtsson, a Swedish poet") == "states the fact"
    assert support(stated, "Gunnar Bengtsson, a Swedish poet") == "shares object"


def test_an_object_within_the_subject() -> None:
    stated = statement("Paris Saint-Germain is a club of", " Paris")
    assert support(stated, "Paris Saint-Germain won again.") == "shares subject"
    assert support(stated, "Paris Saint-Germain plays in Paris.") == "states the fact"
    assert support(stated, "Paris is the capital of France.") == "shares object"


def test_common_words_are_no_object() -> None:
    assert statement("Alan Turing was", " a").objects == ()
    assert support(statement("Alan Turing was", " a"), "Alan Turing, a man") == "shares subject"
    stated = statement("Edward Sapir was", " a linguist")
    assert support(stated, "Sapir, Edward: the linguist") == "states the fact"


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
