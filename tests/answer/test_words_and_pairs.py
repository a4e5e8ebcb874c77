"""An answer to chosen words, and a score split by pairs of words."""

from __future__ import annotations

import numpy as np
import pytest
from small_facts import FEATURES, corpus, task

import headwater as hw
from headwater.answer.ask import ask
from headwater.answer.pairs import pairs
from headwater.engine.errors import InputError
from headwater.evidence.rankers import method_by_name

WHOLE = hw.Query("The fox is", " red. A cat has 2 legs")
COLOUR = hw.Query("The fox is", " red. A cat has 2 legs", words=(0, 4))
LEGS = hw.Query("The fox is", " red. A cat has 2 legs", words=(4, 22))


def test_scores_of_the_words_sum_to_those_of_all(index: hw.Index) -> None:
    whole, colour, legs = hw.scores(index, [WHOLE, COLOUR, LEGS], method=hw.GradDot())
    assert np.allclose(whole, colour + legs, rtol=1e-3, atol=1e-4 * np.abs(whole).max())
    assert not np.allclose(whole, colour, rtol=0.1)


def test_an_answer_says_which_words_and_how_to_get_it_again(index: hw.Index) -> None:
    answer = ask(index, COLOUR, method=hw.GradDot(), evidence=["influence", "verbatim", "lexical"])
    assert "".join(answer.target) == " red"
    assert "(only “red”)" in answer.query
    assert "words=((0, 4),)" in answer.reproduce["python"]
    assert "--words 0:4" in answer.reproduce["command"]
    assert "left_out" not in answer.reproduce
    python = answer.reproduce["python"].replace(f"hw.Index.open({str(index.path)!r})", "index")
    again = eval(python, {"hw": hw, "index": index})
    assert [item.id for item in again.proponents] == [item.id for item in answer.proponents]
    for span in answer.spans:  # the spans that touch the chosen words
        start, end = span["in_output"]
        assert start < 4
        assert end > 0
    assert answer.spans
    assert any("up to the chosen words" in note for note in answer.notes)
    other = ask(index, LEGS, evidence=["verbatim"])
    assert other.spans
    assert all(span["in_output"][1] > 4 for span in other.spans)


def test_words_that_follow_the_chosen_ones_find_nothing(index: hw.Index) -> None:
    """A model runs on after its answer; what states the answer is found all the same."""
    short = hw.Query(COLOUR.prompt, COLOUR.completion[:4])
    long = short.completion + ". The river runs to the sea, and the tale is told."
    chosen = hw.Query(COLOUR.prompt, long, words=(0, 4))
    kinds = ["lexical", "verbatim"]
    right, found = (ask(index, one, evidence=kinds) for one in (short, chosen))
    assert [one.id for one in found.proponents] == [one.id for one in right.proponents]
    assert [one.support for one in found.proponents] == [one.support for one in right.proponents]
    assert found.picture.kind == right.picture.kind
    later = hw.Query(short.prompt, long, words=(len(long) - 5, len(long)))
    assert later.said == (long[:-5], long[-5:])
    assert hw.Query(short.prompt, long).said == ("", long)


@pytest.mark.parametrize("name", ["graddot", "gradcos", "logra", "relatif", "trackstar"])
@pytest.mark.parametrize("example", ["colour-fox", "tale-1"])
def test_all_pairs_sum_to_the_score_row_by_row(index: hw.Index, name: str, example: str) -> None:
    method = method_by_name(name)
    position = index.ids.index(example)
    found = pairs(index, COLOUR, position, method=method)
    shares = np.asarray(found.shares)
    score = float(hw.scores(index, COLOUR, method=method)[0, position])
    assert shares.shape == (len(found.targets), len(found.tokens))
    assert found.total == pytest.approx(score, rel=1e-3)
    assert shares.sum() == pytest.approx(score, rel=1e-2)
    assert "".join(found.targets) == " red"
    assert "".join(found.tokens) == index.documents([position])[0].content["text"]
    answer = ask(index, COLOUR, method=method, top=len(index))
    (item,) = [one for one in answer.proponents if one.id == example or example in one.duplicates]
    assert shares.sum(axis=1) == pytest.approx(item.by_target, rel=1e-2, abs=1e-3 * abs(score))
    if item.id == example:
        told = np.asarray([share for _, share in item.tokens])
        assert shares.sum(axis=0) == pytest.approx(told, rel=1e-2, abs=1e-2 * np.abs(told).max())


def test_a_contrast_has_the_words_of_both(index: hw.Index) -> None:
    contrast = hw.Query("The owl is", " white", instead_of=" black")
    found = pairs(index, contrast, index.ids.index("colour-owl"), method=hw.GradDot())
    assert "".join(found.targets) == " white black"
    assert np.sum(found.shares) == pytest.approx(found.total, rel=1e-2)


def test_what_does_not_split_says_why(index: hw.Index) -> None:
    for method, wrong in (
        ("bm25", "do not split by pairs"),
        ("ekfac", "do not split by pairs"),
        (hw.TRAK(), "weighs whole examples"),
        ("unheard", "no such method"),
    ):
        with pytest.raises(InputError, match=wrong):
            pairs(index, COLOUR, 0, method=method)
    with pytest.raises(InputError, match="no such example; expected 0 to"):
        pairs(index, COLOUR, len(index))
    with pytest.raises(InputError, match="mean of queries"):
        pairs(index, hw.Query.mean([COLOUR]), 0)
    with pytest.raises(InputError, match="too long to be split"):
        pairs(index, hw.Query("q", "x" * 36), 0)


def test_what_has_no_tokens_is_told() -> None:
    features = hw.Features(projection=hw.TwoSided(8, 8), storage="float32", parameters="all")
    norms = hw.Index.build(None, task(2), corpus(), features)
    found = pairs(norms, hw.Query("The fox is", " red"), 0, method=hw.GradDot())
    missing = abs(np.sum(found.shares) - found.total) > 0.05 * abs(found.total)
    assert bool(found.notes) is bool(missing)
    plain = hw.Index.build(None, task(2), corpus(), FEATURES)
    assert pairs(plain, hw.Query("The fox is", " red"), 0, method=hw.GradDot()).notes == []
