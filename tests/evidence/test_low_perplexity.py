"""The pipeline of low-perplexity sequences, each step against the naive one, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import headwater as hw
from headwater.corpus.document import Document
from headwater.engine.errors import InputError, NumericError
from headwater.evidence.chance import (
    DRAWS,
    KINDS,
    TOLERANCE,
    Pool,
    Unigrams,
    other_windows,
    replaced_windows,
    shuffled_windows,
)
from headwater.evidence.lookup import AS_THEY_ARE, Lookup, lookup_in
from headwater.evidence.low_perplexity import Settings, memorization
from headwater.evidence.memorization import category
from headwater.evidence.probable_windows import (
    probable_runs,
    probable_windows,
    prompt_overlap,
    prompt_words,
)
from headwater.evidence.rates import rate
from headwater.evidence.token_probabilities import (
    given_outputs,
    standalone_perplexities,
    token_probabilities,
)
from headwater.evidence.tokenizer import TextTokenizer
from headwater.evidence.verbatim import Verbatim
from headwater.tasks.generate import Generation, generate
from models import SENTENCES, TEMPLATE, byte_tokenizer, tiny_llama

SONG = "the owl in the oak saw the moon and sang to the sea all night long"
WORDS = ["red", "tin", "cup", "box", "hat", "map", "pen", "key", "jar", "net", "saw", "fan"]


class Naive:
    """A corpus as lists of tokens, counted by looking at every place."""

    def __init__(self, texts: Sequence[str], tokenizer: Any, vocabulary: int = 320) -> None:
        self.documents = [tokenizer(one, add_special_tokens=False)["input_ids"] for one in texts]
        self.size = vocabulary

    @property
    def unigrams(self) -> np.ndarray[Any, Any]:
        return np.bincount([t for one in self.documents for t in one], minlength=self.size)

    def count(self, tokens: Sequence[int]) -> int:
        phrase, n = list(tokens), len(tokens)
        return sum(
            one[i : i + n] == phrase for one in self.documents for i in range(len(one) - n + 1)
        )


def shuffled_texts(count: int, seed: int = 0) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.permutation(WORDS)) for _ in range(count)]


@cache
def learnt() -> hw.CausalLM:
    """A tiny model that knows one song by heart, and of the rest only which words there are."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = tiny_llama(tied=False, dtype=torch.float32, hidden_size=48, intermediate_size=64)
    made = hw.CausalLM(model, byte_tokenizer(), max_length=64)
    texts = [SONG] * 8 + shuffled_texts(24)
    documents = [Document(str(number), {"text": text}) for number, text in enumerate(texts)]
    chunks = [chunk for document in documents for chunk in made.chunks(document)]
    batch = made.collate(chunks)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(90):
        optimizer.zero_grad()
        made.loss(batch).mean().backward()
        optimizer.step()
    model.eval()
    return made


def naive_p(task: hw.CausalLM, ids: list[int]) -> list[float]:
    """p of every token, from the softmax of one plain pass over the whole."""
    with torch.no_grad():
        logits = task.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double()
    p = torch.softmax(logits, dim=-1)
    return [float("nan"), *(float(p[i - 1, ids[i]]) for i in range(1, len(ids)))]


# -- windows --------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.2, 0.89, 0.9, 0.95, 1.0, float("nan")]), max_size=30),
    st.integers(1, 7),
    st.integers(1, 7),
)
def test_windows_are_those_whose_every_token_is_probable(
    p: list[float], length: int, stride: int
) -> None:
    every = [s for s in range(len(p) - length + 1) if all(x >= 0.9 for x in p[s : s + length])]
    assert probable_windows(p, length) == every
    runs = probable_runs(p, 0.9, length)
    assert sum(end - start - length + 1 for start, end in runs) == len(every)
    if stride <= length:  # as the paper's loop walks: on by the stride after a hit, else by one
        walked, at = [], 0
        while at <= len(p) - length:
            hit = at in every
            walked += [at] if hit else []
            at += stride if hit else 1
        assert probable_windows(p, length, stride=stride) == walked


