"""How far a training went, by what its trainer logged, against the schedule that was logged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from headwater.engine.errors import InputError
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.schedule import mean_rates, rate_sums
from headwater.training.visit import run_of

Rate = Callable[[int], float]
STEPS = 30


def linear(step: int) -> float:
    return 2.0 * (1 - (step - 1) / STEPS)


def warmed(step: int) -> float:
    """Up to step 10, then down to exactly zero at the last one."""
    return step / 10 if step <= 10 else (STEPS - step) / 20


def constant(step: int) -> float:
    return 0.25


def trainer(folder: Path, rate: Rate, saves: list[int], every: int = 1) -> TrainingRun:
    """What transformers.Trainer leaves: each checkpoint tells the log up to itself."""
    for step in saves:
        place = folder / f"checkpoint-{step}"
        place.mkdir(parents=True)
        save_file({"w": torch.zeros(1)}, str(place / "model.safetensors"))
        log = [{"step": s, "learning_rate": rate(s), "loss": 1.0} for s in range(every, step + 1)]
        log = [entry for entry in log if entry["step"] % every == 0]
        state = {"global_step": step, "log_history": log}
        (place / "trainer_state.json").write_text(json.dumps(state))
    return TrainingRun.open(folder)


def true_sums(rate: Rate, saves: list[int]) -> list[float]:
    return [
        math.fsum(rate(s) for s in range(a + 1, b + 1))
        for a, b in zip([0, *saves], saves, strict=False)
    ]


@pytest.mark.parametrize("rate", [linear, warmed, constant])
@pytest.mark.parametrize("saves", [[30], [10, 20, 30], [7, 29]])
@pytest.mark.parametrize("every", [1, 5])
def test_sums_are_those_of_the_schedule(
    tmp_path: Path, rate: Rate, saves: list[int], every: int
) -> None:
    """Logged at every step, and at every fifth: these schedules are straight in between."""
    run = trainer(tmp_path, rate, saves, every)
    assert rate_sums(run) == pytest.approx(true_sums(rate, saves), rel=1e-12)
    assert run.learning_rates == pytest.approx([rate(s) for s in range(1, saves[-1] + 1)])
    assert [c.learning_rate for c in run.checkpoints] == pytest.approx([rate(s) for s in saves])


def test_one_entry_tells_no_slope(tmp_path: Path) -> None:
    assert rate_sums(trainer(tmp_path, linear, [30], every=20)) == pytest.approx([30 * linear(20)])


def test_a_line_does_not_go_below_zero(tmp_path: Path) -> None:
    steep = trainer(tmp_path, lambda s: max(0.0, 1 - s / 20), [30], every=9)
    assert min(steep.learning_rates) == 0.0
    assert steep.learning_rates[8] == 1 - 9 / 20


@pytest.mark.parametrize("every", [1, 20])
def test_a_checkpoint_opened_by_its_folder(tmp_path: Path, every: int) -> None:
    """The run up to it; what was logged later tells of the steps before, too."""
    saves = [10, 20, 30] if every == 1 else [10, 40]
    whole = trainer(tmp_path, linear if every == 1 else lambda s: 1 / (1 + s), saves, every)
    one = TrainingRun.open(tmp_path / f"checkpoint-{saves[0]}")
    assert one.steps == 10
    assert one.learning_rates == whole.learning_rates[:10]
    assert rate_sums(one) == pytest.approx(rate_sums(whole)[:1])


def test_rates_that_add_up_to_nothing_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, lambda s: 0.0, [10])
    with pytest.raises(InputError, match=r"add up to nothing.*rates="):
        rate_sums(run)
    with pytest.raises(InputError, match="add up to nothing"):
        rate_sums(TrainingRun((Checkpoint(Path("c"), 10, 0.0),)))


def test_checkpoints_out_of_order_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, linear, [10, 20])
    for wrong in (run.checkpoints[::-1], run.checkpoints[:1] * 2):
        with pytest.raises(InputError, match="not in the order of their steps"):
            rate_sums(run_of(wrong))


def test_a_run_its_folder_or_its_checkpoints(tmp_path: Path) -> None:
    run = trainer(tmp_path, warmed, [15, 20, 30])
    for given in (run, tmp_path, str(tmp_path), run.checkpoints, list(run.checkpoints)):
        assert run_of(given).checkpoints == run.checkpoints
        assert rate_sums(run_of(given)) == pytest.approx(true_sums(warmed, [15, 20, 30]))
    assert rate_sums(run_of(run.checkpoints[0])) == pytest.approx(true_sums(warmed, [15]))
    assert rate_sums(run_of(run.checkpoints[1:])) == pytest.approx(true_sums(warmed, [20, 30]))
    own = [Checkpoint(one.path, one.step, 2.0) for one in run.checkpoints]
    assert rate_sums(run_of(own)) == pytest.approx([30.0, 10.0, 20.0])  # as its maker says
    for wrong in (3, None, [run], [1.0], {"run": run}):
        with pytest.raises(InputError, match="This is no training run"):
            run_of(wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no checkpoint"):
        run_of([])


def test_means_of_steps_that_nobody_knows() -> None:
    """Sums given by hand count as they are where no step says how many they are of."""
    silent = TrainingRun((Checkpoint(Path("a")), Checkpoint(Path("b"))))
    assert mean_rates(silent, [2.0, 1.0]) == [2.0, 1.0]
    known = TrainingRun((Checkpoint(Path("a"), 4), Checkpoint(Path("b"), 6)))
    assert mean_rates(known, [2.0, 1.0]) == [0.5, 0.5]
    for wrong in ([1.0], [1.0, 0.0], [1.0, float("nan")], [1.0, "x"], 1.0):
        with pytest.raises(InputError, match="2 positive numbers"):
            mean_rates(known, wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="which step"):
        mean_rates(silent, None)
