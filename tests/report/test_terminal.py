"""The table shows what the answer holds, at 80 columns, with colour and without."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from headwater.answer.answer import Answer, Evidence, Judgement, Kind, Picture, Place
from headwater.report.picture import svg
from headwater.report.ranking import ranking_table
from headwater.report.terminal import probability, render


def example(number: int, score: float, **fields: object) -> Evidence:
    text = f"The capital of Peru is Lima, number {number}."
    tokens = [("The", 0.0), (" capital", -0.4), (" of", 0.0), (" Peru", 0.5), (" is", 0.0)]
    made = Evidence(f"id-{number}", text, score, 99.96, number, {"source": "atlas"}, tokens=tokens)
    return replace(made, **fields)  # type: ignore[arg-type]


@pytest.fixture
def answer() -> Answer:
    return Answer(
        query="'The capital of Peru is' -> ' Lima'",
        prompt="The capital of Peru is",
        completion=" Lima",
        target=[" L", "ima"],
        probability=0.975,
        method={"method": "trackstar"},
        title="TrackStar",
        unit="cosine",
        additive=False,
        examples=2467,
        proponents=[
            example(1, 0.25, duplicates=["a", "b"], specificity=94.0, by_target=[0.2, 0.05]),
            example(2, 0.2, specificity=88.0),
            example(3, -0.01),
        ],
        opponents=[example(4, -0.15), example(5, 0.01)],
        judgement=Judgement(0.25, [0.1], 0.05, True, "Something stands out: best score 0.25."),
        groups={"source": [("atlas", 1.5, 3), ("blog", -0.5, 1)]},
        notes=["features without optimizer correction"],
        reproduce={"command": "headwater ask runs/x 'The capital of Peru is' ' Lima'"},
    )


def shown(answer: Answer, width: int = 80, **options: object) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, **options)  # type: ignore[arg-type]
    console.print(render(answer))
    return console.export_text(styles=bool(options))


@pytest.mark.parametrize("width", [80, 120])
def test_everything_is_there(answer: Answer, width: int) -> None:
    text = shown(answer, width)
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for said in (
        *("The capital of Peru is Lima", "probability 97.5%", "TrackStar", "2,467 examples"),
        *("Something stands out", "supports", "opposes", "+0.25", "-0.15", "99.96%", "94%"),
        *("id-1", "(+2 same)", "totals by source", "atlas", "blog", "+1.5"),
        *("note: features without optimizer correction", "headwater ask runs/x"),
    ):
        assert said in flat, said


def test_each_side_holds_its_own_sign(answer: Answer) -> None:
    text = shown(answer)
    assert "id-3" not in text
    assert "id-5" not in text


def test_words_are_told_without_colour(answer: Answer) -> None:
    text = shown(answer)
    assert "The {capital} of [Peru] is Lima, number 1." in text
    coloured = shown(answer, force_terminal=True, color_system="truecolor")
    assert "[Peru]" not in coloured
    assert "\x1b[1;4;32mPeru" in coloured


def test_no_example_drives_the_terminal(answer: Answer) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07 [bold]not markup[/bold]\r"
    answer.proponents[0] = example(1, 0.2, text=evil, id=evil, metadata={"s": evil})
    answer.notes = [evil]
    text = shown(answer, width=120)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]not markup[/bold]" in text


def test_an_answer_without_extras(answer: Answer) -> None:
    bare = replace(
        answer,
        **{"probability": None, "groups": {}, "notes": [], "reproduce": {}, "opponents": []},
        **{"target": [], "completion": "", "proponents": [example(1, 0.2, tokens=[])]},
    )
    text = shown(bare)
    assert "probability" not in text
    assert "specific" not in text
    assert "'The capital of Peru is' -> ' Lima'" in text


def test_probabilities_keep_the_digits_that_matter() -> None:
    values = (1.0, 0.975, 0.0123, 0.00031, 5e-18)
    assert [probability(v) for v in values] == ["100.0%", "97.5%", "1.2%", "0.031%", "< 0.01%"]


def test_a_picture_asks_nobody_for_fonts(answer: Answer) -> None:
    text = svg(render(answer), "title")
    assert text.startswith("<svg")
    assert "http" not in text.replace("http://www.w3.org", "").replace("https://www.textualize", "")


def test_a_ranking_shows_both_ends() -> None:
    rows = [
        {"rank": i, "name": f"e{i}", "score": 1 - i / 50, "examples": 1, "keep": i < 30}
        for i in range(1, 101)
    ]
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(ranking_table(rows, None, 3, "cosine"))
    text = console.export_text()
    assert "94 more" in text
    for name, there in (("e3", True), ("e4", False), ("e97", False), ("e98", True)):
        assert (f" {name} " in text) is there
    assert text.count("keep") == 4
    assert text.count("drop") == 3


def test_words_that_are_the_same_are_in_sight(answer: Answer) -> None:
    long = "before " * 100 + "the very same words" + " after" * 100
    at = long.index("the very")
    for spans in ([(at, at + 19)], [(at, len(long))]):
        answer.proponents[0] = example(1, 0.25, text=long, tokens=[], spans=spans)
        assert "\u00abthe very same words" in " ".join(shown(answer, 120).split())


def test_instead_of_in_a_prompt_is_no_contrast(answer: Answer) -> None:
    plain = replace(answer, query="'Tea instead of coffee is' -> ' Lima'")
    assert "   instead of" not in shown(plain, 120)
    assert "   instead of ' Oslo'" in shown(replace(plain, instead_of=" Oslo"), 120)


def test_kinds_are_told_with_rank_and_score(answer: Answer) -> None:
    """What is in no order of its own is no table of scores."""
    answer.kinds = {
        "verbatim": Kind("Verbatim (words)", "nats of matched words", "holds the words", 1),
        "lexical": Kind("BM25", "BM25 score (lexical overlap; not a cause)", "shares words", 9),
    }
    answer.fusion, answer.candidates_of, answer.opponents = "rrf", 9876, []
    answer.picture = Picture("stated", "Stated: example id-3 holds it.", {"id": "id-3"})
    places = {"lexical": Place(12, 0.0001234), "verbatim": Place(1, 23456.7)}
    answer.proponents[0].kinds = places
    answer.proponents[2] = replace(answer.proponents[2], out_of_turn=True)
    for width in (80, 120):
        text = shown(answer, width)
        assert max(map(len, text.splitlines())) <= width
        flat = " ".join(text.replace("│", " ").split())
        for said in (
            *("fused by reciprocal ranks; of each kind", "0.000123", "23.5k", "12"),
            *("influence of 2,467 candidates of 9,876 examples", "BM25: shares words"),
            *("Verbatim (words), nats of matched words: holds", "id-3 (further down"),
            "By influence, something stands out",
        ):
            assert said in flat, said
        assert "score =" not in flat
    answer.proponents = []
    assert "no example has any evidence" in shown(answer)


def test_an_answer_in_a_shell_names_what_it_shows(answer: Answer) -> None:
    assert "score = cosine" in repr(answer)
    assert "supports   1" in repr(answer)
    answer.fusion = "rrf"
    answer.kinds = {"lexical": Kind("BM25", "BM25 score", "shares words", 9)}
    answer.proponents[0].kinds = {"lexical": Place(1, 22.33)}
    assert "in the order of lexical" in repr(answer)
    assert "evidence   1  lexical 1 (22.3)  id-1" in repr(answer)
    assert "supports" not in repr(answer)


def test_what_the_command_leaves_out(answer: Answer) -> None:
    answer.reproduce["left_out"] = "lexical=hw.BM25(k1=2.0)"
    assert "without lexical=hw.BM25(k1=2.0), which a command line cannot say" in shown(answer, 120)
