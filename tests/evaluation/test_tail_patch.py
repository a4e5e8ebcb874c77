"""Tail patch: against reloading and torch.optim by hand, steps shared, kept, and told."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.metric import Scored
from headwater.evaluation.patches import Patches
from headwater.evaluation.tail_patch import TailPatch
from headwater.training.first_moment import AdamState
from headwater.training.one_step import Step, Stepper
from models import Mlp, class_loss

N, Q = 14, 5
BETAS, RATE = (0.8, 0.95), 0.05


def columns() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(N, 6)), "y": random.integers(0, 5, N)}


def corpus() -> hw.Corpus:
    return hw.Corpus.from_columns(columns(), ids=[f"z{i}" for i in range(N)])


def queries() -> list[hw.Query]:
    random = np.random.default_rng(9)
    return [hw.Query(columns={"x": random.normal(size=6), "y": i % 5}) for i in range(Q)]


def task() -> hw.Task:
    return hw.Task(Mlp(seed=3).double(), class_loss)


def moments() -> AdamState:
    torch.manual_seed(5)
    named = dict(task().model.named_parameters())
    first = {name: 0.1 * torch.randn_like(p).detach() for name, p in named.items()}
    second = {name: 0.1 * torch.rand_like(p).detach() for name, p in named.items()}
    return AdamState(7, BETAS, first, second)


def adam() -> Step:
    return Step(RATE, betas=BETAS, grad_clip=None, state=moments())


def scored(scores: Any, title: str = "M") -> Scored:
    return Scored("m", title, np.asarray(scores, dtype=np.float32))


def by_hand(document: int, query: hw.Query, kind: str) -> tuple[float, float]:
    """P before and after one step, a fresh model and torch's own optimizer each time."""
    model, data = copy.deepcopy(task().model), columns()
    asked = {k: torch.as_tensor(v)[None] for k, v in (query.columns or {}).items()}

    def probability() -> float:
        with torch.no_grad():
            return float(torch.softmax(model(asked["x"])[0], 0)[asked["y"][0]])

    before = probability()
    if kind == "sgd":
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=RATE)
    else:
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=RATE, betas=BETAS, eps=1e-8, weight_decay=0.0
        )
        state = moments()
        for name, p in model.named_parameters():
            optimizer.state[p] = {
                "step": torch.tensor(7.0),
                "exp_avg": state.first[name].clone(),
                "exp_avg_sq": state.second[name].clone(),
            }
    x, y = torch.as_tensor(data["x"][document])[None], torch.as_tensor(data["y"][document])[None]
    class_loss(model, {"x": x, "y": y}).sum().backward()
    optimizer.step()
    return before, probability()


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_figures_are_those_of_the_steps_by_hand(kind: str) -> None:
    step = adam() if kind == "adamw" else Step(RATE, "given", "sgd", grad_clip=None)
    random = np.random.default_rng(2)
    scores = random.normal(size=(Q, N))
    metric = TailPatch(task(), corpus(), step, queries(), 4, random=3)
    figures = metric.measure(scored(scores))
    order = np.argsort(-scores, axis=1)
    pairs = [
        [by_hand(z, q, kind) for z in row[:4]] for q, row in zip(queries(), order, strict=True)
    ]
    points = np.array([[100 * (after - before) for before, after in row] for row in pairs])
    nats = np.array([[np.log(after / before) for before, after in row] for row in pairs])
    for cut in (1, 3, 4):
        for unit, table in (("points", points), ("nats", nats)):
            found = figures[f"tail-patch@{cut} ({unit})"]
            assert isinstance(found, Estimate)
            np.testing.assert_allclose(found.value, table[:, :cut].mean(), rtol=1e-9)
            assert found.low < found.value < found.high
    drawn = metric.describe()["random"]
    control = np.array(
        [
            np.mean([100 * np.subtract(*by_hand(int(z[1:]), q, kind)[::-1]) for z in ids])
            for q, ids in zip(queries(), drawn, strict=True)
        ]
    )
    above = figures["tail-patch@4 less random (points)"]
    assert isinstance(above, Estimate)
    np.testing.assert_allclose(above.value, (points.mean(axis=1) - control).mean(), rtol=1e-9)
    told = metric.controls()["random"]["points"]
    assert isinstance(told, Estimate)
    np.testing.assert_allclose(told.value, control.mean(), rtol=1e-9)
    assert list(figures) == list(metric.columns)
    assert json.dumps(metric.describe())


def test_a_document_is_stepped_on_once_for_all_queries_and_methods() -> None:
    metric = TailPatch(task(), corpus(), adam(), queries(), 2, random=2)
    same = np.zeros((Q, N))
    same[:, 3], same[:, 8] = 2, 1  # every query names the same two
    metric.measure(scored(same))
    drawn = {name for names in metric.describe()["random"] for name in names}
    assert metric.patches.steps == len({"z3", "z8"} | drawn)
    first = metric.patches.steps
    metric.measure(scored(same, "the same again"))
    assert metric.patches.steps == first
    other = np.zeros((Q, N))
    other[:, 3], other[:, 5] = 1, 2
    metric.measure(scored(other))
    new = 0 if "z5" in drawn else 1
    # z3 was asked of all queries before; z5 is new, or was asked of some queries only.
    assert metric.patches.steps == first + (new or 1)


def test_equal_contents_are_one_step() -> None:
    data = columns()
    data["x"][4], data["y"][4] = data["x"][9], data["y"][9]
    twins = hw.Corpus.from_columns(data, ids=[f"z{i}" for i in range(N)])
    documents = list(twins.documents())
    patches = Patches(task(), adam())
    made = patches.after([documents[4], documents[9]], [queries(), queries()])
    assert patches.steps == 1
    assert (made[0] == made[1]).all()


