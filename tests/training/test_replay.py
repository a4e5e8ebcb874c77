"""Metagradients equal finite differences of training again; the replay ends where the loop ends.

The yardstick is `weighted_training`: torch's own optimizers in float64, the batch's losses weighed
one by one, nothing of the package but the model.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.task import Chunk, Task
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.replay import Replay
from headwater.training.update import State
from models import SENTENCES, byte_tokenizer, relative, tiny_gpt2, tiny_llama, token_chunk

STEP = 1e-6  # of a finite difference in a weight: few coordinates change sign on the way

SMALL = Recipe(steps=7, batch_size=3, learning_rate=0.05, grad_clip=None, dropout=False, seed=3)
RECIPES = {
    "sgd": {"optimizer": "sgd", "weight_decay": 0.1},
    "momentum": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 0.1,
        "learning_rate": 0.02,
        "schedule": "linear",
        "grad_clip": 0.5,
    },
    "adamw": {"learning_rate": 0.01, "weight_decay": 0.1},
    "adamw, all": {
        "learning_rate": 0.01,
        "weight_decay": 0.3,
        "schedule": "cosine",
        "warmup_steps": 3,
        "grad_clip": 0.3,
        "betas": (0.8, 0.95),
        "eps": 1e-6,
    },
}


def recipe(name: str, **more: Any) -> Recipe:
    return Recipe(**(SMALL.to_json() | RECIPES[name] | more))


# -- the yardstick --------------------------------------------------------------------------


def permuted(count: int, recipe: Recipe) -> list[list[int]]:
    """Batches by one permutation for each epoch, until all steps are made."""
    made: list[list[int]] = []
    for epoch in range(100):
        generator = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence((recipe.seed, epoch)))
        )
        order = generator.permutation(count)
        made += [
            order[i : i + recipe.batch_size].tolist() for i in range(0, count, recipe.batch_size)
        ]
    return made[: recipe.steps]


def weighted_training(
    model: nn.Module, losses: Any, count: int, recipe: Recipe, weights: torch.Tensor
) -> None:
    """Train in place; `losses(rows)` are a batch's losses and what they are divided by."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if "norm" in n or "bias" in n or "ln_" in n]
    decayed = [p for n, p in named if all(p is not other for other in plain)]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        optimizer: Any = torch.optim.SGD(groups, lr=1.0, momentum=recipe.momentum)
    else:
        optimizer = torch.optim.AdamW(
            groups, lr=1.0, betas=recipe.betas, eps=recipe.eps, foreach=False
        )
    total = recipe.steps or 0
    for step, rows in enumerate(permuted(count, recipe)):
        rate = recipe.learning_rate
        if step < recipe.warmup_steps:
            rate *= (step + 1) / recipe.warmup_steps
        else:
            share = (step - recipe.warmup_steps) / (total - recipe.warmup_steps)
            falling = {"linear": 1 - share, "cosine": (1 + math.cos(math.pi * share)) / 2}
            rate *= falling.get(recipe.schedule, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        values, divisor = losses(rows)
        optimizer.zero_grad(set_to_none=True)
        ((weights[rows] * values).sum() / divisor).backward()
        gradients = [p.grad for _, p in named if p.grad is not None]
        if recipe.grad_clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))  # type: ignore[arg-type]
            for g in gradients:
                g *= min(1.0, recipe.grad_clip / (float(norm) + 1e-6))
        optimizer.step()


class Case:
    """A model, its task and chunks, and measurements written without the package."""

    def __init__(self, task: Task, chunks: list[Chunk], queries: list[Chunk]) -> None:
        self.task, self.chunks, self.queries = task, chunks, queries
        self.before = {n: v.clone() for n, v in task.model.state_dict().items()}

    def losses(self, rows: list[int]) -> tuple[torch.Tensor, float]:
        raise NotImplementedError

    def measure(self, query: Chunk) -> torch.Tensor:
        raise NotImplementedError

    def retrained(self, recipe: Recipe, weights: torch.Tensor) -> np.ndarray:
        """The measurements after a weighted training, [queries]."""
        self.task.model.load_state_dict(self.before)
        weighted_training(self.task.model, self.losses, len(self.chunks), recipe, weights)
        with torch.no_grad():
            found = [float(self.measure(query)) for query in self.queries]
        self.task.model.load_state_dict(self.before)
        return np.array(found)

    def differences(self, recipe: Recipe) -> np.ndarray:
        """d measurement / d w_i by central differences of training again, [queries, chunks]."""
        columns: list[np.ndarray] = []
        for i in range(len(self.chunks)):
            up = torch.ones(len(self.chunks), dtype=torch.float64)
            down = up.clone()
            up[i] += STEP
            down[i] -= STEP
            high, low = self.retrained(recipe, up), self.retrained(recipe, down)
            columns.append((high - low) / (2 * STEP))
        return np.stack(columns, axis=1)

    def metagradients(self, recipe: Recipe, **options: Any) -> np.ndarray:
        replay = Replay(self.task, self.chunks, recipe, **options)
        theta = replay.run()
        rows = [replay.measured(theta, [(1.0, query)])[1] for query in self.queries]
        return replay.pull(torch.stack(rows)).numpy()


