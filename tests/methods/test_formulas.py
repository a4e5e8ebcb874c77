"""Every method equals its paper's formula, written out with dense float64 matrices.

The features come from one-by-one autograd with P G Q^T written out, so that nothing but the index's
own files and the queries' features is shared with what is tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.gradients.compute import Gradients
from headwater.methods.method import Method
from models import (
    SENTENCES,
    brute_force,
    byte_tokenizer,
    explicit,
    naive_loss,
    tiny_llama,
)

DAMPING = 0.1
QUERIES = [
    hw.Query("The capital of Peru is", " Lima"),
    hw.Query("the cat sat", " on the mat", instead_of=" down"),
    hw.Query.mean([hw.Query("A river", " runs"), hw.Query("Numbers: 1 2", " 3 4")]),
]
HELD_OUT = [hw.Query(f"the {a} sat on", f" the {b}") for a in ("cat", "dog") for b in "abcde"]
ROWS = {"float32": 1e-5, "float16": 5e-3, "int8": 5e-2}  # relative error of a whole score matrix


def texts() -> list[str]:
    """Sentences and joins of them: documents of one chunk and of several."""
    made = [f"{s} {i}" for i in range(4) for s in SENTENCES]
    return made + [" ".join(SENTENCES[i : i + 3]) for i in range(3)]


@dataclass
class Dense:
    """An index and its features as dense matrices: u [chunks, D], owner [chunks], 1 - p."""

    index: hw.Index
    u: np.ndarray
    owner: np.ndarray
    rest: np.ndarray
    queries: np.ndarray

    @property
    def z(self) -> np.ndarray:
        """Sums over chunks, [documents, D]."""
        return self.summed(self.u)

    def summed(self, rows: np.ndarray) -> np.ndarray:
        total = np.zeros((len(self.index), *rows.shape[1:]))
        np.add.at(total, self.owner, rows)
        return total

    def chosen(self, modules: list[str] | None) -> list[slice]:
        return [
            b.part
            for b in self.index.blocks
            if modules is None or any(m.strip("*") in b.name for m in modules)
        ]

    def inverse(self, r: np.ndarray | None = None) -> np.ndarray:
        """(R + c mean eigenvalue)^-1, block-diagonal [D, D]."""
        r = self.u.T @ self.u / len(self.u) if r is None else r
        full = np.zeros((r.shape[0], r.shape[0]))
        for block in self.index.blocks:
            part = r[block.part, block.part]
            values, vectors = np.linalg.eigh(part)
            damped = values + DAMPING * values.mean()
            full[block.part, block.part] = vectors @ np.diag(1 / damped) @ vectors.T
        return full


@cache
def dense(output: str = "loss", storage: str = "float32") -> Dense:
    """A small Llama's index over `texts()`, and the same by hand."""
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=32, overlap=4)
    corpus = hw.Corpus.from_columns(
        {"text": texts()},
        ids=[f"d{i:02d}" for i in range(len(texts()))],
        metadata={"source": [f"s{i % 4}" for i in range(len(texts()))]},
    )
    features = hw.Features(projection=hw.TwoSided(4, 4), output=output, storage=storage)  # type: ignore[arg-type]
    index = hw.Index.build(None, task, corpus, features, hw.Plan(shard_rows=16))
    gradients = Gradients(task, features)
    u, owner, rest = [], [], []
    for number, document in enumerate(corpus.documents()):
        for chunk in task.chunks(document):
            vector, weight = by_hand(gradients, chunk, output)
            u.append(vector)
            owner.append(number)
            rest.append(weight)
    queries = [
        sum(w * by_hand(gradients, chunk, output)[0] for w, chunk in task.query_chunks(query))
        for query in QUERIES
    ]
    made = Dense(index, np.stack(u), np.array(owner), np.array(rest), np.stack(queries))
    assert len(made.u) > len(index)  # some documents are several chunks
    assert len(index.manifest["shards"]) > 1
    return made