def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    scores = np.random.default_rng(4).normal(size=(Q, N))
    right = TailPatch(task(), corpus(), adam(), queries(), 3).measure(scored(scores))
    taken: list[str] = []
    take = Stepper.after

    @contextmanager
    def dies(self: Stepper, chunks: Any, name: str = "") -> Iterator[None]:
        if len(taken) == 4:
            raise KeyboardInterrupt
        taken.append(name)
        with take(self, chunks, name):
            yield

    monkeypatch.setattr(Stepper, "after", dies)
    first = TailPatch(task(), corpus(), adam(), queries(), 3, cache=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        first.measure(scored(scores))
    monkeypatch.setattr(Stepper, "after", take)
    (file,) = tmp_path.iterdir()
    with file.open("a") as out:
        out.write('{"document": "half a li')  # killed while writing
    again = TailPatch(task(), corpus(), adam(), queries(), 3, cache=tmp_path)
    assert again.measure(scored(scores)) == right
    whole = TailPatch(task(), corpus(), adam(), queries(), 3)
    whole.measure(scored(scores))
    assert again.patches.steps == whole.patches.steps - 4
    third = TailPatch(task(), corpus(), adam(), queries(), 3, cache=tmp_path)
    assert third.measure(scored(scores)) == right
    assert third.patches.steps == 0
    # Another step, or other weights, are other measures.
    other = TailPatch(task(), corpus(), Step(RATE, betas=BETAS), queries(), 3, cache=tmp_path)
    assert other.measure(scored(scores)) != right
    assert other.patches.steps > 0


def test_the_model_is_as_it_was() -> None:
    one = task()
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    metric = TailPatch(one, corpus(), adam(), queries(), 3)
    metric.measure(scored(np.random.default_rng(4).normal(size=(Q, N))))
    wild = TailPatch(one, corpus(), Step(1e200, optimizer="sgd", grad_clip=None), queries(), 3)
    with pytest.raises(NumericError, match="smaller learning rate"):
        wild.measure(scored(np.random.default_rng(4).normal(size=(Q, N))))
    after = one.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_scores_of_the_wrong_sign_are_told_from_right_ones() -> None:
    """Gradients' own inner products foretell a plain step; turned over, its reverse."""
    one = task()
    index = hw.Index.build(
        None, one, corpus(), hw.Features(None, parameters="all", storage="float32")
    )
    scores = hw.scores(index, queries(), method=hw.GradDot())
    step = Step(0.01, "given", "sgd", grad_clip=None)
    metric = TailPatch(one, index, step, queries(), 3, random=N)
    right, wrong = (metric.measure(scored(s)) for s in (scores, -scores))
    good = right["tail-patch@3 less random (nats)"]
    bad = wrong["tail-patch@3 less random (nats)"]
    assert isinstance(good, Estimate)
    assert isinstance(bad, Estimate)
    assert good.low > 0 > bad.high


def test_gold_documents_are_a_control() -> None:
    gold = [["z1", "z2"], ["z3"], [], ["z4"], ["z1"]]
    metric = TailPatch(task(), corpus(), adam(), queries(), 2, gold=gold)
    told = metric.controls()["gold"]["points"]
    hand = [
        np.mean([100 * np.subtract(*by_hand(int(z[1:]), q, "adamw")[::-1]) for z in names])
        for q, names in zip(queries(), gold, strict=True)
        if names
    ]
    assert isinstance(told, Estimate)
    np.testing.assert_allclose(told.value, np.mean(hand), rtol=1e-9)


def test_missing_scores_are_told_and_not_chosen() -> None:
    scores = np.random.default_rng(4).normal(size=(Q, N))
    scores[0] = np.nan
    scores[1, 2:] = np.nan
    metric = TailPatch(task(), corpus(), adam(), queries(), 3)
    figures = metric.measure(scored(scores, "Some"))
    notes = "\n".join(metric.notes())
    assert "Some, query 0: 0 of 3" in notes
    assert "Some, query 1: 2 of 3" in notes
    assert isinstance(figures["tail-patch@3 (points)"], Estimate)
    nothing = metric.measure(scored(np.full((Q, N), np.nan)))
    assert set(nothing.values()) == {"no query could be counted"}
    single = TailPatch(task(), corpus(), adam(), queries()[:1], 3)
    told = single.measure(scored(scores[2:3]))["tail-patch@3 (points)"]
    assert "one query only" in str(told)


def test_bad_input_is_told() -> None:
    def made(**changes: Any) -> TailPatch:
        given: dict[str, Any] = {"queries": queries(), "k": 3} | changes
        return TailPatch(task(), corpus(), adam(), **given)

    contrast = hw.Query(columns={"x": np.ones(6), "y": 1}, instead_of={"y": 2})
    for changes, said in (
        ({"queries": []}, "no query"),
        ({"k": 0}, "k is out of range"),
        ({"k": N + 1}, "k is out of range"),
        ({"random": 0}, "random is out of range"),
        ({"queries": [contrast]}, "contrast"),
        ({"gold": [["z1"]]}, "5 queries"),
        ({"gold": [["nobody"]] * Q}, "not in the corpus"),
    ):
        with pytest.raises(InputError, match=said):
            made(**changes)
    with pytest.raises(InputError, match="do not fit"):
        made().measure(scored(np.zeros((Q, N + 1))))
