"""MAGIC's scores are what training again says, document by document, with the promised sign."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import headwater as hw
from headwater.engine.errors import InputError, MismatchError
from headwater.methods.magic import MAGIC, MAGICOfRun
from headwater.tasks.task import Task
from headwater.training.loop import save_model, train
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun
from headwater.training.small_lm import small_lm
from models import relative

RECIPE = Recipe(
    steps=12, batch_size=4, learning_rate=0.02, schedule="linear", weight_decay=0.1, dropout=False
)
TEXTS = ["Lima is in Peru and Peru has Lima", "Oslo is in Norway", "Quito", "the sea is blue"]
STEP = 1e-6


def weighted_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    hidden = torch.tanh(model(batch["x"]))
    return batch["weight"] * (hidden.sum(-1) - batch["y"]) ** 2


def columns(count: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(count, 3)), "y": rng.normal(size=count), "weight": np.ones(count)}


def net() -> Task:
    torch.manual_seed(0)
    return Task(nn.Linear(3, 2).double(), weighted_loss)


def corpus(given: dict[str, Any]) -> hw.Corpus:
    count = len(given["y"])
    return hw.Corpus.from_columns(given, ids=[f"n{i}" for i in range(count)])


def query(seed: int) -> hw.Query:
    given = columns(1, seed)
    return hw.Query(columns={name: values[0] for name, values in given.items()})


QUERIES = [query(5), query(6), hw.Query.mean([query(7), query(8)])]


@cache
def index() -> hw.Index:
    return hw.Index.build(None, net(), corpus(columns(10)), features=None)


def trained(given: dict[str, Any]) -> nn.Module:
    """The model that the loop itself makes of these columns."""
    task = net()
    train(task, corpus(given), RECIPE, progress=False)
    return task.model


def loss_of(model: nn.Module, asked: dict[str, Any]) -> float:
    with torch.no_grad():
        return float(weighted_loss(model, {n: torch.tensor(v) for n, v in asked.items()}))


def measured(given: dict[str, Any]) -> np.ndarray:
    """The queries' losses after that training."""
    model = trained(given)
    one, two, three, four = (loss_of(model, columns(1, seed)) for seed in (5, 6, 7, 8))
    return np.array([one, two, (three + four) / 2])


def test_scores_are_minus_what_training_again_says() -> None:
    """The weights are a column of the data here, so that the loop itself gives the differences."""
    right = np.zeros((3, 10))
    for i in range(10):
        ends: list[np.ndarray] = []
        for sign in (1, -1):
            given = columns(10)
            given["weight"][i] += sign * STEP
            ends.append(measured(given))
        right[:, i] = -(ends[0] - ends[1]) / (2 * STEP)
    found = hw.scores(index(), QUERIES, method=MAGIC(RECIPE))
    assert relative(found, right) < 1e-6
    for i in range(10):
        assert relative(found[:, i], right[:, i]) < 1e-4


def test_without_a_proponent_the_loss_rises() -> None:
    """The query itself is among the examples, and so is its contradiction."""
    given = columns(10)
    asked = columns(1, 5)
    for name in ("x", "y"):
        given[name][:2] = asked[name][0]
    given["y"][0], given["y"][1] = 1.0, -1.0
    asked["y"][0] = 1.0
    built = hw.Index.build(None, net(), corpus(given), features=None)
    one = hw.Query(columns={name: values[0] for name, values in asked.items()})
    (found,) = hw.scores(built, one, method=MAGIC(RECIPE))
    whole = loss_of(trained(given), asked)
    for i, sign in ((0, 1), (1, -1)):
        without = given | {"weight": np.where(np.arange(10) == i, 0.0, 1.0)}
        assert np.sign(loss_of(trained(without), asked) - whole) == sign
        assert np.sign(found[i]) == sign


def test_queries_share_a_replay() -> None:
    together = hw.scores(index(), QUERIES, method=MAGIC(RECIPE))
    for row, one in zip(together, QUERIES, strict=True):
        alone = hw.scores(index(), one, method=MAGIC(RECIPE, segment=5))[0]
        assert relative(row, alone) < 1e-6


def test_some_documents_and_groups() -> None:
    whole = hw.scores(index(), QUERIES, method=MAGIC(RECIPE))
    some = hw.scores(index(), QUERIES, method=MAGIC(RECIPE), ids=["n3", "n7"])
    assert (some[:, [3, 7]] == whole[:, [3, 7]]).all()
    assert np.isnan(np.delete(some, [3, 7], axis=1)).all()
    ranked = hw.rank(index(), QUERIES[0], method=MAGIC(RECIPE))
    assert ranked[0].name == f"n{whole[0].argmax()}"


def test_an_index_of_a_part_of_the_training() -> None:
    whole = hw.scores(index(), QUERIES, method=MAGIC(RECIPE))
    picked = [7, 2, 3]
    part = {name: values[picked] for name, values in columns(10).items()}
    names = [f"n{i}" for i in picked]
    small = hw.Index.build(None, net(), hw.Corpus.from_columns(part, ids=names), features=None)
    method = MAGIC(RECIPE, corpus(columns(10)))
    assert relative(hw.scores(small, QUERIES, method=method), whole[:, picked]) < 1e-7
    with pytest.raises(InputError, match="not in the corpus"):
        hw.scores(index(), QUERIES, method=MAGIC(RECIPE, corpus(columns(9))))


# -- the initial weights --------------------------------------------------------------------


