"""Second moments by name: equal to the optimizer in memory, and refused where in doubt."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

from headwater.corpus.document import Document
from headwater.engine.errors import InputError, MismatchError
from headwater.tasks.task import Task
from headwater.training.loop import train
from headwater.training.optimizer_state import read_second_moments
from headwater.training.recipe import Recipe
from headwater.training.run import TrainingRun

STEPS = 3


def llama(width: int = 16, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=width,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def trained(model: Any, out: Path, **options: Any) -> Trainer:
    """A real Trainer after three steps, with its checkpoint on disk."""
    torch.manual_seed(1)
    rows = [{"input_ids": row, "labels": row} for row in torch.randint(0, 32, (6, 8)).tolist()]
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        save_steps=STEPS,
        logging_steps=1,
        learning_rate=1e-2,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows)  # type: ignore[arg-type]
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def adamw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, Path]:
    out = tmp_path_factory.mktemp("adamw")
    return trained(llama(), out, weight_decay=0.1), out / f"checkpoint-{STEPS}"


def resaved(place: Path, to: Path, change: Any) -> Path:
    saved = torch.load(place / "optimizer.pt", weights_only=True)
    change(saved)
    torch.save(saved, to)
    return to


def swap_groups(saved: Any) -> None:
    saved["param_groups"].reverse()


def check_against_memory(trainer: Trainer, state: Any) -> None:
    model: Any = trainer.model
    memory: Any = trainer.optimizer
    assert state.names
    for name, parameter in model.named_parameters():
        own = memory.state[parameter]
        true = own["exp_avg_sq"] / (1 - 0.999**STEPS)
        torch.testing.assert_close(state.full(name), true.double(), rtol=1e-6, atol=0)
    assert set(state.names) == {name for name, _ in model.named_parameters()}
    assert (state.kind, state.step) == ("adam", STEPS)


def test_trainer_llama_by_name(adamw: tuple[Trainer, Path]) -> None:
    trainer, place = adamw
    check_against_memory(trainer, read_second_moments(place / "optimizer.pt", llama(seed=5)))
    check_against_memory(trainer, read_second_moments(trainer.optimizer, trainer.model))


def test_trainer_gpt2_by_name_in_stored_orientation(tmp_path: Path) -> None:
    trainer = trained(gpt2(), tmp_path)
    run = TrainingRun.open(tmp_path)
    state = read_second_moments(run.checkpoints[0], gpt2())
    check_against_memory(trainer, state)
    name = "transformer.h.0.attn.c_attn.weight"  # a Conv1D: [in, out] = [16, 48]
    row, col = state.factors(name)
    assert (row.shape, col.shape) == ((16,), (48,))
    torch.testing.assert_close(row, state.full(name).mean(dim=1))
    torch.testing.assert_close(col, state.full(name).mean(dim=0))
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]
    assert run.checkpoints[0].learning_rate == rates[-1]
    assert run.steps == STEPS


def test_trainer_adafactor(tmp_path: Path) -> None:
    trainer = trained(llama(), tmp_path, optim="adafactor")
    state = read_second_moments(tmp_path / f"checkpoint-{STEPS}", llama())
    assert (state.kind, state.step) == ("adafactor", STEPS)
    model: Any = trainer.model
    memory: Any = trainer.optimizer
    for name, parameter in model.named_parameters():
        own = memory.state[parameter]
        if parameter.dim() == 2:
            row, col = state.factors(name)
            assert torch.equal(row, own["exp_avg_sq_row"].double())
            assert torch.equal(col, own["exp_avg_sq_col"].double())
            built = row[:, None] * col[None, :] / row.mean()
            torch.testing.assert_close(state.full(name), built)
        else:
            assert torch.equal(state.full(name), own["exp_avg_sq"].double())


def test_torch_adafactor_agrees_with_the_squares() -> None:
    """After one step V is the squared gradient (plus 1e-30 or so): its means are the factors."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    optimizer = torch.optim.Adafactor(model.parameters())
    model(torch.randn(7, 5)).square().sum().backward()
    optimizer.step()
    state = read_second_moments(optimizer, model)
    assert state.kind == "adafactor"
    for name in ("0.weight", "1.weight"):
        gradient = model.get_parameter(name).grad
        assert gradient is not None
        row, col = state.factors(name)
        torch.testing.assert_close(row, gradient.double().square().mean(1), rtol=1e-4, atol=1e-9)
        torch.testing.assert_close(col, gradient.double().square().mean(0), rtol=1e-4, atol=1e-9)


