"""EK-FAC and K-FAC against dense matrices built example by example, all in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.curvature.damping import AbsoluteDamping, RelativeDamping, ScheduleDamping
from headwater.curvature.kronecker import LayerCurvature, Side, decompose
from headwater.curvature.sides import (
    Covariance,
    block_slices,
    eigenbasis,
    lower_triangle,
    panel_rows,
    rotate,
    rotate_back,
)
from headwater.curvature.turned import Eigenbases, EigenvalueSink
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress, watching
from headwater.gradients.matrices import Layer, Layers
from headwater.index.factors import Fit, fit_factors
from headwater.methods.ekfac import EKFAC, KFAC
from models import SENTENCES, byte_tokenizer, tiny_gpt2, tiny_llama
from small_net import LAYERS, N, Net, loss, matrices, rows, task
from small_net import dense as dense_matrices

EXACT = 1e-9


@pytest.fixture(scope="module")
def index() -> hw.Index:
    return hw.Index.build(None, task(), hw.Corpus.from_columns(rows()), None)


@pytest.mark.parametrize(("method", "corrected"), [(EKFAC, True), (KFAC, False)])
def test_scores_equal_the_dense_matrix(index: hw.Index, method: Any, corrected: bool) -> None:
    t = task()
    inverse = dense_matrices([t], lambda v: 1 / (v + 0.1 * v.mean()), corrected=corrected)
    data, asked = rows(), rows(9)
    queries = [hw.Query(columns={"x": asked["x"][i], "y": asked["y"][i]}) for i in (7, 8)]
    found = hw.scores(index, queries, method=method(fisher="empirical"))
    right = np.zeros((2, N))
    for q, i in enumerate((7, 8)):
        gq = matrices(t, asked["x"][i], asked["y"][i])
        for z in range(N):
            gz = matrices(t, data["x"][z], data["y"][z])
            right[q, z] = sum(
                float(gq[n].reshape(-1) @ inverse[n] @ gz[n].reshape(-1)) for n in LAYERS
            )
    assert np.abs(found - right).max() / np.abs(right).max() < 1e-6  # scores are float32


def test_eigenvalues_are_the_mean_square_in_the_basis(index: hw.Index) -> None:
    layers = Layers(index.task)
    made = fit_factors(index, layers, Fit("empirical"))
    gradients = [matrices(task(), x, y) for x, y in zip(*rows().values(), strict=True)]
    for name, factor in made.items():
        right = torch.stack([factor.turn(g[name]) for g in gradients]).square().mean(dim=0)
        assert float((factor.values - right).norm() / right.norm()) < EXACT
        g = gradients[0][name]
        assert float((factor.turn_back(factor.turn(g)) - g).norm() / g.norm()) < EXACT


def test_the_true_fisher_draws_labels_and_nothing_else(index: hw.Index) -> None:
    """Over many seeds the drawn second moment comes to the model's own expectation."""
    t, data = task(), rows()
    layers = Layers(index.task)
    right: dict[str, Any] = dict.fromkeys(LAYERS, 0.0)
    with torch.no_grad():
        p = torch.softmax(t.model(torch.as_tensor(data["x"])), dim=1)
    for z in range(N):
        for label in range(4):
            g = matrices(t, data["x"][z], np.int64(label))
            for name in LAYERS:
                right[name] = right[name] + p[z, label] * g[name].square().sum() / N
    drawn: dict[str, list[float]] = {name: [] for name in LAYERS}
    for seed in range(60):
        made = fit_factors(index, layers, Fit("true", seed=seed))
        for name in LAYERS:  # the trace does not depend on the basis
            drawn[name].append(float(made[name].values.sum()))
    for name in LAYERS:
        mean, error = np.mean(drawn[name]), np.std(drawn[name]) / 60**0.5
        assert abs(mean - float(right[name])) < 4 * error
        assert np.std(drawn[name]) > 0
    again = fit_factors(index, layers, Fit("true", seed=3))
    assert float(again["head.weight"].values.sum()) == drawn["head.weight"][3]


def test_a_task_that_cannot_draw_says_so(index: hw.Index) -> None:
    plain = hw.Task(Net().double(), loss)
    other = hw.Index.build(None, plain, hw.Corpus.from_columns(rows()), None)
    query = hw.Query(columns={"x": rows()["x"][0], "y": 1})
    with pytest.raises(InputError, match="fisher='empirical'"):
        hw.scores(other, query, method=EKFAC())


