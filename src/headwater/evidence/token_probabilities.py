"""What a model itself gives each token of an output, in its context and without one.

One forward pass for outputs that were made elsewhere; those generated here bring their
probabilities along. Stand-alone perplexity asks how far a phrase explains itself: what is
improbable alone and certain in its context was led up to by the context, or learnt with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.batches import batches_by_length
from headwater.engine.errors import InputError, NumericError
from headwater.engine.progress import Progress
from headwater.tasks.encode import IGNORED, Encoded
from headwater.tasks.generate import Generation, positions
from headwater.tasks.task import Chunk

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.generate import Prompt

Array = np.ndarray[Any, Any]

BUDGET = 4096  # tokens of a batch


def given_outputs(task: CausalLM, pairs: Sequence[tuple[Prompt, str]]) -> list[Generation]:
    """Outputs that were made elsewhere, (prompt, completion), with the model's p for each token.

    Both are tokenised as one text, as in training; a token across their border belongs to the
    completion. Equal prompts share their `index`, and their outputs are numbered as its samples.

    Raises:
        InputError: for an empty output, one longer than the model's positions, or one with a token
            unknown to the model; names it by its number, from 1.
        NumericError: when the model's probabilities are not finite.
    """
    encoded = [_encoded(task, number, *pair) for number, pair in enumerate(pairs, 1)]
    chances = token_probabilities(task, [one.ids for one in encoded])
    made: list[Generation] = []
    numbers: dict[str, int] = {}
    samples: dict[int, int] = {}
    for (prompt, text), one, p in zip(pairs, encoded, chances, strict=True):
        start = int(np.flatnonzero(one.labels != IGNORED)[0])
        index = numbers.setdefault(repr(prompt), len(numbers))
        sample = samples.get(index, 0)
        samples[index] = sample + 1
        ids: list[int] = one.ids.tolist()
        own: list[float] = p[start:].tolist()
        made.append(Generation(prompt, text, ids[:start], ids[start:], own, "given", index, sample))
    return made


def token_probabilities(task: CausalLM, sequences: Sequence[Array]) -> list[Array]:
    """p(token | all before it) of every token, float64 [length] each; NaN for the first.

    Args:
        task: the model. sequences: token ids, int32 [length] each, at least one token.

    Raises:
        NumericError: when a probability is not finite.
    """
    import torch

    result = [np.full(len(ids), np.nan) for ids in sequences]
    lengths = [len(ids) for ids in sequences]
    with Progress("reading outputs", sum(lengths), "tokens") as progress, task.running():
        for group in batches_by_length(lengths, BUDGET):
            batch = task.collate([_chunk(sequences[number]) for number in group])
            with torch.no_grad():
                losses, rows, columns = task.token_losses(batch)
            p = losses.double().neg().exp().cpu().numpy()
            if not np.isfinite(p).all():
                raise NumericError(
                    "The model's probabilities are not finite",
                    do="try --dtype float32, or check its weights",
                )
            places = zip(rows.tolist(), columns.tolist(), p.tolist(), strict=True)
            for row, column, value in places:
                result[group[row]][column] = value
            progress.advance(sum(lengths[number] for number in group))
    return result


def standalone_perplexities(task: CausalLM, windows: Sequence[Sequence[int]]) -> list[float]:
    """The mean of 1 / p over each window's tokens, with nothing before the window.

    A token that nothing predicts counts as the mean of the rest (as in the code of Wuhrmann et al.,
    2025), that is: not at all. Where the training put BOS before its texts it stands before the
    window, and then every token is predicted. NaN for a window of one token without BOS.
    """
    bos = task.encoder.bos
    front = [] if bos is None else [bos]
    distinct = list(dict.fromkeys(tuple(window) for window in windows))
    sequences = [np.asarray([*front, *window], dtype=np.int32) for window in distinct]
    found = token_probabilities(task, sequences)
    known = {
        window: float(np.mean(1 / p[1:])) if len(p) > 1 else float("nan")
        for window, p in zip(distinct, found, strict=True)
    }
    return [known[tuple(window)] for window in windows]


def _chunk(ids: Array) -> Chunk:
    labels = ids.copy()
    labels[:1] = IGNORED
    return Chunk({"input_ids": ids, "labels": labels}, 0, len(ids))


def _encoded(task: CausalLM, number: int, prompt: Prompt, text: str) -> Encoded:
    encoder = task.encoder
    if isinstance(prompt, str):
        span = (len(prompt), len(prompt) + len(text))
        one = encoder.spans(prompt + text, [span])
    else:
        one = encoder.chat_pair(prompt, text)
    if not (one.labels != IGNORED).any():
        raise InputError(f"Output {number} is empty", expected="a completion of at least one token")
    if len(one.ids) > positions(task):
        raise InputError(
            f"Output {number} with its prompt is longer than the model's window",
            expected=f"at most {positions(task)} tokens",
            found=len(one.ids),
        )
    if int(one.ids.max()) >= task.vocabulary:
        raise InputError(
            f"Output {number} has a token outside the model's vocabulary",
            expected=f"ids from 0 to {task.vocabulary - 1}",
            found=int(one.ids.max()),
        )
    return one
