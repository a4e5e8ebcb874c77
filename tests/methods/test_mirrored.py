"""Mirrored influence against copies of the model that plain torch trained."""

import copy
import json
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.mirrored import Mirrored
from models import SENTENCES, Mlp, byte_tokenizer, class_loss, naive_loss, relative, tiny_llama

TEXTS = [f"{s} {i}" for i in range(2) for s in SENTENCES] + [" ".join(SENTENCES[:3]), "a river"]
N = 14


def columns(n: int = N, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": list(rng.normal(size=(n, 6))), "y": list(rng.integers(0, 5, n))}


def class_index(model: torch.nn.Module | None = None, **options: Any) -> hw.Index:
    task = hw.Task(Mlp().double() if model is None else model, class_loss)
    corpus = hw.Corpus.from_columns(columns(), metadata={"source": [f"s{i % 3}" for i in range(N)]})
    return hw.Index.build(None, task, corpus, options.pop("features", None), hw.Plan(**options))


def class_queries() -> list[hw.Query]:
    made = columns(3, seed=9)
    single = [hw.Query(columns={"x": x, "y": y}) for x, y in zip(made["x"], made["y"], strict=True)]
    return [single[0], hw.Query.mean(single[1:])]


def batch(items: dict[str, Any], rows: Any = slice(None)) -> dict[str, torch.Tensor]:
    return {
        "x": torch.tensor(np.stack(items["x"])[rows]),
        "y": torch.tensor(np.asarray(items["y"])[rows]),
    }


def trained(
    model: torch.nn.Module, objective: Any, sign: float, rate: float, steps: int, kind: str
) -> torch.nn.Module:
    """A copy after some steps that lower (sign 1) or raise (-1) the objective."""
    model = copy.deepcopy(model).eval().requires_grad_(True)
    make: Any = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
    optimizer = make(model.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * objective(model)).backward()
        optimizer.step()
    return model


def class_objectives() -> list[Any]:
    made = columns(3, seed=9)
    return [
        lambda model: class_loss(model, batch(made, [0])).sum(),
        lambda model: (
            class_loss(model, batch(made, [1])).sum() / 2
            + class_loss(model, batch(made, [2])).sum() / 2
        ),
    ]


@torch.no_grad()
def class_losses(model: torch.nn.Module) -> np.ndarray:
    return class_loss(model, batch(columns())).double().numpy()


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("two_sided", [True, False])
def test_equals_trained_copies(kind: Any, two_sided: bool) -> None:
    index = class_index()
    model = index.task.model
    right = []
    for objective in class_objectives():
        down = class_losses(trained(model, objective, 1, 0.02, 3, kind))
        up = class_losses(trained(model, objective, -1, 0.02, 3, kind))
        right.append((up - down) / 2 if two_sided else class_losses(model) - down)
    method = Mirrored(learning_rate=0.02, steps=3, optimizer=kind, two_sided=two_sided)
    found = hw.scores(index, class_queries(), method=method)
    assert found.dtype == np.float32
    assert relative(found, np.stack(right)) < 1e-6
    small = Mirrored(learning_rate=0.02, steps=3, optimizer=kind, two_sided=two_sided, budget=2)
    assert relative(hw.scores(index, class_queries(), method=small), np.stack(right)) < 1e-6


def test_first_order_is_the_dot_product_of_gradients() -> None:
    index = class_index(torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh()).double())
    model = index.task.model
    parameters = list(model.parameters())

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, parameters)])

    items = columns()
    examples = [gradient(class_loss(model, batch(items, [i])).sum()) for i in range(N)]
    queries = [gradient(objective(model)) for objective in class_objectives()]
    dots = torch.stack(queries) @ torch.stack(examples).T
    rate = 1e-4
    for two_sided, error in ((True, 1e-6), (False, 1e-3)):
        method = Mirrored(learning_rate=rate, steps=1, optimizer="sgd", two_sided=two_sided)
        found = hw.scores(index, class_queries(), method=method).astype(np.float64) / rate
        assert relative(found, dots) < error


