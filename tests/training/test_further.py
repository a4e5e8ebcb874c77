"""Further training equals plain torch on a copy of the model, and leaves no trace."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.tasks.task import Chunk
from headwater.training.further import Further, further, gradient, moved, trained_parameters
from models import Mlp, class_loss, relative

Weights = dict[str, torch.Tensor]


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def weights(model: torch.nn.Module) -> Weights:
    return {name: value.clone() for name, value in model.state_dict().items()}


def flat(state: Weights) -> torch.Tensor:
    return torch.cat([value.reshape(-1).double() for value in state.values()])


def pairs_of(n: int = 5) -> list[tuple[float, Chunk]]:
    rng = np.random.default_rng(3)
    return [
        (w, Chunk({"x": rng.normal(size=6), "y": np.int64(i % 5)}, 0, 1))
        for i, w in enumerate(rng.normal(size=n).tolist())
    ]


def naive_objective(model: torch.nn.Module, pairs: Any) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for w, chunk in pairs:
        x = torch.as_tensor(chunk.content["x"])
        total = total - w * torch.log_softmax(model(x[None])[0], dim=0)[int(chunk.content["y"])]
    return total


def naive_further(
    model: torch.nn.Module, pairs: Any, how: Further, *, ascend: bool = False
) -> Weights:
    """The same steps, written out: no optimizer of torch takes part."""
    model = copy.deepcopy(model).eval()
    named = dict(model.requires_grad_(True).named_parameters())
    m = {name: torch.zeros_like(p) for name, p in named.items()}
    v = {name: torch.zeros_like(p) for name, p in named.items()}
    for step in range(1, how.steps + 1):
        found = torch.autograd.grad(naive_objective(model, pairs), list(named.values()))
        with torch.no_grad():
            for (name, p), g in zip(named.items(), found, strict=True):
                g = -g if ascend else g
                if how.optimizer == "sgd":
                    p -= how.learning_rate * g
                    continue
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.999 * v[name] + 0.001 * g * g
                corrected = m[name] / (1 - 0.9**step)
                root = (v[name] / (1 - 0.999**step)).sqrt()
                p -= how.learning_rate * corrected / (root + 1e-8)
    return weights(model)


def task_of(model: torch.nn.Module | None = None, loss: Callable[..., Any] = class_loss) -> hw.Task:
    return hw.Task(Mlp().double() if model is None else model, loss)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("ascend", [False, True])
@pytest.mark.parametrize("budget", [1, 2, 100])
def test_steps_are_those_written_out(optimizer: Any, ascend: bool, budget: int) -> None:
    task = task_of()
    how = Further(0.03, 4, optimizer)
    start = flat(weights(task.model))
    right = flat(naive_further(task.model, pairs_of(), how, ascend=ascend)) - start
    parameters = trained_parameters(task.model)
    with further(task, pairs_of(), how, parameters, ascend=ascend, budget=budget) as measured:
        found = flat(weights(task.model)) - start
    assert relative(found, right) < 1e-10
    assert len(measured) == 4
    assert measured[0] == pytest.approx(
        float(naive_objective(task.model, pairs_of()).detach()), rel=1e-12
    )
    assert (measured[-1] > measured[0]) == ascend


def test_only_the_chosen_parameters_change() -> None:
    task = task_of(Mlp((6, 8, 7, 5)).double())
    names = list(dict(task.model.named_parameters()))
    before = bits(task.model)
    for patterns, more, chosen in (
        (["layers.2.*"], None, ["layers.2.weight", "layers.2.bias"]),
        (["layers.2"], None, ["layers.2.weight", "layers.2.bias"]),  # by its module
        (["*.bias"], ["layers.0", "layers.4"], ["layers.0.bias", "layers.4.bias"]),
        (None, "layers.4.weight", ["layers.4.weight"]),
        (None, None, names),
    ):
        parameters = trained_parameters(task.model, patterns, more)
        assert list(parameters) == chosen
        with further(task, pairs_of(), Further(0.1, 1, "sgd"), parameters):
            now = bits(task.model)
        assert [name for name in names if now[name] != before[name]] == chosen
        assert bits(task.model) == before
    with pytest.raises(InputError, match="No parameter of the model matches"):
        trained_parameters(task.model, ["layers.2"], ["layers.0"])
    for choices in (([],), (None, []), (["layers.2"], [])):
        with pytest.raises(InputError, match="No parameter.*no pattern"):
            trained_parameters(task.model, *choices)


class Noisy(torch.nn.Module):
    """Dropout, batch norm, and a frozen part: what a visit could leave a trace in."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one = torch.nn.Linear(6, 8)
        self.norm = torch.nn.BatchNorm1d(8)
        self.drop = torch.nn.Dropout(0.5)
        self.two = torch.nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.drop(self.norm(self.one(x)).tanh()))


def noisy() -> hw.Task:
    model = Noisy().double()
    model.train()
    model.drop.eval()
    model.one.bias.requires_grad_(False)
    model.two.weight.grad = torch.full_like(model.two.weight, 7.0)
    return task_of(model)


def state(model: torch.nn.Module) -> Any:
    return (
        bits(model),
        [(name, m.training) for name, m in model.named_modules()],
        [(name, p.requires_grad, id(p), id(p.grad)) for name, p in model.named_parameters()],
        [None if p.grad is None else p.grad.clone().tolist() for p in model.parameters()],
    )


