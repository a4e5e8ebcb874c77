"""The characters that a document's tokens stand for."""

from __future__ import annotations

import numpy as np

from headwater.engine.errors import DamageError
from headwater.evidence.suffix_array import Array
from headwater.evidence.tokenizer import TextTokenizer


class Characters:
    """The text of one document, and the characters that each of its tokens stands for.

    A text is tokenised again, which says where each token came from. A document that came as
    tokens has no text but the decoded one, in which what decodes before a token ends where it
    begins.
    """

    def __init__(self, tokenizer: TextTokenizer, tokens: Array, text: str | None) -> None:
        self._tokenizer, self._tokens = tokenizer, tokens
        self._offsets: Array | None = None
        self.text = tokenizer.decode(tokens) if text is None else text
        if text is not None:
            made = tokenizer.encode(text)
            if not np.array_equal(made.ids, tokens):
                raise DamageError(
                    f"The stored tokens are not those of the text {text[:40]!r}",
                    expected=f"{len(made.ids)} tokens",
                    found=f"{len(tokens)} others" if len(tokens) != len(made.ids) else "others",
                    do="remove the folder verbatim/ of the index; it is built again",
                )
            self._offsets = made.offsets

    def __len__(self) -> int:
        return len(self._tokens)

    def range(self, first: int, end: int) -> tuple[int, int]:
        """The characters of tokens [first, end); a character that lies across counts whole."""
        first, end = max(first, 0), min(end, len(self))
        if first >= end:
            return 0, 0
        if self._offsets is not None:
            part = self._offsets[first:end]
            return int(part[:, 0].min()), int(part[:, 1].max())
        return self._decoded(first)[0], self._decoded(end)[1]

    def _decoded(self, end: int) -> tuple[int, int]:
        """Characters that tokens before `end` make up: those complete, and those begun."""
        begun = self._tokenizer.decode(self._tokens[:end])
        complete = len(_common_start(begun, self.text))
        return complete, complete + (complete < len(begun) and complete < len(self.text))


def _common_start(one: str, other: str) -> str:
    if other.startswith(one):
        return one
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return one[:low]
