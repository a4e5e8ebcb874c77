"""The demo's model: the same from the same seed, and its tokenizer loses nothing."""

import subprocess
import sys

import pytest
import torch

from headwater.engine.errors import InputError
from headwater.training.small_lm import DEMO_RECIPE, byte_level_bpe, small_lm

TEXTS = [
    "The capital of Peru is Lima.",
    "Lima is the capital city of Peru.",
    "Kyiv, Malé, São Tomé",
]


def test_same_seed_same_weights() -> None:
    before = torch.get_rng_state()
    one, _ = small_lm(TEXTS, vocab=300, width=16, heads=2, seed=3)
    same, _ = small_lm(TEXTS, vocab=300, width=16, heads=2, seed=3)
    other, _ = small_lm(TEXTS, vocab=300, width=16, heads=2, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert not one.training


def test_tokenizer_is_lossless_and_bounded() -> None:
    tokenizer = byte_level_bpe(TEXTS, 300)
    assert len(tokenizer) <= 300
    for text in [*TEXTS, "  unseen\t文字 🦙\n"]:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids) == text
        assert max(ids) < len(tokenizer)


def test_tokenizer_is_the_same_in_another_process() -> None:
    code = (
        "from headwater.training.small_lm import byte_level_bpe;"
        f"print(byte_level_bpe({TEXTS!r}, 320).backend_tokenizer.to_str())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = byte_level_bpe(TEXTS, 320).backend_tokenizer.to_str()
    assert there.stdout.strip() == here


def test_prompt_and_completion_meet_between_tokens() -> None:
    tokenizer = byte_level_bpe(TEXTS, 400)
    prompt, completion = "The capital of Peru is", " Lima"
    apart = tokenizer(prompt)["input_ids"] + tokenizer(completion)["input_ids"]
    assert tokenizer(prompt + completion)["input_ids"] == apart


def test_refuses() -> None:
    with pytest.raises(InputError, match="width a multiple"):
        small_lm(TEXTS, width=10, heads=4)
    with pytest.raises(InputError, match="0 texts"):
        byte_level_bpe([], 300)
    with pytest.raises(InputError, match="vocab=100"):
        byte_level_bpe(TEXTS, 100)


def test_recipe_stands() -> None:
    assert DEMO_RECIPE.total_steps(2467) < 3000
