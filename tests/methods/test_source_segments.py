"""SOURCE: stages with data of their own, the scale in tokens, what it takes as a run, bad input.

The numbers of a stage with data of its own are compared with dense matrices in test_source.py;
here, on a language model, with an index that holds this data alone.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.methods.less import LESS
from headwater.methods.source import SOURCE, Segment, mean_tokens
from headwater.methods.tracin import TracInCP
from headwater.training.loop import labelled, train
from headwater.training.recipe import Recipe
from headwater.training.run import Checkpoint, TrainingRun
from models import byte_tokenizer, tiny_llama
from small_net import rows
from small_run import SmallRun

TEXTS = ["the cat sat; the dog sat. " * 4, "Lima.", "the dog sat and the cat sat; Lima.", "ab"]
NAMES = ["a", "b", "c", "d"]
QUERY = hw.Query("the", " cat")


def relative(found: Any, right: Any) -> float:
    right = np.asarray(right)
    return float(np.abs(np.asarray(found) - right).max() / np.abs(right).max())


# -- stages with data of their own --------------------------------------------------------------


@lru_cache
def language() -> hw.CausalLM:
    return hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=8)


def index_of(some: list[int]) -> hw.Index:
    columns = {"text": [TEXTS[i] for i in some]}
    corpus = hw.Corpus.from_columns(columns, ids=[NAMES[i] for i in some])
    return hw.Index.build(None, language(), corpus, None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> list[Checkpoint]:
    folder = tmp_path_factory.mktemp("lm") / "checkpoint-1"
    language().model.save_pretrained(str(folder))
    return [Checkpoint(folder, 1)]


@pytest.mark.parametrize("scale", ["tokens", 3.0])
@pytest.mark.parametrize("own_loss", [False, True])
def test_a_stage_of_some_examples_is_a_training_on_them(
    place: list[Checkpoint], scale: Any, own_loss: bool
) -> None:
    """Curvature, examples and tokens: those of chunks of several lengths and numbers."""
    whole, alone = index_of([0, 1, 2, 3]), index_of([1, 2])
    counts = [len(mine) for mine in whole.chunks(range(4))]
    assert sum(counts[1:3]) * 2 != sum(counts)
    loss = hw.CausalLM(language().model, byte_tokenizer(), max_length=8) if own_loss else None

    def score(index: hw.Index, ids: Any = None) -> Any:
        segment = Segment(place, 9.0, ids=ids, task=loss)
        return hw.scores(index, QUERY, method=SOURCE([segment], scale=scale, fisher="empirical"))[0]

    found, right, everything = score(whole, ["c", "b"]), score(alone), score(whole)
    assert relative(found[[1, 2]], right) < 1e-5
    assert found[[0, 3]].tolist() == [0.0, 0.0]
    assert relative(everything[[1, 2]], right) > 0.1
    assert np.array_equal(score(whole, NAMES), everything)
    assert np.array_equal(
        score(index_of([0, 1, 2, 3])), everything
    )  # kept factors are not mixed up


def test_one_id_is_one_id(place: list[Checkpoint]) -> None:
    whole = index_of([0, 1, 2, 3])
    one, listed = (
        SOURCE([Segment(place, 1.0, ids=ids)], fisher="empirical") for ids in ("c", {"c"})
    )
    found = hw.scores(whole, QUERY, method=one)[0]
    assert np.array_equal(found, hw.scores(whole, QUERY, method=listed)[0])
    assert (found != 0).tolist() == [False, False, True, False]
    for ids in (["c", "unknown"], ["unknown"]):
        method = SOURCE([Segment(place, 1.0, ids=ids)], fisher="empirical")
        with pytest.raises(InputError, match="not in the index.*unknown"):
            hw.scores(whole, QUERY, method=method)


# -- the scale in tokens ------------------------------------------------------------------------


class Tokens(torch.nn.Module):
    """A model of sequences that is no language model of ours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.table(ids.long()))


