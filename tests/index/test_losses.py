"""Losses over a corpus against one-by-one passes; what takes no part is not run."""

import logging

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import NumericError, ResourceError
from headwater.index import losses as module
from headwater.index.losses import Losses
from models import SENTENCES, Mlp, byte_tokenizer, class_loss, naive_loss, relative, tiny_llama

TEXTS = [f"{s} {i}" for i in range(3) for s in SENTENCES] + [" ".join(SENTENCES), "a b"]


def language_index() -> hw.Index:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=32, overlap=4)
    corpus = hw.Corpus.from_columns({"text": TEXTS})
    return hw.Index.build(None, task, corpus, None, hw.Plan(shard_rows=8))


def class_index(n: int = 12) -> hw.Index:
    rng = np.random.default_rng(0)
    columns = {"x": list(rng.normal(size=(n, 6))), "y": list(rng.integers(0, 5, n))}
    task = hw.Task(Mlp().double(), class_loss)
    return hw.Index.build(None, task, hw.Corpus.from_columns(columns), None)


def naive(index: hw.Index) -> np.ndarray:
    task = index.task
    with torch.no_grad():
        return np.array(
            [
                sum(float(naive_loss(task.model, chunk)) for chunk in task.chunks(document))
                for document in index.stream()
            ]
        )


@pytest.mark.parametrize(("together", "budget"), [(512, 4096), (3, 70), (512, 1)])
def test_sum_over_each_documents_chunks(
    monkeypatch: pytest.MonkeyPatch, together: int, budget: int
) -> None:
    index = language_index()
    monkeypatch.setattr(module, "TOGETHER", together)
    passes = Losses(index, budget=budget)
    first = passes.now()
    assert first.dtype == np.float64
    assert relative(first, naive(index)) < 1e-6  # norms of a Llama round to float32
    assert np.array_equal(first, passes.now())  # from memory


def test_others_are_not_run() -> None:
    index = class_index()
    rows: list[int] = []
    loss = index.task._loss

    def counting(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        assert not model.training
        assert not torch.is_grad_enabled()
        rows.append(len(batch["y"]))
        return loss(model, batch)

    index.task._loss = counting
    everything = Losses(index).now()
    assert rows == [12]
    among = np.arange(12) % 3 == 1
    index.task.model.train()
    some = Losses(index, among).now()
    assert rows == [12, 4]
    assert np.isnan(some[~among]).all()
    assert relative(some[among], everything[among]) < 1e-14
    assert index.task.model.training
    assert all(p.requires_grad and p.grad is None for p in index.task.model.parameters())


def test_weights_are_those_of_the_moment() -> None:
    index = class_index()
    passes = Losses(index)
    before = passes.now()
    with torch.no_grad():
        index.task.model.layers[0].weight.mul_(2)
    assert relative(passes.now(), before) > 1e-2


def test_small_corpora_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    index = language_index()
    monkeypatch.setattr(module, "TOGETHER", 5)
    reads: list[int] = []
    chunks = index.chunks
    monkeypatch.setattr(index, "chunks", lambda p: reads.append(len(p)) or chunks(p))
    passes = Losses(index)
    first = passes.now()
    again = passes.now()
    assert sum(reads) == len(index)
    monkeypatch.setattr(module, "HELD", 1000)
    passes = Losses(index)
    reads.clear()
    assert np.array_equal(passes.now(), first)
    assert np.array_equal(passes.now(), again)
    assert sum(reads) == 2 * len(index)


def test_the_budget_is_halved_when_memory_runs_out() -> None:
    index = class_index()
    right = Losses(index).now()
    loss = index.task._loss

    def narrow(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        if len(batch["y"]) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return loss(model, batch)

    index.task._loss = narrow
    limit = 3
    passes = Losses(index, budget=16)
    assert relative(passes.now(), right) < 1e-14
    assert passes.budget == 2
    limit = 0
    with pytest.raises(ResourceError, match="single chunk"):
        passes.now()


def test_a_loss_that_is_not_finite(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 6))
    corpus = hw.Corpus.from_columns({"x": list(x), "y": [0, 1, 2, 3]})

    def endless(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return class_loss(model, batch).masked_fill(batch["y"] == 2, float("inf"))

    index = hw.Index.build(None, hw.Task(Mlp().double(), endless), corpus, None)
    with caplog.at_level(logging.WARNING):
        found = Losses(index).now()
    assert np.isnan(found).tolist() == [False, False, True, False]
    assert "1 examples have no finite loss" in caplog.text
    with torch.no_grad():
        index.task.model.layers[0].weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="No example of the corpus has a finite loss"):
        Losses(index).now()
