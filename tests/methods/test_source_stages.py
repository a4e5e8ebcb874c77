"""SOURCE with Adam's preconditioner and with losses of their own, against dense matrices.

The reference never leaves the plain coordinates: P, H and P H are explicit matrices over vec(G),
the last not symmetric, and all functions of it are exponentials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headwater as hw
import small_net
from headwater.engine.errors import InputError
from headwater.gradients.matrices import Layers, Scale
from headwater.methods.source import SOURCE, Segment
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.schedule import rate_sums
from small_net import LAYERS, N, dense, factors_by_hand, matrices, rows, task
from small_run import SmallRun

CLOSE = 1e-6  # scores are float32
BETAS = (0.8, 0.95)
EPS = 1e-8
RECIPE = Recipe(
    steps=8,
    batch_size=3,
    learning_rate=0.02,
    schedule="linear",
    betas=BETAS,
    grad_clip=None,
    checkpoints=4,
)


class Trained(SmallRun):
    """A run of Adam with its index and its query."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, RECIPE)
        asked = rows(9)
        self.asked = asked["x"][8], asked["y"][8]
        self.query = hw.Query(columns={"x": asked["x"][8], "y": asked["y"][8]})

    def score(self, method: SOURCE) -> Any:
        return hw.scores(self.index, self.query, method=method)[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("run"))


def test_tracin_with_adams_own_step(trained: Trained) -> None:
    right = np.zeros(N)
    rates = trained.run.learning_rates
    for k, (checkpoint, model) in enumerate(
        zip(trained.run.checkpoints, trained.models(trained.run.checkpoints), strict=True)
    ):
        state = load_file(str(checkpoint.optimizer))
        q = matrices(model, *trained.asked)
        for z, (x, y) in enumerate(zip(*rows().values(), strict=True)):
            g = matrices(model, x, y)
            for weight in LAYERS:
                v = state[f"exp_avg_sq.{weight}"].flatten(1)
                bias = f"exp_avg_sq.{weight.removesuffix('weight')}bias"
                if bias in state:
                    v = torch.cat([v, state[bias][:, None]], dim=1)
                p = 1 / ((v / (1 - BETAS[1] ** int(state["step"]))).sqrt() + EPS)
                rate = (rates[2 * k] + rates[2 * k + 1]) / 2
                right[z] += rate * float((q[weight] * p * g[weight]).sum())
    found = hw.scores(
        trained.index, trained.query, method=hw.TracInCP(trained.run, optimizer="adam")
    )[0]
    assert relative(found, right) < CLOSE
    plain = hw.scores(trained.index, trained.query, method=hw.TracInCP(trained.run))[0]
    assert relative(plain, right) > 0.1
    with pytest.raises(InputError, match="Unknown optimizer"):
        hw.TracInCP(trained.run, optimizer="adagrad")  # type: ignore[arg-type]


