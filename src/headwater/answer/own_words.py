"""A prompt alone: the model's own words after it become what is explained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.engine.errors import InputError
from headwater.tasks.query import Query

if TYPE_CHECKING:
    from headwater.index.index import Index

TOKENS = 20  # of what the model is let say


def own_words(index: Index, prompt: str, max_tokens: int = TOKENS) -> tuple[Query, str]:
    """The model's most probable words after `prompt` as a query, and the note that says so.

    Raises:
        InputError: when the index has no language model, and as `tasks.generate.completion_for`.
    """
    task = index.task
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.generate import completion_for

    if not isinstance(task, CausalLM):
        raise InputError(
            "Only a language model can go on from a prompt",
            expected="a query with its completion",
            found=f"an index of kind '{task.kind}'",
        )
    said = completion_for(task, prompt, max_tokens)
    note = f"the completion is the model's own: its {len(said.ids)} most probable tokens"
    # The last token may hold the first bytes of a character only; text can't carry them.
    return Query(prompt, said.text.rstrip("\ufffd")), note
