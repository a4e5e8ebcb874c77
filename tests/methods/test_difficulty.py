"""Difficulty scores against naive float64 arithmetic, an example at a time, over checkpoints."""

from __future__ import annotations

import copy
import csv
import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
import typer
from commands import save_model as save_lm
from commands import write_rows

import headwater as hw
from headwater.cli.difficulty import difficulty as command
from headwater.engine.errors import InputError, MismatchError
from headwater.methods import outcomes
from headwater.methods import vog as vog_file
from headwater.methods.difficulty import DifficultyResult, difficulty, z_scores
from headwater.training.loop import save_model
from headwater.training.run import Checkpoint, TrainingRun
from models import SENTENCES, Mlp, brute_force, byte_tokenizer, class_loss, relative, tiny_llama

RATES = [0.5, 0.25, 0.125, 0.0]
TEXTS = [
    *SENTENCES,
    "Lima, Peru",
    "A cat and a dog and a river and a sea. " * 2,
    "9 8 7 6 5",
]
CLOSE = 1e-6


def run_of(model: Any, spread: float, rates: list[Any] = RATES) -> tuple[TrainingRun, list[Any]]:
    """Four hand-made checkpoints about `model`, and a copy of the model at each of them."""
    torch.manual_seed(7)
    models, saved = [], []
    for number, rate in enumerate(rates):
        one = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
        folder = Path(mkdtemp(prefix="difficulty-")) / f"checkpoint-{10 * (number + 1)}"
        folder.mkdir()
        save_model(one, folder)
        models.append(one)
        saved.append(Checkpoint(folder, 10 * (number + 1), rate))
    return TrainingRun(tuple(saved), 40), models


@cache
def language() -> tuple[hw.Index, TrainingRun, list[Any]]:
    """Texts, one of them in three windows, on a model taught so far that some tokens are right."""
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(), max_length=24, overlap=3)
    rows = [{"id": f"d{i}", "text": text, "kind": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
    corpus = hw.Corpus.from_documents(rows)
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=0.02)
    for _ in range(12):
        for text in SENTENCES[:3]:
            ids = torch.tensor([task.tokenizer(text)["input_ids"]])
            optimizer.zero_grad()
            task.model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
    task.model.zero_grad(set_to_none=True)
    index = hw.Index.build(None, task, corpus, None)
    return index, *run_of(task.model, 0.08)


@cache
def classes() -> tuple[hw.Index, TrainingRun, list[Any]]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 6)), rng.integers(0, 5, 30)
    corpus = hw.Corpus.from_columns({"x": x, "y": y}, ids=[f"n{i:02d}" for i in range(30)])
    task = hw.Task(Mlp().double(), class_loss)
    index = hw.Index.build(None, task, corpus, None)
    return index, *run_of(task.model, 0.6)


