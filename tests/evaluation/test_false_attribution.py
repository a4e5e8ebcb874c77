"""The false-attribution rate: worked by hand, intervals by simulation, a classifier and a language
model end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError
from headwater.evaluation.answers import Greedy, answered, told
from headwater.evaluation.bank import Bank, Trial
from headwater.evaluation.estimate import Estimate
from headwater.evaluation.false_attribution import (
    Attributed,
    FalseAttribution,
    false_attribution,
    first_of,
)
from headwater.evaluation.metric import Scored
from headwater.evaluation.trainers import LoopTrainer
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from known_trainer import Known
from models import Mlp, byte_tokenizer, class_loss, tiny_llama

PROMPTS = [hw.Query(f"p{n}", "?") for n in range(4)]
NAMED = [0, 1, 2]  # what the rule names for the full model's answers; nothing for the last prompt


def says(document: int | str) -> dict[str, Any]:
    return {"completion": str(document)}


def rule(queries: list[hw.Query]) -> list[int | None]:
    """The answer is the document's number; other words are nobody's."""
    return [int(q.completion) if (q.completion or "").isdigit() else None for q in queries]


def answer(trial: Trial) -> list[Any]:
    """Prompt 0 needs its document; 1 does not; 2 does not, but any chance changes it."""
    gone = trial.left_out
    return [
        says("new") if 0 in gone else says(0),
        says(1),
        says("other") if 3 in gone or 4 in gone else says(2),
        None,
    ]


def bank(folder: Path, function: Any = answer) -> tuple[Bank, Known]:
    trainer = Known(np.zeros((4, 6)), answer=function)
    return Bank(folder, trainer, workers=1), trainer


def test_f_and_b_worked_by_hand(tmp_path: Path) -> None:
    """f = (0 + 1 + 1) / 3; of the five others, prompt 2 survives the loss of 0, 1 and 5."""
    one, trainer = bank(tmp_path)
    made = false_attribution(one, rule, PROMPTS, randoms=6)
    assert made.each == [(0.0, 1.0), (1.0, 1.0), (1.0, 3 / 5), None]
    f, b = 2 / 3, (1 + 1 + 3 / 5) / 3
    true_rate = ((1 - f) - (1 - b)) / b
    assert isinstance(made.rate, Estimate)
    assert made.rate.value == pytest.approx(1 - true_rate)
    assert made.rate.low <= made.rate.value <= made.rate.high
    assert isinstance(made.still, Estimate)
    assert isinstance(made.random, Estimate)
    assert made.still.value == pytest.approx(f)
    assert made.random.value == pytest.approx(b)
    assert (made.prompts, made.randoms) == (3, 6)
    assert made.notes[0].startswith("prompt 3 is not counted")
    assert "one seed" in made.notes[1]
    assert Attributed(**made.to_dict()) is not None
    assert sorted(t.left_out for t in trainer.trials) == [(), *((d,) for d in range(6))]


def test_seeds_are_averaged_and_answers_compared_within_one(tmp_path: Path) -> None:
    """Seed 1 answers prompt 0 with document 5, and goes on doing so without it."""

    def by_seed(trial: Trial) -> list[Any]:
        found = answer(trial)
        return [says(5), *found[1:]] if trial.seed == 1 else found

    one, trainer = bank(tmp_path, by_seed)
    made = false_attribution(one, rule, PROMPTS, seeds=[0, 1], randoms=6)
    assert made.each[0] == (0.5, 1.0)
    assert made.each[1] == (1.0, 1.0)
    assert Trial((5,), 1) in trainer.trials
    assert not any("one seed" in note for note in made.notes)


def test_an_answer_is_put_to_the_rule_once(tmp_path: Path) -> None:
    one, _ = bank(tmp_path)
    seen: list[str] = []

    def noted(queries: list[hw.Query]) -> list[int | None]:
        seen.extend(f"{q.prompt} {q.completion}" for q in queries)
        return rule(queries)

    false_attribution(one, noted, PROMPTS, randoms=6)
    assert sorted(seen) == ["p0 0", "p0 new", "p1 1", "p2 2", "p2 other"]


def test_cases_in_words(tmp_path: Path) -> None:
    one, _ = bank(tmp_path, lambda trial: [says(0 if not trial.left_out else "new")] * 4)
    made = false_attribution(one, rule, PROMPTS, randoms=6)
    assert "never named again" in str(made.rate)
    other, trainer = bank(tmp_path / "b", lambda trial: [None] * 4)
    made = false_attribution(other, rule, PROMPTS, randoms=6)
    assert made.rate == "no prompt could be counted"
    assert [trial.left_out for trial in trainer.trials] == [()]
    single, _ = bank(tmp_path / "c", lambda trial: [says(0), None, None, None])
    assert "one prompt" in str(false_attribution(single, rule, PROMPTS, randoms=6).rate)

    def rarely(trial: Trial) -> list[Any]:
        """Only the first prompt's answer stays, and only without document 5."""
        full = [says(number) for number in range(4)]
        return full if not trial.left_out else [says(0 if trial.left_out == (5,) else "x")] * 4

    rare, _ = bank(tmp_path / "d", rarely)
    assert "too near 0" in str(false_attribution(rare, rule, PROMPTS, randoms=6).rate)


