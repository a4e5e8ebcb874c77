"""EK-FAC beyond its scores: self-influence, refinement, directions held in less memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.ekfac import EKFAC
from models import byte_tokenizer, relative, tiny_llama
from small_net import LAYERS, N, dense, matrices, rows, task

CLOSE = 1e-6  # scores are float32
DAMPING = 0.02


def index() -> hw.Index:
    corpus = hw.Corpus.from_columns(rows(), ids=[f"z{i}" for i in range(N)])
    return hw.Index.build(None, task(), corpus, None)


def queries() -> list[hw.Query]:
    asked = rows(10)
    return [hw.Query(columns={"x": asked["x"][i], "y": asked["y"][i]}) for i in (7, 8, 9)]


def flat(x: Any, y: Any) -> torch.Tensor:
    """A gradient of all layers as one vector."""
    made = matrices(task(), x, y)
    return torch.cat([made[name].reshape(-1) for name in LAYERS])


def examples() -> torch.Tensor:
    data = rows()
    return torch.stack([flat(x, y) for x, y in zip(data["x"], data["y"], strict=True)])


def asked() -> torch.Tensor:
    data = rows(10)
    return torch.stack([flat(data["x"][i], data["y"][i]) for i in (7, 8, 9)])


def block(inverses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.block_diag(*(inverses[name] for name in LAYERS))


def test_self_influence_is_the_diagonal() -> None:
    inverse = block(dense([task()], lambda values: 1 / (values + DAMPING)))
    g = examples()
    found = hw.self_influence(index(), method=EKFAC("empirical", DAMPING))
    assert relative(found, (g @ inverse * g).sum(dim=1)) < CLOSE


def test_a_document_of_several_chunks_has_the_sum_of_their_gradients() -> None:
    model = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=12)
    texts = ["a long text of several windows, for there is much to say", "short", "and short"]
    built = hw.Index.build(None, model, hw.Corpus.from_columns({"text": texts}), None)
    assert len(built.chunks([0])[0]) > 1
    method = EKFAC("empirical", 1e-3)
    layers = method.layers(built)
    factors = method.factors(built, layers)
    from headwater.gradients.matrices import SumSink

    right = []
    for mine in built.chunks(range(3)):
        total: dict[str, Any] = {}
        for chunk in mine:
            sink = SumSink(layers.layers, torch.ones(1))
            layers.run(sink, [chunk])
            total = {n: total.get(n, 0) + g for n, g in sink.total.items()}
        right.append(
            sum(
                float((g * factors[n].apply(g[None], lambda v: 1 / (v + 1e-3))[0]).sum())
                for n, g in total.items()
            )
        )
    assert relative(hw.self_influence(built, method=method), torch.tensor(right)) < 1e-5


def test_refined_directions_solve_with_the_fisher_of_all_layers() -> None:
    g, q = examples(), asked()
    fisher = g.T @ g / N + DAMPING * torch.eye(g.shape[1], dtype=torch.float64)
    right = torch.linalg.solve(fisher, q.T).T @ g.T
    plain = EKFAC("empirical", DAMPING)
    method = EKFAC("empirical", DAMPING, refine=40)
    built = index()
    found = hw.scores(built, queries(), method=method)
    assert max(method.residuals) <= 1e-6
    assert relative(found, right) < 1e-5
    assert relative(hw.scores(built, queries(), method=plain), right) > 0.01
    assert method.describe()["refine"] == 40


def test_each_step_of_refinement_comes_nearer() -> None:
    built, errors = index(), []
    g, q = examples(), asked()
    fisher = g.T @ g / N + DAMPING * torch.eye(g.shape[1], dtype=torch.float64)
    right = torch.linalg.solve(fisher, q.T).T @ g.T
    for steps in (0, 2, 4, 6):
        method = EKFAC("empirical", DAMPING, refine=steps)
        errors.append(relative(hw.scores(built, queries(), method=method), right))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 10


def test_the_drawn_labels_of_a_refinement_are_those_of_the_fit() -> None:
    """With so much damping that F hardly counts, and with none of it drawn anew, nothing moves."""
    built = index()
    one, two = (
        hw.scores(built, queries(), method=EKFAC("true", DAMPING, refine=3)) for _ in range(2)
    )
    assert (one == two).all()
    great = hw.scores(built, queries(), method=EKFAC("true", 1e6, refine=3))
    assert relative(great * 1e6, asked() @ examples().T) < 1e-4


@pytest.mark.parametrize(("form", "close"), [("int8", 0.02), ("rank1", 1.0), ("rank9", 1e-6)])
def test_directions_in_less_memory(form: str, close: float) -> None:
    """The small net's sides are at most 9 wide; scores against directions rounded by hand."""
    built = index()
    exact = hw.scores(built, queries(), method=EKFAC("empirical", DAMPING))
    found = hw.scores(built, queries(), method=EKFAC("empirical", DAMPING, hold=form))
    assert relative(found, exact) < close
    inverses = dense([task()], lambda values: 1 / (values + DAMPING))
    right = torch.zeros(3, N, dtype=torch.float64)
    data, ask = rows(), rows(10)
    gradients = [matrices(task(), x, y) for x, y in zip(data["x"], data["y"], strict=True)]
    for row, i in enumerate((7, 8, 9)):
        for name, g in matrices(task(), ask["x"][i], ask["y"][i]).items():
            v = by_hand((inverses[name] @ g.reshape(-1)).view(g.shape), form)
            right[row] += torch.stack([(v * one[name]).sum() for one in gradients])
    assert relative(found, right) < CLOSE


def by_hand(v: torch.Tensor, form: str) -> torch.Tensor:
    if form == "int8":
        scale = v.abs().amax(dim=1, keepdim=True) / 127
        return (v / scale).round() * scale
    rank = int(form[4:])
    if rank * sum(v.shape) >= v.numel():
        return v
    u, s, w = torch.linalg.svd(v)
    return (u[:, :rank] * s[:rank]) @ w[:rank]


@pytest.mark.parametrize("form", ["full", "int8", "rank1"])
def test_queries_in_groups_score_as_together(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import headwater.methods.corpus_pass as module

    built = index()
    method = EKFAC("empirical", DAMPING, hold=form)
    together = hw.scores(built, queries(), method=method)
    monkeypatch.setattr(module, "DIRECTION_BYTES", 1)
    np.testing.assert_allclose(hw.scores(built, queries(), method=method), together, rtol=1e-5)


def test_residuals_are_of_every_query(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last scoring alone, also where the queries went in groups."""
    import headwater.methods.corpus_pass as module

    built = index()
    method = EKFAC("empirical", DAMPING, refine=2)
    hw.scores(built, queries(), method=method)
    together = method.residuals
    assert len(together) == 3
    monkeypatch.setattr(module, "DIRECTION_BYTES", 1)
    hw.scores(built, queries(), method=method)
    assert relative(torch.tensor(method.residuals), torch.tensor(together)) < 1e-6


def test_bad_input_is_told() -> None:
    with pytest.raises(InputError, match="form of directions"):
        EKFAC(hold="rank0")
    with pytest.raises(InputError, match="refine is not usable"):
        EKFAC(refine=-1)
    with pytest.raises(InputError, match="no self-influence"):
        hw.self_influence(index(), method=hw.DataInf())