def test_batches_do_not_matter(index: hw.Index, monkeypatch: pytest.MonkeyPatch) -> None:
    query = hw.Query(columns={"x": rows(9)["x"][8], "y": 1})
    found = hw.scores(index, query, method=EKFAC())
    for budget in (1, 3):
        monkeypatch.setattr("headwater.index.passes.CPU_BUDGET", budget)
        again = hw.scores(index, query, method=EKFAC())
        assert np.abs(again - found).max() / np.abs(found).max() < 1e-6


@pytest.mark.parametrize("queries", [1, 5])
def test_groups_of_queries_do_not_matter(
    index: hw.Index, monkeypatch: pytest.MonkeyPatch, queries: int
) -> None:
    data = rows(9)
    asked = [hw.Query(columns={"x": data["x"][i], "y": data["y"][i]}) for i in range(queries)]
    found = hw.scores(index, asked, method=EKFAC())
    monkeypatch.setattr("headwater.methods.corpus_pass.DIRECTION_BYTES", 1)
    again = hw.scores(index, asked, method=EKFAC())
    assert np.abs(again - found).max() / np.abs(found).max() < 1e-6


def test_wide_sides_go_by_blocks() -> None:
    assert block_slices(10, 4) == [slice(0, 3), slice(3, 6), slice(6, 10)]
    assert block_slices(4, 4) == [slice(0, 4)]
    torch.manual_seed(0)
    x = torch.randn(50, 5, dtype=torch.float64)
    parts = [x[:, :2].T @ x[:, :2], x[:, 2:].T @ x[:, 2:]]
    vectors, values = eigenbasis("here", parts, torch.float64)
    turned = rotate(x, vectors)
    assert torch.allclose((turned**2).sum(dim=0), values)
    assert torch.allclose(rotate_back(turned, vectors), x)


