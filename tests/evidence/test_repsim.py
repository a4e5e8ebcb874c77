"""RepSim against the model's own hidden states, one text at a time without batch or padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import DamageError, InputError, NumericError
from headwater.evidence import embeddings
from headwater.evidence.repsim import RepSim, whiten
from headwater.tasks.texts import Texts
from models import SENTENCES, byte_tokenizer, tiny_gpt2, tiny_llama

LONG = "the cat sat on the mat; the dog sat on the cat; " * 3
TEXTS = [*SENTENCES, "Lima!", LONG, "a river"]
QUERY = ("The capital of Peru", " is Lima")


def task_of(model: Any = None, **options: Any) -> hw.CausalLM:
    model = tiny_llama() if model is None else model
    return hw.CausalLM(model, byte_tokenizer(), **({"max_length": 40} | options))


def corpus_of(texts: list[str]) -> hw.Corpus:
    rows = [{"id": f"d{i:03d}", "text": t, "half": i % 2} for i, t in enumerate(texts)]
    return hw.Corpus.from_documents(rows)


def index_of(
    texts: list[str], folder: Path | None = None, task: Any = None, features: Any = None
) -> hw.Index:
    plan = hw.Plan(shard_rows=5)
    return hw.Index.build(folder, task or task_of(), corpus_of(texts), features, plan)


def naive_state(task: hw.CausalLM, ids: Any, layer: int, pooling: str) -> Any:
    """Pooled hidden state of one row of tokens, float64 [d]."""
    with torch.no_grad():
        made = task.model(torch.as_tensor(ids).long()[None], output_hidden_states=True)
    states = made.hidden_states[layer][0].double().numpy()
    if pooling == "last":
        return states[-1]
    weights = np.ones(len(states)) if pooling == "mean" else np.arange(1, len(states) + 1)
    return weights @ states / weights.sum()


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def naive(task: hw.CausalLM, texts: list[str], layer: int, pooling: str) -> list[float]:
    """Cosines with the query; the best of a document's windows of 40 tokens counts."""
    q = naive_state(task, task.tokenizer("".join(QUERY))["input_ids"], layer, pooling)
    result = []
    for text in texts:
        ids = task.tokenizer(text)["input_ids"]
        cuts = [ids[i : i + 40] for i in range(0, len(ids), 40)]
        cuts = [cut for cut in cuts if len(cut) > 1]  # one token has no loss: it is no chunk
        states = [naive_state(task, cut, layer, pooling) for cut in cuts]
        result.append(max(float(unit(state) @ unit(q)) for state in states))
    return result


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return index_of(TEXTS)


@pytest.mark.parametrize("pooling", ["last", "mean", "weighted"])
@pytest.mark.parametrize("layer", [-1, -2, 0, 2])
def test_scores_are_cosines_of_hidden_states(index: hw.Index, layer: int, pooling: str) -> None:
    method = RepSim(layer, pooling, storage="float32")
    found = hw.scores(index, hw.Query(*QUERY), method=method)
    assert found.dtype == np.float32
    assert np.allclose(found[0], naive(index.task, TEXTS, layer, pooling), atol=1e-6)


def test_layers_and_poolings_differ(index: hw.Index) -> None:
    """The tests above could not tell them apart otherwise."""
    rows = [
        hw.scores(index, hw.Query(*QUERY), method=RepSim(layer, pooling))[0]
        for layer in (-1, -2, 0)
        for pooling in ("last", "mean", "weighted")
    ]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(rows) for b in rows[:i])


@pytest.mark.parametrize("budget", [1, 50, 10_000])
def test_neither_batch_nor_padding_matters(index: hw.Index, budget: int) -> None:
    for pooling in ("last", "mean", "weighted"):
        method = RepSim(-2, pooling, budget=budget, storage="float32")
        other = index_of(TEXTS)
        found = hw.scores(other, hw.Query(*QUERY), method=method)
        assert np.allclose(found[0], naive(index.task, TEXTS, -2, pooling), atol=1e-6)


