"""Leave-top-k-out: hand-worked rises, controls, intervals by simulation, a retrained model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Scored
from headwater.evaluation.over_queries import mean
from headwater.evaluation.removal import Removal, Removed, removal
from headwater.evaluation.trainers import LoopTrainer
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from known_trainer import Known
from models import Mlp, class_loss

Array = np.ndarray[Any, Any]

EFFECTS = np.array([[5.0, 1.0, 0.0, -2.0, 3.0], [0.0, 4.0, 2.0, 1.0, -1.0]])


def bank(folder: Path, effects: Array = EFFECTS, **options: Any) -> tuple[Bank, Known]:
    trainer = Known(effects, **options)
    return Bank(folder, trainer, workers=1), trainer


def value(figure: Estimate | str) -> float:
    assert isinstance(figure, Estimate), figure
    assert figure.low <= figure.value <= figure.high
    return figure.value


def test_rises_worked_by_hand(tmp_path: Path) -> None:
    """Best for query 0: 0, 4, 1, ...; for query 1: 1, 2, 3, .... The seeds' own losses cancel."""
    one, trainer = bank(tmp_path)
    made = removal(one, EFFECTS, [1, 3], seeds=[0, 3], bottom=True, draws=2)
    assert made.each == [[5.0, 9.0], [4.0, 7.0]]
    assert value(made.top[1]) == 4.5
    assert value(made.top[3]) == 8.0
    assert value(made.bottom[1]) == (-2.0 - 1.0) / 2
    assert value(made.bottom[3]) == ((-2 + 0 + 1) + (-1 + 0 + 1)) / 2
    orders = [np.random.default_rng([0, d]).permutation(5) for d in range(2)]
    for k in (1, 3):
        by_hand = np.mean([EFFECTS[q, order[:k]].sum() for q in range(2) for order in orders])
        assert value(made.random[k]) == pytest.approx(by_hand)
        assert value(made.less_random[k]) == pytest.approx(value(made.top[k]) - by_hand)
    assert (made.queries, made.seeds, made.notes) == (2, 2, [])
    assert Trial((0, 1, 4), 3) in trainer.trials
    assert len(trainer.trials) == len(set(trainer.trials))


