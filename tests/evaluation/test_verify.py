"""verify: verdicts on trainings whose outcome is known, and a real one against training by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evaluation.bank import Trial
from headwater.evaluation.trainers import FunctionTrainer
from headwater.evaluation.verification import Patched, Verification, percent, permutation_p
from headwater.evidence.random_scores import digest
from headwater.methods.method import Method, Scores
from headwater.training.loop import save_model, train
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun
from models import Mlp, byte_tokenizer, class_loss, tiny_llama

PLACES = ["Peru", "Chile", "Kenya", "Japan", "Norway", "Ghana", "Cuba", "Egypt"]
CITIES = ["Lima", "Santiago", "Nairobi", "Tokyo", "Oslo", "Accra", "Havana", "Cairo"]
QUERY = hw.Query("The capital of Peru is", " Lima")


def rows() -> list[dict[str, Any]]:
    """Two sentences a place; of the first one a copy that differs in its spaces only."""
    made = [
        {"id": f"{place}-{i}", "text": pattern.format(p=place, c=city), "source": place}
        for place, city in zip(PLACES, CITIES, strict=True)
        for i, pattern in enumerate(("The capital of {p} is {c}.", "{c} lies in {p}."))
    ]
    made.append({"id": "again", "text": " The capital of Peru  is Lima. ", "source": "copy"})
    return [*made, {"id": "shout", "text": "The capital of Peru is Lima. Lima.", "source": "copy"}]


@pytest.fixture(scope="module")
def index() -> hw.Index:
    torch.set_num_threads(1)
    task = hw.CausalLM(tiny_llama(dtype=torch.float32), byte_tokenizer(), max_length=40)
    features = hw.Features(projection=hw.TwoSided(4, 4), storage="float32")
    return hw.Index.build(None, task, hw.Corpus.from_documents(rows()), features)


class Known(Method):
    """Scores that were written down."""

    name, title, unit, additive, needs = "known", "Known", "points", True, "nothing"

    def __init__(self, **by_id: float) -> None:
        self.by_id = {name.replace("_", "-"): value for name, value in by_id.items()}

    def stream(self, index: Any, queries: Any, modules: Any = None, among: Any = None) -> Scores:
        yield 0, np.array([[self.by_id.get(name, 0.0) for name in index.ids]], dtype=np.float32)


class Stub:
    """A training whose outcome is a function of what is left out and of the seed."""

    def __init__(self, index: hw.Index, outcome: Any, query: hw.Query = QUERY) -> None:
        self.ids, self.outcome, self.query = index.ids, outcome, query
        self.documents = len(index)
        self.calls: list[Trial] = []

    def describe(self) -> dict[str, Any]:
        return {"stub": id(self)}

    def asked(self) -> list[str]:
        return [digest(self.query)[:16]]

    def losses(self, trial: Trial) -> list[float]:
        self.calls.append(trial)
        return [-math.log(self.outcome({self.ids[p] for p in trial.left_out}, trial.seed))]


FOUND = {"Peru_0": 2.0, "again": 2.0, "Chile_1": 1.0}
GONE = {"Peru-0", "again", "Chile-1"}


def test(index: hw.Index, outcome: Any, tmp_path: Path, **options: Any) -> Verification:
    given: dict[str, Any] = {"method": Known(**FOUND), "top": 2, "random": 3} | options
    return hw.verify(index, QUERY, trainer=Stub(index, outcome), workers=1, cache=tmp_path, **given)


test.__test__ = False  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("outcome", "seeds", "confirmed", "said"),
    [
        (
            lambda out, seed: 0.975 if not out else 1e-4 if "Peru-0" in out else 0.956,
            1,
            True,
            "Without the 3 found, P falls from 97.5 % to 0.01 %; without 3 random ones it stays at "
            "95.6 %: these examples are behind it; leaving out as many by shared words costs it as "
            "much.",
        ),
        (
            lambda out, seed: 0.975 if not out else 1e-4 if "Chile-1" in out else 0.956,
            1,
            True,
            "it stays at 95.6 %: these examples are behind it.",  # those that share words are not
        ),
        (
            lambda out, seed: 0.9 if not out else 0.8 if "Peru-0" in out else 0.88,
            1,
            False,
            "Without the 3 found, P falls from 90.0 % to 80.0 %; without 3 random ones it stays at "
            "88.0 %, which does not differ clearly from random: not confirmed.",
        ),
        (
            lambda out, seed: 0.9 if not out else 0.95 if "Peru-0" in out else 0.9,
            1,
            False,
            "P stays at 95.0 % (90.0 % with all); without 3 random ones it stays at 90.0 %",
        ),
        (
            lambda out, seed: 0.3 if not out else 0.01 if "Peru-0" in out else 0.05,
            1,
            None,
            "hardly holds it",
        ),
        (
            lambda out, seed: 0.9 if not out else 0.05 if "Peru-0" in out else 0.02,
            1,
            None,
            "leaving anything out costs the answer",
        ),
        (
            lambda out, seed: 0.9 if not out or seed == 1 else 0.01 if "Peru-0" in out else 0.9,
            3,
            None,
            "clearly so with 2 of 3 seeds only: undecided",
        ),
        (
            lambda out, seed: 0.9 if not out else 0.001 * 2**seed if "Peru-0" in out else 0.9,
            3,
            True,
            "falls from 90.0 % to 0.2 %",  # the geometric mean
        ),
    ],
)
def test_the_verdict_says_what_the_trainings_show(
    index: hw.Index, outcome: Any, seeds: int, confirmed: Any, said: str, tmp_path: Path
) -> None:
    made = test(index, outcome, tmp_path, seeds=seeds, tail_patch=False)
    assert said in made.verdict
    assert made.confirmed is confirmed
    assert any("one seed" in note for note in made.notes) == (seeds == 1)
    told = made.to_dict()
    assert json.dumps(told)
    for one, record in zip(made.retrained, told["retrained"], strict=True):
        mean = math.prod(map(math.exp, one.log_p)) ** (1 / seeds)
        assert abs(record["probability"] / mean - 1) < 1e-9
    assert told["verdict"] == made.verdict
    assert made.verdict in repr(made)


def test_what_is_left_out(index: hw.Index, tmp_path: Path) -> None:
    """The copies too; as many at random, others for every seed; equal subsets once."""
    stub = Stub(index, lambda out, seed: 0.5)
    made = hw.verify(
        index,
        QUERY,
        method=Known(**FOUND),
        top=2,
        trainer=stub,
        seeds=2,
        workers=1,
        cache=tmp_path,
        random=3,
    )
    assert [one.name for one in made.retrained] == ["all", "found", "random", "lexical"]
    whole, found, random, lexical = made.retrained
    assert whole.left_out == [[], []]
    assert [set(ids) for ids in found.left_out] == [GONE, GONE]
    assert all(len(ids) == 3 and not GONE & set(ids) for ids in random.left_out)
    assert set(random.left_out[0]) != set(random.left_out[1])
    assert {"Peru-0", "again"} <= set(lexical.left_out[0])  # the same words
    assert len(stub.calls) == 8
    assert made.found[0]["duplicates"] == ["again"]
    (texts,) = (one for one in made.patched if one.name == "found")
    assert texts.ids == ["Peru-0", "Chile-1"]  # a copy is no step of its own
    assert not {"Peru-0", "Chile-1", "again"} & set(made.patched[1].ids)
    again = Stub(index, lambda out, seed: 0.5)
    again.describe = stub.describe  # type: ignore[method-assign]
    hw.verify(index, QUERY, method=Known(**FOUND), top=2, trainer=again, workers=1, cache=tmp_path)
    assert not again.calls  # kept


def test_the_tail_patch_stands_alone_and_says_that_it_is_local(
    index: hw.Index, tmp_path: Path
) -> None:
    """A step on the sentence itself moves its own words more than other sentences do."""
    query = hw.Query("The capital of Peru is", " Lima.")
    before = {name: value.clone() for name, value in index.task.model.state_dict().items()}
    method = Known(Peru_0=2.0)
    made = hw.verify(
        index, query, method=method, top=1, random=16, cache=tmp_path, learning_rate=0.05
    )
    assert made.p_value is None  # 1 of 1 + 15 is never below 0.05
    assert "too few to tell" in made.verdict
    assert made.confirmed is None
    named = hw.verify(index, query, method="bm25", top=1, cache=tmp_path)
    assert [one.name for one in named.patched] == ["found", "random"]  # it is the lexical one
    both = Known(Peru_0=2.0, again=2.0, shout=1.0)
    made = hw.verify(index, query, method=both, top=2, cache=tmp_path, learning_rate=0.05)
    assert made.verdict == made.patch_verdict
    assert "plain SGD, learning rate 0.05 (given)" in (made.step or "")
    assert any("local" in note for note in made.notes)
    assert any("not retrained" in note for note in made.notes)
    first, second = made.patched[0], made.patched[1]
    assert first.mean_nats > max(second.nats)
    assert made.confirmed is True
    away = {name.replace("-", "_"): 1.0 for name in ("Norway-1", "Ghana-1")}
    wrong = hw.verify(index, query, method=Known(**away), top=2, cache=tmp_path, learning_rate=0.05)
    assert wrong.confirmed is False
    assert "not confirmed" in wrong.verdict
    after = index.task.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_whole_group(index: hw.Index, tmp_path: Path) -> None:
    outcome = lambda out, seed: 0.9 if "Peru-1" not in out else 0.001  # noqa: E731
    made = test(index, outcome, tmp_path, group=("source", "Peru"))
    assert made.verdict.startswith("Without the 2 of source Peru, P falls from 90.0 % to 0.1 %;")
    assert made.confirmed is True
    assert made.found == []
    assert [one.name for one in made.patched] == ["found", "random"]
    assert set(made.patched[0].ids) == {"Peru-0", "Peru-1"}
    assert [len(one.left_out[0]) for one in made.retrained] == [0, 2, 2]
    assert "of the group" in (made.patch_verdict or "")


COLUMNS = 16


def columns() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {"x": random.normal(size=(COLUMNS, 6)), "y": random.integers(0, 5, COLUMNS)}


def test_a_run_is_trained_again_as_by_hand(tmp_path: Path) -> None:
    """From the weights before it, by its recipe and its seed, without what was found."""
    recipe = Recipe(
        epochs=3, batch_size=4, learning_rate=0.05, schedule="linear", seed=5, dropout=False
    )
    corpus = hw.Corpus.from_columns(columns(), ids=[f"z{i}" for i in range(COLUMNS)])
    task = hw.Task(Mlp(seed=2).double(), class_loss)
    (tmp_path / "base").mkdir()
    save_model(task.model, tmp_path / "base")
    train(task, corpus, recipe, out=tmp_path / "run", progress=False)
    index = hw.Index.build(None, task, corpus, hw.Features(None, parameters="all"))
    query = hw.Query(columns={"x": columns()["x"][3] + 0.1, "y": int(columns()["y"][3])})
    run = TrainingRun.open(tmp_path / "run")
    made = hw.verify(
        index,
        query,
        method=hw.GradDot(),
        top=3,
        run=run,
        base=tmp_path / "base",
        seeds=2,
        workers=1,
    )
    assert "AdamW with the moments of step 12" in (made.step or "")
    assert "the run's last" in (made.step or "")
    assert not any("not quite what trained it" in note for note in made.notes)
    assert made.seeds == [5, 6]
    assert [one.name for one in made.retrained] == ["all", "found", "random"]  # no texts: no BM25
    for one in made.retrained:
        for seed, ids, log_p in zip(made.seeds, one.left_out, one.log_p, strict=True):
            other = hw.Task(Mlp(seed=2).double(), class_loss)
            kept = corpus.select(without=ids)
            train(other, kept, replace(recipe, seed=seed), progress=False)
            batch = {k: torch.as_tensor(v)[None] for k, v in (query.columns or {}).items()}
            with torch.no_grad():
                right = -float(class_loss(other.model, batch)[0])
            assert abs(log_p / right - 1) < 1e-9
    np.testing.assert_allclose(math.exp(made.retrained[0].log_p[0]), made.probability, rtol=1e-9)
    assert (index.path / "verify" / "bank").is_dir()
    # A recipe that is not the one is told.
    wrong = TrainingRun(run.checkpoints, run.steps, replace(recipe, epochs=40), run.learning_rates)
    told = hw.verify(
        index, query, method=hw.GradDot(), top=3, run=wrong, base=tmp_path / "base", workers=1
    )
    assert any("not quite what trained it" in note for note in told.notes)


def test_a_function_of_the_users(tmp_path: Path) -> None:
    corpus = hw.Corpus.from_columns(columns(), ids=[f"z{i}" for i in range(COLUMNS)])
    task = hw.Task(Mlp(seed=2).double(), class_loss)
    index = hw.Index.build(None, task, corpus, hw.Features(None, parameters="all"))
    query = hw.Query(columns={"x": columns()["x"][3], "y": 1})

    def retrain(ids: list[str], seed: int) -> torch.nn.Module:
        other = hw.Task(Mlp(seed=2).double(), class_loss)
        train(other, corpus.select(ids=ids), Recipe(steps=3, seed=seed), progress=False)
        return other.model

    trainer = FunctionTrainer(retrain, task, index.ids, [query], "mine")
    made = hw.verify(index, query, method=hw.GradDot(), top=2, trainer=trainer, workers=1)
    assert made.retrained[0].says == []
    assert len(made.retrained) == 3


def test_bad_input_is_told(index: hw.Index, tmp_path: Path) -> None:
    contrast = hw.Query("The capital of Peru is", " Lima", " Oslo")
    other = Stub(index, lambda out, seed: 0.5, hw.Query("a", " b"))
    fewer = Stub(index, lambda out, seed: 0.5)
    fewer.documents = 3
    most = [f"{place}-{i}" for place in PLACES for i in (0, 1)][:12]
    many = Known(**{name.replace("-", "_"): 1.0 for name in most})
    for query, options, said in (
        (contrast, {}, "no probability"),
        (QUERY, {"top": 0}, "top is too small"),
        (QUERY, {"seeds": 0}, "seeds is too small"),
        (QUERY, {"method": Known()}, "finds no example"),
        (QUERY, {"group": ("source", "Nowhere")}, "No example is left"),
        (QUERY, {"group": ("colour", "red")}, "no metadata column"),
        (QUERY, {"retrain": True}, "Retraining cannot be done"),
        (QUERY, {"retrain": True, "run": TrainingRun(())}, "recipe"),
        (QUERY, {"tail_patch": False}, "nothing to test by"),
        (QUERY, {"trainer": fewer}, "another corpus"),
        (QUERY, {"trainer": other, "tail_patch": False}, "does not measure this query"),
        (QUERY, {"trainer": Stub(index, lambda out, seed: 0.5), "method": many, "top": 12}, "few"),
        (QUERY, {"learning_rate": -1.0}, "learning rate"),
        (QUERY, {"optimizer": "lion"}, "Unknown optimizer"),
    ):
        given: dict[str, Any] = {"method": Known(Peru_0=1.0), "cache": tmp_path} | options
        with pytest.raises(InputError, match=said):
            hw.verify(index, query, workers=1, **given)


def test_p_values_are_those_of_all_subsets() -> None:
    from scipy.stats import permutation_test

    def difference(a: Any, b: Any, axis: int = 0) -> Any:
        return np.mean(a, axis=axis) - np.mean(b, axis=axis)

    random = np.random.default_rng(0)
    for sizes, shift in (((3, 6), 0.5), ((4, 5), 0.0), ((2, 9), 2.0)):
        a, b = random.normal(shift, 1, sizes[0]), random.normal(0, 1, sizes[1])
        right = permutation_test(
            (a, b), difference, alternative="greater", n_resamples=10**6, vectorized=True
        )
        found = permutation_p(a.tolist(), b.tolist())
        assert found is not None
        assert abs(found - right.pvalue) < 1e-12
    assert permutation_p([1.0], [0.0] * 18) is None  # 1/19 is the least there can be
    assert permutation_p([1.0], list(np.zeros(19))) == 1 / 20
    large = permutation_p(list(random.normal(1, 1, 20)), list(random.normal(0, 1, 20)))
    assert large is not None
    assert 1e-4 <= large < 0.05
    null = [
        permutation_p(list(random.normal(0, 1, 3)), list(random.normal(0, 1, 7))) or 0.0
        for _ in range(400)
    ]
    assert 0.02 < np.mean(np.array(null) <= 0.05) < 0.08
    with pytest.raises(InputError, match="nothing to compare"):
        permutation_p([], [1.0])


def test_percent_has_the_digits_that_matter() -> None:
    assert [percent(v) for v in (0.9753, 0.1, 0.031, 0.00031, 1e-9)] == [
        "97.5 %",
        "10.0 %",
        "3.1 %",
        "0.031 %",
        "below 0.01 %",
    ]
    assert Patched("found", "M", ["a", "b"], [1.0, 3.0], [0.1, 0.2]).mean_points == 2