class Regression(Case):
    def __init__(self, depth: int = 1) -> None:
        torch.manual_seed(1)
        layers: list[nn.Module] = []
        for _ in range(depth - 1):
            layers += [nn.Linear(3, 3), nn.Tanh()]
        model = nn.Sequential(*layers, nn.Linear(3, 1)).double()
        rng = np.random.default_rng(0)
        rows = [(rng.normal(size=3), rng.normal()) for _ in range(10)]
        chunks = [Chunk({"x": x, "y": np.float64(y)}, 0, 1) for x, y in rows]

        def loss(model: nn.Module, batch: Any) -> torch.Tensor:
            return (model(batch["x"])[:, 0] - batch["y"]) ** 2

        super().__init__(Task(model, loss), chunks[:8], chunks[8:])

    def losses(self, rows: list[int]) -> tuple[torch.Tensor, float]:
        return torch.stack([self.measure(self.chunks[row]) for row in rows]), len(rows)

    def measure(self, query: Chunk) -> torch.Tensor:
        x, y = torch.tensor(query.content["x"]), float(query.content["y"])
        return (self.task.model(x)[0] - y) ** 2


class Norm(nn.Module):
    """RMSNorm in float64; the one in transformers rounds to float32, which differences show."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()


def small_llama() -> Any:
    model = tiny_llama(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=48, tied=False
    )
    for name, module in list(model.named_modules()):
        if "norm" in name:
            model.set_submodule(name, Norm(module.weight))
    return model


class Language(Case):
    """Sequences of several lengths, rows of the embedding that no example touches."""

    def __init__(self, model: Any = None) -> None:
        model = small_llama() if model is None else model
        task = CausalLM(model, byte_tokenizer(), max_length=16)
        chunks = [token_chunk(5 + i, seed=i, vocab=40) for i in range(6)]
        super().__init__(task, chunks[:3], chunks[4:])

    def losses(self, rows: list[int]) -> tuple[torch.Tensor, float]:
        labelled = sum(self.chunks[row].length - 1 for row in rows)
        return torch.stack([self.measure(self.chunks[row]) for row in rows]), labelled

    def measure(self, query: Chunk) -> torch.Tensor:
        ids = torch.tensor(query.content["input_ids"]).long()
        logits = self.task.model(input_ids=ids[None]).logits[0]
        return nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="sum")


# -- against training again -----------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("depth", [1, 2])
def test_regression_against_training_again(name: str, depth: int) -> None:
    case = Regression(depth)
    right = case.differences(recipe(name))
    found = case.metagradients(recipe(name))
    assert np.abs(right).max() > 1e-3
    assert relative(found, right) < 1e-5
    for one, other in zip(found.T, right.T, strict=True):  # each example by itself
        assert relative(one, other) < 1e-4


@pytest.mark.parametrize("name", RECIPES)
def test_language_model_against_training_again(name: str) -> None:
    case = Language()
    right = case.differences(recipe(name, steps=4, batch_size=2))
    found = case.metagradients(recipe(name, steps=4, batch_size=2))
    assert np.abs(right).max() > 1e-3
    assert relative(found, right) < 1e-5
    for one, other in zip(found.T, right.T, strict=True):
        assert relative(one, other) < 1e-4


def test_clipping_is_active_in_some_steps_only() -> None:
    """So that both branches were met above."""
    for case in (Regression(1), Regression(2), Language()):
        norms: list[float] = []
        replay = Replay(case.task, case.chunks, recipe("adamw, all"))
        joined = replay._joined

        def spy(parts: Any, step: int, joined: Any = joined, norms: Any = norms) -> Any:
            made = joined(parts, step)
            norms.append(made[2].norm)
            return made

        replay._joined = spy  # type: ignore[method-assign]
        replay.run()
        assert max(norms) > 0.3


def test_a_head_that_is_frozen() -> None:
    """The loop then uses the fused head, which has one derivative only."""
    case = Language()
    case.task.model.lm_head.weight.requires_grad_(False)
    wanted = recipe("adamw", steps=4, batch_size=2)
    assert case.task._can_fuse()  # type: ignore[attr-defined]
    assert relative(case.metagradients(wanted), case.differences(wanted)) < 1e-5


def test_tied_weights_biases_and_conv1d() -> None:
    case = Language(tiny_gpt2(n_embd=8, n_layer=1, vocab_size=48))
    wanted = recipe("momentum", steps=4, batch_size=2)
    assert relative(case.metagradients(wanted), case.differences(wanted)) < 1e-5


class Sometimes(nn.Module):
    """Two layers; the second is called only for batches that ask for it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 1)
        self.never = nn.Linear(2, 2)
        self.double()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x))
        return hidden.sum(-1, keepdim=True) if float(y.sum()) < 0 else self.second(hidden)


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_that_some_steps_do_not_use(name: str) -> None:
    """They are not decayed and take no step, as in torch."""
    case = Regression()
    case.task = Task(Sometimes(), lambda m, b: (m(b["x"], b["y"])[:, 0] - b["y"]) ** 2)
    case.before = {n: v.clone() for n, v in case.task.model.state_dict().items()}

    def losses(rows: list[int]) -> tuple[torch.Tensor, float]:
        x = torch.tensor(np.stack([case.chunks[row].content["x"] for row in rows]))
        y = torch.tensor([float(case.chunks[row].content["y"]) for row in rows])
        return (case.task.model(x, y)[:, 0] - y) ** 2, len(rows)

    case.losses = losses  # type: ignore[method-assign]
    case.measure = lambda query: (
        (  # type: ignore[method-assign]
            case.task.model(torch.tensor(query.content["x"]), torch.ones(1))[0] - query.content["y"]
        )
        ** 2
    )
    case.task._measurement = lambda m, b: (m(b["x"], torch.ones(1))[:, 0] - b["y"]) ** 2
    signs = {
        float(sum(float(case.chunks[row].content["y"]) for row in rows)) < 0
        for rows in permuted(8, recipe(name))
    }
    assert signs == {True, False}
    assert relative(case.metagradients(recipe(name)), case.differences(recipe(name))) < 1e-5


