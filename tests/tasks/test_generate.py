"""Generation against plain forward passes: its tokens, their probabilities, its independence."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from headwater.engine.errors import InputError, NumericError
from headwater.tasks.causal_lm import CausalLM
from headwater.tasks.generate import (
    completion_for,
    end_tokens,
    generate,
    prompt_tokens,
    stream,
    text_between,
)
from headwater.tasks.sampling import Sampling, draw
from models import SENTENCES, TEMPLATE, byte_tokenizer, tiny_gpt2, tiny_llama

PROMPTS = ["The capital of", "A river runs", "the cat sat on the mat; the", "Lima"]


def task(model: Any = None, **options: Any) -> CausalLM:
    return CausalLM(model or tiny_llama(eos_token_id=319), byte_tokenizer(**options))


def distributions(one: CausalLM, ids: list[int]) -> np.ndarray[Any, Any]:
    """Softmax of the logits of one whole pass, float64 [tokens, vocabulary]."""
    with torch.no_grad():
        logits = one.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    return torch.softmax(logits, dim=-1).numpy()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_probabilities_are_those_of_a_pass_without_cache(make: Any, dtype: torch.dtype) -> None:
    one = task(make(dtype=dtype))
    made = generate(one, PROMPTS, samples=3, max_tokens=12, temperature=1.3, top_k=0, top_p=1.0)
    assert [(g.index, g.sample) for g in made] == [(i, s) for i in range(4) for s in range(3)]
    for g in made:
        before = len(g.prompt_ids)
        rows = distributions(one, g.prompt_ids + g.ids)
        naive = [rows[before + i - 1, token] for i, token in enumerate(g.ids)]
        np.testing.assert_allclose(g.p, naive, rtol=1e-5)
        assert len(g.ids) == 12 or g.end == "eos"


def test_probabilities_are_untempered() -> None:
    """Drawn at temperature 0.1 from two candidates: p is still of the whole distribution."""
    one = task()
    for g in generate(one, PROMPTS, max_tokens=8, temperature=0.1, top_k=2, top_p=0.5):
        rows = distributions(one, g.prompt_ids + g.ids)
        naive = [rows[len(g.prompt_ids) + i - 1, t] for i, t in enumerate(g.ids)]
        np.testing.assert_allclose(g.p, naive, rtol=1e-9)
        assert min(g.p) < 0.5


def test_greedy_is_the_argmax() -> None:
    one = task()
    made = generate(one, PROMPTS, samples=4, max_tokens=10, temperature=0)
    assert len(made) == len(PROMPTS)  # one sample: the others would be equal
    for g in made:
        ids = list(g.prompt_ids)
        for token in g.ids:
            assert token == int(distributions(one, ids)[-1].argmax())
            ids.append(token)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    one = task()
    options: dict[str, Any] = {"max_tokens": 10, "temperature": 1.0, "top_p": 0.95, "seed": 7}
    whole = generate(one, PROMPTS, samples=3, **options)
    alone = generate(one, PROMPTS, samples=3, batch=1, **options)
    fewer = generate(one, PROMPTS[:2], samples=2, batch=3, **options)
    assert [g.ids for g in whole] == [g.ids for g in alone]
    kept = [g.ids for g in whole if g.index < 2 and g.sample < 2]
    assert kept == [g.ids for g in fewer]
    assert len({tuple(g.ids) for g in whole}) == len(whole)  # each has draws of its own
    other = generate(one, PROMPTS, samples=3, **(options | {"seed": 8}))
    assert [g.ids for g in whole] != [g.ids for g in other]


def test_rows_that_end_leave_the_others_as_they_are() -> None:
    """With an end that comes often, rows of one batch stop at different places."""
    model = tiny_llama(tied=False)
    one = task(model)
    free = generate(one, ["Lima"] * 8, max_tokens=12, temperature=1.5, top_k=0, top_p=1.0)
    often = Counter(token for g in free for token in g.ids[2:]).most_common(1)[0][0]
    model.generation_config.eos_token_id = [often]
    assert end_tokens(one) == {often, 1}
    ended = generate(one, ["Lima"] * 8, max_tokens=12, temperature=1.5, top_k=0, top_p=1.0)
    assert {g.end for g in ended} == {"eos", "length"}
    for g, whole in zip(ended, free, strict=True):
        stops = [i for i, token in enumerate(whole.ids) if token in (often, 1)]
        assert g.ids == (whole.ids[: stops[0]] if stops else whole.ids)
        assert len(g.p) == len(g.ids)


def test_draws_follow_the_cut_and_tempered_distribution() -> None:
    """Frequencies of 20,000 draws: top-k 4 of 6, then the fewest that hold 0.8 of what is left."""
    p = np.array([0.04, 0.3, 0.1, 0.25, 0.2, 0.11])
    logits = torch.log(torch.tensor(p))[None]
    tempered = p ** (1 / 0.7)
    four = np.sort(tempered)[::-1][:4]
    shares = four / four.sum()
    keep = (np.cumsum(shares) - shares) < 0.8
    right = shares * keep / (shares * keep).sum()
    generator = np.random.default_rng(0)
    count = 20_000
    tokens, chances = draw(
        logits.expand(count, 6), Sampling(0.7, top_k=4, top_p=0.8), [generator] * count
    )
    found = np.bincount(tokens, minlength=6) / count
    order = np.argsort(-p)[:4]
    np.testing.assert_allclose(found[order], right, atol=0.015)
    assert found.sum() == pytest.approx(found[order].sum())
    np.testing.assert_allclose(chances, p[tokens], rtol=1e-9)


def test_ties_are_broken_by_the_lowest_id() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0]], dtype=torch.float64)
    assert draw(logits, Sampling(0), [np.random.default_rng(0)])[0] == [1]


def test_text_is_that_of_the_tokens_and_stops_before_a_stop() -> None:
    one = task()
    (free,) = generate(one, ["The capital of"], max_tokens=20, temperature=0)
    tokenizer = one.tokenizer
    assert free.text == tokenizer.decode(free.ids)
    start = len(free.prompt_ids)
    ids = free.prompt_ids + free.ids
    assert text_between(tokenizer, ids, start) == free.text
    stop = free.text[6:8]
    (cut,) = generate(one, ["The capital of"], max_tokens=20, temperature=0, stop=[stop])
    assert cut.end == "stop"
    assert cut.text == free.text[: free.text.index(stop)]
    assert cut.ids == free.ids[: len(cut.ids)]
    assert len(cut.p) == len(cut.ids)
    assert len(tokenizer.decode(cut.ids[:-1])) < len(cut.text) <= len(tokenizer.decode(cut.ids))


def test_stream_gives_what_generate_gives() -> None:
    one = task()
    for seed, temperature in ((0, 0.0), (1, 1.2), (2, 1.2)):
        options: dict[str, Any] = {"max_tokens": 16, "temperature": temperature, "seed": seed}
        pieces = list(stream(one, "A river runs", **options))
        (made,) = generate(one, ["A river runs"], **options)
        assert "".join(piece.text for piece in pieces) == made.text
        assert [piece.id for piece in pieces][: len(made.ids)] == made.ids
        np.testing.assert_allclose([piece.p for piece in pieces][: len(made.p)], made.p, rtol=1e-9)


def test_stream_holds_back_half_a_character(monkeypatch: pytest.MonkeyPatch) -> None:
    import headwater.tasks.generate as module

    one = task()
    ids = one.tokenizer("é à", add_special_tokens=False)["input_ids"]
    assert len(ids) == 5  # bytes: two for each letter, one space
    monkeypatch.setattr(module, "_steps", lambda *_: (([i], [0.5]) for i in [*ids, 1]))
    assert [piece.text for piece in stream(one, "a", max_tokens=9)] == ["", "é", " ", "", "à"]


def test_a_waiting_stream_leaves_the_model_alone() -> None:
    one = task()
    one.model.train()
    pieces = stream(one, "A river runs", max_tokens=3)
    next(pieces)
    assert torch.is_grad_enabled()
    assert one.model.training
    assert all(parameter.requires_grad for parameter in one.model.parameters())


def test_a_model_without_a_cache_reads_everything_again() -> None:
    one = task()
    forward = one.model.forward

    def without(**options: Any) -> Any:
        out = forward(**{**options, "use_cache": False, "past_key_values": None})
        out.past_key_values = None
        return out

    right = generate(one, PROMPTS[:2], max_tokens=6)
    one.model.forward = without
    assert [g.ids for g in generate(one, PROMPTS[:2], max_tokens=6)] == [g.ids for g in right]


def test_bos_and_chat_prompts() -> None:
    tokenizer = byte_tokenizer(specials=True, template=TEMPLATE)
    one = CausalLM(tiny_llama(eos_token_id=319), tokenizer)
    assert prompt_tokens(one, "") == [0]
    (made,) = generate(one, [""], max_tokens=3, temperature=0)
    assert made.prompt_ids == [0]
    messages = [{"role": "user", "content": "Lima?"}]
    (said,) = generate(one, [messages], max_tokens=3, temperature=0)
    read = tokenizer.decode(said.prompt_ids)
    assert read == "<|user|>Lima?<|end|><|assistant|>"


def test_completion_for_is_greedy_and_fits_the_window() -> None:
    one = CausalLM(tiny_llama(eos_token_id=319), byte_tokenizer(), max_length=12)
    prompt = SENTENCES[0][:20]
    made = completion_for(one, prompt)
    used = len(made.prompt_ids)
    assert len(made.ids) == 12 - used
    (greedy,) = generate(one, [prompt], max_tokens=12 - used, temperature=0)
    assert made.ids == greedy.ids
    with pytest.raises(InputError, match="fills the model's window.*fewer than 12"):
        completion_for(one, "the cat sat on the mat; the dog sat on the cat " * 2)
    with pytest.raises(InputError, match="max_tokens is too small; expected 1 or more; found 0"):
        completion_for(one, prompt, 0)
    one.model.generation_config.eos_token_id = [made.ids[0]]
    with pytest.raises(InputError, match="says nothing"):
        completion_for(one, prompt)


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        (["Lima", ""], {}, r"Prompt 2 is empty.*no BOS"),
        (["Lima " * 40], {"max_tokens": 10}, r"Prompt 1 leaves no room.*at most 54 tokens"),
        (["Lima"], {"max_tokens": 64}, "leaves no room"),
        (["Lima"], {"max_tokens": 0}, "max_tokens"),
        (["Lima"], {"samples": 0}, "samples"),
        (["Lima"], {"temperature": -1.0}, "temperature"),
        (["Lima"], {"temperature": math.nan}, "temperature"),
        (["Lima"], {"temperature": math.inf}, "temperature"),
        (["Lima"], {"top_k": -2}, "top_k"),
        (["Lima"], {"top_p": 0.0}, "top_p"),
        (["Lima"], {"top_p": 1.5}, "top_p"),
        (["Lima"], {"seed": -1}, "seed"),
        (["Lima"], {"stop": [""]}, "stop text is empty"),
    ],
)
def test_refuses(prompts: list[str], options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        generate(task(), prompts, **({"max_tokens": 4} | options))


def test_a_token_the_model_lacks() -> None:
    one = CausalLM(tiny_llama(vocab_size=50), byte_tokenizer())
    with pytest.raises(InputError, match=r"outside the model's vocabulary.*0 to 49"):
        generate(one, ["Lima"], max_tokens=4)


def test_broken_weights_are_no_text() -> None:
    one = task()
    with torch.no_grad():
        one.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(NumericError, match="not finite"):
        generate(one, ["Lima"], max_tokens=4)
