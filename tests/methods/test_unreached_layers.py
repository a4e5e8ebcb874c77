"""Layers that the query, or the examples, do not reach: against dense float64 matrices.

Every gradient is made one example at a time by hooks that keep inputs and output gradients of each
linear layer; a layer that is not reached has zeros.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import NumericError
from headwater.gradients.matrices import Layers
from headwater.methods.corpus_pass import query_matrices
from models import relative

CLOSE = 1e-6  # scores are float32
N, LAM = 6, 0.02

Vectors = dict[str, torch.Tensor]


class Heads(torch.nn.Module):
    """Examples are learnt by one head, queries measured by another."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(3, 3)
        self.learnt, self.asked = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, head: str) -> torch.Tensor:
        return getattr(self, head)(torch.tanh(self.body(x)))


class Adapter(torch.nn.Module):
    """A second matrix of zeros, so that nothing reaches the first."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.base = torch.nn.Linear(3, 2)
        self.down, self.up = torch.nn.Linear(3, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
        torch.nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor, head: str) -> torch.Tensor:
        return self.base(x) + self.up(self.down(x))


def by(head: str) -> Callable[[Any, Any], torch.Tensor]:
    def function(model: Any, batch: Any) -> torch.Tensor:
        out = model(batch["x"], head)
        return torch.nn.functional.cross_entropy(out, batch["y"], reduction="none")

    return function


def body_only(model: Any, batch: Any) -> torch.Tensor:
    return torch.tanh(model.body(batch["x"])).square().sum(dim=1)


def data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(N + 1, 3)), "y": rng.integers(0, 2, size=N + 1)}


class Case:
    """A model, its index and query, and every gradient by hand."""

    def __init__(self, model: torch.nn.Module, measurement: Any) -> None:
        self.model, self.loss, self.measurement = model.double(), by("learnt"), measurement
        self.task = hw.Task(model, self.loss, measurement=measurement)
        rows = {name: values[:N] for name, values in data().items()}
        self.index = hw.Index.build(None, self.task, hw.Corpus.from_columns(rows), None)
        self.query = hw.Query(columns={name: values[N] for name, values in data().items()})
        self.names = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]

    def parts(self, function: Any, row: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """(input with its one, output gradient) of each layer."""
        kept: dict[str, Any] = {}
        handles = []
        for p in self.model.parameters():
            p.requires_grad_(True)
        for name in self.names:

            def hook(m: Any, args: Any, out: Any, name: str = name) -> None:
                out.retain_grad()
                kept[name] = (args[0][0].detach(), out)

            handles.append(self.model.get_submodule(name).register_forward_hook(hook))
        batch = {k: torch.as_tensor(v[row : row + 1]) for k, v in data().items()}
        function(self.model, batch).sum().backward()
        for handle in handles:
            handle.remove()
        made = {}
        for name in self.names:
            m = self.model.get_submodule(name)
            a, out = kept.get(name, (torch.zeros(m.in_features, dtype=torch.float64), None))
            none = out is None or out.grad is None
            d = torch.zeros(m.out_features, dtype=torch.float64) if none else out.grad[0]
            a = a if m.bias is None else torch.cat([a, torch.ones(1, dtype=torch.float64)])
            made[name] = (a, d)
        return made

    def gradient(self, function: Any, row: int) -> Vectors:
        parts = self.parts(function, row).items()
        return {name: torch.outer(d, a).reshape(-1) for name, (a, d) in parts}

    def examples(self) -> Vectors:
        each = [self.gradient(self.loss, row) for row in range(N)]
        return {name: torch.stack([one[name] for one in each]) for name in self.names}

    def asked(self) -> Vectors:
        return self.gradient(self.measurement, N)

    def curvature(self, name: str, corrected: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues and eigenvectors over vec(G)."""
        pairs = [self.parts(self.loss, row)[name] for row in range(N)]
        a, s = (sum(torch.outer(one[i], one[i]) for one in pairs) for i in (0, 1))
        (va, ua), (vs, us) = torch.linalg.eigh(a), torch.linalg.eigh(s)
        u = torch.kron(us, ua)
        if not corrected:
            return torch.kron(vs / N, va / N), u
        return (self.examples()[name] @ u).square().mean(dim=0), u


def other_head() -> Case:
    return Case(Heads(), by("asked"))


def no_head() -> Case:
    return Case(Heads(), body_only)


def adapter() -> Case:
    return Case(Adapter(), by("learnt"))


CASES = pytest.mark.parametrize("make", [other_head, no_head, adapter])
RELATIVE = hw.RelativeDamping(0.1)


def test_every_layer_has_a_gradient_of_the_query() -> None:
    case = no_head()
    found = query_matrices(Layers(case.task), [case.query])
    right = case.asked()
    assert set(found) == {f"{name}.weight" for name in case.names}
    assert not found["learnt.weight"].any()
    assert relative(found["body.weight"].reshape(-1), right["body"]) < CLOSE