def test_gradients_that_are_zero_by_accident_and_by_structure() -> None:
    """A zero gradient with v = 0 has a derivative: that of a g / (b |g| + eps), here by hand."""
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight[:] = 0.0

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(batch["x"])[:, 0] * batch["y"]

    chunks = [Chunk({"x": np.array([1.0, 0.0]), "y": np.float64(y)}, 0, 1) for y in (1.0, -1.0)]
    wanted = recipe("adamw", steps=1, batch_size=2, weight_decay=0.0, eps=1e-3)
    replay = Replay(Task(model, loss), chunks, wanted)
    theta = replay.run()
    assert not theta.any()  # the two examples cancel
    found = replay.pull(torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64))
    # theta = -lr g / (|g| + eps) with g = (w_1 - w_2) / 2, at g = 0
    slope = -0.01 / 2 / 1e-3
    assert found.numpy() == pytest.approx(np.array([[slope, -slope], [0.0, 0.0]]), rel=1e-12)


def test_eps_root_against_training_again() -> None:
    """One coordinate, written out."""
    eps_root, h = 0.3, 1e-5
    wanted = recipe("adamw", steps=3, batch_size=2, weight_decay=0.0)
    x = [0.7, -1.2]

    def trained(w: list[float]) -> float:
        theta, m, v = 0.5, 0.0, 0.0
        for t in (1, 2, 3):
            g = sum(wi * 2 * xi * (theta * xi - 1) for wi, xi in zip(w, x, strict=True)) / 2
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            root = math.sqrt(v / (1 - 0.999**t) + eps_root)
            theta -= 0.01 * m / (1 - 0.9**t) / (root + 1e-8)
        return theta

    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight[:] = 0.5
    task = Task(model, lambda m, b: (m(b["x"])[:, 0] - 1) ** 2)
    replay = Replay(task, [Chunk({"x": np.array([v])}, 0, 1) for v in x], wanted, eps_root=eps_root)
    assert float(replay.run()) == pytest.approx(trained([1, 1]), rel=1e-12)
    found = replay.pull(torch.ones(1, 1, dtype=torch.float64))[0]
    for i in range(2):
        up, down = ([1 + s * h * (j == i) for j in range(2)] for s in (1, -1))
        assert float(found[i]) == pytest.approx((trained(up) - trained(down)) / (2 * h), rel=1e-6)


