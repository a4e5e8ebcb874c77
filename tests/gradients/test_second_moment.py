"""The optimizer correction: folded into the projections it equals the division written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headwater.engine.errors import MismatchError
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features, LayerBlocks, TwoSided
from headwater.gradients.second_moment import ADAM_EPS, SecondMoment, factors_of
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.task import Chunk, Task
from models import (
    Mlp,
    brute_force,
    byte_tokenizer,
    class_loss,
    explicit,
    naive_loss,
    relative,
    tiny_gpt2,
    tiny_llama,
    token_chunk,
)

CHUNKS = [token_chunk(n, seed=n) for n in (9, 5, 12)]
PROJECTIONS = [None, TwoSided(4, 3), LayerBlocks(4, 3)]


def gradients_of(make: Any, **features: Any) -> Gradients:
    return Gradients(CausalLM(make(), byte_tokenizer()), Features(**features))


def second_moments(gradients: Gradients) -> dict[str, np.ndarray]:
    """Some V [out, in] of each parameter, far from constant."""
    rng = np.random.default_rng(0)
    return {
        name: np.exp(rng.normal(size=(p.rows, p.columns))) * 1e-4
        for name, p in gradients.parameters.items()
    }


def check(make: Any, projection: Any, moment: SecondMoment, correct: Any) -> None:
    gradients = gradients_of(make, parameters="all", projection=projection, second_moment=moment)
    model = gradients.task.model
    for u, chunk in zip(gradients.batch(CHUNKS).u, CHUNKS, strict=True):
        right = explicit(gradients, brute_force(model, naive_loss(model, chunk)), correct=correct)
        assert relative(u, right) < 1e-6  # projections hold their scales in the model's dtype


@pytest.mark.parametrize("projection", PROJECTIONS, ids=["full", "two-sided", "blocks"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_factored(make: Any, projection: Any) -> None:
    full = second_moments(gradients_of(make, parameters="all"))
    factors = {name: factors_of(v) for name, v in full.items()}

    def correct(name: str, g: torch.Tensor) -> torch.Tensor:
        r, c = (torch.from_numpy(x) for x in factors[name])
        return g / torch.sqrt(torch.outer(r, c) / r.mean())

    check(make, projection, SecondMoment("adafactor", factors), correct)


@pytest.mark.parametrize("projection", PROJECTIONS, ids=["full", "two-sided", "blocks"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_exact(make: Any, projection: Any) -> None:
    full = second_moments(gradients_of(make, parameters="all"))
    factors = {name: factors_of(v) for name, v in full.items()}

    def correct(name: str, g: torch.Tensor) -> torch.Tensor:
        return g / (torch.from_numpy(full[name]).sqrt() + ADAM_EPS)

    check(make, projection, SecondMoment("adam", factors, full), correct)


def test_a_moment_of_rank_one_is_the_same_in_both_forms() -> None:
    rng = np.random.default_rng(0)
    features = {"projection": TwoSided(4, 3), "parameters": "linear"}
    names = gradients_of(tiny_gpt2, **features).parameters
    full = {
        n: np.outer(np.exp(rng.normal(size=p.rows)), np.exp(rng.normal(size=p.columns)))
        for n, p in names.items()
    }
    factors = {n: factors_of(v) for n, v in full.items()}
    one, other = (
        gradients_of(tiny_gpt2, second_moment=moment, **features).batch(CHUNKS).u
        for moment in (SecondMoment("a", factors), SecondMoment("b", factors, full))
    )
    assert relative(one, other) < 1e-6


@pytest.mark.parametrize("budget", [12, 64])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_estimate_is_the_mean_of_squared_gradients(make: Any, budget: int) -> None:
    gradients = gradients_of(make, parameters="all", second_moment="estimate")
    moment = gradients.estimate_moment(CHUNKS, budget)
    model = gradients.task.model
    squares = [
        {n: g.double() ** 2 for n, g in brute_force(model, naive_loss(model, c)).items()}
        for c in CHUNKS
    ]
    for name, parameter in gradients.parameters.items():
        mean = torch.stack([s[name] for s in squares]).mean(dim=0)
        mean = mean.T if parameter.kind == "conv1d" else mean
        mean = mean.reshape(parameter.rows, parameter.columns)
        row, column = moment.factors[name]
        assert relative(row, mean.mean(dim=1)) < 1e-9
        assert relative(column, mean.mean(dim=0)) < 1e-9
    assert not moment.exact
    assert "3 examples" in moment.label


class Twice(torch.nn.Module):
    """One layer called two times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.out = torch.nn.Linear(6, 6), torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.inner(torch.tanh(self.inner(x)))))


