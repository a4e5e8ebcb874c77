"""The bank of retrained models: against training by hand, resumed, shared, and never twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.trainers import FunctionTrainer, LoopTrainer
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from models import Mlp, class_loss

N = 12
RECIPE = Recipe(epochs=2, batch_size=5, learning_rate=0.3, optimizer="sgd", grad_clip=None)


def columns() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(N, 6)), "y": random.integers(0, 5, N)}


def corpus() -> hw.Corpus:
    return hw.Corpus.from_columns(columns(), ids=[f"z{i}" for i in range(N)])


def task(seed: int = 0) -> hw.Task:
    return hw.Task(Mlp(seed=seed).double(), class_loss)


def queries() -> list[hw.Query]:
    random = np.random.default_rng(9)
    return [hw.Query(columns={"x": random.normal(size=6), "y": y}) for y in (1, 3)]


def trainer(**changes: Any) -> LoopTrainer:
    return LoopTrainer(task(), corpus(), replace(RECIPE, **changes), queries())


def by_hand(left_out: tuple[int, ...], seed: int, fixed: bool) -> list[float]:
    """Training written out: permuted batches, the mean loss over all of a batch's examples."""
    model, data = task().model, columns()
    kept = list(range(N)) if fixed else [i for i in range(N) if i not in left_out]
    for epoch in range(2):
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, epoch))))
        order = [kept[i] for i in generator.permutation(len(kept))]
        for start in range(0, len(order), 5):
            batch = order[start : start + 5]
            model.zero_grad()
            x, y = torch.as_tensor(data["x"][batch]), torch.as_tensor(data["y"][batch])
            losses = class_loss(model, {"x": x, "y": y})
            weights = torch.tensor([float(i not in left_out) for i in batch], dtype=torch.float64)
            ((weights * losses).sum() / len(batch)).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.3 * p.grad
    asked = [query.columns for query in queries()]
    with torch.no_grad():
        return [
            float(class_loss(model, {k: torch.as_tensor(v)[None] for k, v in one.items()})[0])
            for one in asked
            if one is not None
        ]


@pytest.mark.parametrize("kind", ["resampled", "fixed"])
@pytest.mark.parametrize("left_out", [(), (3,), (0, 4, 11)])
def test_losses_are_those_of_training_by_hand(
    kind: Any, left_out: tuple[int, ...], tmp_path: Path
) -> None:
    made = Bank(tmp_path, trainer(), workers=1).losses([Trial(left_out, 4, kind)])
    np.testing.assert_allclose(made[0], by_hand(left_out, 4, kind == "fixed"), rtol=1e-10)


def test_nothing_is_trained_twice_and_the_model_is_as_it_was(tmp_path: Path) -> None:
    one = trainer()
    before = {k: v.clone() for k, v in one.task.model.state_dict().items()}
    trials = [Trial((i,), seed) for i in range(3) for seed in range(2)]
    bank = Bank(tmp_path, one, workers=1)
    made = bank.losses([*trials, trials[0]])
    assert bank.trained == 6
    assert (made[0] == made[-1]).all()
    again = Bank(tmp_path, trainer(), workers=1)
    assert (again.losses(trials) == made[:-1]).all()
    assert again.trained == 0
    more = again.losses([*trials, Trial((7,))])
    assert again.trained == 1
    assert more.shape == (7, 2)
    after = one.task.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert again.seconds(trials) > 0


def test_processes_give_the_same_bits(tmp_path: Path) -> None:
    trials = [Trial((i,), 1) for i in range(5)]
    alone = Bank(tmp_path / "a", trainer(), workers=1).losses(trials)
    together = Bank(tmp_path / "b", trainer(), workers=2).losses(trials)
    assert (alone == together).all()


def test_no_fork_off_the_main_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fork(kind: str) -> None:
        raise AssertionError(kind)

    monkeypatch.setattr("multiprocessing.get_context", fork)
    trials = [Trial((2,), 1), Trial((3,), 1)]
    with pytest.raises(AssertionError, match="fork"):
        Bank(tmp_path / "a", trainer(), workers=2).losses(trials)
    bank, found = Bank(tmp_path / "b", trainer(), workers=2), list[Any]()
    other = threading.Thread(target=lambda: found.append(bank.losses(trials)))
    other.start()
    other.join()
    assert len(found[0]) == 2