# -- the replay itself ----------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_replay_ends_where_the_loop_ends(name: str, dtype: torch.dtype) -> None:
    task = CausalLM(tiny_llama(dtype=dtype), byte_tokenizer(), max_length=16)
    corpus = hw.Corpus.from_documents([{"id": str(i), "text": t} for i, t in enumerate(SENTENCES)])
    chunks = [chunk for document in corpus.documents() for chunk in task.chunks(document)]
    assert len(chunks) > len(SENTENCES)
    wanted = recipe(name, steps=9, batch_size=4, learning_rate=1e-3)
    theta = Replay(task, chunks, wanted).run()
    replay = Replay(task, chunks, wanted, segment=9)
    assert torch.equal(replay.run(), theta)
    train(task, corpus, wanted, progress=False)
    final = replay.flat.gather(task.model)
    assert relative(theta, final) < (1e-13 if dtype == torch.float64 else 1e-6)


@pytest.mark.parametrize("segment", [1, 2, 3, 6, 7, 20])
def test_segments_do_not_matter(segment: int) -> None:
    case = Regression(2)
    right = case.metagradients(recipe("adamw, all"))
    found = case.metagradients(recipe("adamw, all"), segment=segment)
    assert (found == right).all()


def test_queries_together_are_queries_alone() -> None:
    case = Language()
    together = case.metagradients(recipe("adamw"))
    queries = case.queries
    for query, row in zip(queries, together, strict=True):
        case.queries = [query]
        assert relative(case.metagradients(recipe("adamw"))[0], row) < 1e-12


class Counted(State):
    """A state that knows how many of it there are."""

    __slots__ = ()
    now = most = 0

    def __init__(self, *fields: Any) -> None:
        super().__init__(*fields)
        Counted.now += 1
        Counted.most = max(Counted.most, Counted.now)

    def __del__(self) -> None:
        Counted.now -= 1


def test_states_in_memory_are_two_roots_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.training.update.State", Counted)
    case = Regression()
    for steps in (1, 2, 50, 144):
        Counted.most = 0
        replay = Replay(case.task, case.chunks, recipe("adamw", steps=steps))
        replay.run()
        replay.pull(torch.ones(1, 4, dtype=torch.float64))
        assert 1 <= Counted.most <= 2 * math.sqrt(steps) + 2
        assert replay.kept <= Counted.most <= replay.kept + 1
        assert Counted.now == 0
        assert replay.memory(1) >= replay.kept * 3 * 4 * 8


def test_the_model_is_left_as_it_was() -> None:
    case = Language()
    case.task.model.train()
    case.task.model.lm_head.weight.requires_grad_(False)
    wants = [p.requires_grad for p in case.task.model.parameters()]
    case.metagradients(recipe("adamw"))
    assert case.task.model.training
    assert wants == [p.requires_grad for p in case.task.model.parameters()]
    assert all(p.grad is None for p in case.task.model.parameters())
    state = case.task.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in case.before.items())


# -- what is refused ------------------------------------------------------------------------


def test_dropout_is_refused_but_not_its_absence() -> None:
    wanted = recipe("adamw", dropout=True)
    Replay(Language().task, Language().chunks, wanted)
    case = Language(tiny_gpt2(n_embd=8, n_layer=1, vocab_size=48))  # dropout 0.1
    with pytest.raises(InputError, match="dropout"):
        Replay(case.task, case.chunks, wanted)
    case = Regression()
    case.task.model.append(nn.BatchNorm1d(1).double())  # type: ignore[operator]
    before = {n: v.clone() for n, v in case.task.model.state_dict().items()}
    case.task.model.eval()
    with pytest.raises(InputError, match="training mode"):
        Replay(case.task, case.chunks, wanted)
    state = case.task.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.items())
    assert not any(module.training for module in case.task.model.modules())


def test_what_cannot_be_replayed() -> None:
    case = Regression()
    case.task.model.half()
    with pytest.raises(InputError, match="float16"):
        Replay(case.task, case.chunks, SMALL)
    case.task.model.double().requires_grad_(False)
    with pytest.raises(InputError, match="found none"):
        Replay(case.task, case.chunks, SMALL)
    case = Regression()
    with pytest.raises(InputError, match="eps_root"):
        Replay(case.task, case.chunks, recipe("sgd"), eps_root=1e-8)
    huge = recipe("sgd", learning_rate=1e300, steps=9)
    with pytest.raises(NumericError, match=r"not finite at step \d"):
        Replay(case.task, case.chunks, huge).run()


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return grads[0]


def test_no_second_derivative_is_said() -> None:
    case = Regression()
    task = Task(case.task.model, lambda m, b: Once.apply(m(b["x"])[:, 0] - b["y"]))
    replay = Replay(task, case.chunks, SMALL)
    replay.run()
    with pytest.raises(InputError, match="differentiated twice"):
        replay.pull(torch.ones(1, 4, dtype=torch.float64))