def token_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    logits, labels = model(batch["input_ids"])[:, :-1], batch["labels"][:, 1:].long()
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return each.sum(dim=1)


def test_tokens_mean_the_same_to_loop_less_and_source(tmp_path: Path) -> None:
    """A general task of sequences: what the loop divides by is what both methods divide by."""
    ids = np.random.default_rng(0).integers(0, 5, size=(6, 11))
    labels = ids.copy()
    labels[:3, 4:8] = -100
    corpus = hw.Corpus.from_columns({"input_ids": ids, "labels": labels}, ids=list("abcdef"))
    task = hw.Task(Tokens().double(), token_loss)
    recipe = Recipe(steps=2, batch_size=3, learning_rate=0.01)
    run = train(task, corpus, recipe, out=tmp_path, progress=False)
    index = hw.Index.build(None, task, corpus, None)
    chunks = [chunk for mine in index.chunks(range(6)) for chunk in mine]
    assert labelled(task.collate(chunks), 6) == 3 * 6 + 3 * 10
    assert mean_tokens(index, task) == 8.0
    among = np.arange(6) < 3
    assert mean_tokens(index, task, among) == 6.0
    query = hw.Query(columns={"input_ids": ids[0], "labels": ids[0]})

    def score(method: Any) -> Any:
        return hw.scores(index, query, method=method)[0]

    plain = {"fisher": "empirical"}
    assert np.array_equal(score(SOURCE(run, 1, **plain)), score(SOURCE(run, 1, scale=8.0, **plain)))
    by_tokens = score(LESS(run))
    assert np.array_equal(by_tokens[:3], score(LESS(run, scale=6.0))[:3])
    assert np.array_equal(by_tokens[3:], score(LESS(run, scale=10.0))[3:])


