"""What a request may hold; OpenAPI is made of these, and what does not fit is refused in words.

Nothing here is a path: indexes, query sets and boards are named as the session names them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from headwater.evidence.filter_grammar import LONGEST

if TYPE_CHECKING:
    from headwater.tasks.query import Query

MOST_TOP = 1000  # examples at either end of an answer
MOST_TOKENS = 2048  # that a model is let say
MOST_CHARACTERS = 1_000_000  # of a prompt or a completion

Text = Annotated[str, Field(max_length=MOST_CHARACTERS)]
Name = Annotated[str, Field(min_length=1, max_length=300)]
Where = tuple[Name, Annotated[list[str | int | float | bool], Field(min_length=1, max_length=1000)]]


class Request(BaseModel):
    """A request with nothing in it that it does not know."""

    model_config = ConfigDict(extra="forbid")


class AskedQuery(Request):
    """What is explained; `words` are characters [start, end) of the completion, None = all."""

    prompt: Text = ""
    completion: Text = ""
    instead_of: Text | None = None
    words: Annotated[list[tuple[int, int]], Field(max_length=1000)] | None = None

    def query(self) -> Query:
        """The same as the library has it; raises InputError for what makes no query."""
        from headwater.tasks.query import Query

        other = self.instead_of or None
        return Query(self.prompt, self.completion, other, words=self.words or None)


class OfIndex(Request):
    """Work on one index."""

    index: Name


class Generate(OfIndex):
    """A continuation by the model, streamed."""

    prompt: Text
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 40
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.7
    top_k: Annotated[int, Field(ge=0)] = 20
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.8
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class Tokens(OfIndex):
    """A prompt and a completion in tokens, with the model's probabilities."""

    prompt: Text
    completion: Text


class Ask(OfIndex):
    """The examples behind an output. Without a completion, the model's own words are explained."""

    query: AskedQuery
    method: Name | None = None
    evidence: Annotated[list[Name], Field(min_length=1, max_length=4)] | None = None
    top: Annotated[int, Field(ge=1, le=MOST_TOP)] = 10
    by: Annotated[list[Name], Field(max_length=20)] = []
    uncertainty: Annotated[int, Field(ge=0, le=100)] = 0
    candidates: tuple[Name, Annotated[int, Field(ge=1, le=100_000)]] | None = None
    where: Where | None = None
    filter: Annotated[str, Field(max_length=LONGEST)] | None = None
    fusion: Name = "rrf"
    calibrate: bool = True
    tokens: bool = True


class Pair(OfIndex):
    """Which words of one example each word of the output leans on."""

    query: AskedQuery
    method: Name | None = None
    position: Annotated[int, Field(ge=0)]


class Verify(OfIndex):
    """An answer put to the test."""

    query: AskedQuery
    method: Name | None = None
    top: Annotated[int, Field(ge=1, le=MOST_TOP)] = 5
    seeds: Annotated[int, Field(ge=1, le=100)] = 1
    group: tuple[Name, str | int | float | bool] | None = None


class Load(Request):
    """Consent to load a model that somebody else's index names."""

    trust: bool