def test_bad_input_is_told(tmp_path: Path) -> None:
    one, trainer = bank(tmp_path)
    for prompts in ([], PROMPTS[:2]):
        with pytest.raises(InputError, match="do not fit"):
            false_attribution(one, rule, prompts)
    for randoms in (1, 7):
        with pytest.raises(InputError, match="randoms"):
            false_attribution(one, rule, PROMPTS, randoms=randoms)
    assert trainer.trials == []
    with pytest.raises(InputError, match="needs the index"):
        FalseAttribution(one, PROMPTS, {"bm25": hw.BM25()})
    found = FalseAttribution(one, PROMPTS, {"own": rule}, randoms=6)
    figures = found.measure(Scored("own", "Own", np.zeros((4, 6), np.float32)))
    assert list(figures) == list(found.columns)
    assert isinstance(figures["false"], Estimate)
    told_again = FalseAttribution(one, PROMPTS[::-1], {"own": rule}, randoms=6).describe()
    assert json.dumps(found.describe()) != json.dumps(told_again)
    other = found.measure(Scored("other", "Other", np.zeros((4, 6), np.float32)))
    assert "the method itself" in str(other["false"])


def test_the_interval_covers_as_often_as_it_says(tmp_path: Path) -> None:
    """Prompts differ in how stable they are (p); without its document each stays with p / 2."""
    from headwater.evaluation.false_attribution import _rate

    covered = 0
    for number in range(300):
        random = np.random.default_rng(number)
        p = random.beta(8, 2, 30)
        shift = random.normal(0, 0.03, 8)
        b = (random.random((30, 8)) < np.clip(p[:, None] + shift, 0, 1)).astype(float)
        f = (random.random(30) < p / 2).astype(float)
        made = _rate(f, b, 300, number)
        assert isinstance(made, Estimate)
        covered += made.low <= 0.5 <= made.high
    assert 0.92 <= covered / 300 <= 0.98


def test_answers_are_written_down_and_read_again() -> None:
    asked = hw.Query("Where?", "x", instead_of="y")
    said = hw.Query("Where?", " Lima")
    assert answered(asked, told(asked, said)) == said
    assert answered(asked, told(asked, None)) is None
    row = hw.Query(columns={"x": np.ones(3, np.float32), "y": np.int32(1)})
    labelled = replace(row, columns={**(row.columns or {}), "y": np.int32(2)})
    assert told(row, labelled) == {"columns": {"y": 2}}
    found = answered(row, told(row, labelled))
    assert found is not None
    assert found.columns is not None
    assert found.columns["y"] == 2
    assert found.columns["y"].dtype == np.int32
    assert (found.columns["x"] == 1).all()
    with pytest.raises(InputError, match="keep the question"):
        told(asked, hw.Query("Else?", " Lima"))


def test_greedy_answers_are_the_most_probable_tokens() -> None:
    """Of a model that is sure of nothing, token by token from its own logits."""
    tokenizer = byte_tokenizer()
    task = hw.CausalLM(tiny_llama(initializer_range=0.05), tokenizer, max_length=32)
    for prompt in ("The cat", "Numbers: 1 2"):
        ids = tokenizer(prompt)["input_ids"]
        start = len(ids)
        for _ in range(5):
            with torch.no_grad():
                logits = task.model(input_ids=torch.tensor([ids])).logits[0, -1]
            ids.append(int(logits.argmax()))
        made = Greedy(5)(task, hw.Query(prompt, " x"))
        assert made is not None
        assert made.completion == tokenizer.decode(ids[start:])
        assert made.prompt == prompt