def class_logits(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(batch["x"])


CLASSES: Any = {"logits": class_logits}


def naive_tokens(index: hw.Index, models: list[Any]) -> list[list[list[dict[str, float]]]]:
    """[checkpoint][document][labelled token] -> loss, right, error, from the plain definition."""
    made = []
    for model in models:
        documents = []
        for chunks in index.chunks(range(len(index))):
            tokens = []
            for chunk in chunks:
                ids = torch.as_tensor(chunk.content["input_ids"]).long()
                labels = chunk.content["labels"]
                with torch.no_grad():
                    logits = model(input_ids=ids[None], use_cache=False).logits[0].numpy()
                for place in range(1, len(labels)):
                    if labels[place] >= 0:
                        tokens.append(_naive(logits[place - 1], int(labels[place])))
            documents.append(tokens)
        made.append(documents)
    return made


def naive_classes(index: hw.Index, models: list[Any]) -> list[list[list[dict[str, float]]]]:
    made = []
    for model in models:
        documents = []
        for document in index.stream():
            x = torch.as_tensor(np.asarray(document.content["x"]))
            logits = model(x[None])[0].detach().numpy()
            documents.append([_naive(logits, int(document.content["y"]))])
        made.append(documents)
    return made


def _naive(logits: np.ndarray, label: int) -> dict[str, float]:
    p = np.exp(logits - logits.max())
    p = p / p.sum()
    onehot = np.zeros(len(p))
    onehot[label] = 1
    return {
        "loss": -float(np.log(p[label])),
        "right": float(int(np.argmax(p)) == label),
        "error": float(np.sqrt(((p - onehot) ** 2).sum())),
    }


def grid(made: Any, name: str) -> np.ndarray:
    """Mean over tokens, [checkpoints, documents]."""
    return np.array([[np.mean([t[name] for t in doc]) for doc in one] for one in made])


KINDS = [
    pytest.param(language, naive_tokens, {}, id="language"),
    pytest.param(classes, naive_classes, CLASSES, id="classes"),
]


def unchanged(index: hw.Index, work: Any) -> Any:
    """What `work` returns, after a look that the model is as it was."""
    model = index.task.model
    model.train()
    first = next(iter(model.parameters()))
    first.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    try:
        return work()
    finally:
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        assert [p.requires_grad for p in model.parameters()] == flags
        assert all(module.training for module in model.modules())
        assert not any(m._forward_hooks for m in model.modules())
        assert all(p.grad is None for p in model.parameters())
        first.requires_grad_(True)
        model.eval()


# -- scores of outcomes ---------------------------------------------------------------------


@pytest.mark.parametrize(("case", "naive", "options"), KINDS)
def test_el2n(case: Any, naive: Any, options: Any) -> None:
    index, run, models = case()
    right = grid(naive(index, models), "error")
    result = unchanged(index, lambda: difficulty(index, run, "el2n", **options))
    assert relative(result.values, right[0]) < CLOSE
    assert result.by_checkpoint.shape == (1, len(index))
    assert result.steps == [10]
    assert "step 10 of 40" in result.notes[0]
    two = difficulty(index, run, "el2n", checkpoints=[2, 1], **options)
    assert relative(two.values, right[1:3].mean(axis=0)) < CLOSE
    assert relative(two.by_checkpoint, right[1:3]) < CLOSE
    assert two.steps == [20, 30]


@pytest.mark.parametrize(("case", "naive", "options"), KINDS)
def test_loss_and_its_variance(case: Any, naive: Any, options: Any) -> None:
    index, run, models = case()
    right = grid(naive(index, models), "loss")
    result = unchanged(index, lambda: difficulty(index, run, "loss"))  # without logits
    assert relative(result.values, right[-1]) < CLOSE
    assert relative(result.by_checkpoint, right) < CLOSE
    assert relative(result.variance, right.var(axis=0)) < 1e-5
    assert result.ids == index.ids


def naive_forgetting(made: Any, exact: bool) -> np.ndarray:
    values = []
    for document in range(len(made[0])):
        tokens = range(len(made[0][document]))
        if exact:
            histories = [[min(made[k][document][t]["right"] for t in tokens) for k in range(4)]]
        else:
            histories = [[made[k][document][t]["right"] for k in range(4)] for t in tokens]
        events = []
        for history in histories:
            lost = sum(history[k] == 1 and history[k + 1] == 0 for k in range(3))
            events.append(lost if max(history) == 1 else 4)
        values.append(np.mean(events))
    return np.array(values)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("case", "naive", "options"), KINDS)
def test_forgetting(
    case: Any, naive: Any, options: Any, exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcomes.document_ranges, "__defaults__", (None, 3))
    index, run, models = case()
    made = naive(index, models)
    right = naive_forgetting(made, exact)
    result = unchanged(index, lambda: difficulty(index, run, "forgetting", exact=exact, **options))
    assert len(np.unique(right)) > 2 or exact
    assert relative(result.values, right) < CLOSE
    if not exact:
        assert any(0 < value < 4 for value in right)
        assert relative(result.by_checkpoint, grid(made, "right")) < CLOSE


def naive_pre_memorization(made: Any, threshold: float, exact: bool) -> np.ndarray:
    values = []
    for document in range(len(made[0])):
        best, accuracy = 0.0, 0.0
        for one in made:
            tokens = one[document]
            accuracy = np.mean([t["right"] for t in tokens])
            if exact:
                accuracy = float(all(t["right"] for t in tokens))
            if np.mean([t["loss"] for t in tokens]) >= threshold:
                best = max(best, accuracy)
        values.append(min(best, accuracy))
    return np.array(values)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("case", "naive", "options"), KINDS)
