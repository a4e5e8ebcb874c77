"""Tiny models, a tokenizer and naive arithmetic that several tests share. Nothing is downloaded.

`brute_force` is the yardstick: one example at a time through ordinary autograd, from the model's
own logits, sharing no code with the package.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from headwater.gradients.projection import signs
from headwater.tasks.task import Chunk

SENTENCES = [
    "The capital of Peru is Lima.",
    "Lima is the capital of Peru, and Quito that of Ecuador.",
    "A river runs from its headwater down to the sea.",
    "the cat sat on the mat; the dog sat on the cat",
    "Numbers: 1 2 3 4 5 6 7 8 9 10",
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_tokenizer(*, specials: bool = False, template: str | None = None, vocab: int = 320) -> Any:
    """A byte-level BPE tokenizer trained here; `specials`: it adds <s> and </s> by itself."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=["<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(SENTENCES, trainer)
    if specials:
        ends = [("<s>", raw.token_to_id("<s>")), ("</s>", raw.token_to_id("</s>"))]
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=ends
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


def tiny_llama(
    *, tied: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any
) -> Any:
    """Two layers, grouped-query attention, weights large enough to be far from linear."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return _shaken(LlamaForCausalLM(LlamaConfig(**(sizes | options))), dtype)


def tiny_gpt2(*, dtype: torch.dtype = torch.float64, seed: int = 0, **options: Any) -> Any:
    """Two layers with Conv1D, a fused QKV, biases, learned positions, a tied head, dropout 0.1."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": 320,
        "n_embd": 16,
        "n_layer": 2,
        "n_head": 2,
        "n_positions": 64,
        "initializer_range": 0.2,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    return _shaken(GPT2LMHeadModel(GPT2Config(**(sizes | options))), dtype)


def _shaken(model: Any, dtype: torch.dtype) -> Any:
    """Norms and biases away from ones and zeros, so that none of them hides a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.to(dtype).eval()


class Mlp(torch.nn.Module):
    """Linear layers with an in-place activation between them."""

    def __init__(self, sizes: tuple[int, ...] = (6, 8, 5), *, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[torch.nn.Module] = []
        for one, other in pairwise(sizes):
            layers += [torch.nn.Linear(one, other), torch.nn.ReLU(inplace=True)]
        self.layers = torch.nn.Sequential(*layers[:-1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def class_loss(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cross entropy of each example with columns x and y, [batch]."""
    return torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def class_margin(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-odds of the right class, [batch]."""
    p = torch.exp(-class_loss(model, batch))
    return torch.log(p / (1 - p))


def token_chunk(
    length: int, *, seed: int = 0, vocab: int = 320, hidden: tuple[int, ...] = (0,)
) -> Chunk:
    """Random tokens; positions in `hidden` carry no loss."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, vocab, length).astype(np.int32)
    labels = ids.copy()
    labels[list(hidden)] = -100
    return Chunk({"input_ids": ids, "labels": labels}, 0, length)


def naive_loss(model: Any, chunk: Chunk) -> torch.Tensor:
    """Sum of next-token NLL, from the model's own logits, one example alone."""
    ids = torch.as_tensor(chunk.content["input_ids"]).long()
    labels = torch.as_tensor(chunk.content["labels"]).long()
    logits = model(input_ids=ids[None], use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], labels[1:], reduction="sum")


def brute_force(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Gradient of a scalar by parameter name, zeros where there is none."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        name: torch.zeros_like(p) if g is None else g
        for (name, p), g in zip(named.items(), found, strict=True)
    }


def explicit(
    gradients: Any,
    by_name: dict[str, torch.Tensor],
    *,
    correct: Any = None,
) -> torch.Tensor:
    """The feature vector [size] from whole gradients: P G Q^T written out, float64.

    `correct(name, G)` divides an oriented gradient before it is projected.
    """
    layout, seed = gradients.layout, gradients.features.seed
    u = torch.zeros(layout.size, dtype=torch.float64)
    for name, parameter in gradients.parameters.items():
        g = by_name[name].double()
        g = g.T if parameter.kind == "conv1d" else g.reshape(parameter.rows, parameter.columns)
        if correct is not None:
            g = correct(name, g)
        place = layout.places[name]
        block = place.block
        vector = parameter.columns == 1
        if place.project_out:
            target = block.size if vector else block.rows
            p = signs(seed, name, "out", target, parameter.rows)
            g = torch.from_numpy(p).double() @ g
        if place.project_in and not vector:
            q = signs(seed, name, "in", block.columns, parameter.columns)
            g = g @ torch.from_numpy(q).double().T
        u[block.part] += g.reshape(-1)
    return u


def relative(found: Any, right: Any) -> float:
    """|found - right| / |right|."""
    found, right = torch.as_tensor(found).double(), torch.as_tensor(right).double()
    return float((found - right).norm() / right.norm())