def test_all_trainings_go_to_the_bank_at_once(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    calls: list[list[Trial]] = []
    inner = one.losses
    one.losses = lambda trials: (calls.append(list(trials)), inner(trials))[1]  # type: ignore[method-assign]
    removal(one, EFFECTS, [1, 2], seeds=[0, 1], draws=3, bottom=True)
    assert len(calls) == 1
    assert len(trainer.trials) == len(set(calls[0]))


def test_fixed_trials_are_asked_for(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    made = removal(one, EFFECTS, [1], seeds=[0], draws=0, kind="fixed")
    assert made.each == [[12.0], [11.0]]
    assert {trial.kind for trial in trainer.trials} == {"fixed"}
    assert made.less_random == {}
    assert "one seed" in made.notes[0]


def test_nan_is_never_chosen_and_ties_are_broken_by_lot(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    scores = EFFECTS.copy()
    scores[0, [0, 4]] = np.nan
    made = removal(one, scores, [1, 3], draws=0, bottom=True)
    assert made.each[0] == [1.0, -1.0]
    gone = {trial.left_out for trial in trainer.trials}
    assert (0,) not in gone
    assert (1, 2, 3) in gone
    firsts: set[tuple[int, ...]] = set()
    for seed in range(12):
        other, tied = bank(tmp_path / str(seed))
        removal(other, np.zeros((2, 5)), [1], draws=0, seed=seed)
        firsts |= {trial.left_out for trial in tied.trials if trial.left_out}
    assert len(firsts) >= 3


def test_groups_take_the_place_of_documents(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    groups = {"a": [4, 3], "b": [1, 2], "c": [0]}  # sums 1, 1, 5 and 0, 6, 0
    scores = EFFECTS.copy()
    scores[1, 2] = np.nan  # of a group with another score: b stays first, with 4
    made = removal(one, scores, [1], draws=0, groups=groups)
    assert made.each == [[5.0], [6.0]]
    assert {trial.left_out for trial in trainer.trials} == {(), (0,), (1, 2)}
    scores[0, [0, 3]] = np.nan, -9
    made = removal(one, scores, [2], draws=0, groups=groups)
    assert made.each[0] == [2.0]  # c has no score and is not chosen: b and, though negative, a
    with pytest.raises(InputError, match="group 'd'"):
        removal(one, scores, [1], groups={"a": [1], "d": [9]})


def test_a_sign_flipped_method_is_not_above_random(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    effects = random.normal(size=(12, 30))
    one, _ = bank(tmp_path, effects, noise=0.3)
    right = removal(one, effects, [5]).less_random[5]
    wrong = removal(one, -effects, [5]).less_random[5]
    noise = removal(one, random.normal(size=effects.shape), [5]).less_random[5]
    assert isinstance(right, Estimate)
    assert isinstance(wrong, Estimate)
    assert isinstance(noise, Estimate)
    assert right.low > 0
    assert wrong.high < 0
    assert noise.low < 0 < noise.high


@pytest.mark.parametrize("queries", [10, 40])
def test_intervals_cover_as_often_as_they_say(queries: int) -> None:
    """Queries, shared random subsets and single trainings all vary; the truth is 1."""
    draws, rounds = 8, 400
    alone = shared = 0
    for number in range(rounds):
        random = np.random.default_rng(number)
        own = 1 + random.normal(size=queries)
        control = 0.3 * random.normal(size=draws) + 0.5 * random.normal(size=(queries, draws))
        made = mean(own, 300, number)
        both = mean(own[:, None] - control, 300, number)
        assert isinstance(made, Estimate)
        assert isinstance(both, Estimate)
        alone += made.low <= 1 <= made.high
        shared += both.low <= 1 <= both.high
    assert 0.92 <= alone / rounds <= 0.98
    assert 0.92 <= shared / rounds <= 0.98


def test_as_a_metric(tmp_path: Path) -> None:
    one, _ = bank(tmp_path)
    metric = Removal(one, [0, 1], ks=[1, 2], bottom=True)
    figures = metric.measure(Scored("own", "Own", EFFECTS.astype(np.float32)))
    assert metric.name == "removal"
    assert list(figures) == list(metric.columns)
    assert value(figures["top-1"]) == 4.5
    assert value(figures["bottom-2"]) == (-2 - 1) / 2
    assert list(Removal(one, [0], ks=[1], draws=0).columns) == ["top-1"]
    assert Removal(one, [0], ks=[1], kind="fixed").name == "removal-fixed"
    others = [
        metric,
        Removal(one, [0, 1], ks=[1, 3], bottom=True),
        Removal(one, [0, 2], ks=[1, 2], bottom=True),
        Removal(one, [0, 1], ks=[1, 2], groups={"a": (1,), "b": (2,), "c": (3,)}),
        Removal(Bank(tmp_path, Known(-EFFECTS)), [0, 1], ks=[1, 2], bottom=True),
    ]
    assert len({json.dumps(other.describe()) for other in others}) == len(others)


def test_what_cannot_be_counted_is_told(tmp_path: Path) -> None:
    one, _ = bank(tmp_path)
    scores = EFFECTS.copy()
    scores[0, 1:] = np.nan
    made = removal(one, scores, [1, 2])
    assert made.each[0] is None
    assert "query 0" in made.notes[0]
    assert isinstance(made.top[2], str)
    assert "one query" in made.top[2]
    other, unused = bank(tmp_path / "other")
    nothing = removal(other, np.full((2, 5), np.nan), [1])
    assert nothing.top[1] == nothing.less_random[1] == "no query could be counted"
    assert unused.trials == []  # nothing is trained for it
    assert isinstance(Removed(**nothing.to_dict()), Removed)
    assert any("one random subset" in note for note in removal(one, scores, [1], draws=1).notes)


def test_bad_input_is_told(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    for ks in ([5], [0], []):
        with pytest.raises(InputError, match="so many documents"):
            removal(one, EFFECTS, ks)
    with pytest.raises(InputError, match="so many groups"):
        removal(one, EFFECTS, [2], groups={"a": [1], "b": [2]})
    with pytest.raises(InputError, match="do not fit"):
        removal(one, EFFECTS[:, :4], [1])
    for seeds in ([], [1, 1]):
        with pytest.raises(InputError, match="seeds"):
            removal(one, EFFECTS, [1], seeds=seeds)
    with pytest.raises(InputError, match="draws"):
        removal(one, EFFECTS, [1], draws=-1)
    with pytest.raises(InputError, match="no query"):
        removal(Bank(tmp_path, Known(np.zeros((0, 5)))), np.zeros((0, 5)), [1])
    assert trainer.trials == []


N = 24
RECIPE = Recipe(epochs=6, batch_size=8, learning_rate=0.2, optimizer="sgd", grad_clip=None)


def columns() -> dict[str, Any]:
    random = np.random.default_rng(0)
    x = random.normal(size=(N, 6))
    return {"x": x, "y": (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0)}


def test_a_real_model_end_to_end(tmp_path: Path) -> None:
    """GradDot's best three of each query, retrained by hand; random stays below, flipped too."""
    data = columns()
    corpus = hw.Corpus.from_columns(data, ids=[f"z{i}" for i in range(N)])
    x = np.random.default_rng(5).normal(size=(8, 6))
    y = (x[:, 0] > 0).astype(np.int64) + 2 * (x[:, 1] > 0)
    queries = [hw.Query(columns={"x": a, "y": b}) for a, b in zip(x, y, strict=True)]
    trained = hw.Task(Mlp().double(), class_loss)
    train(trained, corpus, RECIPE, progress=False)
    index = hw.Index.build(None, trained, corpus, features=hw.Features(projection=None))
    scores = hw.scores(index, queries, method=hw.GradDot())
    start = hw.Task(Mlp().double(), class_loss)
    one = Bank(tmp_path, LoopTrainer(start, corpus, RECIPE, queries), workers=1)
    made = removal(one, scores, [3], seeds=[0, 1], draws=4)

    def loss(kept: list[int], seed: int, q: int) -> float:
        model = Mlp().double()
        some = hw.Corpus.from_columns(
            {k: v[kept] for k, v in data.items()}, ids=[f"z{i}" for i in kept]
        )
        train(hw.Task(model, class_loss), some, replace(RECIPE, seed=seed), progress=False)
        batch = {"x": torch.as_tensor(x[q : q + 1]), "y": torch.as_tensor(y[q : q + 1])}
        with torch.no_grad():
            return float(class_loss(model, batch)[0])

    for q in (0, 5):
        gone = set(np.argsort(-scores[q])[:3].tolist())
        kept = [i for i in range(N) if i not in gone]
        rises = [loss(kept, seed, q) - loss(list(range(N)), seed, q) for seed in (0, 1)]
        (found,) = made.each[q] or [0.0]
        assert found == pytest.approx(np.mean(rises), rel=1e-9)
    assert isinstance(made.less_random[3], Estimate)
    assert made.less_random[3].low > 0
    flipped = removal(one, -scores, [3], seeds=[0, 1], draws=4).less_random[3]
    assert isinstance(flipped, Estimate)
    assert flipped.high < 0
