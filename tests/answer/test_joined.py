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
from headwater.answer.verdict import picture
from headwater.engine.errors import InputError
from headwater.report.terminal import render
from headwater.tasks.texts import Texts

ASKED = hw.Query("The owl is", " white")
KINDS = ("influence", "lexical", "semantic")


class Stub:
    """A kind with given scores."""

    title, unit = "Stub", "points"

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


def ranks(row: Any, ids: list[str]) -> dict[int, int]:
    """Rank from 1 of all with a score, best first, ties by id."""
    there = [i for i in range(len(ids)) if np.isfinite(row[i])]
    return {i: n + 1 for n, i in enumerate(sorted(there, key=lambda i: (-row[i], ids[i])))}


def test_every_kind_has_its_rank_and_one_order_shows_them(
    index: hw.Index, stubs: dict[str, Any]
) -> None:
    answer = hw.ask(index, ASKED, method=hw.GradCos(), evidence=KINDS, top=6)
    rows = {"influence": hw.scores(index, ASKED, method=hw.GradCos())[0], **stubs}
    ids = index.ids
    places = {kind: ranks(row, ids) for kind, row in rows.items()}
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
    assert answer.examples == 2
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
    for said in ("infl.", "lex.", "sem.", "rank by each kind", "similarity is not a cause"):
        assert said in text, said
    assert answer.picture.kind.capitalize().split()[0] in text


def test_what_is_refused(index: hw.Index, stubs: dict[str, Any]) -> None:
    plain = hw.Index.build(None, index.task, corpus(), None)
    for given, options, said in (
        (index, {"evidence": ("gossip",)}, "Unknown kinds"),
        (index, {"evidence": "influence"}, "Unknown kinds"),
        (index, {"evidence": ()}, "Unknown kinds"),
        (index, {"fusion": "lexical"}, "Unknown fusion"),
        (index, {"candidates": ("influence", 3)}, "another kind"),
        (index, {"candidates": ("lexical", 0)}, "another kind"),
        (plain, {}, "holds no features"),
    ):
        with pytest.raises(InputError, match=said):
            hw.ask(given, ASKED, **options)


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
