"""A task at a checkpoint and back, bit for bit, whatever happens in between."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import headwater as hw
from headwater.engine.errors import InputError, MismatchError
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.visit import at, checkpoint_of, restoring
from models import Mlp, byte_tokenizer, class_loss, tiny_llama


def bits(model: torch.nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def saved(folder: Path, model: torch.nn.Module) -> Path:
    folder.mkdir()
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        str(folder / "model.safetensors"),
    )
    return folder


def test_there_and_back(tmp_path: Path) -> None:
    other = Mlp(seed=1)
    folder = saved(tmp_path / "checkpoint-7", other)
    task = hw.Task(Mlp(seed=0), class_loss)
    before = bits(task.model)
    run = TrainingRun((Checkpoint(tmp_path / "not there"), Checkpoint(folder, 7)))
    for place in (Checkpoint(folder), folder, str(folder), run):
        with at(task, place):
            assert bits(task.model) == bits(other)
        assert bits(task.model) == before
        with pytest.raises(ZeroDivisionError), at(task, place):
            raise ZeroDivisionError
        assert bits(task.model) == before
    with at(task, None):
        assert bits(task.model) == before


def test_a_checkpoint_that_does_not_fit_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    task = hw.Task(Mlp(seed=0), class_loss)
    before = bits(task.model)
    folder = saved(tmp_path / "wide", Mlp((6, 9, 5)))
    with pytest.raises(MismatchError), at(task, folder):
        pass
    assert bits(task.model) == before
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoint_of(TrainingRun(()))
    with pytest.raises(InputError, match="No such training run"), at(task, tmp_path / "none"):
        pass


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    other = tiny_llama(seed=1)
    other.save_pretrained(str(tmp_path / "m"))
    assert "lm_head.weight" not in load_file(str(tmp_path / "m" / "model.safetensors"))
    model = tiny_llama(seed=0)
    task = hw.Task(model, class_loss)
    before = bits(model)
    with at(task, tmp_path / "m"):
        assert bits(model) == bits(other)
        assert model.lm_head.weight is model.get_input_embeddings().weight
    assert bits(model) == before
    assert model.lm_head.weight is model.get_input_embeddings().weight


class Counting(torch.nn.Module):
    """Puts another tensor in its buffer's place."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 2)
        self.register_buffer("seen", torch.zeros(1))
        self.register_buffer("inplace", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = self.seen + 1
        self.inplace += 1
        return self.linear(x)


def test_buffers_and_odd_bits() -> None:
    model = Counting()
    with torch.no_grad():
        model.linear.bias.copy_(torch.tensor([-0.0, float("nan")]))
    before, buffer = bits(model), model.seen
    with restoring(model):
        model(torch.ones(1, 2))
        with torch.no_grad():
            model.linear.bias.add_(1)
            model.linear.weight.zero_()
        assert float(model.seen) == float(model.inplace) == 1
    assert bits(model) == before
    assert model.seen is buffer


def test_checkpoints_that_hold_an_adapter_only(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def adapted(rank: int = 2) -> Any:
        torch.manual_seed(rank)
        config = LoraConfig(r=rank, target_modules=["q_proj"], modules_to_save=["norm"])
        return get_peft_model(tiny_llama(dtype=torch.float32), config)

    model = adapted()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path / "checkpoint-3")
    changed = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(before)
    task = hw.CausalLM(model, byte_tokenizer())
    with at(task, tmp_path / "checkpoint-3"):
        now = task.model.state_dict()
        assert all(torch.equal(now[name], changed[name]) for name in changed)
    after = task.model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    with (
        pytest.raises(MismatchError, match="adapter"),
        at(hw.CausalLM(adapted(3), byte_tokenizer()), tmp_path / "checkpoint-3"),
    ):
        pass
    plain = hw.CausalLM(tiny_llama(dtype=torch.float32), byte_tokenizer())
    with pytest.raises(MismatchError, match="adapter"), at(plain, tmp_path / "checkpoint-3"):
        pass