def test_other_models_and_indexes_with_features() -> None:
    task = task_of(tiny_gpt2())
    index = index_of(TEXTS, None, task, hw.Features(projection=hw.TwoSided(2, 2)))
    found = hw.scores(index, hw.Query(*QUERY), method=RepSim(storage="float32"))
    assert np.allclose(found[0], naive(task, TEXTS, -1, "last"), atol=1e-6)
    assert not any(p.grad is not None for p in task.model.parameters())


def test_contrast_mean_and_chosen_examples(index: hw.Index) -> None:
    method = RepSim(storage="float32")
    lima, quito = hw.Query("It is", " Lima"), hw.Query("It is", " Quito")
    one, other = hw.scores(index, [lima, quito], method=method)
    contrast = hw.Query("It is", " Lima", instead_of=" Quito")
    found = hw.scores(index, [contrast, hw.Query.mean([lima, quito])], method=method)
    assert np.allclose(found[0], one - other, atol=1e-6)
    assert np.allclose(found[1], (one + other) / 2, atol=1e-6)
    some = hw.scores(index, lima, method=method, groups=("half", [1]))[0]
    assert np.isnan(some[::2]).all()
    assert np.allclose(some[1::2], one[1::2], atol=1e-6)
    (best,) = hw.top(index, lima, 2, method=method)
    assert best.positions == np.argsort(-one)[:2].tolist()


