"""DataInf and Arnoldi against dense matrices: every gradient a vector, the Hessian by autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.arnoldi import Arnoldi, lanczos
from headwater.methods.datainf import DataInf, NormSink, SwappedSink
from models import SENTENCES, byte_tokenizer, tiny_gpt2
from small_net import LAYERS, N, loss, matrices, rows, task

CLOSE = 1e-6  # scores are float32


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return hw.Index.build(None, task(), hw.Corpus.from_columns(rows()), None)


def query() -> tuple[Any, Any]:
    asked = rows(9)
    return asked["x"][8], asked["y"][8]


def relative(found: Any, right: Any) -> float:
    right = np.asarray(right)
    return float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())


@pytest.mark.parametrize("damping", [0.1, 3.0])
def test_datainf_is_the_mean_of_inverses(index: hw.Index, damping: float) -> None:
    """sum_l g_q^T mean_i (g_i g_i^T + lambda_l)^-1 g_z, each inverse taken as it stands."""
    x, y = query()
    found = hw.scores(
        index, hw.Query(columns={"x": x, "y": y}), method=DataInf(damping, examples=None)
    )[0]
    t, data = task(), rows()
    held = [matrices(t, a, b) for a, b in zip(data["x"], data["y"], strict=True)]
    asked = matrices(t, x, y)
    right = np.zeros(N)
    for name in LAYERS:
        g = torch.stack([one[name].reshape(-1) for one in held])
        size = g.shape[1]
        lam = damping * float((g**2).sum(dim=1).mean()) / size
        eye = lam * torch.eye(size, dtype=torch.float64)
        mean = torch.stack([torch.linalg.inv(torch.outer(v, v) + eye) for v in g]).mean(dim=0)
        right += (g @ (mean @ asked[name].reshape(-1))).numpy()
    assert relative(found, right) < CLOSE


@pytest.mark.parametrize("sink", [NormSink, SwappedSink])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_datainf_begins_again_where_memory_runs_out(
    index: hw.Index, monkeypatch: pytest.MonkeyPatch, sink: Any, layers: int
) -> None:
    """After some layers of a batch have been added to the sums."""
    x, y = query()
    asked = hw.Query(columns={"x": x, "y": y})
    right = hw.scores(index, asked, method=DataInf())[0]
    original, calls = sink.layer, []

    def layer(self: Any, *args: Any) -> None:
        calls.append(1)
        if len(calls) == layers:
            raise torch.OutOfMemoryError("CUDA out of memory")
        original(self, *args)

    monkeypatch.setattr(sink, "layer", layer)
    found = hw.scores(index, asked, method=DataInf())[0]
    assert len(calls) > layers
    assert relative(found, right) < CLOSE


def dense_hessian() -> torch.Tensor:
    """The mean Hessian of the losses over vec(layers with bias columns), by double autograd."""
    t = task()
    named = dict(t.model.named_parameters())
    names = [n for n in named if n in LAYERS or n.removesuffix("bias") + "weight" in LAYERS]
    data = rows()
    batch = {"x": torch.as_tensor(data["x"]), "y": torch.as_tensor(data["y"])}

    def of(*values: torch.Tensor) -> torch.Tensor:
        called = torch.func.functional_call(
            t.model, dict(zip(names, values, strict=True)), batch["x"]
        )
        return torch.nn.functional.cross_entropy(called, batch["y"])

    blocks = torch.autograd.functional.hessian(of, tuple(named[n] for n in names))
    sizes = [named[n].numel() for n in names]
    whole = torch.cat(
        [
            torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in range(len(names))], dim=1)
            for i in range(len(names))
        ]
    )
    order: list[int] = []  # from torch's order to ours: each weight's rows with their bias
    starts = dict(zip(names, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    for name in LAYERS:
        rows_, columns = named[name].flatten(1).shape
        bias = name.removesuffix("weight") + "bias"
        for r in range(rows_):
            order += [starts[name] + r * columns + c for c in range(columns)]
            order += [starts[bias] + r] if bias in named else []
    return whole[order][:, order]


@pytest.mark.parametrize("kept", [3, 200])
def test_arnoldi_is_the_truncated_pseudo_inverse(index: hw.Index, kept: int) -> None:
    x, y = query()
    method = Arnoldi(kept, iterations=200, examples=None)
    found = hw.scores(index, hw.Query(columns={"x": x, "y": y}), method=method)[0]
    whole = dense_hessian()
    values, vectors = torch.linalg.eigh(whole)
    order = values.abs().argsort(descending=True)[:kept]
    order = order[values[order].abs() > 1e-9 * float(values.abs().max())]
    t, data = task(), rows()

    def flat(a: Any, b: Any) -> torch.Tensor:
        made = matrices(t, a, b)
        return torch.cat([made[name].reshape(-1) for name in LAYERS])

    q = vectors[:, order].T @ flat(x, y) / values[order]
    right = [
        float(q @ (vectors[:, order].T @ flat(a, b)))
        for a, b in zip(data["x"], data["y"], strict=True)
    ]
    assert relative(found, right) < 1e-5


def test_the_hessian_of_a_language_model_with_conv1d() -> None:
    """Against finite differences of the gradient along a direction, attention included."""
    from headwater.gradients.matrices import Layers
    from headwater.methods.arnoldi import hessian

    t = hw.CausalLM(tiny_gpt2(), byte_tokenizer())
    corpus = hw.Corpus.from_documents([{"text": sentence} for sentence in SENTENCES])
    index = hw.Index.build(None, t, corpus, None)
    layers = Layers(t)
    layers.learn(index.chunks([0])[0][0])
    names = ["transformer.h.0.attn.c_attn.weight", "transformer.h.1.mlp.c_proj.weight"]
    sizes = [layers.layers[n].rows * layers.layers[n].columns for n in names]
    v = torch.randn(sum(sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with hessian(index, layers, names, range(len(index))) as product:
        found = product(v)

    def gradient(step: float) -> torch.Tensor:
        at, parts = 0, []
        moved = []
        for name, size in zip(names, sizes, strict=True):
            m = t.model.get_submodule(name.removesuffix(".weight"))
            layer = layers.layers[name]
            along = v[at : at + size].view(layer.rows, layer.columns)
            at += size
            moved.append((m, along))
            with torch.no_grad():
                m.weight += step * along[:, :-1].T
                m.bias += step * along[:, -1]
            m.weight.requires_grad_(True)
            m.bias.requires_grad_(True)
        t.model.eval()
        for p in t.model.parameters():
            p.grad = None
        total = sum(
            t.loss(t.collate([c])).sum() for mine in index.chunks(range(len(index))) for c in mine
        )
        total.backward()
        for m, along in moved:
            parts.append(torch.cat([m.weight.grad.T, m.bias.grad[:, None]], dim=1).reshape(-1))
            with torch.no_grad():
                m.weight -= step * along[:, :-1].T
                m.bias -= step * along[:, -1]
        return torch.cat(parts) / len(SENTENCES)

    h = 1e-5
    right = (gradient(h) - gradient(-h)) / (2 * h)
    assert float((found - right).norm() / right.norm()) < 1e-6


def test_lanczos_finds_the_whole_spectrum_of_a_small_matrix() -> None:
    torch.manual_seed(0)
    m = torch.randn(12, 12, dtype=torch.float64)
    m = m + m.T
    values, vectors = lanczos(lambda v: m @ v, 12, 30, seed=0)
    assert torch.allclose(values, torch.linalg.eigvalsh(m))
    assert torch.allclose(m @ vectors, vectors * values)


def test_an_operator_of_low_rank_ends_early() -> None:
    u = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, vectors = lanczos(lambda v: u @ (u.T @ v), 30, 20, seed=0)
    assert vectors.shape[1] <= 5
    right = torch.linalg.eigvalsh(u.T @ u)
    assert torch.allclose(values.sort().values[-2:], right)


@pytest.mark.parametrize("unit", [1.0, 1e-6, 1e-12, 1e-30])
def test_a_small_matrix_in_a_small_unit_is_not_ended_early(unit: float) -> None:
    torch.manual_seed(0)
    m = torch.randn(12, 12, dtype=torch.float64)
    m = unit * (m + m.T)
    values, vectors = lanczos(lambda v: m @ v, 12, 30, seed=0)
    assert len(values) == 12
    assert float((values - torch.linalg.eigvalsh(m)).abs().max()) < 1e-12 * float(m.abs().max()) * 9
    assert float((m @ vectors - vectors * values).abs().max()) < 1e-9 * float(m.abs().max())


def test_an_operator_of_nothing_ends_at_once() -> None:
    values, vectors = lanczos(torch.zeros_like, 12, 30, seed=0)
    assert vectors.shape == (12, 1)
    assert not values.any()


@pytest.mark.parametrize("unit", [1e-4, 1e-12])
def test_arnoldi_in_another_unit_of_the_loss(index: hw.Index, unit: float) -> None:
    """g H^-1 g is of the first order in the loss."""
    x, y = query()
    asked, method = hw.Query(columns={"x": x, "y": y}), Arnoldi(5, 60, examples=None)
    scaled = hw.Task(task().model, lambda m, b: unit * loss(m, b))
    other = hw.Index.build(None, scaled, hw.Corpus.from_columns(rows()), None)
    right = hw.scores(index, asked, method=method)[0]
    found = hw.scores(other, asked, method=method)[0]
    assert relative(found / unit, right) < CLOSE


@pytest.mark.parametrize("make", [lambda: DataInf(0.0), lambda: Arnoldi(5, 3)])
def test_impossible_parameters_are_told(make: Any) -> None:
    with pytest.raises(InputError):
        make()