N = 18


def predicted(task: hw.Task, query: hw.Query) -> hw.Query:
    assert query.columns is not None
    with torch.no_grad():
        label = int(task.model(torch.as_tensor(query.columns["x"])[None])[0].argmax())
    return replace(query, columns={**query.columns, "y": np.int64(label)})


def test_a_classifier_end_to_end(tmp_path: Path) -> None:
    """Two rows that are the only ones of their class are needed; a rule that names others is not
    confirmed. What the true labels were does not matter."""
    random = np.random.default_rng(0)
    y = np.array([2, 3] + [i % 2 for i in range(N - 2)])
    x = 0.3 * random.normal(size=(N, 6)) + 2 * np.eye(6)[y]
    corpus = hw.Corpus.from_columns({"x": x, "y": y}, ids=[f"z{i}" for i in range(N)])
    recipe = Recipe(epochs=12, batch_size=6, learning_rate=0.3, optimizer="sgd", grad_clip=None)
    task = hw.Task(Mlp().double(), class_loss)
    prompts = [hw.Query(columns={"x": 2 * np.eye(6)[c], "y": np.int64(0)}) for c in (2, 3)]
    trainer = LoopTrainer(
        task, corpus, recipe, prompts, measures=("loss", "answer"), answer=predicted
    )
    one = Bank(tmp_path, trainer, workers=1)
    trained = hw.Task(Mlp().double(), class_loss)
    train(trained, corpus, recipe, progress=False)
    index = hw.Index.build(None, trained, corpus, features=hw.Features(projection=None))
    methods: dict[str, Any] = {"graddot": hw.GradCos(), "other": lambda qs: [5] * len(qs)}
    metric = FalseAttribution(one, prompts, methods, index, randoms=3, seed=1)
    assert first_of(index, hw.GradCos())(
        [replace(q, columns={**(q.columns or {}), "y": np.int64(c)})
         for q, c in zip(prompts, (2, 3), strict=True)]
    ) == [0, 1]  # fmt: skip
    nothing = np.zeros((2, N), np.float32)
    right = metric.measure(Scored("graddot", "GradDot", nothing))["false"]
    wrong = metric.measure(Scored("other", "Other", nothing))["false"]
    assert isinstance(right, Estimate)
    assert isinstance(wrong, Estimate)
    assert right.value == 0
    assert wrong.value == 1
    shuffled = hw.Index.build(None, trained, corpus.select(without={"z3"}), features=None)
    with pytest.raises(InputError, match="other documents"):
        FalseAttribution(one, prompts, methods, shuffled)


def test_a_language_model_end_to_end(tmp_path: Path) -> None:
    """Facts learnt by heart go with their documents. A rule that looks for the answer's word is
    right; BM25 finds the document by the prompt, and names it for a model that never saw it."""
    facts = ["The capital of Peru is Lima.", "the cat sat on the mat", "Numbers: 1 2 3 4 5 6"]
    corpus = hw.Corpus.from_columns({"text": facts}, ids=["peru", "cat", "numbers"])
    model = tiny_llama(dtype=torch.float32)
    task = hw.CausalLM(model, byte_tokenizer(), max_length=32)
    recipe = Recipe(steps=40, batch_size=3, learning_rate=0.02, dropout=False)
    prompts = [hw.Query("The capital of Peru is", " x"), hw.Query("the cat sat on the", " x")]
    options: dict[str, Any] = {"measures": ("loss", "answer"), "answer": Greedy(2)}
    one = Bank(tmp_path, LoopTrainer(task, corpus, recipe, prompts, **options), workers=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert one.answers([Trial(())]) == [[{"completion": " Lima"}, {"completion": " mat"}]]
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in before.items())

    def by_word(queries: list[hw.Query]) -> list[int | None]:
        words = [(q.completion or "").strip() for q in queries]
        return [next((i for i, text in enumerate(facts) if w in text), None) for w in words]

    right = false_attribution(one, by_word, prompts, randoms=3)
    assert right.each == [(0.0, 1.0), (0.0, 1.0)]
    assert right.rate == Estimate(0.0, 0.0, 0.0)
    index = hw.Index.build(None, task, corpus, features=None)
    lexical = false_attribution(one, first_of(index, hw.BM25()), prompts, randoms=3)
    assert lexical.rate == Estimate(1.0, 1.0, 1.0)
