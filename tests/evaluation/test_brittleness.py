"""When predictions flip: hand-worked, against models trained by hand, intervals by simulation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.brittleness import Brittleness, brittleness, median
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Scored
from headwater.evaluation.over_queries import mean
from headwater.evaluation.trainers import LoopTrainer
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from known_trainer import Known
from models import Mlp, class_loss, class_margin

# Every document is worth one: a margin of room - k, negative from the first k above the room.
ONES = np.ones((5, 12))
ROOM = [0.5, 2.5, 4.0, 30.0, -0.5]
SCORES = np.tile(np.arange(12.0), (5, 1))


def value(figure: Estimate | str) -> float:
    assert isinstance(figure, Estimate), figure
    assert figure.low <= figure.value <= figure.high
    return figure.value


def test_flips_worked_by_hand(tmp_path: Path) -> None:
    """Query 0 flips at 2 (the first k tried above 0.5), 1 at 4, 2 at 6: 4 leaves its margin 0."""
    trainer = Known(ONES, room=ROOM)
    made = brittleness(Bank(tmp_path, trainer, workers=1), SCORES, range(0, 9, 2), seeds=[0, 1])
    assert made.ks == [2, 4, 6, 8]
    assert made.each == [2, 4, 6, None, None]
    assert made.counted == [True, True, True, True, False]
    assert value(made.median) == 4
    assert [value(made.shares[k]) for k in made.ks] == [0.25, 0.5, 0.75, 0.75]
    assert made.notes == ["query 4 is not counted: it is wrong without any removal"]
    gone = {len(trial.left_out) for trial in trainer.trials}
    assert gone == {0, 2, 4, 6, 8}
    assert Trial((10, 11), 1) in trainer.trials
    assert len(trainer.trials) == len(set(trainer.trials)) == 10


def test_what_has_flipped_is_not_trained_on(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(5, 12))
    trainer = Known(ONES, room=[0.5, 0.5, 0.5, 2.5, -1])
    brittleness(Bank(tmp_path, trainer, workers=1), scores, [1, 2, 3, 4], seeds=[0])
    sizes = [len(trial.left_out) for trial in trainer.trials]
    assert [sizes.count(k) for k in range(5)] == [1, 4, 1, 1, 0]


def test_the_mean_margin_over_seeds_decides(tmp_path: Path) -> None:
    """One seed flips at 2, the other never: their mean at 4."""

    class Seeds(Known):
        def measured(self, trial: Trial) -> dict[str, list[Any]]:
            found = super().measured(trial)
            found["margin"] = [m if trial.seed else 2.0 for m in found["margin"]]
            return found

    trainer = Seeds(ONES[:2], room=[1.5, 1.5])
    made = brittleness(Bank(tmp_path, trainer, workers=1), SCORES[:2], [2, 3, 4], seeds=[0, 1])
    assert made.each == [4, 4]


def test_what_never_flips_is_censored() -> None:
    counts = np.array([20.0, 40.0, np.inf, np.inf])
    assert value(median(counts, 100)) == 40
    assert isinstance(made := median(counts, 100), Estimate)
    assert made.high == 100
    assert median(np.array([20.0, np.inf, np.inf]), 100) == "over 100: 33% of 3 queries flip"
    assert median(np.array([]), 100) == "no query could be counted"
    assert "does not flip within 100" in str(median(np.array([np.inf]), 100))
    assert "40" in str(median(np.array([40.0]), 100))


def test_intervals_cover_as_often_as_they_say() -> None:
    """Flips after an exponential number of documents: half have flipped by 60 ln 2, so at 42."""
    rounds, shares, medians = 400, 0, 0
    for number in range(rounds):
        counts = np.ceil(np.random.default_rng(number).exponential(60, 40))
        counts[counts > 200] = np.inf
        middle, share = median(counts, 200, 300, number), mean(counts <= 50, 300, number)
        assert isinstance(middle, Estimate)
        assert isinstance(share, Estimate)
        medians += middle.low <= 42 <= middle.high
        shares += share.low <= 1 - np.exp(-50 / 60) <= share.high
    assert 0.92 <= medians / rounds <= 0.98
    assert 0.92 <= shares / rounds <= 0.98


def test_as_a_metric_and_a_flipped_sign_is_caught(tmp_path: Path) -> None:
    effects = np.random.default_rng(1).exponential(size=(6, 12))
    metric = Brittleness(Bank(tmp_path, Known(effects, room=[4.0] * 6), workers=1), [0], [2, 4, 6])
    right = metric.measure(Scored("own", "Own", effects.astype(np.float32)))
    wrong = metric.measure(Scored("flipped", "Flipped", -effects.astype(np.float32)))
    assert list(right) == list(metric.columns) == [
        "flips at", "flipped by 2", "flipped by 4", "flipped by 6",
    ]  # fmt: skip
    assert value(right["flips at"]) <= 4
    assert wrong["flips at"] == "over 6: 0% of 6 queries flip"
    assert value(wrong["flipped by 6"]) == 0
    assert metric.describe()["ks"] == [2, 4, 6]


def test_bad_input_is_told(tmp_path: Path) -> None:
    bank = Bank(tmp_path, Known(ONES), workers=1)
    for ks in ([12], [0], [-1, 2]):
        with pytest.raises(InputError, match="so many"):
            brittleness(bank, SCORES, ks)
    nothing = brittleness(bank, np.full((5, 12), np.nan), [1])
    assert nothing.median == nothing.shares[1] == "no query could be counted"
    assert len(nothing.notes) == 5
    assert "one seed" in brittleness(bank, SCORES, [1], seeds=[0]).notes[0]
    wrong = brittleness(Bank(tmp_path / "b", Known(ONES, room=[-1.0] * 5), workers=1), SCORES, [1])
    assert wrong.median == "no query could be counted"

    class Plain:
        """A trainer that knows losses only."""

        documents = 12

        def describe(self) -> dict[str, Any]:
            return {"trainer": "plain"}

        def asked(self) -> list[str]:
            return ["q"]

        def losses(self, trial: Trial) -> list[float]:
            return [float(len(trial.left_out))]

    plain = Bank(tmp_path, Plain(), workers=1)
    assert plain.losses([Trial((1, 2))]).tolist() == [[2.0]]
    with pytest.raises(InputError, match="margin"):
        brittleness(plain, SCORES[:1], [1])


N = 16
RECIPE = Recipe(epochs=8, batch_size=4, learning_rate=0.3, optimizer="sgd", grad_clip=None)


def test_a_real_model_end_to_end(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data: dict[str, Any] = {"x": random.normal(size=(N, 6)), "y": np.arange(N) % 4}
    data["x"] += 1.5 * np.eye(6)[data["y"]]
    corpus = hw.Corpus.from_columns(data, ids=[f"z{i}" for i in range(N)])
    queries = [hw.Query(columns={"x": 1.5 * np.eye(6)[y], "y": y}) for y in (0, 1, 2)]
    task = hw.Task(Mlp().double(), class_loss, margin=class_margin)
    trainer = LoopTrainer(task, corpus, RECIPE, queries, measures=("loss", "margin"))
    scores = np.array([(data["y"] == y) + 0.01 * np.arange(N) for y in (0, 1, 2)])
    made = brittleness(Bank(tmp_path, trainer, workers=1), scores, [1, 2, 3, 4], seeds=[0, 1])

    def margin(gone: list[int], seed: int, q: int) -> float:
        model, kept = Mlp().double(), [i for i in range(N) if i not in gone]
        some = hw.Corpus.from_columns(
            {k: v[kept] for k, v in data.items()}, ids=[f"z{i}" for i in kept]
        )
        train(hw.Task(model, class_loss), some, replace(RECIPE, seed=seed), progress=False)
        with torch.no_grad():
            p = torch.softmax(model(torch.as_tensor(1.5 * np.eye(6)[[q]])), dim=1)[0]
        return float(torch.log(p[q]) - torch.log(p.sum() - p[q]))

    for q in range(3):
        best = np.argsort(-scores[q]).tolist()
        by_k = {k: np.mean([margin(best[:k], s, q) for s in (0, 1)]) for k in range(5)}
        assert by_k[0] > 0
        right = next((k for k in (1, 2, 3, 4) if by_k[k] < 0), None)
        assert made.each[q] == right
    assert any(k is not None for k in made.each)
