"""A text in tokens, with where each stands and how probable the model found it.

The ranges cover the text without gaps, so that whatever a person selects is some tokens; tokens
that are parts of one character are shown as one, with the product of their probabilities.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.tasks.encode import IGNORED
from headwater.tasks.task import Chunk
from headwater.tasks.texts import encodable

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM

Token = dict[str, Any]


def text_tokens(task: CausalLM, prompt: str, completion: str) -> tuple[list[Token], list[Token]]:
    """Tokens of the prompt and of what follows it; one across the border is of the completion.

    Raises:
        InputError: when both together are longer than the model's window, or there is nothing.
    """
    text = prompt + completion
    if not text:
        raise InputError("There is no text", expected="a prompt or a completion")
    encoder = task.encoder
    encoded = encoder.tokenizer(
        encodable(text), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ids: list[int] = encoded["input_ids"]
    front = [encoder.bos] if encoder.bos is not None else []
    if len(front) + len(ids) > task.max_length:
        raise InputError(
            "Prompt and completion are longer than the model's window",
            expected=f"at most {task.max_length} tokens",
            found=len(front) + len(ids),
            do="shorten the prompt",
        )
    chances = _chances(task, [*front, *ids])[len(front) :]
    merged = _merged([tuple(one) for one in encoded["offset_mapping"]], chances, len(text))
    border = len(prompt)
    before = [one for one in merged if one[1] <= border]
    after = [one for one in merged if one[1] > border]
    return (
        [_token(prompt, start, end, p) for start, end, p in before],
        [_token(completion, max(s - border, 0), e - border, p) for s, e, p in after],
    )


def _token(text: str, start: int, end: int, p: float | None) -> Token:
    return {"text": text[start:end], "start": start, "end": end, "probability": p}


def _chances(task: CausalLM, ids: list[int]) -> list[float | None]:
    """Each token's probability given all before it; None for the first."""
    import torch

    chances: list[float | None] = [None] * len(ids)
    if len(ids) < 2:
        return chances
    array = np.asarray(ids, dtype=np.int32)
    labels = array.copy()
    labels[0] = IGNORED
    chunk = Chunk({"input_ids": array, "labels": labels}, 0, len(ids))
    with task.running(), torch.no_grad():
        losses, _, positions = task.token_losses(task.collate([chunk]))
    for loss, position in zip(losses.tolist(), positions.tolist(), strict=True):
        chances[position] = math.exp(-loss) if math.isfinite(loss) else None
    return chances


def _merged(
    offsets: list[tuple[int, ...]], chances: list[float | None], length: int
) -> list[tuple[int, int, float | None]]:
    """(start, end, p) over the whole text: what a tokenizer skips goes with what comes after."""
    made: list[tuple[int, int, float | None]] = []
    at = 0
    for (_, last), p in zip(offsets, chances, strict=True):
        if last > at:
            made.append((at, last, p))
            at = last
        elif made:  # a further part of the same character
            start, end, before = made[-1]
            made[-1] = (start, end, None if before is None or p is None else before * p)
    if made and at < length:
        start, _, p = made[-1]
        made[-1] = (start, length, p)
    return made
