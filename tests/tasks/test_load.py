"""Models by folder: loaded whole or refused; weights that do not fit never pass for a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from headwater.engine.errors import InputError
from headwater.tasks.causal_lm import CausalLM
from models import byte_tokenizer, relative, tiny_llama, token_chunk


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    tiny_llama(dtype=torch.float32).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def refused(folder: str | Path, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as error:
        CausalLM.load(str(folder), device="cpu", **options)
    assert "\n" not in str(error.value)


def test_a_folder(folder: Path) -> None:
    task = CausalLM.load(str(folder), dtype="float64", device="cpu", max_length=16)
    own = CausalLM(tiny_llama(dtype=torch.float32).double(), byte_tokenizer(), max_length=16)
    batch = own.collate([token_chunk(9)])
    assert torch.equal(task.loss(batch), own.loss(batch))
    assert task.describe() == own.describe()
    assert task.source == {"name": str(folder), "dtype": "float64", "adapter": None}
    low = CausalLM.load(str(folder), dtype="bfloat16", device="cpu")
    assert next(low.model.parameters()).dtype == torch.bfloat16


def test_an_adapter(folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_llama(dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    adapted.save_pretrained(tmp_path / "adapter")
    task = CausalLM.load(str(folder), device="cpu", adapter=str(tmp_path / "adapter"))
    batch = task.collate([token_chunk(9)])
    with torch.no_grad():
        right = CausalLM(adapted, byte_tokenizer()).loss(batch)
        assert relative(task.loss(batch), right) < 1e-6
        assert relative(CausalLM.load(str(folder), device="cpu").loss(batch), right) > 1e-3
    refused(folder, "adapter", adapter=str(tmp_path / "nowhere"))


def test_names_that_are_nothing(tmp_path: Path) -> None:
    refused("no-such-model", "no such model")
    refused(tmp_path, "could not be loaded")


def test_options_that_are_wrong(folder: Path) -> None:
    refused(folder, "Unknown dtype", dtype="float7")
    refused(folder, "Unknown dtype", dtype="Tensor")
    refused(folder, "max_length", max_length=4096)
    with pytest.raises(InputError, match="device"):
        CausalLM.load(str(folder), device="cuda:99")


def test_autocast_keeps_float32_weights(folder: Path) -> None:
    task = CausalLM.load(str(folder), dtype="autocast")
    assert task.describe()["dtype"] == task.source["dtype"] == "autocast"
    assert next(task.model.parameters()).dtype == torch.float32
    assert task.autocast == torch.bfloat16


def changed(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_weight_that_is_missing(folder: Path) -> None:
    changed(folder, lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "up_proj")


def test_weights_of_another_size(folder: Path) -> None:
    def smaller(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 16)

    changed(folder, smaller)
    refused(folder, "could not be loaded")


def test_a_layer_that_the_configuration_does_not_know(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    task = CausalLM.load(str(folder), device="cpu")
    assert "layers.1" in task.notes[0]


def test_a_file_that_is_cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    refused(folder, "could not be loaded")


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    refused(folder, "could not be loaded|fast tokenizer")