def test_pre_memorization(case: Any, naive: Any, options: Any, exact: bool) -> None:
    index, run, models = case()
    made = naive(index, models)
    threshold = float(np.quantile(grid(made, "loss"), 0.5))
    plain = naive_pre_memorization(made, 0.0, False)
    right = naive_pre_memorization(made, threshold, exact)
    assert right.max() < plain.max() or not np.array_equal(right, plain)
    result = unchanged(
        index,
        lambda: difficulty(
            index, run, "pre-memorization", exact=exact, threshold=threshold, **options
        ),
    )
    np.testing.assert_allclose(result.values, right, rtol=CLOSE)
    assert not result.high_is_hard
    assert f"{threshold:g} nats" in result.notes[0]


def test_pre_memorization_by_hand() -> None:
    """A run from wrong (before) to half right (unmemorised) to right and memorised: one half."""
    index, run, models = classes()
    made = naive_classes(index, models)
    # a threshold above every loss: everything counts as memorised, and nothing is left
    result = difficulty(index, run, "pre-memorization", threshold=1e3, **CLASSES)
    assert (result.values == 0).all()
    assert any("30 examples were memorised at every" in note for note in result.notes)
    # none below: the best accuracy, but no better than the last
    result = difficulty(index, run, "pre-memorization", threshold=0, **CLASSES)
    shares = grid(made, "right")
    assert np.array_equal(result.values, np.minimum(shares.max(axis=0), shares[-1]))
    assert 0 < result.values.sum() < shares.max(axis=0).sum()


# -- VoG ------------------------------------------------------------------------------------


def naive_vog(index: hw.Index, models: list[Any], log_odds: bool) -> tuple[Any, Any]:
    """By autograd on `inputs_embeds`, everything in memory."""
    values, sizes = [], []
    for chunks in index.chunks(range(len(index))):
        at_inputs = []
        for model in models:
            rows = []
            for chunk in chunks:
                ids = torch.as_tensor(chunk.content["input_ids"]).long()
                labels = torch.as_tensor(chunk.content["labels"]).long()
                e = model.get_input_embeddings()(ids)[None].detach().requires_grad_()
                logits = model(inputs_embeds=e, use_cache=False).logits[0]
                total: Any = 0
                places = [t for t in range(1, len(ids)) if labels[t] >= 0]
                for t in places:
                    right = logits[t - 1, labels[t]]
                    p = torch.softmax(logits[t - 1], 0)[labels[t]]
                    total = total + (torch.log(p / (1 - p)) if log_odds else right)
                (gradient,) = torch.autograd.grad(total, e)
                rows += [gradient[0, t - 1].numpy() for t in places]
            at_inputs.append(rows)
        stack = np.array(at_inputs)  # [checkpoints, inputs, dimensions]
        values.append(np.sqrt(((stack - stack.mean(axis=0)) ** 2).mean(axis=0)).mean())
        sizes.append(np.sqrt((stack**2).mean(axis=(1, 2))))
    return np.array(values), np.array(sizes).T


@pytest.mark.parametrize("log_odds", [False, True])
def test_vog_of_a_language_model(log_odds: bool) -> None:
    index, run, models = language()
    values, sizes = naive_vog(index, models, log_odds)
    result = unchanged(index, lambda: difficulty(index, run, "vog", log_odds=log_odds))
    assert relative(result.values, values) < CLOSE
    assert relative(result.by_checkpoint, sizes) < CLOSE
    assert result.steps == [10, 20, 30, 40]


