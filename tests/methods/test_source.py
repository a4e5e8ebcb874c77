"""TracInCP and SOURCE against their formulas with dense matrices, on a training of our own loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.ekfac import EKFAC
from headwater.methods.source import SOURCE, Segment
from headwater.methods.tracin import TracInCP
from headwater.training.recipe import Recipe
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.schedule import rate_sums
from small_net import LAYERS, N, dense, matrices, rows, task
from small_run import SmallRun

CLOSE = 1e-6  # scores are float32
RECIPE = Recipe(
    steps=8,
    batch_size=3,
    learning_rate=0.3,
    schedule="linear",
    optimizer="sgd",
    grad_clip=None,
    checkpoints=4,
)


class Trained(SmallRun):
    """A run with its index, its query, and the models of its checkpoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, RECIPE)
        asked = rows(9)
        self.x, self.y = asked["x"][8], asked["y"][8]
        self.query = hw.Query(columns={"x": self.x, "y": self.y})

    def flat(self, one: hw.Task, x: Any, y: Any) -> dict[str, torch.Tensor]:
        return {name: g.reshape(-1) for name, g in matrices(one, x, y).items()}

    def examples(self, models: list[hw.Task]) -> list[dict[str, torch.Tensor]]:
        """Each example's gradient, mean over the models."""
        data = rows()
        held = [
            [self.flat(m, x, y) for m in models] for x, y in zip(data["x"], data["y"], strict=True)
        ]
        return [{n: torch.stack([g[n] for g in one]).mean(dim=0) for n in LAYERS} for one in held]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("run"))


def relative(found: Any, right: Any) -> float:
    right = np.asarray(right)
    return float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())


