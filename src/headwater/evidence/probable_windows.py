"""Windows of an output in which the model was sure of every token, and whether the prompt has them.

Wuhrmann et al. (ACL-SRW 2025, arXiv 2507.01844) call them low-perplexity sequences: windows of
six tokens, one starting at each token, in which every token's perplexity 1 / p is at most 1 / 0.9.
A run of L such tokens in a row makes L - 5 windows.

We take p from the model's own distribution. The paper's code (Reliable-Information-Lab-HEVS,
src/utils.py) reads the scores that `generate` returns, which are already tempered and cut to top-k
and top-p: there a token is "sure" more easily, and more so the lower the temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headwater.engine.errors import InputError

LENGTH, STRIDE, THRESHOLD = 6, 1, 0.9
OVERLAPS = ("inside", "overlaps", "none")


def probable_runs(
    p: Sequence[float], threshold: float = THRESHOLD, least: int = 1
) -> list[tuple[int, int]]:
    """Maximal runs [start, end) of at least `least` tokens with p >= threshold; NaN ends a run."""
    runs: list[tuple[int, int]] = []
    start = 0
    for position in range(len(p) + 1):
        if position < len(p) and p[position] >= threshold:
            continue
        if position - start >= least:
            runs.append((start, position))
        start = position + 1
    return runs


def probable_windows(
    p: Sequence[float], length: int = LENGTH, threshold: float = THRESHOLD, stride: int = STRIDE
) -> list[int]:
    """Starts of the windows of `length` tokens in which every token has p >= threshold.

    Args:
        p: of each token of one output.
        length, threshold: what makes a window.
        stride: from one window of a run to the next; each run begins anew.

    Raises:
        InputError: for a length below 1, a stride outside 1 to `length`, or a threshold that is no
            probability above 0.
    """
    if length < 1 or not 1 <= stride <= length or not 0 < threshold <= 1:
        raise InputError(
            "There are no such windows",
            expected="length 1 or more, stride from 1 to length, threshold above 0, at most 1",
            found=f"length {length}, stride {stride}, threshold {threshold}",
        )
    return [
        first
        for start, end in probable_runs(p, threshold, length)
        for first in range(start, end - length + 1, stride)
    ]


def prompt_overlap(text: Callable[[int, int], str], length: int, prompt: str) -> str:
    """How a window stands to its prompt, by text: "inside", "overlaps" or "none".

    "inside": the prompt holds the whole window (white space at its ends left aside); "overlaps": it
    holds at least half of the window's tokens, one after the other.

    Args:
        text: the text of the window's tokens [start, end). length: how many it has.
    """
    half = (length + 1) // 2
    for size in range(length, half - 1, -1):
        for start in range(length - size + 1):
            part = text(start, start + size).strip()
            if part and part in prompt:
                return "inside" if size == length else "overlaps"
    return "none"


def prompt_words(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """The words of a prompt; of chat messages, one to a line."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(str(message.get("content", "")) for message in prompt)
