"""Captured gradients equal one-by-one autograd in float64, for every sort of layer and use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headwater.gradients.compute import Gradients
from headwater.gradients.features import Features, LayerBlocks, TwoSided
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.task import Chunk, Task
from models import (
    Mlp,
    brute_force,
    byte_tokenizer,
    class_loss,
    explicit,
    naive_loss,
    relative,
    tiny_gpt2,
    tiny_llama,
    token_chunk,
)

EXACT = 1e-9
CHUNKS = [token_chunk(9, seed=1), token_chunk(5, seed=2, hidden=(0, 1, 3)), token_chunk(12, seed=3)]
PAD = int(CHUNKS[0].content["input_ids"][4])

MODELS: dict[str, Any] = {
    "llama, tied": tiny_llama,
    "llama, untied, biases": lambda: tiny_llama(tied=False, attention_bias=True, mlp_bias=True),
    "llama whose padding token is used": lambda: tiny_llama(pad_token_id=PAD),
    "gpt2": tiny_gpt2,
}
PROJECTIONS = [None, TwoSided(4, 3), LayerBlocks(4, 3)]


def errors(task: Task, chunks: list[Chunk], loss: Any, **features: Any) -> list[float]:
    """Relative error of each chunk's features, all of them computed in one batch."""
    gradients = Gradients(task, Features(**features))
    made = gradients.batch(chunks)
    assert made.u.dtype == torch.float64
    return [
        relative(u, explicit(gradients, brute_force(task.model, loss(chunk))))
        for u, chunk in zip(made.u, chunks, strict=True)
    ]


@pytest.mark.parametrize("projection", PROJECTIONS, ids=["full", "two-sided", "blocks"])
@pytest.mark.parametrize("parameters", ["linear", "all"])
@pytest.mark.parametrize("model", MODELS)
def test_language_models(model: str, parameters: str, projection: Any) -> None:
    task = CausalLM(MODELS[model](), byte_tokenizer())
    found = errors(
        task,
        CHUNKS,
        lambda chunk: naive_loss(task.model, chunk),
        parameters=parameters,
        projection=projection,
    )
    assert max(found) < EXACT


def test_tied_weight_is_counted_once_with_both_uses() -> None:
    task = CausalLM(tiny_llama(), byte_tokenizer())
    gradients = Gradients(task, Features(projection=None, parameters="all"))
    total = sum(p.numel() for p in task.model.parameters())
    assert gradients.layout.size == total == gradients.coverage["attributed"]
    assert gradients.coverage["share"] == 1.0
    assert gradients.coverage["missing"] == {}
    table = "model.embed_tokens.weight"
    assert [use.module for use in gradients.uses if use.parameter.name == table] == [
        "model.embed_tokens",
        "lm_head",
    ]


def test_linear_leaves_out_the_head_and_says_what_is_missing() -> None:
    task = CausalLM(tiny_llama(tied=False), byte_tokenizer())
    gradients = Gradients(task, Features())
    assert not any("lm_head" in name or "norm" in name for name in gradients.parameters)
    missing = gradients.coverage["missing"]
    assert missing == {"Linear": 320 * 16, "Embedding": 320 * 16, "LlamaRMSNorm": 5 * 16}
    assert gradients.coverage["attributed"] + sum(missing.values()) == gradients.coverage["total"]


def test_head_by_a_filter_when_it_has_a_weight_of_its_own() -> None:
    task = CausalLM(tiny_llama(tied=False), byte_tokenizer())
    found = errors(
        task,
        CHUNKS,
        lambda chunk: naive_loss(task.model, chunk),
        parameters=lambda name, module: name in ("lm_head", "model.layers.1.mlp.up_proj"),
        projection=None,
    )
    assert max(found) < EXACT