def test_language_models_contrasts_and_documents_of_several_chunks() -> None:
    model = tiny_llama()
    task = hw.CausalLM(model, byte_tokenizer(), max_length=32, overlap=4)
    corpus = hw.Corpus.from_columns({"text": TEXTS})
    index = hw.Index.build(None, task, corpus, None, hw.Plan(shard_rows=6))
    contrast = hw.Query("the cat sat", " on the mat", instead_of=" down")
    query = hw.Query.mean([contrast, hw.Query("A river", " runs")])
    pieces = [task.chunks(document) for document in corpus.documents()]
    assert max(map(len, pieces)) > 1
    (_, mat), (_, down) = task.query_chunks(contrast)
    ((_, runs),) = task.query_chunks(hw.Query("A river", " runs"))

    def objective(m: Any) -> torch.Tensor:
        return (naive_loss(m, mat) - naive_loss(m, down) + naive_loss(m, runs)) / 2

    def losses(m: Any) -> np.ndarray:
        with torch.no_grad():
            return np.array([sum(float(naive_loss(m, c)) for c in mine) for mine in pieces])

    down_, up = (trained(model, objective, s, 1e-3, 2, "adamw") for s in (1, -1))
    found = hw.scores(index, query, method=Mirrored(learning_rate=1e-3, steps=2))[0]
    assert relative(found, (losses(up) - losses(down_)) / 2) < 1e-4


class Mixing(torch.nn.Module):
    """Centres each batch by its own mean, in evaluation mode too: no example has a gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.one = torch.nn.Linear(6, 7)
        self.two = torch.nn.Linear(7, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.one(x)
        return self.two((hidden - 0.5 * hidden.mean(dim=0)).tanh())


class Normed(torch.nn.Module):
    """Batch norm with statistics of its own training."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, 7),
            torch.nn.BatchNorm1d(7),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(7, 5),
        )
        self.layers(torch.randn(50, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.mark.parametrize("kind", [Mixing, Normed])
def test_models_without_gradients_of_examples(kind: Any) -> None:
    index = class_index(kind().double())
    model = index.task.model
    model.train()
    before = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    objective = class_objectives()[0]
    down, up = (class_losses(trained(model, objective, s, 0.02, 3, "adamw")) for s in (1, -1))
    found = hw.scores(index, class_queries()[0], method=Mirrored(learning_rate=0.02))[0]
    assert relative(found, (up - down) / 2) < 1e-6
    after = {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
    assert after == before
    assert all(module.training for module in model.modules())


def test_positive_is_support() -> None:
    index = class_index()
    items = columns()
    right = hw.Query(columns={"x": items["x"][5], "y": items["y"][5]})
    wrong = hw.Query(columns={"x": items["x"][5], "y": (items["y"][5] + 1) % 5})
    found = hw.scores(index, [right, wrong], method=Mirrored(learning_rate=1e-3))[:, 5]
    assert found[0] > 0 > found[1]


def test_choices_of_parameters_examples_and_groups() -> None:
    index = class_index()
    query = class_queries()[0]
    method = Mirrored(learning_rate=0.02)
    full = hw.scores(index, query, method=method)[0]
    some = hw.scores(index, query, method=method, ids=index.ids[2:5])[0]
    assert np.isnan(some).sum() == N - 3
    assert relative(some[2:5], full[2:5]) < 1e-6
    last = hw.scores(index, query, method=method, modules=["layers.2"])[0]
    same = Mirrored(learning_rate=0.02, parameters=["layers.2.*"])
    assert np.array_equal(last, hw.scores(index, query, method=same)[0])
    assert relative(last, full) > 0.05
    ranked = hw.rank(index, query, by="source", method=method)
    sums = {f"s{k}": float(full[k::3].astype(np.float64).sum()) for k in range(3)}
    assert {r.name: r.score for r in ranked} == pytest.approx(sums)
    with pytest.raises(InputError, match="No parameter of the model matches"):
        hw.scores(index, query, method=method, modules=["nothing"])
    for empty in ({"modules": []}, {"modules": [], "method": Mirrored(parameters=["layers.2"])}):
        with pytest.raises(InputError, match="found.*no pattern"):
            hw.scores(index, query, **({"method": method} | empty))
    with pytest.raises(InputError, match="found no pattern"):
        hw.scores(index, query, method=Mirrored(parameters=[]))


def test_an_index_with_features_scores_alike() -> None:
    query = class_queries()
    with_features = class_index(features=hw.Features(projection=hw.TwoSided(2, 2)))
    method = Mirrored(learning_rate=0.02)
    one, other = (hw.scores(i, query, method=method) for i in (with_features, class_index()))
    assert np.array_equal(one, other)


def test_description() -> None:
    described = json.loads(json.dumps(Mirrored(parameters=["a.*"], two_sided=False).describe()))
    assert described == {
        "method": "mirrored",
        "learning_rate": 5e-6,
        "steps": 3,
        "optimizer": "adamw",
        "two_sided": False,
        "parameters": ["a.*"],
    }