@pytest.mark.parametrize("memory", [1, 1 << 14])
def test_vog_does_not_depend_on_blocks(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    index, run, _ = language()
    whole = difficulty(index, run, "vog")
    monkeypatch.setattr(vog_file, "PIECE", 3)
    blocks = []
    cut = vog_file._blocks

    def counted(*words: Any) -> Any:
        for block in cut(*words):
            blocks.append(block)
            yield block

    monkeypatch.setattr(vog_file, "_blocks", counted)
    scored = vog_file.vog(index, run.checkpoints, outcomes.Classifier(), memory=memory)
    assert len(blocks) == 3 or memory > 1
    assert relative(scored.values, whole.values) < 1e-12


def test_vog_of_a_classifier() -> None:
    index, run, models = classes()
    values = []
    for document in index.stream():
        found = []
        for model in models:
            x = torch.as_tensor(np.asarray(document.content["x"])).requires_grad_()
            logit = model(x[None])[0, int(document.content["y"])]
            found.append(torch.autograd.grad(logit, x)[0].numpy())
        values.append(np.array(found).std(axis=0).mean())
    result = unchanged(index, lambda: difficulty(index, run, "vog", inputs="x", **CLASSES))
    assert relative(result.values, np.array(values)) < CLOSE


def test_vog_at_a_module() -> None:
    """In the output of the first layer, by the chain of what follows it."""
    index, run, models = classes()
    values = []
    for document in index.stream():
        found = []
        for model in models:
            x = torch.as_tensor(np.asarray(document.content["x"]))
            first, last = model.layers[0], model.layers[2]
            open_gates = (first(x) > 0).double()
            found.append((last.weight[int(document.content["y"])] * open_gates).detach().numpy())
        values.append(np.array(found).std(axis=0).mean())
    result = difficulty(index, run, "vog", inputs="layers.0", **CLASSES)
    assert relative(result.values, np.array(values)) < CLOSE


# -- self-influence -------------------------------------------------------------------------


def naive_self_influence(index: hw.Index, models: list[Any], names: list[str]) -> np.ndarray:
    """|gradient of the summed loss|^2 of the named weights, [checkpoints, documents]."""
    made = []
    for model in models:
        row = []
        for chunks in index.chunks(range(len(index))):
            total: Any = 0
            for chunk in chunks:
                ids = torch.as_tensor(chunk.content["input_ids"]).long()
                labels = torch.as_tensor(chunk.content["labels"]).long()
                logits = model(input_ids=ids[None], use_cache=False).logits[0]
                total = total + torch.nn.functional.cross_entropy(
                    logits[:-1], labels[1:], reduction="sum"
                )
            gradients = brute_force(model, total)
            row.append(sum(float((gradients[name] ** 2).sum()) for name in names))
        made.append(row)
    return np.array(made)


def test_self_influence() -> None:
    index, run, models = language()
    names = [n for n, p in models[0].named_parameters() if "layers" in n and p.dim() == 2]
    right = naive_self_influence(index, models, names)
    features = hw.Features(projection=None)
    result = unchanged(index, lambda: difficulty(index, run, "self-influence", features=features))
    assert relative(result.values, np.array(RATES) @ right) < CLOSE
    assert relative(result.by_checkpoint, right) < CLOSE
    rates = [1.0, 0.0, 2.0, 3.0]
    given = difficulty(index, run, "self-influence", features=features, learning_rates=rates)
    assert relative(given.values, np.array(rates) @ right) < CLOSE


def test_rates_are_in_the_order_in_which_checkpoints_are_named() -> None:
    index, run, models = language()
    names = [n for n, p in models[0].named_parameters() if "layers" in n and p.dim() == 2]
    features = hw.Features(projection=None)
    right = naive_self_influence(index, models, names)
    for places, rates in (([2, 0], [0.25, 2.0]), ([0, 2], [2.0, 0.25]), ([-2, 0], [0.25, 2.0])):
        found = difficulty(
            index,
            run,
            "self-influence",
            checkpoints=places,
            features=features,
            learning_rates=rates,
        )
        assert relative(found.values, 2.0 * right[0] + 0.25 * right[2]) < CLOSE
        assert found.steps == [10, 30]
    with pytest.raises(InputError, match="2 finite numbers"):
        difficulty(
            index, run, "self-influence", checkpoints=[0, 0, 1], learning_rates=[1.0, 2.0, 3.0]
        )


def test_self_influence_has_the_features_of_the_index() -> None:
    """One checkpoint that is the index's model: |u|^2 of the stored features."""
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(size=(12, 6)), "y": rng.integers(0, 5, 12)}
    task = hw.Task(Mlp().double(), class_loss)
    features = hw.Features(projection=hw.TwoSided(3, 4), storage="float32", seed=5)
    index = hw.Index.build(None, task, hw.Corpus.from_columns(columns), features)
    run, _ = run_of(task.model, 0.0, [None])
    result = difficulty(index, run, "self-influence")
    assert relative(result.values, hw.self_influence(index, method=hw.GradDot())) < CLOSE
    assert any("counts as 1" in note for note in result.notes)
    other = difficulty(index, run, "self-influence", features=hw.Features(projection=None))
    assert relative(other.values, result.values) > 0.01


