"""One step and back: torch.optim's own steps, moments restored, and weights that come back."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headwater as hw
from headwater.engine.errors import InputError, NumericError
from headwater.training.first_moment import AdamState, read_adam_state
from headwater.training.loop import make_optimizer, train
from headwater.training.next_step import last_rate, next_step
from headwater.training.one_step import Step, Stepper
from headwater.training.recipe import Recipe
from headwater.training.run import Checkpoint, TrainingRun
from models import Mlp, byte_tokenizer, class_loss, relative, tiny_llama

LONG = "The capital of Peru is Lima. A river runs from its headwater down to the sea. " * 2
SINGLE = 1e-6  # Llama's norms and rotations are in float32, whatever its weights are
RECIPE = Recipe(
    steps=6,
    batch_size=2,
    learning_rate=0.02,
    betas=(0.8, 0.95),
    weight_decay=0.1,
    dropout=False,
    checkpoints=2,
)


def corpus() -> hw.Corpus:
    texts = ["The capital of Peru is Lima.", "the cat sat on the mat", LONG, "Numbers: 1 2 3"]
    rows = [{"id": f"d{i}", "text": text} for i, text in enumerate(texts)]
    return hw.Corpus.from_documents(rows)


def task() -> hw.CausalLM:
    return hw.CausalLM(tiny_llama(tied=True), byte_tokenizer(), max_length=24)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[hw.CausalLM, TrainingRun]:
    torch.set_num_threads(1)
    made = task()
    run = train(made, corpus(), RECIPE, out=tmp_path_factory.mktemp("run"), progress=False)
    return made, run


def by_torch(
    task: hw.CausalLM, chunks: list[Any], optimizer: Any, clip: float | None
) -> dict[str, torch.Tensor]:
    """The step by torch itself: mean over labelled tokens of all the chunks, clip, step."""
    model = task.model
    total, count = 0.0, 0
    for chunk in chunks:
        ids = torch.as_tensor(chunk.content["input_ids"]).long()
        labels = torch.as_tensor(chunk.content["labels"]).long()
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        total = total + torch.nn.functional.cross_entropy(
            logits[:-1], labels[1:], reduction="sum", ignore_index=-100
        )
        count += int((labels[1:] != -100).sum())
    model.zero_grad()
    (total / count).backward()
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def moved(after: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([(after[n] - before[n]).reshape(-1) for n in before])


def chunks_of(task: hw.CausalLM, text: str) -> list[Any]:
    (document,) = hw.Corpus.from_documents([{"id": "x", "text": text}]).documents()
    return task.chunks(document)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_adam_goes_on_from_its_moments(trained: Any, clip: float | None) -> None:
    made, run = trained
    other = task()
    optimizer = make_optimizer(other.model, RECIPE)
    # The whole training again, by torch and its own optimizer, then one step more.
    from headwater.training.loop import all_chunks, batches, labelled

    pieces, _ = all_chunks(other, corpus())
    for batch in batches(len(pieces), RECIPE, 6):
        collated = other.collate([pieces[i] for i in batch])
        loss = other.loss(collated).sum() / labelled(collated, len(batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(other.model.parameters(), 1.0)
        optimizer.step()
    before = weights(made.model)
    assert (
        relative(
            torch.cat([p.reshape(-1) for p in weights(other.model).values()]),
            torch.cat([p.reshape(-1) for p in before.values()]),
        )
        < 1e-6
    )
    chunks = chunks_of(made, LONG)
    assert len(chunks) > 2
    right = by_torch(other, chunks, optimizer, clip)
    step = replace(next_step(run, made), grad_clip=clip)
    assert step.state is not None
    assert step.optimizer == "adamw"
    with Stepper(made, step).after(chunks):
        found = weights(made.model)
    assert relative(moved(found, before), moved(right, before)) < SINGLE


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_steps_without_a_state(trained: Any, optimizer: Any) -> None:
    made, _ = trained
    other = copy.deepcopy(made)
    step = Step(0.03, "given", optimizer, weight_decay=0.2, grad_clip=None)
    recipe = Recipe(optimizer=optimizer, learning_rate=0.03, weight_decay=0.2)
    before = weights(made.model)
    chunks = chunks_of(made, "the cat sat on the mat")
    right = by_torch(other, chunks, make_optimizer(other.model, recipe), None)
    with Stepper(made, step).after(chunks):
        found = weights(made.model)
    assert relative(moved(found, before), moved(right, before)) < SINGLE


def test_adam_to_the_last_digits() -> None:
    """The same in float64 throughout: three steps by torch, whose state the fourth goes on from."""
    made = hw.Task(Mlp(seed=1).double(), class_loss)
    data = {"x": np.linspace(-1, 2, 24).reshape(4, 6), "y": [0, 3, 1, 4]}
    documents = list(hw.Corpus.from_columns(data).documents())
    kind = {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": 0.0, "eps": 1e-6}
    optimizer = torch.optim.AdamW(made.model.parameters(), **kind)

    def torch_step(model: torch.nn.Module, row: int) -> None:
        batch = {"x": torch.as_tensor(data["x"][row])[None], "y": torch.tensor([data["y"][row]])}
        optimizer.zero_grad()
        class_loss(model, batch).sum().backward()
        optimizer.step()

    for row in range(3):
        torch_step(made.model, row)
    state = read_adam_state(optimizer, made.model)
    state = replace(
        state,
        **{k: {n: v.clone() for n, v in getattr(state, k).items()} for k in ("first", "second")},
    )
    step = Step(0.05, betas=(0.8, 0.95), eps=1e-6, grad_clip=None, state=state)
    before = weights(made.model)
    with Stepper(made, step).after(made.chunks(documents[3])):
        found = weights(made.model)
    torch_step(made.model, 3)
    assert relative(moved(found, before), moved(weights(made.model), before)) < 1e-13


def test_the_model_comes_back_bit_for_bit(trained: Any) -> None:
    made, run = trained
    made.model.train()
    before = {name: value.clone() for name, value in made.model.state_dict().items()}
    grads = [p.requires_grad for p in made.model.parameters()]
    stepper = Stepper(made, next_step(run, made))
    chunks = chunks_of(made, LONG)
    with stepper.after(chunks):
        first = weights(made.model)
        assert any(not torch.equal(first[n], before[n]) for n in first)
    with pytest.raises(RuntimeError, match="inside"), stepper.after(chunks):
        raise RuntimeError("inside")
    with stepper.after(chunks):
        assert all(torch.equal(p, first[n]) for n, p in made.model.named_parameters())
    after = made.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert made.model.training
    assert [p.requires_grad for p in made.model.parameters()] == grads
    made.model.eval()


def test_examples_without_tokens_and_what_is_frozen_stays() -> None:
    made = hw.Task(Mlp(seed=1).double(), class_loss)
    made.model.layers[0].weight.requires_grad_(False)
    frozen = made.model.layers[0].weight.clone()
    document = next(iter(hw.Corpus.from_columns({"x": np.ones((1, 6)), "y": [2]}).documents()))
    other = copy.deepcopy(made.model)
    loss = class_loss(other, {"x": torch.ones(1, 6).double(), "y": torch.tensor([2])}).sum()
    free = [p for p in other.parameters() if p.requires_grad]
    right = [p - 0.1 * g for p, g in zip(free, torch.autograd.grad(loss, free), strict=True)]
    with Stepper(made, Step(0.1, "given", "sgd", grad_clip=None)).after(made.chunks(document)):
        assert torch.equal(made.model.layers[0].weight, frozen)
        found = [p for n, p in made.model.named_parameters() if n != "layers.0.weight"]
        for one, wanted in zip(found, right, strict=True):
            assert relative(one, wanted) < 1e-12


def test_a_gradient_that_is_not_finite_is_told() -> None:
    made = hw.Task(Mlp().double(), class_loss)
    row = {"x": np.full((1, 6), np.inf), "y": [2]}
    document = next(iter(hw.Corpus.from_columns(row).documents()))
    stepper = Stepper(made, Step(0.1))
    with (
        pytest.raises(NumericError, match="document z7"),
        stepper.after(made.chunks(document), "z7"),
    ):
        pass


def test_the_rate_is_the_last_or_that_of_the_last_plateau(trained: Any) -> None:
    made, run = trained
    assert next_step(run, made).rate_is == "the run's last"
    place = Checkpoint(Path("nowhere"), 6, 0.0)

    def rate(*rates: float) -> tuple[float, str]:
        return last_rate(TrainingRun((place,), 6, None, rates), place)

    assert rate(1, 2, 2, 2, 2, 1.5) == (1.5, "the run's last")
    value, told = rate(1, 2, 2, 2, 1, 0)
    assert value == 2
    assert "last decay began" in told
    value, told = rate(9, 3, 3, 3, 1, 0.001)  # two decays: the plateau before the last one
    assert (value, "0.001" in told) == (3, True)
    value, told = rate(1, 2, 2, 1, 0, 0)
    assert (value, "greatest" in told) == (2, True)
    with pytest.raises(InputError, match="no earlier one"):
        last_rate(TrainingRun((place,)), place)
    with pytest.raises(InputError, match="Nothing says"):
        bare = Checkpoint(Path("nowhere"))
        last_rate(TrainingRun((bare,)), bare)


def test_what_is_known_decides_the_step(trained: Any, tmp_path: Path) -> None:
    made, run = trained
    step = next_step(run, made)
    assert step.weight_decay == 0.1
    assert "AdamW with the moments of step 6, learning rate 0.02 (the run's last)" in step.told()
    assert json.dumps(step.describe())
    assert next_step(replace(run, recipe=None), made).betas == (0.8, 0.95)  # the state's own
    assert next_step(run, made, restore=False).optimizer == "sgd"
    zero = next_step(run, made, optimizer="adamw", restore=False)
    assert (zero.state, "moments from zero" in zero.told()) == (None, True)
    assert next_step(None, made).told().startswith("plain SGD, learning rate 0.01 (a guess")
    assert next_step(None, made, learning_rate=0.5).learning_rate == 0.5
    # The state of the checkpoint that the weights are of, not of the last one.
    early = task()
    run.checkpoints[0].load_into(early.model)
    at_first = next_step(run, early)
    assert (at_first.state.step, at_first.notes) == (3, ())
    stranger = next_step(run, task())
    assert stranger.state.step == 6
    assert "none of the run's checkpoints" in stranger.notes[0]
    assert step.describe() != at_first.describe()
    bare = TrainingRun((replace(run.checkpoints[-1], optimizer=None),), 6)
    assert "keeps no optimizer state" in next_step(bare, made).notes[0]


def test_bad_steps_are_refused() -> None:
    with pytest.raises(InputError, match="learning rate"):
        Step(0.0)
    with pytest.raises(InputError, match="optimizer"):
        Step(0.1, optimizer="lion")  # type: ignore[arg-type]


def test_narrow_weights_are_told() -> None:
    model = tiny_llama(dtype=torch.bfloat16)
    made = hw.CausalLM(model, byte_tokenizer())
    state = {n: torch.zeros(p.shape) for n, p in model.named_parameters()}
    step = Step(0.5, state=AdamState(3, (0.9, 0.99), state, state))
    stepper = Stepper(made, step)
    assert "bfloat16" in stepper.notes()[0]
    before = weights(model)
    with stepper.after(chunks_of(made, "The capital of Peru")):
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters())