def test_the_model_is_left_as_it_was() -> None:
    task = noisy()
    before = state(task.model)
    parameters = trained_parameters(task.model)
    with further(task, pairs_of(), Further(0.1, 2), parameters):
        assert bits(task.model)["one.bias"] != before[0]["one.bias"]
        assert state(task.model)[1:] == before[1:]
    assert state(task.model) == before
    with pytest.raises(ZeroDivisionError), further(task, pairs_of(), Further(0.1, 2), parameters):
        raise ZeroDivisionError
    assert state(task.model) == before
    huge = [(1e200 * w, chunk) for w, chunk in pairs_of()]
    for steps, message in ((1, "left weights that are not finite"), (3, "The measurement")):
        far = Further(1e200, steps, "sgd")
        with pytest.raises(NumericError, match=message), further(task, huge, far, parameters):
            raise AssertionError
        assert state(task.model) == before


def test_evaluation_mode_and_no_chance() -> None:
    task = noisy()
    task.model.train()
    parameters = trained_parameters(task.model)
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        with further(task, pairs_of(), Further(0.1, 2), parameters):
            results.append(bits(task.model))
    assert results[0] == results[1]
    start = weights(task.model)
    right = naive_further(task.model, pairs_of(), Further(0.1, 2, "sgd"))
    with further(task, pairs_of(), Further(0.1, 2, "sgd"), parameters):
        found = weights(task.model)
    names = list(parameters)
    moved_by = torch.cat([(found[n] - start[n]).reshape(-1) for n in names])
    should = torch.cat([(right[n] - start[n]).reshape(-1) for n in names])
    assert relative(moved_by, should) < 1e-10


def test_within_no_grad() -> None:
    task = task_of()
    parameters = trained_parameters(task.model)
    before = bits(task.model)
    with torch.no_grad(), further(task, pairs_of(), Further(0.1, 1), parameters):
        assert bits(task.model) != before


def test_autocast_does_not_keep_old_weights() -> None:
    """Autocast keeps the weights it has cast; a second step must not be taken with them."""
    model = Mlp().float()
    task = hw.Task(model, class_loss, autocast=torch.bfloat16)
    pairs = [
        (w, Chunk({"x": c.content["x"].astype(np.float32), "y": c.content["y"]}, 0, 1))
        for w, c in pairs_of()
    ]
    other = copy.deepcopy(model)
    for _ in range(3):
        other.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            batch = task.collate([c for _, c in pairs])
            (torch.tensor([w for w, _ in pairs]) * class_loss(other, batch)).sum().backward()
        with torch.no_grad():
            for p in other.parameters():
                p -= 0.1 * p.grad  # type: ignore[operator]
    start = flat(weights(model))
    with further(task, pairs, Further(0.1, 3, "sgd"), trained_parameters(model)):
        found = flat(weights(model))
    assert relative(found - start, flat(weights(other)) - start) < 1e-5


def test_gradient_and_moved() -> None:
    task = task_of()
    parameters = trained_parameters(task.model)
    value, found = gradient(task, pairs_of(), parameters, budget=2)
    objective = naive_objective(task.model, pairs_of())
    right = torch.autograd.grad(objective, list(task.model.parameters()))
    assert value == pytest.approx(float(objective.detach()), rel=1e-12)
    assert relative(torch.cat([g.reshape(-1) for g in found]), _joined(right)) < 1e-12
    before, start = bits(task.model), flat(weights(task.model))
    with moved(task, parameters, found, -0.5):
        assert relative(flat(weights(task.model)) - start, -0.5 * _joined(right)) < 1e-12
    assert bits(task.model) == before


def _joined(parts: Any) -> torch.Tensor:
    return torch.cat([part.reshape(-1) for part in parts])


def test_a_parameter_that_takes_no_part_stays() -> None:
    model = Mlp().double()
    model.unused = torch.nn.Linear(2, 2).double()
    task = task_of(model)
    before = bits(model)
    with further(task, pairs_of(), Further(0.1, 2), trained_parameters(model)):
        assert bits(model)["unused.weight"] == before["unused.weight"]
        assert bits(model)["layers.0.weight"] != before["layers.0.weight"]


def test_what_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="too little precision.*bfloat16"):
        trained_parameters(Mlp().bfloat16())
    half = Mlp()
    half.layers[0].half()
    with pytest.raises(InputError, match="float16"):
        trained_parameters(half)
    assert list(trained_parameters(half, ["layers.2.bias"])) == ["layers.2.bias"]
    task = task_of(loss=lambda model, batch: class_loss(model, batch).detach())
    with pytest.raises(InputError, match="does not depend"):
        gradient(task, pairs_of(), trained_parameters(task.model))
    for wrong in (
        {"learning_rate": 0.0},
        {"learning_rate": "1e-3"},
        {"learning_rate": None},
        {"steps": 0},
        {"steps": 1.5},
        {"steps": True},
        {"optimizer": "lion"},
    ):
        with pytest.raises(InputError):
            Further(**wrong)  # type: ignore[arg-type]


def test_of_an_adapted_model_the_adapter_is_trained() -> None:
    model = Mlp()
    model.lora_A = torch.nn.Linear(2, 2, bias=False)
    assert list(trained_parameters(model)) == ["lora_A.weight"]
    assert "layers.0.weight" in trained_parameters(model, ["*"])