@pytest.mark.parametrize("width", [5, 128, 129, 300])
def test_a_lower_triangle_is_enough(width: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(40, width, dtype=torch.float64)
    sums = Covariance(width, 160, torch.float64, "cpu")
    for part in x.split(15):
        sums.add(part)
    panels = iter(sums.panels)
    assert sums.count == 40
    for block in sums.blocks:
        right = x[:, block].T @ x[:, block]
        size = len(right)
        found = lower_triangle([next(panels) for _ in panel_rows(size)])
        assert torch.allclose(found.tril(), right.tril())
        (vectors,), values = eigenbasis("here", [found], torch.float64)
        assert torch.allclose((vectors * values) @ vectors.T, right)
    assert not list(panels)


@pytest.mark.parametrize("tokens", [1, 6, 8, 10, 20, 40])
@pytest.mark.parametrize("widest", [3, 100])
def test_each_order_of_turning_gives_the_same(tokens: int, widest: int) -> None:
    """Against the definition, with two layers on one input and tokens on each side of the sizes."""
    torch.manual_seed(tokens)
    batch, columns, rows_of = 3, 7, {"a": 5, "b": 9}

    def basis(width: int) -> list[torch.Tensor]:
        sizes = [one.stop - one.start for one in block_slices(width, widest)]
        return [torch.linalg.qr(torch.randn(n, n, dtype=torch.float64))[0] for n in sizes]

    inn = basis(columns)
    bases = Eigenbases({name: basis(n) for name, n in rows_of.items()}, dict.fromkeys("ab", inn))
    layers = {name: Layer(name, n, columns, None) for name, n in rows_of.items()}
    a = torch.randn(batch, tokens, columns, dtype=torch.float64)
    d = {n: torch.randn(batch, tokens, size, dtype=torch.float64) for n, size in rows_of.items()}
    sink = EigenvalueSink(layers, bases)
    for _ in range(2):
        kept = sink.joint(["a", "b"], a)
        for name, layer in layers.items():
            sink.layer(layer, kept, d[name])
    for name, total in sink.total.items():
        u, w = torch.block_diag(*bases.out[name]), torch.block_diag(*inn)
        built = torch.bmm(d[name].transpose(1, 2), a)
        right = 2 * ((u.T @ built @ w) ** 2).sum(dim=0)
        assert float((total - right).norm() / right.norm()) < EXACT
        factor = LayerCurvature(bases.out[name], inn, total)
        g = torch.randn(2, 3, *total.shape, dtype=torch.float64)
        assert torch.allclose(factor.turn(g), u.T @ g @ w)
        assert torch.allclose(factor.turn_back(g), u @ g @ w.T)
        assert torch.allclose(factor.apply(g, torch.sqrt), u @ ((u.T @ g @ w) * total**0.5) @ w.T)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_covariance_that_is_not_finite_names_its_layer(value: float) -> None:
    with pytest.raises(NumericError, match="input of model.layers.3"):
        eigenbasis("the input of model.layers.3", [torch.tensor([[value]])], torch.float32)


def test_damping() -> None:
    assert RelativeDamping(0.5).of(4.0) == 2.0
    assert AbsoluteDamping(3.0).of(4.0) == 3.0
    assert ScheduleDamping([0.1, 0.3], scale=2.0).of(9.0) == pytest.approx(5.0)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="0 or more"):
            RelativeDamping(bad)
    with pytest.raises(InputError, match="rates"):
        ScheduleDamping([])


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_padding_does_not_count(make: Any, fisher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentences of different lengths in one batch, and one at a time: the same factors."""
    corpus = hw.Corpus.from_documents([{"text": sentence} for sentence in SENTENCES])
    index = hw.Index.build(None, hw.CausalLM(make(), byte_tokenizer()), corpus, None)
    found: list[Any] = []
    for budget in (1, 10_000):
        monkeypatch.setattr("headwater.index.passes.CPU_BUDGET", budget)
        found.append(fit_factors(index, Layers(index.task), Fit(fisher, corrected=False)))
        found.append(fit_factors(index, Layers(index.task), Fit(fisher)))
    for alone, together in ((found[0], found[2]), (found[1], found[3])):
        for name, factor in alone.items():
            a, b = factor.values.sum(), together[name].values.sum()
            assert abs(float(a - b)) < 1e-9 * float(a)


def test_a_language_models_scores_equal_the_dense_matrix() -> None:
    """Conv1D layers with biases, the whole way from text; the gradient by ordinary autograd."""
    corpus = hw.Corpus.from_documents([{"text": sentence} for sentence in SENTENCES])
    t = hw.CausalLM(tiny_gpt2(), byte_tokenizer())
    index = hw.Index.build(None, t, corpus, None)
    query = hw.Query("The capital of Peru is", " Lima")
    found = hw.scores(index, query, method=EKFAC(fisher="empirical", damping=0.5))[0]
    name = "transformer.h.1.mlp.c_proj.weight"
    factor = fit_factors(index, Layers(t), Fit("empirical"))
    total = np.zeros(len(SENTENCES))
    chunks = [mine[0] for mine in index.chunks(range(len(index)))]
    ((_, asked),) = t.query_chunks(query)
    for layer, held in factor.items():
        module = t.model.get_submodule(layer.removesuffix(".weight"))

        def own(chunk: Any, module: Any = module) -> torch.Tensor:
            for p in module.parameters():
                p.requires_grad_(True)
                p.grad = None
            t.model.eval()
            t.loss(t.collate([chunk])).sum().backward()
            return torch.cat([module.weight.grad.T, module.bias.grad[:, None]], dim=1)

        v = held.turn_back(held.turn(own(asked)) / (held.values + 0.5))
        total += np.array([float((v * own(chunk)).sum()) for chunk in chunks])
    assert name in factor
    assert np.abs(found - total).max() / np.abs(total).max() < 1e-6


def test_factors_are_kept_and_fitted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    t = hw.CausalLM(tiny_gpt2(), byte_tokenizer())
    corpus = hw.Corpus.from_documents([{"text": sentence} for sentence in SENTENCES])
    index = hw.Index.build(tmp_path / "index", t, corpus, None)
    query = hw.Query("The capital of Peru is", " Lima")
    first = hw.scores(index, query, method=EKFAC())
    (kept,) = (tmp_path / "index" / "curvature").glob("*/factors/values.safetensors")

    def never(*_: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr("headwater.index.kept_factors.fit_factors", never)
    again = hw.Index.open(tmp_path / "index", t)
    assert (hw.scores(again, query, method=EKFAC()) == first).all()
    with pytest.raises(AssertionError, match="fitted again"):  # another fit is another store
        hw.scores(again, query, method=EKFAC(seed=1))
    with torch.no_grad():
        next(t.model.parameters()).add_(0.1)
    with pytest.raises(AssertionError, match="fitted again"):  # and so are other weights
        hw.scores(index, query, method=EKFAC())
    assert kept.exists()


def test_decompositions_tell_who_watches() -> None:
    """Though they are computed in threads of their own: else a job there could not be cancelled."""
    seen: list[int] = []

    def block() -> Iterator[torch.Tensor]:
        yield torch.eye(8, dtype=torch.float64)

    sides = {f"s{i}": Side(f"s{i}", 8, block, torch.float32) for i in range(5)}
    with watching(lambda progress: seen.append(progress.done)):
        made = decompose(sides)
    assert set(made) == set(sides)
    assert max(seen) == 5

    def stop(_: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), watching(stop):
        decompose(sides)