class Odd(torch.nn.Module):
    """Layers called in unusual ways."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.scale = torch.nn.Parameter(torch.randn(6))
        self.inner = torch.nn.Linear(6, 6)
        self.one = torch.nn.Linear(1, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.out = torch.nn.Linear(6, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * self.scale
        x = torch.tanh(self.inner(input=x))  # by name
        x = torch.relu_(self.inner(x)) + self.one(x[:, :1])  # twice; changed in place
        rows = self.norm(x.reshape(len(x) * 2, 3).repeat(1, 2))  # two rows to each example
        return self.out(rows).reshape(len(x), 2, 5).sum(dim=1)


class ConvNet(torch.nn.Module):
    """Convolutions, a batch norm in eval mode, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = torch.nn.Conv2d(2, 3, 3, stride=2, padding=1)
        self.norm = torch.nn.BatchNorm2d(3)
        self.act = torch.nn.ReLU(inplace=True)
        self.deep = torch.nn.Conv2d(3, 4, 2, groups=1, bias=False)
        self.out = torch.nn.Linear(4, 5)
        self.norm.running_mean.copy_(torch.randn(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.deep(self.act(self.norm(self.conv(x)))).mean(dim=(2, 3)))


def columns(n: int, *shape: int) -> list[Chunk]:
    rng = np.random.default_rng(0)
    return [Chunk({"x": rng.normal(size=shape), "y": rng.integers(0, 5)}, 0, 1) for _ in range(n)]


def own_loss(task: Task) -> Any:
    def loss(chunk: Chunk) -> torch.Tensor:
        x = torch.as_tensor(chunk.content["x"])[None]
        y = torch.as_tensor(chunk.content["y"])[None]
        return torch.nn.functional.cross_entropy(task.model(x), y)

    return loss


@pytest.mark.parametrize("projection", [None, TwoSided(3, 2)], ids=["full", "two-sided"])
@pytest.mark.parametrize("parameters", ["linear", "all"])
@pytest.mark.parametrize(
    ("net", "shape"), [(Mlp, (6,)), (Odd, (6,)), (ConvNet, (2, 7, 7))], ids=["mlp", "odd", "conv"]
)
def test_general_tasks(net: Any, shape: tuple[int, ...], parameters: str, projection: Any) -> None:
    task = Task(net().double().eval(), class_loss)
    chunks = columns(4, *shape)
    found = errors(task, chunks, own_loss(task), parameters=parameters, projection=projection)
    assert max(found) < EXACT


class Positions(torch.nn.Module):
    """A small transformer in the way of nanoGPT: positions looked up as [tokens]."""

    def __init__(self, batched: bool) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.batched = batched
        self.words = torch.nn.Embedding(11, 6, padding_idx=3)
        self.positions = torch.nn.Embedding(8, 6)
        self.out = torch.nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1])
        places = self.positions(places[None] if self.batched else places)
        return self.out(torch.tanh(self.words(x) + places)).sum(dim=1)


@pytest.mark.parametrize("batched", [True, False])
def test_positions_are_looked_up_once_for_a_batch(batched: bool) -> None:
    task = Task(Positions(batched).double().eval(), class_loss)
    rng = np.random.default_rng(0)
    # as many examples as tokens: shapes alone cannot tell the two apart
    chunks = [Chunk({"x": rng.integers(0, 11, 4), "y": rng.integers(0, 5)}, 0, 1) for _ in range(4)]
    found = errors(task, chunks, own_loss(task), parameters="all", projection=None)
    assert max(found) < EXACT


class Scaled(torch.nn.Embedding):
    """An embedding that scales what it looks up, as Gemma 3 does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 4.0


def test_an_embedding_that_scales() -> None:
    net = Positions(True)
    net.words = Scaled(11, 6, padding_idx=3)
    task = Task(net.double().eval(), class_loss)
    rng = np.random.default_rng(0)
    chunks = [Chunk({"x": rng.integers(0, 11, 4), "y": rng.integers(0, 5)}, 0, 1) for _ in range(3)]
    found = errors(task, chunks, own_loss(task), parameters="all", projection=None)
    assert max(found) < EXACT


def with_lora(model: Any, **options: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=3, lora_alpha=6, lora_dropout=0.3, task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(model, config)
    torch.manual_seed(7)
    with torch.no_grad():  # a fresh B is zero, and would hide A's gradient
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    return adapted


@pytest.mark.parametrize("projection", [None, TwoSided(4, 4)], ids=["full", "two-sided"])
@pytest.mark.parametrize("parameters", ["linear", "linear+base"])
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def test_lora(make: Any, parameters: str, projection: Any) -> None:
    targets = ["c_attn", "c_fc"] if make is tiny_gpt2 else ["q_proj", "v_proj", "down_proj"]
    model = with_lora(make(), target_modules=targets, fan_in_fan_out=make is tiny_gpt2).double()
    model.eval()
    for parameter in model.parameters():  # so that the yardstick has the base's gradients too
        parameter.requires_grad_(True)
    task = CausalLM(model, byte_tokenizer())
    found = errors(
        task,
        CHUNKS,
        lambda chunk: naive_loss(task.model, chunk),
        parameters=parameters,
        projection=projection,
    )
    assert max(found) < EXACT
    names = list(Gradients(task, Features(parameters=parameters)).parameters)
    adapters = [name for name in names if "lora_" in name]
    assert len(adapters) == 2 * 2 * len(targets)
    assert (len(names) > len(adapters)) == (parameters == "linear+base")
    assert not any("lm_head" in name for name in names)


def test_compiled_wrapper_train_mode_dropout_and_checkpointing_change_nothing() -> None:
    plain = tiny_gpt2()
    gradients = Gradients(CausalLM(plain, byte_tokenizer()), Features(projection=None))
    expected = gradients.batch(CHUNKS).u
    model = tiny_gpt2()
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    model.transformer.h[0].eval()
    frozen = model.transformer.wte.weight.requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    task = CausalLM(torch.compile(model), byte_tokenizer())
    assert task.model is model
    found = Gradients(task, Features(projection=None)).batch(CHUNKS).u
    assert relative(found, expected) < EXACT
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not frozen.requires_grad
    assert model.transformer.h[0].attn.c_attn.weight.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


def test_nothing_is_left_on_the_model() -> None:
    model = tiny_llama()
    gradients = Gradients(CausalLM(model, byte_tokenizer()), Features(parameters="all"))
    gradients.batch(CHUNKS)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
