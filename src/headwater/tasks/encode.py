"""From a document or a query to token ids and labels, exactly as the training saw them.

Labels come from character ranges, not from separately tokenised pieces: a prompt and its completion
are tokenised as one text, as they were in training, and a token that lies across their border
belongs to the completion (`Encoded.merged` says so).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.tasks.texts import encodable

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and labels of one text, int32 [length]; `merged` if a token crosses a border."""

    ids: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    merged: bool = False


class Encoder:
    """A tokenizer with the training's conventions.

    Args:
        tokenizer: a fast Hugging Face tokenizer.
        bos, eos: whether documents begin and end with the special token; None = as the tokenizer
            does by itself.
        prompt_loss: whether prompts, too, are learnt (training on all tokens).
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        bos: bool | None = None,
        eos: bool | None = None,
        prompt_loss: bool = False,
    ) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "The tokenizer cannot say which characters a token covers",
                expected="a fast tokenizer (tokenizer.json)",
                found=type(tokenizer).__name__,
            )
        self.tokenizer = tokenizer
        own_bos, own_eos = own_specials(tokenizer)
        self.bos = _special(tokenizer, "bos", own_bos if bos is None else bos, asked=bool(bos))
        self.eos = _special(tokenizer, "eos", own_eos if eos is None else eos, asked=bool(eos))
        self.prompt_loss = prompt_loss

    def texts(self, texts: Sequence[str]) -> list[Encoded]:
        """Plain texts; every token is labelled."""
        ready = [encodable(text) for text in texts]
        batch = self.tokenizer(ready, add_special_tokens=False, verbose=False)["input_ids"]
        return [self._whole(ids, None, close=True) for ids in batch]

    def pair(self, prompt: str, completion: str, *, close: bool = True) -> Encoded:
        """Prompt and completion as one text; loss on the completion (see `prompt_loss`)."""
        start = len(prompt)
        spans = [(start, start + len(completion))]
        return self.spans(prompt + completion, spans, all_tokens=self.prompt_loss, close=close)

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> Encoded:
        """A conversation by the chat template; loss on the assistant's turns only."""
        text, spans = self.turns(messages)
        return self.spans(text, spans, special=False)

    def chat_pair(
        self,
        messages: Sequence[Mapping[str, Any]],
        completion: str,
        words: Sequence[tuple[int, int]] | None = None,
    ) -> Encoded:
        """Messages by the chat template, then `completion` as the assistant's words."""
        text = self._render(messages, add_generation_prompt=True)
        return self.continued(text, completion, words, special=False)

    def continued(
        self,
        prompt: str,
        completion: str,
        words: Sequence[tuple[int, int]] | None = None,
        *,
        special: bool = True,
    ) -> Encoded:
        """`completion` after `prompt`, labelled where `words` are: its characters; None = all."""
        start = len(prompt)
        chosen = [(0, len(completion))] if words is None else words
        spans = [(start + first, start + last) for first, last in chosen]
        made = self.spans(prompt + completion, spans, special=special)
        if words is None or not made.merged:
            return made
        # A range may begin within a token: only the border of the two texts makes them merged.
        first = self.spans(prompt + completion, spans[:1], special=special)
        return Encoded(made.ids, made.labels, first.merged and chosen[0][0] == 0)

    def tokens(self, ids: Sequence[int], labels: Sequence[int] | None) -> Encoded:
        """Already tokenised; taken as given, without special tokens."""
        array = _int32(ids)
        own = array.copy() if labels is None else _int32(labels)
        if array.ndim != 1 or own.shape != array.shape:
            raise InputError(
                "Token ids and labels do not fit",
                expected="one label for each token",
                found=f"{list(array.shape)} ids, {list(own.shape)} labels",
            )
        return Encoded(array, own)

    def spans(
        self,
        text: str,
        spans: Sequence[tuple[int, int]],
        *,
        all_tokens: bool = False,
        special: bool = True,
        close: bool = False,
    ) -> Encoded:
        """`text` with the tokens labelled that touch one of the character `spans`."""
        encoded = self.tokenizer(
            encodable(text), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        merged = False
        labelled = np.zeros(len(ids), dtype=bool)
        for position, (first, last) in enumerate(offsets):
            for start, end in spans:
                if first < end and last > start:
                    labelled[position] = True
                    merged |= first < start
        if all_tokens:
            labelled[:] = True
        if not special:
            array = np.asarray(ids, dtype=np.int32)
            return Encoded(array, np.where(labelled, array, IGNORED).astype(np.int32), merged)
        whole = self._whole(ids, labelled, close=close)
        return Encoded(whole.ids, whole.labels, merged)

    def turns(self, messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        """The conversation's text and the character range of each assistant turn.

        Raises:
            InputError: when there is no template, or the template rewrites earlier turns.
        """
        text = self._render(messages)
        spans: list[tuple[int, int]] = []
        for index, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before = self._render(messages[:index], add_generation_prompt=True)
            after = self._render(messages[: index + 1])
            if not (text.startswith(after) and after.startswith(before)):
                raise InputError(
                    "The chat template rewrites earlier turns, so assistant turns can't be located",
                    do="tokenise the corpus yourself and give input_ids and labels",
                )
            spans.append((len(before), len(after)))
        return text, spans

    def describe(self) -> dict[str, Any]:
        """The conventions, for the manifest."""
        template = getattr(self.tokenizer, "chat_template", None)
        return {
            "tokenizer": _digest(self.tokenizer.backend_tokenizer.to_str()),
            "chat_template": _digest(str(template)) if template else None,
            "bos": self.bos is not None,
            "eos": self.eos is not None,
            "prompt_loss": self.prompt_loss,
        }

    def _render(self, messages: Sequence[Mapping[str, Any]], **options: bool) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise InputError(
                "The corpus holds messages, but the tokenizer has no chat template",
                do="set tokenizer.chat_template to the training's, or give text",
            )
        if not messages:
            return ""
        return self.tokenizer.apply_chat_template(list(messages), tokenize=False, **options)

    def _whole(self, ids: Sequence[int], labelled: Any, *, close: bool) -> Encoded:
        """Add BOS (never labelled) and EOS (labelled like the last token)."""
        front = [self.bos] if self.bos is not None else []
        back = [self.eos] if self.eos is not None and close else []
        array = np.asarray([*front, *ids, *back], dtype=np.int32)
        labels = array.copy()
        labels[: len(front)] = IGNORED
        if labelled is not None:
            inner = slice(len(front), len(front) + len(ids))
            labels[inner] = np.where(labelled, array[inner], IGNORED)
        return Encoded(array, labels)


def own_specials(tokenizer: Any) -> tuple[bool, bool]:
    """Whether the tokenizer by itself puts BOS before and EOS after a text."""
    ids = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    if len(ids) == len(bare):
        return False, False
    first, last = ids[0], ids[-1]
    return (
        first == tokenizer.bos_token_id and bare[:1] != [first],
        last == tokenizer.eos_token_id and bare[-1:] != [last],
    )


def _int32(values: Sequence[int]) -> np.ndarray[Any, Any]:
    try:
        return np.asarray(values, dtype=np.int32)
    except (OverflowError, ValueError, TypeError) as error:
        raise InputError(
            "Token ids are not usable", expected="integers of 32 bits", found=str(error)
        ) from error


def _special(tokenizer: Any, name: str, wanted: bool, *, asked: bool) -> int | None:
    value = getattr(tokenizer, f"{name}_token_id", None)
    if wanted and value is None and asked:
        raise InputError(f"{name}=True was asked, but the tokenizer has no {name} token")
    return value if wanted else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