def by_hand(gradients: Gradients, chunk: Any, output: str) -> tuple[np.ndarray, float]:
    model = gradients.task.model
    ids = torch.as_tensor(chunk.content["input_ids"]).long()
    labels = torch.as_tensor(chunk.content["labels"])[1:]
    p = model(input_ids=ids[None]).logits[0, :-1].softmax(dim=1)
    p = p[torch.arange(len(ids) - 1), ids[1:]][labels != -100]
    loss = naive_loss(model, chunk) if output == "loss" else -torch.log(p / (1 - p)).sum()
    u = explicit(gradients, brute_force(model, loss))
    return u.numpy(), float((1 - p).mean().detach())


def by_formula(d: Dense, name: str, modules: list[str] | None = None) -> np.ndarray:
    """Scores [queries, documents]."""
    keep = np.zeros(d.u.shape[1])
    for part in d.chosen(modules):
        keep[part] = 1
    z, q, m = d.z * keep, d.queries * keep, d.inverse()
    if name == "graddot":
        return q @ z.T
    if name == "gradcos":
        return (q @ z.T) / np.outer(np.linalg.norm(q, axis=1), np.linalg.norm(z, axis=1))
    if name == "logra":
        return q @ m @ z.T
    if name == "relatif":
        return (q @ m @ z.T) / np.sqrt(np.einsum("ni,ij,nj->n", z, m, z))
    assert name == "trak"
    return d.summed((q @ m @ (d.u * keep).T * d.rest).T).T


def trackstar(d: Dense, r: np.ndarray, modules: list[str] | None = None) -> np.ndarray:
    """R^-1/2 on both sides by eigenvectors, then unit norm."""
    root = np.zeros_like(r)
    for block in d.index.blocks:
        values, vectors = np.linalg.eigh(r[block.part, block.part])
        damped = values + DAMPING * values.mean()
        root[block.part, block.part] = vectors @ np.diag(damped**-0.5) @ vectors.T
    keep = np.zeros(len(r))
    for part in d.chosen(modules):
        keep[part] = 1
    sides = [(x * keep) @ root for x in (d.queries, d.z)]
    q, z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in sides)
    return q @ z.T


def error(found: np.ndarray, right: np.ndarray) -> float:
    assert found.dtype == np.float32
    assert found.shape == right.shape
    return float(np.linalg.norm(found - right) / np.linalg.norm(right))


METHODS: dict[str, tuple[Method, str]] = {
    "graddot": (hw.GradDot(), "loss"),
    "gradcos": (hw.GradCos(), "loss"),
    "logra": (hw.LoGra(DAMPING), "loss"),
    "relatif": (hw.LRelatIF(DAMPING), "loss"),
    "trak": (hw.TRAK(DAMPING), "margin"),
}


@pytest.mark.parametrize("modules", [None, ["*mlp*"], ["*layers.0*q_proj*", "*layers.1.mlp*"]])
@pytest.mark.parametrize("name", METHODS)
def test_methods_equal_their_formulas(name: str, modules: list[str] | None) -> None:
    method, output = METHODS[name]
    d = dense(output)
    found = hw.scores(d.index, QUERIES, method=method, modules=modules)
    patterns = (
        None
        if modules is None
        else [m.replace("layers.0*q", "layers.0.self_attn.q") for m in modules]
    )
    assert error(found, by_formula(d, name, patterns)) < ROWS["float32"]


@pytest.mark.parametrize("storage", ["float16", "int8"])
@pytest.mark.parametrize("name", METHODS)
def test_storage_costs_little(name: str, storage: str) -> None:
    method, output = METHODS[name]
    d = dense(output, storage)
    assert error(hw.scores(d.index, QUERIES, method=method), by_formula(d, name)) < ROWS[storage]


@pytest.mark.parametrize("storage", list(ROWS))
@pytest.mark.parametrize("modules", [None, ["*mlp*"]])
def test_trackstar_with_the_training_hessian(storage: str, modules: list[str] | None) -> None:
    d = dense("loss", storage)
    right = trackstar(d, d.u.T @ d.u / len(d.u), modules)
    found = hw.scores(d.index, QUERIES, method=hw.TrackStar(damping=DAMPING), modules=modules)
    assert error(found, right) < ROWS[storage]
    assert abs(right).max() <= 1 + 1e-9


