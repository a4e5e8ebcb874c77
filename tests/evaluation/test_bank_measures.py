"""What a bank keeps besides losses: margins and answers of the same trained model, trained once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.evaluation.answers import Greedy, answerer_name
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.trainers import FunctionTrainer, LoopTrainer
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from models import Mlp, class_loss, class_margin

N = 10
RECIPE = Recipe(epochs=2, batch_size=5, learning_rate=0.3, optimizer="sgd", grad_clip=None)
ALL = ("loss", "margin", "answer")


def columns() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(N, 6)), "y": random.integers(0, 5, N)}


def task() -> hw.Task:
    return hw.Task(Mlp().double(), class_loss, margin=class_margin)


def queries() -> list[hw.Query]:
    x = np.random.default_rng(9).normal(size=(2, 6))
    plain = hw.Query(columns={"x": x[0], "y": 1})
    return [plain, hw.Query(columns={"x": x[1], "y": 3}, instead_of={"y": 0})]


def predicted(task: hw.Task, query: hw.Query) -> hw.Query:
    assert query.columns is not None
    with torch.no_grad():
        label = int(task.model(torch.as_tensor(query.columns["x"])[None])[0].argmax())
    return replace(query, columns={**query.columns, "y": label}, instead_of=None)


class Counted(LoopTrainer):
    """Notes what it trains."""

    log: Path | None = None
    wait = 0.0

    def measured(self, trial: Trial) -> dict[str, list[Any]]:
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps(trial.left_out) + "\n")
        time.sleep(self.wait)
        return super().measured(trial)


def trainer(measures: Sequence[str] = ("loss",), answer: Any = predicted) -> Counted:
    corpus = hw.Corpus.from_columns(columns(), ids=[f"z{i}" for i in range(N)])
    return Counted(task(), corpus, RECIPE, queries(), measures=measures, answer=answer)


def by_hand(gone: tuple[int, ...]) -> torch.nn.Module:
    model, data = Mlp().double(), columns()
    kept = [i for i in range(N) if i not in gone]
    some = hw.Corpus.from_columns(
        {k: v[kept] for k, v in data.items()}, ids=[f"z{i}" for i in kept]
    )
    train(hw.Task(model, class_loss), some, RECIPE, progress=False)
    return model


def test_margins_and_answers_are_those_of_the_model_trained_by_hand(tmp_path: Path) -> None:
    bank = Bank(tmp_path, trainer(ALL), workers=1)
    model = by_hand((2, 7))
    asked = [query.columns or {} for query in queries()]
    with torch.no_grad():
        p = [torch.softmax(model(torch.as_tensor(c["x"])[None])[0], 0) for c in asked]
    odds = [torch.log(one / (1 - one)) for one in p]
    trials = [Trial((2, 7)), Trial(())]
    made = bank.margins(trials)
    assert made.shape == (2, 2)
    assert made[0, 0] == pytest.approx(float(odds[0][1]), rel=1e-9)
    assert made[0, 1] == pytest.approx(float(odds[1][3] - odds[1][0]), rel=1e-9)
    labels = [int(one.argmax()) for one in p]
    changed = [{} if y == c["y"] else {"y": y} for y, c in zip(labels, asked, strict=True)]
    assert bank.answers(trials)[0] == [{"columns": one} for one in changed]
    assert bank.losses(trials)[0, 0] == pytest.approx(-float(torch.log(p[0][1])), rel=1e-9)
    assert bank.trained == 0


def test_what_is_declared_is_had_from_one_training(tmp_path: Path) -> None:
    one = trainer(ALL)
    one.log = tmp_path / "log"
    bank = Bank(tmp_path / "bank", one, workers=2)
    trials = [Trial((i,)) for i in range(4)]
    for ask in (bank.margins, bank.losses, bank.answers, bank.margins):
        ask(trials)
    bank.one(trials[0], "margin")  # as a process does that comes second
    assert len(one.log.read_text().splitlines()) == 4
    again = Bank(tmp_path / "bank", trainer(ALL), workers=1)
    again.answers(trials)
    again.margins(trials)
    assert again.trained == 0


def old_entry(folder: Path, described: dict[str, Any], told: str, losses: dict[str, float]) -> Path:
    """As a bank that knew only losses wrote it."""
    text = json.dumps(described, sort_keys=True, ensure_ascii=False)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / key / f"{hashlib.sha256(told.encode()).hexdigest()[:24]}.json"
    path.parent.mkdir(parents=True)
    trial = {"kind": "resampled", "seed": 3, "left_out": [1, 4]}
    path.write_text(json.dumps({"trial": trial, "losses": losses, "seconds": 0.5}))
    return path


def test_old_entries_are_read_and_kept_when_more_is_asked_for(tmp_path: Path) -> None:
    one = trainer(ALL)
    losses = dict(zip(one.asked(), [1.5, -2.5], strict=True)) | {"another query": 9.0}
    path = old_entry(tmp_path, one.describe(), "resampled|3|1,4", losses)
    bank = Bank(tmp_path, one, workers=1)
    trial = Trial((1, 4), 3)
    assert bank.losses([trial]).tolist() == [[1.5, -2.5]]
    assert bank.trained == 0
    assert bank.seconds([trial]) == 0.5
    bank.margins([trial])  # declared too late for this entry: trained again, once
    assert bank.trained == 1
    bank.answers([trial])
    bank.losses([trial])
    assert bank.trained == 0
    kept = json.loads(path.read_text())
    assert kept["losses"]["another query"] == 9.0
    assert set(kept) == {"trial", "losses", "margins", "seconds", one.fields["answer"]}
    assert kept["trial"] == {"kind": "resampled", "seed": 3, "left_out": [1, 4]}
    plain = Bank(tmp_path, trainer(), workers=1)
    assert plain.key == bank.key
    plain.losses([trial])
    assert plain.trained == 0


def test_answers_made_in_another_way_are_kept_apart(tmp_path: Path) -> None:
    def other(task: hw.Task, query: hw.Query) -> hw.Query:
        return replace(query, columns={**(query.columns or {}), "y": 77}, instead_of=None)

    first, second = (Bank(tmp_path, trainer(ALL, by), workers=1) for by in (predicted, other))
    found = first.answers([Trial(())])
    assert second.answers([Trial(())]) == [[{"columns": {"y": 77}}] * 2]
    assert second.trained == 1
    assert first.answers([Trial(())]) == found
    assert first.trained == 0
    names = [answerer_name(one) for one in (Greedy(4), Greedy(8), Greedy(4, (".",)), predicted)]
    assert len(set(names)) == 4


def _fill(folder: str, log: str) -> None:
    one = trainer(ALL)
    one.log, one.wait = Path(log), 0.1
    Bank(folder, one, workers=1).margins([Trial((i,)) for i in range(N)])


def test_a_killed_bank_goes_on_with_margins(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = multiprocessing.get_context("fork").Process(
        target=_fill, args=(str(tmp_path / "bank"), str(log))
    )
    process.start()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 4):
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    assert 4 <= len(log.read_text().splitlines()) < N
    one = trainer(ALL)
    one.log = log
    trials = [Trial((i,)) for i in range(N)]
    made = Bank(tmp_path / "bank", one, workers=1).margins(trials)
    lines = log.read_text().splitlines()
    assert len(lines) - len(set(lines)) <= 1
    assert (made == Bank(tmp_path / "other", trainer(ALL), workers=1).margins(trials)).all()


def test_a_function_of_the_users_measures_too(tmp_path: Path) -> None:
    def retrain(ids: list[str], seed: int) -> torch.nn.Module:
        return by_hand(tuple(i for i in range(N) if f"z{i}" not in ids))

    ids = [f"z{i}" for i in range(N)]
    made = FunctionTrainer(retrain, task(), ids, queries(), "mine", ALL, predicted)
    bank = Bank(tmp_path, made, workers=1)
    right = Bank(tmp_path / "loop", trainer(ALL), workers=1)
    np.testing.assert_allclose(bank.margins([Trial((1,))]), right.margins([Trial((1,))]))
    assert bank.answers([Trial((1,))]) == right.answers([Trial((1,))])


def test_bad_input_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    bank = Bank(tmp_path, trainer(), workers=1)
    for ask in (bank.margins, bank.answers):
        with pytest.raises(InputError, match="does not measure"):
            ask([Trial(())])
    for measures in (("loss", "accuracy"), "margin"):
        with pytest.raises(InputError, match="Unknown measure"):
            trainer(measures)
    corpus = hw.Corpus.from_columns(columns())
    bare = hw.Task(Mlp().double(), class_loss)
    with pytest.raises(InputError, match="no margin"):
        LoopTrainer(bare, corpus, RECIPE, queries(), measures=("loss", "margin"))
    with pytest.raises(InputError, match="no words"):
        LoopTrainer(bare, corpus, RECIPE, queries(), measures=("answer",))


def test_margins_without_end_stay_numbers(tmp_path: Path) -> None:
    """A model that is entirely sure has infinite log-odds; NaN is an error."""

    def endless(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.full((len(batch["y"]),), torch.inf)

    def nothing(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.full((len(batch["y"]),), torch.nan)

    corpus = hw.Corpus.from_columns(columns())
    sure = hw.Task(Mlp().double(), class_loss, margin=endless)
    made = LoopTrainer(sure, corpus, RECIPE, queries()[:1], measures=("margin",))
    bank = Bank(tmp_path, made, workers=1)
    assert bank.margins([Trial(())]).tolist() == [[1e30]]
    assert "Infinity" not in bank._path(Trial(())).read_text()
    lost = hw.Task(Mlp().double(), class_loss, margin=nothing)
    with pytest.raises(NumericError, match="not a number"):
        LoopTrainer(lost, corpus, RECIPE, queries()[:1], measures=("margin",))
