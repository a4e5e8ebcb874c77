"""Several kinds in one answer: ranks to be counted, one order by hand, a picture by its rules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_facts import FEATURES, corpus

import headwater as hw
from headwater.answer import ask as asking
from headwater.answer.answer import Evidence, Judgement, Place
from headwater.answer.page import table
from headwater.answer.verdict import picture
from headwater.engine.errors import InputError
from headwater.report.terminal import render
from headwater.tasks.texts import Texts

ASKED = hw.Query("The owl is", " white")
KINDS = ("influence", "lexical", "semantic")


class Stub:
    """A kind with given scores."""

    title, unit, telling = "Stub", "points", None

    def __init__(self, kind: str, row: Any) -> None:
        self.kind, self.row = kind, np.asarray(row, dtype=np.float32)

    def scores(self, query: hw.Query) -> Any:
        return self.row

    def mark(self, item: Evidence) -> None:
        item.terms = [(self.kind, 1.0)]


@pytest.fixture
def stubs(index: hw.Index, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Lexical scores for three examples, semantic ones for all."""
    lexical = np.zeros(len(index))
    lexical[[5, 1, 7]] = 3, 2, 2
    semantic = np.linspace(1, -1, len(index))
    rows = {"lexical": lexical, "semantic": semantic}

    def reader(index: hw.Index, kind: str, *_: Any) -> Stub:
        return Stub(kind, rows[kind])

    monkeypatch.setattr(asking, "reader", reader)
    return rows


def ranks(row: Any) -> dict[int, int]:
    """Rank from 1 of all with a score, best first; equal ones share the best of their ranks."""
    there = [i for i in range(len(row)) if np.isfinite(row[i])]
    return {i: 1 + sum(row[j] > row[i] for j in there) for i in there}