def test_swapped_groups_are_refused(adamw: tuple[Trainer, Path], tmp_path: Path) -> None:
    path = resaved(adamw[1], tmp_path / "o.pt", swap_groups)
    with pytest.raises(MismatchError, match="does not fit the model"):
        read_second_moments(path, llama())


def test_groups_swapped_in_a_model_of_like_groups_are_refused(tmp_path: Path) -> None:
    """Where counts and shapes cannot tell the groups apart, their weight decay does."""

    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.bias = nn.Parameter(torch.zeros(4))

    model = Twins()
    groups = [
        {"params": [model.scale], "weight_decay": 0.1},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    for order, fits in ((groups, True), (groups[::-1], False)):
        optimizer = torch.optim.AdamW(order)
        (model.scale * torch.arange(4.0) + model.bias).sum().backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), tmp_path / "o.pt")
        if fits:
            read_second_moments(tmp_path / "o.pt", model)
        else:
            with pytest.raises(MismatchError, match="weight decay in the second group"):
                read_second_moments(tmp_path / "o.pt", model)


class OddRMSNorm(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(shape))


class Confusing(nn.Module):
    """Its groups have one member each by either rule, but not the same one."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.gain = OddRMSNorm(*shape)  # a norm by its class only
        self.out_norm = nn.Linear(4, 4, bias=False)  # a norm by its name only


@pytest.mark.parametrize("shape", [(4,), (4, 4)])
def test_shapes_choose_between_rules_or_nothing_does(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    for older in (False, True):
        model = Confusing(*shape)
        order = [model.out_norm.weight, model.gain.weight]
        decayed, plain = order if older else order[::-1]
        optimizer = torch.optim.AdamW([{"params": [decayed]}, {"params": [plain]}], weight_decay=0)
        (model.gain.weight * model.out_norm.weight).square().sum().backward()
        optimizer.step()
        torch.save(optimizer.state_dict(), tmp_path / "o.pt")
        if shape == (4,):
            state = read_second_moments(tmp_path / "o.pt", model)
            gradient: Any = model.gain.weight.grad
            torch.testing.assert_close(state.full("gain.weight"), gradient.double().square())
        else:
            with pytest.raises(MismatchError, match="in more than one way"):
                read_second_moments(tmp_path / "o.pt", model)


def test_wrong_models_are_refused(adamw: tuple[Trainer, Path]) -> None:
    for model in (llama(width=20), gpt2()):
        with pytest.raises(MismatchError, match="does not fit the model"):
            read_second_moments(adamw[1], model)
    frozen = llama()
    frozen.requires_grad_(False)
    with pytest.raises(MismatchError, match="requires_grad"):
        read_second_moments(adamw[1], frozen)
    partly = llama()
    partly.model.embed_tokens.requires_grad_(False)
    with pytest.raises(MismatchError, match="groups of"):
        read_second_moments(adamw[1], partly)


def test_a_changed_shape_step_or_lost_state_is_refused(
    adamw: tuple[Trainer, Path], tmp_path: Path
) -> None:
    def reshape(saved: Any) -> None:
        saved["state"][1]["exp_avg_sq"] = torch.zeros(5, 5)

    def step(saved: Any) -> None:
        saved["state"][2]["step"] = torch.tensor(9.0)

    def lose(saved: Any) -> None:
        del saved["state"][3]

    for change, message in ((reshape, "shape"), (step, "same step"), (lose, "no state")):
        path = resaved(adamw[1], tmp_path / "o.pt", change)
        with pytest.raises(MismatchError, match=message):
            read_second_moments(path, llama())


def test_one_group_of_all_parameters(tmp_path: Path) -> None:
    model = llama()
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.5))
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    state = read_second_moments(tmp_path / "o.pt", model)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(state.full(name), parameter.grad.double().square())


def test_saved_names_are_used(tmp_path: Path) -> None:
    """Groups in any order, when torch saved the names (of a wrapped model, too)."""
    model = llama()
    named = [(f"module.{name}", p) for name, p in model.named_parameters()][::-1]
    optimizer = torch.optim.AdamW(named)
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    state = read_second_moments(tmp_path / "o.pt", model)
    for name, parameter in model.named_parameters():
        square = parameter.grad.double().square()
        torch.testing.assert_close(state.full(name), square, rtol=1e-4, atol=1e-12)
    other = copy.deepcopy(model)
    other.model.layers[0].mlp.up_proj = nn.Linear(16, 23, bias=False)
    with pytest.raises(MismatchError, match="does not fit"):
        read_second_moments(tmp_path / "o.pt", other)


def test_our_own_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    task = Task(model, lambda m, b: m(b["x"]).squeeze(-1).square())

    class Rows:
        def documents(self) -> Any:
            return (Document(f"d{i}", {"x": torch.ones(3).numpy() * i}, {}) for i in range(4))

    recipe = Recipe(steps=1, betas=(0.9, 0.9), grad_clip=None, batch_size=4)
    run = train(task, Rows(), recipe, out=tmp_path / "a", progress=False)  # type: ignore[arg-type]
    state = read_second_moments(run.checkpoints[0], model)
    gradients = {name: p.grad.double().square() for name, p in model.named_parameters()}  # type: ignore[union-attr]
    for name, square in gradients.items():
        torch.testing.assert_close(state.full(name), square, rtol=1e-4, atol=1e-12)
    only = read_second_moments(run.checkpoints[0].path, model, names=["0.weight"])
    assert only.names == ["0.weight"]
    with pytest.raises(InputError, match="No second moment for nothing"):
        read_second_moments(run.checkpoints[0], model, names=["nothing"])
    with pytest.raises(InputError, match=r"0\.bias has no row and column"):
        state.factors("0.bias")
    with pytest.raises(MismatchError, match="does not fit"):
        read_second_moments(run.checkpoints[0], nn.Sequential(nn.Linear(3, 4)))
    sgd = Recipe(steps=1, optimizer="sgd", momentum=0.9)
    run = train(task, Rows(), sgd, out=tmp_path / "b", progress=False)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"no second moments.*found sgd"):
        read_second_moments(run.checkpoints[0], model)


class Surprise:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/tmp/headwater-was-unpickled"),))


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    torch.save({"state": {}, "param_groups": [], "extra": Surprise()}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="pickles are never loaded"):
        read_second_moments(tmp_path, llama())
    assert not Path("/tmp/headwater-was-unpickled").exists()


def test_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no optimizer state"):
        read_second_moments(tmp_path, llama())
    with pytest.raises(InputError, match="No such optimizer state"):
        read_second_moments(tmp_path / "optimizer.pt", llama())
    (tmp_path / "optimizer.pt").write_bytes(b"")
    with pytest.raises(InputError, match="another kind"):
        read_second_moments(tmp_path, llama())
    (tmp_path / "optimizer.pt").write_bytes(b"PK\x03\x04 and no archive")
    with pytest.raises(InputError, match="cannot be read"):
        read_second_moments(tmp_path, llama())
    torch.save({"weight": torch.ones(1)}, tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match="found weight"):
        read_second_moments(tmp_path, llama())
    (tmp_path / "optimizer.safetensors").write_bytes(b"1234567")
    with pytest.raises(InputError, match="cannot be read"):
        read_second_moments(tmp_path, llama())
