"""A net of a few hundred parameters with its layers' gradients and curvature, built by hand.

Shared by the tests of methods in full dimension: every matrix here is dense, float64, and made one
example at a time through ordinary autograd.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import headwater as hw

N = 7


class Net(torch.nn.Module):
    """A convolution with a bias, a layer used twice, and a head without one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(1, 2, 2, stride=2, padding=1)
        self.twice = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(6, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.conv(x)).flatten(2)[..., :3]  # [batch, 2, 3]: two rows an example
        h = torch.tanh(self.twice(torch.tanh(self.twice(h))))
        return self.head(h.flatten(1))


def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def sample(model: torch.nn.Module, batch: Any, generator: torch.Generator) -> Any:
    p = torch.softmax(model(batch["x"]), dim=1)
    return {**batch, "y": torch.multinomial(p, 1, generator=generator)[:, 0]}


def task() -> hw.Task:
    return hw.Task(Net().double(), loss, sample=sample)


def rows(n: int = N) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(n, 1, 4, 4)), "y": rng.integers(0, 4, size=n)}


LAYERS = {"conv.weight": "conv", "twice.weight": "twice", "head.weight": "head"}


def matrices(t: hw.Task, x: Any, y: Any) -> dict[str, torch.Tensor]:
    """The gradient of one example by autograd: [out, in + bias] of each layer."""
    model = t.model
    for p in model.parameters():
        p.requires_grad_(True)
    model.zero_grad()
    batch = {"x": torch.as_tensor(x)[None], "y": torch.as_tensor(y)[None]}
    loss(model, batch).sum().backward()
    made: dict[str, torch.Tensor] = {}
    for name, module in LAYERS.items():
        layer = model.get_submodule(module)
        g = layer.weight.grad.flatten(1)
        if layer.bias is not None:
            g = torch.cat([g, layer.bias.grad[:, None]], dim=1)
        made[name] = g.clone()
    return made


def factors_by_hand(
    tasks: list[hw.Task], data: dict[str, Any] | None = None
) -> dict[str, tuple[torch.Tensor, torch.Tensor, int]]:
    """A, S (sums over positions, calls and models) and how many, by hooks that keep all."""
    sums: dict[str, list[Any]] = {name: [0.0, 0.0, 0] for name in LAYERS}
    data = data or rows()
    for t in tasks:
        for x, y in zip(data["x"], data["y"], strict=True):
            for name, a, d in _positions(t, x, y):
                sums[name][0] = sums[name][0] + a.T @ a
                sums[name][1] = sums[name][1] + d.T @ d
                sums[name][2] += len(a)
    return {name: (a, s, n) for name, (a, s, n) in sums.items()}


def _positions(t: hw.Task, x: Any, y: Any) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(layer, inputs with ones, output gradients) of each call, a row for each position."""
    kept: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    handles: list[Any] = []
    for name, module in LAYERS.items():

        def hook(m: Any, args: Any, out: Any, name: str = name) -> None:
            a = args[0]
            if isinstance(m, torch.nn.Conv2d):
                a = torch.nn.functional.unfold(a, 2, padding=1, stride=2).transpose(1, 2)
            out.retain_grad()
            kept.append((name, a.detach(), out))

        handles.append(t.model.get_submodule(module).register_forward_hook(hook))
    loss(t.model, {"x": torch.as_tensor(x)[None], "y": torch.as_tensor(y)[None]}).backward()
    for handle in handles:
        handle.remove()
    made: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    for name, a, out in kept:
        d = out.grad
        if d.dim() == 4:
            d = d.flatten(2).transpose(1, 2)
        a, d = a.reshape(-1, a.shape[-1]), d.reshape(-1, d.shape[-1])
        if t.model.get_submodule(LAYERS[name]).bias is not None:
            a = torch.cat([a, torch.ones(len(a), 1, dtype=a.dtype)], dim=1)
        made.append((name, a, d))
    return made


def dense(
    tasks: list[hw.Task],
    function: Any,
    *,
    corrected: bool = True,
    data: dict[str, Any] | None = None,
) -> dict[str, torch.Tensor]:
    """f(curvature) of each layer as one matrix over vec(G), row by row; means over the models.

    `function` takes the eigenvalues (EK-FAC's, or K-FAC's where not `corrected`); `data` are the
    examples whose curvature it is, all of them when left out.
    """
    data = data or rows()
    gradients = [matrices(t, x, y) for t in tasks for x, y in zip(*data.values(), strict=True)]
    made: dict[str, torch.Tensor] = {}
    for name, (a, s, count) in factors_by_hand(tasks, data).items():
        va, ua = torch.linalg.eigh(a)
        vs, us = torch.linalg.eigh(s)
        u = torch.kron(us, ua)  # columns: eigenvectors of S kron A over vec(G)
        if corrected:
            turned = torch.stack([u.T @ g[name].reshape(-1) for g in gradients])
            values = (turned**2).mean(dim=0)
        else:
            values = torch.kron(vs / len(gradients), va / count)
        made[name] = u @ torch.diag(function(values)) @ u.T
    return made