@pytest.mark.parametrize("mixing", [None, 0.0, 0.3, 1.0])
def test_trackstar_with_a_mixed_hessian(mixing: float | None) -> None:
    d = dense()
    gradients = Gradients(d.index.task, d.index.features)
    e = np.stack(
        [
            sum(w * by_hand(gradients, c, "loss")[0] for w, c in d.index.task.query_chunks(q))
            for q in HELD_OUT
        ]
    )
    train, held = d.u.T @ d.u / len(d.u), e.T @ e / len(e)
    share = mixing
    if share is None:  # the paper's rule, over all blocks' eigenvalues together
        k = min(max(1, round(1000 * len(train) / 65536)), len(train))
        s_train, s_eval = (
            np.sort(
                np.concatenate([np.linalg.eigvalsh(r[b.part, b.part]) for b in d.index.blocks])
            )[::-1]
            for r in (train, held)
        )
        share = s_train[k - 1] / (s_train[k - 1] + s_eval[k - 1])
        assert 0.01 < share < 0.99
    right = trackstar(d, share * held + (1 - share) * train)
    method = hw.TrackStar(HELD_OUT, damping=DAMPING, mixing=mixing)
    assert error(hw.scores(d.index, QUERIES, method=method), right) < ROWS["float32"]
    plain = hw.scores(d.index, QUERIES, method=hw.TrackStar(damping=DAMPING))
    assert (np.abs(plain - right).max() < 1e-4) == (mixing == 0.0)


@pytest.mark.parametrize("name", ["graddot", "logra", "relatif", "trak"])
def test_self_influence_is_the_diagonal(name: str) -> None:
    method, output = METHODS[name]
    d = dense(output)
    z, m = d.z, np.eye(d.u.shape[1]) if name == "graddot" else d.inverse()
    right = np.einsum("ni,ij,nj->n", z, m, z)
    if name == "relatif":
        right = np.sqrt(right)
    if name == "trak":
        right = np.einsum("ni,ij,nj->n", d.summed(d.u * d.rest[:, None]), m, z)
    assert error(hw.self_influence(d.index, method=method), right) < ROWS["float32"]


@pytest.mark.parametrize("method", [hw.GradCos(), hw.TrackStar()])
def test_unit_norm_methods_have_no_self_influence(method: Method) -> None:
    with pytest.raises(InputError, match="is 1 for every example"):
        hw.self_influence(dense().index, method=method)


def test_norms_are_kept_and_do_not_change_the_scores() -> None:
    d = dense()
    method = hw.TrackStar(damping=0.37)
    kept = {p.name for p in (d.index.path / "views").glob("*")}
    first = hw.scores(d.index, QUERIES, method=method)
    assert len(list((d.index.path / "views").glob("*"))) == len(kept) + 1
    assert np.array_equal(hw.scores(d.index, QUERIES, method=method), first)


def test_one_query_scores_as_it_does_among_others() -> None:
    d = dense()
    for method, output in METHODS.values():
        together = hw.scores(dense(output).index, QUERIES, method=method)
        for query, row in zip(QUERIES, together, strict=True):
            alone = hw.scores(dense(output).index, query, method=method)
            assert error(alone, row[None]) < 1e-5
    assert len(d.index) == len(texts())


def test_positive_means_support() -> None:
    """A step down the loss of the best example lowers the query's loss; of the worst, raises it."""
    d = dense()
    task = d.index.task
    query = QUERIES[0]
    scores = hw.scores(d.index, query, method=hw.GradDot())[0]
    ((_, asked),) = task.query_chunks(query)
    before = float(naive_loss(task.model, asked).detach())
    for position, sign in ((int(scores.argmax()), 1), (int(scores.argmin()), -1)):
        model = tiny_llama()
        chunks = d.index.chunks([position])[0]
        gradient = brute_force(model, sum(naive_loss(model, c) for c in chunks))  # type: ignore[arg-type]
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name in d.index.gradients.parameters:
                    parameter -= 1e-4 * gradient[name]
        assert sign * (before - float(naive_loss(model, asked).detach())) > 0
