"""An optimizer's state becomes a correction in the right orientation, and in no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.engine.errors import InputError, MismatchError
from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features
from headwater.tasks.causal_lm import CausalLM
from headwater.training.run import Checkpoint, TrainingRun
from headwater.training.second_moment import load_second_moment
from models import byte_tokenizer, tiny_gpt2, tiny_llama


def trained(make: Any) -> tuple[CausalLM, torch.optim.Optimizer]:
    model = make(dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.99))
    ids = torch.arange(20).reshape(2, 10)
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    return CausalLM(model.eval(), byte_tokenizer()), optimizer


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_factors_are_means_over_out_and_in(make: Any) -> None:
    task, optimizer = trained(make)
    moment = load_second_moment(optimizer, task, "all", exact=True)
    named = dict(task.model.named_parameters())
    gradients = Gradients(task, Features(parameters="all", projection=None))
    assert moment.factors.keys() == gradients.parameters.keys()
    for name, parameter in gradients.parameters.items():
        v = optimizer.state[named[name]]["exp_avg_sq"].double().numpy() / (1 - 0.99**3)
        if parameter.kind == "conv1d":
            v = v.T
        v = v.reshape(parameter.rows, parameter.columns)
        np.testing.assert_allclose(moment.full[name], v, rtol=1e-6)
        np.testing.assert_allclose(moment.factors[name][0], v.mean(axis=1), rtol=1e-6)
        np.testing.assert_allclose(moment.factors[name][1], v.mean(axis=0), rtol=1e-6)


def test_conv1d_has_two_different_sides() -> None:
    """So that the test above could tell a transposed state."""
    task, optimizer = trained(tiny_gpt2)
    moment = load_second_moment(optimizer, task)
    assert not moment.exact
    row, column = moment.factors["transformer.h.0.attn.c_attn.weight"]
    assert (len(row), len(column)) == (48, 16)


def test_from_a_file_of_torch(tmp_path: Path) -> None:
    task, optimizer = trained(tiny_llama)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    inside = load_second_moment(optimizer, task)
    for source in (tmp_path, tmp_path / "optimizer.pt"):
        read = load_second_moment(source, task)
        assert read.label == inside.label == "adam, step 3"
        for name, (row, _) in inside.factors.items():
            np.testing.assert_array_equal(read.factors[name][0], row)
    run = TrainingRun((Checkpoint(tmp_path, optimizer=tmp_path / "optimizer.pt"),))
    assert run.second_moment(task, exact=True).exact
    assert run.second_moment(task).digest == inside.digest


def test_an_adapter_loaded_for_inference() -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model: Any = get_peft_model(tiny_llama(dtype=torch.float32), config)
    learnt = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-3)
    ids = torch.arange(20).reshape(2, 10)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    task = CausalLM(model, byte_tokenizer())
    moment = load_second_moment(optimizer, task)
    assert all("lora_" in name for name in moment.factors)
    assert not any(p.requires_grad for p in model.parameters())
    with pytest.raises(MismatchError, match="no second moment"):
        load_second_moment(optimizer, task, "linear+base")


def test_what_is_no_state(tmp_path: Path) -> None:
    task, _ = trained(tiny_llama)
    with pytest.raises(InputError, match="nowhere"):
        load_second_moment(tmp_path / "nowhere", task)
    sgd = torch.optim.SGD(task.model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="no second moments"):
        load_second_moment(sgd, task)