class TwoOutputs(torch.nn.Module):
    """A body, and a head that only the loss reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(self.body(x))
        return self.head(hidden), hidden


def test_tracin_with_a_measurement_that_reaches_fewer_layers(tmp_path: Path) -> None:
    """The layers that it does not reach count nothing, with Adam as without."""

    def of_loss(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch["x"])[0], batch["y"], reduction="none")

    def measured(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return model(batch["x"])[1].square().sum(dim=1)

    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(6, 3)), "y": rng.integers(0, 2, size=6)}
    corpus = hw.Corpus.from_columns(data)
    one = hw.Task(TwoOutputs().double(), of_loss, measurement=measured)
    recipe = Recipe(steps=4, batch_size=3, betas=BETAS)
    run = train(one, corpus, recipe, out=tmp_path, progress=False)
    index = hw.Index.build(None, one, corpus, None)
    query = hw.Query(columns={"x": data["x"][0], "y": 1})
    found = hw.scores(index, query, method=hw.TracInCP(run, optimizer="adam"))[0]

    state = load_file(str(run.checkpoints[0].optimizer))
    names = ["body.weight", "body.bias"]
    corrected = 1 - BETAS[1] ** int(state["step"])
    p = {n: 1 / ((state[f"exp_avg_sq.{n}"] / corrected).sqrt() + EPS) for n in names}

    def gradient(function: Any, row: int) -> dict[str, torch.Tensor]:
        batch = {"x": torch.as_tensor(data["x"][row])[None], "y": torch.as_tensor(data["y"][[row]])}
        body = one.model.body
        made = torch.autograd.grad(function(one.model, batch).sum(), [body.weight, body.bias])
        return dict(zip(names, made, strict=True))

    q = gradient(measured, 0)
    right = []
    for row in range(6):
        z = gradient(of_loss, row)
        right.append(1e-3 * sum(float((q[n] * p[n] * z[n]).sum()) for n in names))
    assert relative(found, right) < CLOSE


def relative(found: Any, right: Any) -> float:
    right = np.asarray(right)
    return float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())


def flat(one: hw.Task, x: Any, y: Any) -> dict[str, torch.Tensor]:
    return {name: g.reshape(-1) for name, g in matrices(one, x, y).items()}


def examples(models: list[hw.Task]) -> list[dict[str, torch.Tensor]]:
    """Each example's gradient, mean over the models."""
    held = [[flat(m, x, y) for m in models] for x, y in zip(*rows().values(), strict=True)]
    return [{n: torch.stack([g[n] for g in one]).mean(dim=0) for n in LAYERS} for one in held]


def sides(checkpoints: Any, eps: float) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """r and c with P = (r_i c_j / mean r)^-1/2, from the states' files."""
    made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for weight in LAYERS:
        total: Any = 0.0
        for checkpoint in checkpoints:
            state = load_file(str(checkpoint.optimizer))
            v = state[f"exp_avg_sq.{weight}"].flatten(1)
            bias = f"exp_avg_sq.{weight.removesuffix('weight')}bias"
            if bias in state:
                v = torch.cat([v, state[bias][:, None]], dim=1)
            total = total + v / (1 - BETAS[1] ** int(state["step"]))
        divisor = ((total / len(checkpoints)).sqrt() + eps) ** 2
        made[weight] = divisor.mean(dim=1), divisor.mean(dim=0)
    return made


