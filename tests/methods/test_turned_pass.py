"""EK-FAC with examples and queries in the eigenbases, against directions that are turned back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.curvature.turned import TurnedGradient
from headwater.engine.errors import NumericError
from headwater.gradients.matrices import Layers
from headwater.methods import ekfac, turned_pass
from headwater.methods.ekfac import EKFAC, KFAC
from headwater.methods.turned_pass import turned_groups, turning_is_less
from models import SENTENCES, byte_tokenizer, relative, tiny_gpt2, tiny_llama
from small_net import LAYERS, N, dense, matrices, rows, task

CLOSE = 1e-6  # scores are float32
WORDS = [*SENTENCES, "a river runs to the sea", "the cat sat on the mat", "bread and salt"]


def force(monkeypatch: pytest.MonkeyPatch, turned: bool) -> None:
    monkeypatch.setattr(ekfac, "turning_is_less", lambda *_: turned)


def asked() -> list[hw.Query]:
    """Of different lengths; one is a mean, one a contrast, one long, one the same as another."""
    plain = [hw.Query("The capital of Peru is", " Lima"), hw.Query("", WORDS[1])]
    mean = hw.Query.mean([hw.Query("A river", " runs"), plain[0]])
    contrast = hw.Query("The capital of Peru is", " Lima", instead_of=" Quito")
    return [plain[0], mean, plain[1], contrast, hw.Query("", " ".join(WORDS[:2])), plain[0]]


def texts(make: Any) -> hw.Index:
    """Of float64; one document is of two chunks."""
    model = hw.CausalLM(make(), byte_tokenizer(), max_length=64)
    corpus = hw.Corpus.from_columns({"text": [*WORDS, " ".join(WORDS)]})
    return hw.Index.build(None, model, corpus, None)


@pytest.mark.parametrize("method", [EKFAC, KFAC])
def test_scores_equal_the_dense_matrix(method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of convolutions and layers used twice, in float64, entry by entry."""
    force(monkeypatch, turned=True)
    t, data, other = task(), rows(), rows(9)
    built = hw.Index.build(None, t, hw.Corpus.from_columns(data), None)
    inverse = dense([t], lambda v: 1 / (v + 0.1 * v.mean()), corrected=method is EKFAC)
    queries = [hw.Query(columns={"x": other["x"][i], "y": other["y"][i]}) for i in (7, 8)]
    found = hw.scores(built, queries, method=method("empirical"))
    right = np.zeros((2, N))
    for q, i in enumerate((7, 8)):
        gq = matrices(t, other["x"][i], other["y"][i])
        for z in range(N):
            gz = matrices(t, data["x"][z], data["y"][z])
            right[q, z] = sum(
                float(gq[n].reshape(-1) @ inverse[n] @ gz[n].reshape(-1)) for n in LAYERS
            )
    assert np.abs(found - right).max() / np.abs(right).max() < CLOSE


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("budget", [40, 4096])
def test_both_ways_are_the_same(make: Any, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.methods.corpus_pass.CPU_BUDGET", budget)
    built = texts(make)
    method = EKFAC("empirical", damping=1e-3)
    force(monkeypatch, turned=False)
    right = hw.scores(built, asked(), method=method)
    force(monkeypatch, turned=True)
    assert relative(hw.scores(built, asked(), method=method), right) < CLOSE


def test_queries_in_groups_and_few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    built = texts(tiny_llama)
    method = EKFAC("empirical", damping=1e-3)
    force(monkeypatch, turned=True)
    right = hw.scores(built, asked(), method=method)
    layers = Layers(built.task)
    assert len(turned_groups(layers, asked())) == 1
    monkeypatch.setattr(turned_pass, "DIRECTION_BYTES", 3 * 8 * layers.size)
    groups = turned_groups(layers, asked())
    assert len(groups) > 1
    assert [i for g in groups for i in range(g.start, g.stop)] == list(range(len(asked())))
    assert relative(hw.scores(built, asked(), method=method), right) < CLOSE
    among = np.zeros(len(built), dtype=bool)
    among[[1, 3]] = True
    ((_, some),) = list(method.stream(built, asked(), among=among))
    assert relative(some[:, among], right[:, among]) < CLOSE
    assert np.isnan(some[:, ~among]).all()


def test_long_queries_are_held_as_matrices() -> None:
    """The factors of t tokens are t (m + n) numbers: as a matrix from m n / (m + n) tokens on."""
    generator = torch.Generator().manual_seed(0)

    def pair(tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        drawn = torch.randn(tokens, 20, generator=generator, dtype=torch.float64)
        return drawn[:, :12], drawn[:, 12:]

    held = TurnedGradient(12, 8)
    out = torch.full((12, 8), float("nan"), dtype=torch.float64)  # what was there before
    held.write(out)
    assert not bool(out.any())
    right = torch.zeros(12, 8, dtype=torch.float64)
    for tokens in (2, 2, 3, 1):
        d, a = pair(tokens)
        held.add_factors(d, a)
        right += d.T @ a
        held.write(out)
        assert relative(out, right) < 1e-12
        numbers = sum(d.numel() + a.numel() for d, a in held.factors)
        numbers += 0 if held.matrix is None else held.matrix.numel()
        assert numbers <= 12 * 8 + 20  # and one token more
    assert held.matrix is not None


def test_the_cheaper_way_is_taken() -> None:
    """Many queries, or a short corpus: turned; one query on a long corpus: turned back."""
    built = texts(tiny_llama)
    layers = Layers(built.task)
    one = [hw.Query("", "ab")]
    built.manifest["corpus"]["tokens"] = 10
    assert turning_is_less(built, layers, one * 50)
    built.manifest["corpus"]["tokens"] = 10_000_000
    assert not turning_is_less(built, layers, one)


def test_a_query_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    force(monkeypatch, turned=True)
    data, other = rows(), rows(3)
    built = hw.Index.build(None, task(), hw.Corpus.from_columns(data), None)
    other["x"][1] = float("nan")
    queries = [hw.Query(columns={"x": other["x"][i], "y": other["y"][i], "n": i}) for i in range(3)]
    with pytest.raises(NumericError, match="query columns x, y, n"):
        hw.scores(built, queries, method=EKFAC("empirical"))


class Tied(torch.nn.Module):
    """A weight used twice, the first time on an input that another layer has, too."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.shared = shared
        self.other, self.first, self.again = (torch.nn.Linear(6, 6, bias=False) for _ in range(3))
        self.again.weight = self.first.weight
        self.head = torch.nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        own = x if self.shared else x.clone()
        return self.head(torch.tanh(self.again(torch.tanh(self.other(x) + self.first(own)))))


@pytest.mark.parametrize("turned", [False, True])
def test_a_weight_used_twice_shares_no_input(turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradient is of several inputs: the basis of one that it shares is not its own."""
    force(monkeypatch, turned)
    drawn = np.random.default_rng(1)
    data = {"x": drawn.normal(size=(12, 6)) * np.arange(1, 7), "y": drawn.integers(0, 4, size=12)}
    queries = [hw.Query(columns={"x": data["x"][i] + 0.3, "y": data["y"][i]}) for i in range(3)]

    def loss(model: Any, batch: Any) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")

    found = [
        hw.scores(
            hw.Index.build(
                None,
                hw.Task(Tied(shared=shared).double(), loss),
                hw.Corpus.from_columns(data),
                None,
            ),
            queries,
            method=EKFAC("empirical", damping=1e-3),
        )
        for shared in (True, False)
    ]
    assert relative(found[0], found[1]) < CLOSE