def dot(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    return sum(float(a[name] @ b[name]) for name in LAYERS)


def test_tracin_is_the_sum_over_checkpoints(trained: Trained) -> None:
    found = hw.scores(trained.index, trained.query, method=TracInCP(trained.run))[0]
    rates = trained.run.learning_rates
    right = np.zeros(N)
    for k, model in enumerate(trained.models(trained.run.checkpoints)):
        q = trained.flat(model, trained.x, trained.y)
        rate = (rates[2 * k] + rates[2 * k + 1]) / 2
        right += [rate * dot(q, z) for z in trained.examples([model])]
    assert relative(found, right) < CLOSE


def by_hand(trained: Trained, groups: list[tuple[list[Checkpoint], float]], scale: float) -> Any:
    """The formula of the paper, segment by segment, with dense matrix functions."""
    last = trained.models([groups[-1][0][-1]])[0]
    v = trained.flat(last, trained.x, trained.y)
    right = np.zeros(N)
    for checkpoints, rate in reversed(groups):
        models = trained.models(checkpoints)
        gain = dense(models, lambda s, r=rate: (1 - torch.exp(-r * s / scale)) / (s / scale))
        left = dense(models, lambda s, r=rate: torch.exp(-r * s / scale))
        w = {name: gain[name] @ v[name] for name in LAYERS}
        right += [dot(w, z) / (N * scale) for z in trained.examples(models)]
        v = {name: left[name] @ v[name] for name in LAYERS}
    return right


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_source_equals_its_dense_formula(trained: Trained, segments: int) -> None:
    method = SOURCE(trained.run, segments, scale=2.0, fisher="empirical")
    found = hw.scores(trained.index, trained.query, method=method)[0]
    sums, checkpoints = rate_sums(trained.run), trained.run.checkpoints
    each = 4 // segments
    groups = [(list(checkpoints[i : i + each]), sum(sums[i : i + each])) for i in range(0, 4, each)]
    assert relative(found, by_hand(trained, groups, 2.0)) < CLOSE


def test_fast_source_is_at_the_mean_of_the_weights(trained: Trained) -> None:
    method = SOURCE(trained.run, 1, fast=True, fisher="empirical")
    found = hw.scores(trained.index, trained.query, method=method)[0]
    middle = task()
    states = [m.model.state_dict() for m in trained.models(trained.run.checkpoints)]
    mean = {k: torch.stack([s[k] for s in states]).mean(dim=0) for k in states[0]}
    middle.model.load_state_dict(mean)
    rate = sum(trained.run.learning_rates)
    gain = dense([middle], lambda s: (1 - torch.exp(-rate * s)) / s)
    last = trained.models([trained.run.checkpoints[-1]])[0]
    q = trained.flat(last, trained.x, trained.y)
    w = {name: gain[name] @ q[name] for name in LAYERS}
    right = [dot(w, z) / N for z in trained.examples([middle])]
    assert relative(found, right) < CLOSE


def test_where_nothing_curves_it_is_the_gradient_product(trained: Trained) -> None:
    """eta K sigma -> 0: eta K g_q g_z / N."""
    last = trained.run.checkpoints[-1]
    tiny = 1e-7
    method = SOURCE([Segment([last], tiny)], fisher="empirical")
    found = hw.scores(trained.index, trained.query, method=method)[0]
    model = trained.models([last])[0]
    q = trained.flat(model, trained.x, trained.y)
    right = [tiny * dot(q, z) / N for z in trained.examples([model])]
    assert relative(found, right) < 1e-5


def test_one_segment_is_close_to_damping_by_the_schedule(trained: Trained) -> None:
    """F_r(sigma) against 1 / (sigma + 1 / eta K): equal at both ends, within 0.30 between."""
    last, rate = trained.run.checkpoints[-1], 2.0
    one = SOURCE([Segment([last], rate)], fisher="empirical")
    damped = EKFAC(fisher="empirical", damping=hw.ScheduleDamping([rate]))
    found = hw.scores(trained.index, trained.query, method=one)[0] * N
    near = hw.scores(trained.index, trained.query, method=damped)[0]
    assert relative(near, found) < 0.3


def test_examples_gain_only_from_their_own_segments(trained: Trained) -> None:
    first, last = trained.run.checkpoints[0], trained.run.checkpoints[-1]
    segments = [Segment([first], 0.5), Segment([last], 0.25, ids=["z1", "z4"])]
    found = hw.scores(
        trained.index, trained.query, method=SOURCE(segments, fisher="empirical", scale=1.0)
    )[0]
    v = trained.flat(trained.models([last])[0], trained.x, trained.y)
    a, b = trained.models([first]), trained.models([last])
    own = {name: column[[1, 4]] for name, column in rows().items()}  # its curvature is of these
    late = dense(b, lambda s: -torch.expm1(-0.25 * s) / s, data=own)
    left = dense(b, lambda s: torch.exp(-0.25 * s), data=own)
    early = dense(a, lambda s: (1 - torch.exp(-0.5 * s)) / s)
    w2 = {name: late[name] @ v[name] for name in LAYERS}
    w1 = {name: early[name] @ (left[name] @ v[name]) for name in LAYERS}
    right = np.array([dot(w1, z) / N for z in trained.examples(a)])
    second = [dot(w2, z) / 2 for z in trained.examples(b)]
    right[[1, 4]] += np.array(second)[[1, 4]]
    assert relative(found, right) < CLOSE


def test_only_those_that_take_part_are_scored(trained: Trained) -> None:
    method = SOURCE(trained.run, 2, fisher="empirical")
    whole = hw.scores(trained.index, trained.query, method=method)[0]
    some = hw.scores(trained.index, trained.query, method=method, ids=["z2", "z5"])[0]
    assert np.isfinite(some).tolist() == [i in (2, 5) for i in range(N)]
    assert relative(some[[2, 5]], whole[[2, 5]]) < CLOSE


def test_the_model_is_left_as_it_was(trained: Trained) -> None:
    before = {k: v.clone() for k, v in trained.task.model.state_dict().items()}
    hw.scores(trained.index, trained.query, method=SOURCE(trained.run, 2))
    hw.scores(trained.index, trained.query, method=TracInCP(trained.run))
    after = trained.task.model.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_momentum_lengthens_the_steps(trained: Trained) -> None:
    plain, heavy = SOURCE(trained.run, 2), SOURCE(trained.run, 2, momentum=0.9)
    assert [b.rate for b in heavy.segments] == pytest.approx([10 * a.rate for a in plain.segments])


@pytest.mark.parametrize("segments", [0, 5])
def test_impossible_segments_are_told(trained: Trained, segments: int) -> None:
    with pytest.raises(InputError, match="1 to 4"):
        SOURCE(trained.run, segments)


def test_rates_between_logged_checkpoints() -> None:
    run = TrainingRun(tuple(Checkpoint(Path(f"c{s}"), s, r) for s, r in ((10, 0.2), (30, 0.1))))
    assert rate_sums(run) == pytest.approx([2.0, 3.0])
    silent = TrainingRun((Checkpoint(Path("c"), 10),))
    with pytest.raises(InputError, match="rates="):
        SOURCE(silent, 1)
    with pytest.raises(InputError, match="1 positive numbers"):
        SOURCE(silent, 1, rates=[1.0, 2.0])
    assert SOURCE(silent, 1, rates=[3.0]).segments[0].rate == 3.0