def test_a_sample_of_tokens_is_not_the_corpus_in_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short documents first: the first ones say nothing of the others."""
    texts = ["ab"] * 40 + ["the cat sat"] * 40
    corpus = hw.Corpus.from_columns({"text": texts}, ids=[f"d{i}" for i in range(80)])
    index = hw.Index.build(None, language(), corpus, None)
    monkeypatch.setattr("headwater.methods.source.MEASURED", 40)
    counts = [
        int((chunk.content["labels"][1:] != -100).sum())
        for mine in index.chunks(range(80))
        for chunk in mine
    ]
    assert np.mean(counts[:40]) < 0.7 * np.mean(counts)
    assert mean_tokens(index, language()) == pytest.approx(np.mean(counts), rel=0.15)


# -- what is taken as a run, and what is refused ------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[SmallRun, Path]:
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe(steps=8, batch_size=3, schedule="linear", learning_rate=0.02, checkpoints=4)
    return SmallRun(folder, recipe), folder


@pytest.mark.parametrize("kind", [TracInCP, LESS, lambda run: SOURCE(run, 2, fisher="empirical")])
def test_a_run_its_folder_and_its_checkpoints_are_one(trained: Any, kind: Any) -> None:
    small, folder = trained
    query = hw.Query(columns={"x": rows()["x"][0], "y": rows()["y"][0]})
    right = hw.scores(small.index, query, method=kind(small.run))
    for given in (folder, str(folder), list(small.run.checkpoints)):
        assert np.array_equal(hw.scores(small.index, query, method=kind(given)), right)
    with pytest.raises(InputError, match="no training run"):
        kind(3)


def test_the_only_checkpoint_opened_by_its_folder(trained: Any) -> None:
    small, folder = trained
    whole = TrainingRun((small.run.checkpoints[-1],), 8, None, small.run.learning_rates)
    for kind in (TracInCP, LESS):
        assert kind(folder / "checkpoint-8").rates == kind(whole).rates
        assert kind(small.run.checkpoints[-1]).rates == kind(whole).rates
    rate = SOURCE(folder / "checkpoint-8", 1).segments[0].rate
    assert rate == SOURCE(whole, 1).segments[0].rate == pytest.approx(sum(whole.learning_rates))


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf"), None, "words", True])
def test_numbers_out_of_range(trained: Any, number: Any) -> None:
    run = trained[0].run
    with pytest.raises(InputError, match="scale"):
        SOURCE(run, 1, scale=number)
    with pytest.raises(InputError, match="scale"):
        LESS(run, scale=number)
    for kind in (SOURCE, TracInCP, LESS):
        with pytest.raises(InputError, match="eps"):
            kind(run, eps=number)
    if number != 0:
        with pytest.raises(InputError, match="rate of a segment"):
            Segment(run.checkpoints, number)
    if number is not None:
        with pytest.raises(InputError, match="scale"):
            Segment(run.checkpoints, 1.0, scale=number)


def test_numbers_of_numpy(trained: Any) -> None:
    run = trained[0].run
    method = SOURCE(run, np.int64(2), scale=np.float32(2.0), eps=np.float64(1e-6))
    assert len(method.segments) == 2
    assert json.dumps(SOURCE([Segment(run.checkpoints, np.float32(1.0))]).describe())


@pytest.mark.parametrize("wrong", [[], 3, "folder", [1.0], None])
def test_segments_that_are_none(trained: Any, wrong: Any) -> None:
    with pytest.raises(InputError, match="no checkpoint"):
        Segment(wrong, 1.0)
    with pytest.raises(InputError, match="no examples"):
        Segment(trained[0].run.checkpoints, 1.0, ids=[])
    with pytest.raises(InputError, match="segments|cut"):
        SOURCE(trained[0].run, 1.5)  # type: ignore[arg-type]
    segment = Segment(trained[0].run.checkpoints, 1.0)
    with pytest.raises(InputError, match="no training run"):
        SOURCE([segment, trained[0].run.checkpoints[0]])  # type: ignore[list-item]


def test_rates_by_hand_where_nobody_knows_the_steps(trained: Any) -> None:
    small, _ = trained
    silent = TrainingRun((Checkpoint(small.run.checkpoints[-1].path),))
    query = hw.Query(columns={"x": rows()["x"][0], "y": rows()["y"][0]})
    one, two = (TracInCP(silent, rates=[rate]) for rate in (1.0, 2.0))
    found = [hw.scores(small.index, query, method=method) for method in (one, two)]
    assert relative(found[1], 2 * found[0]) < 1e-6
    with pytest.raises(InputError, match="which step"):
        TracInCP(silent)


def test_descriptions_tell_all_that_scores_depend_on(trained: Any) -> None:
    run = trained[0].run
    wanted: dict[Any, dict[str, Any]] = {
        TracInCP(run, optimizer="adam", eps=0.5): {"eps": 0.5, "parameters": "linear"},
        TracInCP(run, parameters=lambda name, module: True): {"parameters": "filter"},
        LESS(run): {"parameters": "linear"},
        SOURCE(run, 2, optimizer="adam", eps=0.5, examples=5, seed=3): {
            "eps": 0.5,
            "examples": 5,
            "seed": 3,
            "fisher": "true",
            "parameters": "linear",
        },
    }
    for method, values in wanted.items():
        told = json.loads(json.dumps(method.describe()))
        assert {key: told[key] for key in values} == values
    some = Segment(run.checkpoints, 1.0, ids={"z4", "z1"}, scale=2.0)
    others = Segment(run.checkpoints, 1.0, ids=[f"z{i}" for i in range(500)])
    told = json.loads(json.dumps(SOURCE([some, others]).describe()))["segments"]
    assert told[0]["ids"] == ["z1", "z4"]
    assert told[0]["scale"] == 2.0
    assert told[1]["ids"]["count"] == 500
    less = Segment(run.checkpoints, 1.0, ids=[f"z{i}" for i in range(1, 501)])
    assert told[1] != less.describe()