@pytest.mark.parametrize(
    ("length", "threshold", "stride"), [(0, 0.9, 1), (6, 0, 1), (6, 1.1, 1), (6, 0.9, 0), (3, 1, 4)]
)
def test_windows_that_cannot_be(length: int, threshold: float, stride: int) -> None:
    with pytest.raises(InputError, match="no such windows"):
        probable_windows([1.0], length, threshold, stride)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("say: a b c d e f!", "inside"),
        ("say: b c d e then", "overlaps"),
        ("a b c", "overlaps"),
        ("d e f", "overlaps"),
        ("a b", "none"),
        ("a b x c d", "none"),
        ("", "none"),
    ],
)
def test_overlap_with_the_prompt(prompt: str, expected: str) -> None:
    tokens = [" a", " b", " c", " d", " e", " f"]
    assert prompt_overlap(lambda s, e: "".join(tokens[s:e]), 6, prompt) == expected


def test_blank_tokens_overlap_with_nothing() -> None:
    assert prompt_overlap(lambda s, e: "\n" * (e - s), 6, "a\n\n\n\n\n\n\n\nb") == "none"
    assert prompt_words([{"role": "user", "content": "one"}, {"content": "two"}]) == "one\ntwo"


@pytest.mark.parametrize(
    ("count", "name"),
    [
        (0, "synthetic"),
        (1, "memorised"),
        (4, "memorised"),
        (5, "segmental"),
        (49, "segmental"),
        (50, "frequent"),
        (10**6, "frequent"),
    ],
)
def test_categories(count: int, name: str) -> None:
    assert category(count) == name


# -- probabilities --------------------------------------------------------------------------


@pytest.mark.parametrize("specials", [False, True])
def test_probabilities_of_given_outputs(specials: bool) -> None:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer(specials=specials, template=TEMPLATE))
    pairs: list[Any] = [
        ("The capital of", " Peru is Lima."),
        ("A river", " runs"),
        ("The capital of", " the sea"),
        ([{"role": "user", "content": "Lima?"}], "yes"),
    ]
    made = given_outputs(task, pairs)
    assert [(g.index, g.sample) for g in made] == [(0, 0), (1, 0), (0, 1), (2, 0)]
    for g in made:
        naive = naive_p(task, g.prompt_ids + g.ids)[len(g.prompt_ids) :]
        np.testing.assert_allclose(g.p, naive, rtol=1e-6)
        assert task.tokenizer.decode(g.ids) == g.text
    bare = given_outputs(task, [("", "Lima is")])[0]
    assert np.isnan(bare.p[0]) != specials  # only BOS predicts a first token
    np.testing.assert_allclose(bare.p, naive_p(task, bare.prompt_ids + bare.ids)[-len(bare.ids) :])


def test_given_outputs_agree_with_generation() -> None:
    task = learnt()
    made = generate(task, [SONG[:20]], samples=2, max_tokens=20, temperature=1.0)
    again = given_outputs(task, [(g.prompt, g.text) for g in made])
    for one, other in zip(made, again, strict=True):
        if one.ids == other.ids:  # the text may be tokenised another way than it was made
            np.testing.assert_allclose(one.p, other.p, rtol=1e-4)
    assert any(one.ids == other.ids for one, other in zip(made, again, strict=True))


def test_standalone_perplexity() -> None:
    windows = [[5, 9, 200, 31, 7, 8], [40, 41, 42, 43, 44, 45], [5, 9, 200, 31, 7, 8]]
    bare = hw.CausalLM(tiny_llama(), byte_tokenizer())
    found = standalone_perplexities(bare, windows)
    for window, value in zip(windows, found, strict=True):
        rest = [1 / p for p in naive_p(bare, window)[1:]]
        whole = [float(np.mean(rest)), *rest]  # the first token counts as the mean of the rest
        assert value == pytest.approx(np.mean(whole), rel=1e-9)
    led = hw.CausalLM(tiny_llama(), byte_tokenizer(specials=True))
    for window, value in zip(windows, standalone_perplexities(led, windows), strict=True):
        assert value == pytest.approx(np.mean([1 / p for p in naive_p(led, [0, *window])[1:]]))
    assert np.isnan(standalone_perplexities(bare, [[3]])[0])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("a", "b"), ("a", "")], "Output 2 is empty"),
        ([("a", "Lima " * 40)], r"Output 1 .*longer.*at most 64"),
    ],
)
def test_outputs_that_cannot_be(pairs: list[tuple[str, str]], said: str) -> None:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer())
    with pytest.raises(InputError, match=said):
        given_outputs(task, pairs)
    small = hw.CausalLM(tiny_llama(vocab_size=40), byte_tokenizer())
    with pytest.raises(InputError, match=r"Output 1 .*vocabulary.*0 to 39"):
        given_outputs(small, [("a", "Lima")])