def test_estimate_adds_up_the_calls_of_a_layer_before_it_squares() -> None:
    task = Task(Twice().double(), class_loss)
    rng = np.random.default_rng(0)
    chunks = [Chunk({"x": rng.normal(size=6), "y": np.int64(i)}, 0, 1) for i in range(4)]
    moment = Gradients(task, Features()).estimate_moment(chunks, 4)
    total = torch.zeros(6, 6, dtype=torch.float64)
    for chunk in chunks:
        batch = task.collate([chunk])
        loss = class_loss(task.model, batch).sum()
        total += brute_force(task.model, loss)["inner.weight"] ** 2 / 4
    assert relative(moment.factors["inner.weight"][0], total.mean(dim=1)) < 1e-9


def test_estimate_survives_running_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = gradients_of(tiny_llama, second_moment="estimate")
    right = gradients.estimate_moment(CHUNKS, 64).factors
    original = Gradients._run

    def limited(self: Gradients, sink: Any, chunks: Any, role: Any) -> Any:
        result = original(self, sink, chunks, role)
        if len(chunks) * max(chunk.length for chunk in chunks) > 16:
            raise torch.OutOfMemoryError("out of memory")  # after something was summed
        return result

    monkeypatch.setattr(Gradients, "_run", limited)
    found = gradients.estimate_moment(CHUNKS, 64).factors
    for name, (row, column) in right.items():
        assert relative(found[name][0], row) < 1e-12
        assert relative(found[name][1], column) < 1e-12


def test_rows_without_any_gradient_are_not_blown_up() -> None:
    parameter = next(iter(gradients_of(tiny_llama).parameters.values()))
    row = np.ones(parameter.rows)
    row[0] = 0
    moment = SecondMoment("x", {parameter.name: (row, np.ones(parameter.columns))})
    scales = moment.scales(parameter)
    assert np.isfinite(scales[0]).all()
    assert scales[0][0] <= 1.01e4


def test_a_state_that_does_not_fit_is_refused() -> None:
    gradients = gradients_of(tiny_llama)
    factors = {n: factors_of(np.ones((p.rows, p.columns))) for n, p in gradients.parameters.items()}
    name = "model.layers.1.mlp.up_proj.weight"
    without = {n: f for n, f in factors.items() if n != name}
    turned = factors | {name: factors[name][::-1]}
    for broken, match in ((without, f"no state for {name}"), (turned, "another shape")):
        with pytest.raises(MismatchError, match=match) as error:
            gradients_of(tiny_llama, second_moment=SecondMoment("x", broken)).batch(CHUNKS)
        assert "\n" not in str(error.value)


def test_general_task_with_a_moment() -> None:
    gradients = Gradients(Task(Mlp(), class_loss), Features())
    factors = {
        n: factors_of(np.full((p.rows, p.columns), 4.0)) for n, p in gradients.parameters.items()
    }
    chunk = Chunk({"x": np.ones(6, np.float32), "y": np.int64(1)}, 0, 1)
    plain = gradients.batch([chunk]).u
    gradients.set_moment(SecondMoment("constant", factors))
    assert relative(gradients.batch([chunk]).u, plain / 2) < 1e-6
