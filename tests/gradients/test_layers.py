"""Which layers methods in full dimension take, and what they refuse to take."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.gradients.matrices import Layers
from headwater.methods.corpus_pass import CorpusPass, query_matrices
from models import byte_tokenizer, relative, tiny_llama

EXACT = 1e-10
SIZE, TOKENS = 6, 6


def loss(model: Any, batch: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


class Plain(CorpusPass):
    """The products of gradients themselves."""

    name = title = "plain"
    unit, needs = "products", "a model"

    def directions(self, index: Any, layers: Any, queries: Any) -> Any:
        return query_matrices(layers, queries)


def columns(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(SIZE, TOKENS, 3)), "y": rng.integers(0, 2, size=SIZE)}


def asked(data: dict[str, Any]) -> list[hw.Query]:
    return [hw.Query(columns={"x": x, "y": y}) for x, y in zip(data["x"], data["y"], strict=True)]


def products(model: torch.nn.Module, data: dict[str, Any]) -> torch.Tensor:
    """All pairs of examples, one backward pass each."""
    rows = []
    for x, y in zip(data["x"], data["y"], strict=True):
        value = loss(model, {"x": torch.tensor(x)[None], "y": torch.tensor([y])})
        found = torch.autograd.grad(value.sum(), list(model.parameters()))
        rows.append(torch.cat([g.reshape(-1) for g in found]))
    g = torch.stack(rows)
    return g @ g.T


def index_of(model: torch.nn.Module, data: dict[str, Any]) -> hw.Index:
    task = hw.Task(model.double(), loss)
    return hw.Index.build(None, task, hw.Corpus.from_columns(data), None)


# -- layers that mix examples ----------------------------------------------------------------------


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = torch.nn.Linear(3, 3), torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x)).mean(dim=1))


class TokensFirst(Net):
    """[tokens, batch, features], as torch's recurrent layers have it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.tanh(self.first(x.transpose(0, 1)))).mean(dim=0)


class Sorted(Net):
    """The tokens of all examples in an order of their own, as before an expert."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(0, 1)
        order = flat[:, 0].argsort()
        made = torch.empty_like(flat).index_copy(0, order, torch.tanh(self.first(flat[order])))
        return self.last(made.view_as(x).mean(dim=1))


@pytest.mark.parametrize("mixing", [TokensFirst, Sorted])
@pytest.mark.parametrize("make", [Plain, lambda: hw.EKFAC("empirical", 0.1), hw.DataInf])
def test_layers_that_mix_examples_are_refused(mixing: Any, make: Any) -> None:
    data = columns()
    index = index_of(mixing(), data)
    with pytest.raises(InputError, match="does not keep examples apart"):
        hw.scores(index, asked(data), method=make())
    with pytest.raises(InputError, match="does not keep examples apart"):
        hw.scores(index, asked(data)[0], method=make())


def test_mixing_is_found_behind_examples_that_are_equal() -> None:
    """Those cannot tell; the first batch with others can."""
    data = columns()
    data["x"][:3], data["y"][:3] = data["x"][0, 0], data["y"][0]
    layers = Layers(hw.Task(Sorted().double(), loss))
    query_matrices(layers, asked(data)[:3])  # equal tokens everywhere: mixed or not is the same
    with pytest.raises(InputError, match="does not keep examples apart"):
        query_matrices(layers, asked(data))


def test_layers_that_keep_them_apart_are_not_refused_and_right() -> None:
    data, model = columns(), Net()
    index = index_of(model, data)
    found = hw.scores(index, asked(data), method=Plain())
    assert relative(found, products(model, data)) < 1e-6


def test_the_check_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = columns()
    index = index_of(Net(), data)
    index.manifest["budget"] = 2  # three batches
    sizes: list[int] = []
    original = hw.Task.loss

    def counted(self: Any, batch: Any) -> Any:
        sizes.append(len(batch["y"]))
        return original(self, batch)

    monkeypatch.setattr(hw.Task, "loss", counted)
    hw.scores(index, asked(data)[0], method=Plain())
    assert sizes.count(2) == 3 + 2  # and twice the first


# -- which weights ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["linaer", "all", 7, None])
def test_parameters_that_mean_nothing_here_are_refused(given: Any) -> None:
    index = index_of(Net(), columns())
    with pytest.raises(InputError, match="full dimension"):
        hw.scores(index, asked(columns())[0], method=hw.EKFAC("empirical", 0.1, parameters=given))


def test_a_weight_with_a_use_that_is_not_captured_is_refused() -> None:
    class Both(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 5)
            self.out.weight = self.table.weight
            self.own = torch.nn.Linear(3, 3)

    task = hw.Task(Both(), loss)
    with pytest.raises(InputError, match=r"table\.weight is used by table too"):
        Layers(task)
    assert set(Layers(task, lambda name, _: name == "own").layers) == {"own.weight"}
    assert set(Layers(task, modules=["own"]).layers) == {"own.weight"}
    tied = hw.CausalLM(tiny_llama(tied=True), byte_tokenizer())
    with pytest.raises(InputError, match="tied to") as error:
        Layers(tied, lambda name, _: name == "lm_head")
    assert "leave it out" in str(error.value).lower()


class Tied(torch.nn.Module):
    """A weight used twice, with biases as asked for."""

    def __init__(self, first: bool, second: bool, shared: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one = torch.nn.Linear(3, 3, bias=first)
        self.two = torch.nn.Linear(3, 3, bias=second)
        self.two.weight = self.one.weight
        if shared:
            self.two.bias = self.one.bias
        self.head = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.two(torch.tanh(self.one(x[:, 0])))))


class SharedBias(Tied):
    """Two weights, one bias."""

    def __init__(self) -> None:
        super().__init__(True, True, shared=True)
        self.two.weight = torch.nn.Parameter(self.one.weight.detach().flip(0).clone())


MADE = {
    "each its own": (lambda: Tied(True, True), None),
    "only the first": (lambda: Tied(True, False), None),
    "only the second": (lambda: Tied(False, True), None),
    "none": (lambda: Tied(False, False), None),
    "the same": (lambda: Tied(True, True, shared=True), "one.bias"),
    "one bias of two weights": (SharedBias, None),
}


@pytest.mark.parametrize("case", MADE)
def test_a_layer_has_a_bias_only_where_it_is_its_own(case: str) -> None:
    """A column of a matrix that is no parameter's gradient is no part of any."""
    make, bias = MADE[case]
    model, data = make().double(), columns()
    layers = Layers(hw.Task(model, loss))
    assert layers.layers["one.weight"].bias == bias
    found = query_matrices(layers, asked(data)[:1])
    batch = {"x": torch.tensor(data["x"][:1]), "y": torch.tensor(data["y"][:1])}
    named = dict(model.named_parameters())
    for p in named.values():
        p.requires_grad_(True)
    loss(model, batch).sum().backward()
    for name, layer in layers.layers.items():
        right = named[name].grad
        if layer.bias is not None:
            right = torch.cat([right, named[layer.bias].grad[:, None]], dim=1)
        assert relative(found[name][0], right) < EXACT
