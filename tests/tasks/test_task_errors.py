"""What goes wrong inside a person's own loss is told in one line, with the shapes it was given."""

from __future__ import annotations

import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError


def task() -> hw.Task:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    return hw.Task(model, loss=lambda m, b: (m(b["x"]).squeeze(-1) - b["y"]) ** 2)


def index() -> hw.Index:
    rows = {"x": [[1.0, 2.0, 3.0], [2.0, 1.0, 0.5], [0.0, 1.0, 1.0]], "y": [1.0, 0.0, 1.0]}
    return hw.Index.build(None, task(), hw.Corpus.from_columns(rows))


def test_pythons_numbers_are_meant_in_the_models_dtype() -> None:
    scores = hw.scores(index(), hw.Query(columns={"x": [1.0, 2.0, 3.0], "y": 1.0}))
    assert scores.shape == (1, 3)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": [1.0, 2.0], "y": 1.0}, r"x \[1, 2\] float32, y \[1\] float32"),
        ({"x": [1.0, 2.0, 3.0]}, "expected y; found x"),
        ({"x": "abc", "y": 1.0}, "do not stack"),
    ],
)
def test_a_query_of_another_shape_is_told(columns: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        hw.scores(index(), hw.Query(columns=columns))


def test_running_out_of_memory_is_no_mistake_of_the_input() -> None:
    def loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    made = hw.Task(torch.nn.Linear(1, 1), loss=loss)
    with pytest.raises(torch.OutOfMemoryError):
        made.loss({"x": torch.zeros(2, 1)})
