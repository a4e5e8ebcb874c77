"""LESS against a loop over examples: autograd, Adam's step written out, a cosine."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import headwater as hw
from headwater.engine.errors import InputError, MismatchError, NumericError
from headwater.methods.less import LESS
from headwater.training.first_moment import read_adam_state
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.run import Checkpoint, TrainingRun
from models import brute_force, byte_tokenizer, naive_loss, tiny_gpt2
from small_net import LAYERS, N, matrices, rows, task
from small_run import SmallRun

CLOSE = 1e-6  # scores are float32
BETAS = (0.8, 0.95)
RECIPE = Recipe(
    steps=6,
    batch_size=3,
    learning_rate=0.02,
    schedule="linear",
    betas=BETAS,
    grad_clip=None,
    checkpoints=3,
)


class Trained(SmallRun):
    """A run with Adam's states, its index and two queries."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, RECIPE)
        asked = rows(9)
        self.asked = [(asked["x"][i], asked["y"][i]) for i in (7, 8)]
        self.queries = [hw.Query(columns={"x": x, "y": y}) for x, y in self.asked]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("run"))


def relative(found: Any, right: Any) -> float:
    right = np.asarray(right)
    return float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())


def flat(one: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([one[name].reshape(-1) for name in LAYERS])


def stored(checkpoint: Checkpoint, kind: str) -> torch.Tensor:
    """A running mean of every layer from the file, bias in the last column, as one vector."""
    state = load_file(str(checkpoint.optimizer))
    made: dict[str, torch.Tensor] = {}
    for weight in LAYERS:
        matrix = state[f"{kind}.{weight}"].flatten(1)
        bias = f"{kind}.{weight.removesuffix('weight')}bias"
        made[weight] = torch.cat([matrix, state[bias][:, None]], 1) if bias in state else matrix
    return flat(made)


def step(g: Any, m: Any, v: Any, t: int, eps: float, inside: bool, betas: Any = BETAS) -> Any:
    """The paper's two forms: its code's, and Adam's own with its bias corrections."""
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g**2
    if inside:
        return m / torch.sqrt(v + eps)
    return (m / (1 - betas[0] ** t)) / (torch.sqrt(v / (1 - betas[1] ** t)) + eps)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def by_hand(trained: Trained, query: int, eps: float, inside: bool, **betas: Any) -> Any:
    rates, right = trained.run.learning_rates, np.zeros(N)
    for k, checkpoint in enumerate(trained.run.checkpoints):
        model = task()
        checkpoint.load_into(model.model)
        q = flat(matrices(model, *trained.asked[query]))
        m, v = stored(checkpoint, "exp_avg"), stored(checkpoint, "exp_avg_sq")
        rate = (rates[2 * k] + rates[2 * k + 1]) / 2
        for i, (x, y) in enumerate(zip(*rows().values(), strict=True)):
            g = flat(matrices(model, x, y))
            right[i] += rate * cosine(q, step(g, m, v, 2 * k + 3, eps, inside, **betas))
    return right


@pytest.mark.parametrize("epsilon", ["inside", "outside"])
@pytest.mark.parametrize("eps", [1e-8, 1e-3, 0.3])
def test_it_is_the_loop_over_examples(trained: Trained, epsilon: Any, eps: float) -> None:
    method = LESS(trained.run, epsilon, eps=eps)
    found = hw.scores(trained.index, trained.queries, method=method)
    for number in range(2):
        assert relative(found[number], by_hand(trained, number, eps, epsilon == "inside")) < CLOSE


def test_the_two_forms_differ_where_eps_counts(trained: Trained) -> None:
    one, other = (by_hand(trained, 0, 1e-3, inside) for inside in (True, False))
    assert relative(one, other) > 0.01


def test_other_betas_and_rates(trained: Trained) -> None:
    method = LESS(trained.run, betas=(0.5, 0.5), rates=[2.0, 2.0, 2.0])
    found = hw.scores(trained.index, trained.queries[0], method=method)[0]
    own = LESS(trained.run, betas=(0.5, 0.5))
    assert relative(own.rates, [0.02 * x / 12 for x in (11, 7, 3)]) < CLOSE
    right = by_hand(trained, 0, 1e-8, True, betas=(0.5, 0.5))
    assert relative(hw.scores(trained.index, trained.queries[0], method=own)[0], right) < CLOSE
    assert method.rates == [1.0, 1.0, 1.0]
    assert not np.allclose(found, right)


def test_a_mean_of_queries_is_the_mean_of_cosines(trained: Trained) -> None:
    """Each part at length 1 first; the mean itself is not brought back to length 1."""
    query = hw.Query.mean(trained.queries)
    found = hw.scores(trained.index, query, method=LESS(trained.run))[0]
    right = (by_hand(trained, 0, 1e-8, True) + by_hand(trained, 1, 1e-8, True)) / 2
    assert relative(found, right) < CLOSE


def test_only_those_that_take_part_are_scored(trained: Trained) -> None:
    whole = hw.scores(trained.index, trained.queries[0], method=LESS(trained.run))[0]
    some = hw.scores(trained.index, trained.queries[0], method=LESS(trained.run), ids=["z2", "z5"])[
        0
    ]
    assert np.isfinite(some).tolist() == [i in (2, 5) for i in range(N)]
    assert relative(some[[2, 5]], whole[[2, 5]]) < CLOSE


def test_directions_and_examples_in_parts(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = hw.scores(trained.index, trained.queries, method=LESS(trained.run))
    monkeypatch.setattr("headwater.methods.corpus_pass.DIRECTION_BYTES", 1)
    monkeypatch.setattr("headwater.gradients.matrices.SLAB_BYTES", 1)
    monkeypatch.setattr("headwater.index.passes.RANGE", 3)
    monkeypatch.setattr("headwater.index.passes.document_ranges.__defaults__", (None, 3))
    parts = hw.scores(trained.index, trained.queries, method=LESS(trained.run))
    assert relative(parts, whole) < CLOSE


def test_the_model_is_left_as_it_was(trained: Trained) -> None:
    model = trained.task.model
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wanted = [p.requires_grad for p in model.parameters()]
    hw.scores(trained.index, trained.queries[0], method=LESS(trained.run))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == wanted


# -- language models: conv1d layers, biases, tokens, chunks ------------------------------------

TEXTS = [
    "The capital of Peru is Lima.",
    "Water boils at a hundred degrees, and freezes at zero degrees, as everybody knows.",
    "Lima is a city.",
]


def oriented(named: dict[str, torch.Tensor]) -> torch.Tensor:
    """The blocks' layers as [out, in + bias], one vector; transformers' Conv1D stores [in, out]."""
    weights = [n for n in named if n.endswith("weight") and ".h." in n and "ln_" not in n]
    return torch.cat(
        [
            torch.cat([named[n].T, named[n.replace("weight", "bias")][:, None]], 1).reshape(-1)
            for n in sorted(weights)
        ]
    )


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> tuple[hw.Index, TrainingRun]:
    t = hw.CausalLM(tiny_gpt2(), byte_tokenizer(), max_length=16)
    corpus = hw.Corpus.from_documents([{"text": text} for text in TEXTS])
    recipe = Recipe(steps=3, batch_size=2, learning_rate=1e-3, betas=BETAS, dropout=False)
    run = train(t, corpus, recipe, out=tmp_path_factory.mktemp("lm"), progress=False)
    return hw.Index.build(None, t, corpus, None), run


def test_a_document_has_its_best_chunk(language: tuple[hw.Index, TrainingRun]) -> None:
    """Gradients of the mean over a chunk's labelled tokens, as the training had them."""
    index, run = language
    found = hw.scores(index, hw.Query("Lima is", " a city"), method=LESS(run))[0]
    model = index.task.model
    [(_, asked)] = index.task.query_chunks(hw.Query("Lima is", " a city"))
    q = oriented(brute_force(model, naive_loss(model, asked)))
    state = load_file(str(run.checkpoints[0].optimizer))
    m, v = (
        oriented({k.removeprefix(f"{kind}."): x for k, x in state.items() if f"{kind}." in k})
        for kind in ("exp_avg", "exp_avg_sq")
    )
    right, several = [], 0
    for chunks in index.chunks(range(3)):
        scores = []
        for chunk in chunks:
            tokens = int((chunk.content["labels"][1:] != -100).sum())
            g = oriented(brute_force(model, naive_loss(model, chunk) / tokens))
            scores.append(1e-3 * cosine(q, step(g, m, v, 4, 1e-8, True)))
        several += len({round(s, 12) for s in scores}) > 1
        right.append(max(scores))
    assert several >= 1
    assert relative(found, right) < CLOSE


def test_scale_is_the_unit_of_the_gradient(language: tuple[hw.Index, TrainingRun]) -> None:
    index, run = language
    query = hw.Query("Lima is", " a city")
    mean, total = (hw.scores(index, query, method=LESS(run, scale=s))[0] for s in ("tokens", 1.0))
    assert not np.allclose(mean, total, rtol=1e-3)


# -- what the state must be --------------------------------------------------------------------


class TwoHeads(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.one, self.two = (torch.nn.Linear(3, 3) for _ in range(3))

    def forward(self, x: torch.Tensor, both: bool) -> torch.Tensor:
        h = torch.tanh(self.body(x))
        return self.one(h) + self.two(h) if both else self.one(h)


def test_a_layer_without_a_gradient_still_steps(tmp_path: Path) -> None:
    """Adam moves it by its mean, which counts in the length of the step."""
    data = {"x": np.random.default_rng(0).normal(size=(4, 3)), "y": [0, 1, 2, 0]}
    corpus = hw.Corpus.from_columns(data)

    def loss(both: bool) -> Any:
        return lambda model, b: torch.nn.functional.cross_entropy(
            model(b["x"], both), b["y"], reduction="none"
        )

    model = TwoHeads().double()
    run = train(hw.Task(model, loss(True)), corpus, Recipe(steps=2, betas=BETAS), out=tmp_path)
    t = hw.Task(model, loss(False))
    index = hw.Index.build(None, t, corpus, None)
    query = hw.Query(columns={"x": data["x"][0], "y": 2})
    found = hw.scores(index, query, method=LESS(run))[0]
    names = ["body.weight", "body.bias", "one.weight", "one.bias", "two.weight", "two.bias"]
    state = load_file(str(run.checkpoints[0].optimizer))

    def joined(values: Any, prefix: str = "") -> torch.Tensor:
        return torch.cat([values[prefix + name].reshape(-1) for name in names])

    def gradient(x: Any, y: int) -> torch.Tensor:
        batch = {"x": torch.as_tensor(x)[None], "y": torch.tensor([y])}
        return joined(brute_force(model, loss(False)(model, batch)[0]))

    q = gradient(data["x"][0], 2)
    m, v = joined(state, "exp_avg."), joined(state, "exp_avg_sq.")
    right = [
        1e-3 * cosine(q, step(gradient(x, y), m, v, 3, 1e-8, True))
        for x, y in zip(data["x"], data["y"], strict=True)
    ]
    assert float(m[-12:].norm()) > 0
    assert relative(found, right) < CLOSE


def test_states_of_torch_say_the_same(trained: Trained, tmp_path: Path) -> None:
    """optimizer.pt as transformers.Trainer leaves it."""
    model = task().model
    optimizer = torch.optim.AdamW(model.parameters(), betas=BETAS)
    batch = {"x": torch.as_tensor(rows()["x"]), "y": torch.as_tensor(rows()["y"])}
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"]).backward()
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    state = read_adam_state(tmp_path, model)
    assert state.betas == BETAS
    assert state.step == 2
    for name, parameter in model.named_parameters():
        held = optimizer.state[parameter]
        assert torch.equal(state.first[name], held["exp_avg"])
        assert torch.equal(state.second[name], held["exp_avg_sq"])
    assert read_adam_state(trained.run.checkpoints[0], model).betas == BETAS


def test_what_is_missing_is_told(trained: Trained, tmp_path: Path) -> None:
    bare = [Checkpoint(c.path, c.step, c.learning_rate) for c in trained.run.checkpoints]
    with pytest.raises(InputError, match=r"checkpoint-2 has none.*optimizer.safetensors"):
        LESS(TrainingRun(tuple(bare)))
    corpus = hw.Corpus.from_columns(rows())
    sgd = Recipe(steps=1, optimizer="sgd", momentum=0.9)
    run = train(task(), corpus, sgd, out=tmp_path / "sgd", progress=False)
    with pytest.raises(InputError, match="found sgd"):
        hw.scores(trained.index, trained.queries[0], method=LESS(run))
    model = task().model
    half = torch.optim.Adafactor(model.parameters())
    torch.nn.functional.cross_entropy(
        model(torch.as_tensor(rows()["x"])), torch.as_tensor(rows()["y"])
    ).backward()
    half.step()
    with pytest.raises(InputError, match="no exp_avg for"):
        read_adam_state(half, model)
    frozen = task()
    frozen.model.twice.bias.requires_grad_(False)
    run = train(frozen, corpus, Recipe(steps=1), out=tmp_path / "frozen", progress=False)
    index = hw.Index.build(None, frozen, corpus, None)
    with pytest.raises(MismatchError, match=r"nothing for twice\.bias"):
        hw.scores(index, trained.queries[0], method=LESS(run))


@pytest.mark.parametrize(
    "wrong", [{"epsilon": "between"}, {"betas": (1.0, 0.9)}, {"eps": 0.0}, {"scale": "words"}]
)
def test_options_out_of_range(trained: Trained, wrong: Any) -> None:
    with pytest.raises(InputError):
        LESS(trained.run, **wrong)


def test_a_query_without_a_gradient_has_no_direction(trained: Trained) -> None:
    t = hw.Task(
        trained.task.model,
        lambda m, b: torch.nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"),
        measurement=lambda m, b: 0.0 * m(b["x"]).sum(dim=1),
    )
    index = hw.Index.build(None, t, hw.Corpus.from_columns(rows()), None)
    with pytest.raises(NumericError, match="no direction"):
        hw.scores(index, trained.queries[0], method=LESS(trained.run))
    assert math.isfinite(trained.run.losses[0])
