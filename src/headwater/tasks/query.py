"""What is being explained: words of a model, a contrast of two answers, or a mean of queries.

Every form comes down to the same thing, a weighted sum of measurements, because all that follows
(gradients, scores) is linear in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Integral
from typing import Any

from headwater.engine.errors import InputError

Target = Sequence[tuple[int, int]] | tuple[int, int] | Sequence[float]


@dataclass(frozen=True)
class Query:
    """One thing to explain.

    Args:
        prompt: the text before the explained words, or a list of chat messages (role, content).
        completion: the words to explain.
        words: characters of the completion `(start, end)`, half-open, that are explained, a pair or
            a list of them; None = all of it. A token that lies partly in them counts as a whole.
        instead_of: a second completion, or for `columns` those that are different (another label);
            the query becomes the contrast of the two.
        input_ids: the tokens, where text is not wanted; then `target` is required.
        target: half-open positions `(start, end)` of the explained tokens (one pair may stand
            alone), or one weight for each token.
        columns: one example of any other Task, by column name.
        name: an id carried through to the answer.

    Raises:
        InputError: when the fields do not make one query.
    """

    prompt: str | Sequence[Mapping[str, str]] | None = None
    completion: str | None = None
    instead_of: str | Mapping[str, Any] | None = None
    input_ids: Sequence[int] | None = None
    target: Target | None = None
    columns: Mapping[str, Any] | None = None
    name: str | None = None
    parts: tuple[Query, ...] = field(default=())
    words: Sequence[tuple[int, int]] | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        given = [
            self.prompt is not None or self.completion is not None,
            self.input_ids is not None,
            self.columns is not None,
            bool(self.parts),
        ]
        if sum(given) != 1:
            raise InputError(
                "A query must be given in exactly one form",
                expected="prompt and completion, or input_ids and target, or columns",
                found=f"{sum(given)} of them",
            )
        if given[0] and (self.completion is None or not self.completion):
            raise InputError(
                "The query's target is empty",
                expected="a completion of at least one token",
                found=repr(self.completion),
            )
        if self.words is not None:
            object.__setattr__(self, "words", self._checked_words(self.words))
        if self.instead_of is not None:
            self._check_contrast(self.instead_of)
        if self.target is not None and self.input_ids is None:
            raise InputError("A target goes with input_ids", found=f"target={self.target!r} alone")
        if self.input_ids is not None and self.target is None:
            raise InputError(
                "A query by input_ids needs its target",
                expected="target=(start, end), a list of such pairs, or one weight per token",
                found="no target",
            )

    def _checked_words(self, given: Sequence[Any]) -> tuple[tuple[int, int], ...]:
        """As pairs in order, those that touch made one; raises InputError for others."""
        if self.completion is None or self.instead_of is not None:
            raise InputError(
                "Words are chosen of one completion",
                expected="prompt and completion, without instead_of",
                found="a contrast" if self.instead_of is not None else "no completion",
                do="leave out words, or ask of each completion by itself",
            )
        items: list[Any] = list(given)
        if len(items) == 2 and all(isinstance(item, Integral) for item in items):
            items = [tuple(items)]
        length, made = len(self.completion), list[tuple[int, int]]()
        expected = f"(start, end) pairs with 0 <= start < end <= {length}"
        for item in items:
            pair = tuple(item) if isinstance(item, list | tuple) else ()
            if len(pair) != 2 or not all(isinstance(one, Integral) for one in pair):
                raise InputError("The chosen words are no ranges", expected=expected, found=given)
            start, end = int(pair[0]), int(pair[1])
            if not 0 <= start < end <= length:
                raise InputError(
                    "The chosen words leave the completion", expected=expected, found=(start, end)
                )
            made.append((start, end))
        if not made:
            raise InputError("No words are chosen", expected=expected, found="none")
        joined: list[tuple[int, int]] = []
        for start, end in sorted(made):
            if joined and start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
            else:
                joined.append((start, end))
        return tuple(joined)

    @property
    def chosen(self) -> tuple[tuple[int, int], ...]:
        """Characters of the completion that are explained: `words`, or all of it."""
        if self.completion is None:
            return ()
        return self.words or ((0, len(self.completion)),)  # pyright: ignore - checked above

    @property
    def said(self) -> tuple[str, str]:
        """What of the completion leads to the words that are explained, and these words.

        What follows them had no part in the choice of them, and what leads there is read as the
        prompt is. Ranges that lie apart are put together.
        """
        whole = self.completion or ""
        chosen = self.chosen
        if not chosen:
            return "", whole
        return whole[: chosen[0][0]], " ".join(whole[start:end] for start, end in chosen)

    def _check_contrast(self, other: str | Mapping[str, Any]) -> None:
        columns = self.columns
        if columns is not None:
            if isinstance(other, str) or not other or not set(other) <= set(columns):
                raise InputError(
                    "A contrast of columns names those that are different",
                    expected=f"instead_of={{...}} with some of {', '.join(columns)}",
                    found=repr(other) if isinstance(other, str) else ", ".join(other) or "none",
                )
        elif self.completion is None or not isinstance(other, str) or not other:
            raise InputError(
                "A contrast needs two completions",
                expected="completion and instead_of, both of at least one token",
                found=f"instead_of={other!r}",
            )

    @property
    def other(self) -> str | None:
        """`instead_of` in words; None where there is no contrast."""
        if self.instead_of is None or isinstance(self.instead_of, str):
            return self.instead_of
        return f"another {', '.join(self.instead_of)}"

    @classmethod
    def mean(cls, queries: Sequence[Query]) -> Query:
        """The mean of several queries, as one query (for curation towards a set)."""
        if not queries:
            raise InputError("A mean query needs queries", expected="at least one", found="none")
        return cls(parts=tuple(queries))

    def describe(self) -> str:
        """The query in a few words, for messages and tables."""
        if self.parts:
            return f"mean of {len(self.parts)} queries"
        if self.columns is not None:
            other = "" if self.instead_of is None else f" instead of {self.other}"
            return f"columns {', '.join(self.columns)}{other}"
        if self.input_ids is not None:
            return f"{len(self.input_ids)} tokens, target {self.target}"
        other = f" instead of {self.instead_of!r}" if self.instead_of else ""
        if self.words is not None and self.completion is not None:
            said = self.completion
            other = f" ({', '.join(repr(said[start:end]) for start, end in self.chosen)} of it)"
        return f"{self.prompt!r} -> {self.completion!r}{other}"


def token_weights(target: Target, length: int) -> list[float]:
    """`target` as one weight for each of `length` tokens.

    Raises:
        InputError: when a range leaves the tokens, a weight is missing, or nothing is selected.
    """
    items: list[Any] = list(target)
    pair = len(items) == 2 and all(isinstance(item, Integral) for item in items)
    if pair and (length != 2 or isinstance(target, tuple)):  # [1, 2] weighs two tokens
        items = [tuple(items)]
    if items and all(isinstance(item, (tuple, list)) for item in items):
        weights = [0.0] * length
        for start, end in items:
            if not 0 <= start < end <= length:
                raise InputError(
                    "The query's target leaves its tokens",
                    expected=f"0 <= start < end <= {length}",
                    found=(start, end),
                )
            weights[start:end] = [1.0] * (end - start)
    elif len(items) == length:
        weights = [float(item) for item in items]
    else:
        raise InputError(
            "The query's target does not fit its tokens",
            expected=f"(start, end) pairs, or {length} weights",
            found=f"{len(items)} values",
        )
    if not all(isfinite(weight) for weight in weights):
        raise InputError("The query's weights are not finite", found=weights)
    if not any(weights):
        raise InputError("The query's target is empty", expected="at least one token")
    if not any(weights[1:]):
        raise InputError(
            "The query's target is only its first token, which nothing predicts",
            expected="a target after position 0",
        )
    return weights
