"""R and its inverse against dense algebra; merging; what cannot be inverted is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.curvature import autocorrelation
from headwater.curvature.autocorrelation import Autocorrelation, inverse, pooled_spectrum
from headwater.engine.errors import InputError, NumericError
from headwater.gradients.layout import Block
from models import relative

BLOCKS = (Block("a", 0, 2, 2), Block("b", 4, 3, 1))


def features(n: int, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(n, 7) * torch.tensor([1, 5, 0.1, 2, 3, 0.5, 1])


def test_means_merging_and_storage() -> None:
    u = features(700)
    whole = Autocorrelation(BLOCKS)
    whole.add(u)
    for block, matrix in zip(BLOCKS, whole.means(), strict=True):
        part = u[:, block.part].double()
        assert matrix is not None
        assert matrix.dtype == torch.float64
        assert relative(matrix, part.T @ part / 700) < 1e-6
    first, second = Autocorrelation(BLOCKS), Autocorrelation(BLOCKS)
    first.add(u[:256])
    second.add(u[256:])
    first.merge(Autocorrelation.from_tensors(BLOCKS, second.tensors()))
    assert first.count == 700
    for a, b in zip(first.means(), whole.means(), strict=True):
        assert torch.equal(a, b)  # type: ignore[arg-type]


def test_inverse_against_dense_algebra() -> None:
    r = Autocorrelation(BLOCKS)
    r.add(features(50))
    made = inverse(["a", "b"], r.means(), 0.1)
    v = features(3, seed=1)
    for block, matrix, whitener in zip(BLOCKS, r.means(), made.whiteners(), strict=True):
        assert matrix is not None
        damped = matrix + 0.1 * matrix.trace() / len(matrix) * torch.eye(block.size).double()
        part = v[:, block.part].double()
        right = part @ torch.linalg.inv(damped)
        assert relative(made.apply(BLOCKS, v)[:, block.part], right) < 1e-10
        norms = (part * right).sum(dim=1)
        assert relative((part @ whitener.T).square().sum(dim=1), norms) < 1e-10


def test_digest_tells_matrices_and_damping_apart() -> None:
    means = [torch.eye(2, dtype=torch.float64)]
    base = inverse(["a"], means, 0.1).digest
    assert inverse(["a"], [means[0].clone()], 0.1).digest == base
    assert inverse(["a"], means, 0.2).digest != base
    assert inverse(["a"], [2 * means[0]], 0.1).digest != base


def test_spectrum_pools_all_blocks() -> None:
    matrices = [torch.diag(torch.tensor([3.0, 1.0])), None, torch.diag(torch.tensor([2.0, -1e-9]))]
    assert pooled_spectrum(matrices).tolist() == [3, 2, 1, 0]


def test_a_block_without_gradient_stays_zero() -> None:
    made = inverse(["a"], [torch.zeros(3, 3, dtype=torch.float64)], 0.1)
    found = made.apply([Block("a", 0, 3, 1)], torch.zeros(1, 3))
    assert not found.any()


@pytest.mark.parametrize("damping", [-0.1, float("nan"), float("inf")])
def test_a_damping_that_is_no_such_number_is_refused(damping: float) -> None:
    with pytest.raises(InputError, match="0 or more"):
        inverse(["a"], [torch.eye(2, dtype=torch.float64)], damping)


@pytest.mark.parametrize(
    ("matrix", "damping", "match"),
    [
        (None, 0.1, "too wide"),
        (torch.full((2, 2), float("nan"), dtype=torch.float64), 0.1, "not finite"),
        (torch.ones(2, 2, dtype=torch.float64), 0.0, "singular"),
    ],
)
def test_what_cannot_be_inverted(matrix: torch.Tensor | None, damping: float, match: str) -> None:
    with pytest.raises(NumericError, match=match) as error:
        inverse(["layer 3"], [matrix], damping)
    assert "layer 3" in str(error.value)
    assert "\n" not in str(error.value)


def test_wide_blocks_are_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autocorrelation, "WIDEST", 3)
    r = Autocorrelation(BLOCKS)
    r.add(features(9))
    assert r.means()[0] is None
    assert r.means()[1] is not None
    back = Autocorrelation.from_tensors(BLOCKS, r.tensors())
    assert back.sums[0] is None
    assert np.isfinite(pooled_spectrum(back.means())).all()
