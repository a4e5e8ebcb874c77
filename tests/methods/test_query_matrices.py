"""The queries' own gradients, batched, against ordinary autograd, one chunk at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import headwater as hw
from headwater.engine.errors import NumericError, ResourceError
from headwater.gradients.matrices import Layers
from headwater.methods.corpus_pass import query_matrices
from models import SENTENCES, byte_tokenizer, tiny_gpt2, tiny_llama
from small_net import LAYERS, matrices, rows, task

EXACT = 1e-10


def queries() -> list[hw.Query]:
    """Of different lengths; one is a mean, one a contrast."""
    plain = [hw.Query("The capital of Peru is", " Lima"), hw.Query("", SENTENCES[1])]
    mean = hw.Query.mean(
        [hw.Query("A river", " runs"), hw.Query("the cat sat on", " the mat"), plain[0]]
    )
    contrast = hw.Query("The capital of Peru is", " Lima", instead_of=" Quito")
    return [plain[0], mean, plain[1], contrast]


def by_hand(t: hw.CausalLM, query: hw.Query) -> dict[str, torch.Tensor]:
    """[out, in + bias] of each attributed weight, in float64."""
    made: dict[str, Any] = {}
    for name, layer in Layers(t).layers.items():
        module: Any = t.model.get_submodule(name.removesuffix(".weight"))
        total: Any = 0.0
        for weight, chunk in t.query_chunks(query):
            for p in t.model.parameters():
                p.requires_grad_(True)
                p.grad = None
            t.model.eval()
            t.measurement(t.collate([chunk])).sum().backward()
            g = module.weight.grad
            g = g.T if type(module).__name__ == "Conv1D" else g
            if layer.bias is not None:
                g = torch.cat([g, module.bias.grad[:, None]], dim=1)
            total = total + weight * g
        made[name] = total
    return made


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("budget", [1, 40, 1024])
def test_batches_give_each_querys_own_gradient(
    make: Any, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headwater.methods.corpus_pass.CPU_BUDGET", budget)
    t = hw.CausalLM(make(), byte_tokenizer())
    asked = queries()
    found = query_matrices(Layers(t), asked)
    for number, query in enumerate(asked):
        right = by_hand(t, query)
        assert set(found) == set(right)
        for name, matrix in right.items():
            assert float((found[name][number] - matrix).norm() / matrix.norm()) < EXACT


def test_convolutions_and_layers_used_twice() -> None:
    t, data = task(), rows(5)
    asked = [hw.Query(columns={"x": data["x"][i], "y": data["y"][i]}) for i in range(5)]
    found = query_matrices(Layers(t), asked)
    for i in range(5):
        right = matrices(task(), data["x"][i], data["y"][i])
        for name in LAYERS:
            error = (found[name][i] - right[name]).norm() / right[name].norm()
            assert float(error) < EXACT


def test_memory_that_runs_out_begins_again(monkeypatch: pytest.MonkeyPatch) -> None:
    t = hw.CausalLM(tiny_llama(), byte_tokenizer())
    right = query_matrices(Layers(t), queries())
    sizes: list[int] = []
    original = Layers.run

    def run(self: Any, sink: Any, chunks: Any, *args: Any) -> Any:
        made = original(self, sink, chunks, *args)
        sizes.append(len(chunks))
        if len(chunks) > 2:  # after it has added to the sums
            raise RuntimeError("out of memory")
        return made

    monkeypatch.setattr(Layers, "run", run)
    found = query_matrices(Layers(t), queries())
    assert max(sizes) > 2 >= sizes[-1]
    for name, matrix in right.items():
        assert float((found[name] - matrix).norm() / matrix.norm()) < EXACT

    def never(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Layers, "run", never)
    with pytest.raises(ResourceError, match="queries"):
        query_matrices(Layers(t), queries())


def test_a_query_that_is_not_finite_is_named() -> None:
    t, data = task(), rows(3)
    data["x"][1] = float("nan")
    asked = [hw.Query(columns={"x": data["x"][i], "y": data["y"][i], "n": i}) for i in range(3)]
    with pytest.raises(NumericError, match="query columns x, y, n"):
        query_matrices(Layers(t), asked)
    kept = query_matrices(Layers(t), [asked[0], asked[2]])
    assert all(bool(torch.isfinite(matrix).all()) for matrix in kept.values())


def test_the_model_is_left_as_it_was() -> None:
    t = hw.CausalLM(tiny_llama(), byte_tokenizer())
    t.model.train()
    before = [p.clone() for p in t.model.parameters()]
    query_matrices(Layers(t), queries())
    assert t.model.training
    assert all(p.requires_grad and p.grad is None for p in t.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, t.model.parameters(), strict=True))
