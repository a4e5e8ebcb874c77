"""Random: uniform scores, the control of every table. A method that does not beat it says nothing.

A score depends on the seed, the query and the example's id alone: not on the order of the corpus,
its size, or the platform.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headwater.corpus.document import content_hash
from headwater.evidence.ranker import refuse_modules
from headwater.methods.method import Method, Scores
from headwater.tasks.task import to_array

if TYPE_CHECKING:
    from headwater.index.index import Index
    from headwater.index.selection import Mask
    from headwater.tasks.query import Query

BLOCK = 65536  # documents scored at a time

Array = np.ndarray[Any, Any]


class Random(Method):
    """Uniform in [0, 1), by (seed, query, example id)."""

    name, title, additive = "random", "Random", False
    influence = False
    unit = "uniform in [0, 1) (a control; means nothing)"
    needs = "nothing"
    costs = "next to nothing"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def stream(
        self,
        index: Index,
        queries: Sequence[Query],
        modules: Sequence[str] | None = None,
        among: Mask | None = None,
    ) -> Scores:
        """Random scores, float32 [queries, documents] a block; NaN outside `among`."""
        refuse_modules(self, modules)
        keys = np.asarray([_number(f"{self.seed}|{digest(query)}") for query in queries])
        for first in range(0, len(index), BLOCK):
            names = index.ids[first : first + BLOCK]
            examples = np.asarray([_number(name) for name in names], dtype=np.uint64)
            # 24 bits: what a float32 in [0, 1) holds without rounding up to 1
            block = (_mixed(keys[:, None] ^ examples) >> np.uint64(40)).astype(np.float32)
            block *= np.float32(2.0**-24)
            if among is not None:
                block[:, ~among[first : first + len(names)]] = np.nan
            yield first, block

    def describe(self) -> dict[str, Any]:
        """Name and seed."""
        return {"method": self.name, "seed": self.seed}


def digest(query: Query) -> str:
    """A hash of what a query asks, 64 hex digits; its name does not count."""
    prompt: Any = query.prompt
    if prompt is not None and not isinstance(prompt, str):
        prompt = [dict(message) for message in prompt]
    columns, other = query.columns or {}, query.instead_of
    return content_hash(
        {
            "prompt": prompt,
            "completion": query.completion,
            "instead_of": other
            if other is None or isinstance(other, str)
            else {name: to_array(value) for name, value in other.items()},
            "input_ids": None if query.input_ids is None else [int(i) for i in query.input_ids],
            "target": None if query.target is None else np.asarray(query.target, np.float64),
            "columns": {name: to_array(value) for name, value in columns.items()},
            "parts": [digest(part) for part in query.parts],
        }
    )


def _number(text: str) -> np.uint64:
    found = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(found, "little"))


def _mixed(x: Array) -> Array:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
