"""The loop: bit-equal again, the stated loss, the stated optimizer, checkpoints that reload."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headwater.corpus.document import Document
from headwater.engine.errors import InputError, NumericError
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.task import Task
from headwater.training.loop import train
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun
from headwater.training.small_lm import small_lm

WORDS = ["Peru borders Chile", "Lima is in Peru", "Oslo is in Norway", "The sea is blue and wide"]
TEXTS = [f"{word} {i}." for i in range(5) for word in WORDS]


class Rows:
    """The part of a Corpus that the loop uses."""

    def __init__(self, documents: list[Document]) -> None:
        self._documents = documents

    def documents(self) -> Iterator[Document]:
        return iter(self._documents)


def texts(some: list[str] = TEXTS) -> Any:
    return Rows([Document(f"d{i}", {"text": text}, {}) for i, text in enumerate(some)])


def language_task(seed: int = 0) -> CausalLM:
    model, tokenizer = small_lm(TEXTS, vocab=300, width=16, heads=2, layers=1, seed=seed)
    return CausalLM(model, tokenizer)


def regression_task(dropout: float = 0.0) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Dropout(dropout), nn.Linear(4, 1))

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (model(batch["x"]).squeeze(-1) - batch["y"]).square()

    return Task(model, loss)


def points(count: int = 10, bad: int | None = None) -> Any:
    random = np.random.Generator(np.random.PCG64(0))
    rows: list[Document] = []
    for i in range(count):
        x = random.normal(size=3).astype(np.float32)
        y = np.float32("nan" if i == bad else x.sum())
        rows.append(Document(f"p{i}", {"x": x, "y": y}, {}))
    return Rows(rows)


def weights(task: Task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_same_seed_gives_bit_equal_weights_with_dropout() -> None:
    recipe = Recipe(epochs=3, batch_size=4, seed=7)
    results: list[dict[str, torch.Tensor]] = []
    for draws, seed in ((0, 7), (11, 7), (0, 8)):
        task = regression_task(dropout=0.5)
        torch.rand(draws)  # the caller's random state must not matter
        before = torch.get_rng_state()
        train(task, points(), Recipe(epochs=3, batch_size=4, seed=seed), progress=False)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(weights(task))
    assert recipe.seed == 7
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_language_model_learns_and_repeats() -> None:
    recipe = Recipe(steps=12, batch_size=5, learning_rate=1e-2, schedule="cosine", warmup_steps=3)
    seen: list[tuple[int, float]] = []
    one, two = language_task(), language_task()
    run = train(one, texts(), recipe, on_step=lambda s, v: seen.append((s, v)), progress=False)
    train(two, texts(), recipe, progress=False)
    assert same(weights(one), weights(two))
    assert seen == list(enumerate(run.losses, start=1))
    assert run.losses[0] == pytest.approx(np.log(len(one.tokenizer)), rel=0.05)
    assert run.losses[-1] < run.losses[0] - 0.3
    assert run.steps == 12
    assert run.checkpoints == ()
    assert not one.model.training


def test_loss_is_the_mean_over_labelled_tokens() -> None:
    """As transformers has it, over a batch whose rows differ in length."""
    task = language_task()
    run = train(task, texts(), Recipe(steps=1, batch_size=99, learning_rate=0), progress=False)
    ids = [task.tokenizer(text)["input_ids"] for text in TEXTS]
    width = max(map(len, ids))
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
    with torch.no_grad():
        theirs = task.model(input_ids=labels.clamp(min=0), labels=labels).loss
    assert run.losses[0] == pytest.approx(float(theirs), rel=1e-5)


def test_each_epoch_is_another_permutation() -> None:
    task = regression_task()
    seen: list[tuple[float, ...]] = []
    collate = task.collate

    def spy(chunks: Any) -> Any:
        batch = collate(chunks)
        seen.append(tuple(batch["y"].tolist()))
        return batch

    task.collate = spy  # type: ignore[method-assign]
    train(task, points(10), Recipe(epochs=2, batch_size=4), progress=False)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = (sum(seen[i : i + 3], ()) for i in (0, 3))
    assert sorted(first) == sorted(second)
    assert first != second


def test_adamw_and_sgd_match_torch_step_by_step() -> None:
    for name in ("adamw", "sgd"):
        task, reference = regression_task(), regression_task().model
        recipe = Recipe(
            steps=4,
            batch_size=10,
            learning_rate=0.05,
            schedule="linear",
            warmup_steps=1,
            optimizer=name,  # type: ignore[arg-type]
            weight_decay=0.1,
            momentum=0.9 if name == "sgd" else 0.0,
            grad_clip=0.5,
        )
        run = train(task, points(10), recipe, progress=False)
        matrices = [p for p in reference.parameters() if p.dim() == 2]
        others = [p for p in reference.parameters() if p.dim() == 1]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0}]
        kind: Any = torch.optim.AdamW if name == "adamw" else torch.optim.SGD
        options = {} if name == "adamw" else {"momentum": 0.9}
        optimizer = kind(groups, lr=0.05, **options)
        data = list(points(10).documents())
        x = torch.tensor(np.stack([d.content["x"] for d in data]))
        y = torch.tensor(np.stack([d.content["y"] for d in data]))
        for rate in (0.05, 0.05, 0.05 * 2 / 3, 0.05 / 3):
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.zero_grad()
            (reference(x).squeeze(-1) - y).square().mean().backward()
            nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
            optimizer.step()
        assert run.learning_rates == pytest.approx((0.05, 0.05, 0.05 * 2 / 3, 0.05 / 3))
        for ours, theirs in zip(task.model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay() -> None:
    task = regression_task()
    frozen = next(task.model.parameters()).requires_grad_(False).clone()
    train(task, points(), Recipe(steps=3), progress=False)
    assert torch.equal(next(task.model.parameters()), frozen)


def test_checkpoints_reload(tmp_path: Path) -> None:
    task = language_task()
    recipe = Recipe(steps=7, batch_size=4, learning_rate=1e-2, schedule="linear", checkpoints=3)
    run = train(task, texts(), recipe, out=tmp_path / "run", progress=False)
    again = TrainingRun.open(tmp_path / "run")
    assert again == run
    assert [c.step for c in again.checkpoints] == [3, 5, 7]
    assert [c.learning_rate for c in again.checkpoints] == [
        run.learning_rates[i] for i in (2, 4, 6)
    ]
    fresh = language_task(seed=9)
    again.checkpoints[-1].load_into(fresh.model)
    assert same(weights(fresh), weights(task))
    again.checkpoints[0].load_into(fresh.model)
    assert not same(weights(fresh), weights(task))
    reopened = CausalLM.load(str(again.checkpoints[-1].path))
    assert same(weights(reopened), weights(task))
    assert not [p for p in tmp_path.rglob("*.partial")]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["recipe"]["checkpoints"] == 3


def test_plain_modules_are_saved_too(tmp_path: Path) -> None:
    task = regression_task()
    run = train(task, points(), Recipe(steps=4, save_every=3), out=tmp_path, progress=False)
    assert [c.step for c in run.checkpoints] == [3, 4]
    fresh = regression_task()
    run.checkpoints[-1].load_into(fresh.model)
    assert same(weights(fresh), weights(task))


def test_not_finite_names_step_and_document() -> None:
    with pytest.raises(NumericError, match=r"loss is not finite at step \d, document p4; "):
        train(regression_task(), points(10, bad=4), Recipe(batch_size=2), progress=False)
    task = regression_task()
    huge = Recipe(steps=9, optimizer="sgd", learning_rate=1e30, grad_clip=None)
    with pytest.raises(NumericError, match=r"not finite at step \d"):
        train(task, points(10), huge, progress=False)


def test_nothing_to_train() -> None:
    with pytest.raises(InputError, match="corpus has nothing"):
        train(regression_task(), Rows([]), Recipe(), progress=False)  # type: ignore[arg-type]
    task = regression_task()
    task.model.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        train(task, points(), Recipe(), progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"steps": 0},
        {"batch_size": 0},
        {"learning_rate": float("nan")},
        {"schedule": "step"},
        {"optimizer": "lion"},
        {"betas": (0.9, 1.0)},
        {"momentum": 1.0},
        {"grad_clip": 0.0},
        {"checkpoints": 0},
    ],
)
def test_recipe_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Recipe(**wrong)


def test_recipe_schedule_and_json() -> None:
    recipe = Recipe(learning_rate=1.0, schedule="cosine", warmup_steps=2, save_every=4)
    rates = [recipe.learning_rate_at(step, 6) for step in range(1, 7)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[4] == pytest.approx(0.5)
    assert recipe.checkpoint_steps(10) == [4, 8, 10]
    assert Recipe(checkpoints=99).checkpoint_steps(3) == [1, 2, 3]
    assert Recipe(epochs=1.5, batch_size=4).total_steps(10) == 5
    assert Recipe.from_json(json.loads(json.dumps(recipe.to_json()))) == recipe
    with pytest.raises(InputError, match="lr"):
        Recipe.from_json({"lr": 1})
