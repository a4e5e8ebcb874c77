"""What a model answers to a prompt, as a query: its own words, or its own label, are the target.

In a bank an answer is kept as what it changes in the query that was asked, so that it can be read
without the model. A model that says nothing has no answer (None).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.engine.errors import InputError
from headwater.tasks.task import to_array

if TYPE_CHECKING:
    from headwater.tasks.causal_lm import CausalLM
    from headwater.tasks.generate import Prompt
    from headwater.tasks.query import Query
    from headwater.tasks.task import Task

Answerer = Callable[["Task", "Query"], "Query | None"]


@dataclass(frozen=True)
class Greedy:
    """A language model's most probable tokens after the query's prompt.

    Args:
        max_tokens: of an answer. stop: texts that end it and are no part of it.
    """

    max_tokens: int = 16
    stop: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Says how the answer is made: other answers are kept apart in a bank."""
        return f"greedy, {self.max_tokens} tokens" + "".join(f", to {one!r}" for one in self.stop)

    def __call__(self, task: Task, query: Query) -> Query | None:
        """The prompt with the model's own completion."""
        from headwater.tasks.generate import generate, prompt_tokens

        task, prompt = worded(task, query)
        # No longer than what can be explained together with its prompt.
        room = max(1, task.max_length - len(prompt_tokens(task, prompt, 1)))
        longest = min(self.max_tokens, room)
        (made,) = generate(task, [prompt], max_tokens=longest, temperature=0, stop=self.stop)
        if not made.text.strip():
            return None
        return replace(query, completion=made.text, instead_of=None, words=None)


def worded(task: Task, query: Query) -> tuple[CausalLM, Prompt]:
    """The same, known to be a language model and a prompt.

    Raises:
        InputError: when it is not.
    """
    from headwater.tasks.causal_lm import CausalLM

    if isinstance(task, CausalLM) and query.prompt is not None:
        return task, query.prompt
    raise InputError(
        "There are no words to answer with",
        expected="a language model, and queries with a prompt",
        found=query.describe(),
        do="give answer=...: a function (task, query) -> query with the model's own answer",
    )


def answerer_name(answer: Answerer) -> str:
    """Its own `name`, or where the function is from."""
    named = getattr(answer, "name", None)
    if isinstance(named, str):
        return named
    module, name = getattr(answer, "__module__", ""), getattr(answer, "__qualname__", None)
    return f"{module}.{name or type(answer).__qualname__}"


def told(query: Query, answer: Query | None) -> dict[str, Any] | None:
    """What the answer changes in the query, JSON-serialisable.

    Raises:
        InputError: when it is an answer to something else.
    """
    if answer is None:
        return None
    asked, found = query.columns, answer.columns
    if asked is not None and found is not None and set(asked) == set(found):
        changed = {
            name: to_array(value).tolist()
            for name, value in found.items()
            if not np.array_equal(to_array(value), to_array(asked[name]))
        }
        return {"columns": changed}
    if answer.completion is not None and answer.prompt == query.prompt is not None:
        return {"completion": answer.completion}
    raise InputError(
        "An answer must keep the question",
        expected="the query's prompt with another completion, or the same columns",
        found=f"{answer.describe()} for {query.describe()}",
    )


def answered(query: Query, kept: dict[str, Any] | None) -> Query | None:
    """The answer again, from the query and what `told` gave."""
    if kept is None:
        return None
    if "completion" in kept:
        return replace(query, completion=kept["completion"], instead_of=None, words=None)
    columns = dict(query.columns or {})
    for name, value in kept["columns"].items():
        columns[name] = np.asarray(value, dtype=to_array(columns[name]).dtype)
    return replace(query, columns=columns, instead_of=None, words=None)