def test_broken_weights() -> None:
    task = hw.CausalLM(tiny_llama(), byte_tokenizer())
    with torch.no_grad():
        task.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(NumericError, match="not finite"):
        token_probabilities(task, [np.array([1, 2, 3], dtype=np.int32)])


# -- looking up -----------------------------------------------------------------------------


def test_tokens_are_looked_up_as_they_are_with_the_models_tokenizer() -> None:
    tokenizer = byte_tokenizer()
    naive = Naive(SENTENCES, tokenizer)
    own = TextTokenizer.from_json(byte_tokenizer(specials=True).backend_tokenizer.to_str(), "own")
    lookup = lookup_in(naive, own, tokenizer)
    assert lookup.own
    assert lookup.manner == AS_THEY_ARE
    ids = tokenizer(" capital of Peru")["input_ids"]
    assert lookup.phrases(ids, "") == [tuple(ids)]
    assert lookup.count(lookup.phrases(ids, "")) == 2
    assert lookup.count([(5, 6, 9999)]) == 0  # a model may have more tokens than its tokenizer


def test_text_is_tokenised_again_for_another_tokenizer() -> None:
    model = byte_tokenizer()
    other = byte_tokenizer(vocab=290)
    texts = [*SENTENCES, "Lima is the capital of Chile, says Lima is the capital of nothing"]
    corpus = TextTokenizer.from_json(other.backend_tokenizer.to_str(), "the smaller one")
    lookup = lookup_in(Naive(texts, other), corpus, model)
    assert not lookup.own
    assert "the smaller one" in lookup.manner
    for text in (" Lima is the capital of", "Lima is the capital of", "Lima is the capital of "):
        found = lookup.phrases([1], text)
        assert lookup.count(found) == 3
    first = lookup.phrases([1], " Lima")[0]
    assert list(first) == other("Lima")["input_ids"]  # its space is a token of its own
    # Half characters at the ends are left off; within, there is nothing to look up.
    assert lookup.phrases([1], "\ufffd Lima\ufffd") == lookup.phrases([1], " Lima")
    assert lookup.phrases([1], "Li\ufffdma") == []
    assert lookup.phrases([1], " \n") == []


def test_a_phrase_may_stand_after_a_space_and_after_none() -> None:
    pieces = Lookup(Naive([], byte_tokenizer()), lambda text: [(8, len(text)), (7, len(text))])
    assert pieces.phrases([1], " ab ") == [(7, 2), (8, 2)]
    assert pieces.phrases([1], "ab") == [(8, 2), (7, 2)]


def test_marks_and_words_behind_them_are_found_by_words() -> None:
    """A word, or a mark, is another token after a space; a corpus may hold either, or both."""
    from phrase_models import text_index

    texts = ["a (red fox), red fox ran", "x red fox", "red fox", "its fox's, or fox 's"]
    phrases = Verbatim.open(text_index(texts))
    lookup = lookup_in(phrases, phrases.tokenizer, byte_tokenizer())
    for text, count in ((" red fox", 4), ("red fox", 4), ("'s", 2), (" ,", 2), ("(red", 1)):
        assert lookup.count(lookup.phrases([1], text)) == count


# -- chance ---------------------------------------------------------------------------------


def test_unigrams() -> None:
    counts = np.array([5, 0, 100, 1, 0, 2])
    unigrams = Unigrams(counts)
    np.testing.assert_allclose(np.exp(unigrams.log_p(range(6))), (counts + 1) / 114)
    assert unigrams.total([0, 99]) == pytest.approx(np.log(6 / 114) + np.log(1 / 114))
    assert sorted(unigrams.near(2).tolist()) == [0, 1, 3, 4, 5]
    wide = Unigrams(np.arange(1000))
    assert abs(wide.near(500) - 500).max() <= 21
    assert abs(wide.near(999) - 999).max() <= 40
    assert 500 not in wide.near(500)


