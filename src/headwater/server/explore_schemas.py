"""What requests of the exploring half may hold: see `schemas.py`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from headwater.evidence.filter_grammar import LONGEST
from headwater.server.schemas import AskedQuery, Name, OfIndex, Request

MOST_IDS = 200_000
MOST_ROWS = 200_000  # of a selection
MOST_SET = 20_000_000  # characters of an uploaded set

Cuts = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=20)]
Id = Annotated[str, Field(max_length=10_000)]


class Side(OfIndex):
    """One of two rankings: an index, a query, a method; of the examples that pass a filter."""

    query: AskedQuery
    method: Name | None = None
    filter: Annotated[str, Field(max_length=LONGEST)] | None = None


class Effect(Side):
    """What dropping these examples would do to the query."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS)]


class Agreement(Request):
    """Two rankings side by side."""

    sides: Annotated[list[Side], Field(min_length=2, max_length=2)]
    k: Cuts = Field(default=[10, 100])


class Words(OfIndex):
    """The words that tell these examples from the rest of the corpus."""

    positions: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=1000)]
    k: Annotated[int, Field(ge=1, le=200)] = 20


class Thin(Side):
    """Where the corpus is thin around a query; by: a metadata column."""

    by: Name | None = None


class MapOf(OfIndex):
    """A map of the examples, by their gradients or by their meaning."""

    of: Literal["features", "semantic"] = "features"


class Upload(Request):
    """A query set: its name and its lines."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    lines: Annotated[str, Field(max_length=MOST_SET)]


class Export(Request):
    """An answer or a selection to be made a file."""

    what: Literal["answer", "selection"]
    format: Annotated[str, Field(max_length=40)]
    answer: dict[str, Any] | None = None
    rows: Annotated[list[dict[str, Any]], Field(max_length=MOST_ROWS)] | None = None