@CASES
@pytest.mark.parametrize("damping", [LAM, RELATIVE])
@pytest.mark.parametrize("method", [hw.EKFAC, hw.KFAC])
def test_curvature_of_nothing_is_zero(make: Any, damping: Any, method: Any) -> None:
    case = make()
    g, q = case.examples(), case.asked()
    right, own = torch.zeros(N, dtype=torch.float64), torch.zeros(N, dtype=torch.float64)
    for name in case.names:
        if not g[name].any():  # and so its products, whatever its inverse is
            continue
        values, u = case.curvature(name, method.corrected)
        inverse = 1 / (values + (damping if damping == LAM else 0.1 * values.mean()))
        right += (g[name] @ u * inverse) @ (u.T @ q[name])
        own += ((g[name] @ u).square() * inverse).sum(dim=1)
    used = method("empirical", damping)
    assert relative(hw.scores(case.index, case.query, method=used)[0], right) < CLOSE
    assert relative(hw.self_influence(case.index, method=used), own) < CLOSE


@CASES
def test_refinement_solves_with_all_layers(make: Any) -> None:
    """The Fisher ties layers that the query reaches to those that it does not."""
    case = make()
    g = torch.cat([case.examples()[name] for name in case.names], dim=1)
    q = torch.cat([case.asked()[name] for name in case.names])
    fisher = g.T @ g / N + LAM * torch.eye(g.shape[1], dtype=torch.float64)
    method = hw.EKFAC("empirical", LAM, refine=60)
    found = hw.scores(case.index, case.query, method=method)[0]
    assert max(method.residuals) <= 1e-6
    assert relative(found, g @ torch.linalg.solve(fisher, q)) < 1e-5
    relatively = hw.EKFAC("empirical", RELATIVE, refine=5)
    assert np.isfinite(hw.scores(case.index, case.query, method=relatively)).all()


@CASES
def test_datainf_leaves_out_what_no_example_reaches(make: Any) -> None:
    case = make()
    examples, q = case.examples(), case.asked()
    right = torch.zeros(N, dtype=torch.float64)
    for name, g in examples.items():
        if g.any():
            lam = 0.1 * float(g.square().sum(dim=1).mean()) / g.shape[1]
            eye = lam * torch.eye(g.shape[1], dtype=torch.float64)
            inverses = [torch.linalg.inv(torch.outer(v, v) + eye) for v in g]
            right += g @ (torch.stack(inverses).mean(dim=0) @ q[name])
    found = hw.scores(case.index, case.query, method=hw.DataInf(examples=None))[0]
    assert relative(found, right) < CLOSE


def test_arnoldi_takes_the_hessian_of_all_layers() -> None:
    case = no_head()
    named = [(f"{n}.{k}", p) for n in case.names for k, p in _own(case.model, n)]
    rows = {k: torch.as_tensor(v[:N]) for k, v in data().items()}

    def mean(*values: torch.Tensor) -> torch.Tensor:
        state = dict(zip([name for name, _ in named], values, strict=True))
        out = torch.func.functional_call(case.model, state, (rows["x"], "learnt"))
        return torch.nn.functional.cross_entropy(out, rows["y"])

    blocks = torch.autograd.functional.hessian(mean, tuple(p for _, p in named))
    sizes = [p.numel() for _, p in named]
    count = range(len(sizes))
    whole = torch.cat(
        [torch.cat([blocks[i][j].reshape(sizes[i], sizes[j]) for j in count], dim=1) for i in count]
    )
    values, vectors = torch.linalg.eigh(whole)
    there = values.abs() > 1e-9 * values.abs().max()

    def flat(vector: Vectors) -> torch.Tensor:
        parts = []
        for name in case.names:
            m = case.model.get_submodule(name)
            matrix = vector[name].view(m.out_features, -1)
            parts += [matrix[:, : m.in_features].reshape(-1), matrix[:, m.in_features :].flatten()]
        return torch.cat(parts)

    v = vectors[:, there]
    q = v @ ((v.T @ flat(case.asked())) / values[there])
    right = [float(flat(case.gradient(case.loss, row)) @ q) for row in range(N)]
    method = hw.Arnoldi(100, 100, examples=None)
    assert relative(hw.scores(case.index, case.query, method=method)[0], right) < 1e-5


def _own(model: torch.nn.Module, name: str) -> list[tuple[str, torch.nn.Parameter]]:
    return list(model.get_submodule(name).named_parameters())


def test_no_gradient_anywhere_is_told() -> None:
    """A loss whose gradient is zero for every example."""
    task = hw.Task(Heads().double(), lambda m, b: 0 * by("learnt")(m, b), measurement=body_only)
    rows = {name: values[:N] for name, values in data().items()}
    index = hw.Index.build(None, task, hw.Corpus.from_columns(rows), None)
    query = hw.Query(columns={name: values[N] for name, values in data().items()})
    for method in (hw.EKFAC("empirical"), hw.DataInf()):
        with pytest.raises(NumericError, match="No example of the sample has a gradient"):
            hw.scores(index, query, method=method)
