"""EK-FAC's top directions as a projection, against eigenvectors of covariances made by hooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.report.contents import content_rows, contents
from models import relative
from small_net import LAYERS, N, factors_by_hand, matrices, rows, task

CLOSE = 1e-5  # features are float32
SHARE = 0.1


def index(rows_: int, columns: int, fisher: str = "empirical", **options: Any) -> hw.Index:
    corpus = hw.Corpus.from_columns(rows(), ids=[f"z{i}" for i in range(N)])
    projection = hw.TopEigenvectors(rows_, columns, fisher)
    features = hw.Features(projection=projection, storage="float32", **options)
    return hw.Index.build(None, task(), corpus, features)


def query() -> hw.Query:
    asked = rows(9)
    return hw.Query(columns={"x": asked["x"][8], "y": asked["y"][8]})


def weights_only(gradients: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without the columns of biases."""
    model = task().model
    biased = {n: model.get_submodule(m).bias is not None for n, m in LAYERS.items()}
    return {n: g[:, :-1] if biased[n] else g for n, g in gradients.items()}


class Dense:
    """Each layer's eigenbasis, eigenvalues and influence of all directions, or of the top ones."""

    def __init__(self) -> None:
        data = rows()
        self.examples = [
            weights_only(matrices(task(), x, y)) for x, y in zip(data["x"], data["y"], strict=True)
        ]
        asked = rows(9)
        self.query = weights_only(matrices(task(), asked["x"][8], asked["y"][8]))
        self.bases = {}
        for name, (a, s, _) in factors_by_hand([task()]).items():
            width = self.query[name].shape[1]
            _, ua = torch.linalg.eigh(a[:width, :width])
            _, us = torch.linalg.eigh(s)
            turned = torch.stack([us.T @ g[name] @ ua for g in self.examples])
            self.bases[name] = us, ua, (turned**2).mean(dim=0)

    def scores(self, height: int, width: int) -> torch.Tensor:
        total = torch.zeros(N, dtype=torch.float64)
        for name, (us, ua, values) in self.bases.items():
            kept = torch.zeros_like(values)
            some = values.sum(dim=1).argsort(descending=True)[:height]
            others = values.sum(dim=0).argsort(descending=True)[:width]
            kept[some[:, None], others] = 1
            v = kept * (us.T @ self.query[name] @ ua) / (values + SHARE * values.mean())
            total += torch.stack([(v * (us.T @ g[name] @ ua)).sum() for g in self.examples])
        return total


@pytest.mark.parametrize(("height", "width"), [(64, 64), (2, 3), (1, 1)])
@pytest.mark.parametrize("measured", ["sample", "corpus"])
def test_scores_equal_the_dense_ones(height: int, width: int, measured: Any) -> None:
    right = Dense().scores(height, width)
    method = hw.ProjectedEKFAC(measured)
    found = hw.scores(index(height, width), [query()], method=method)
    assert relative(found[0], right) < CLOSE


def test_all_directions_agree_and_few_do_not() -> None:
    whole = index(64, 64).manifest["calibration"]["eigenvectors"]
    few = index(1, 1).manifest["calibration"]["eigenvectors"]
    assert whole["curvature"] == pytest.approx(1, abs=1e-6)
    assert whole["correlation"] == pytest.approx(1, abs=1e-6)
    assert whole["relative_error"] < 1e-5
    assert 0 < few["curvature"] < 1
    assert few["relative_error"] > 0.05


def test_the_agreement_is_that_of_the_scores() -> None:
    """The sample is the whole corpus here, its queries the first examples themselves."""
    dense = Dense()
    found = index(2, 2).manifest["calibration"]["eigenvectors"]
    assert found["examples"] == N
    full, part = [], []
    order = calibration_order()
    for number in order[:4]:
        dense.query = dense.examples[number]
        full.append(dense.scores(64, 64)[order])
        part.append(dense.scores(2, 2)[order])
    error = (torch.stack(part) - torch.stack(full)).norm() / torch.stack(full).norm()
    assert found["relative_error"] == pytest.approx(float(error), rel=1e-6)


def calibration_order() -> list[int]:
    import hashlib

    def key(number: int) -> bytes:
        return hashlib.sha256(f"0|z{number}".encode()).digest()

    return sorted(range(N), key=key)


def test_drawn_labels_are_drawn_alike(tmp_path: Path) -> None:
    one, other = (index(2, 2, "true") for _ in range(2))
    found = [hw.scores(i, [query()], method=hw.ProjectedEKFAC()) for i in (one, other)]
    assert (found[0] == found[1]).all()
    given = hw.scores(index(2, 2), [query()], method=hw.ProjectedEKFAC())
    assert not (found[0] == given).all()


def test_other_views_take_the_same_features() -> None:
    made = index(64, 64)
    dense = Dense()
    right = torch.stack([sum((dense.query[n] * g[n]).sum() for n in g) for g in dense.examples])
    assert relative(hw.scores(made, [query()], method=hw.GradDot())[0], right) < CLOSE


def test_the_agreement_is_shown() -> None:
    made = index(2, 2)
    shown = dict(content_rows(contents(made.path)))
    assert "EK-FAC" in shown["eigenvectors"]
    answer = hw.ask(made, query(), method=hw.ProjectedEKFAC())
    assert any("agree" in note for note in answer.notes)


def test_bad_input_is_told() -> None:
    plain = hw.Index.build(
        None, task(), hw.Corpus.from_columns(rows()), hw.Features(storage="float32")
    )
    with pytest.raises(InputError, match="eigenbasis"):
        hw.scores(plain, [query()], method=hw.ProjectedEKFAC())
    with pytest.raises(InputError, match="plain gradients of linear layers"):
        hw.Features(projection=hw.TopEigenvectors(), second_moment="estimate")
    with pytest.raises(InputError, match="plain gradients of linear layers"):
        hw.Features(projection=hw.TopEigenvectors(), parameters="all")
    with pytest.raises(InputError, match="fisher"):
        hw.TopEigenvectors(fisher="exact")
