"""Uncertainty of scores and ranks: against whole indexes under other seeds and other weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from small_facts import FEATURES, corpus, task

import headwater as hw
from headwater.answer import uncertainty
from headwater.answer.uncertainty import Case, over_checkpoints, over_seeds
from headwater.engine.errors import InputError
from headwater.gradients.compute import Gradients
from headwater.report.terminal import show

QUERY = hw.Query("The fox is", " red")
SEEDS = 3


@pytest.fixture(scope="module")
def others() -> list[hw.Index]:
    """Whole indexes of the same model and corpus under the other seeds."""
    torch.set_num_threads(1)
    made = task(8)
    return [
        hw.Index.build(None, made, corpus(), replace(FEATURES, seed=seed))
        for seed in range(1, SEEDS + 1)
    ]


def case(index: hw.Index, method: Any, top: int = 3) -> Case:
    row = hw.scores(index, QUERY, method=method)[0]
    order = np.argsort(-row, kind="stable").tolist()
    parts = index.task.query_chunks(QUERY)
    return Case(index, method, None, QUERY, parts, row, order[:top], order[-top:])


METHODS = [hw.GradDot(), hw.GradCos(), hw.LoGra(), hw.LRelatIF(), hw.TrackStar(), hw.LoRIF(8)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_of_everything_it_is_what_whole_indexes_say(
    index: hw.Index, others: list[hw.Index], method: Any
) -> None:
    one = case(index, method)
    found, (note,) = over_seeds(one, SEEDS)
    assert "which are all" in note
    rows = [one.scores, *(hw.scores(other, QUERY, method=method)[0] for other in others)]
    size = float(np.abs(one.scores).max())
    assert set(found) == {*one.best, *one.worst}
    for position, spread in found.items():
        values = [float(row[position]) for row in rows]
        assert max(values) - min(values) > 0.01 * abs(values[0])  # seeds do differ
        np.testing.assert_allclose(spread.score, (min(values), max(values)), atol=1e-4 * size)
        sign = -1 if position in one.worst else 1
        ranks = [1 + int((sign * row > sign * row[position] + 1e-5 * size).sum()) for row in rows]
        assert spread.rank == (min(ranks), max(ranks))
        assert spread.count == SEEDS + 1


def test_margins_and_chunks_of_their_own_weight() -> None:
    made = task(8)
    features = replace(FEATURES, output="margin")
    index = hw.Index.build(None, made, corpus(), features)
    one = case(index, hw.TRAK())
    other = hw.Index.build(None, made, corpus(), replace(features, seed=1))
    found, _ = over_seeds(one, 1)
    there = hw.scores(other, QUERY, method=hw.TRAK())[0]
    for position, spread in found.items():
        values = sorted([float(one.scores[position]), float(there[position])])
        np.testing.assert_allclose(spread.score, values, rtol=1e-3, atol=1e-6)


def test_held_out_queries_are_projected_anew(index: hw.Index, others: list[hw.Index]) -> None:
    held = [hw.Query(f"The {name} is", " brown") for name in ("owl", "cat", "bee", "cow")] * 3
    method = hw.TrackStar(held)
    one = case(index, method)
    found, _ = over_seeds(one, 1)
    there = hw.scores(others[0], QUERY, method=method)[0]
    for position, spread in found.items():
        values = sorted([float(one.scores[position]), float(there[position])])
        np.testing.assert_allclose(spread.score, values, atol=1e-4)


def test_a_sample_stands_for_the_rest(
    index: hw.Index, others: list[hw.Index], monkeypatch: Any
) -> None:
    """Inner products need no curvature: scores are exact, and ranks count by the sample."""
    monkeypatch.setattr(uncertainty, "NEAR", 4)
    one = case(index, hw.GradDot(), top=1)
    order = np.argsort(-one.scores, kind="stable")
    # From the middle, so that some of the sample are above them and some below.
    one.best, one.worst = [int(order[12])], [int(order[-11])]
    near, drawn = uncertainty._documents(one, 5)
    assert set(near) == {*order[:4], *order[-4:], order[12], order[-11]}
    assert len(drawn) == 5
    assert not set(near) & set(drawn)
    found, (note,) = over_seeds(one, SEEDS, 5)
    assert "moves a shown score by at most" in note
    rows = [one.scores, *(hw.scores(other, QUERY, method=hw.GradDot())[0] for other in others)]
    (best,), (worst,) = one.best, one.worst
    for position, sign in ((best, 1), (worst, -1)):
        values = [float(row[position]) for row in rows]
        np.testing.assert_allclose(found[position].score, (min(values), max(values)), rtol=1e-4)
        ranks = [1 + int((sign * one.scores > sign * one.scores[position]).sum())]
        for row in rows[1:]:
            above = sign * row > sign * row[position]
            weight = (len(row) - len(near)) / 5
            ranks.append(1 + round(above[near].sum() + weight * above[drawn].sum()))
        assert found[position].rank == (min(ranks), max(ranks))


def test_what_was_picked_for_its_score_has_no_part_in_the_curvature(
    index: hw.Index, monkeypatch: Any
) -> None:
    counts: list[int] = []

    class Told(hw.LoGra):
        def fit(self, index: Any) -> Any:
            counts.append(index.autocorrelation().count)
            return super().fit(index)

    monkeypatch.setattr(uncertainty, "NEAR", 4)
    one = case(index, Told(), top=1)
    _, drawn = uncertainty._documents(one, 5)
    for sample, of in ((5, drawn.tolist()), (256, range(len(index)))):
        counts.clear()
        over_seeds(one, 1, sample)
        assert counts == [sum(map(len, index.chunks(of)))] * 2


def test_one_pass_of_the_model_serves_all_seeds(index: hw.Index, monkeypatch: Any) -> None:
    one = case(index, hw.GradDot())
    passes: list[int] = []
    run = Gradients._run

    def counted(self: Any, sink: Any, chunks: Any, role: Any) -> Any:
        passes.append(len(chunks))
        return run(self, sink, chunks, role)

    monkeypatch.setattr(Gradients, "_run", counted)
    over_seeds(one, 1)
    few = len(passes)
    passes.clear()
    over_seeds(one, 6)
    assert len(passes) == few


def test_checkpoints_are_feature_sets_of_other_weights(tmp_path: Path) -> None:
    index = hw.Index.build(tmp_path / "index", task(8), corpus(), FEATURES)
    early = task(3)
    hw.add_features(index, "early", early, FEATURES)
    hw.add_features(index, "again", index.task, replace(FEATURES, seed=4))
    one = case(index, hw.TrackStar())
    nothing, notes = over_checkpoints(one)
    assert nothing == {}  # its weights are nowhere to be loaded from
    assert "early takes no part" in notes[0]
    early.model.save_pretrained(tmp_path / "early")
    manifest = tmp_path / "index" / "feature_sets" / "early" / "manifest.json"
    record = json.loads(manifest.read_text())
    record["source"] = {"checkpoint": str(tmp_path / "early")}
    manifest.write_text(json.dumps(record))
    found, notes = over_checkpoints(one)
    assert notes == ["uncertainty over the weights of own, early"]  # not again: the same weights
    method = hw.Ensemble(hw.TrackStar(), ["early"])
    there = hw.scores(index, QUERY, method=method)[0]
    for position, spread in found.items():
        values = sorted([float(one.scores[position]), float(there[position])])
        np.testing.assert_allclose(spread.score, values, atol=1e-5)
        assert (spread.over, spread.count) == ("checkpoints", 2)
    answer = hw.ask(index, QUERY, top=2, uncertainty=1)
    assert [one.over for one in answer.proponents[0].spreads] == ["projection seeds", "checkpoints"]


def test_an_answer_tells_it(index: hw.Index) -> None:
    plain = hw.ask(index, QUERY, top=3)
    assert all(item.spreads == [] for item in plain.proponents)
    answer = hw.ask(index, QUERY, top=3, uncertainty=2)
    assert [item.id for item in answer.proponents] == [item.id for item in plain.proponents]
    for item in [*answer.proponents, *answer.opponents]:
        (spread,) = item.spreads
        assert spread.count == 3
        assert spread.score[0] <= (item.score or 0) <= spread.score[1]
    assert answer.proponents[0].spreads[0].rank[0] == 1
    assert "uncertainty" in answer.seconds
    assert any("uncertainty over 3 projection seeds" in note for note in answer.notes)
    assert "uncertainty=2" in answer.reproduce["python"]
    assert "--uncertainty 2" in answer.reproduce["command"]
    assert json.dumps(answer.to_dict())
    assert hw.ask(index, QUERY, top=3, uncertainty=2).proponents == answer.proponents
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    show(answer, console)
    assert "over 3 projection seeds" in console.export_text()
    joined = hw.ask(index, QUERY, top=3, uncertainty=2, evidence=["influence", "lexical"])
    known = [item for item in joined.proponents if item.spreads]
    assert known


def test_it_leaves_the_index_alone(index: hw.Index) -> None:
    before = sorted(path.name for path in index.path.rglob("*") if "views" not in path.parts)
    first = hw.scores(index, QUERY, method=hw.TrackStar())
    hw.ask(index, QUERY, top=2, uncertainty=1)
    assert (hw.scores(index, QUERY, method=hw.TrackStar()) == first).all()
    after = sorted(path.name for path in index.path.rglob("*") if "views" not in path.parts)
    assert after == before


def test_what_has_no_such_uncertainty_is_told(index: hw.Index) -> None:
    made = index.task
    full = hw.Index.build(
        None, made, corpus(), hw.Features(None, parameters=lambda name, _: "q_proj" in name)
    )
    for one, options, said in (
        (index, {"uncertainty": -1}, "number of seeds"),
        (index, {"uncertainty": 2, "method": hw.EKFAC()}, "views over the whole index"),
        (index, {"uncertainty": 2, "evidence": ["lexical"]}, "views over the whole index"),
        (full, {"uncertainty": 2}, "not projected at random"),
        (
            index,
            {"uncertainty": 2, "candidates": ("lexical", 3), "evidence": ["influence", "lexical"]},
            "without candidates",
        ),
    ):
        with pytest.raises(InputError, match=said):
            hw.ask(one, QUERY, **options)