# -- ranking, groups, saving ----------------------------------------------------------------


def test_z_scores_within_a_column() -> None:
    index, run, _ = language()
    plain = difficulty(index, run, "loss")
    within = difficulty(index, run, "loss", by="kind")
    for first in (0, 1):
        part = plain.values[first::2]
        assert relative(within.values[first::2], (part - part.mean()) / part.std()) < 1e-12
    assert "within kind" in within.unit
    assert (
        z_scores(np.array([3.0, 3.0, 5.0, np.nan]), ["a", "a", None, "a"]).tolist()[:3] == [0] * 3
    )


def made_up(high: bool = True) -> DifficultyResult:
    values = np.array([2.0, 5.0, np.nan, 2.0, 9.0, 1.0])
    rows = values[None].astype(np.float32)
    return DifficultyResult("loss", "nats", list("fbcade"), values, rows, [None], high)


def test_ranking_and_what_is_kept() -> None:
    ranked = made_up().ranking()
    assert [(p.rank, p.id, p.value) for p in ranked] == [
        (1, "d", 9.0),
        (2, "b", 5.0),
        (3, "a", 2.0),  # equal values by their ids
        (4, "f", 2.0),
        (5, "e", 1.0),
    ]
    assert all(p.keep for p in ranked)
    low = made_up(high=False).ranking()
    assert [p.id for p in low] == ["e", "a", "f", "b", "d"]

    def kept(share: float, which: Any) -> str:
        return "".join(p.id for p in made_up().ranking(keep=share, which=which) if p.keep)

    assert kept(0.4, "hardest") == "db"
    assert kept(0.4, "easiest") == "fe"
    assert kept(0.6, "middle") == "baf"
    assert kept(0.01, "middle") == "a"
    for share in (0, 1.5):
        with pytest.raises(InputError, match="share"):
            made_up().ranking(keep=share)
    with pytest.raises(InputError, match="hardest or middle"):
        made_up().ranking(keep=0.5, which="best")  # type: ignore[arg-type]


def test_saving(tmp_path: Path) -> None:
    made_up().save(tmp_path / "made.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert rows[1] == {"id": "b", "value": 5.0, "by_checkpoint": [5.0]}
    assert rows[2] == {"id": "c", "value": None, "by_checkpoint": [None]}


@pytest.mark.parametrize("score", ["loss", "el2n", "forgetting", "pre-memorization"])
def test_an_example_that_is_not_finite_has_no_value(score: Any) -> None:
    index, run, _ = classes()

    def broken(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = model(batch["x"])
        return torch.where(batch["x"][:, :1] == first, torch.nan, logits)

    def loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(broken(model, batch), batch["y"], reduction="none")

    first = float(next(iter(index.stream())).content["x"][0])
    other = hw.Index.open(index.path, hw.Task(copy.deepcopy(index.task.model), loss))
    result = difficulty(other, run, score, logits=broken)
    assert np.flatnonzero(np.isnan(result.values)).tolist() == [0]
    assert len(result.ranking()) == 29
    assert any("1 examples whose numbers" in note for note in result.notes)


# -- bad input ------------------------------------------------------------------------------


def test_what_a_score_needs_is_said() -> None:
    index, run, _ = classes()
    few = TrainingRun(run.checkpoints[:1], 40)
    for score in ("el2n", "forgetting", "pre-memorization", "vog"):
        options: Any = {"inputs": "x"} if score == "vog" else {}
        with pytest.raises(InputError, match=r"needs the logits.*logits=function"):
            difficulty(index, run, score, **options)  # type: ignore[arg-type]
    for score in ("vog", "forgetting"):
        with pytest.raises(InputError, match="at least 2"):
            difficulty(index, few, score, **CLASSES)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no checkpoints on disk"):
        difficulty(index, TrainingRun(()), "loss")
    with pytest.raises(InputError, match="no such checkpoint"):
        difficulty(index, run, "loss", checkpoints=[4])
    with pytest.raises(InputError, match="Unknown score"):
        difficulty(index, run, "grand")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="Unknown options"):
        difficulty(index, run, "loss", treshold=3)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="in nats"):
        difficulty(index, run, "loss", threshold=-1)
    with pytest.raises(InputError, match="column of labels"):
        difficulty(index, run, "el2n", **CLASSES, labels="z")
    with pytest.raises(InputError, match="does not hold classes"):
        difficulty(index, run, "el2n", **CLASSES, labels="x")
    with pytest.raises(InputError, match="row of classes"):
        difficulty(index, run, "el2n", logits=class_loss)
    with pytest.raises(InputError, match="differentiates in the input"):
        difficulty(index, run, "vog", **CLASSES)
    with pytest.raises(InputError, match="no column z of real numbers"):
        difficulty(index, run, "vog", **CLASSES, inputs="z")
    with pytest.raises(InputError, match="metadata column"):
        difficulty(index, run, "loss", by="kind")
    with pytest.raises(InputError, match="4 finite numbers"):
        difficulty(index, run, "self-influence", learning_rates=[1.0])