def test_other_recipes_data_weights_and_queries_are_other_entries(tmp_path: Path) -> None:
    base = Bank(tmp_path, trainer(), workers=1)
    base.losses([Trial((1,))])
    other = hw.Corpus.from_columns(
        {**columns(), "y": (columns()["y"] + 1) % 5}, ids=[f"z{i}" for i in range(N)]
    )
    others = [
        trainer(learning_rate=0.2),
        LoopTrainer(task(), other, RECIPE, queries()),
        LoopTrainer(task(1), corpus(), RECIPE, queries()),
    ]
    assert len({Bank(tmp_path, one).key for one in [trainer(), *others]}) == 4
    asked = LoopTrainer(task(), corpus(), RECIPE, [*queries()[::-1], queries()[0]])
    bank = Bank(tmp_path, asked, workers=1)
    made = bank.losses([Trial((1,))])
    assert bank.trained == 0  # the same queries, in another order
    assert made[0].tolist() == [base.losses([Trial((1,))])[0, i] for i in (1, 0, 0)]
    new = hw.Query(columns={"x": np.ones(6), "y": 0})
    wider = Bank(tmp_path, LoopTrainer(task(), corpus(), RECIPE, [*queries(), new]), workers=1)
    wider.losses([Trial((1,))])
    assert wider.trained == 1  # for the new query
    assert base.losses([Trial((1,))]).shape == (1, 2)
    assert base.trained == 0  # and the old ones are still known


def test_seeds_may_begin_with_their_own_weights(tmp_path: Path) -> None:
    def initial(seed: int) -> dict[str, torch.Tensor]:
        return task(seed).model.state_dict()

    one = LoopTrainer(task(), corpus(), RECIPE, queries(), initial)
    made = Bank(tmp_path, one, workers=1).losses([Trial((2,), 1)])
    plain = LoopTrainer(task(1), corpus(), RECIPE, queries())
    assert (made == Bank(tmp_path, plain, workers=1).losses([Trial((2,), 1)])).all()


def test_a_function_of_the_users(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def retrain(ids: list[str], seed: int) -> torch.nn.Module:
        calls.append((len(ids), seed))
        own = task()
        train(own, corpus().select(ids=ids), replace(RECIPE, seed=seed), progress=False)
        return own.model

    ids = [f"z{i}" for i in range(N)]
    made = FunctionTrainer(retrain, task(), ids, queries(), "my fine-tune")
    found = Bank(tmp_path, made, workers=1).losses([Trial((0, 4), 2)])
    np.testing.assert_allclose(found[0], by_hand((0, 4), 2, False), rtol=1e-10)
    assert calls == [(10, 2)]
    with pytest.raises(InputError, match="resampled"):
        Bank(tmp_path, made, workers=1).losses([Trial((1,), 0, "fixed")])


class Slow(LoopTrainer):
    """Takes long enough to be killed; notes what it trains."""

    log: Path

    def measured(self, trial: Trial) -> dict[str, list[Any]]:
        with self.log.open("a") as file:
            file.write(json.dumps(trial.left_out) + "\n")
        time.sleep(0.15)
        return super().measured(trial)


def _fill(folder: str, log: str, ready: Any) -> None:
    one = Slow(task(), corpus(), RECIPE, queries())
    one.log = Path(log)
    ready.set()
    Bank(folder, one, workers=1).losses([Trial((i,)) for i in range(N)])


def test_a_killed_bank_goes_on_and_repeats_at_most_the_one_under_way(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, log = context.Event(), tmp_path / "log"
    process = context.Process(target=_fill, args=(str(tmp_path / "bank"), str(log), ready))
    process.start()
    ready.wait(30)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\n") >= 4):
        time.sleep(0.02)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(30)
    before = log.read_text().splitlines()
    assert 4 <= len(before) < N
    one = Slow(task(), corpus(), RECIPE, queries())
    one.log = log
    bank = Bank(tmp_path / "bank", one, workers=1)
    made = bank.losses([Trial((i,)) for i in range(N)])
    lines = log.read_text().splitlines()
    assert len(lines) - len(set(lines)) <= 1
    right = Bank(tmp_path / "other", trainer(), workers=1).losses([Trial((i,)) for i in range(N)])
    assert (made == right).all()


def test_a_damaged_entry_is_trained_again(tmp_path: Path) -> None:
    bank = Bank(tmp_path, trainer(), workers=1)
    right = bank.losses([Trial((1,)), Trial((2,))])
    (first, *_) = sorted(p for p in bank.folder.glob("*.json") if p.name != "trainer.json")
    first.write_text("{")
    assert (bank.losses([Trial((1,)), Trial((2,))]) == right).all()
    assert bank.trained == 1


def test_bad_input_is_told(tmp_path: Path) -> None:
    bank = Bank(tmp_path, trainer(), workers=2)
    with pytest.raises(InputError, match="not there"):
        bank.losses([Trial((N,))])
    with pytest.raises(InputError, match="every document"):
        bank.losses([Trial(tuple(range(N)))])
    with pytest.raises(InputError, match="ascend"):
        Trial((2, 1))
    with pytest.raises(InputError, match="kind"):
        Trial((1,), 0, "other")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="workers"):
        Bank(tmp_path, trainer(), workers=0)


def test_a_training_that_diverges_is_told_from_every_process(tmp_path: Path) -> None:
    bank = Bank(tmp_path, trainer(learning_rate=1e200), workers=2)
    with pytest.raises(NumericError, match="not finite"):
        bank.losses([Trial((i,)) for i in range(3)])
