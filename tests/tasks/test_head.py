"""The fused head equals the plain one, value and gradient; heads that do more are noticed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from headwater.tasks import head as head_module
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.head import head_loss, logits_loss
from headwater.tasks.task import evaluating
from models import byte_tokenizer, naive_loss, tiny_gpt2, tiny_llama, token_chunk


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("margin", [True, False])
def test_fused_equals_plain(
    margin: bool, bias: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head_module, "BLOCK_BYTES", rows * 13 * 4)
    torch.manual_seed(0)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = 2 * torch.randn(13, 5, dtype=torch.float64)
    b = torch.randn(13, dtype=torch.float64) if bias else None
    labels = torch.randint(0, 13, (7,))
    scale = torch.randn(7, dtype=torch.float64)

    fused, rest = head_loss(hidden, weight, b, labels, margin=margin)
    (found,) = torch.autograd.grad((fused * scale).sum(), hidden)
    logits = torch.nn.functional.linear(hidden, weight, b)
    p = logits.softmax(dim=1)[torch.arange(7), labels]
    right = -torch.log(p / (1 - p)) if margin else -torch.log(p)
    (expected,) = torch.autograd.grad((right * scale).sum(), hidden, retain_graph=True)
    plain, plain_rest = logits_loss(logits, labels, margin=margin)
    (plain_gradient,) = torch.autograd.grad((plain * scale).sum(), hidden)

    for value in (fused, plain):
        torch.testing.assert_close(value, right, rtol=1e-11, atol=1e-12)
    for value in (rest, plain_rest):
        torch.testing.assert_close(value, 1 - p, rtol=1e-11, atol=1e-12)
        assert not value.requires_grad
    for value in (found, plain_gradient):
        torch.testing.assert_close(value, expected, rtol=1e-11, atol=1e-12)


def test_low_precision_is_summed_in_float32() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(4, 5, dtype=torch.bfloat16, requires_grad=True)
    loss, _ = head_loss(hidden, torch.randn(9, 5, dtype=torch.bfloat16), None, torch.arange(4))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert hidden.grad is not None
    assert hidden.grad.dtype == torch.bfloat16


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]])
    for margin in (True, False):
        loss, rest = head_loss(hidden, weight, None, torch.tensor([0, 0]), margin=margin)
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert rest.tolist() == [0.0, 1.0]
        assert torch.isfinite(hidden.grad).all()  # type: ignore[arg-type]


def gemma2(**options: Any) -> Any:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=4,
        max_position_embeddings=64,
        **options,
    )
    return Gemma2ForCausalLM(config).double().eval()


def capped() -> Any:
    return gemma2(final_logit_softcapping=30.0)  # logits of 0.1: the cap moves them by 1e-6


def uncapped() -> Any:
    return gemma2(final_logit_softcapping=None)


def scaled() -> Any:
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=320,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=4.0,
        max_position_embeddings=64,
    )
    return GraniteForCausalLM(config).double().eval()


def biased() -> Any:
    model = tiny_llama(tied=False)
    model.lm_head = torch.nn.Linear(16, 320).double()
    return model


def stub() -> Any:
    """A network without a base model to call by itself."""
    model = tiny_llama()
    model.base_model_prefix = "nowhere"
    return model


@pytest.mark.parametrize(
    ("make", "fuses"),
    [
        (tiny_llama, True),
        (tiny_gpt2, True),
        (uncapped, True),
        (biased, True),
        (capped, False),
        (scaled, False),
        (stub, False),
    ],
)
def test_what_may_be_fused_is_found_by_a_probe(make: Any, fuses: bool) -> None:
    model = make()
    task = CausalLM(model, byte_tokenizer())
    chunks = [token_chunk(7, seed=1), token_chunk(11, seed=2, hidden=(0, 4, 5))]
    with evaluating(model):
        loss = task.loss(task.collate(chunks))
    assert task._fused is fuses
    right = [float(naive_loss(model, chunk).detach()) for chunk in chunks]
    assert loss.tolist() == pytest.approx(right, rel=1e-10)
    # with parameters that learn, the plain way gives the same
    plain = task.loss(task.collate(chunks))
    assert plain.tolist() == pytest.approx(right, rel=1e-10)
    plain.sum().backward()
    assert model.get_output_embeddings().weight.grad.abs().sum() > 0


def test_low_precision_models_are_fused_too() -> None:
    task = CausalLM(tiny_llama(dtype=torch.bfloat16), byte_tokenizer())
    with evaluating(task.model):
        task.loss(task.collate([token_chunk(7)]))
    assert task._fused is True