def test_control_windows_are_as_probable_as_the_window() -> None:
    random = np.random.default_rng(1)
    unigrams = Unigrams(np.sort(random.zipf(1.3, 5000).clip(max=10**6))[::-1].copy())
    windows = [[tuple(random.integers(0, 5000, 6).tolist())] for _ in range(3000)]
    pool = Pool.of([*windows, []], unigrams)
    assert len(pool.phrases) == 3000
    complete = 0
    for phrases in windows[:60]:
        (phrase,) = phrases
        total = unigrams.total(phrase)
        others = other_windows(phrase, pool, unigrams, np.random.default_rng(2))
        replaced = replaced_windows(phrase, unigrams, np.random.default_rng(2))
        shuffled = shuffled_windows(phrase, np.random.default_rng(2))
        for (one,) in others:
            assert abs(unigrams.total(one) - total) <= TOLERANCE + 1e-9
            assert one != phrase
        assert len({one for (one,) in others}) == len(others)
        for one in replaced:
            assert abs(unigrams.total(one) - total) <= TOLERANCE + 1e-9
            assert not any(a == b for a, b in zip(one, phrase, strict=True))
        for one in shuffled:
            assert sorted(one) == sorted(phrase)
            assert one != phrase
        assert len(shuffled) == DRAWS
        complete += len(others) == len(replaced) == DRAWS
        assert replaced == replaced_windows(phrase, unigrams, np.random.default_rng(2))
        assert replaced != replaced_windows(phrase, unigrams, np.random.default_rng(3))
    assert complete > 40
    assert shuffled_windows((4, 4, 4), np.random.default_rng(0)) == []


def test_rates_draw_prompts_not_windows() -> None:
    """Windows of a prompt all alike: the interval is that of the prompts, however many windows."""
    prompts = np.repeat(np.arange(40), 50)
    values = np.repeat(np.arange(40) % 2, 50).astype(float)
    found = rate(values, prompts, resamples=4000)
    assert found.value == 0.5
    assert found.low == pytest.approx(0.5 - 1.96 * 0.5 / 40**0.5, abs=0.03)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.5 / 40**0.5, abs=0.03)
    assert found == rate(values, prompts, resamples=4000)
    assert rate(np.array([1.0, np.nan, 0.0]), np.array([3, 3, 3])).value == 0.5
    assert rate(np.array([1.0, 0.0]), np.array([3, 3])).low is None
    assert str(rate(np.array([np.nan]), np.array([0]))) == "-"


# -- the whole ------------------------------------------------------------------------------


def corpus_texts() -> list[str]:
    """The song three times; a corpus of other things besides."""
    return [f"One said: {SONG}." for _ in range(3)] + shuffled_texts(12, seed=5)


def outputs(task: hw.CausalLM) -> list[Generation]:
    prompts = [SONG[:22], "red tin cup", f"They {SONG[4:40]}", "box hat"]
    return generate(task, prompts, samples=3, max_tokens=24, seed=3)


def test_every_window_token_by_token() -> None:
    task = learnt()
    tokenizer = task.tokenizer
    made = outputs(task)
    naive = Naive(corpus_texts(), tokenizer)
    found = memorization(task, made, Lookup(naive), domains=["song", "words", "song", "words"])
    right: set[tuple[int, int, int]] = set()
    for g in made:
        p = naive_p(task, g.prompt_ids + g.ids)[len(g.prompt_ids) :]
        np.testing.assert_allclose(g.p, p, rtol=1e-4)
        for start in range(len(p) - 5):
            if all(value >= 0.9 for value in p[start : start + 6]):
                right.add((g.index, g.sample, start))
    assert right == {(w.prompt, w.sample, w.start) for w in found.windows}
    assert len(right) > 20
    by_place = {(g.index, g.sample): g for g in made}
    for w in found.windows:
        g = by_place[w.prompt, w.sample]
        assert w.tokens == g.ids[w.start : w.start + 6]
        assert g.text[slice(*w.characters)] == w.text == tokenizer.decode(w.tokens)
        assert w.count == naive.count(w.tokens)
        assert w.category == category(w.count)
        assert w.p == min(g.p[w.start : w.start + 6])
        own = g.p[w.start : w.start + 6]
        assert w.perplexity == pytest.approx(np.mean([1 / value for value in own]))
        alone = [1 / value for value in naive_p(task, w.tokens)[1:]]
        assert w.standalone == pytest.approx(np.mean(alone), rel=1e-4)
        assert (w.overlap == "inside") == (w.text.strip() in g.prompt)
        assert w.domain == ("song" if w.prompt in (0, 2) else "words")


def test_a_token_across_the_border_of_prompt_and_output_shifts_nothing() -> None:
    """The first token " capital" is half the prompt's: it is cut, and what follows is exact."""
    task = learnt()
    output = "tal of Peru is Lima."
    (made,) = given_outputs(task, [("The capi", output)])
    assert task.tokenizer.decode(made.ids[:1]) == " capital"
    sure = replace(made, p=[0.99] * len(made.ids))
    lookup = Lookup(Naive(SENTENCES, task.tokenizer))
    found = memorization(task, [sure], lookup, Settings(length=2))
    first, *others = found.windows
    assert (first.text, output[slice(*first.characters)]) == (" capital of", "tal of")
    assert len(others) == len(made.ids) - 2
    assert all(output[slice(*window.characters)] == window.text for window in others)


