"""Text from a causal language model, token by token, with what the model gave each token.

A small loop of our own over the model's key-value cache. The probability kept for a token is the
model's own, p(token | all before it), whatever temperature, top-k or top-p it was drawn with. Every
sample draws from a generator of its own, made of (seed, prompt, sample), and the rows of a batch
are equally long, so that there is no padding: a sample is what it would be alone, up to the
rounding of the batch's matrix products (none with `batch=1`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headwater.engine.errors import InputError
from headwater.engine.progress import Progress
from headwater.tasks.sampling import Sampling, draw

if TYPE_CHECKING:
    import torch

    from headwater.tasks.causal_lm import CausalLM

    Prompt = str | Sequence[Mapping[str, Any]]

BATCH = 16  # rows decoded together
PREFILL = 4096  # tokens of a batch's prompts
CONTEXT = 8  # tokens before a piece of text that decide how it is written
COMPLETION = 32  # tokens of an answer that nobody gave a length


@dataclass(frozen=True)
class Generation:
    """An output of a model, with its tokens.

    Attributes:
        prompt: what it continues. text: the output, without special tokens.
        prompt_ids: the prompt's tokens as the model read them (BOS included, where there is one).
        ids: the output's tokens, without the one that ended it.
        p: for each of `ids` its probability given all before it, untempered; NaN where nothing
            comes before.
        end: why it ended: "eos", "stop", "length", or "given" for one that was not generated here.
        index, sample: which prompt, and which sample of it, both from 0.
    """

    prompt: Prompt
    text: str
    prompt_ids: list[int]
    ids: list[int]
    p: list[float]
    end: str
    index: int = 0
    sample: int = 0


class Piece(NamedTuple):
    """A token as it comes: the text it completes ("" in the middle of a character), its p, id."""

    text: str
    p: float
    id: int


def generate(
    task: CausalLM,
    prompts: Sequence[Prompt],
    *,
    samples: int = 1,
    max_tokens: int = 100,
    temperature: float = 0.7,
    top_k: int = 20,
    top_p: float = 0.8,
    seed: int = 0,
    stop: Sequence[str] = (),
    batch: int = BATCH,
) -> list[Generation]:
    """Continuations of the prompts, by prompt and then by sample.

    Args:
        task: the model. prompts: texts, or lists of chat messages.
        samples: of each prompt; at temperature 0, where all would be equal, one is made.
        max_tokens: of a continuation.
        temperature, top_k, top_p: see `Sampling`; the defaults are those of Wuhrmann et al. (2025).
        seed: 0 or more; with the prompt's and the sample's number it decides a sample's draws.
        stop: texts that end a continuation and are no part of it.
        batch: rows decoded together.

    Raises:
        InputError: for an empty prompt without BOS, one that leaves no room for `max_tokens`, or
            parameters out of range.
        NumericError: when the model's logits are not finite.
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(samples=samples, max_tokens=max_tokens, batch=batch, seed=seed)
    if isinstance(stop, str):
        stop = (stop,)
    if "" in stop:
        raise InputError("A stop text is empty", expected="at least one character")
    read = [prompt_tokens(task, one, max_tokens, number) for number, one in enumerate(prompts)]
    count = 1 if temperature == 0 else samples
    rows = [(number, sample) for number in range(len(read)) for sample in range(count)]
    rows.sort(key=lambda row: len(read[row[0]]))  # stable: by prompt and sample within a length
    made: dict[tuple[int, int], Generation] = {}
    with Progress("generating", len(rows) * max_tokens, "tokens") as progress:
        for length, group in groupby(rows, key=lambda row: len(read[row[0]])):
            same = list(group)
            size = max(1, min(batch, PREFILL // length))
            for first in range(0, len(same), size):
                part = same[first : first + size]
                generators = [np.random.default_rng([seed, *row]) for row in part]
                texts = [read[number] for number, _ in part]
                ended = _finish(task, texts, sampling, generators, max_tokens, stop, progress)
                for (number, sample), (ids, p, end) in zip(part, ended, strict=True):
                    told = Generation(
                        prompts[number], "", read[number], ids, p, end, number, sample
                    )
                    made[number, sample] = _with_text(task, told, stop)
    return [made[row] for row in sorted(made)]


def stream(
    task: CausalLM,
    prompt: Prompt,
    *,
    max_tokens: int = 100,
    temperature: float = 0.7,
    top_k: int = 20,
    top_p: float = 0.8,
    seed: int = 0,
) -> Iterator[Piece]:
    """The tokens of one continuation as they are made: those of `generate`'s first sample.

    The texts of the pieces joined are the continuation. Raises as `generate`, at the first token.
    """
    sampling = Sampling(temperature, top_k, top_p)
    _check(max_tokens=max_tokens, seed=seed)
    before = prompt_tokens(task, prompt, max_tokens)
    ends = end_tokens(task)
    ids: list[int] = []
    said = ""
    steps = _steps(task, [before], sampling, [np.random.default_rng([seed, 0, 0])])
    for count, ((token,), (p,)) in enumerate(steps, 1):
        if token in ends:
            rest = text_between(task.tokenizer, before + ids, len(before))[len(said) :]
            if rest:  # half a character, which now stays half
                yield Piece(rest, p, token)
            return
        ids.append(token)
        text = text_between(task.tokenizer, before + ids, len(before))
        whole = text if count == max_tokens else text.rstrip("\ufffd")
        piece = whole[len(said) :] if whole.startswith(said) else ""
        said += piece
        yield Piece(piece, p, token)
        if count == max_tokens:
            return


def completion_for(
    task: CausalLM,
    prompt: Prompt,
    max_tokens: int = COMPLETION,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    stop: Sequence[str] = (),
) -> Generation:
    """What the model says after `prompt`, to be explained; its most probable tokens by default.

    It is no longer than what, with its prompt, fits the window in which queries are explained.

    Raises:
        InputError: as `generate`, and when the model says nothing.
    """
    _check(max_tokens=max_tokens)
    used = len(prompt_tokens(task, prompt, 1))
    room = min(max_tokens, task.max_length - used)
    if room < 1:
        raise InputError(
            "The prompt fills the model's window",
            expected=f"fewer than {task.max_length} tokens",
            found=used,
        )
    (made,) = generate(
        task, [prompt], max_tokens=room, temperature=temperature, seed=seed, stop=stop
    )
    if not made.text.strip():
        raise InputError(
            "The model says nothing after this prompt",
            expected="words to explain",
            found=f"{made.text!r}, then its end",
            do="give the completion yourself",
        )
    return made


def prompt_tokens(
    task: CausalLM, prompt: Prompt, max_tokens: int = 0, number: int = 0
) -> list[int]:
    """The prompt as the model reads it: BOS as in training, chat messages by the template.

    Raises:
        InputError: when it is empty, has tokens unknown to the model, or leaves no room for
            `max_tokens` more; names the prompt by its `number`.
    """
    encoder = task.encoder
    read = encoder.spans(prompt, []) if isinstance(prompt, str) else encoder.chat_pair(prompt, "")
    ids: list[int] = read.ids.tolist()
    if not ids:
        raise InputError(
            f"Prompt {number + 1} is empty, and the model's training put no BOS before its texts",
            expected="at least one token",
        )
    if max(ids) >= task.vocabulary:
        raise InputError(
            f"Prompt {number + 1} has a token outside the model's vocabulary",
            expected=f"ids from 0 to {task.vocabulary - 1}",
            found=max(ids),
        )
    limit = positions(task)
    if len(ids) > limit - max_tokens:
        raise InputError(
            f"Prompt {number + 1} leaves no room for {max_tokens} more tokens",
            expected=f"at most {max(0, limit - max_tokens)} tokens",
            found=len(ids),
            do="shorten it, or generate fewer tokens",
        )
    return ids


def positions(task: CausalLM) -> int:
    """The most tokens the model takes; the training's own length for models without a limit."""
    config = getattr(task.model, "config", None)
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else task.max_length


def end_tokens(task: CausalLM) -> frozenset[int]:
    """The tokens that end an output: those of the generation settings, and the tokenizer's EOS."""
    settings = getattr(task.model, "generation_config", None)
    given: list[Any] = [getattr(settings, "eos_token_id", None), task.tokenizer.eos_token_id]
    lists: list[list[Any]] = [one if isinstance(one, list) else [one] for one in given]
    return frozenset(int(end) for ends in lists for end in ends if end is not None)


def text_between(tokenizer: Any, ids: Sequence[int], start: int, end: int | None = None) -> str:
    """The text of `ids[start:end]` as it stands after the tokens before it; special ones left out.

    Decoded alone, tokens may lose their leading space. Half a character reads as U+FFFD.
    """
    before = list(ids[max(0, start - CONTEXT) : start])
    own = list(ids[start:end])
    head, whole = _decoded(tokenizer, before), _decoded(tokenizer, before + own)
    return whole[len(head) :] if whole.startswith(head) else _decoded(tokenizer, own)


def _decoded(tokenizer: Any, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _check(**numbers: int) -> None:
    for name, value in numbers.items():
        least = 0 if name == "seed" else 1
        if value < least:
            raise InputError(f"{name} is too small", expected=f"{least} or more", found=value)


def _finish(
    task: CausalLM,
    prompts: list[list[int]],
    sampling: Sampling,
    generators: list[np.random.Generator],
    max_tokens: int,
    stop: Sequence[str],
    progress: Progress,
) -> list[tuple[list[int], list[float], str]]:
    """Tokens, probabilities and end of one continuation for each of equally long prompts."""
    ends = end_tokens(task)
    made: list[tuple[list[int], list[float]]] = [([], []) for _ in prompts]
    why: dict[int, str] = {}
    steps = _steps(task, prompts, sampling, generators)
    for count, (tokens, p) in enumerate(steps, 1):
        for row, (token, chance) in enumerate(zip(tokens, p, strict=True)):
            if row in why:  # has ended; it is fed on only because its neighbours are
                continue
            if token in ends:
                why[row] = "eos"
                progress.advance(max_tokens - count + 1)
                continue
            ids = made[row][0]
            ids.append(token)
            made[row][1].append(chance)
            progress.advance(1)
            if stop and _stopped(task, prompts[row], ids, stop):
                why[row] = "stop"
                progress.advance(max_tokens - count)
        if count == max_tokens or len(why) == len(prompts):
            break
    return [(ids, p, why.get(row, "length")) for row, (ids, p) in enumerate(made)]


def _stopped(task: CausalLM, before: list[int], ids: list[int], stop: Sequence[str]) -> bool:
    text = text_between(task.tokenizer, before + ids, len(before))
    return any(end in text for end in stop)


def _with_text(task: CausalLM, made: Generation, stop: Sequence[str]) -> Generation:
    """With its text; a stop text goes, with the tokens that only it needed."""
    start = len(made.prompt_ids)
    text = text_between(task.tokenizer, made.prompt_ids + made.ids, start)
    kept = len(made.ids)
    if made.end == "stop":
        text = text[: min(text.find(one) for one in stop if one in text)]
        kept = 0
        while len(text_between(task.tokenizer, made.prompt_ids + made.ids[:kept], start)) < len(
            text
        ):
            kept += 1
    return replace(made, text=text, ids=made.ids[:kept], p=made.p[:kept])


def _steps(
    task: CausalLM,
    prompts: list[list[int]],
    sampling: Sampling,
    generators: list[np.random.Generator],
) -> Iterator[tuple[list[int], list[float]]]:
    """The next token of every row, and its probability, for as long as one asks."""
    import torch

    feed = torch.tensor(prompts, device=task.device)
    cache: Any = None
    while True:
        logits, cache = _step(task, feed, cache)
        tokens, p = draw(logits, sampling, generators)
        yield tokens, p
        column = torch.tensor(tokens, device=task.device)[:, None]
        # A model that gives back no cache reads everything again.
        feed = column if cache is not None else torch.cat([feed, column], dim=1)


def _step(task: CausalLM, feed: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Logits of the next token, float64 [rows, vocabulary] on the CPU, and the cache."""
    import torch

    base = getattr(task.model, "get_base_model", lambda: task.model)()
    options: dict[str, Any] = {}
    if "logits_to_keep" in inspect.signature(base.forward).parameters:
        options["logits_to_keep"] = 1
    # Entered anew for each token: a generator that waits must not hold the gradient mode.
    with task.running(), torch.no_grad():
        out = task.model(input_ids=feed, past_key_values=cache, use_cache=True, **options)
        return out.logits[:, -1].cpu().double(), getattr(out, "past_key_values", None)