def state(task: Task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def test_initial_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    right = hw.scores(index(), QUERIES, method=MAGIC(RECIPE))
    task = net()
    before = state(task)
    save_model(task.model, tmp_path)
    built = hw.Index.build(None, task, corpus(columns(10)), features=None)
    train(task, corpus(columns(10)), RECIPE, progress=False)
    after = state(task)
    with caplog.at_level(logging.INFO, logger="headwater"):
        for initial in (before, tmp_path, str(tmp_path)):
            found = hw.scores(built, QUERIES, method=MAGIC(RECIPE, initial=initial))
            assert relative(found, right) < 1e-7
            assert all(torch.equal(value, after[name]) for name, value in state(task).items())
    assert "GB" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    other = Recipe(**(RECIPE.to_json() | {"seed": 1}))
    hw.scores(built, QUERIES, method=MAGIC(other, initial=before))
    assert "does not end at the task's weights" in caplog.text
    present = hw.scores(built, QUERIES, method=MAGIC(RECIPE))  # from the trained ones
    assert relative(present, right) > 0.1


def test_initial_weights_that_cannot_be() -> None:
    task = net()
    built = hw.Index.build(None, task, corpus(columns(10)), features=None)
    with pytest.raises(InputError, match="own tensors"):
        hw.scores(built, QUERIES, method=MAGIC(RECIPE, initial=task.model.state_dict()))
    for wrong in ({}, {"weight": torch.ones(1), "bias": torch.ones(2)}):
        with pytest.raises(MismatchError, match="do not fit"):
            hw.scores(built, QUERIES, method=MAGIC(RECIPE, initial=wrong))


def test_the_model_is_as_it_was_after_an_error() -> None:
    task = net()
    built = hw.Index.build(None, task, corpus(columns(10)), features=None)
    task.model.train()
    own, initial = state(task), {name: 2 * value for name, value in state(task).items()}
    with pytest.raises(InputError, match="expected weight"):
        hw.scores(built, hw.Query(columns={"x": [0.0] * 3}), method=MAGIC(RECIPE, initial=initial))
    assert all(torch.equal(value, own[name]) for name, value in state(task).items())
    assert task.model.training
    assert all(p.requires_grad for p in task.model.parameters())


# -- language models ------------------------------------------------------------------------


def test_documents_of_several_chunks() -> None:
    """A document counts with the sum over its chunks; the contrast with the difference."""
    model, tokenizer = small_lm(TEXTS, vocab=300, width=8, heads=2, max_length=12)
    task = hw.CausalLM(model.double(), tokenizer)
    documents = [{"id": f"d{i}", "text": text} for i, text in enumerate(TEXTS)]
    built = hw.Index.build(None, task, hw.Corpus.from_documents(documents), features=None)
    pieces = built.chunks(range(4))
    assert max(map(len, pieces)) > 1
    both = hw.Query("Lima is in", " Peru", instead_of=" Norway")
    queries = [hw.Query("Lima is in", " Peru"), hw.Query("Lima is in", " Norway"), both]
    found = hw.scores(built, queries, method=MAGIC(RECIPE))
    assert relative(found[0] - found[1], found[2]) < 1e-5
    cut = [
        {"id": f"{i}-{j}", "input_ids": piece.content["input_ids"].tolist()}
        for i, many in enumerate(pieces)
        for j, piece in enumerate(many)
    ]
    apart = hw.Index.build(None, task, hw.Corpus.from_documents(cut), features=None)
    parts = hw.scores(apart, queries, method=MAGIC(RECIPE))
    owner = [int(name.split("-")[0]) for name in apart.ids]
    for i in range(4):
        rows = [j for j, mine in enumerate(owner) if mine == i]
        assert relative(parts[:, rows].sum(axis=1), found[:, i]) < 1e-5


# -- what it says of itself -----------------------------------------------------------------


def test_description_and_refusals() -> None:
    record = MAGIC(RECIPE, initial=Path("there"), eps_root=1e-8).describe()
    assert json.loads(json.dumps(record))["recipe"]["steps"] == 12
    assert record["initial"] == "there"
    assert MAGIC.additive
    with pytest.raises(InputError, match="modules"):
        hw.scores(index(), QUERIES, method=MAGIC(RECIPE), modules=["*"])
    for wrong in (0, 1.5, "2"):
        with pytest.raises(InputError, match="segment"):
            MAGIC(RECIPE, segment=wrong)  # type: ignore[arg-type]
    for root in (-1e-8, float("nan"), None):
        with pytest.raises(InputError, match="eps_root"):
            MAGIC(RECIPE, eps_root=root)  # type: ignore[arg-type]
    for recipe in ("recipe.json", None, RECIPE.to_json()):
        with pytest.raises(InputError, match="by its recipe"):
            MAGIC(recipe)  # type: ignore[arg-type]


def test_a_run_of_the_loop_or_its_folder(tmp_path: Path) -> None:
    before, task = tmp_path / "before", net()
    before.mkdir()
    save_model(task.model, before)
    given = corpus(columns(10))
    run = train(task, given, RECIPE, out=tmp_path / "run", progress=False)
    right = hw.scores(index(), QUERIES[0], method=MAGIC(RECIPE, initial=before))
    for one in (run, tmp_path / "run", TrainingRun((), run.steps, run.recipe)):
        assert np.array_equal(hw.scores(index(), QUERIES[0], method=MAGICOfRun(one, before)), right)
    with pytest.raises(InputError, match="does not say its recipe"):
        MAGICOfRun(tmp_path / "run" / "checkpoint-12", before)