def test_a_learnt_song_is_found_and_stands_out_from_chance() -> None:
    task = learnt()
    made = outputs(task)
    found = memorization(task, made, Lookup(Naive(corpus_texts(), task.tokenizer)))
    whole = found.groups[0]
    assert len(found.groups) == 1
    assert whole.prompts == 4
    assert whole.outputs == 12
    assert whole.windows == len(found.windows)
    assert sum(share.windows for share in whole.categories.values()) == whole.windows
    assert sum(whole.overlap.values()) == whole.windows
    song = [w for w in found.windows if w.count > 0 and w.text.strip() in SONG]
    assert len(song) > 20
    assert whole.match.value is not None
    assert whole.match.value > 0.5
    for kind in KINDS:
        control = whole.controls[kind]
        if control.rate.value is not None:
            assert control.rate.value < 0.2
            assert control.difference.value is not None
            assert control.difference.value > 0.4
    assert whole.controls["shuffled"].rate.windows == whole.windows
    examples = found.examples(2)
    assert examples["memorised"]
    assert all(w.category == name for name, some in examples.items() for w in some)
    # In a corpus without it the same windows are found nowhere.
    absent = memorization(task, made, Lookup(Naive(shuffled_texts(12, 9), task.tokenizer)))
    assert absent.groups[0].windows == whole.windows
    assert not any(w.count for w in absent.windows if w.text.strip() in SONG)


def test_draws_depend_on_the_seed_and_not_on_other_windows() -> None:
    task = learnt()
    made = outputs(task)
    lookup = Lookup(Naive(corpus_texts(), task.tokenizer))
    one = memorization(task, made, lookup)
    assert one == memorization(task, made[::-1], lookup)
    for w, other in zip(memorization(task, made[:6], lookup).windows, one.windows, strict=False):
        kept = ("replaced", "shuffled")
        assert [w.controls[kind] for kind in kept] == [other.controls[kind] for kind in kept]
    again = memorization(task, made, lookup, Settings(seed=1))
    assert [w.count for w in again.windows] == [w.count for w in one.windows]


def test_no_output_and_no_window() -> None:
    task = learnt()
    lookup = Lookup(Naive(SENTENCES, task.tokenizer))
    with pytest.raises(InputError, match="no output"):
        memorization(task, [], lookup)
    short = Generation("a", "b", [5], [6], [0.99], "given")
    found = memorization(task, [short, replace(short, index=1)], lookup)
    assert found.windows == []
    assert found.groups[0].match.value is None
    assert found.groups[0].run is None
    assert found.to_dict()["groups"][0]["windows"] == 0


def test_domains_have_groups_of_their_own() -> None:
    task = learnt()
    made = outputs(task)
    lookup = Lookup(Naive(corpus_texts(), task.tokenizer))
    found = memorization(task, made, lookup, domains=["song", "words", "song", None])
    assert [group.name for group in found.groups] == [None, "song", "words", "(none)"]
    whole, *parts = found.groups
    for name in ("prompts", "outputs", "tokens", "windows"):
        assert getattr(whole, name) == sum(getattr(part, name) for part in parts)


@pytest.mark.parametrize("name", [None, "words"])
def test_with_the_real_index_of_phrases(name: str | None) -> None:
    """On disk, by the model's own tokens and by words: the song is found, in as many documents."""
    task = learnt()
    rows = [{"id": str(i), "text": text} for i, text in enumerate(corpus_texts())]
    index = hw.Index.build(None, task, hw.Corpus.from_documents(rows), features=None)
    verbatim = Verbatim.open(index, name)
    lookup = lookup_in(verbatim, verbatim.tokenizer, task.tokenizer)
    assert lookup.own == (name is None)
    made = outputs(task)
    found = memorization(task, made, lookup)
    if name is None:
        naive = memorization(task, made, Lookup(Naive(corpus_texts(), task.tokenizer)))
        assert [w.count for w in found.windows] == [w.count for w in naive.windows]
        assert found == naive
    words = [w for w in found.windows if f" {w.text.strip()} " in f" {SONG} "]
    assert words
    assert all(w.count == 3 for w in words)