def test_every_kind_has_its_rank_and_one_order_shows_them(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    answer = hw.ask(index, ASKED, method=hw.GradCos(), evidence=KINDS, top=6)
    rows = {"influence": hw.scores(index, ASKED, method=hw.GradCos())[0], **stubs}
    ids = index.ids
    places = {kind: ranks(row) for kind, row in rows.items()}
    fused = np.zeros(len(index))
    for kind, row in rows.items():
        for i, rank in places[kind].items():
            fused[i] += 1 / (60 + rank) if row[i] > 0 else 0
    best = sorted(range(len(ids)), key=lambda i: (-fused[i], ids[i]))
    assert answer.proponents[0].position == best[0]
    shown = [item.position for item in answer.proponents]
    assert shown == [i for i in best if i in shown]  # copies fold into the first of them
    assert set(answer.kinds) == set(KINDS)
    for item in answer.proponents:
        for kind, row in rows.items():
            if row[item.position] == 0:
                assert kind not in item.kinds
                continue
            place = item.kinds[kind]
            assert place.rank == places[kind][item.position]
            assert place.score == pytest.approx(float(row[item.position]), rel=1e-4)
        assert item.score == pytest.approx(float(rows["influence"][item.position]), rel=1e-4)
        assert item.terms
    assert answer.kinds["lexical"].examples == 3
    assert answer.judgement.stands_out is not None
    assert "hw.GradCos()" in answer.reproduce["python"]
    assert "--evidence influence,lexical,semantic" in answer.reproduce["command"]
    json.dumps(answer.to_dict(), allow_nan=False)


def test_the_order_of_one_kind(index: hw.Index, stubs: dict[str, Any]) -> None:
    answer = hw.ask(index, ASKED, evidence=("lexical", "semantic"), fusion="semantic", top=3)
    ids = index.ids
    best = sorted(range(len(ids)), key=lambda i: (-stubs["semantic"][i], ids[i]))
    assert [item.position for item in answer.proponents] == best[:3]
    assert answer.judgement.stands_out is None
    assert answer.opponents == []
    assert "fusion='semantic'" in answer.reproduce["python"]


@pytest.mark.parametrize("features", [FEATURES, None], ids=["features", "none"])
def test_influence_on_candidates_only(
    index: hw.Index, stubs: dict[str, Any], features: hw.Features | None
) -> None:
    whole = hw.scores(index, ASKED, method=hw.GradCos())[0]
    given = hw.Index.build(None, index.task, corpus(), features)
    answer = hw.ask(
        given, ASKED, method=hw.GradCos(), evidence=("influence", "lexical"),
        candidates=("lexical", 2), top=3,
    )  # fmt: skip
    scored = {i.position: i.score for i in answer.proponents if i.score is not None}
    assert set(scored) == {1, 5}
    if features is not None:
        assert scored == pytest.approx({i: float(whole[i]) for i in scored}, rel=1e-4)
    else:  # the default features: another projection
        assert all(np.isfinite(value) for value in scored.values())
    assert (answer.examples, answer.candidates_of) == (2, len(index))
    assert [i.position for i in answer.proponents if i.score is None] == [7]
    assert "candidates=('lexical', 2)" in answer.reproduce["python"]
    assert "--candidates lexical:2" in answer.reproduce["command"]


def test_the_table_of_several_kinds(index: hw.Index, stubs: dict[str, Any]) -> None:
    from rich.console import Console

    answer = hw.ask(index, ASKED, evidence=KINDS, top=3)
    console = Console(width=90, no_color=True, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render(answer))
    text = console.export_text()
    assert answer.picture is not None
    for said in ("infl.", "lex.", "sem.", "fused by reciprocal ranks", "similarity is not a cause"):
        assert said in text, said
    assert answer.picture.kind.capitalize().split()[0] in text


def test_what_is_refused(index: hw.Index, stubs: dict[str, Any]) -> None:
    plain = hw.Index.build(None, index.task, corpus(), None)
    for given, options, said in (
        (index, {"evidence": ("gossip",)}, "Unknown kinds"),
        (index, {"evidence": "gossip"}, "Unknown kinds"),
        (index, {"evidence": ()}, "Unknown kinds"),
        (index, {"fusion": "lexical"}, "Unknown fusion"),
        (index, {"candidates": ("influence", 3)}, "another kind"),
        (index, {"candidates": ("lexical", 0)}, "another kind"),
        (plain, {"evidence": "influence"}, "holds no features"),
    ):
        with pytest.raises(InputError, match=said):
            hw.ask(given, ASKED, **options)


def test_one_kind_may_be_a_string(index: hw.Index, stubs: dict[str, Any]) -> None:
    asked = [hw.ask(index, ASKED, evidence=e) for e in ("lexical", ["lexical"])]
    assert asked[0].to_dict() | {"seconds": 0} == asked[1].to_dict() | {"seconds": 0}
    assert list(asked[0].kinds) == ["lexical"]
    several = hw.ask(index, ASKED, evidence="lexical, semantic")
    assert list(several.kinds) == ["lexical", "semantic"]


def test_a_method_may_be_named(index: hw.Index) -> None:
    named, made = (hw.ask(index, ASKED, method=m, top=2) for m in ("gradcos", hw.GradCos()))
    assert [one.score for one in named.proponents] == [one.score for one in made.proponents]


def test_texts_without_features_are_asked_what_they_can_tell(index: hw.Index) -> None:
    plain = hw.Index.build(None, index.task, corpus(), None)
    answer = hw.ask(plain, ASKED)
    assert list(answer.kinds) == ["verbatim", "lexical"]
    assert any("no features, so what was asked for is verbatim" in n for n in answer.notes)
    assert "evidence=['verbatim', 'lexical']" in answer.reproduce["python"]
    assert not hw.ask(plain, ASKED, evidence="lexical").notes
    for options in ({"method": hw.GradCos()}, {"by": ["source"]}, {"fusion": "influence"}):
        with pytest.raises(InputError, match="holds no features"):
            hw.ask(plain, ASKED, **options)


def test_what_the_summary_names_is_shown(index: hw.Index, stubs: dict[str, Any]) -> None:
    """The sentence that states it is fourth by words; two are asked for."""
    stubs["lexical"][:] = 0
    stubs["lexical"][[5, 7, 8, 1]] = 5, 4, 3, 2
    options: dict[str, Any] = {"evidence": "lexical", "top": 2}
    answer = hw.ask(index, ASKED, **options)
    assert answer.picture.figures["id"] == index.ids[1]
    assert [(one.position, one.out_of_turn) for one in answer.proponents] == [
        (5, False), (7, False), (1, True),
    ]  # fmt: skip
    last = answer.proponents[-1]
    assert (last.support, last.terms, last.score) == (
        "states the fact", [("lexical", 1.0)], 2.0,
    )  # fmt: skip
    assert f"example {index.ids[1]} holds" in answer.picture.summary
    assert f"evidence ...  lexical 4 (2)  {index.ids[1]}" in repr(answer)
    # One that is shown is named before one that is not, though this ranks higher by words.
    stubs["lexical"][[5, 7, 8, 1]] = 2, 0, 0, 3
    by_meaning = hw.ask(index, ASKED, evidence=("lexical", "semantic"), fusion="semantic", top=2)
    assert [one.out_of_turn for one in by_meaning.proponents] == [False, False]
    assert by_meaning.picture.figures["id"] == index.ids[1]


@pytest.mark.parametrize("kind", ["lexical", "semantic"])
def test_one_kind_alone_has_its_own_scores(
    index: hw.Index, stubs: dict[str, Any], kind: str
) -> None:
    """Score, unit and percentile are the kind's; a sum of reciprocal ranks is of several."""
    answer = hw.ask(index, ASKED, evidence=kind, top=3)
    row = stubs[kind]
    assert (answer.fusion, answer.unit) == (kind, Stub.unit)
    assert answer.order() == f"in the order of {kind}, by points"
    for item in answer.proponents:
        assert item.score == pytest.approx(float(row[item.position]), rel=1e-6)
        assert item.percentile == pytest.approx(100 * float((row < row[item.position]).mean()))
    assert "fusion" not in answer.reproduce["python"]
    chosen = hw.ask(index, ASKED, evidence=kind, fusion=kind, top=3)
    assert chosen.proponents == answer.proponents
    several = hw.ask(index, ASKED, evidence=("lexical", "semantic"), top=3)
    assert (several.fusion, several.unit) == ("rrf", "sum of reciprocal ranks")
    assert several.order() == "in an order fused by reciprocal ranks"


def test_influence_on_candidates_alone_is_in_its_own_order(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    options: dict[str, Any] = {"method": hw.GradCos(), "candidates": ("lexical", 3)}
    answer = hw.ask(index, ASKED, evidence="influence", **options)
    assert (answer.fusion, answer.unit) == ("influence", "cosine")
    scores = [item.score for item in answer.proponents]
    assert scores == sorted(scores, reverse=True)
    assert all(score > 0 for score in scores)


def test_an_answer_saved_with_one_fused_kind_is_read(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    """Those of one kind were once scored by reciprocal ranks, and say so in their unit."""
    answer = hw.ask(index, ASKED, evidence="lexical", top=3)
    answer.fusion, answer.unit = "rrf", "sum of reciprocal ranks"
    for item in answer.proponents:
        item.score = 1 / (60 + item.kinds["lexical"].rank)
    assert answer.order() == "in the order of lexical"
    assert '<td style="text-align:left"><bdi>0.01639</bdi></td>' in table(answer)
    assert "lexical 1 (3)" in repr(answer)


def test_equal_scores_share_a_rank(index: hw.Index, stubs: dict[str, Any]) -> None:
    answer = hw.ask(index, ASKED, evidence="lexical", top=3)
    assert [one.kinds["lexical"].rank for one in answer.proponents] == [1, 2, 2]
    assert answer.proponents[1].score == answer.proponents[2].score == 2.0
    stubs["semantic"][:] = 0
    fused = hw.ask(index, ASKED, evidence="lexical,semantic", top=3)
    assert fused.proponents[1].score == fused.proponents[2].score == pytest.approx(1 / 62)


def test_a_turn_of_phrase_does_not_outweigh_the_fact() -> None:
    """Short matches have no vote beside another kind; what is copied at length has."""
    rows = [
        {"id": "states", "text": "Sapir, Edward: known for his linguistics; Edward Sapir."},
        {"id": "phrase", "text": "She works in the field of linguistics and of law."},
        *({"id": f"other-{i}", "text": f"Nothing {i} of the field."} for i in range(30)),
    ]
    index = hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)
    query = hw.Query("Edward Sapir works in the field of", " linguistics")
    options: dict[str, Any] = {"evidence": ("verbatim", "lexical"), "top": 4}
    answer = hw.ask(index, query, **options)
    assert [one.id for one in answer.proponents[:2]] == ["states", "phrase"]
    assert answer.proponents[1].kinds["verbatim"].rank == 1
    alone = hw.ask(index, query, evidence="verbatim")
    assert [one.id for one in alone.proponents] == ["phrase"]
    # Without a word in common by BM25, a turn of phrase is still shown.
    assert hw.ask(index, hw.Query("They", " of the field"), **options).proponents
    rows[1]["text"] = "Law aside, " + (said := "she tamed seven grey herons beside a frozen weir")
    index = hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)
    query = hw.Query("Of Edward Sapir, linguistics, his Edward Sapir:", f" {said}")
    answer = hw.ask(index, query, **options)
    assert answer.picture.kind == "copied"
    assert answer.proponents[0].id == "phrase"
    assert answer.proponents[0].kinds["lexical"].rank >= 1


def test_an_unfinished_index_answers_without_its_features(index: hw.Index, tmp_path: Path) -> None:
    folder = tmp_path / "half"
    plan = hw.Plan(shard_rows=8, worker=(0, 2))  # the other worker never came
    hw.Index.build(folder, index.task, corpus(), FEATURES, plan)
    half = hw.Index.open(folder, index.task, unfinished=True)
    answer = hw.ask(half, ASKED, evidence="lexical,verbatim")
    assert answer.examples == len(half) == len(index)
    assert answer.picture.kind == "stated"
    assert any("is not finished" in note for note in answer.notes)
    with pytest.raises(InputError, match="not finished"):
        hw.ask(half, ASKED)


# -- what it comes down to -------------------------------------------------------------------


def span(tokens: int, log_probability: float) -> dict[str, Any]:
    part = {"text": "so it goes", "tokens": tokens, "count": 2}
    return {"output_tokens": tokens, "parts": [part | {"log_probability": log_probability}]}


def item(support: str, **kinds: int) -> Evidence:
    places = {kind: Place(rank, 1.5) for kind, rank in kinds.items()}
    return Evidence("e1", "text", 0.5, 50.0, 0, kinds=places, support=support)


OUT = Judgement(0.4, [0.1] * 19, 0.05, True, "")
IN = Judgement(0.4, [0.5] * 19, 1.0, False, "")


@pytest.mark.parametrize(
    ("spans", "items", "judgement", "kind"),
    [
        # exp(-20) * 1e6 = 0.002 expected
        ([span(6, -20.0)], [item("states the fact", lexical=1)], OUT, "copied"),
        ([span(5, -20.0)], [item("states the fact", lexical=1)], OUT, "stated"),  # too short
        ([span(9, -10.0)], [item("states the fact", lexical=1)], OUT, "stated"),  # too common
        ([], [item("states the fact", semantic=10)], IN, "stated"),
        ([], [item("states the fact", lexical=11)], OUT, "shaped"),  # too far down
        ([], [item("states the fact", influence=1)], OUT, "shaped"),  # no match by words
        ([], [item("shares subject", lexical=1, influence=1)], OUT, "shaped"),
        ([], [item("shares subject", lexical=1, influence=1)], IN, "nothing stands out"),
        ([], [], Judgement(0, [], None, None, ""), "nothing stands out"),
    ],
)
def test_the_picture(spans: Any, items: Any, judgement: Judgement, kind: str) -> None:
    made = picture(spans, items, judgement, 1_000_000)
    assert made.kind == kind
    assert made.summary.lower().startswith(kind.split()[0])
    assert any(c.isdigit() for c in made.summary) or not items


def test_lexical_and_verbatim_evidence_loads_no_torch(tmp_path: Path) -> None:
    rows = [{"id": f"d{i}", "text": f"The capital of number {i} is {i * i}."} for i in range(9)]
    hw.Index.build(tmp_path / "a", Texts(), hw.Corpus.from_documents(rows), None)
    code = (
        "import sys, headwater as hw\n"
        f"index = hw.Index.open({str(tmp_path / 'a')!r})\n"
        "query = hw.Query('The capital of number 7 is', ' 49')\n"
        "answer = hw.ask(index, query, evidence=('lexical', 'verbatim'))\n"
        "assert answer.proponents[0].id == 'd7', answer\n"
        "assert answer.picture.kind == 'stated', answer.picture\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# -- what takes part, what is shown, how it is asked again -----------


def test_what_has_no_influence_reads_as_a_dash(index: hw.Index, stubs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"evidence": ("influence", "lexical"), "candidates": ("lexical", 2)}
    answer = hw.ask(index, ASKED, **options, top=3)
    assert [one.score for one in answer.proponents].count(None) == 1
    (line,) = [line for line in repr(answer).splitlines() if index.ids[7] in line]
    assert "lexical 2 (2)" in line
    assert "influence" not in line


def test_an_order_shows_only_what_is_evidence(index: hw.Index, stubs: dict[str, Any]) -> None:
    stubs["lexical"][:] = 0
    answer = hw.ask(index, ASKED, evidence=("lexical",), fusion="lexical")
    assert answer.proponents == []
    stubs["lexical"][4] = 2
    answer = hw.ask(index, ASKED, evidence=("lexical", "semantic"), fusion="lexical")
    shown = [one for one in answer.proponents if not one.out_of_turn]
    assert [(one.position, one.kind) for one in shown] == [(4, "lexical")]
    stubs["semantic"][:] = -1
    for fusion in ("rrf", "semantic"):
        answer = hw.ask(index, ASKED, evidence=("semantic",), fusion=fusion)
        assert answer.proponents == []


def test_examples_and_percentiles_are_of_those_that_take_part(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    some = [index.ids[i] for i in (1, 5, 8, 9)]
    for kind in ("lexical", "semantic"):
        stubs[kind][[i for i in range(len(index)) if index.ids[i] not in some]] = np.nan
    answer = hw.ask(index, ASKED, evidence=("lexical",), ids=some, fusion="lexical")
    assert answer.examples == 4
    assert [(one.position, one.percentile) for one in answer.proponents] == [(5, 75.0), (1, 50.0)]


def test_queries_without_a_candidate_are_answered_without_influence(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    for kinds in (("influence", "lexical"), ("influence",)):
        options: dict[str, Any] = {"evidence": kinds, "candidates": ("lexical", 3), "top": 2}
        stubs["lexical"][:] = 0
        for fusion in ("rrf", "influence"):
            (answer,) = hw.ask(index, [ASKED], fusion=fusion, **options)
            assert answer.proponents == answer.opponents == []
            assert answer.judgement.stands_out is None
            assert any("no candidate" in note for note in answer.notes)
            assert answer.kinds["influence"].title == "TrackStar"
            assert answer.kinds["influence"].examples == 0
            assert "hw.TrackStar()" in answer.reproduce["python"]
            assert repr(answer)
        stubs["lexical"][[5, 1, 7]] = 3, 2, 2
        assert hw.ask(index, ASKED, **options).proponents


def test_the_kind_of_the_candidates_is_scored_once(
    index: hw.Index, stubs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[hw.Query] = []
    scores = Stub.scores

    def counted(self: Stub, query: hw.Query) -> Any:
        asked.append(query)
        return scores(self, query)

    monkeypatch.setattr(Stub, "scores", counted)
    hw.ask(index, ASKED, evidence=("influence", "lexical"), candidates=("lexical", 2))
    assert asked == [ASKED]


def test_methods_of_other_kinds_are_asked_again(index: hw.Index, stubs: dict[str, Any]) -> None:
    options: dict[str, Any] = {"evidence": ("lexical", "semantic")}
    told = hw.ask(
        index, ASKED, lexical=hw.BM25(k1=2.0), semantic=hw.Random(), entailment=lambda *_: 0.0,
        **options,
    ).reproduce  # fmt: skip
    for said in ("lexical=hw.BM25(k1=2.0)", "semantic=hw.Random()", "entailment=entailment"):
        assert said in told["python"]
        assert said in told["left_out"]
    assert "k1=" not in told["command"]
    fused = hw.Fusion(hw.BM25(), hw.Random())
    told = hw.ask(index, ASKED, lexical=fused, **options).reproduce
    assert told["left_out"] == "lexical=lexical"
    assert "left_out" not in hw.ask(index, ASKED, **options).reproduce


def test_a_token_in_two_spans_counts_once() -> None:
    rows = [
        {"id": "both", "text": "One saw the grey owl fly. Then the owl fly home to rest came."},
        {"id": "one", "text": "One saw the grey owl fly."},
        {"id": "rest", "text": "owl fly home to rest, they said"},
    ]
    index = hw.Index.build(None, Texts(), hw.Corpus.from_documents(rows), None)
    query = hw.Query("We:", " saw the grey owl fly home to rest")
    answer = hw.ask(index, query, evidence=("verbatim",), fusion="verbatim")
    verbatim = hw.Verbatim.open(index)
    words = verbatim.tokenizer.encode("saw the grey owl fly home to rest").ids
    surprise = -verbatim.log_probabilities(words)
    scores = {one.id: one.score for one in answer.proponents}
    assert {span["text"] for span in answer.spans} == {
        "saw the grey owl fly",
        "owl fly home to rest",
    }
    assert scores["both"] == pytest.approx(surprise.sum(), rel=1e-5)
    assert scores["one"] == pytest.approx(surprise[:5].sum(), rel=1e-5)
    assert scores["rest"] == pytest.approx(surprise[3:].sum(), rel=1e-5)
    assert answer.kinds["verbatim"].title == "Verbatim (words)"