def test_the_model_comes_back_after_an_error() -> None:
    index, run, _ = classes()

    def fails(model: Any, batch: Any) -> torch.Tensor:
        raise ZeroDivisionError

    for score in ("el2n", "vog"):
        options: Any = {"inputs": "x"} if score == "vog" else {}
        with pytest.raises(ZeroDivisionError):
            unchanged(index, lambda: difficulty(index, run, score, logits=fails, **options))  # noqa: B023
    other, _ = run_of(Mlp((6, 7, 5)).double(), 0.0)
    with pytest.raises(MismatchError):
        unchanged(index, lambda: difficulty(index, other, "loss"))


# -- the command ----------------------------------------------------------------------------


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_lm(tmp_path / "model")
    rows = [{"id": f"d{i}", "text": text, "kind": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
    task = hw.CausalLM.load(str(folder))
    corpus = hw.Corpus.open(str(write_rows(tmp_path / "texts.jsonl", rows)))
    index = hw.Index.build(tmp_path / "index", task, corpus, None)
    from headwater.training.loop import train
    from headwater.training.recipe import Recipe

    recipe = Recipe(epochs=4, batch_size=4, learning_rate=1e-2, checkpoints=4)
    learner = hw.CausalLM.load(str(folder))
    run = train(learner, corpus, recipe, out=tmp_path / "run", progress=False)
    app = typer.Typer()
    app.command()(command)

    def headwater(*words: object) -> str:
        app([str(index.path), str(tmp_path / "run"), *map(str, words)], standalone_mode=False)
        return capsys.readouterr().out

    lines = [json.loads(line) for line in headwater("--json", "--keep", 0.5).splitlines()]
    ranked = difficulty(index, run, "vog").ranking(keep=0.5)
    assert [(r["rank"], r["id"], r["keep"]) for r in lines] == [
        (p.rank, p.id, p.keep) for p in ranked
    ]
    assert [r["value"] for r in lines] == [p.value for p in ranked]
    out = tmp_path / "hard.csv"
    words = ("--score", "loss", "--by", "kind", "--keep", 0.25, "--which", "easiest")
    assert not headwater(*words, "--out", out)
    with out.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["rank", "id", "value", "keep"]
    assert [row["keep"] for row in found] == ["False"] * 6 + ["True"] * 2
    easiest = difficulty(index, run, "loss", by="kind").ranking()[-1]
    assert found[-1]["id"] == easiest.id
    assert float(found[-1]["value"]) == pytest.approx(easiest.value)
    table = headwater("--score", "forgetting", "--top", 2)
    assert "forgetting events" in table
    assert "4 more" in table
    for bad in (("--which", "best"), ("--out", "x.xml"), ("--keep", 3), ("--score", "grand")):
        with pytest.raises(InputError):
            headwater(*bad)