def random_texts(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    words = " ".join(SENTENCES).split()
    return [" ".join(rng.choice(words, 5)) for _ in range(n)]


def test_whitened_states_have_the_identity_as_covariance(monkeypatch: Any) -> None:
    monkeypatch.setattr(embeddings, "GROUP", 16)
    texts = random_texts(80)  # more than the 16 dimensions
    index = index_of(texts)
    plain = RepSim(storage="float32")
    white = RepSim(whiten=True, shrinkage=0.0, storage="float32")
    hw.scores(index, hw.Query(*QUERY), method=plain)
    found = hw.scores(index, hw.Query(*QUERY), method=white)[0]
    rows = np.concatenate(list(white._opened(index).embeddings.groups())).astype(np.float64)
    assert rows.shape == (80, 16)
    assert np.allclose(rows.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(np.cov(rows.T, bias=True), np.eye(16), atol=1e-3)
    ids = [index.task.tokenizer(text)["input_ids"] for text in texts]
    states = np.stack([naive_state(index.task, row, -1, "last") for row in ids])
    q = naive_state(index.task, index.task.tokenizer("".join(QUERY))["input_ids"], -1, "last")
    inverse = np.linalg.inv(np.cov(states.T, bias=True))
    a, b = states - states.mean(axis=0), q - states.mean(axis=0)
    right = (a @ inverse @ b) / np.sqrt(np.einsum("nd,de,ne->n", a, inverse, a) * (b @ inverse @ b))
    assert np.allclose(found, right, atol=1e-3)
    assert np.abs(found - hw.scores(index, hw.Query(*QUERY), method=plain)[0]).max() > 0.1


def test_shrinkage(index: hw.Index) -> None:
    """All of it: only the mean is taken off. None of it: too few documents are refused."""
    method = RepSim(whiten=True, shrinkage=1.0, storage="float32")
    found = hw.scores(index, hw.Query(*QUERY), method=method)[0]
    states = RepSim(storage="float32")._opened(index).embeddings
    rows, owners = states.vectors(range(len(index)))
    rows = rows.astype(np.float64)
    ids = index.task.tokenizer("".join(QUERY))["input_ids"]
    q = naive_state(index.task, ids, -1, "last") - rows.mean(axis=0)
    cosines = unit(rows - rows.mean(axis=0)) @ unit(q)
    right = [cosines[owners == i].max() for i in range(len(index))]
    assert np.allclose(found, right, atol=1e-5)
    with pytest.raises(InputError, match="has no inverse; expected more than 16 documents"):
        RepSim(whiten=True, shrinkage=0.0)._opened(index)
    assert whiten(states, 0.1).matrix.shape == (16, 16)


def test_stores_are_kept_and_made_again(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(embeddings, "PART", 3)
    method = RepSim(whiten=True, storage="float32")
    index = index_of(TEXTS, tmp_path / "i")
    before = hw.scores(index, hw.Query(*QUERY), method=method)
    again = hw.Index.open(tmp_path / "i", task_of())
    with monkeypatch.context() as patch:
        patch.delattr(hw.Index, "chunks")  # no document is run again
        white = RepSim(whiten=True, storage="float32")
        assert np.array_equal(hw.scores(again, hw.Query(*QUERY), method=white), before)
    paths = sorted(tmp_path.glob("i/semantic/*/whitening.safetensors"))
    whole = paths[0].read_bytes()
    paths[0].write_bytes(b"\xff" * 8 + whole[8:])
    with pytest.raises(DamageError, match=r"whitening\.safetensors is damaged"):
        RepSim(whiten=True, storage="float32")._opened(again)
    paths[0].write_bytes(whole)
    again.append(hw.Corpus.from_documents([{"id": "n", "text": "Quito it is"}]))
    run: list[int] = []
    kept = hw.Index.chunks
    monkeypatch.setattr(hw.Index, "chunks", lambda self, at: run.extend(at) or kept(self, at))
    grown = hw.scores(again, hw.Query(*QUERY), method=RepSim(storage="float32"))[0]
    assert np.allclose(grown, naive(again.task, [*TEXTS, "Quito it is"], -1, "last"), atol=1e-6)
    assert sorted(run) == list(range(len(TEXTS) // 3 * 3, len(TEXTS) + 1))  # full parts stay
    found = hw.scores(again, hw.Query(*QUERY), method=method)
    fresh = index_of([*TEXTS, "Quito it is"])  # whitened by the covariance of all of them
    assert np.allclose(found, hw.scores(fresh, hw.Query(*QUERY), method=method), atol=1e-5)
    assert len(run) == len(TEXTS) + 1 - len(TEXTS) // 3 * 3 + len(TEXTS) + 1


def test_states_that_are_not_finite() -> None:
    model = tiny_llama(tied=False)
    tokenizer = byte_tokenizer()
    bad = tokenizer("Numbers")["input_ids"][-1]
    with torch.no_grad():
        model.get_input_embeddings().weight[bad] = float("nan")
    texts = ["The capital of Peru is Lima.", "Numbers: 1", "a river"]
    index = index_of(texts, None, task_of(model))
    for method in (RepSim(), RepSim(whiten=True)):
        row = hw.scores(index, hw.Query("the", " cat"), method=method)[0]
        assert np.isnan(row).tolist() == [False, True, False]
        (best,) = hw.top(index, hw.Query("the", " cat"), 2, method=method)
        assert best.positions[0] != 1 != best.positions[1]
    with pytest.raises(NumericError, match="query is not finite"):
        hw.scores(index, hw.Query("the Numbers", " cat"), method=RepSim())


def test_bad_requests(index: hw.Index) -> None:
    plain = hw.Index.build(None, Texts(), corpus_of(TEXTS), None)
    with pytest.raises(InputError, match="index of kind 'text'"):
        hw.scores(plain, hw.Query(*QUERY), method=RepSim())
    with pytest.raises(InputError, match="expected from -3 to 2"):
        hw.scores(index, hw.Query(*QUERY), method=RepSim(layer=3))
    with pytest.raises(InputError, match="last, mean, weighted"):
        RepSim(pooling="max")
    with pytest.raises(InputError, match="from 0 to 1"):
        RepSim(whiten=True, shrinkage=2.0)
    with pytest.raises(InputError, match="no modules"):
        hw.scores(index, hw.Query(*QUERY), method=RepSim(), modules=["*"])
    assert RepSim(whiten=True).title == "RepSim (whitened)"
    assert RepSim().describe() == {
        "method": "repsim",
        "layer": -1,
        "pooling": "last",
        "storage": "float16",
        "whiten": False,
    }