def preconditioned(
    models: list[hw.Task], checkpoints: Any, eps: float
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(P, H) of each layer: EK-FAC's H of the coordinates P^-1/2 theta, brought back to theta."""
    made: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    gradients = [flat(m, x, y) for m in models for x, y in zip(*rows().values(), strict=True)]
    held = sides(checkpoints, eps)
    for name, (a, s, _) in factors_by_hand(models).items():
        r, c = held[name]
        p = torch.diag((torch.outer(r, c) / r.mean()).reshape(-1) ** -0.5)
        row, column = torch.diag((r.mean() / r) ** 0.25), torch.diag(c**-0.25)
        root = torch.kron(row, column)
        torch.testing.assert_close(root @ root, p)
        _, ua = torch.linalg.eigh(column @ a @ column)
        _, us = torch.linalg.eigh(row @ s @ row)
        u = torch.kron(us, ua)
        values = torch.stack([(u.T @ root @ g[name]) ** 2 for g in gradients]).mean(dim=0)
        back = torch.linalg.inv(root)
        made[name] = p, back @ u @ torch.diag(values) @ u.T @ back
    return made


def integral(m: torch.Tensor, t: float) -> torch.Tensor:
    """(1 - exp(-m t)) m^-1 for any square m: the corner of one exponential."""
    n, zero = len(m), torch.zeros_like(m)
    block = torch.cat([torch.cat([-m, torch.eye(n, dtype=m.dtype)], 1), torch.cat([zero, zero], 1)])
    return torch.matrix_exp(block * t)[:n, n:]


def by_hand(trained: Trained, groups: Any, scale: float, eps: float = EPS) -> Any:
    """1/N g_q^T sum_l S_L ... S_{l+1} r_l with r_l = (1 - exp(-eta K P H)) (P H)^-1 P g."""
    v = flat(trained.models([groups[-1][0][-1]])[0], *trained.asked)
    right = np.zeros(N)
    for checkpoints, rate in reversed(groups):
        models = trained.models(checkpoints)
        held = preconditioned(models, checkpoints, eps)
        for name, (p, h) in held.items():
            gain = integral(p @ h / scale, rate) @ p
            right += [float(v[name] @ gain @ z[name]) / (N * scale) for z in examples(models)]
            v[name] = torch.matrix_exp(-rate * p @ h / scale).T @ v[name]
    return right


@pytest.mark.parametrize("segments", [1, 2, 4])
def test_adam_equals_its_dense_formula(trained: Trained, segments: int) -> None:
    sums, checkpoints = rate_sums(trained.run), trained.run.checkpoints
    each = 4 // segments
    groups = [(list(checkpoints[i : i + each]), sum(sums[i : i + each])) for i in range(0, 4, each)]
    method = SOURCE(trained.run, segments, scale=2.0, fisher="empirical", optimizer="adam")
    assert relative(trained.score(method), by_hand(trained, groups, 2.0)) < CLOSE


def test_eps_bounds_the_preconditioner(trained: Trained) -> None:
    checkpoints = list(trained.run.checkpoints[-2:])
    segments = [Segment(checkpoints, 0.5)]
    method = SOURCE(segments, scale=1.0, fisher="empirical", optimizer="adam", eps=0.1)
    assert relative(trained.score(method), by_hand(trained, [(checkpoints, 0.5)], 1.0, 0.1)) < CLOSE
    usual = SOURCE(segments, scale=1.0, fisher="empirical", optimizer="adam")
    assert not np.allclose(trained.score(usual), trained.score(method), rtol=0.01)


def test_where_nothing_curves_it_is_the_preconditioned_product(trained: Trained) -> None:
    """eta K sigma -> 0: eta K g_q P g_z / N."""
    last, tiny = trained.run.checkpoints[-1], 1e-7
    method = SOURCE([Segment([last], tiny)], fisher="empirical", optimizer="adam")
    model = trained.models([last])[0]
    q = flat(model, *trained.asked)
    p = {n: (torch.outer(r, c) / r.mean()) ** -0.5 for n, (r, c) in sides([last], EPS).items()}
    right = [
        tiny * sum(float((q[n] * p[n].reshape(-1)) @ z[n]) for n in LAYERS) / N
        for z in examples([model])
    ]
    assert relative(trained.score(method), right) < 1e-5


def test_where_eps_rules_it_is_plain_descent(trained: Trained) -> None:
    """P = 1 / eps everywhere: SGD at the rate eta / eps."""
    segments, eps = 2, 1e6
    plain = SOURCE(trained.run, segments, fisher="empirical")
    adam = SOURCE(
        [Segment(one.checkpoints, one.rate * eps) for one in plain.segments],
        fisher="empirical",
        optimizer="adam",
        eps=eps,
    )
    assert relative(trained.score(adam), trained.score(plain)) < 1e-5


def test_scaled_layers_give_scaled_gradients(trained: Trained) -> None:
    """Also of a layer that is called twice, whose uses wait for each other."""
    from headwater.methods.corpus_pass import query_matrices

    layers = Layers(trained.task, "linear")
    generator = torch.Generator().manual_seed(0)
    scales = {
        name: Scale(
            torch.rand(layer.rows, generator=generator) + 0.5,
            torch.rand(layer.columns, generator=generator) + 0.5,
        )
        for name, layer in layers.layers.items()
    }
    plain = query_matrices(layers, [trained.query])
    found = query_matrices(layers.scaled(scales), [trained.query])
    for name, matrix in plain.items():
        right = matrix[0] * scales[name].rows[:, None] * scales[name].columns
        torch.testing.assert_close(found[name][0], right, rtol=1e-12, atol=0)
        torch.testing.assert_close(scales[name].undo(found[name]), plain[name])
    assert not layers.scales
    assert layers.digest == ""


def test_kept_curvature_knows_its_scaling(trained: Trained) -> None:
    """The same weights with another preconditioner, or none: other factors."""
    segments = [Segment([trained.run.checkpoints[0]], 0.5)]
    found = [
        trained.score(SOURCE(segments, fisher="empirical", optimizer=o, eps=e))
        for o, e in (("sgd", EPS), ("adam", 0.2), ("adam", EPS), ("sgd", EPS))
    ]
    right = by_hand(trained, [(segments[0].checkpoints, 0.5)], 1.0, EPS)
    assert relative(found[2], right) < CLOSE
    assert np.array_equal(found[0], found[3])


def test_what_adam_needs_is_told(trained: Trained) -> None:
    bare = [Checkpoint(c.path, c.step, c.learning_rate) for c in trained.run.checkpoints]
    run = TrainingRun(tuple(bare), 8, RECIPE, trained.run.learning_rates)
    with pytest.raises(InputError, match="checkpoint-2 has none"):
        SOURCE(run, 1, optimizer="adam")
    with pytest.raises(InputError, match="momentum is of SGD"):
        SOURCE(trained.run, 1, optimizer="adam", momentum=0.9)
    with pytest.raises(InputError, match="sgd or adam"):
        SOURCE(trained.run, 1, optimizer="lion")  # type: ignore[arg-type]


# -- stages with a loss of their own -----------------------------------------------------------


def other_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return (model(batch["x"]) - batch["y"][:, None]).square().sum(dim=1)


@pytest.mark.parametrize("where", [0, 1])
def test_a_stage_with_another_loss(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, where: int
) -> None:
    """Its curvature and its gradients are of that loss; the query stays as it is."""
    places, rates = [trained.run.checkpoints[0], trained.run.checkpoints[-1]], [0.3, 0.2]
    segments = [Segment([c], r) for c, r in zip(places, rates, strict=True)]
    alien = hw.Task(trained.task.model, loss=other_loss)
    segments[where] = Segment([places[where]], rates[where], task=alien, scale=3.0)
    method = SOURCE(segments, scale=2.0, fisher="empirical")
    found = trained.score(method)
    v = flat(trained.models([places[1]])[0], *trained.asked)
    right = np.zeros(N)
    for number in (1, 0):
        scale, rate = 3.0 if number == where else 2.0, rates[number]
        with monkeypatch.context() as patched:
            if number == where:
                patched.setattr(small_net, "loss", other_loss)
            models = trained.models([places[number]])
            gain = dense(models, lambda s, r=rate, t=scale: (1 - torch.exp(-r * s / t)) * t / s)
            left = dense(models, lambda s, r=rate, t=scale: torch.exp(-r * s / t))
            mine = examples(models)
        for name in LAYERS:
            w = gain[name] @ v[name]
            right += [float(w @ z[name]) / (N * scale) for z in mine]
            v[name] = left[name] @ v[name]
    assert relative(found, right) < CLOSE
    assert method.describe()["segments"][where]["loss"] == "its own"


def test_curvature_of_another_loss_is_not_mixed_up(trained: Trained) -> None:
    place = trained.run.checkpoints[0]
    own = SOURCE([Segment([place], 0.3)], fisher="empirical")
    alien = hw.Task(trained.task.model, loss=other_loss)
    other = SOURCE([Segment([place], 0.3, task=alien)], fisher="empirical")
    first, second, third = (trained.score(m) for m in (own, other, own))
    assert np.array_equal(first, third)
    assert not np.allclose(first, second, rtol=0.01)


def test_another_model_is_refused(trained: Trained) -> None:
    place = trained.run.checkpoints[0]
    stranger = hw.Task(task().model, loss=other_loss)
    with pytest.raises(InputError, match="another model"):
        trained.score(SOURCE([Segment([place], 0.3, task=stranger)]))
